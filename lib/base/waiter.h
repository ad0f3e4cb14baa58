/* base/waiter.h - somebody who waits for something: a thread asleep, or a request on an event loop.
 *
 * A waiter lives in the caller's memory (a stack frame, a request), so waiting cannot fail for want of it. It stands in
 * a list under the lock of whatever it waits for. Its outcome is settled by one compare-and-swap out of WAITING or
 * POKED: give, timeout, cancel, failure and close may race, and exactly one of them wins. The loser learns that it lost:
 * a giver offers its gift to the next in line, a timed-out thread takes the gift it has got.
 *
 * Order of a give, under the lock: unlink; write the gift; settle. After a successful settle a thread's waiter may be
 * gone at any moment, so the giver keeps only the address of its word, for park_wake, which does not read it. A
 * request's waiter is alive until `notify` has been called, because only that brings its callback about.
 */
#ifndef LIDO_BASE_WAITER_H
#define LIDO_BASE_WAITER_H

#include "base/atomic.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/park.h"

enum waiter_state {
        WAITER_WAITING,
        WAITER_POKED, /* still waiting, but asked to look again; only for threads */
        WAITER_GIVEN,
        WAITER_TIMED_OUT,
        WAITER_CANCELED,
        WAITER_FAILED, /* `code` says why */
};

struct waiter {
        _Atomic uint32_t state;           /* atomic; slept on by a thread */
        int code;                         /* written before FAILED is settled, read after */
        struct list link;                 /* guarded by the lock of the queue */
        void (*notify)(struct waiter *w); /* NULL: a thread, to be woken; else called once after settling; constant */
};

static inline void waiter_init(struct waiter *w, void (*notify)(struct waiter *))
{
        store_relaxed(&w->state, WAITER_WAITING);
        w->code = 0;
        list_init(&w->link);
        w->notify = notify;
}

static inline bool waiter_is_settled(struct waiter *w)
{
        return load_acquire(&w->state) >= WAITER_GIVEN;
}

/* Settle the outcome. Returns: true if this call did, false if another was first. */
static inline bool waiter_settle(struct waiter *w, enum waiter_state outcome)
{
        uint32_t seen = load_relaxed(&w->state);

        while (seen < WAITER_GIVEN)
                if (cas_acq_rel(&w->state, &seen, (uint32_t)outcome))
                        return true;
        return false;
}

/* Ask a waiting thread to look again. Returns: false if it is settled or poked already. */
static inline bool waiter_poke(struct waiter *w)
{
        uint32_t seen = WAITER_WAITING;

        return cas_acq_rel(&w->state, &seen, (uint32_t)WAITER_POKED);
}

/* Sleep until settled, poked, or the deadline. A poke is consumed. Returns: the state on return, WAITER_WAITING when the
 * deadline has passed and nothing else has happened. */
static inline enum waiter_state waiter_sleep(struct waiter *w, uint64_t deadline_ns)
{
        for (;;) {
                uint32_t seen = load_acquire(&w->state);

                if (seen >= WAITER_GIVEN)
                        return (enum waiter_state)seen;
                if (seen == WAITER_POKED) {
                        if (cas_acq_rel(&w->state, &seen, (uint32_t)WAITER_WAITING))
                                return WAITER_POKED;
                        continue;
                }
                if (!park_wait(&w->state, WAITER_WAITING, deadline_ns)) {
                        seen = load_acquire(&w->state);
                        if (seen == WAITER_WAITING)
                                return WAITER_WAITING;
                }
        }
}

#endif
