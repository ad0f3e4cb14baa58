/* lido/worker.h - threads that run jobs: an executor with a queue, groups and delays, and threads lent one by one.
 *
 * Words. A job is a function with the memory it needs, which the caller provides: submitting allocates nothing. The
 * workers of an executor run jobs; there are more of them while all are busy, up to max, and only then jobs queue. A
 * group is a set of jobs to wait for or cancel together. A lent thread is a worker that runs only its borrower's jobs.
 *
 *      struct work { struct lido_job job; int answer; };
 *      static void think(struct lido_job *job)               { ((struct work *)job)->answer = 42; }
 *      static void show(struct lido_job *job, int status)    { printf("%d\n", ((struct work *)job)->answer); }
 *
 *      struct lido_workers *workers;
 *      lido_workers_open(&workers, NULL);
 *      struct work work = { .job = { .run = think, .done = show, .loop = loop } };
 *      lido_submit(workers, &work.job);          // think on a worker, then show on the loop
 *      ...
 *      lido_workers_shutdown(workers, 1000);
 *
 * Whose is the memory of a job? Lido's from submit until `done` is called. A job without `done` is the caller's again
 * as soon as `run` is called: it may free the job there, or submit it anew. Jobs that may be dropped (shed, shut down,
 * cancelled with their group) want a `done`, for nothing else tells that they will not run.
 *
 * The threads are lido's own: libuv's process-wide pool is not used. An idle worker makes no wake-up but the one at
 * which it ends. No hook and no job is called with a lock held. In a child made by fork(2) an executor has no
 * workers: every call answers LIDO_EFORKED, and lido_workers_forked hands out the jobs that it had inherited.
 */
#ifndef LIDO_WORKER_H
#define LIDO_WORKER_H

#include "lido/pool.h"

#ifdef __cplusplus
extern "C" {
#endif

struct lido_workers;
struct lido_worker_event;

/* ---- jobs ------------------------------------------------------------------------------------------------ */

/* Which of the queued jobs is next? One of a higher class (enum lido_priority), but each class overtakes a lower
 * one at most overtake_jobs times in a row, so that nobody starves. CRITICAL stands with HIGH, and is kept as with
 * LIDO_JOB_KEEP. */

#define LIDO_JOB_KEEP 1u /* never drop it for overload: not when the queue is full, not when it has stood too long */

/* One job, two cache lines; embed it in a struct that holds what `run` needs. Clear it before its first use. The
 * fields are set by the caller before submit and left alone until the job is the caller's again. */
struct lido_job {
        void (*run)(struct lido_job *job);              /* on a worker */
        void (*done)(struct lido_job *job, int status); /* may be NULL: see the head of this file. The status is LIDO_OK
                                                         * after `run`; if it did not run: LIDO_ECANCELED, LIDO_ESHED,
                                                         * LIDO_ECLOSED, or why no lease was got */
        struct lido_group *group;                       /* or NULL */
        uint16_t priority;                              /* enum lido_priority */
        uint16_t flags;                                 /* LIDO_JOB_... */
        uint32_t own_state;                             /* lido's */
        uint64_t own[4];                                /* lido's */
        struct lido_loop *loop; /* where `done` is called; NULL: on the worker, or by whoever drops the job */
        uint64_t own_more[7];   /* lido's */
};

/* ---- an executor ----------------------------------------------------------------------------------------- */

/* What a full queue does with one job more. */
enum lido_queue_policy {
        LIDO_QUEUE_REJECT = 0,      /* lido_submit answers LIDO_EQUEUEFULL */
        LIDO_QUEUE_CALLER_RUNS = 1, /* lido_submit runs the job itself */
        LIDO_QUEUE_DROP_OLDEST = 2, /* the oldest of the lowest class is dropped with LIDO_ESHED; if all are
                                     * LIDO_JOB_KEEP, LIDO_EQUEUEFULL */
        LIDO_QUEUE_WAIT = 3,        /* lido_submit waits in line for room until queue_timeout_ms, then LIDO_ETIMEDOUT */
};

/* How an executor behaves. Zero means the default in every field. Append only. */
struct lido_workers_options {
        size_t size;      /* set by LIDO_WORKERS_OPTIONS_INIT */
        const char *name; /* of its threads, "name-1" and so on; copied; default "worker" */

        uint32_t min;              /* threads that stay, started by lido_workers_open; default 1 */
        uint32_t max;              /* threads at most, besides those that blocking hints add; default 4, or min */
        uint32_t blocking_limit;   /* threads at most that blocking hints add; default max */
        uint32_t lease_limit;      /* threads lent at once, at most; default max - 1, or 1, so that queued jobs go on */
        int64_t idle_timeout_ms;   /* a thread beyond min ends when idle for so long; default 60 s */
        size_t stack_bytes;        /* default: the system's */
        uint64_t cpus;             /* bit N: threads may run on CPU N; default: wherever the process may */
        uint32_t linger_us;        /* one idle thread looks for work for so long before it sleeps; default 0 */

        uint32_t queue_limit;     /* jobs at most that wait because every thread is busy; default LIDO_UNLIMITED */
        int queue_policy;         /* enum lido_queue_policy */
        int64_t queue_timeout_ms; /* with LIDO_QUEUE_WAIT; default LIDO_NEVER */
        uint32_t overtake_jobs;   /* how often in a row a class overtakes a lower one; default 8 */
        uint32_t reserved;        /* 0 */

        /* Overload: when no job of a whole interval has waited for less than the target, the queue stands; then
         * jobs that have waited for twice the target are dropped with LIDO_ESHED, the oldest first. Default: never. */
        int64_t codel_target_ms;
        int64_t codel_interval_ms; /* default 2 s */

        int64_t stuck_after_ms; /* report a job that runs for so long, once; default LIDO_NEVER */
        int backtrace_signal;   /* sent to a stuck thread so that it says where it is; its handler must be
                                 * lido_workers_on_signal, set by the embedder; default 0: none */

        /* Called on each worker thread as its first and its last thing: set an affinity, register with a profiler.
         * The first must not take long: a thread that starts counts as one that is about to take jobs. */
        void (*on_start)(uint32_t worker, void *context);
        void (*on_stop)(uint32_t worker, void *context);
        void (*on_event)(const struct lido_worker_event *event, void *context); /* outside any lock */
        void *context;                                                          /* handed to the three above */
};
#define LIDO_WORKERS_OPTIONS_INIT LIDO_SIZED(lido_workers_options)

/* Open an executor and start its `min` threads, with every signal blocked.
 * Threads: any. Blocks: no. Owns: the executor is the caller's, to be given to lido_workers_shutdown.
 * Returns: LIDO_OK; LIDO_EINVAL for an option out of range; LIDO_E2NEW; LIDO_ENOMEM; LIDO_ETHREAD. */
LIDO_API int lido_workers_open(struct lido_workers **ret_workers, const struct lido_workers_options *options);

/* Change max. A raised one is used at once; with a lowered one surplus threads end as they finish their jobs.
 * Threads: any. Blocks: no. Owns: nobody. Returns: LIDO_OK; LIDO_EINVAL for 0 or below min; LIDO_EFORKED. */
LIDO_API int lido_workers_resize(struct lido_workers *workers, uint32_t max);

/* Wait until nothing is queued, waits for a lease, or runs. Delayed jobs that are not due, and lent threads at
 * rest, do not count; nor do `done` callbacks under way to a loop.
 * Threads: any but those of this executor. Blocks: until the deadline. Owns: nobody.
 * Returns: LIDO_OK; LIDO_ETIMEDOUT; LIDO_EDEADLK on a thread of this executor; LIDO_EINVAL; LIDO_EFORKED. */
LIDO_API int lido_workers_drain(struct lido_workers *workers, int64_t timeout_ms);

/* Refuse new jobs and new borrowers from now on. Delayed jobs that are not due are dropped with LIDO_ECLOSED,
 * queued ones still run, and so do those that borrowers hand to the threads that they have. Closing twice is harmless.
 * Threads: any. Blocks: no. Owns: nobody. Returns: LIDO_OK; LIDO_EINVAL; LIDO_EFORKED. */
LIDO_API int lido_workers_close(struct lido_workers *workers);

/* Close, and let queued jobs run until the deadline; then drop those left with LIDO_ECLOSED, ask the running ones
 * to stop (lido_job_is_cancelled), report them as LIDO_WORKER_EVENT_HOLDER, and end the threads.
 * Threads: any but those of this executor; one at a time, and while no other call is under way. Blocks: until the
 * deadline, and a tenth of a second longer for what has been asked to stop.
 * Owns: on LIDO_OK every thread has ended and the executor is gone. On LIDO_ETIMEDOUT it is the caller's still,
 * closed: some job has not returned or some thread is lent; call again.
 * Returns: LIDO_OK, also for NULL; LIDO_ETIMEDOUT; LIDO_EDEADLK on a thread of this executor; LIDO_EINVAL;
 * LIDO_EFORKED. */
LIDO_API int lido_workers_shutdown(struct lido_workers *workers, int64_t timeout_ms);

/* In a child made by fork: hand every job that had not begun to `inherited` (may be NULL), and free the executor. A
 * job that ran in the parent at that moment is not handed out. Locks of the child's other threads are no matter:
 * there are none.
 * Threads: any of the child, one at a time. Blocks: no. Owns: each job is the caller's when it is handed out; the
 * executor is gone. Returns: how many jobs were inherited; LIDO_EINVAL in the process that opened it. */
LIDO_API int lido_workers_forked(struct lido_workers *workers, void (*inherited)(struct lido_job *job, void *context),
                                 void *context);

/* ---- submit and cancel ----------------------------------------------------------------------------------- */

/* Have a job run. It cannot fail for want of memory. With job->loop set, submit on that loop's thread, which then
 * stays open until `done`; submitting elsewhere, hold the loop beforehand (lido_loop_hold).
 * Threads: any. Blocks: no; with LIDO_QUEUE_WAIT for room, until queue_timeout_ms. Owns: on LIDO_OK the job is
 * lido's, as the head of this file says; on an error it stays the caller's and `done` is not called.
 * Returns: LIDO_OK; LIDO_EBUSY when the job is pending already; LIDO_EQUEUEFULL; LIDO_ETIMEDOUT; LIDO_ECLOSED;
 * LIDO_ECANCELED when its group was cancelled; LIDO_EDEADLK when a worker would wait for room in its own queue;
 * LIDO_EINVAL; LIDO_EFORKED. */
#define lido_submit(workers, job) lido_submit_at(workers, job, LIDO_HERE)
LIDO_API int lido_submit_at(struct lido_workers *workers, struct lido_job *job, const char *site);

/* Have a job queued once delay_ms have passed, whatever the queue limit is then.
 * Threads: any. Blocks: no. Owns: as lido_submit. Returns: as lido_submit; LIDO_EINVAL for a negative delay;
 * LIDO_ETHREAD when the thread that keeps the time cannot be started. */
#define lido_submit_after(workers, job, delay_ms) lido_submit_after_at(workers, job, delay_ms, LIDO_HERE)
LIDO_API int lido_submit_after_at(struct lido_workers *workers, struct lido_job *job, int64_t delay_ms,
                                  const char *site);

/* A job that needs an object of a pool, a connection say. Clear it before its first use. */
struct lido_lease_job {
        struct lido_job job;
        lido_lease lease;   /* held while `run` is called, and released after it; a `run` that clears it keeps the lease */
        int64_t timeout_ms; /* how long to wait for the lease; 0: the pool's own acquire_timeout_ms */
        struct lido_request request; /* lido's */
        uint64_t own[4];             /* lido's */
};

/* Have a job run once it holds a lease of `pool`: until then it waits in the pool's line and no thread with it. If
 * it gets none, `done` is called with the reason; so it needs a `done`.
 * Threads: any. Blocks: no. Owns: as lido_submit.
 * Returns: as lido_submit and as lido_acquire_notify; LIDO_EINVAL also for a job without `done`. */
#define lido_submit_with_lease(workers, pool, lease_job)                                                       \
        lido_submit_with_lease_at(workers, pool, lease_job, LIDO_HERE)
LIDO_API int lido_submit_with_lease_at(struct lido_workers *workers, struct lido_pool *pool,
                                       struct lido_lease_job *lease_job, const char *site);

/* Cancel a job. If it has not begun it never will: with job->loop set, `done` is called there with LIDO_ECANCELED;
 * for one submitted with a lease, `done` is called with it by whoever comes to it; any other is the caller's on
 * return, and `done` is not called. If it runs, lido_job_is_cancelled becomes true for it. Costs the same however
 * long the queue is.
 * Threads: any. Blocks: no. Owns: the caller vouches that the memory is a job still.
 * Returns: LIDO_OK when it will not run; LIDO_EBUSY when it runs, or has run and its `done` is under way;
 * LIDO_EINVAL when it is not pending; LIDO_EFORKED. */
LIDO_API int lido_job_cancel(struct lido_job *job);

/* Has the running job been asked to stop: cancelled itself, with its group, or by a shutdown whose deadline has
 * passed?
 * Threads: the one that runs it. Blocks: no; cheap enough for a loop. Owns: nobody. Returns: 1 or 0. */
LIDO_API int lido_job_is_cancelled(const struct lido_job *job);

/* The running job will block for long: until lido_blocking_end another thread may be started in its stead, if jobs
 * wait. Calls nest. Harmless on a thread that is no worker.
 * Threads: any. Blocks: no. Owns: nobody. */
LIDO_API void lido_blocking_begin(void);
LIDO_API void lido_blocking_end(void);

/* The executor whose thread the caller is; NULL: of none. Threads: any. Blocks: no. Owns: nobody. */
LIDO_API struct lido_workers *lido_workers_self(void);

/* ---- groups ---------------------------------------------------------------------------------------------- */

/* A set of jobs of one executor, in the caller's memory. */
struct lido_group {
        uint64_t own[8];
};

/* Begin a group. Threads: any. Blocks: no. Owns: it must live until lido_group_wait has answered LIDO_OK, or no job
 * was ever submitted with it. Returns: LIDO_OK; LIDO_EINVAL; LIDO_EFORKED. */
LIDO_API int lido_group_init(struct lido_group *group, struct lido_workers *workers);

/* Wait until every job of the group has run, or been dropped, and its `done` has returned. On a worker of the same
 * executor the group's queued jobs are run meanwhile, so that workers waiting for workers cannot lock each other
 * up.
 * Threads: any, but not a loop that has yet to call a `done` of the group. Blocks: until the deadline. Owns: on
 * LIDO_OK the group is the caller's: free it or use it on. Returns: LIDO_OK; LIDO_ETIMEDOUT; LIDO_EINVAL;
 * LIDO_EFORKED. */
LIDO_API int lido_group_wait(struct lido_group *group, int64_t timeout_ms);

/* Drop every job of the group that has not begun (`done` is called with LIDO_ECANCELED), ask the others to stop, and
 * refuse new ones until lido_group_init.
 * Threads: any. Blocks: no. Owns: as lido_submit. Returns: how many were dropped; LIDO_EINVAL; LIDO_EFORKED. */
LIDO_API int lido_group_cancel(struct lido_group *group);

/* ---- threads on loan ------------------------------------------------------------------------------------- */

/* The right to one thread until it is given back. A small value, recognised when it has ended. */
typedef struct lido_thread {
        struct lido_worker *worker;
        uint64_t generation;
} lido_thread;

/* Borrow a thread: an idle one, or a new one below max, or wait in line; it runs only the borrower's jobs.
 * timeout_ms: 0 does not wait, LIDO_NEVER waits for ever.
 * Threads: any; to wait, none of this executor's. Blocks: until the deadline. Owns: the thread is the caller's
 * until lido_thread_release, from any thread. Returns: LIDO_OK; LIDO_ETIMEDOUT; LIDO_EEXHAUSTED for a timeout of 0;
 * LIDO_ECLOSED; LIDO_ETHREAD when a new one cannot be started; LIDO_EDEADLK; LIDO_EINVAL; LIDO_EFORKED. */
#define lido_thread_acquire(workers, timeout_ms, ret_thread)                                                   \
        lido_thread_acquire_at(workers, timeout_ms, ret_thread, LIDO_HERE)
LIDO_API int lido_thread_acquire_at(struct lido_workers *workers, int64_t timeout_ms, lido_thread *ret_thread,
                                    const char *site);

/* Run a job on a borrowed thread, after those handed to it before. Neither queue limit nor priority applies.
 * Threads: any, while the thread is not given back. Blocks: no. Owns: as lido_submit. Returns: LIDO_OK; LIDO_EBUSY,
 * LIDO_ECANCELED, LIDO_EINVAL as lido_submit; LIDO_ESTALE when the thread was given back; LIDO_EFORKED. */
#define lido_thread_run(thread, job) lido_thread_run_at(thread, job, LIDO_HERE)
LIDO_API int lido_thread_run_at(lido_thread thread, struct lido_job *job, const char *site);

/* Give a thread back. It runs what was handed to it first.
 * Threads: any. Blocks: no. Owns: the thread is the executor's again. Returns: LIDO_OK; LIDO_EDOUBLE when it was
 * given back before; LIDO_ESTALE when that is long ago; LIDO_EINVAL; LIDO_EFORKED. */
#define lido_thread_release(thread) lido_thread_release_at(thread, LIDO_HERE)
LIDO_API int lido_thread_release_at(lido_thread thread, const char *site);

/* ---- how it is doing ------------------------------------------------------------------------------------- */

struct lido_worker_stats {
        size_t size;
        /* how it is now; threads == busy + idle + lent, where a lent thread counts as lent whether it works or not */
        uint32_t threads, busy, idle, lent;
        uint32_t blocked; /* of the busy ones, between lido_blocking_begin and _end */
        uint32_t queued, delayed, waiting; /* waiting: in line, for room or for a thread */
        uint32_t threads_peak, queued_peak;
        /* what has happened */
        uint64_t submitted;                /* jobs accepted */
        uint64_t ran;                      /* on workers, lent ones too */
        uint64_t canceled, shed, dropped;  /* never ran: cancelled; for overload; at the end */
        uint64_t rejected, caller_ran;     /* by the full queue */
        uint64_t started, start_failed, ended; /* threads */
        uint64_t woken;                    /* idle threads woken for queued jobs */
        uint64_t stolen;                   /* jobs taken over from a thread that had taken several */
        uint64_t stuck, misused;
};
#define LIDO_WORKER_STATS_INIT LIDO_SIZED(lido_worker_stats)

/* Read the stats: all of one moment, but `ran`, which may be a little behind.
 * Threads: any. Blocks: no. Owns: the struct is the caller's. Returns: LIDO_OK; LIDO_EINVAL; LIDO_EFORKED. */
LIDO_API int lido_workers_stats(struct lido_workers *workers, struct lido_worker_stats *stats);

/* Append only. */
enum lido_worker_event_type {
        LIDO_WORKER_EVENT_STUCK = 0,        /* a job runs for longer than stuck_after_ms: site, thread, age, frames */
        LIDO_WORKER_EVENT_UNSTUCK = 1,      /* it has returned after all */
        LIDO_WORKER_EVENT_HOLDER = 2,       /* it runs still when the deadline of a shutdown has passed */
        LIDO_WORKER_EVENT_START_FAILED = 3, /* a thread could not be started; the jobs wait for the others */
        LIDO_WORKER_EVENT_MISUSE = 4,       /* code, and the site of the misuse */
        LIDO_WORKER_EVENT_DIED = 5,         /* a job ended its thread (pthread_exit); it counts as run */
};

struct lido_worker_event {
        size_t size;
        int type; /* enum lido_worker_event_type */
        int code; /* LIDO_E..., or 0 */
        struct lido_workers *workers;
        const char *name;      /* of the executor */
        uint32_t worker;       /* number of the worker; LIDO_UNLIMITED: none */
        uint32_t thread;       /* its kernel id; 0: not known */
        const char *site;      /* file:line where the job was submitted or the misuse was made; or NULL */
        uint64_t age_ns;       /* how long the job has run, at least */
        void *const *frames;   /* its backtrace, for backtrace_symbols(3); valid during the callback; or NULL */
        uint32_t frame_count;
        uint32_t reserved;
};

/* The handler of backtrace_signal: set it with sigaction(2), with SA_RESTART. It does nothing in a thread that was
 * not asked.
 * Threads: any; in a signal handler, which is what it is for. Blocks: no. */
LIDO_API void lido_workers_on_signal(int signal_number);

/* The name of an event type, "stuck". Threads: any, also in a signal handler. Blocks: no. */
LIDO_API const char *lido_worker_event_name(int type);

#ifdef __cplusplus
}
#endif
#endif
