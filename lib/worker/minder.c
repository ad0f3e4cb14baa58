/* The minder of an executor: one thread that keeps the time, started when there is time to be kept.
 *
 * It queues delayed jobs when they are due, and it watches for jobs that run for too long. It sleeps until the first of
 * both; with neither in sight it sleeps until it is called. Watching costs the workers nothing: each keeps a number
 * that moves with every job (worker.seq) and the minder compares it with what it saw at its last look. So a job is
 * reported between stuck_after_ms and a quarter more after it began. When a look finds nobody at work the minder sleeps
 * without a deadline, and the first worker to take a job calls it (is_watch_asleep): an idle executor makes no wake-up.
 */
#include <stdio.h>

#include "base/clock.h"
#include "worker/backtrace.h"
#include "worker/executor.h"
#include "worker/group.h"

enum { REPORTS = 8, LOOKS_IN_TIME = 4 };

struct reports {
        uint32_t count;
        struct lido_worker_event event[REPORTS];
        struct lido_worker *stuck[REPORTS]; /* NULL: nothing to trace */
};

void minder_call_locked(struct lido_workers *ws, struct after *after)
{
        if (!ws->has_minder)
                return;
        store_release(&ws->minder_word, 1);
        after->any = after->minder = true;
}

/* ---- delayed jobs ----------------------------------------------------------------------------------------- */

static struct job *job_of_due(struct heap_node *node)
{
        return (struct job *)(void *)((char *)node - offsetof(struct job, due));
}

static void queue_due_locked(struct lido_workers *ws, uint64_t now, struct after *after) REQUIRES(ws->lock)
{
        struct heap_node *node;

        while ((node = heap_first(&ws->delayed)) != NULL && node->due_ns <= now) {
                struct job *job = job_of_due(node);

                heap_remove(&ws->delayed, node);
                ws->delayed_count--;
                if (job->group)
                        list_unlink(&job->group_link);
                submit_enqueue_locked(ws, job);
        }
        if (queue_count(&ws->queue) > 0)
                summon_locked(ws, after);
}

static int delay_locked(struct lido_workers *ws, struct job *job, uint64_t due_ns) REQUIRES(ws->lock)
{
        int rc = submit_admit_locked(ws, job);

        if (rc != LIDO_OK)
                return rc;
        job->workers = ws;
        store_relaxed(&job->stop, 0);
        job_move(job, JOB_DELAYED);
        job->due.is_in = false;
        heap_set(&ws->delayed, &job->due, due_ns);
        ws->delayed_count++;
        ws->submitted++;
        if (job->group) {
                group_enter_locked(job->group);
                list_push_back(&group_of(job->group)->parked, &job->group_link);
        }
        return LIDO_OK;
}

int lido_submit_after_at(struct lido_workers *ws, struct lido_job *public_job, int64_t delay_ms, const char *site)
{
        struct job *job = job_of(public_job);
        int rc = submit_check(ws, public_job);
        struct after after;

        if (rc != LIDO_OK || delay_ms < 0)
                return rc != LIDO_OK ? rc : LIDO_EINVAL;
        rc = minder_start(ws);
        if (rc != LIDO_OK)
                return rc;
        after_init(&after);
        executor_lock(ws);
        rc = delay_locked(ws, job, clock_after_ms(clock_now_ns(), delay_ms));
        if (rc == LIDO_OK) {
                job->site = site;
                job_hold(job);
                if (heap_first(&ws->delayed) == &job->due)
                        minder_call_locked(ws, &after);
        }
        lock_give(&ws->lock);
        after_unlock(ws, &after);
        if (rc == LIDO_EBUSY)
                report_misuse(ws, rc, site);
        return rc;
}

/* ---- stuck workers ---------------------------------------------------------------------------------------- */

static void report_add_locked(struct lido_workers *ws, struct lido_worker *w, struct reports *reports, uint64_t age_ns)
        REQUIRES(ws->lock)
{
        struct lido_worker_event *event = &reports->event[reports->count];

        report_describe_locked(ws, w, event);
        event->type = w->is_reported ? LIDO_WORKER_EVENT_STUCK : LIDO_WORKER_EVENT_UNSTUCK;
        event->age_ns = age_ns;
        reports->stuck[reports->count++] = w->is_reported ? w : NULL;
}

/* Returns: true while it is at work. */
static bool look_at_locked(struct lido_workers *ws, struct lido_worker *w, uint64_t now, struct reports *reports)
        REQUIRES(ws->lock)
{
        uint64_t seq = load_relaxed(&w->seq);
        bool is_running = seq & 1;

        if (reports->count == REPORTS)
                return true;
        if (seq != w->seen_seq) {
                if (w->is_reported) {
                        w->is_reported = false;
                        report_add_locked(ws, w, reports, now - w->seen_ns);
                }
                w->seen_seq = seq;
                w->seen_ns = now;
        } else if (is_running && !w->is_reported && now - w->seen_ns >= ws->stuck_after_ns) {
                w->is_reported = true;
                ws->stats.stuck++;
                report_add_locked(ws, w, reports, now - w->seen_ns);
        }
        return is_running || w->place == WORKER_BUSY;
}

/* Look at every worker. Returns: when to look again. */
static uint64_t watch_locked(struct lido_workers *ws, uint64_t now, struct reports *reports) REQUIRES(ws->lock)
{
        bool is_anybody_busy = false;

        if (ws->stuck_after_ns == CLOCK_NEVER)
                return CLOCK_NEVER;
        list_for_each(link, &ws->all)
                is_anybody_busy |= look_at_locked(ws, list_entry(link, struct lido_worker, link), now, reports);
        ws->is_watch_asleep = !is_anybody_busy;
        return is_anybody_busy ? now + ws->stuck_after_ns / LOOKS_IN_TIME : CLOCK_NEVER;
}

static void tell(struct lido_workers *ws, struct reports *reports)
{
        for (uint32_t i = 0; i < reports->count; i++) {
                struct backtrace trace;

                if (reports->stuck[i] && backtrace_take(ws, reports->stuck[i], &trace)) {
                        reports->event[i].frames = trace.frame;
                        reports->event[i].frame_count = trace.count;
                }
                report_event(ws, &reports->event[i]);
        }
}

/* ---- its thread ------------------------------------------------------------------------------------------- */

static void minder_main(void *argument)
{
        struct lido_workers *ws = argument;

        executor_lock(ws);
        while (!ws->is_minder_ending) {
                struct reports reports = { .count = 0 };
                uint64_t now = clock_now_ns();
                struct after after;
                uint64_t deadline;

                after_init(&after);
                store_relaxed(&ws->minder_word, 0);
                queue_due_locked(ws, now, &after);
                deadline = watch_locked(ws, now, &reports);
                if (heap_first(&ws->delayed))
                        deadline = clock_min(deadline, heap_first(&ws->delayed)->due_ns);
                lock_give(&ws->lock);
                after_unlock(ws, &after);
                tell(ws, &reports);
                while (load_acquire(&ws->minder_word) == 0 && park_wait(&ws->minder_word, 0, deadline))
                        ;
                executor_lock(ws);
        }
        lock_give(&ws->lock);
}

/* It could not be started. What another thread has delayed meanwhile, relying on it, has nobody to keep its time. */
static void give_up(struct lido_workers *ws)
{
        struct heap_node *node;
        struct list dropped;

        list_init(&dropped);
        executor_lock(ws);
        ws->has_minder = false;
        while ((node = heap_first(&ws->delayed)) != NULL) {
                job_drop_locked(ws, job_of_due(node), &dropped);
                ws->stats.dropped++;
        }
        lock_give(&ws->lock);
        jobs_end(&dropped, LIDO_ETHREAD);
}

int minder_start(struct lido_workers *ws)
{
        bool has_minder;
        char name[16];
        int rc;

        executor_lock(ws);
        has_minder = ws->has_minder || ws->is_closed;
        ws->has_minder |= !ws->is_closed;
        lock_give(&ws->lock);
        if (has_minder)
                return LIDO_OK;
        snprintf(name, sizeof name, "%.10s-mind", ws->name);
        rc = thread_start(&ws->minder, name, ws->options.stack_bytes, minder_main, ws);
        if (rc != LIDO_OK)
                give_up(ws);
        return rc;
}

void minder_stop(struct lido_workers *ws)
{
        struct after after;
        bool had_minder;

        after_init(&after);
        executor_lock(ws);
        had_minder = ws->has_minder;
        ws->is_minder_ending = true;
        minder_call_locked(ws, &after);
        lock_give(&ws->lock);
        after_unlock(ws, &after);
        if (had_minder)
                thread_join(&ws->minder);
}
