/* Threads on loan. A lent worker is the same thread taken out of the executor's hands: it takes from its own list alone.
 *
 * A loan is (worker, generation). The generation moves when a loan begins, `is_lent` is cleared when it ends, both under the
 * lock; so a loan that has ended is recognised whatever became of the worker, for workers' memory is kept until the
 * executor goes, and shutdown waits for every loan. A borrower gets, in this order: the idle worker on top of the stack; a
 * new thread below max; the next worker that comes back with its job done. Those in line go before queued jobs: loans are
 * bounded by lease_limit, so the queue always keeps a worker (unless max is 1).
 */
#include "base/clock.h"
#include "worker/executor.h"
#include "worker/group.h"

static lido_thread lend_locked(struct lido_workers *ws, struct lido_worker *w, const char *site) REQUIRES(ws->lock)
{
        lido_thread loan = { w, ++w->generation };

        if (w->place == WORKER_IDLE) {
                idle_remove_locked(ws, w);
                w->place = WORKER_HELD;
        }
        w->is_lent = true;
        w->lease_site = site;
        ws->lent++;
        return loan;
}

/* Give a loan of `w` to the oldest in line. Returns: false when there is nobody, or no more may be lent. */
static bool serve_line_locked(struct lido_workers *ws, struct lido_worker *w, struct after *after) REQUIRES(ws->lock)
{
        while (!list_is_empty(&ws->borrowers) && ws->lent < ws->options.lease_limit && after->words < AFTER_WORDS) {
                struct loan_waiter *borrower = list_entry(ws->borrowers.next, struct loan_waiter, waiter.link);

                list_unlink(&borrower->waiter.link);
                borrower->gift = lend_locked(ws, w, borrower->site);
                after->word[after->words++] = &borrower->waiter.state;
                after->any = true;
                lido_assert(waiter_settle(&borrower->waiter, WAITER_GIVEN)); /* others settle under the lock, unlinked */
                return true;
        }
        return false;
}

bool lend_to_waiter_locked(struct lido_workers *ws, struct lido_worker *w, struct after *after)
{
        return serve_line_locked(ws, w, after);
}

/* ---- acquire ---------------------------------------------------------------------------------------------- */

/* Returns: LIDO_OK with a loan, or with *ret_start to be started as well; LIDO_EEXHAUSTED; LIDO_ENOMEM;
 * LIDO_ECLOSED. */
static int try_locked(struct lido_workers *ws, const char *site, struct lido_worker **ret_start, lido_thread *ret_thread)
        REQUIRES(ws->lock)
{
        *ret_start = NULL;
        if (ws->is_closed)
                return LIDO_ECLOSED;
        if (ws->lent >= ws->options.lease_limit || !list_is_empty(&ws->borrowers))
                return LIDO_EEXHAUSTED;
        if (!list_is_empty(&ws->idle)) {
                *ret_thread = lend_locked(ws, list_entry(ws->idle.next, struct lido_worker, idle_link), site);
                return LIDO_OK;
        }
        if (ws->threads - ws->blocked >= ws->max)
                return LIDO_EEXHAUSTED;
        if (!worker_reserve_locked(ws, ret_start))
                return LIDO_ENOMEM;
        *ret_thread = lend_locked(ws, *ret_start, site);
        return LIDO_OK;
}

static int wait_in_line(struct lido_workers *ws, struct loan_waiter *borrower, uint64_t deadline)
{
        enum waiter_state outcome = waiter_sleep(&borrower->waiter, deadline);

        if (outcome == WAITER_WAITING) {
                executor_lock(ws);
                list_unlink(&borrower->waiter.link);
                waiter_settle(&borrower->waiter, WAITER_TIMED_OUT);
                outcome = (enum waiter_state)load_acquire(&borrower->waiter.state);
                lock_give(&ws->lock);
        }
        if (outcome == WAITER_GIVEN)
                return LIDO_OK;
        return outcome == WAITER_FAILED ? borrower->waiter.code : LIDO_ETIMEDOUT;
}

int lido_thread_acquire_at(struct lido_workers *ws, int64_t timeout_ms, lido_thread *ret_thread, const char *site)
{
        struct loan_waiter borrower = { .site = site };
        struct lido_worker *start;
        lido_thread loan;
        int rc;

        if (!ws || !ret_thread || timeout_ms < LIDO_NEVER)
                return LIDO_EINVAL;
        if (is_foreign(ws))
                return LIDO_EFORKED;
        executor_lock(ws);
        rc = try_locked(ws, site, &start, &loan);
        if (rc == LIDO_EEXHAUSTED && timeout_ms != 0) {
                if (worker_self() && worker_self()->workers == ws) {
                        lock_give(&ws->lock);
                        return LIDO_EDEADLK;
                }
                waiter_init(&borrower.waiter, NULL);
                list_push_back(&ws->borrowers, &borrower.waiter.link);
                lock_give(&ws->lock);
                rc = wait_in_line(ws, &borrower, clock_after_ms(clock_now_ns(), timeout_ms));
                loan = borrower.gift;
        } else {
                lock_give(&ws->lock);
        }
        if (rc == LIDO_OK && start)
                rc = worker_start(ws, start);
        if (rc == LIDO_OK)
                *ret_thread = loan;
        return rc;
}

/* ---- run and release -------------------------------------------------------------------------------------- */

static int loan_check_locked(const struct lido_worker *w, uint64_t generation)
{
        if (generation == 0 || generation > w->generation)
                return LIDO_EINVAL;
        if (generation < w->generation)
                return LIDO_ESTALE;
        return w->is_lent ? LIDO_OK : LIDO_EDOUBLE;
}

static int run_locked(struct lido_workers *ws, struct lido_worker *w, struct job *job, bool *ret_call) REQUIRES(ws->lock)
{
        int rc = job_admit_locked(ws, job); /* also when closed: whoever has a thread may finish */

        if (rc != LIDO_OK)
                return rc;
        job->workers = ws;
        store_relaxed(&job->stop, 0);
        job_move(job, JOB_HANDED);
        list_push_back(&w->own, &job->link);
        if (job->group) {
                *ret_call = group_enter_locked(job->group);
                list_push_back(&group_of(job->group)->queued, &job->group_link);
        }
        ws->submitted++;
        return LIDO_OK;
}

int lido_thread_run_at(lido_thread thread, struct lido_job *public_job, const char *site)
{
        struct job *job = job_of(public_job);
        struct lido_worker *w = thread.worker;
        struct lido_workers *ws = w ? w->workers : NULL;
        bool wake = false, call = false;
        int rc = submit_check(ws, public_job);

        if (rc != LIDO_OK)
                return rc;
        executor_lock(ws);
        rc = loan_check_locked(w, thread.generation);
        if (rc == LIDO_OK)
                rc = run_locked(ws, w, job, &call);
        else if (rc == LIDO_EDOUBLE)
                rc = LIDO_ESTALE;
        if (rc == LIDO_OK) {
                job->site = site;
                job_hold(job);
                wake = w->place == WORKER_HELD;
                if (wake)
                        worker_choose_locked(ws, w);
        }
        lock_give(&ws->lock);
        if (wake)
                park_wake(&w->word, 1);
        if (call)
                group_call(public_job->group);
        if (rc == LIDO_ESTALE || rc == LIDO_EBUSY)
                report_misuse(ws, rc, site);
        return rc;
}

/* The worker is the executor's again. If it sleeps, it sleeps on, unless it has something to see to: jobs, its own
 * end, or that it is one too many and has to give itself a deadline. */
static void take_back_locked(struct lido_workers *ws, struct lido_worker *w, struct after *after) REQUIRES(ws->lock)
{
        w->is_lent = false;
        ws->lent--;
        if (w->place != WORKER_HELD) {
                if (!list_is_empty(&ws->idle))
                        serve_line_locked(ws, list_entry(ws->idle.next, struct lido_worker, idle_link), after);
                return;
        }
        if (serve_line_locked(ws, w, after))
                return;
        if (ws->threads > ws->options.min || ws->is_ending || (queue_count(&ws->queue) > 0 && ws->waking == 0)) {
                worker_choose_locked(ws, w);
                after->wake = w;
                after->any = true;
        } else {
                idle_add_locked(ws, w);
        }
}

int lido_thread_release_at(lido_thread thread, const char *site)
{
        struct lido_worker *w = thread.worker;
        struct lido_workers *ws;
        struct after after;
        int rc;

        if (!w || !w->workers)
                return LIDO_EINVAL;
        ws = w->workers;
        if (is_foreign(ws))
                return LIDO_EFORKED;
        after_init(&after);
        executor_lock(ws);
        rc = loan_check_locked(w, thread.generation);
        if (rc == LIDO_OK)
                take_back_locked(ws, w, &after);
        lock_give(&ws->lock);
        after_unlock(ws, &after);
        if (rc != LIDO_OK)
                report_misuse(ws, rc, site);
        return rc;
}
