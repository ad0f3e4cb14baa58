/* lido/pool.h - a pool of reusable objects: who may borrow one, for how long to wait, and how it comes back.
 *
 * Words. A pool has slots; a slot can hold one object (a connection, a buffer, a thread). A borrower acquires a
 * lease, the right to use one object, and releases it. Whoever finds no idle object stands in line as a waiter,
 * oldest first. A factory, the embedder's or one of ours, opens, checks, resets and closes objects. A service
 * (lido/service.h) owns the event loop on which all upkeep runs; borrowers never open, check or close anything.
 *
 *      struct lido_service *service;
 *      struct lido_pool *pool;
 *      lido_lease lease;
 *
 *      lido_service_start(&service, NULL);
 *      struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
 *      options.max = 8;
 *      lido_pool_open(&pool, service, &factory, &options);
 *
 *      if (lido_acquire(pool, 1000, &lease) == LIDO_OK) {
 *              use(lido_object(lease));
 *              lido_release(lease);
 *      }
 *
 *      lido_pool_free(pool);
 *      lido_service_stop(service, 1000);
 *
 * Every function says what it does and then, in this order, which Threads may call it, whether it Blocks, who
 * Owns what, and what it Returns. "any" includes the service's own loop thread and the inside of a hook.
 * No function may be called from a signal handler unless it says so. In a child made by fork(2) every call on
 * an inherited pool answers LIDO_EFORKED and touches nothing that the parent owns; it may start a service of its own.
 */
#ifndef LIDO_POOL_H
#define LIDO_POOL_H

#include "lido/error.h"

struct lido_budget;
struct lido_event;
struct lido_loop;
struct lido_pool;
struct lido_service;
struct lido_slot;
struct uv_loop_s;

/* ---- time and numbers ------------------------------------------------------------------------------------ */

#define LIDO_NEVER (-1)           /* a duration that does not end */
#define LIDO_TIMEOUT_DEFAULT (-2) /* the pool's own acquire_timeout_ms */
#define LIDO_UNLIMITED UINT32_MAX /* a count without bound */
#define LIDO_NONE (UINT32_MAX - 1) /* a count of nothing, where 0 would be the default */

/* Structs that may grow begin with their size. `struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;` sets it
 * and clears the rest, in C and in C++. */
#ifdef __cplusplus
template <typename T> inline T lido_sized()
{
        T sized = T();
        sized.size = sizeof(T);
        return sized;
}
#define LIDO_SIZED(name) lido_sized<name>()
#else
#define LIDO_SIZED(name)                                                                                       \
        {                                                                                                      \
                .size = sizeof(struct name)                                                                    \
        }
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- leases ---------------------------------------------------------------------------------------------- */

/* The right to use one object until it is released. A small value: copy it, pass it on, store it. It is never
 * dangerous to hold one for too long: each function recognises a lease that has ended and refuses it. */
typedef struct lido_lease {
        struct lido_slot *slot;
        uint64_t generation;
} lido_lease;

/* ---- the factory: what an embedder writes ---------------------------------------------------------------- */

/* One piece of work on one slot, given to a hook, which answers it exactly once, now or later, from any thread.
 * A small value like a lease, and like a lease recognised when it is answered twice or too late. */
typedef struct lido_op {
        struct lido_slot *slot;
        uint64_t ticket;
} lido_op;

/* One object of the pool as its factory knows it, from open to close; never the right to use it. */
typedef struct lido_handle {
        struct lido_slot *slot;
        uint64_t life;
} lido_handle;

enum lido_peek { LIDO_PEEK_OK = 0, LIDO_PEEK_DEAD = 1, LIDO_PEEK_CHECK = 2 };
enum lido_verdict { LIDO_VERDICT_CLEAN = 0, LIDO_VERDICT_RESET = 1, LIDO_VERDICT_DEAD = 2 };

#define LIDO_FACTORY_BLOCKING 1u    /* open, check, reset and close may block: they run on a helper thread */
#define LIDO_FACTORY_PEEK_ALWAYS 2u /* peek at every object that was idle, not only at those that have rested */
#define LIDO_FACTORY_TIMED 4u       /* read the clock (30 ns) at each acquire, so that holders' ages are exact */

/* The hooks of a kind of object. Only open and close are needed. No hook is ever called with a lock held, and
 * each may call any function of lido except one that waits for its own pool (that answers LIDO_EDEADLK).
 * `context` is the factory's own, below. Hooks marked "loop or helper" run on the service's loop
 * thread and must not block there, or on one of its helper threads where LIDO_FACTORY_BLOCKING is set. */
struct lido_factory {
        size_t size;      /* sizeof (struct lido_factory), set by LIDO_FACTORY_INIT */
        const char *kind; /* one word for reports, such as "pg"; constant */
        uint32_t flags;   /* LIDO_FACTORY_... */
        void *context;    /* handed to every hook */

        /* Make an object. Answer with lido_op_opened or lido_op_failed. Loop or helper. */
        void (*open)(lido_op op, void *context);

        /* End an object and free it. Answer with lido_op_done(op, LIDO_OK). Loop or helper; once the service
         * has stopped, the thread that returns the last lease. */
        void (*close)(lido_op op, void *object, void *context);

        /* Is it alive? Answer with lido_op_done: LIDO_OK keeps it, anything else closes it. NULL: it is taken
         * to be alive. Loop or helper. */
        void (*check)(lido_op op, void *object, void *context);

        /* Make it as good as new for the next borrower. Answer as check does. NULL: an object whose verdict is
         * RESET is closed. Loop or helper. */
        void (*reset)(lido_op op, void *object, void *context);

        /* The pool has lost interest in an op that has not been answered: its deadline has passed, or the pool
         * is closing. Hurry, and answer it still. Must not block. NULL: nothing. Loop thread, beside the hook
         * that is at work on it. */
        void (*cancel)(lido_op op, void *context);

        /* A quick look, without blocking, at an object that has rested and is about to be lent. NULL: OK.
         * Borrower's thread. */
        enum lido_peek (*peek)(void *object, void *context);

        /* In what state does it come back? Must not block. NULL: CLEAN. Releasing thread. */
        enum lido_verdict (*verdict)(void *object, void *context);

        /* Break it from outside, so that a thread stuck in it comes free: shut the socket down, say. Must
         * neither block nor free it. NULL: nothing. Any thread, beside whoever uses the object. */
        void (*interrupt)(void *object, void *context);

        /* One line about it, for reports of objects in use (SHOW HANDLES, lido/admin.h). Must not block, and may read only what is
         * safe beside its user, who waits should he want to return it meanwhile. Any thread. */
        void (*describe)(void *object, char *text, size_t size, void *context);

        /* It has been opened: begin to watch it on `loop`. `handle` names it to lido_handle_broken and
         * lido_handle_suspect. Loop thread, always. */
        void (*watch)(lido_handle handle, void *object, struct uv_loop_s *loop, void *context);

        /* End what watch began; it comes before close and after a detach. What belongs to the loop may go on
         * for a turn, but must not touch the object any more. After a detach the object may be gone already: a
         * factory that watches keeps what it needs here apart from what it lends. Loop thread, always. */
        void (*unwatch)(void *object, void *context);

        /* The pool has come to its end and calls no hook any more: the context may be freed. Loop thread, or
         * the thread that ended the last lease. */
        void (*end)(void *context);

        /* It is about to be lent, on behalf of `tag` (of lido_acquire_with; or NULL): make it ready, set a deadline or an account in
         * it, say. Must not block. Returns: LIDO_OK; anything else closes it, and the borrower gets another. NULL: nothing.
         * Borrower's thread; that of the loop or of the notice for a request. It costs the fast way of acquire: some ten
         * nanoseconds. */
        int (*activate)(void *object, const char *tag, void *context);
};
#define LIDO_FACTORY_INIT LIDO_SIZED(lido_factory)

/* Answer open: the object is made, and the pool owns it from now on.
 * Threads: any. Blocks: no. Owns: the object passes to the pool, unless an error is returned.
 * Returns: LIDO_OK, also when the pool no longer wants it and closes it at once; LIDO_EDOUBLE or LIDO_ESTALE when the op
 * was answered before; LIDO_EINVAL when it is no op or no open. */
LIDO_API int lido_op_opened(lido_op op, void *object);

/* Answer any op: `status` is LIDO_OK or a LIDO_E... code; for an open use lido_op_opened or lido_op_failed.
 * Threads: any. Blocks: no. Owns: nothing changes hands; after close, the object is the factory's to have freed.
 * Returns: LIDO_OK; LIDO_EDOUBLE or LIDO_ESTALE when it was answered before; LIDO_EINVAL when it is no op. */
LIDO_API int lido_op_done(lido_op op, int status);

/* Answer any op with a failure and its detail, of which the pool keeps a copy for those who time out.
 * Threads, Blocks, Owns, Returns: as lido_op_done. */
LIDO_API int lido_op_failed(lido_op op, const struct lido_error *error);

/* By when the op should be answered, in nanoseconds of lido_now_ns (lido/clock.h); UINT64_MAX: no limit. After it the pool
 * calls cancel, and interrupt on the object; the slot waits for the answer all the same.
 * Threads: any. Blocks: no. Owns: nobody. Returns: the time; 0 for an op that has been answered. */
LIDO_API uint64_t lido_op_deadline_ns(lido_op op);

/* Has the pool lost interest: deadline passed, or closing with nobody waiting?
 * Threads: any. Blocks: no. Owns: nobody. Returns: 1 or 0; 1 for an op that has been answered. */
LIDO_API int lido_op_is_cancelled(lido_op op);

/* The factory has learnt that an object is dead. An idle one is closed, a lent one when it returns.
 * Threads: any. Blocks: no. Owns: nobody; the handle may be older than the object. `reason` must be constant.
 * Returns: LIDO_OK; LIDO_ESTALE when the object is gone already; LIDO_EINVAL when it is no handle. */
LIDO_API int lido_handle_broken(lido_handle handle, const char *reason);

/* The factory doubts an object: it is checked before it is lent again.
 * Threads, Blocks, Owns, Returns: as lido_handle_broken. */
LIDO_API int lido_handle_suspect(lido_handle handle, const char *reason);

/* ---- options --------------------------------------------------------------------------------------------- */

enum lido_order { LIDO_ORDER_LIFO = 0, LIDO_ORDER_FIFO = 1 };
enum lido_start { LIDO_START_LAZY = 0, LIDO_START_WARM = 1, LIDO_START_FAIL_FAST = 2 };
/* REJECT: the newcomer. DROP_OLDEST: who has waited longest of the lowest class, if that is not above the newcomer's. DROP_LOWEST:
 * the latest of a class below the newcomer's. Whoever goes gets LIDO_ESHED; where nobody does, the newcomer is refused with
 * LIDO_EQUEUEFULL. CRITICAL never goes for another. */
enum lido_line_policy { LIDO_LINE_REJECT = 0, LIDO_LINE_DROP_OLDEST = 1, LIDO_LINE_DROP_LOWEST = 2 };
enum lido_nested { LIDO_NESTED_WARN = 0, LIDO_NESTED_LENIENT = 1, LIDO_NESTED_STRICT = 2 };

/* How a pool behaves. Zero means the default in every field; LIDO_NEVER and LIDO_UNLIMITED say the rest.
 * lib/pool/options.c holds the table of names, units, defaults and ranges. Append only. */
struct lido_pool_options {
        size_t size;      /* sizeof (struct lido_pool_options), set by LIDO_POOL_OPTIONS_INIT */
        const char *name; /* for reports; copied; default: the factory's kind */

        uint32_t max;        /* objects at most, those being opened and closed included; default 10 */
        uint32_t min;        /* objects kept open, idle or lent; default 0 */
        uint32_t min_idle;   /* objects kept idle beyond those lent, as far as max allows; default 0 */
        uint32_t open_limit; /* opens under way at once; default 4 */

        int64_t acquire_timeout_ms; /* default 5 s */
        int64_t open_timeout_ms;    /* default 10 s */
        int64_t check_timeout_ms;   /* default 1 s */
        int64_t reset_timeout_ms;   /* default 2 s */
        int64_t close_timeout_ms;   /* default 2 s */

        int64_t idle_timeout_ms;   /* an object beyond min and not needed for so long is closed; default 10 min */
        int64_t lifetime_ms;       /* an object lives at most so long; default 30 min */
        uint32_t lifetime_jitter;  /* up to so many percent of it are taken off, drawn once an object; default 10;
                                   * LIDO_NONE: no jitter */
        uint32_t max_uses;         /* leases after which an object is closed; default LIDO_UNLIMITED */
        int64_t rest_after_ms;     /* idle for so long: peeked before it is lent; default 1 s */
        int64_t check_after_ms;    /* idle for so long: checked before it is lent, one for each who wants one; default
                                    * 30 s */
        int64_t check_interval_ms; /* an idle object is checked so often; default 2 min */

        int64_t backoff_min_ms; /* pause after a failed open, with jitter; default 100 ms */
        int64_t backoff_max_ms; /* and what it grows to; default 30 s */

        uint32_t queue_limit; /* waiters at most, then LIDO_EQUEUEFULL; default LIDO_UNLIMITED */
        int64_t overtake_us;  /* how long newcomers may overtake waiters after short holds; default 500;
                               * LIDO_NEVER: they never may */
        int order;            /* enum lido_order: which idle object is lent first */
        int start;            /* enum lido_start: LAZY opens `min` in the background, WARM makes lido_pool_open wait
                               * for `min` objects until start_timeout_ms, FAIL_FAST does and fails if it cannot */
        int64_t start_timeout_ms; /* default 10 s */
        int64_t leak_after_ms;    /* report a lease held for so long, once; default LIDO_NEVER */
        int nested;               /* enum lido_nested: a thread that waits while it holds a lease of this pool */
        uint32_t fail_fast;       /* 1: while opening fails and nothing is open, waiters get LIDO_EUNAVAIL at once; default 0 */
        uint32_t open_inline;     /* 1: a borrower that finds none idle calls open itself; the hook must answer
                                   * before it returns and must not block; default 0 */

        uint32_t reserve;         /* objects beyond max, opened when somebody has waited reserve_after_ms, or at once when
                                   * every holder waits for another; closed when nobody waits; default 0 */
        int64_t reserve_after_ms; /* default 5 s */
        int64_t give_up_after_ms; /* opening has failed for so long: LIDO_EVENT_UNRECOVERABLE, once; default 5 min */
        int64_t reclaim_after_ms; /* a lease held for so long is revoked (lido_revoke); default LIDO_NEVER */
        int64_t ageing_ms;        /* a waiter of one priority class goes before one of the next higher class that came so
                                   * much later; default 1 s */
        int64_t codel_target_ms;   /* shed load when the shortest wait of an interval exceeds this; default LIDO_NEVER:
                                    * off; 50 is a good value */
        int64_t codel_interval_ms; /* default 2 s */

        /* Called for events in event_mask (lido/events.h), outside any lock. */
        void (*on_event)(const struct lido_event *event, void *event_context);
        void *event_context;
        uint64_t event_mask; /* default: all but those of each acquire and release */

        uint32_t backtrace_every; /* 1 lease in so many has its backtrace kept, for the reports of leaks and holders: some
                                   * microseconds for that one, some ten nanoseconds for each other; default 0: none */
        int queue_policy;         /* enum lido_line_policy: who goes when the line is as long as queue_limit */

        struct lido_budget *budget; /* a limit shared with other pools (lido/budget.h); default none */
};
#define LIDO_POOL_OPTIONS_INIT LIDO_SIZED(lido_pool_options)

/* Set options from text, `max=32 idle_timeout=10min order=fifo`: names as above without their unit, durations with one of us,
 * ms, s, min, h, d, or never; counts may be unlimited; separated by spaces, commas or "&". All or nothing.
 * Threads: any. Blocks: no. Owns: the struct is the caller's. Returns: LIDO_OK; LIDO_EINVAL, and *ret_error (may be NULL) names
 * the option, the value and the range. */
LIDO_API int lido_options_parse(struct lido_pool_options *options, const char *text, struct lido_error *ret_error);

/* Write options, defaults filled in, as text that lido_options_parse understands; or a line about each option there is.
 * Threads: any. Blocks: no. Owns: the buffer is the caller's. Returns: the length of the whole text, even if `size` was too
 * small for it; the buffer always ends in a NUL. */
LIDO_API size_t lido_options_print(const struct lido_pool_options *options, char *text, size_t size);
LIDO_API size_t lido_options_describe(char *text, size_t size);

/* ---- the life of a pool ---------------------------------------------------------------------------------- */

/* Open a pool. The factory is copied; NULL options are the defaults.
 * Threads: any, but for WARM and FAIL_FAST not the service's loop thread. Blocks: no; with WARM or FAIL_FAST
 * until `min` objects are open or start_timeout_ms has passed.
 * Owns: the pool is the caller's, to be given to lido_pool_free; the factory's context stays the caller's, who
 * may free it in the factory's end hook.
 * Returns: LIDO_OK; LIDO_EINVAL for an option out of range or a factory without open or close; LIDO_E2NEW for
 * options this version does not know; LIDO_ENOMEM; LIDO_ECLOSED when the service is stopping; LIDO_EDEADLK when it
 * would wait on the loop thread; with FAIL_FAST also what the open failed with, or LIDO_ETIMEDOUT. */
LIDO_API int lido_pool_open(struct lido_pool **ret_pool, struct lido_service *service,
                            const struct lido_factory *factory, const struct lido_pool_options *options);

/* Wait until `count` objects are open, idle or lent.
 * Threads: any but the loop thread. Blocks: until the deadline. Owns: nobody.
 * Returns: LIDO_OK; LIDO_ETIMEDOUT; LIDO_ECLOSED; LIDO_EPERMANENT when opening can only fail; LIDO_EINVAL when count is
 * above max or timeout_ms is no duration; LIDO_EDEADLK on the loop thread. */
LIDO_API int lido_pool_wait_ready(struct lido_pool *pool, uint32_t count, int64_t timeout_ms);

/* Begin to close: new borrowers are refused, waiters fail with LIDO_ECLOSED, idle objects are closed, lent ones when
 * they return. When timeout_ms has passed, what is still lent is interrupted and its holders are reported as
 * LIDO_EVENT_HOLDER, once each. Calling it again is harmless; the earlier deadline counts.
 * Threads: any. Blocks: no. Owns: the pool stays the caller's. Returns: LIDO_OK; LIDO_EINVAL. */
LIDO_API int lido_pool_close(struct lido_pool *pool, int64_t timeout_ms);

/* Wait until a pool that was closed has no object left.
 * Threads: any but the loop thread. Blocks: until the deadline. Owns: nobody.
 * Returns: LIDO_OK; LIDO_ETIMEDOUT when leases are still out or hooks at work; LIDO_EINVAL when it was not closed;
 * LIDO_EDEADLK on the loop thread. */
LIDO_API int lido_pool_drain(struct lido_pool *pool, int64_t timeout_ms);

/* Give the pool back. It is closed if it was not, and its memory goes when its last lease has come back: that lease
 * stays valid, and releasing it is not an error. The pointer is not to be used any more.
 * Threads: any. Blocks: no. Owns: the pool is lido's again. Returns: nothing; NULL is allowed. */
LIDO_API void lido_pool_free(struct lido_pool *pool);

/* Set max. A raised max is used at once; with a lowered one, surplus objects are closed as they fall idle.
 * Threads: any. Blocks: no. Owns: nobody. Returns: LIDO_OK; LIDO_EINVAL for 0 or below min; LIDO_ENOMEM;
 * LIDO_ECLOSED. */
LIDO_API int lido_pool_resize(struct lido_pool *pool, uint32_t max);

enum lido_pause { LIDO_PAUSE_HOLD = 0, LIDO_PAUSE_REJECT = 1 };

/* Lend nothing more: HOLD lets borrowers wait in line, REJECT answers LIDO_EPAUSED to them and to those in line. What is lent
 * stays lent, and may be returned. Pausing again changes the mode.
 * Threads: any. Blocks: no. Owns: nobody. Returns: LIDO_OK; LIDO_EINVAL; LIDO_EFORKED. */
LIDO_API int lido_pool_pause(struct lido_pool *pool, int mode);

/* End a pause: those in line are served first. Threads, Blocks, Owns, Returns: as lido_pool_pause. */
LIDO_API int lido_pool_resume(struct lido_pool *pool);

/* Close idle objects now, until at most `keep` are open or none is idle.
 * Threads: any. Blocks: no. Owns: nobody. Returns: how many go; LIDO_EINVAL; LIDO_EFORKED. */
LIDO_API int lido_pool_trim(struct lido_pool *pool, uint32_t keep);

/* Have every object that is open now closed: idle ones at once, lent ones when they return.
 * Threads: any. Blocks: no. Owns: nobody. Returns: LIDO_OK; LIDO_EINVAL; LIDO_EFORKED. */
LIDO_API int lido_pool_clear(struct lido_pool *pool);

/* Replace every object that is open now by a new one, spread over `over_ms`: each replacement is opened first, then an old
 * object goes, so that the pool never has fewer than now, as far as max (and `reserve`) leave room for one more. While
 * opening fails, the old ones stay.
 * Threads: any. Blocks: no. Owns: nobody. Returns: LIDO_OK; LIDO_EINVAL; LIDO_EFORKED; LIDO_ECLOSED. */
LIDO_API int lido_pool_rotate(struct lido_pool *pool, int64_t over_ms);

/* As lido_pool_rotate, for those objects of which `wants` says other than 0: those on a host that is to go, say. It is called for
 * each object that is open now, here and now, with no lock held: for one that nobody uses while it is claimed, for one that is lent
 * or worked on beside whoever has it, who waits should he want to give it back meanwhile. So it may read only what is safe beside a
 * user, must not block, and may call any function of lido that does not wait for this pool. A lent one that it names goes
 * when it returns. One that it does not name is left as it was. An object whose open is still under way is not asked about. A
 * rotation that is under way already goes on together with this one, until the later of both ends.
 * Threads: any. Blocks: no. Owns: `context` is not kept. Returns: how many are to be replaced; LIDO_EINVAL; LIDO_EFORKED;
 * LIDO_ECLOSED. */
LIDO_API int lido_pool_rotate_if(struct lido_pool *pool, int64_t over_ms, int (*wants)(void *object, void *context),
                                 void *context);

/* Doubt every object that is open now, after one has shown that the server went away, say: each is checked before it is lent
 * again, by the keeper a few at a time or when a borrower comes upon it.
 * Threads, Blocks, Owns, Returns: as lido_pool_clear. */
LIDO_API int lido_pool_suspect(struct lido_pool *pool);

/* Give the pool an object that was opened elsewhere; it must be of the factory's making.
 * Threads: any. Blocks: no. Owns: the object is the pool's, on LIDO_OK only. Returns: LIDO_OK; LIDO_EEXHAUSTED when there is no
 * room; LIDO_ECLOSED; LIDO_EINVAL; LIDO_EFORKED. */
LIDO_API int lido_pool_adopt(struct lido_pool *pool, void *object);

/* Put other options into force, as a whole: all are checked before any counts. Objects and waiters stay; limits and times
 * apply from now on. What cannot change at run time must be as it is: name, start, open_inline.
 * Threads: any. Blocks: no. Owns: nobody. Returns: LIDO_OK; LIDO_EINVAL and what is wrong in *ret_error (may be NULL), and
 * then nothing has changed; LIDO_E2NEW; LIDO_ENOMEM; LIDO_ECLOSED; LIDO_EFORKED. */
LIDO_API int lido_pool_reconfigure(struct lido_pool *pool, const struct lido_pool_options *options,
                                   struct lido_error *ret_error);

/* At most `limit` objects are lent at once to borrowers who acquire with this tag; LIDO_UNLIMITED lifts it. Those beyond it
 * wait, without standing in the way of others. A pool has room for 15 quotas.
 * Threads: any. Blocks: no. Owns: the tag is copied by pointer and must be constant. Returns: LIDO_OK; LIDO_EINVAL for no tag or
 * no limit; LIDO_ENOMEM when all 15 are taken; LIDO_EFORKED. */
LIDO_API int lido_pool_set_quota(struct lido_pool *pool, const char *tag, uint32_t limit);

/* How long an acquire would wait, judging by how fast the line has moved lately and how long it is: answer "503, try again in
 * so many seconds" before queueing.
 * Threads: any. Blocks: no. Owns: nobody. Returns: nanoseconds; 0 when an object is idle or nothing is known. */
LIDO_API uint64_t lido_estimated_wait_ns(struct lido_pool *pool);

/* Would an acquire have to wait, if it came now? It looks as a borrower does, and promises nothing.
 * Threads: any. Blocks: no. Owns: nobody. Returns: 1 or 0. */
LIDO_API int lido_would_wait(struct lido_pool *pool);

/* The pool's name, "pg" say. Threads: any. Blocks: no. Owns: the pool; valid as long as it. */
LIDO_API const char *lido_pool_name(const struct lido_pool *pool);

/* The factory's kind, the same pointer that the factory gave, and its context: so a factory recognises its own pools.
 * Threads: any. Blocks: no. Owns: nobody. */
LIDO_API const char *lido_pool_kind(const struct lido_pool *pool);
LIDO_API void *lido_pool_context(const struct lido_pool *pool);

/* ---- acquire and release --------------------------------------------------------------------------------- */

#define LIDO_STRING_(x) #x
#define LIDO_STRING(x) LIDO_STRING_(x)
#define LIDO_HERE (__FILE__ ":" LIDO_STRING(__LINE__)) /* a call site; costs nothing */

#if defined(__GNUC__) && !defined(__clang__)
#define LIDO_NEAR __attribute__((noplt)) /* called straight from the shared library: a quarter of a nanosecond */
#else
#define LIDO_NEAR
#endif

/* Acquire a lease, waiting in line if no object is idle. timeout_ms: 0 does not wait, LIDO_TIMEOUT_DEFAULT is the
 * pool's, LIDO_NEVER waits for ever.
 * Threads: any, to wait not the service's loop thread. Blocks: until the deadline, which is absolute and monotonic.
 * Owns: the lease is the caller's, to be released from any thread. *ret_lease is written on LIDO_OK only.
 * Returns: LIDO_OK; LIDO_ETIMEDOUT (lido_pool_blame says why); LIDO_EEXHAUSTED for a timeout of 0; LIDO_ECLOSED;
 * LIDO_EPAUSED; LIDO_EQUEUEFULL; LIDO_ESHED; LIDO_EUNAVAIL (fail_fast); LIDO_EPERMANENT when objects cannot be opened and
 * trying again will not help; LIDO_EDEADLK when it would wait on the loop thread or in a hook of this pool, when every holder
 * is known to wait for another, or under LIDO_NESTED_STRICT when this thread holds a lease of the pool already; LIDO_EFORKED; LIDO_EINVAL for a
 * timeout that is none; with open_inline also LIDO_EFACTORY. */
#define lido_acquire(pool, timeout_ms, ret_lease) lido_acquire_at(pool, timeout_ms, ret_lease, LIDO_HERE)
LIDO_API LIDO_NEAR int lido_acquire_at(struct lido_pool *pool, int64_t timeout_ms, lido_lease *ret_lease, const char *site);

/* Acquire a lease only if an object is idle now. Cheap to call in vain.
 * Threads: any. Blocks: no. Owns, Returns: as lido_acquire with a timeout of 0. */
LIDO_API LIDO_NEAR int lido_try_acquire_at(struct lido_pool *pool, lido_lease *ret_lease, const char *site);
#define lido_try_acquire(pool, ret_lease) lido_try_acquire_here(pool, ret_lease, LIDO_HERE)

/* lido_try_acquire in the caller's own code while it is in vain, which is one look; all else is left to the function. The first
 * word of a pool keeps its place and meaning. */
struct lido_pool_face {
        uint64_t gate; /* atomic; of these bits only the second: nothing is idle, and there is nothing else to say */
};
#define LIDO_GATE_SAYS UINT64_C(0x17a00000000)
#define LIDO_GATE_EXHAUSTED UINT64_C(0x00200000000)

static inline int lido_try_acquire_here(struct lido_pool *pool, lido_lease *ret_lease, const char *site)
{
#if defined(__GNUC__) && !defined(LIDO_NO_INLINE)
        const struct lido_pool_face *face = (const struct lido_pool_face *)(const void *)pool;

        if (face && ret_lease && (__atomic_load_n(&face->gate, __ATOMIC_RELAXED) & LIDO_GATE_SAYS) == LIDO_GATE_EXHAUSTED)
                return LIDO_EEXHAUSTED;
#endif
        return lido_try_acquire_at(pool, ret_lease, site);
}

/* Classes of waiters. A higher class goes first, but not for ever: see ageing_ms. CRITICAL always goes first and is never
 * shed. */
enum lido_priority { LIDO_PRIORITY_NORMAL = 0, LIDO_PRIORITY_HIGH = 1, LIDO_PRIORITY_LOW = 2, LIDO_PRIORITY_CRITICAL = 3 };

/* How one acquire differs from the usual. Zero means the default in every field. */
struct lido_acquire_options {
        size_t size;
        int64_t timeout_ms;        /* as lido_acquire; 0 is LIDO_TIMEOUT_DEFAULT here: to try, use lido_try_acquire */
        const char *site;          /* default: where LIDO_ACQUIRE_OPTIONS_INIT stands is not known, "?" */
        const char *tag;           /* on whose behalf, for quotas and reports; constant */
        int priority;              /* enum lido_priority */
        uint32_t reserved;         /* 0 */
        uint64_t want_label;       /* rather an object with this label (lido_set_label), if one is idle; 0: any */
        struct lido_blame *blame;  /* filled (lido/stats.h) when the acquire fails; may be NULL */
};
#define LIDO_ACQUIRE_OPTIONS_INIT LIDO_SIZED(lido_acquire_options)

/* Acquire with options. Threads, Blocks, Owns, Returns: as lido_acquire; LIDO_E2NEW for options unknown here. */
LIDO_API int lido_acquire_with(struct lido_pool *pool, const struct lido_acquire_options *options,
                               lido_lease *ret_lease);

/* One of several leases to be acquired at once: of which pool, and then the lease. */
struct lido_many {
        struct lido_pool *pool;
        lido_lease lease;
};

/* Acquire several leases, of one pool or of several, all or nothing. Those who do so never wait for each other in a circle, in
 * whatever order they name their pools: inside, pools are taken in one order, and each is left to one at a time to fill his hands.
 * To hold a lease already is on one's own account.
 * Threads, Blocks: as lido_acquire, with one deadline for all; a default timeout is that of the first pool.
 * Owns: on LIDO_OK each lease is the caller's; on an error none is, and all are zero.
 * Returns: as lido_acquire; LIDO_EINVAL also for no item, more than 256, or more of a pool than its max. */
#define lido_acquire_many(many, count, timeout_ms) lido_acquire_many_at(many, count, timeout_ms, LIDO_HERE)
LIDO_API int lido_acquire_many_at(struct lido_many *many, uint32_t count, int64_t timeout_ms, const char *site);

/* End a lease. The object goes to the oldest waiter, or falls idle; what its verdict calls for (reset, close) is
 * done on the service's loop, never here.
 * Threads: any, not only the one that acquired. Blocks: no. Owns: the object is the pool's again.
 * Returns: LIDO_OK; LIDO_EDOUBLE when it was released before; LIDO_ESTALE when it ended long ago; LIDO_EFOREIGN when it
 * never was one; LIDO_EREVOKED when it had been taken back; LIDO_EINVAL for a lease that is all zero or garbage;
 * LIDO_EFORKED. Every refusal leaves pool and object untouched, however many threads race, and is reported as
 * LIDO_EVENT_MISUSE with both call sites. After the pool was closed or freed it is accepted all the same. */
#define lido_release(lease) lido_release_at(lease, LIDO_HERE)
LIDO_API LIDO_NEAR int lido_release_at(lido_lease lease, const char *site);

/* End a lease and have its object closed: it is broken, or the borrower no longer trusts it.
 * Threads, Blocks, Owns, Returns: as lido_release. */
#define lido_discard(lease) lido_discard_at(lease, LIDO_HERE)
LIDO_API int lido_discard_at(lido_lease lease, const char *site);

/* As lido_discard, and say why: "answered with garbage", a line for people. It is told at once as LIDO_EVENT_DISCARDED, and the
 * latest one in each blame report (lido/stats.h). NULL or "" is no reason.
 * Threads: any. Blocks: no. Owns: the reason is copied, its first LIDO_REASON_SIZE - 1 bytes, characters left whole and control
 * characters made spaces; keep secrets out of it. Returns: as lido_release. */
#define LIDO_REASON_SIZE 120
#define lido_discard_because(lease, reason) lido_discard_because_at(lease, reason, LIDO_HERE)
LIDO_API int lido_discard_because_at(lido_lease lease, const char *reason, const char *site);

/* End a lease and keep its object: the pool forgets it, and has room for another.
 * Threads: any. Blocks: no. Owns: the object is the caller's for good, who ends it without the factory.
 * Returns: as lido_release. *ret_object is written on LIDO_OK only. */
#define lido_detach(lease, ret_object) lido_detach_at(lease, ret_object, LIDO_HERE)
LIDO_API int lido_detach_at(lido_lease lease, void **ret_object, const char *site);

/* The object of a lease. Threads: any. Blocks: no. Owns: the borrower may use it until release.
 * Returns: the object; NULL when the lease has ended. */
LIDO_API LIDO_NEAR void *lido_object(lido_lease lease);

/* The common case of lido_object in the caller's own code, where it costs a quarter of the call. All else is left to the
 * function, which (lido_object)(lease) calls. What is read here never changes its place or meaning. */
extern LIDO_API struct lido_slot_range {
        uintptr_t base; /* atomic */
        uintptr_t size; /* atomic; grows */
} lido_slot_range;

struct lido_slot_face {
        uint64_t word; /* atomic, as what follows; lent: the generation + 4 */
        void *pool;
        void *object;
};

#if defined(__GNUC__) && !defined(LIDO_NO_INLINE)
static inline void *lido_object_inline(lido_lease lease)
{
        const struct lido_slot_face *face = (const struct lido_slot_face *)(const void *)lease.slot;
        uintptr_t offset = (uintptr_t)face - __atomic_load_n(&lido_slot_range.base, __ATOMIC_RELAXED);

        if (offset < __atomic_load_n(&lido_slot_range.size, __ATOMIC_RELAXED) && offset % 256 == 0 && lease.generation % 4096 == 0 &&
            __atomic_load_n(&face->word, __ATOMIC_ACQUIRE) == lease.generation + 4)
                return __atomic_load_n(&face->object, __ATOMIC_RELAXED);
        return lido_object(lease);
}
#define lido_object(lease) lido_object_inline(lease)
#endif

/* The pool that a lease comes from. Threads: any. Blocks: no. Owns: nobody. Returns: the pool; NULL when the lease has
 * ended. */
LIDO_API struct lido_pool *lido_lease_pool(lido_lease lease);

/* ---- more about a lease ---------------------------------------------------------------------------------- */

/* Another thread holds the lease now: call it there, so that reports name it and deadlock detection knows.
 * Threads: any. Blocks: no. Owns: as before. Returns: LIDO_OK; LIDO_ESTALE and its kin as lido_release. */
#define lido_transfer(lease) lido_transfer_at(lease, LIDO_HERE)
LIDO_API int lido_transfer_at(lido_lease lease, const char *site);

/* Revoke the lease unless it is released within timeout_ms; calling it again moves the deadline, LIDO_NEVER lifts it.
 * Threads: any. Blocks: no. Owns: as before. Returns: as lido_transfer; LIDO_EINVAL for a timeout that is none. */
LIDO_API int lido_lease_set_deadline(lido_lease lease, int64_t timeout_ms);

/* Take a lease back from its holder: the object is interrupted, so that a thread stuck in it comes free; lido_object says NULL
 * from now on, and when the holder releases it is told LIDO_EREVOKED and the object is closed. It is never closed before.
 * Threads: any. Blocks: no. Owns: as before. Returns: LIDO_OK; LIDO_ESTALE and its kin. */
LIDO_API int lido_revoke(lido_lease lease);

/* A pointer of the borrower's that lives as long as the object, or as long as the lease; NULL at first.
 * Threads: any that has the lease. Blocks: no. Owns: what it points to stays the borrower's.
 * Returns: LIDO_OK; LIDO_ESTALE and its kin. Reading: the pointer; NULL when the lease has ended. */
LIDO_API int lido_set_object_data(lido_lease lease, void *data);
LIDO_API void *lido_object_data(lido_lease lease);
LIDO_API int lido_set_lease_data(lido_lease lease, void *data);
LIDO_API void *lido_lease_data(lido_lease lease);

/* Say what state the object is in (which schema it has set, say), for borrowers who would rather have such a one; 0 at first.
 * Threads, Blocks, Owns, Returns: as lido_set_object_data. */
LIDO_API int lido_set_label(lido_lease lease, uint64_t label);
LIDO_API uint64_t lido_label(lido_lease lease);

/* ---- acquire from an event loop -------------------------------------------------------------------------- */

struct lido_request;
typedef void (*lido_acquired_cb)(struct lido_request *request, int status, lido_lease lease);

/* One acquire under way on an event loop. The caller provides the memory, so that an acquire cannot fail for want of
 * it, and leaves it alone until the callback is called. Clear it before its first use. */
struct lido_request {
        void *data;             /* the caller's */
        struct lido_loop *loop; /* where the callback is called (lido/loop.h); set it before each use */
        uint64_t own[40];       /* lido's */
};

/* Acquire without blocking. The callback is called exactly once on the thread of `loop`, never before this function
 * has returned, with LIDO_OK and a lease, or with a code of lido_acquire or LIDO_ECANCELED and no lease. Loops and
 * threads stand in one line.
 * Threads: the loop's. Blocks: no. Owns: the request is lido's until the callback.
 * Returns: LIDO_OK; LIDO_EBUSY when the request is pending already; LIDO_EINVAL when request->loop is not a loop of this
 * thread; LIDO_ECLOSED; LIDO_EFORKED; for a timeout of 0 LIDO_EEXHAUSTED. On an error the callback is not called. */
#define lido_acquire_async(pool, request, timeout_ms, callback)                                                \
        lido_acquire_async_at(pool, request, timeout_ms, callback, LIDO_HERE)
LIDO_API int lido_acquire_async_at(struct lido_pool *pool, struct lido_request *request, int64_t timeout_ms,
                                   lido_acquired_cb callback, const char *site);

/* As lido_acquire_async, for those who have no uv loop: request->loop stays NULL, and the callback is called on the thread
 * on which the outcome is settled (a releasing or cancelling one, or the service's loop, which also keeps the deadline),
 * perhaps before this function has returned. The callback must not block; it may call any function of lido that does not
 * wait, and it runs with no lock held.
 * Threads: any. Blocks: no. Owns: the request is lido's until the callback.
 * Returns: as lido_acquire_async; also, like a try, LIDO_EEXHAUSTED or LIDO_EPAUSED for a timeout of 0, and LIDO_ECLOSED,
 * without a callback. */
#define lido_acquire_notify(pool, request, timeout_ms, callback)                                               \
        lido_acquire_notify_at(pool, request, timeout_ms, callback, LIDO_HERE)
LIDO_API int lido_acquire_notify_at(struct lido_pool *pool, struct lido_request *request, int64_t timeout_ms,
                                    lido_acquired_cb callback, const char *site);

/* Cancel a pending request: unless it has its outcome already, its callback gets LIDO_ECANCELED. An open that it has
 * caused goes on.
 * Threads: any. Blocks: no. Owns: the request is lido's until the callback. Returns: LIDO_OK when the callback
 * will say LIDO_ECANCELED; LIDO_EBUSY when another outcome was first; LIDO_EINVAL when it is not pending. */
LIDO_API int lido_cancel(struct lido_request *request);

#ifdef __cplusplus
}
#endif
#endif
