/* lido/clock.h - which clock lido goes by.
 *
 * By default the machine's own, CLOCK_MONOTONIC. A test of the embedder's that wants a day of upkeep in a moment, and the same in
 * each run, puts a clock of its own in the place, once, before anything else, and says so whenever it has moved it:
 *
 *      static _Atomic uint64_t now = 1;
 *      static uint64_t read_it(void *context) { return now; }
 *
 *      struct lido_clock clock = LIDO_CLOCK_INIT;
 *      clock.now_ns = read_it;
 *      lido_set_clock(&clock);
 *      ...
 *      now += 600 * UINT64_C(1000000000);
 *      lido_clock_moved();
 *
 * From then on time is what that clock says: idle timeouts, lifetimes, checks, back-off, leaks, the deadlines of acquires, of hooks
 * and of leases, timers of lido/loop.h, delayed jobs, decay. The kernel cannot wait for a time of that clock. So
 * nothing becomes due while it stands, and nothing is noticed before lido_clock_moved is called: threads asleep in a call of lido
 * look at their deadline again then, and so do every service and every lido_loop, each on its own thread. A clock that goes by itself
 * (ten times as fast, say) needs that call now and then.
 *
 * What lido waits for beyond the process goes by both: a wait of liblido-pg for a socket ends when the socket has
 * something to say, and looks at the clock every 10 ms of real time. What servers, kernels and name services keep time of
 * themselves (statement_timeout, TCP's timeouts, a lookup) is theirs. Real time alone counts where a processor is to be kept busy
 * for a moment: a spin, the linger_us of workers, a worker's answer to backtrace_signal.
 */
#ifndef LIDO_CLOCK_H
#define LIDO_CLOCK_H

#include "lido/pool.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Both are called from any thread, also from several at a time and in signal handlers that call lido, and perhaps while lido holds a
 * lock: neither may call lido, nor block. */
struct lido_clock {
        size_t size;
        /* The time in nanoseconds, from any beginning: above zero, never less than it was, and far below UINT64_MAX. */
        uint64_t (*now_ns)(void *context);
        /* The same on a clock that goes on while the machine is suspended. That it has gained a second on now_ns is a suspend
         * (LIDO_EVENT_SUSPENDED). NULL: there is none. */
        uint64_t (*boot_ns)(void *context);
        void *context;
};
#define LIDO_CLOCK_INIT LIDO_SIZED(lido_clock)

/* Let lido go by `clock`, or again by the machine's (NULL).
 * Threads: one at a time, before any other function of lido. Blocks: no. Owns: the struct is copied; functions and context
 * must stay.
 * Returns: LIDO_OK; LIDO_EBUSY once lido has looked at a clock, or slept; LIDO_EINVAL without now_ns; LIDO_E2NEW. */
LIDO_API int lido_set_clock(const struct lido_clock *clock);

/* The clock of lido_set_clock has moved: whoever waits for a time looks again. What has become due happens where it would have
 * without this, soon after, not inside. Without a clock of one's own it does nothing.
 * Threads: any, also inside a callback or a hook. Blocks: no. Owns: nobody. */
LIDO_API void lido_clock_moved(void);

/* The time by which lido goes: for lido_timer_set, or beside lido_op_deadline_ns.
 * Threads: any. Blocks: no. Owns: nobody. Returns: nanoseconds, on CLOCK_MONOTONIC unless there is another clock. */
LIDO_API uint64_t lido_now_ns(void);

/* The clock that was set. Threads: any. Blocks: no. Owns: lido, for ever. Returns: NULL when it is the machine's. */
LIDO_API const struct lido_clock *lido_clock_in_use(void);

/* Who waits for a time by means of his own, a factory say, and wants to know when the clock has moved. Clear it before its first
 * use. */
struct lido_clock_watch {
        void (*moved)(struct lido_clock_watch *watch); /* on the thread that calls lido_clock_moved; must not block nor unwatch */
        uint64_t own[4]; /* lido's */
};

/* Have watch->moved called whenever the clock has moved.
 * Threads: any. Blocks: no. Owns: the watch is lido's until lido_clock_unwatch. */
LIDO_API void lido_clock_watch(struct lido_clock_watch *watch);

/* No more. Harmless if it is not watched. Threads: any, but not inside `moved`. Blocks: until a `moved` under way has returned.
 * Owns: the watch is the caller's again. */
LIDO_API void lido_clock_unwatch(struct lido_clock_watch *watch);

#ifdef __cplusplus
}
#endif
#endif
