/* pool/pool.h - what a pool is made of, and the gate that acquire and release look at.
 *
 * The gate is one word: how many stand in line, and bits that say "not the fast way". Acquire looks at its bits before it
 * claims, release after it has put back (law 2, waitq.h). It is on a line of its own, written only when somebody
 * begins or ends to wait or when the pool changes its ways.
 *
 * A pool's memory keeps its type for ever (base/shelf.h): a releaser may look at the gate after its object was the last
 * thing that kept the pool alive. So its mutex, too, is never destroyed.
 */
#ifndef LIDO_POOL_POOL_H
#define LIDO_POOL_POOL_H

#include "base/heap.h"
#include "base/inbox.h"
#include "base/list.h"
#include "base/mutex.h"
#include "base/random.h"
#include "base/thread.h"
#include "lido/events.h"
#include "lido/pool.h"
#include "lido/stats.h"
#include "pool/slots.h"

#define GATE_COUNT UINT64_C(0xffffffff)         /* waiters in line */
#define GATE_SCANNING (UINT64_C(1) << 32)       /* a try has scanned in vain and scans once more */
#define GATE_EXHAUSTED (UINT64_C(1) << 33)      /* nothing is idle: a try need not look */
#define GATE_NAPPING (UINT64_C(1) << 34)        /* the keeper makes no passes: wake it when something moves */
#define GATE_CLOSED (UINT64_C(1) << 35)
#define GATE_PAUSED (UINT64_C(1) << 36)
#define GATE_FORKED (UINT64_C(1) << 37)         /* the parent's pool, seen in a child */
#define GATE_CAREFUL_ACQUIRE (UINT64_C(1) << 38) /* each acquire has more to do: peek, clock, order */
#define GATE_CAREFUL_RELEASE (UINT64_C(1) << 39) /* each release has more to do: verdict, uses, clock, order */
#define GATE_ORPHANED (UINT64_C(1) << 40)       /* the service is gone */

/* Acquire leaves the fast way when one of these is set; */
#define GATE_ACQUIRE (GATE_CLOSED | GATE_PAUSED | GATE_FORKED | GATE_CAREFUL_ACQUIRE | GATE_ORPHANED)
/* so does release; */
#define GATE_RELEASE_SLOW (GATE_COUNT | GATE_CAREFUL_RELEASE | GATE_CLOSED | GATE_FORKED | GATE_ORPHANED)
/* and whoever has made a slot idle has something to do when one of these is. */
#define GATE_NOTICE (GATE_COUNT | GATE_SCANNING | GATE_EXHAUSTED | GATE_NAPPING | GATE_CLOSED | GATE_ORPHANED)

/* The idle timeout is watched in so many pieces: an object goes at most one piece late. */
#define IDLE_PERIODS 8

/* What the pool needs of whoever keeps it; the layer above provides it. Outlives every pool (base/shelf.h). */
struct pool_host {
        struct inbox slots;  /* slots on their way to the keeper, with their ownership */
        struct inbox called; /* pools that want to be tended */
        void (*wake)(struct pool_host *host);     /* any thread, no lock held; cheap when it is awake already */
        _Atomic uint32_t thread;                  /* the loop's thread id; 0 before it runs */
        struct uv_loop_s *loop;                   /* constant while it runs; for watch hooks, never looked into */
};

/* The line of those who wait; waitq.h says how. */
struct waitq {
        struct mutex lock;          /* guards all below, and where said so in struct lido_pool */
        struct list line;           /* oldest first */
        struct heap timed;          /* of these, those whose deadline the keeper keeps */
        _Atomic uint32_t poke_sent; /* written under lock: a poked waiter is on its way to look */
        _Atomic uint64_t overtake_until_ns; /* any releaser: from then on the next release hands over */
        _Atomic uint32_t long_holds; /* objects have lately been held for long: spinning is in vain */
};

struct lido_pool {
        _Atomic uint64_t gate;

        struct slots slots __attribute__((aligned(64)));
        uint32_t hint_index;         /* constant: its place among a thread's hints */
        struct lido_factory factory; /* constant */
        struct lido_pool_options options; /* constant but for what the keeper alone reads; max is below */
        char name[32];               /* constant */

        _Atomic uint32_t max;
        _Atomic uint32_t live;    /* slots that are not VACANT; up before an open, down after VACANT is stored */
        _Atomic uint32_t opening; /* of these, OPENING */
        _Atomic uint32_t called;  /* it lies in host->called */
        _Atomic uint32_t look_now; /* the keeper is to look at every slot */
        _Atomic uint32_t tried;   /* somebody found nothing idle and did not wait */
        _Atomic uint64_t release_order;
        _Atomic uint32_t changes; /* counts what wait_ready and drain wait for; slept on */

        struct waitq waitq;
        _Atomic(struct pool_host *) host; /* written under waitq.lock, under which letters are sent; NULL: orphaned */
        struct lido_error last_error; /* guarded by waitq.lock: of the latest open that failed */
        uint64_t last_error_ns;       /* guarded by waitq.lock; 0: none */
        _Atomic uint32_t is_failing;  /* enum lido_failure + 1 of the latest open; 0: it went well */
        uint64_t close_due_ns;        /* guarded by waitq.lock */
        uint32_t is_freed;            /* guarded by waitq.lock: the embedder has given it back */
        uint32_t has_ended;           /* guarded by waitq.lock: closed, empty, and its factory's end was called */

        /* Counters; relaxed, written in slow paths. */
        _Atomic uint64_t waited, timed_out, canceled, refused, opened, open_failed, checked, was_reset, misused, leaked;
        _Atomic uint64_t closed[LIDO_CLOSE_REASONS];
        _Atomic uint32_t waiting_peak;
        struct {
                _Atomic uint64_t sum_ns, max_ns, bucket[LIDO_HISTOGRAM_BUCKETS];
        } wait_time, open_time;

        /* Of the keeper alone (lib/keeper), but for `link`. */
        struct {
                struct heap_node due;
                struct list link;        /* among the pools of its service; guarded by the service's lock */
                struct random random;
                uint64_t next_pass_ns;   /* when to look at every slot again */
                uint64_t retry_ns;       /* no open before this, after failures */
                uint64_t backoff_ns;     /* the latest pause; 0: none was needed */
                uint64_t period_ends_ns; /* of the current piece of the idle timeout */
                uint32_t low_water[IDLE_PERIODS]; /* fewest idle objects in the latest pieces; [0] the current one */
                uint64_t down_since_ns;  /* when opening began to fail */
                uint8_t is_reported;     /* the holders, after the closing deadline */
                uint8_t is_napping;      /* it makes no passes; the gate may say NAPPING */
                uint8_t must_pass;       /* an op has a deadline that next_pass_ns does not know */
        } kept;
        struct letter call;  /* its place in host->called */
        void *shelf_link;    /* its place on the shelf */
        struct lido_pool *older; /* every pool that ever was; set when its memory is new, then constant */
};

/* A pool that nobody knows yet: factory and options are taken over as they are. NULL: no memory. */
struct lido_pool *pool_new(const struct lido_factory *factory, const struct lido_pool_options *options,
                           struct pool_host *host);

/* If the pool is closed and empty, call its factory's end, once; if it was freed as well, its slots go back to the region
 * and its memory to the shelf. Loop thread; without a service, any. Returns: true when the pool is gone. */
bool pool_end_if_over(struct lido_pool *pool);

/* Tell the keeper to look after this pool. Threads: any, no lock held. */
void pool_call_keeper(struct lido_pool *pool);

/* Somebody found nothing idle: let the keeper open more, if there is room. No lock held. */
void pool_ask_for_more(struct lido_pool *pool);

/* Have the keeper look at every slot soon. No lock held. */
void pool_look_again(struct lido_pool *pool);

/* Hand a slot that the caller owns, in a state of the keeper's, to the keeper; with no service left it is dealt with
 * here and now. Threads: any, no lock held. */
void pool_send(struct lido_pool *pool, struct lido_slot *slot);

/* Claim an idle or rested slot in the pool's order. Returns: the slot, a lease of *ret_generation; NULL: none. */
struct lido_slot *pool_claim(struct lido_pool *pool, uint64_t *ret_generation, bool *ret_had_rested);

/* Decide about a slot that the caller owns as a lease of `generation`, and that had these marks when it came: close it,
 * check it, or offer it to the line. Threads: any, no lock held. */
void pool_decide(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation, uint64_t marks);

/* As pool_decide, for one whose marks are still on it. */
void pool_decide_marked(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation);

/* Take one of max. Returns: false when all are taken. */
bool pool_reserve(struct lido_pool *pool);

/* A slot fell idle and the gate, read after that, was not clear: do what its bits ask for. No lock held. */
void pool_notice_idle(struct lido_pool *pool, uint64_t gate);

/* Something that wait_ready or drain waits for has changed. */
void pool_changed(struct lido_pool *pool);

/* Would waiting on this thread never end, because it is the loop's, or a hook of this pool runs on it? */
bool pool_must_not_wait(struct lido_pool *pool);

/* The slot holds nothing any more: VACANT it is. The caller owns it. */
void pool_vacate(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation);

/* Tell the embedder. `event` has type and details; the pool's own fields are filled in here. No lock held. */
void pool_emit(struct lido_pool *pool, struct lido_event *event);

/* Add a duration to a histogram of the pool. */
void pool_record(_Atomic uint64_t *sum_ns, _Atomic uint64_t *max_ns, _Atomic uint64_t *bucket, uint64_t ns);

/* Assert every invariant of slots, line and counters that holds while other threads are at work; with `is_quiet` also
 * those that hold when none is. */
void slots_check(struct lido_pool *pool, bool is_quiet);

#endif
