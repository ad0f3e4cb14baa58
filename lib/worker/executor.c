/* The life of an executor: open, resize, drain, close, shut down. */
#include "worker/executor.h"

#include <stdio.h>

#include "base/mem.h"
#include "base/sized.h"
#include "worker/backtrace.h"

#define DEFAULT_MAX 4 /* what libuv's pool has, and what users of uv_queue_work are used to */
#define DEFAULT_IDLE_TIMEOUT_MS 60000
#define DEFAULT_OVERTAKE_JOBS 8
#define DEFAULT_CODEL_INTERVAL_MS 2000
#define MAX_THREADS 65535
#define GRACE_MS 100 /* for jobs that have just been asked to stop, and for idle threads to end */

/* ---- options ---------------------------------------------------------------------------------------------- */

static bool are_valid(const struct lido_workers_options *o)
{
        return o->min <= o->max && o->max <= MAX_THREADS && o->blocking_limit <= MAX_THREADS && o->lease_limit <= o->max &&
               o->queue_policy >= LIDO_QUEUE_REJECT && o->queue_policy <= LIDO_QUEUE_WAIT && o->reserved == 0 &&
               o->idle_timeout_ms >= LIDO_NEVER && o->queue_timeout_ms >= LIDO_NEVER &&
               o->codel_target_ms >= LIDO_NEVER && o->codel_interval_ms > 0 && o->stuck_after_ms >= LIDO_NEVER &&
               o->backtrace_signal >= 0;
}

static int options_take(struct lido_workers_options *o, const struct lido_workers_options *theirs)
{
        int rc = sized_take(o, sizeof *o, theirs);

        if (rc != LIDO_OK)
                return rc;
        if (!o->name)
                o->name = "worker";
        if (o->min == 0)
                o->min = 1;
        if (o->max == 0)
                o->max = o->min > DEFAULT_MAX ? o->min : DEFAULT_MAX;
        if (o->blocking_limit == 0)
                o->blocking_limit = o->max;
        if (o->lease_limit == 0)
                o->lease_limit = o->max > 1 ? o->max - 1 : 1;
        if (o->idle_timeout_ms == 0)
                o->idle_timeout_ms = DEFAULT_IDLE_TIMEOUT_MS;
        if (o->queue_limit == 0)
                o->queue_limit = LIDO_UNLIMITED;
        if (o->queue_timeout_ms == 0)
                o->queue_timeout_ms = LIDO_NEVER;
        if (o->overtake_jobs == 0)
                o->overtake_jobs = DEFAULT_OVERTAKE_JOBS;
        if (o->codel_target_ms == 0)
                o->codel_target_ms = LIDO_NEVER;
        if (o->codel_interval_ms == 0)
                o->codel_interval_ms = DEFAULT_CODEL_INTERVAL_MS;
        if (o->stuck_after_ms == 0)
                o->stuck_after_ms = LIDO_NEVER;
        return are_valid(o) ? LIDO_OK : LIDO_EINVAL;
}

/* ---- open ------------------------------------------------------------------------------------------------- */

static void lists_init(struct lido_workers *ws)
{
        struct list *lists[] = { &ws->idle, &ws->all, &ws->ended, &ws->spare, &ws->room, &ws->borrowers, &ws->leasing };

        for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
                list_init(lists[i]);
}

static int start_min(struct lido_workers *ws)
{
        for (uint32_t i = 0; i < ws->options.min; i++) {
                struct lido_worker *w;
                bool is_reserved;
                int rc;

                executor_lock(ws);
                is_reserved = worker_reserve_locked(ws, &w);
                if (is_reserved)
                        worker_summoned_locked(ws, w);
                lock_give(&ws->lock);
                if (!is_reserved)
                        return LIDO_ENOMEM;
                rc = worker_start(ws, w);
                if (rc != LIDO_OK)
                        return rc;
        }
        return ws->stuck_after_ns == CLOCK_NEVER ? LIDO_OK : minder_start(ws);
}

int lido_workers_open(struct lido_workers **ret_workers, const struct lido_workers_options *options)
{
        struct lido_workers_options taken;
        struct lido_workers *ws;
        int rc = options_take(&taken, options);

        if (!ret_workers)
                return LIDO_EINVAL;
        if (rc == LIDO_OK && taken.backtrace_signal)
                rc = backtrace_prepare(taken.backtrace_signal);
        if (rc != LIDO_OK)
                return rc;
        ws = mem_zalloc_aligned(_Alignof(struct lido_workers), sizeof *ws);
        if (!ws)
                return LIDO_ENOMEM;
        ws->options = taken;
        snprintf(ws->name, sizeof ws->name, "%s", taken.name);
        ws->options.name = ws->name;
        ws->max = taken.max;
        ws->idle_timeout_ns = clock_after_ms(0, taken.idle_timeout_ms);
        ws->stuck_after_ns = clock_after_ms(0, taken.stuck_after_ms);
        lists_init(ws);
        door_init(&ws->door);
        queue_init(&ws->queue, taken.overtake_jobs, clock_after_ms(0, taken.codel_target_ms),
                   clock_after_ms(0, taken.codel_interval_ms));
        fork_register(ws);
        rc = start_min(ws);
        if (rc != LIDO_OK) {
                lido_workers_shutdown(ws, LIDO_NEVER);
                return rc;
        }
        *ret_workers = ws;
        return LIDO_OK;
}

/* Idle threads are made to look: at a lowered max, or at the end. They are woken one at a time, for the list of
 * them is the lock's. */
static void wake_idle(struct lido_workers *ws)
{
        for (;;) {
                struct list *link;

                executor_lock(ws);
                link = ws->is_ending || ws->threads - ws->blocked > ws->max ? list_back(&ws->idle) : NULL;
                if (link)
                        worker_choose_locked(ws, list_entry(link, struct lido_worker, idle_link));
                lock_give(&ws->lock);
                if (!link)
                        return;
                park_wake(&list_entry(link, struct lido_worker, idle_link)->word, 1);
        }
}

int lido_workers_resize(struct lido_workers *ws, uint32_t max)
{
        struct after after;

        if (!ws || max < ws->options.min || max > MAX_THREADS)
                return LIDO_EINVAL;
        if (is_foreign(ws))
                return LIDO_EFORKED;
        after_init(&after);
        executor_lock(ws);
        ws->max = max;
        if (queue_count(&ws->queue) > 0 || !list_is_empty(&ws->borrowers))
                summon_locked(ws, &after);
        lock_give(&ws->lock);
        after_unlock(ws, &after);
        wake_idle(ws);
        return LIDO_OK;
}

/* ---- waiting for quiet ------------------------------------------------------------------------------------ */

static bool is_quiet_locked(struct lido_workers *ws) REQUIRES(ws->lock)
{
        return is_quiet(ws);
}

static bool is_empty_locked(struct lido_workers *ws) REQUIRES(ws->lock)
{
        return ws->threads == 0 && ws->leaving == 0;
}

/* Sleep until `is_so`, which can only become so by a change that moves quiet_word. Returns: false at the deadline. */
static bool wait_until(struct lido_workers *ws, bool (*is_so)(struct lido_workers *), uint64_t deadline)
{
        bool in_time = true;
        bool so;

        executor_lock(ws);
        while (!(so = is_so(ws)) && in_time) {
                uint32_t seen = load_relaxed(&ws->quiet_word);

                ws->quiet_waiters++;
                lock_give(&ws->lock);
                in_time = park_wait(&ws->quiet_word, seen, deadline);
                executor_lock(ws);
                ws->quiet_waiters--;
        }
        lock_give(&ws->lock);
        return so;
}

static bool is_own_thread(struct lido_workers *ws)
{
        return worker_self() && worker_self()->workers == ws;
}

int lido_workers_drain(struct lido_workers *ws, int64_t timeout_ms)
{
        if (!ws || timeout_ms < LIDO_NEVER)
                return LIDO_EINVAL;
        if (is_foreign(ws))
                return LIDO_EFORKED;
        if (is_own_thread(ws))
                return LIDO_EDEADLK;
        return wait_until(ws, is_quiet_locked, clock_after_ms(clock_now_ns(), timeout_ms)) ? LIDO_OK : LIDO_ETIMEDOUT;
}

/* ---- the end ---------------------------------------------------------------------------------------------- */

/* Fail one who waits in `line`, a list of struct waiter. Returns: false when there is none. */
static bool fail_one(struct lido_workers *ws, struct list *line)
{
        struct list *link;

        executor_lock(ws);
        link = list_front(line);
        if (link) {
                struct waiter *waiter = list_entry(link, struct waiter, link);

                list_unlink(link);
                waiter->code = LIDO_ECLOSED;
                waiter_settle(waiter, WAITER_FAILED);
        }
        lock_give(&ws->lock);
        if (link)
                park_wake(&list_entry(link, struct waiter, link)->state, 1);
        return link != NULL;
}

static void drop_delayed_locked(struct lido_workers *ws, struct list *dropped) REQUIRES(ws->lock)
{
        struct heap_node *node;

        while ((node = heap_first(&ws->delayed)) != NULL) {
                job_drop_locked(ws, (struct job *)(void *)((char *)node - offsetof(struct job, due)), dropped);
                ws->stats.dropped++;
        }
}

int lido_workers_close(struct lido_workers *ws)
{
        struct list dropped;

        if (!ws)
                return LIDO_EINVAL;
        if (is_foreign(ws))
                return LIDO_EFORKED;
        list_init(&dropped);
        executor_lock(ws);
        ws->is_closed = true;
        drop_delayed_locked(ws, &dropped);
        lock_give(&ws->lock);
        while (fail_one(ws, &ws->room) || fail_one(ws, &ws->borrowers))
                ;
        lease_jobs_cancel(ws, NULL, LIDO_ECLOSED);
        jobs_end(&dropped, LIDO_ECLOSED);
        return LIDO_OK;
}

/* Drop what has not begun: the queue, what lent threads were handed, and what is taken but not begun. */
static void drop_rest(struct lido_workers *ws)
{
        struct list dropped;
        struct job *job;

        list_init(&dropped);
        executor_lock(ws);
        store_release(&ws->is_stopping, 1);
        while ((job = queue_peek(&ws->queue)) != NULL) {
                job_drop_locked(ws, job, &dropped);
                ws->stats.dropped++;
        }
        list_for_each(link, &ws->all) {
                struct lido_worker *w = list_entry(link, struct lido_worker, link);

                list_for_each_safe(own, &w->own)
                        ws->stats.dropped += job_drop_locked(ws, list_entry(own, struct job, link), &dropped);
                for (uint32_t i = 1; i < w->batched; i++) {
                        job = exchange_acquire(&w->slot[i], NULL);
                        if (job) {
                                job_move(job, JOB_ENDING);
                                list_push_back(&dropped, &job->link);
                                ws->stats.dropped++;
                        }
                }
        }
        lock_give(&ws->lock);
        jobs_end(&dropped, LIDO_ECLOSED);
}

static void free_workers(struct lido_workers *ws)
{
        struct list *link;

        minder_stop(ws);
        workers_reap(ws);
        fork_unregister(ws);
        while ((link = list_front(&ws->spare)) != NULL) {
                list_unlink(link);
                mem_free(list_entry(link, struct lido_worker, link));
        }
        mem_free(ws);
}

static uint64_t grace_after(uint64_t deadline)
{
        uint64_t grace = clock_after_ms(clock_now_ns(), GRACE_MS);

        return deadline > grace ? deadline : grace;
}

int lido_workers_shutdown(struct lido_workers *ws, int64_t timeout_ms)
{
        uint64_t deadline;

        if (!ws)
                return LIDO_OK;
        if (timeout_ms < LIDO_NEVER)
                return LIDO_EINVAL;
        if (is_foreign(ws))
                return LIDO_EFORKED;
        if (is_own_thread(ws))
                return LIDO_EDEADLK;
        deadline = clock_after_ms(clock_now_ns(), timeout_ms);
        lido_workers_close(ws);
        if (!wait_until(ws, is_quiet_locked, deadline))
                drop_rest(ws);
        executor_lock(ws);
        ws->is_ending = true;
        lock_give(&ws->lock);
        wake_idle(ws);
        deadline = grace_after(deadline);
        if (!wait_until(ws, is_empty_locked, deadline)) {
                report_holders(ws);
                return LIDO_ETIMEDOUT;
        }
        free_workers(ws);
        return LIDO_OK;
}
