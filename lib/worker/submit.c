/* Into the queue and out of it: submit with its policies, cancel, drop. */
#include "base/clock.h"
#include "worker/executor.h"
#include "worker/group.h"

int submit_admit_locked(struct lido_workers *ws, struct job *job)
{
        if (ws->is_closed)
                return job_is_callers(job) ? LIDO_ECLOSED : LIDO_EBUSY;
        return job_admit_locked(ws, job);
}

int job_admit_locked(struct lido_workers *ws, struct job *job)
{
        if (!job_is_callers(job))
                return LIDO_EBUSY;
        if (job->group) {
                struct group *group = group_of(job->group);

                if (group->workers != ws)
                        return LIDO_EINVAL;
                if (load_relaxed(&group->is_canceled))
                        return LIDO_ECANCELED;
        }
        return LIDO_OK;
}

/* hot: measured by the throughput workload of the worker benches */
bool submit_enqueue_locked(struct lido_workers *ws, struct job *job)
{
        bool is_new = job_is_callers(job);
        bool call = false;

        if (is_new) {
                job->workers = ws;
                store_relaxed(&job->stop, 0);
        }
        if (queue_keeps_time(&ws->queue))
                job->since_ns = clock_now_ns();
        job_move(job, JOB_QUEUED);
        queue_push(&ws->queue, job);
        if (job->group) {
                if (is_new)
                        call = group_enter_locked(job->group);
                list_push_back(&group_of(job->group)->queued, &job->group_link);
        }
        ws->submitted += is_new;
        return call;
}

/* Would one job more have to wait beyond the limit? A job for which a thread is idle, under way, or may be started,
 * does not wait. */
static bool is_full_locked(struct lido_workers *ws) REQUIRES(ws->lock)
{
        uint32_t queued = queue_count(&ws->queue);
        uint64_t room = ws->options.queue_limit;
        uint32_t active = ws->threads - ws->blocked;

        if (queued < room)
                return false;
        room += ws->idle_count + ws->waking + (active < ws->max ? ws->max - active : 0);
        return queued >= room;
}

/* Those whose turn does not come because `after` is full come in later: jobs have entered, and will leave. */
void room_give_locked(struct lido_workers *ws, struct after *after)
{
        while (!list_is_empty(&ws->room) && after->words < AFTER_WORDS && !is_full_locked(ws)) {
                struct room_waiter *room = list_entry(ws->room.next, struct room_waiter, waiter.link);

                list_unlink(&room->waiter.link);
                submit_enqueue_locked(ws, room->job);
                after->word[after->words++] = &room->waiter.state;
                after->any = true;
                /* the last touch: whoever waits may be awake, and its stack frame gone. Nobody else can have
                 * settled it, for that is done under the lock too, and takes it out of the line. */
                lido_assert(waiter_settle(&room->waiter, WAITER_GIVEN));
        }
}

/* ---- a full queue ----------------------------------------------------------------------------------------- */

/* Stand in line for room. The lock is held on entry and released. */
static int wait_for_room(struct lido_workers *ws, struct job *job) REQUIRES(ws->lock) NO_THREAD_SAFETY
{
        struct room_waiter room = { .job = job };
        enum waiter_state outcome;
        uint64_t deadline;

        if (worker_self() && worker_self()->workers == ws) {
                lock_give(&ws->lock);
                return LIDO_EDEADLK;
        }
        waiter_init(&room.waiter, NULL);
        list_push_back(&ws->room, &room.waiter.link);
        lock_give(&ws->lock);
        deadline = clock_after_ms(clock_now_ns(), ws->options.queue_timeout_ms);
        outcome = waiter_sleep(&room.waiter, deadline);
        if (outcome == WAITER_WAITING) {
                executor_lock(ws);
                list_unlink(&room.waiter.link);
                if (waiter_settle(&room.waiter, WAITER_TIMED_OUT))
                        ws->stats.rejected++;
                outcome = (enum waiter_state)load_acquire(&room.waiter.state);
                lock_give(&ws->lock);
        }
        if (outcome == WAITER_GIVEN)
                return LIDO_OK;
        return outcome == WAITER_FAILED ? room.waiter.code : LIDO_ETIMEDOUT;
}

/* Run a job in place of a worker. It is nobody's but this call's: it stands in no list. */
static int run_here(struct lido_workers *ws, struct job *job) REQUIRES(ws->lock) NO_THREAD_SAFETY
{
        job->workers = ws;
        store_relaxed(&job->stop, 0);
        job_move(job, JOB_QUEUED);
        job_begin(job);
        if (job->group)
                group_enter_locked(job->group);
        ws->submitted++;
        ws->stats.caller_ran++;
        lock_give(&ws->lock);
        worker_run(NULL, job);
        return LIDO_OK;
}

static int drop_oldest(struct lido_workers *ws, struct job *job) REQUIRES(ws->lock) NO_THREAD_SAFETY
{
        struct job *victim = queue_victim(&ws->queue);
        struct lido_group *called = NULL;
        struct list dropped;

        if (!victim) {
                ws->stats.rejected++;
                lock_give(&ws->lock);
                return LIDO_EQUEUEFULL;
        }
        list_init(&dropped);
        job_drop_locked(ws, victim, &dropped);
        ws->stats.shed++;
        if (submit_enqueue_locked(ws, job))
                called = job->group;
        lock_give(&ws->lock);
        if (called)
                group_call(called);
        jobs_end(&dropped, LIDO_ESHED);
        return LIDO_OK;
}

/* The queue is full. The lock is held on entry and released. Everybody is busy, or is being woken: nobody to
 * summon. */
static int submit_full(struct lido_workers *ws, struct job *job) REQUIRES(ws->lock) NO_THREAD_SAFETY
{
        switch (ws->options.queue_policy) {
        case LIDO_QUEUE_CALLER_RUNS:
                return run_here(ws, job);
        case LIDO_QUEUE_DROP_OLDEST:
                return drop_oldest(ws, job);
        case LIDO_QUEUE_WAIT:
                return wait_for_room(ws, job);
        default:
                ws->stats.rejected++;
                lock_give(&ws->lock);
                return LIDO_EQUEUEFULL;
        }
}

/* ---- submit ----------------------------------------------------------------------------------------------- */

/* Queue a job that may enter. The lock is held on entry and released. */
static int submit_admitted(struct lido_workers *ws, struct job *job) REQUIRES(ws->lock) NO_THREAD_SAFETY
{
        struct lido_group *called = NULL;
        struct after after;

        after_init(&after);
        if (queue_keeps_time(&ws->queue))
                queue_shed_locked(ws, clock_now_ns(), &after);
        if (submit_enqueue_locked(ws, job))
                called = job->group;
        summon_locked(ws, &after);
        door_settle_locked(ws, &after);
        lock_give(&ws->lock);
        after_unlock(ws, &after);
        if (called)
                group_call(called);
        return LIDO_OK;
}

/* By the way that needs the executor's lock. */
static NO_THREAD_SAFETY /* the lock is released by what is called last */
int submit_by_lock(struct lido_workers *ws, struct job *job, const char *site)
{
        int rc;

        executor_lock(ws);
        rc = submit_admit_locked(ws, job);
        if (rc != LIDO_OK) {
                lock_give(&ws->lock);
                if (rc == LIDO_EBUSY)
                        report_misuse(ws, rc, site);
                return rc;
        }
        job->site = site;
        job_hold(job);
        if (!is_full_locked(ws))
                return submit_admitted(ws, job);
        rc = submit_full(ws, job);
        if (rc != LIDO_OK)
                job_unhold(job);
        return rc;
}

/* hot: measured by the throughput workload of the worker benches */
int lido_submit_at(struct lido_workers *ws, struct lido_job *public_job, const char *site)
{
        struct job *job = job_of(public_job);
        int rc = submit_check(ws, public_job);

        if (rc != LIDO_OK)
                return rc;
        if (door_is_open(&ws->door) && door_suits(job))
                switch (door_enter(ws, &ws->door, job, site)) {
                case DOOR_TAKEN:
                        return LIDO_OK;
                case DOOR_NOT_YOURS:
                        report_misuse(ws, LIDO_EBUSY, site);
                        return LIDO_EBUSY;
                case DOOR_SHUT:
                        break;
                }
        return submit_by_lock(ws, job, site);
}

/* ---- cancel ----------------------------------------------------------------------------------------------- */

static bool claim_batched(struct job *job)
{
        _Atomic(struct job *) *slot = (void *)job->link.next;
        struct job *seen = job;

        return cas_acq_rel(slot, &seen, NULL);
}

bool job_withdraw_locked(struct lido_workers *ws, struct job *job)
{
        switch (job_state(job)) {
        case JOB_QUEUED:
                queue_unlink(&ws->queue, job);
                break;
        case JOB_HANDED:
                list_unlink(&job->link);
                break;
        case JOB_DELAYED:
                heap_remove(&ws->delayed, &job->due);
                ws->delayed_count--;
                break;
        case JOB_BATCHED:
                return claim_batched(job);
        default:
                return false;
        }
        if (job->group)
                list_unlink(&job->group_link);
        return true;
}

bool job_drop_locked(struct lido_workers *ws, struct job *job, struct list *dropped)
{
        if (!job_withdraw_locked(ws, job))
                return false;
        job_move(job, JOB_ENDING);
        list_push_back(dropped, &job->link);
        return true;
}

void jobs_end(struct list *dropped, int status)
{
        struct list *link;

        while ((link = list_front(dropped)) != NULL) {
                list_unlink(link);
                job_end(list_entry(link, struct job, link), status);
        }
}

/* A job with a loop is told there, as uv_cancel does, and one with a lease has that to give back; any other is the
 * caller's when the lock is released. */
static bool has_to_end(const struct job *job)
{
        return (job->loop && job->done) || job->is_lease_job;
}

/* Returns: as lido_job_cancel, with *ret_ends true when its end is to be told. */
static int cancel_locked(struct lido_workers *ws, struct job *job, bool *ret_ends) REQUIRES(ws->lock)
{
        *ret_ends = false;
        if (job_withdraw_locked(ws, job)) {
                *ret_ends = has_to_end(job);
                job_move(job, *ret_ends ? JOB_ENDING : JOB_IDLE);
                ws->stats.canceled++;
                return LIDO_OK;
        }
        if (job_state(job) == JOB_IDLE)
                return LIDO_EINVAL;
        store_release(&job->stop, 1);
        return LIDO_EBUSY;
}

int lido_job_cancel(struct lido_job *public_job)
{
        struct job *job = job_of(public_job);
        struct lido_group *group;
        struct lido_workers *ws;
        struct after after;
        bool ends;
        int rc;

        if (!job || job_state(job) == JOB_IDLE)
                return LIDO_EINVAL;
        if (job_state(job) == JOB_RELEASED) { /* it runs, or has run long ago and the executor is gone */
                store_release(&job->stop, 1);
                return LIDO_EBUSY;
        }
        ws = job->workers;
        if (is_foreign(ws))
                return LIDO_EFORKED;
        if (job_state(job) == JOB_LEASING && lease_job_cancel(job))
                return LIDO_OK;
        after_init(&after);
        executor_lock(ws);
        group = job->group;
        rc = cancel_locked(ws, job, &ends);
        if (rc == LIDO_OK) {
                room_give_locked(ws, &after);
                quiet_note_locked(ws, &after);
        }
        lock_give(&ws->lock);
        after_unlock(ws, &after);
        if (ends)
                job_end(job, LIDO_ECANCELED);
        else if (rc == LIDO_OK && group)
                group_leave(group);
        return rc;
}

int lido_job_is_cancelled(const struct lido_job *public_job)
{
        struct job *job = job_of((struct lido_job *)public_job);

        if (load_acquire(&job->stop) || load_relaxed(&job->workers->is_stopping))
                return 1;
        return job->group && load_relaxed(&group_of(job->group)->is_canceled);
}
