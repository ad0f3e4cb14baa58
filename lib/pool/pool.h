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
#include "pool/budget.h"
#include "pool/codel.h"
#include "pool/quota.h"
#include "pool/slots.h"
#include "pool/trace.h"
#include "pool/turnstile.h"

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
#define GATE_REJECTING (UINT64_C(1) << 41)      /* paused, and nobody may wait */
#define GATE_COVETED (UINT64_C(1) << 60)        /* the budget wants to know when something comes back */

/* Acquire leaves the fast way when one of these is set; */
#define GATE_ACQUIRE (GATE_CLOSED | GATE_PAUSED | GATE_FORKED | GATE_CAREFUL_ACQUIRE | GATE_ORPHANED)
/* so does release; */
#define GATE_RELEASE_SLOW                                                                                      \
        (GATE_COUNT | GATE_CAREFUL_RELEASE | GATE_CLOSED | GATE_FORKED | GATE_ORPHANED | GATE_COVETED)
/* and whoever has made a slot idle has something to do when one of these is. */
#define GATE_NOTICE                                                                                            \
        (GATE_COUNT | GATE_SCANNING | GATE_EXHAUSTED | GATE_NAPPING | GATE_CLOSED | GATE_ORPHANED | GATE_COVETED)

/* The idle timeout is watched in so many pieces: an object goes at most one piece late. */
#define IDLE_PERIODS 8

/* What the pool needs of whoever keeps it; the layer above provides it. Outlives every pool (base/shelf.h). */
struct pool_host {
        struct inbox slots;  /* slots on their way to the keeper, with their ownership */
        struct inbox called; /* pools that want to be tended */
        void (*wake)(struct pool_host *host);     /* any thread, no lock held; cheap when it is awake already */
        _Atomic uint32_t thread;                  /* the loop's thread id; 0 before it runs */
        uint64_t seed;                            /* of its pools' jitter; 0: each from the system; constant while it runs */
        _Atomic uint64_t seeded;                  /* how many it has given one */
        struct uv_loop_s *loop;                   /* constant while it runs; for watch hooks, never looked into */
};

/* ENDING: closed, empty, without guests, and the factory's end is being called. ENDED: it has been. */
enum pool_stage { POOL_RUNNING, POOL_ENDING, POOL_ENDED };

/* Classes of waiters, enum lido_priority. */
#define PRIORITIES 4

/* Whoever keeps a pool on somebody else's behalf: one for each key, say. */
struct pool_owner {
        const void *key; /* of the pool; constant */
        size_t key_size;
        /* The pool has been tended. Returns: when to tend it again. Keeper's thread. */
        uint64_t (*tended)(struct pool_owner *owner, struct lido_pool *pool, uint64_t now);
        /* The pool is gone but for its memory. Keeper's thread; without a service, any. */
        void (*gone)(struct pool_owner *owner, struct lido_pool *pool);
};

/* The line of those who wait; waitq.h says how. */
struct waitq {
        struct mutex lock;          /* guards all below, and where said so in struct lido_pool */
        struct list line[PRIORITIES]; /* by class, each oldest first */
        struct heap timed;          /* of these, those whose deadline the keeper keeps */
        _Atomic uint32_t poke_sent; /* written under lock: a poked waiter is on its way to look */
        _Atomic uint64_t overtake_until_ns; /* any releaser: from then on the next release hands over */
        struct codel codel;
        uint64_t served_ns;         /* when somebody was served last */
        _Atomic uint64_t gap_ns;    /* how long it takes until the next is served; a moving average, written under lock */
        _Atomic uint32_t long_holds; /* objects have lately been held for long: spinning is in vain */
};

/* Why a borrower has discarded an object. */
struct discard {
        char reason[LIDO_REASON_SIZE];
        const char *site;
        uint64_t at_ns; /* 0: nobody has */
};

struct lido_pool {
        _Atomic uint64_t gate;

        struct slots slots __attribute__((aligned(64)));
        uint32_t hint_index;         /* constant: its place among a thread's hints */
        struct lido_factory factory; /* constant */
        _Atomic(struct options_version *) options; /* what is in force; swapped as a whole, under waitq.lock */
        struct traces traces;        /* grown under waitq.lock */
        char name[32];               /* constant */
        uint64_t seed;               /* constant; the n-th object's jitter is drawn from it and n */

        _Atomic uint32_t max;
        _Atomic uint32_t live;    /* slots that are not VACANT; up before an open, down after VACANT is stored */
        _Atomic uint32_t opening; /* of these, OPENING */
        _Atomic uint32_t guests;  /* threads and requests that wait or have just waited: the pool does not end before they leave */
        _Atomic uint32_t called;  /* it lies in host->called */
        _Atomic uint64_t rotate_over_ns; /* a rotation is asked for, over so long; 0: none */
        _Atomic uint64_t rotate_asked_ns; /* what was born before is to be replaced; 0: no rotation was ever asked for */
        _Atomic uint64_t chosen_over_ns; /* a rotation of those chosen is asked for, over so long; 0: none */
        _Atomic uint32_t look_now; /* the keeper is to look at every slot */
        _Atomic uint32_t tried;   /* somebody found nothing idle and did not wait */
        _Atomic uint64_t release_order;
        _Atomic uint32_t changes; /* counts what wait_ready and drain wait for; slept on */

        _Atomic uint32_t limit;   /* what live may grow to: max, less while the server takes no more, more with the reserve */
        _Atomic uint32_t has_quotas;
        struct quota quota[QUOTAS];
        _Atomic(struct lido_budget *) budget; /* set before anybody knows the pool, NULL once it has ended */
        struct budget_member budgeted;        /* guarded by the lock of the budget */
        _Atomic uint64_t suspended_ns;        /* how long the machine had been suspended when the pool looked last */
        _Atomic uint64_t used_ns;             /* when it was used last, as far as is known */
        _Atomic(struct pool_owner *) owner;   /* set while it is opened, then constant; NULL: the embedder */
        struct turnstile turnstile;           /* for those who acquire several leases at once */

        struct waitq waitq;
        _Atomic(struct pool_host *) host; /* written under waitq.lock, under which letters are sent; NULL: orphaned */
        struct lido_error last_error; /* guarded by waitq.lock: of the latest open that failed */
        uint64_t last_error_ns;       /* guarded by waitq.lock; 0: none */
        struct discard last_discard;  /* guarded by waitq.lock: the latest that had a reason */
        _Atomic uint32_t is_failing;  /* enum lido_failure + 1 of the latest open; 0: it went well */
        uint64_t close_due_ns;        /* guarded by waitq.lock */
        uint32_t is_freed;            /* guarded by waitq.lock: the embedder has given it back */
        _Atomic uint32_t stage;       /* enum pool_stage; written under waitq.lock, and to ENDED by who made it ENDING */

        /* Counters; relaxed, written in slow paths. */
        _Atomic uint64_t waited, timed_out, canceled, refused, shed, opened, open_failed, checked, was_reset, misused, leaked;
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
                uint64_t raise_ns;       /* when limit grows by one again */
                uint64_t rotate_before_ns; /* objects born before, and those chosen, are replaced */
                uint64_t rotate_began_ns, rotate_ends_ns; /* from the first to the second; the second is 0: no rotation */
                uint32_t rotate_total;   /* so many there were */
                uint32_t strength;       /* live when the rotation began */
                uint32_t replacing;      /* opens that are to take the place of an old object */
                uint8_t is_given_up;     /* LIDO_EVENT_UNRECOVERABLE was sent */
                uint64_t down_since_ns;  /* when opening began to fail */
                uint8_t is_reported;     /* the holders, after the closing deadline */
                uint8_t is_napping;      /* it makes no passes; the gate may say NAPPING */
                uint8_t must_pass;       /* an op has a deadline that next_pass_ns does not know */
        } kept;
        struct letter call;  /* its place in host->called */
        void *shelf_link;    /* its place on the shelf */
        struct lido_pool *older; /* every pool that ever was; set when its memory is new, then constant */
};

/* A set of options in force, or once in force. Readers hold no lock, so it stays as it is until the pool ends, and keeps its
 * type after that. Its max is where the pool began: pool->max counts. */
struct options_version {
        struct lido_pool_options options; /* constant while the pool lives */
        struct options_version *older;
};

static inline const struct lido_pool_options *pool_options(const struct lido_pool *pool)
{
        return &load_acquire(&pool->options)->options;
}

/* Put options into force that have been validated. Returns: LIDO_OK; LIDO_ENOMEM. waitq.lock is held. */
int pool_set_options(struct lido_pool *pool, const struct lido_pool_options *options);

/* A pool that nobody knows yet: factory and options are taken over as they are. NULL: no memory. */
struct lido_pool *pool_new(const struct lido_factory *factory, const struct lido_pool_options *options,
                           struct pool_host *host);

/* If the pool is closed and empty, and its guests have left, call its factory's end, once; if it was freed as well, its slots go
 * back to the region and its memory to the shelf. Keeper's thread, outside any other work on it. Returns: true when the
 * pool is gone. */
bool pool_end_if_over(struct lido_pool *pool);

/* The same for a pool that has lost its service; nothing for one that has one. Threads: any, no lock held. */
void pool_end_orphan(struct lido_pool *pool);

/* Somebody is about to wait, and to look at the pool after that: until pool_leave it does not end. */
void pool_enter(struct lido_pool *pool);
void pool_leave(struct lido_pool *pool);

/* Tell the keeper to look after this pool. Threads: any, no lock held. */
void pool_call_keeper(struct lido_pool *pool);

/* Somebody stands in line: let the keeper open more, if there is room. No lock held. */
void pool_ask_for_more(struct lido_pool *pool);

/* Somebody found nothing idle and does not wait: let the keeper open one more, if there is room. No lock held. */
void pool_tried_in_vain(struct lido_pool *pool);

/* Have the keeper look at every slot soon. No lock held. */
void pool_look_again(struct lido_pool *pool);

/* Hand a slot that the caller owns, in a state of the keeper's, to the keeper; with no service left it is dealt with
 * here and now. Threads: any, no lock held. */
void pool_send(struct lido_pool *pool, struct lido_slot *slot);

/* Claim an idle or rested slot in the pool's order. Returns: the slot, a lease of *ret_generation; NULL: none but what is
 * doubted (doubt.h), if *ret_had_rested says so. */
struct lido_slot *pool_claim(struct lido_pool *pool, uint64_t *ret_generation, bool *ret_had_rested);

/* In a FIFO pool, note when the slot was given back. The caller owns it. */
void pool_note_order(struct lido_pool *pool, struct lido_slot *slot);

/* Decide about a slot that the caller owns as a lease of `generation`, and that had these marks when it came: close it,
 * check it, or offer it to the line. Threads: any, no lock held. */
void pool_decide(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation, uint64_t marks);

/* As pool_decide, for one whose marks are still on it. */
void pool_decide_marked(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation);

/* Claim every object that nobody uses and call `act` with it; mark every one in use. Threads: any, no lock held. */
void pool_for_all(struct lido_pool *pool, uint64_t mark, void (*act)(struct lido_pool *, struct lido_slot *, uint64_t));

/* Set max, and the limit with it. waitq.lock is held, and there are slots enough. */
void pool_set_max(struct lido_pool *pool, uint32_t max);

/* Take one of the limit; the caller has a permit of the budget. Returns: false when all are taken. */
bool pool_reserve(struct lido_pool *pool);

/* Put back what pool_reserve has taken, and the permit. */
void pool_unreserve(struct lido_pool *pool);

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

/* As pool_emit, for an event about a lease, an op or a life of `generation` on a slot that the caller does not own: it may belong
 * to another pool by now, or to none, and then nobody is told, for there is nobody to tell. Misuse is counted. */
void pool_emit_late(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation, struct lido_event *event);

/* Copy a line of somebody else's: as much of it as there is room for, in whole characters, and none that controls. */
void tell_copy(char *to, size_t size, const char *from);

/* Add a duration to a histogram of the pool. */
void pool_record(_Atomic uint64_t *sum_ns, _Atomic uint64_t *max_ns, _Atomic uint64_t *bucket, uint64_t ns);

/* Assert every invariant of slots, line and counters that holds while other threads are at work; with `is_quiet` also
 * those that hold when none is. */
void slots_check(struct lido_pool *pool, bool is_quiet);

#endif
