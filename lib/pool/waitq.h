/* pool/waitq.h - the one line in which threads and loops wait, and the one function that serves it.
 *
 * Law 2. A releaser stores the new state, then reads the gate; a waiter raises the gate, then scans. Both in seq_cst, so
 * one of them sees the other: an object never lies idle while somebody sleeps for it.
 *
 * Law 3. Only waitq_serve and pool_offer, which share waitq_give, give slots to waiters, oldest first within a class, and serving goes
 * on until slots or waiters run out. Whoever makes a slot idle while the gate is raised calls one of them.
 *
 * Order. How a freed slot reaches the line depends on how long it was held. Waking a thread costs microseconds and a
 * hand-over cannot be faster, so:
 *   - after a long hold the slot goes to the oldest waiter from hand to hand (LEASED -> LEASED): nobody overtakes;
 *   - after a short hold it falls idle, newcomers may take it, and at most one poke ("look again") is on its way to the
 *     oldest waiter; but a hand-over is forced once `overtake_us` have passed since the last, so nobody starves;
 *   - a request on an event loop is never poked, always handed to.
 *
 * Classes. Within a class the line is FIFO. Between classes it is as if the higher one had come `ageing_ms` earlier, so
 * nobody starves. Whoever's quota is used up is passed over.
 *
 * Interleavings that were nearly missed:
 *   - A poked waiter leaves (given, timed out, failed) without having looked. The poke dies with it, and slots that fell
 *     idle on its account stay idle. So whoever unlinks a poked waiter takes the poke back under the lock, and serves.
 *   - A releaser stores IDLE and finds a poke under way: it may go, because the poked waiter takes the poke back before
 *     it scans; both in seq_cst again.
 *   - A giver that loses the settlement (the waiter timed out a moment ago) still has the slot in hand: it goes on with
 *     the next in line, and puts it back only when the line is empty, before it gives up the lock. Whoever joins the
 *     line after that serves it himself (law 2).
 *   - A waiter is given a slot while it fails its deadline: settling decides, and the thread that lost takes the gift.
 *
 * Locks: waitq.lock is the only one. Under it letters are sent to the keeper, whose mailbox has no lock, and memory is taken when a
 * pool is opened, grows or is reconfigured: the locks of memory (base/shelf.h, region.c) are the innermost.
 * Nobody is woken under it.
 */
#ifndef LIDO_POOL_WAITQ_H
#define LIDO_POOL_WAITQ_H

#include "base/waiter.h"
#include "pool/pool.h"

/* Where a slot comes from: from another borrower's hand, or from where it lay idle or at rest, and may have died. */
enum origin { FROM_HAND, FROM_IDLE, FROM_REST };

struct pool_waiter {
        struct waiter waiter;     /* link is guarded by waitq.lock */
        struct lido_pool *pool;   /* constant */
        struct lido_slot *slot;   /* written before GIVEN is settled, read after */
        uint64_t generation;      /* likewise */
        enum origin origin;       /* likewise: whether to look at it before use */
        bool is_canceled;         /* guarded by waitq.lock: cancelled before it was in line */
        bool is_poked;            /* guarded by waitq.lock */
        struct heap_node timed;   /* guarded by waitq.lock: when the keeper is to time it out */
        uint64_t keeper_due_ns;   /* constant: CLOCK_NEVER for those who keep their deadline themselves */
        bool is_front;            /* constant: it had been served a dead object and goes back to its place */
        uint64_t began_ns;        /* constant: since when it waits */
        const char *site, *tag;   /* constant */
        uint32_t thread;          /* constant */
        uint8_t priority;         /* constant: enum lido_priority */
        uint8_t quota;            /* constant: the quota of its tag; taken by whoever gives */
        bool is_nested;           /* constant: its thread holds a lease of this pool */
        bool is_many;             /* constant: which is as it should be */
};

/* Stand in line. Returns: LIDO_OK; LIDO_ECLOSED, LIDO_EPAUSED, LIDO_EQUEUEFULL, LIDO_EUNAVAIL, LIDO_EDEADLK, LIDO_ECANCELED and the waiter is
 * not in it. On LIDO_OK the caller calls waitq_serve next: the line may be waiting for nothing. */
int waitq_join(struct lido_pool *pool, struct pool_waiter *w);

/* Give idle slots to those in line until one of the two runs out. Threads: any, no lock held. */
void waitq_serve(struct lido_pool *pool);

/* The waiter looked: take its poke back, then serve. */
void waitq_look(struct lido_pool *pool, struct pool_waiter *w);

/* The waiter has settled its own outcome: get it out of the line, wherever it is. */
void waitq_leave(struct lido_pool *pool, struct pool_waiter *w);

/* Cancel a request, whose outcome `notify` tells. Returns: LIDO_OK; LIDO_EBUSY when another outcome was first. Threads: any. */
int waitq_cancel(struct lido_pool *pool, struct pool_waiter *w);

/* Since when the one waits who has waited longest; CLOCK_NEVER: nobody waits. Threads: any. */
uint64_t waitq_oldest_ns(struct lido_pool *pool);

/* Fail all who are in line. Threads: any, no lock held. */
void waitq_fail_all(struct lido_pool *pool, int code);

/* Time out those in line whose deadline the keeper keeps, and shed in a standing queue (codel.h) although nothing comes back.
 * Returns: when to look again. Keeper's thread. */
uint64_t waitq_expire(struct lido_pool *pool, uint64_t now);

/* Put back a slot that the caller owns as a lease of `generation`: to the oldest waiter, or idle. */
void pool_offer(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation);

/* A slot has fallen idle after a short hold while the gate was raised: poke the oldest, or hand over. */
void waitq_poke(struct lido_pool *pool);

static inline uint32_t waitq_length(struct lido_pool *pool)
{
        return (uint32_t)(load_seq_cst(&pool->gate) & GATE_COUNT);
}

#endif
