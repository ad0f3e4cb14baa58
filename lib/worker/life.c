/* The start and the end of a worker's thread: by the front door, or by a job that calls pthread_exit. */
#include <limits.h>
#include <sched.h>
#include <stdio.h>

#include "base/mem.h"
#include "worker/backtrace.h"
#include "worker/executor.h"

static _Thread_local struct lido_worker *self __attribute__((tls_model("initial-exec")));
static pthread_key_t death; /* its destructor sees threads that end inside a job */
static pthread_once_t once = PTHREAD_ONCE_INIT;

struct lido_worker *worker_self(void)
{
        return self;
}

struct lido_workers *lido_workers_self(void)
{
        return self ? self->workers : NULL;
}

bool worker_reserve_locked(struct lido_workers *ws, struct lido_worker **ret_worker)
{
        struct list *link = list_front(&ws->spare);
        struct lido_worker *w;

        if (link) {
                list_unlink(link);
                w = list_entry(link, struct lido_worker, link);
        } else {
                w = mem_zalloc_aligned(_Alignof(struct lido_worker), sizeof *w);
                if (!w) {
                        ws->stats.start_failed++;
                        return false;
                }
                w->workers = ws;
                list_init(&w->link);
                list_init(&w->own);
                list_init(&w->idle_link);
        }
        w->place = WORKER_BUSY;
        w->number = ++ws->numbers;
        w->is_lent = w->was_summoned = w->has_expired = w->has_lingered = w->is_blocked = false;
        w->is_reported = false;
        w->batched = w->depth = w->blocking = w->misses = 0;
        ws->busy++;
        ws->threads++;
        ws->stats.started++;
        if (ws->threads > ws->stats.threads_peak)
                ws->stats.threads_peak = ws->threads;
        *ret_worker = w;
        return true;
}

/* Leave the table. What follows is the thread's own business until it is joined. */
void worker_leave_locked(struct lido_workers *ws, struct lido_worker *w, struct after *after) REQUIRES(ws->lock)
{
        list_unlink(&w->link);
        ws->threads--;
        ws->busy--;
        ws->leaving++;
        ws->stats.ended++;
        ws->ran_by_ended += load_relaxed(&w->ran);
        store_relaxed(&w->ran, 0);
        quiet_note_locked(ws, after);
}

/* The last thing that touches the executor: from here on the thread may be joined and the executor freed. */
static void leave_finally(struct lido_workers *ws, struct lido_worker *w)
{
        _Atomic uint32_t *word = &ws->quiet_word;

        executor_lock(ws);
        ws->leaving--;
        list_push_back(&ws->ended, &w->link);
        store_relaxed(word, load_relaxed(word) + 1);
        lock_give(&ws->lock);
        park_wake(word, INT_MAX);
}

static void pin(uint64_t cpus)
{
        cpu_set_t set;

        if (cpus == 0)
                return;
        CPU_ZERO(&set);
        for (unsigned i = 0; i < 64; i++)
                if (cpus & (UINT64_C(1) << i))
                        CPU_SET(i, &set);
        sched_setaffinity(0, sizeof set, &set);
}

static void arrive(struct lido_workers *ws, struct lido_worker *w)
{
        self = w;
        pthread_setspecific(death, w);
        w->thread_id = thread_id();
        pin(ws->options.cpus);
        if (ws->options.backtrace_signal)
                backtrace_admit(ws->options.backtrace_signal);
        if (ws->options.on_start)
                ws->options.on_start(w->number, ws->options.context);
        executor_lock(ws);
        list_push_back(&ws->all, &w->link);
        lock_give(&ws->lock);
}

/* It was reported as stuck and the minder, which does not see it any more, has not said that it has come free. */
static void tell_unstuck(struct lido_workers *ws, struct lido_worker *w)
{
        struct lido_worker_event event;
        bool was_reported;

        executor_lock(ws);
        was_reported = w->is_reported;
        w->is_reported = false;
        report_describe_locked(ws, w, &event);
        lock_give(&ws->lock);
        event.type = LIDO_WORKER_EVENT_UNSTUCK;
        if (was_reported)
                report_event(ws, &event);
}

static void depart(struct lido_workers *ws, struct lido_worker *w)
{
        tell_unstuck(ws, w);
        if (ws->options.on_stop)
                ws->options.on_stop(w->number, ws->options.context);
        workers_reap(ws);
        self = NULL;
        pthread_setspecific(death, NULL);
        leave_finally(ws, w);
}

static void worker_main(void *argument)
{
        struct lido_worker *w = argument;
        struct lido_workers *ws = w->workers;

        arrive(ws, w);
        worker_loop(ws, w);
        depart(ws, w);
}

/* ---- a job that ends its thread --------------------------------------------------------------------------- */

/* What the dead worker had taken, or been handed, goes to the others. A loan of it ends. */
static void bequeath_locked(struct lido_workers *ws, struct lido_worker *w, struct after *after) REQUIRES(ws->lock)
{
        for (uint32_t i = 1; i < w->batched; i++) {
                struct job *job = exchange_acquire(&w->slot[i], NULL);

                if (job) {
                        job_move(job, JOB_QUEUED);
                        queue_push(&ws->queue, job);
                }
        }
        while (!list_is_empty(&w->own)) {
                struct job *job = list_entry(w->own.next, struct job, link);

                list_unlink(&job->link);
                job_move(job, JOB_QUEUED);
                queue_push(&ws->queue, job);
        }
        if (w->batched)
                ws->batchers--;
        if (w->is_lent)
                ws->lent--;
        w->is_lent = false;
        w->batched = 0;
        worker_leave_locked(ws, w, after);
        if (queue_count(&ws->queue) > 0)
                summon_locked(ws, after);
        if (!after->start && ws->threads < ws->options.min && !ws->is_ending && worker_reserve_locked(ws, &after->start))
                after->any = true;
}

/* The destructor of the key `death`: the thread ends, and not by way of depart. Its jobs count as run. */
static void on_death(void *argument)
{
        struct lido_worker_event event = { .type = LIDO_WORKER_EVENT_DIED };
        struct lido_worker *w = argument;
        struct lido_workers *ws = w->workers;
        struct after after;

        event.worker = w->number;
        event.thread = w->thread_id;
        event.site = load_relaxed(&w->site);
        worker_unwind(w);
        after_init(&after);
        executor_lock(ws);
        bequeath_locked(ws, w, &after);
        lock_give(&ws->lock);
        after_unlock(ws, &after);
        report_event(ws, &event);
        depart(ws, w);
}

static void make_key(void)
{
        lido_assert(pthread_key_create(&death, on_death) == 0);
}

/* ---- starting and joining --------------------------------------------------------------------------------- */

/* Once the thread runs, neither it nor the executor is touched: it may have run the job that its starter was asked
 * for, and whoever waited for that may have shut everything down. */
int worker_start(struct lido_workers *ws, struct lido_worker *w)
{
        struct lido_worker_event event = { .type = LIDO_WORKER_EVENT_START_FAILED, .code = LIDO_ETHREAD };
        struct after after;
        char name[32];
        int rc;

        pthread_once(&once, make_key);
        snprintf(name, sizeof name, "%.10s-%u", ws->name, w->number);
        rc = thread_start(&w->thread, name, ws->options.stack_bytes, worker_main, w);
        if (rc == LIDO_OK)
                return LIDO_OK;
        after_init(&after);
        executor_lock(ws);
        ws->stats.started--;
        ws->stats.start_failed++;
        ws->threads--;
        ws->busy--;
        if (w->was_summoned)
                ws->waking--;
        if (w->is_lent)
                ws->lent--;
        list_push_back(&ws->spare, &w->link);
        quiet_note_locked(ws, &after);
        lock_give(&ws->lock);
        after_unlock(ws, &after);
        report_event(ws, &event);
        return rc;
}

void workers_reap(struct lido_workers *ws)
{
        for (;;) {
                struct list *link;
                struct lido_worker *w;

                executor_lock(ws);
                link = list_front(&ws->ended);
                if (link)
                        list_unlink(link);
                lock_give(&ws->lock);
                if (!link)
                        return;
                w = list_entry(link, struct lido_worker, link);
                thread_join(&w->thread);
                executor_lock(ws);
                list_push_back(&ws->spare, &w->link);
                lock_give(&ws->lock);
        }
}
