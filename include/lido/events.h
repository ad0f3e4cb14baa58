/* lido/events.h - what a pool tells its embedder while it happens: one callback with a typed event.
 *
 * The callback (on_event of the options) runs on the thread where the event happens, outside any lock, and may call
 * lido. An event and what it points to live until the callback returns.
 */
#ifndef LIDO_EVENTS_H
#define LIDO_EVENTS_H

#include "lido/pool.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Append only; bit N of event_mask is event N. */
enum lido_event_type {
        LIDO_EVENT_OPENED = 0,
        LIDO_EVENT_OPEN_FAILED = 1, /* error */
        LIDO_EVENT_CLOSED = 2,      /* reason: enum lido_close_reason */
        LIDO_EVENT_CHECK_FAILED = 3,
        LIDO_EVENT_RESET_FAILED = 4,
        LIDO_EVENT_MISUSE = 5,      /* code, site of the misuse, other_site of the first release */
        LIDO_EVENT_LEAK = 6,        /* held for longer than leak_after_ms: site, thread, age */
        LIDO_EVENT_LEAK_ENDED = 7,  /* a lease reported as leaked was returned after all */
        LIDO_EVENT_HOLDER = 8,      /* still lent when the pool's closing deadline passed */
        LIDO_EVENT_NESTED = 9,      /* a thread waits while it holds a lease of the same pool */
        LIDO_EVENT_TIMED_OUT = 10,  /* an acquire timed out */
        LIDO_EVENT_OVERDUE = 11,    /* a hook has not answered by its deadline: code is the op */
        LIDO_EVENT_DOWN = 12,       /* opening fails: waiting and backing off */
        LIDO_EVENT_UP = 13,         /* an open succeeded after DOWN */
        LIDO_EVENT_BROKEN = 14,     /* a factory reported an object dead or doubtful */
        LIDO_EVENT_UNRECOVERABLE = 15, /* opening has failed for give_up_after_ms */
        LIDO_EVENT_REVOKED = 16,    /* a lease was taken back: site, thread, age */
        LIDO_EVENT_DEADLOCK = 17,   /* every holder waits for another: site of the one who was refused */
        LIDO_EVENT_SHED = 18,       /* a waiter was shed (codel_target_ms, queue_policy) */
        LIDO_EVENT_SUSPENDED = 19,  /* the machine slept for age_ns: every object is checked before it is lent again */
        LIDO_EVENT_DISCARDED = 20,  /* a borrower discarded an object: reason, other_site; site: where it was acquired */
};
#define LIDO_EVENT_ALL UINT64_MAX

/* Why an object was closed. Append only. */
enum lido_close_reason {
        LIDO_CLOSE_IDLE = 0,
        LIDO_CLOSE_LIFETIME = 1,
        LIDO_CLOSE_USES = 2,
        LIDO_CLOSE_BROKEN = 3,    /* its factory said so, or its verdict was DEAD, or its peek */
        LIDO_CLOSE_CHECK = 4,     /* it failed its check */
        LIDO_CLOSE_RESET = 5,     /* it failed its reset */
        LIDO_CLOSE_DISCARDED = 6, /* its borrower discarded it */
        LIDO_CLOSE_SURPLUS = 7,   /* max was lowered, or nobody wanted it any more when it was open */
        LIDO_CLOSE_SHUTDOWN = 8,
        LIDO_CLOSE_DETACHED = 9,  /* its borrower kept it */
        LIDO_CLOSE_ROTATED = 10,  /* lido_pool_rotate, lido_pool_clear */
        LIDO_CLOSE_REVOKED = 11,
        LIDO_CLOSE_STOLEN = 12,   /* another pool of its budget needed the permit */
        LIDO_CLOSE_REASONS = 16   /* room in arrays */
};

struct lido_event {
        size_t size;
        int type; /* enum lido_event_type */
        int code; /* a LIDO_E... code, or what the type says */
        struct lido_pool *pool;
        const char *pool_name;
        uint32_t slot;          /* index of the slot; LIDO_UNLIMITED: none */
        uint32_t thread;        /* kernel id of the thread concerned; 0: not known */
        const char *site;       /* file:line, or NULL */
        const char *other_site; /* the other one, or NULL */
        const char *reason;     /* one phrase, or NULL; constant, but for that of DISCARDED, which goes with the event */
        uint64_t age_ns;        /* how long it was held, idle or under way */
        const struct lido_error *error; /* or NULL */
        void *const *frames; /* of LEAK, HOLDER and REVOKED: where the lease was acquired, if backtrace_every had its turn; or NULL */
        uint32_t frame_count;
        uint32_t reserved;
};

/* The name of an event type, "open_failed". Threads: any, also in a signal handler. Blocks: no. */
LIDO_API const char *lido_event_name(int type);

/* The name of a close reason, "idle". Threads: any, also in a signal handler. Blocks: no. */
LIDO_API const char *lido_close_reason_name(int reason);

#ifdef __cplusplus
}
#endif
#endif
