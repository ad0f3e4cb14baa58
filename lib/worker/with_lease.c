/* Jobs that wait for an object of a pool before they are queued: no thread waits for a lease.
 *
 * The wait is one lido_acquire_notify of the public interface. Its callback comes on whatever thread settles it, possibly
 * before lido_submit_with_lease returns. Under the executor's lock it either queues the job, now with its lease, or has it
 * end with the reason.
 *
 * The request is touched outside of the lock by the submitter, who makes it, and by cancellers, while the callback may be on
 * its way and would hand the job back to a caller who frees it. So whoever is inside is counted, and a callback that finds
 * somebody there leaves what follows to the last of them:
 *
 *      LEASING, holders 0 --callback--> conclude: QUEUED, or ENDING
 *      LEASING, holders n --callback--> is_settled; the last holder concludes
 *
 * Once `code` is set the job will not run, whatever the pool says: so a cancel is exact, though lido_cancel may come too
 * late, or find that the request does not stand in line yet (then the submitter cancels it). While the job waits and runs,
 * job.run is ours; the caller's own is kept here and put back before it is called.
 */
#include "worker/executor.h"
#include "worker/group.h"

/* What lies in lido_lease_job.own. */
struct wait {
        void (*run)(struct lido_job *job); /* the caller's */
        int code;                          /* lock: why it will not run; 0: it may */
        uint32_t holders;                  /* lock: the submitter and cancellers, while they touch the request */
        bool is_in_line;                   /* lock: lido_acquire_notify has returned */
        bool is_settled;                   /* lock: the callback has come */
} __attribute__((may_alias));

_Static_assert(sizeof(struct wait) <= sizeof((struct lido_lease_job *)0)->own, "a lease job has room for it");

static struct lido_lease_job *lease_job_of(struct job *job)
{
        return list_entry(job, struct lido_lease_job, job);
}

static struct wait *wait_of(struct lido_lease_job *lease_job)
{
        return (struct wait *)(void *)lease_job->own;
}

static void run_with_lease(struct lido_job *job)
{
        struct lido_lease_job *lease_job = list_entry(job, struct lido_lease_job, job);

        job->run = wait_of(lease_job)->run;
        job->run(job);
        if (lease_job->lease.slot)
                lido_release(lease_job->lease);
        lease_job->lease.slot = NULL;
}

void lease_job_abandon(struct job *job)
{
        struct lido_lease_job *lease_job = lease_job_of(job);

        job->run = wait_of(lease_job)->run;
        if (lease_job->lease.slot)
                lido_release(lease_job->lease);
        lease_job->lease.slot = NULL;
}

/* ---- the outcome ------------------------------------------------------------------------------------------ */

static void leave_line_locked(struct lido_workers *ws, struct job *job) REQUIRES(ws->lock)
{
        (void)ws;
        list_unlink(&job->link);
        if (job->group)
                list_unlink(&job->group_link);
}

/* It will not run. The lock is held on entry and released. */
static void end_waiting(struct lido_workers *ws, struct job *job, int code) REQUIRES(ws->lock) NO_THREAD_SAFETY
{
        struct after after;

        after_init(&after);
        leave_line_locked(ws, job);
        job_move(job, JOB_ENDING);
        ws->stats.canceled++;
        quiet_note_locked(ws, &after);
        lock_give(&ws->lock);
        after_unlock(ws, &after);
        job_end(job, code);
}

static void queue_with_lease(struct lido_workers *ws, struct job *job) REQUIRES(ws->lock) NO_THREAD_SAFETY
{
        struct after after;

        after_init(&after);
        leave_line_locked(ws, job);
        submit_enqueue_locked(ws, job);
        summon_locked(ws, &after);
        lock_give(&ws->lock);
        after_unlock(ws, &after);
}

/* The lock is held on entry and released. */
static void conclude(struct lido_workers *ws, struct job *job) REQUIRES(ws->lock) NO_THREAD_SAFETY
{
        int code = wait_of(lease_job_of(job))->code;

        if (code == LIDO_OK)
                queue_with_lease(ws, job);
        else
                end_waiting(ws, job, code);
}

/* The lock is held on entry and released. */
static void let_go(struct lido_workers *ws, struct job *job) REQUIRES(ws->lock) NO_THREAD_SAFETY
{
        struct wait *wait = wait_of(lease_job_of(job));

        if (--wait->holders == 0 && wait->is_settled)
                conclude(ws, job);
        else
                lock_give(&ws->lock);
}

static void on_lease(struct lido_request *request, int status, lido_lease lease) NO_THREAD_SAFETY
{
        struct lido_lease_job *lease_job = list_entry(request, struct lido_lease_job, request);
        struct job *job = job_of(&lease_job->job);
        struct lido_workers *ws = job->workers;
        struct wait *wait = wait_of(lease_job);

        executor_lock(ws);
        if (status == LIDO_OK)
                lease_job->lease = lease;
        if (wait->code == LIDO_OK)
                wait->code = status;
        wait->is_settled = true;
        if (wait->holders > 0)
                lock_give(&ws->lock);
        else
                conclude(ws, job);
}

/* ---- submit ----------------------------------------------------------------------------------------------- */

static int wait_begin_locked(struct lido_workers *ws, struct lido_lease_job *lease_job, const char *site)
        REQUIRES(ws->lock)
{
        struct job *job = job_of(&lease_job->job);
        int rc = submit_admit_locked(ws, job);

        if (rc != LIDO_OK)
                return rc;
        *wait_of(lease_job) = (struct wait){ .run = job->run, .holders = 1 };
        lease_job->lease.slot = NULL;
        lease_job->request.loop = NULL;
        job_hold(job);
        job->is_lease_job = 1;
        job->run = run_with_lease;
        job->workers = ws;
        job->site = site;
        store_relaxed(&job->stop, 0);
        job_move(job, JOB_LEASING);
        list_push_back(&ws->leasing, &job->link);
        if (job->group) {
                group_enter_locked(job->group);
                list_push_back(&group_of(job->group)->parked, &job->group_link);
        }
        ws->submitted++;
        return LIDO_OK;
}

/* The pool has refused the wait: make all as it was, but for a job that has been cancelled meanwhile, which is ended.
 * Returns: what submit is to answer. */
static int undo(struct lido_workers *ws, struct lido_lease_job *lease_job, int rc) NO_THREAD_SAFETY
{
        struct job *job = job_of(&lease_job->job);
        struct wait *wait = wait_of(lease_job);
        struct lido_group *group = job->group;
        struct after after;

        after_init(&after);
        executor_lock(ws);
        if (wait->code != LIDO_OK) {
                end_waiting(ws, job, wait->code);
                return LIDO_OK;
        }
        leave_line_locked(ws, job);
        job_move(job, JOB_IDLE);
        job->run = wait->run;
        ws->submitted--;
        quiet_note_locked(ws, &after);
        lock_give(&ws->lock);
        after_unlock(ws, &after);
        job_unhold(job);
        if (group)
                group_leave(group);
        return rc;
}

/* The request stands in line, or the callback has been and left the rest to us. */
static void in_line(struct lido_workers *ws, struct lido_lease_job *lease_job) NO_THREAD_SAFETY
{
        struct job *job = job_of(&lease_job->job);
        struct wait *wait = wait_of(lease_job);
        bool is_canceled;

        executor_lock(ws);
        wait->is_in_line = true;
        is_canceled = wait->code != LIDO_OK && !wait->is_settled;
        if (is_canceled) {
                lock_give(&ws->lock);
                lido_cancel(&lease_job->request);
                executor_lock(ws);
        }
        let_go(ws, job);
}

int lido_submit_with_lease_at(struct lido_workers *ws, struct lido_pool *pool, struct lido_lease_job *lease_job,
                              const char *site)
{
        int64_t timeout_ms;
        int rc;

        if (!pool || !lease_job || !lease_job->job.done || lease_job->timeout_ms < LIDO_NEVER)
                return LIDO_EINVAL;
        rc = submit_check(ws, &lease_job->job);
        if (rc != LIDO_OK)
                return rc;
        timeout_ms = lease_job->timeout_ms == 0 ? LIDO_TIMEOUT_DEFAULT : lease_job->timeout_ms;
        executor_lock(ws);
        rc = wait_begin_locked(ws, lease_job, site);
        lock_give(&ws->lock);
        if (rc == LIDO_EBUSY)
                report_misuse(ws, rc, site);
        if (rc != LIDO_OK)
                return rc;
        rc = lido_acquire_notify_at(pool, &lease_job->request, timeout_ms, on_lease, site);
        if (rc != LIDO_OK)
                return undo(ws, lease_job, rc);
        in_line(ws, lease_job);
        return LIDO_OK;
}

/* ---- cancel ----------------------------------------------------------------------------------------------- */

/* Cancel a waiting job. The lock is held on entry and released. */
static void cancel_waiting(struct lido_workers *ws, struct job *job, int code) REQUIRES(ws->lock) NO_THREAD_SAFETY
{
        struct lido_lease_job *lease_job = lease_job_of(job);
        struct wait *wait = wait_of(lease_job);

        if (wait->code == LIDO_OK)
                wait->code = code;
        wait->holders++;
        if (wait->is_in_line) {
                lock_give(&ws->lock);
                lido_cancel(&lease_job->request);
                executor_lock(ws);
        }
        let_go(ws, job);
}

bool lease_job_cancel(struct job *job) NO_THREAD_SAFETY
{
        struct lido_workers *ws = job->workers;

        executor_lock(ws);
        if (job_state(job) != JOB_LEASING) {
                lock_give(&ws->lock);
                return false;
        }
        cancel_waiting(ws, job, LIDO_ECANCELED);
        return true;
}

static struct job *next_waiting_locked(struct lido_workers *ws, struct lido_group *group) REQUIRES(ws->lock)
{
        list_for_each(link, &ws->leasing) {
                struct job *job = list_entry(link, struct job, link);

                if ((!group || job->group == group) && wait_of(lease_job_of(job))->code == LIDO_OK)
                        return job;
        }
        return NULL;
}

int lease_jobs_cancel(struct lido_workers *ws, struct lido_group *group, int code) NO_THREAD_SAFETY
{
        struct job *job;
        int count = 0;

        executor_lock(ws);
        while ((job = next_waiting_locked(ws, group)) != NULL) {
                cancel_waiting(ws, job, code);
                count++;
                executor_lock(ws);
        }
        lock_give(&ws->lock);
        return count;
}
