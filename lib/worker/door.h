/* worker/door.h - where submitters leave plain jobs while the workers are at the queue: a list with a lock of its own.
 *
 * The lock of an executor is held while a worker fetches the cache lines of several jobs, so whoever submits waits for
 * those. A submitter whose job asks for nothing (normal priority, no group, no limit on the queue, nobody to wake)
 * needs no more than a list to append to. Workers move the whole list into the queue, in three stores, each time that
 * they come for jobs.
 *
 *      SHUT    the list is empty, and all is as if there were no door          the state to begin with
 *      OPEN    jobs may be in the list, younger than those of their class in the queue
 *
 *      SHUT -> OPEN    door_settle_locked       a worker on its way to its jobs, a submitter that has summoned somebody
 *      OPEN -> SHUT    door_shut_locked         everybody else who takes the executor's lock, before all he does there
 *                                               (executor_lock), and a worker that has found nothing to do
 *
 * Law. The door is open only while a submitter has nobody to summon: somebody is under way to the queue, or nobody is idle and
 * no thread may be started. A worker may make that untrue (it arrives, and others are idle still) only while it holds
 * the executor's lock, and settles before it gives it back. So a job in the list is seen by whoever is under way, or by the
 * first of the busy ones that comes back.
 *
 * Interleavings. (1) A submitter appends while the last busy worker finds queue and door empty: the worker shuts the door
 * before it sleeps, under the door's lock; the submitter is either before it, and the worker finds the job and goes on, or
 * after it, finds the door shut, and takes the way by the executor's lock, where it finds the worker idle and wakes it. (2)
 * Close, shutdown, drain, cancel, stats, fork take the executor's lock by executor_lock: all jobs submitted before are in the
 * queue then, and none comes in by the door until they are done; is_closed keeps it shut. (3) One job submitted twice at a
 * time: the door's lock decides among those who come by the door, and nobody is inside the door while somebody who came by
 * executor_lock has the executor's; so exactly one of them finds the job its caller's.
 *
 * Order of locks: the executor's, then the door's. Nobody asks for the executor's lock inside of the door's.
 */
#ifndef LIDO_WORKER_DOOR_H
#define LIDO_WORKER_DOOR_H

#include "worker/job.h"
#include "worker/lock.h"

/* One line, which submitters write with every job, and a worker each time that it comes for jobs. */
struct door {
        struct lock lock __attribute__((aligned(64)));
        _Atomic uint32_t is_open; /* set under the executor's lock; cleared under both; a glance at it is a hint */
        _Atomic uint32_t count;   /* lock: length of `jobs`; a glance at it is a hint */
        struct list jobs;         /* lock */
};

/* May a job come in by the door, if that is open? */
static inline bool door_suits(const struct job *job)
{
        return !job->group && job->priority == LIDO_PRIORITY_NORMAL;
}

static inline void door_init(struct door *door)
{
        list_init(&door->jobs);
}

static inline bool door_is_open(struct door *door)
{
        return load_relaxed(&door->is_open);
}

enum door_answer { DOOR_SHUT, DOOR_TAKEN, DOOR_NOT_YOURS };

/* Hot: measured by the throughput workload of the worker benches. */
static inline enum door_answer door_enter(struct lido_workers *ws, struct door *door, struct job *job, const char *site)
{
        enum door_answer answer = DOOR_SHUT;

        lock_take(&door->lock);
        if (door_is_open(door)) {
                answer = DOOR_NOT_YOURS;
                if (job_is_callers(job)) {
                        answer = DOOR_TAKEN;
                        job->workers = ws;
                        job->site = site;
                        store_relaxed(&job->stop, 0);
                        job_hold(job);
                        job_move(job, JOB_QUEUED);
                        list_push_back(&door->jobs, &job->link);
                        store_relaxed(&door->count, load_relaxed(&door->count) + 1);
                }
        }
        lock_give(&door->lock);
        return answer;
}

#endif
