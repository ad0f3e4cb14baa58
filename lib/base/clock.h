/* base/clock.h - time. Everything that waits or ages uses it; nothing else reads a clock.
 *
 * Times are nanoseconds of CLOCK_MONOTONIC in a uint64_t, or of a clock that the embedder has set in its place (lido/clock.h).
 * CLOCK_NEVER is a time that does not come. Sums saturate there, so a deadline computed from any duration is safe.
 *
 * A deadline becomes a wait of the kernel's in few places: park.c for threads, clock_timer_ms for loops, clock_poll_ms for
 * poll(2). These know that the kernel cannot wait by the embedder's clock, and nobody else needs to.
 */
#ifndef LIDO_BASE_CLOCK_H
#define LIDO_BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define CLOCK_NEVER UINT64_MAX
#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

/* Now. Threads: any. Costs about 30 ns: never on a hot path. */
uint64_t clock_now_ns(void);

/* Now, on a clock that goes on while the machine is suspended; equal to clock_now_ns where there is none. */
uint64_t clock_boot_ns(void);

/* The machine's own time, whatever clock is set: for how long to keep a processor busy, and nothing else. */
uint64_t clock_real_ns(void);

/* Has the embedder set a clock of his own? */
bool clock_is_theirs(void);

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

/* For how long a timer of a loop is set, in milliseconds, rounded up: 0 when the time has come; -1: none, because it does not come,
 * or because lido_clock_moved will wake the loop. */
static inline int64_t clock_timer_ms(uint64_t due_ns)
{
        uint64_t now = clock_now_ns();

        if (due_ns <= now)
                return 0;
        if (due_ns == CLOCK_NEVER || clock_is_theirs())
                return -1;
        return (int64_t)((due_ns - now + NS_PER_MS - 1) / NS_PER_MS);
}

/* For how long to poll(2), likewise; nobody wakes it when a clock of theirs has moved, so it looks often, and after it so does the
 * caller. */
#define CLOCK_POLL_MOST_MS 3600000
#define CLOCK_POLL_THEIRS_MS 10
static inline int clock_poll_ms(uint64_t due_ns)
{
        int64_t ms = clock_timer_ms(due_ns);

        if (ms < 0)
                return due_ns == CLOCK_NEVER ? -1 : CLOCK_POLL_THEIRS_MS;
        return ms < CLOCK_POLL_MOST_MS ? (int)ms : CLOCK_POLL_MOST_MS;
}

static inline uint64_t clock_min(uint64_t a, uint64_t b)
{
        return a < b ? a : b;
}

#endif
