/* worker/executor.h - what an executor and its workers are made of, and which lock guards it.
 *
 * One lock per executor guards nearly everything; it is held for some tens of instructions, nobody is woken, started or
 * called under it. What there is to do afterwards is noted in a struct after and done by after_unlock.
 *
 * A worker is in one place:
 *
 *      BUSY  runs jobs, or is on its way to do so (being started, woken, or looking)
 *      IDLE  asleep on its word, in the stack `idle`; the one that slept last is on top and woken first, so that the
 *            bottom grows cold and ends by its idle timeout
 *      HELD  asleep on its word, lent, with nothing in its own list
 *
 *      BUSY -> IDLE, HELD   park_locked              IDLE -> BUSY   summon_locked, park_locked (timeout), wake_all
 *      IDLE -> HELD         lend_locked              HELD -> BUSY   lido_thread_run, lido_thread_release
 *      HELD -> IDLE         lido_thread_release
 *
 * Whoever makes a sleeper BUSY does so under the lock and sets its word there, and wakes it after unlocking. So a
 * sleeper whose deadline passes finds out, under the lock, whether it has been chosen meanwhile, and a choice is never
 * lost; a late wake finds the word changed or finds a sleeper that looks at its word and sleeps on.
 *
 * Invariants (executor_check), with the lock held:
 *      threads == busy + idle (length of the stack) + held            busy counts those being started, too
 *      threads - blocked <= max, but for surplus threads that have yet to notice
 *      a job is queued or at the door and somebody idle  =>  waking > 0: a worker is on its way, and wakes the next if jobs are left
 *      batchers == workers that have taken several jobs and have not come back for more
 *
 * Why no job is left behind. A job enters the queue under the lock, and the same hold either finds a wake under way, or
 * wakes, or starts a thread, or finds everybody BUSY at max; and every BUSY worker comes back to the lock and takes from
 * the queue, then from what others have taken but not begun, before it sleeps. A worker that takes one job while more is
 * left, in the queue or in somebody's batch, passes the wake on. So as long as anybody sleeps nobody's job waits behind a
 * job that runs for long.
 *
 * And no job waits for long behind one that runs for long, though nobody is ever idle: whoever takes a job looks, now and
 * then, whether a batch has moved on since the last look (reclaim_locked), and puts one that has not back in the queue.
 *
 * Nearly missed: (1) a worker that takes a batch while the last idle one is still waking empties the queue, and the woken
 * one, finding nothing, must look into the batch before it sleeps; (2) it must pass the wake on when it succeeds there;
 * (3) a started thread counts as a wake under way, else a burst starts `max` threads for one job.
 */
#ifndef LIDO_WORKER_EXECUTOR_H
#define LIDO_WORKER_EXECUTOR_H

#include "base/clock.h"
#include "base/park.h"
#include "base/thread.h"
#include "base/waiter.h"
#include "worker/door.h"
#include "worker/lock.h"
#include "worker/queue.h"

/* Jobs taken at once, at most. Each is a cache line to wait for under the lock: with 16 of them submitters sleep
 * more often than the rarer lock saves (measured: 40 against 70 to 90 ns a job with one producer and eight
 * workers). */
enum { BATCH_MAX = 8 };

/* A worker in lido_group_wait runs other jobs of the group, which may wait in turn: so deep and no deeper. */
enum { DEPTH_MAX = 16 };

/* What is needed to tell the end of a job whose thread ends in it. */
struct frame {
        struct job *job; /* NULL: it has no `done`, and may be gone */
        struct lido_group *group;
        const char *site;
};

enum place { WORKER_BUSY, WORKER_IDLE, WORKER_HELD };

struct lido_worker {
        /* what others write while it sleeps */
        _Atomic uint32_t word __attribute__((aligned(64))); /* atomic: 0 asleep, 1 chosen; slept on */
        enum place place;       /* lock */
        struct list idle_link;  /* lock: in `idle` */
        struct list link;       /* lock: in `all` once it has arrived; in `ended` or `spare` later */
        struct list own;        /* lock: jobs handed to it while lent */
        uint64_t generation;    /* lock: of its latest loan */
        bool is_lent;           /* lock */
        bool was_summoned;      /* lock: it is the wake under way */
        bool has_expired;       /* lock: its idle timeout has passed */
        bool has_lingered;      /* lock: it has looked at the queue for long enough */
        bool is_blocked;        /* lock: it is one of `blocked` */
        uint32_t batched;       /* lock: how many slots it has filled; 0: no batch */
        uint64_t batch_seq;     /* lock: its `seq` when somebody last looked at its batch */
        uint32_t number;        /* constant while it lives */
        uint32_t thread_id;     /* set on arrival */
        struct thread thread;   /* starter, joiner */
        struct lido_workers *workers; /* constant */
        const char *lease_site; /* lock: where it was borrowed */

        /* what the minder has seen of it; lock */
        uint64_t seen_seq, seen_ns;
        bool is_reported;

        /* what its own thread writes for each job */
        _Atomic uint64_t seq __attribute__((aligned(64))); /* own thread; odd while a job runs */
        _Atomic(const char *) site;                        /* own thread: of that job */
        _Atomic uint64_t ran;                              /* own thread */
        uint32_t depth;                                    /* own thread: jobs within jobs, by lido_group_wait */
        uint32_t blocking;                                 /* own thread: nesting of blocking hints */
        uint32_t misses;                                   /* own thread: times it lingered in vain */
        struct frame frame[DEPTH_MAX];                     /* own thread: what runs, outermost first */
        _Atomic(struct job *) slot[BATCH_MAX];             /* whoever takes a pointer out has claimed the job */
};

/* A submitter that waits for room; it lies on its stack. */
struct room_waiter {
        struct waiter waiter;
        struct job *job;
};

/* A borrower that waits for a thread; it lies on its stack. */
struct loan_waiter {
        struct waiter waiter;
        const char *site;
        lido_thread gift; /* written before GIVEN is settled */
};

enum { AFTER_WORDS = 16 };

/* What to do once the lock is released. */
struct after {
        bool any;             /* anything at all */
        struct lido_worker *wake;  /* an idle worker that was chosen */
        struct lido_worker *start; /* a thread to start, counted already */
        bool quiet;           /* whoever waits for quiet is to look */
        bool minder;          /* the minder is to look */
        bool has_dropped;     /* `dropped` is in use */
        struct list dropped;  /* jobs dropped for overload */
        uint32_t words;       /* sleepers that have got what they waited for */
        _Atomic uint32_t *word[AFTER_WORDS];
};

static inline void after_init(struct after *after)
{
        after->wake = after->start = NULL;
        after->any = after->quiet = after->minder = after->has_dropped = false;
        after->words = 0;
}

static inline struct list *after_dropped(struct after *after)
{
        if (!after->has_dropped)
                list_init(&after->dropped);
        after->any = after->has_dropped = true;
        return &after->dropped;
}

struct lido_workers {
        /* constant */
        struct lido_workers_options options;
        char name[16];
        uint64_t idle_timeout_ns;  /* CLOCK_NEVER: no timeout */
        uint64_t stuck_after_ns;   /* CLOCK_NEVER: nobody watches */
        uint32_t epoch;            /* of the process; see fork.c */
        struct list registry_link; /* fork.c's lock */

        /* Three lines travel between cores: that of the door with every job, this one and the first of the queue with every
         * turn of a worker. */
        struct lock lock __attribute__((aligned(64)));
        uint32_t max;       /* lock */
        uint32_t threads;   /* lock: all that live, but those in `leaving` */
        uint32_t blocked;   /* lock: busy ones that have said that they block */
        struct list idle;   /* lock: asleep, the latest first */
        uint64_t submitted; /* lock: jobs accepted */
        uint32_t batchers;  /* lock */
        uint32_t looks;     /* lock: jobs taken while there were batches */
        uint32_t lent;      /* lock */
        uint32_t waking;    /* lock: workers woken or started for the queue that have not come to the lock yet */
        bool is_closed;     /* lock: no new jobs */
        bool is_lingering;  /* lock: a worker looks at the queue before it sleeps */
        struct queue queue; /* lock */
        struct door door;   /* its own lock, inside of ours; see door.h */

        uint32_t idle_count;  /* lock: length of `idle` */
        uint32_t busy;        /* lock: see above */
        uint32_t leaving;     /* lock: have left the table, and run on_stop */
        struct list room;      /* lock: struct room_waiter, oldest first */
        struct list borrowers; /* lock: struct loan_waiter, oldest first */
        bool is_watch_asleep;  /* lock: nothing runs as far as the minder knows; wake it for the first job */
        bool is_ending;       /* lock: workers that find nothing to do end */
        _Atomic uint32_t is_stopping; /* jobs are asked to stop; written under the lock */
        _Atomic uint32_t quiet_word;  /* slept on by those who wait for quiet; moved under the lock */
        uint32_t quiet_waiters;       /* lock */

        struct list all;       /* lock: workers that have arrived */
        struct list ended;     /* lock: to be joined */
        struct list spare;     /* lock: joined, to be used again */
        struct list leasing;   /* lock: jobs that wait for a lease, by link */
        uint32_t numbers;      /* lock: last number given to a worker */

        /* the minder: minder.c */
        struct thread minder;         /* starter, joiner */
        bool has_minder;              /* lock */
        bool is_minder_ending;        /* lock */
        _Atomic uint32_t minder_word; /* 0 asleep; set under the lock */
        struct heap delayed;          /* lock */
        uint32_t delayed_count;       /* lock */

        struct lido_worker_stats stats; /* lock: the counters; gauges are filled in by lido_workers_stats */
        uint64_t ran_by_ended;          /* lock: `ran` of workers that have ended */
};

/* ---- door.c: jobs that have come in beside the lock ------------------------------------------------------- */

/* Move them into the queue; and shut the door as well. */
void door_empty_locked(struct lido_workers *ws) REQUIRES(ws->lock);
void door_shut_locked(struct lido_workers *ws) REQUIRES(ws->lock);

/* Before the lock is given back by those who do not shut the door, or wish it open: open it, or shut it and have somebody
 * come for what was left in it. */
void door_settle_locked(struct lido_workers *ws, struct after *after) REQUIRES(ws->lock);

/* Take the lock, and shut the door: all jobs are in the queue, and stay. */
static inline void executor_lock(struct lido_workers *ws) ACQUIRES(ws->lock) NO_THREAD_SAFETY
{
        lock_take(&ws->lock);
        if (door_is_open(&ws->door))
                door_shut_locked(ws);
}

/* ---- threads.c: workers from job to job ------------------------------------------------------------------- */

/* Somebody is wanted for the queue: choose an idle worker, or a new thread below max, unless one is under way. */
void summon_locked(struct lido_workers *ws, struct after *after) REQUIRES(ws->lock);

/* Do what was noted under the lock. The lock is not held. */
void after_unlock_slow(struct lido_workers *ws, struct after *after);

static inline void after_unlock(struct lido_workers *ws, struct after *after)
{
        if (after->any)
                after_unlock_slow(ws, after);
}

/* Put a worker on top of the stack of idle ones, its place being IDLE then; and take it out, its place left to
 * the caller. */
void idle_add_locked(struct lido_workers *ws, struct lido_worker *w) REQUIRES(ws->lock);
void idle_remove_locked(struct lido_workers *ws, struct lido_worker *w) REQUIRES(ws->lock);

/* Make a sleeper BUSY; it is to be woken after unlocking. */
void worker_choose_locked(struct lido_workers *ws, struct lido_worker *w) REQUIRES(ws->lock);

/* Run a claimed job on the calling thread, `w` being its worker or NULL, and tell its end. */
void worker_run(struct lido_worker *w, struct job *job);

/* Take and run jobs until it is time to end. */
void worker_loop(struct lido_workers *ws, struct lido_worker *w);

/* The thread ends inside its jobs: tell their ends, the innermost first. */
void worker_unwind(struct lido_worker *w);

/* Overload: drop what has stood for too long. */
void queue_shed_locked(struct lido_workers *ws, uint64_t now, struct after *after) REQUIRES(ws->lock);

/* This worker is on its way to the queue; nobody else need be, until it has come. */
static inline void worker_summoned_locked(struct lido_workers *ws, struct lido_worker *w)
{
        w->was_summoned = true;
        ws->waking++;
}

/* Nothing is queued, waits for its lease, or runs. Under the lock. */
static inline bool is_quiet(struct lido_workers *ws)
{
        return ws->busy == 0 && queue_count(&ws->queue) == 0 && list_is_empty(&ws->leasing);
}

/* Note that whoever waits for quiet is to look, if it is quiet. */
void quiet_note_locked(struct lido_workers *ws, struct after *after) REQUIRES(ws->lock);

/* ---- life.c: the start and the end of a worker ------------------------------------------------------------ */

/* Count a thread to come, which after_unlock starts. Returns: false without memory. */
bool worker_reserve_locked(struct lido_workers *ws, struct lido_worker **ret_worker) REQUIRES(ws->lock);

/* Start a reserved thread. The lock is not held. Returns: LIDO_OK; LIDO_ETHREAD, and it is no longer counted. */
int worker_start(struct lido_workers *ws, struct lido_worker *w);

/* Take a BUSY worker out of the table; it touches the executor only to depart. */
void worker_leave_locked(struct lido_workers *ws, struct lido_worker *w, struct after *after) REQUIRES(ws->lock);

/* Join threads that have ended. Not on a thread that holds the lock. */
void workers_reap(struct lido_workers *ws);

/* The worker that the calling thread is; NULL: none. */
struct lido_worker *worker_self(void);

/* ---- fork.c ---------------------------------------------------------------------------------------------- */

extern _Atomic uint32_t worker_epoch; /* written in a child made by fork, while it has one thread */

void fork_register(struct lido_workers *ws);
void fork_unregister(struct lido_workers *ws);

static inline bool is_foreign(const struct lido_workers *ws)
{
        return ws->epoch != load_relaxed(&worker_epoch);
}

/* ---- submit.c: into the queue and out of it -------------------------------------------------------------- */

/* May this job enter at all? Returns: LIDO_OK, LIDO_EBUSY, LIDO_ECLOSED, LIDO_ECANCELED. */
int submit_admit_locked(struct lido_workers *ws, struct job *job) REQUIRES(ws->lock);

/* The same, whether the executor is closed or not. */
int job_admit_locked(struct lido_workers *ws, struct job *job) REQUIRES(ws->lock);

/* Is it a job at all? Returns: LIDO_OK, LIDO_EINVAL, LIDO_EFORKED. */
static inline int submit_check(struct lido_workers *ws, struct lido_job *job)
{
        if (!ws || !job || !job->run || job->priority > LIDO_PRIORITY_CRITICAL || (job->flags & ~LIDO_JOB_KEEP))
                return LIDO_EINVAL;
        return is_foreign(ws) ? LIDO_EFORKED : LIDO_OK;
}

/* Put an admitted job in the queue, its state not yet QUEUED. Somebody is to be summoned then. Returns: as
 * group_enter_locked, false for a job that has entered its group before. */
bool submit_enqueue_locked(struct lido_workers *ws, struct job *job) REQUIRES(ws->lock);

/* Jobs have left a bounded queue: let those in who stand in line, as far as there is room. */
void room_give_locked(struct lido_workers *ws, struct after *after) REQUIRES(ws->lock);

/* Take a job that has not begun out of wherever it stands. Returns: false if it has begun, or is not pending. */
bool job_withdraw_locked(struct lido_workers *ws, struct job *job) REQUIRES(ws->lock);

/* Withdraw a job and put it in `dropped`, whose jobs jobs_end ends. Returns: as job_withdraw_locked. */
bool job_drop_locked(struct lido_workers *ws, struct job *job, struct list *dropped) REQUIRES(ws->lock);

/* End every job of a list of dropped ones. Lock not held. */
void jobs_end(struct list *dropped, int status);

/* ---- minder.c: delayed jobs, stuck workers --------------------------------------------------------------- */

/* Start it, unless it runs. Lock not held. Returns: LIDO_OK, LIDO_ETHREAD. */
int minder_start(struct lido_workers *ws);

/* Have it look. */
void minder_call_locked(struct lido_workers *ws, struct after *after) REQUIRES(ws->lock);

/* End and join it, if it runs. Lock not held. */
void minder_stop(struct lido_workers *ws);

/* ---- lease.c: threads on loan ---------------------------------------------------------------------------- */

/* Give a worker that is awake, and has nothing to do, to the oldest borrower in line, if there is one. */
bool lend_to_waiter_locked(struct lido_workers *ws, struct lido_worker *w, struct after *after) REQUIRES(ws->lock);

/* ---- with_lease.c: jobs that wait for an object of a pool ------------------------------------------------- */

/* Cancel a job if it waits for its lease still. Returns: true if it did; then its end has been told or will be.
 * Lock not held. */
bool lease_job_cancel(struct job *job);

/* Cancel all that wait for a lease, of a group or (NULL) of the executor, with this code. Returns: how many. */
int lease_jobs_cancel(struct lido_workers *ws, struct lido_group *group, int code);

/* A job that had its lease, or none, will not run: give the lease back, make the job what it was. Lock not held. */
void lease_job_abandon(struct job *job);

/* ---- report.c: events and stats -------------------------------------------------------------------------- */

void report_event(struct lido_workers *ws, struct lido_worker_event *event);
void report_misuse(struct lido_workers *ws, int code, const char *site);

/* Report every job that still runs and every thread that is lent. Lock not held. */
void report_holders(struct lido_workers *ws);

/* Say of a worker what it runs. */
void report_describe_locked(struct lido_workers *ws, struct lido_worker *w, struct lido_worker_event *ret_event)
        REQUIRES(ws->lock);

/* Assert every invariant. Threads: any. */
void executor_check(struct lido_workers *ws);

#endif
