#include "base/clock.h"

#include <time.h>

#include "lido/clock.h"

static uint64_t read_clock(clockid_t clock)
{
        struct timespec t;

        clock_gettime(clock, &t);
        return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

uint64_t clock_real_ns(void)
{
        return read_clock(CLOCK_MONOTONIC);
}

bool clock_is_theirs(void)
{
        return lido_clock_in_use() != NULL;
}

/* 0 means "never looked" to some. */
static uint64_t read_theirs(uint64_t (*read)(void *), void *context)
{
        uint64_t time = read(context);

        return time > 0 ? time : 1;
}

uint64_t clock_now_ns(void)
{
        const struct lido_clock *theirs = lido_clock_in_use();

        if (__builtin_expect(theirs != NULL, 0))
                return read_theirs(theirs->now_ns, theirs->context);
        return read_clock(CLOCK_MONOTONIC);
}

uint64_t clock_boot_ns(void)
{
        const struct lido_clock *theirs = lido_clock_in_use();

        if (__builtin_expect(theirs != NULL, 0))
                return read_theirs(theirs->boot_ns ? theirs->boot_ns : theirs->now_ns, theirs->context);
#ifdef CLOCK_BOOTTIME
        return read_clock(CLOCK_BOOTTIME);
#else
        return read_clock(CLOCK_MONOTONIC);
#endif
}
