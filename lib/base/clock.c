#include "base/clock.h"

#include <time.h>

static uint64_t read_clock(clockid_t clock)
{
        struct timespec t;

        clock_gettime(clock, &t);
        return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

uint64_t clock_now_ns(void)
{
        return read_clock(CLOCK_MONOTONIC);
}

uint64_t clock_boot_ns(void)
{
#ifdef CLOCK_BOOTTIME
        return read_clock(CLOCK_BOOTTIME);
#else
        return read_clock(CLOCK_MONOTONIC);
#endif
}
