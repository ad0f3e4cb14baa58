/* worker/job.h - a job as lido sees it: its state, its links, and how its end is told.
 *
 *                        submit                take                   run returns
 *      IDLE, RELEASED ----------> QUEUED ------------> RUNNING ------------------> IDLE    (done is called)
 *          |   |                   ^ | \                 ^  \---> ENDING ---------> IDLE    (done by way of a loop)
 *          |   |  due              | |  \ take several   |
 *          |   +------> DELAYED ---+ |   +-> BATCHED ----+---> RELEASED                    (no done: the caller's
 *          |    lease got            |          claim                                       from the call of run on)
 *          +----------> LEASING -----+
 *      QUEUED, HANDED, DELAYED, LEASING, BATCHED --- cancel, shed, close ---> IDLE, or ENDING and then IDLE
 *
 * Arrows, each with the function that takes it:
 *      IDLE|RELEASED -> QUEUED     submit_enqueue_locked           QUEUED -> RUNNING|RELEASED  job_begin
 *      IDLE|RELEASED -> DELAYED    lido_submit_after_at            QUEUED -> BATCHED           threads.c take_several_locked
 *      IDLE|RELEASED -> HANDED     lido_thread_run_at              HANDED -> RUNNING|RELEASED  job_begin
 *      IDLE|RELEASED -> LEASING    with_lease.c                    BATCHED -> RUNNING|RELEASED job_begin, after the claim
 *      DELAYED|LEASING -> QUEUED   submit_enqueue_locked           any pending -> ENDING       job_drop_locked
 *      RUNNING -> ENDING|IDLE      job_end                         ENDING -> IDLE              job_end, its loop
 *      any pending -> IDLE         lido_job_cancel, lido_workers_forked
 *      BATCHED|HANDED -> QUEUED    life.c bequeath_locked, when a job has ended its thread
 *
 * What holds. Every arrow but those out of BATCHED and RUNNING is taken under the executor's lock. A BATCHED job is
 * linked nowhere; one slot of one worker points to it (link.next is that slot), and whoever takes the pointer out of
 * the slot, by one atomic operation, has claimed the job: its worker to run it, another to run it in its stead, a
 * canceller to give it back. So nobody ever follows a pointer to a job that might be its caller's again, and a cancel is
 * exact: claimed or not, never perhaps. A RUNNING job is left alone by all but `stop`.
 */
#ifndef LIDO_WORKER_JOB_H
#define LIDO_WORKER_JOB_H

#include "base/assert.h"
#include "base/atomic.h"
#include "base/heap.h"
#include "base/list.h"
#include "lido/loop.h"
#include "lido/worker.h"

struct lido_worker;

enum job_state {
        JOB_IDLE,     /* the caller's; all zero is this */
        JOB_QUEUED,   /* in a class of the queue */
        JOB_HANDED,   /* in the list of a lent worker */
        JOB_DELAYED,  /* in the heap of times */
        JOB_LEASING,  /* waits for its lease */
        JOB_BATCHED,  /* taken by a worker together with others */
        JOB_RUNNING,  /* `run` is called, and `done` is to come */
        JOB_ENDING,   /* `done` is under way */
        JOB_RELEASED, /* `run` was called and there is no `done`: the caller's */
        JOB_STATES
};

/* The same memory as struct lido_job, field by field. The first 64 bytes are all that submitting and running a
 * plain job touches; the rest is for jobs with a loop, a group or a delay. */
struct job {
        void (*run)(struct lido_job *job);
        void (*done)(struct lido_job *job, int status);
        struct lido_group *group;
        uint16_t priority;
        uint16_t flags;
        _Atomic uint8_t state; /* enum job_state; see above */
        _Atomic uint8_t stop;  /* set by cancel, under the lock; read by the job */
        uint8_t is_held;       /* set by submit: its loop is held for it */
        uint8_t is_lease_job;  /* set by submit: it is part of a struct lido_lease_job */
        union {
                struct list link;      /* lock: in the queue, in `own` of a worker, in a list of dropped jobs */
                struct lido_post post; /* owner: ENDING, by way of a loop */
        };
        struct lido_workers *workers; /* set by submit */
        const char *site;             /* set by submit */

        struct lido_loop *loop;
        struct list group_link; /* lock: in its group while it can be taken or dropped */
        union {
                struct heap_node due; /* lock: DELAYED */
                uint64_t since_ns;    /* lock: QUEUED, when the queue keeps time */
                int status;           /* owner: ENDING */
        };
} __attribute__((may_alias));

_Static_assert(sizeof(struct job) == sizeof(struct lido_job) && sizeof(struct job) == 128, "two cache lines");
_Static_assert(offsetof(struct job, state) == offsetof(struct lido_job, own_state), "the same layout");
_Static_assert(offsetof(struct job, link) == offsetof(struct lido_job, own), "the same layout");
_Static_assert(offsetof(struct job, loop) == offsetof(struct lido_job, loop) && offsetof(struct job, loop) == 64, "and line");

static inline struct job *job_of(struct lido_job *job)
{
        return (struct job *)job;
}

static inline struct lido_job *job_public(struct job *job)
{
        return (struct lido_job *)job;
}

static inline enum job_state job_state(struct job *job)
{
        return (enum job_state)load_relaxed(&job->state);
}

/* May the caller submit it? Whoever is told that, also without having waited for its end, sees the last worker through
 * with it. */
static inline bool job_is_callers(struct job *job)
{
        enum job_state state = (enum job_state)load_acquire(&job->state); /* pairs with job_move */

        return state == JOB_IDLE || state == JOB_RELEASED;
}

#ifdef LIDO_DEBUG
extern const uint16_t job_arrows[JOB_STATES]; /* bit N: may move to state N */
#endif

/* The one place where a state is stored. */
static inline void job_move(struct job *job, enum job_state to)
{
        debug_assert(job_arrows[job_state(job)] & (1u << to));
        store_release(&job->state, (uint8_t)to); /* pairs with job_is_callers */
}

/* The job is claimed and `run` is about to be called: whose is it from now on? */
static inline void job_begin(struct job *job)
{
        job_move(job, job->done ? JOB_RUNNING : JOB_RELEASED);
}

/* Tell the end of a claimed job that is in no list: call `done` here or on its loop, and let its group know. A job
 * without `done` must not be touched any more, if it ran; `group` is what it named before. Lock not held. */
void job_end(struct job *job, int status);

/* Get hold of the loop of a job that is about to be submitted, if this is its thread; and undo that. */
void job_hold_slow(struct job *job);

static inline void job_hold(struct job *job)
{
        job->is_held = 0;
        job->is_lease_job = 0;
        if (job->done && job->loop)
                job_hold_slow(job);
}

void job_unhold(struct job *job);

#endif
