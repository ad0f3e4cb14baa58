/* base/clock.h - time. Everything that waits or ages uses it; nothing else reads a clock.
 *
 * Times are nanoseconds of CLOCK_MONOTONIC in a uint64_t; CLOCK_NEVER is a time that does not come. Sums saturate
 * there, so a deadline computed from any duration is safe.
 */
#ifndef LIDO_BASE_CLOCK_H
#define LIDO_BASE_CLOCK_H

#include <stdint.h>

#define CLOCK_NEVER UINT64_MAX
#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

/* Now. Threads: any. Costs about 30 ns: never on a hot path. */
uint64_t clock_now_ns(void);

/* Now, on a clock that goes on while the machine is suspended; equal to clock_now_ns where there is none. */
uint64_t clock_boot_ns(void);

/* How long the machine has been suspended in all, as far as the two clocks know: rather too little than too much. */
static inline uint64_t clock_suspended_ns(void)
{
        uint64_t boot = clock_boot_ns(), now = clock_now_ns(); /* in this order: a pause between the two makes it less */

        return boot > now ? boot - now : 0;
}

/* `time` plus `ms` milliseconds; a negative `ms` means never. */
static inline uint64_t clock_after_ms(uint64_t time, int64_t ms)
{
        if (ms < 0 || (uint64_t)ms > (CLOCK_NEVER - time) / NS_PER_MS)
                return CLOCK_NEVER;
        return time + (uint64_t)ms * NS_PER_MS;
}

/* The deadline of somebody who gives himself `timeout_ms` from now, of whom 0 and below say that there is none. */
static inline uint64_t clock_deadline(int64_t timeout_ms)
{
        return timeout_ms > 0 ? clock_after_ms(clock_now_ns(), timeout_ms) : CLOCK_NEVER;
}

/* The way back: how many milliseconds are left, rounded up, for those to whom 0 would say something else. 1 when none is; -1 for
 * a deadline that does not come. */
static inline int64_t clock_timeout_ms(uint64_t deadline_ns)
{
        uint64_t now = clock_now_ns();

        if (deadline_ns == CLOCK_NEVER)
                return -1;
        return deadline_ns > now ? (int64_t)((deadline_ns - now + NS_PER_MS - 1) / NS_PER_MS) : 1;
}

static inline uint64_t clock_min(uint64_t a, uint64_t b)
{
        return a < b ? a : b;
}

#endif
