/* What a worker does from job to job. The states, the invariants and the interleavings stand in executor.h; its
 * start and its end are in life.c. */
#include "worker/executor.h"

#include <limits.h>

#include "worker/group.h"

/* A worker that lingers without finding work gives it up after so many times, and tries again once in so many
 * parks. */
enum { LINGER_MISSES = 8, LINGER_RETRY = 64 };

void idle_add_locked(struct lido_workers *ws, struct lido_worker *w)
{
        w->place = WORKER_IDLE;
        list_push_front(&ws->idle, &w->idle_link);
        ws->idle_count++;
}

void idle_remove_locked(struct lido_workers *ws, struct lido_worker *w)
{
        list_unlink(&w->idle_link);
        ws->idle_count--;
}

/* ---- who is wanted ---------------------------------------------------------------------------------------- */

void worker_choose_locked(struct lido_workers *ws, struct lido_worker *w)
{
        debug_assert(w->place != WORKER_BUSY);
        if (w->place == WORKER_IDLE)
                idle_remove_locked(ws, w);
        w->place = WORKER_BUSY;
        ws->busy++;
        store_release(&w->word, 1);
}

/* hot: measured by the throughput workload of the worker benches */
void summon_locked(struct lido_workers *ws, struct after *after)
{
        if (ws->waking > 0 || ws->is_lingering)
                return;
        if (!list_is_empty(&ws->idle)) {
                after->wake = list_entry(ws->idle.next, struct lido_worker, idle_link);
                worker_choose_locked(ws, after->wake);
                ws->stats.woken++;
        } else if (ws->threads - ws->blocked < ws->max && worker_reserve_locked(ws, &after->start)) {
                after->wake = NULL;
        } else {
                return;
        }
        worker_summoned_locked(ws, after->wake ? after->wake : after->start);
        after->any = true;
}

void quiet_note_locked(struct lido_workers *ws, struct after *after)
{
        if (ws->quiet_waiters == 0 || !is_quiet(ws))
                return;
        store_relaxed(&ws->quiet_word, load_relaxed(&ws->quiet_word) + 1);
        after->any = after->quiet = true;
}

void after_unlock_slow(struct lido_workers *ws, struct after *after)
{
        if (after->wake)
                park_wake(&after->wake->word, 1);
        for (uint32_t i = 0; i < after->words; i++)
                park_wake(after->word[i], 1);
        if (after->quiet)
                park_wake(&ws->quiet_word, INT_MAX);
        if (after->minder)
                park_wake(&ws->minder_word, 1);
        if (after->has_dropped)
                jobs_end(&after->dropped, LIDO_ESHED);
        if (after->start)
                worker_start(ws, after->start);
}

/* ---- running jobs ----------------------------------------------------------------------------------------- */

/* The number is odd while a job runs, and never the same twice, so that the minder sees from afar, without a clock
 * on this side, whether it is still the same job. */
static void mark_begin(struct lido_worker *w, struct job *job)
{
        uint64_t seq = load_relaxed(&w->seq);
        struct frame *frame = &w->frame[w->depth++];

        frame->job = job->done ? job : NULL;
        frame->group = job->group;
        frame->site = job->site;
        store_relaxed(&w->site, job->site);
        store_relaxed(&w->seq, (seq | 1) + 2);
}

static void mark_end(struct lido_worker *w)
{
        uint64_t seq = load_relaxed(&w->seq);

        store_relaxed(&w->ran, load_relaxed(&w->ran) + 1);
        if (--w->depth > 0) {
                store_relaxed(&w->site, w->frame[w->depth - 1].site);
                store_relaxed(&w->seq, seq + 2);
                return;
        }
        while (w->blocking > 0)
                lido_blocking_end();
        store_relaxed(&w->seq, seq + 1);
}

/* hot: measured by the throughput workload of the worker benches */
void worker_run(struct lido_worker *w, struct job *job)
{
        /* a job without `done` may be freed by `run` */
        struct lido_group *group = job->group;
        bool has_done = job->done != NULL;

        if (w)
                mark_begin(w, job);
        job->run(job_public(job));
        if (w)
                mark_end(w);
        if (has_done)
                job_end(job, LIDO_OK);
        else if (group)
                group_leave(group);
}

void worker_unwind(struct lido_worker *w)
{
        while (w->depth > 0) {
                struct frame frame = w->frame[w->depth - 1];

                mark_end(w);
                if (frame.job)
                        job_end(frame.job, LIDO_OK);
                else if (frame.group)
                        group_leave(frame.group);
        }
}

/* Run what was taken: the first is claimed, the others by taking them out of their slots. */
static void run_taken(struct lido_worker *w, struct job *first, uint32_t count)
{
        worker_run(w, first);
        for (uint32_t i = 1; i < count; i++) {
                struct job *job = exchange_acquire(&w->slot[i], NULL);

                if (job) {
                        job_begin(job);
                        worker_run(w, job);
                }
        }
}

/* ---- taking jobs ------------------------------------------------------------------------------------------ */

static struct job *take_own_locked(struct lido_worker *w)
{
        struct list *link = list_front(&w->own);
        struct job *job;

        if (!link)
                return NULL;
        list_unlink(link);
        job = list_entry(link, struct job, link);
        if (job->group)
                list_unlink(&job->group_link);
        job_begin(job);
        return job;
}

void queue_shed_locked(struct lido_workers *ws, uint64_t now, struct after *after)
{
        struct job *job;

        while ((job = queue_overdue(&ws->queue, now)) != NULL) {
                job_drop_locked(ws, job, after_dropped(after));
                ws->stats.shed++;
        }
}

static struct job *take_queued_locked(struct lido_workers *ws, struct after *after) REQUIRES(ws->lock)
{
        bool keeps_time = queue_keeps_time(&ws->queue);
        uint64_t now = keeps_time ? clock_now_ns() : 0;
        struct job *job;

        if (keeps_time)
                queue_shed_locked(ws, now, after);
        job = queue_pop(&ws->queue);
        if (!job)
                return NULL;
        if (job->group)
                list_unlink(&job->group_link);
        if (keeps_time)
                queue_note_wait(&ws->queue, now - job->since_ns, now);
        job_begin(job);
        return job;
}

/* How many at once: a share of a long queue, so that the lock is taken less often; one of a short one, so that
 * nobody hoards. A bound on the queue is exact only if nobody waits outside of it; a group is cancelled exactly
 * only if its jobs are in a list. So neither is batched. */
static void take_several_locked(struct lido_workers *ws, struct lido_worker *w) REQUIRES(ws->lock)
{
        uint32_t share = queue_count(&ws->queue) / (2 * ws->threads);
        uint32_t count = 1;
        struct job *job;

        if (share == 0 || ws->options.queue_limit != LIDO_UNLIMITED || queue_keeps_time(&ws->queue))
                return;
        while (count <= share && count < BATCH_MAX && (job = queue_peek(&ws->queue)) != NULL && !job->group) {
                queue_pop(&ws->queue);
                job_move(job, JOB_BATCHED);
                job->link.next = (struct list *)(void *)&w->slot[count];
                store_release(&w->slot[count], job);
                count++;
        }
        if (count > 1) {
                w->batched = count;
                w->batch_seq = load_relaxed(&w->seq);
                ws->batchers++;
        }
}

/* Once in so many jobs taken; a batch is put back at the second look that finds its worker in the same job. */
enum { LOOK_EVERY = 8 };

static void put_back_locked(struct lido_workers *ws, struct lido_worker *victim) REQUIRES(ws->lock)
{
        for (uint32_t i = victim->batched; i > 1; i--) {
                struct job *job = load_relaxed(&victim->slot[i - 1]);

                if (job && cas_acq_rel(&victim->slot[i - 1], &job, NULL)) {
                        job_move(job, JOB_QUEUED);
                        queue_push_front(&ws->queue, job);
                        ws->stats.stolen++;
                }
        }
}

/* Put jobs back that have been taken together with one that runs for long: they are older than those in the queue. */
static void reclaim_locked(struct lido_workers *ws) REQUIRES(ws->lock)
{
        if (ws->batchers == 0 || ++ws->looks % LOOK_EVERY != 0)
                return;
        list_for_each(link, &ws->all) {
                struct lido_worker *victim = list_entry(link, struct lido_worker, link);
                uint64_t seq = load_relaxed(&victim->seq);

                if (victim->batched && victim->batch_seq == seq)
                        put_back_locked(ws, victim);
                victim->batch_seq = seq;
        }
}

/* Claim a job that another worker has taken but not begun: the one that it would come to last. */
static struct job *steal_locked(struct lido_workers *ws) REQUIRES(ws->lock)
{
        if (ws->batchers == 0)
                return NULL;
        list_for_each(link, &ws->all) {
                struct lido_worker *victim = list_entry(link, struct lido_worker, link);

                for (uint32_t i = victim->batched; i > 1; i--) {
                        struct job *job = load_relaxed(&victim->slot[i - 1]);

                        if (job && cas_acq_rel(&victim->slot[i - 1], &job, NULL)) {
                                job_begin(job);
                                ws->stats.stolen++;
                                return job;
                        }
                }
        }
        return NULL;
}

/* Take what this worker is to do next: one claimed job, and w->batched slots if there are several. */
static struct job *take_locked(struct lido_workers *ws, struct lido_worker *w, struct after *after) REQUIRES(ws->lock)
{
        struct job *job = take_own_locked(w);

        if (job || w->is_lent)
                goto watch;
        if (!lend_to_waiter_locked(ws, w, after) && ws->threads - ws->blocked <= ws->max) {
                reclaim_locked(ws);
                if (load_relaxed(&ws->door.count) > 0)
                        door_empty_locked(ws);
                job = take_queued_locked(ws, after);
                if (job) {
                        take_several_locked(ws, w);
                        room_give_locked(ws, after);
                } else {
                        job = steal_locked(ws);
                }
        }
        /* pass the wake on: also when this worker was woken for the queue and is not the one to serve it after all */
        if (queue_count(&ws->queue) > 0 || (job && ws->batchers > (w->batched != 0)))
                summon_locked(ws, after);
watch:
        if (ws->is_watch_asleep && job) {
                ws->is_watch_asleep = false;
                minder_call_locked(ws, after);
        }
        return job;
}

/* ---- the loop of a worker --------------------------------------------------------------------------------- */

static void arrive_locked(struct lido_workers *ws, struct lido_worker *w) REQUIRES(ws->lock)
{
        if (w->was_summoned) {
                w->was_summoned = false;
                ws->waking--;
        }
        if (w->batched) {
                w->batched = 0;
                ws->batchers--;
        }
}

static bool must_end_locked(struct lido_workers *ws, struct lido_worker *w) REQUIRES(ws->lock)
{
        bool has_expired = w->has_expired;

        w->has_expired = false;
        if (w->is_lent)
                return false;
        return ws->is_ending || ws->threads - ws->blocked > ws->max || (has_expired && ws->threads > ws->options.min);
}

/* Look at the queue for a moment before going to sleep: a sleeper costs its waker more than the moment. One worker
 * at a time, and not one that has looked in vain for long. Returns: true when the worker is to look once more
 * before it sleeps, for while it lingered nobody was woken, neither for the queue nor for what others have taken. */
static bool linger(struct lido_workers *ws, struct lido_worker *w) REQUIRES(ws->lock) NO_THREAD_SAFETY
{
        uint64_t end;

        if (ws->options.linger_us == 0 || w->has_lingered || w->is_lent)
                return false;
        if (ws->is_lingering || ws->waking > 0 || ws->is_ending)
                return false;
        if (w->misses >= LINGER_MISSES && ++w->misses % LINGER_RETRY != 0)
                return false;
        ws->is_lingering = true;
        lock_give(&ws->lock);
        end = clock_real_ns() + ws->options.linger_us * NS_PER_US;
        do
                for (int i = 0; i < 32 && queue_count(&ws->queue) == 0; i++)
                        cpu_relax();
        while (queue_count(&ws->queue) == 0 && clock_real_ns() < end);
        executor_lock(ws);
        ws->is_lingering = false;
        w->has_lingered = true;
        if (queue_count(&ws->queue) > 0)
                w->misses = 0;
        else if (w->misses < LINGER_MISSES)
                w->misses++;
        return true;
}

/* Sleep until chosen. A thread beyond min gives up when its idle timeout has passed. */
static void park_locked(struct lido_workers *ws, struct lido_worker *w, struct after *after) REQUIRES(ws->lock)
        NO_THREAD_SAFETY
{
        uint64_t deadline = CLOCK_NEVER;

        store_relaxed(&w->word, 0);
        ws->busy--;
        if (w->is_lent) {
                w->place = WORKER_HELD;
        } else {
                idle_add_locked(ws, w);
                if (ws->threads > ws->options.min && ws->idle_timeout_ns != CLOCK_NEVER)
                        deadline = clock_now_ns() + ws->idle_timeout_ns;
        }
        quiet_note_locked(ws, after);
        lock_give(&ws->lock);
        after_unlock(ws, after);
        while (load_acquire(&w->word) == 0 && park_wait(&w->word, 0, deadline))
                ;
        lock_take(&ws->lock);
        if (w->place == WORKER_BUSY)
                return;
        worker_choose_locked(ws, w);
        w->has_expired = true;
}

void worker_loop(struct lido_workers *ws, struct lido_worker *w)
{
        struct after after;

        lock_take(&ws->lock);
        for (;;) {
                struct job *job;

                after_init(&after);
                arrive_locked(ws, w);
                job = take_locked(ws, w, &after);
                if (job) {
                        uint32_t count = w->batched;

                        w->has_lingered = false;
                        door_settle_locked(ws, &after);
                        lock_give(&ws->lock);
                        after_unlock(ws, &after);
                        run_taken(w, job, count);
                        lock_take(&ws->lock);
                        continue;
                }
                if (door_is_open(&ws->door)) { /* nobody sleeps beside an open door */
                        door_shut_locked(ws);
                        if (!after.any)
                                continue;
                        if (queue_count(&ws->queue) > 0)
                                summon_locked(ws, &after);
                }
                if (after.any) { /* tell first, then sleep: whoever waits for quiet waits for that too */
                        lock_give(&ws->lock);
                        after_unlock(ws, &after);
                        lock_take(&ws->lock);
                        continue;
                }
                if (must_end_locked(ws, w))
                        break;
                if (linger(ws, w))
                        continue;
                park_locked(ws, w, &after);
                w->has_lingered = false;
        }
        worker_leave_locked(ws, w, &after);
        lock_give(&ws->lock);
        after_unlock(ws, &after);
}
