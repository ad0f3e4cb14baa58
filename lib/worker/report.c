/* What an executor tells: events, stats, and the check of its invariants. */
#include "worker/executor.h"

#include <string.h>

#include "base/sized.h"

const char *lido_worker_event_name(int type)
{
        static const char *const names[] = {
                [LIDO_WORKER_EVENT_STUCK] = "stuck",
                [LIDO_WORKER_EVENT_UNSTUCK] = "unstuck",
                [LIDO_WORKER_EVENT_HOLDER] = "holder",
                [LIDO_WORKER_EVENT_START_FAILED] = "start_failed",
                [LIDO_WORKER_EVENT_MISUSE] = "misuse",
                [LIDO_WORKER_EVENT_DIED] = "died",
        };

        if (type < 0 || (size_t)type >= sizeof names / sizeof *names)
                return "?";
        return names[type];
}

void report_event(struct lido_workers *ws, struct lido_worker_event *event)
{
        event->size = sizeof *event;
        event->workers = ws;
        event->name = ws->name;
        if (ws->options.on_event)
                ws->options.on_event(event, ws->options.context);
}

void report_misuse(struct lido_workers *ws, int code, const char *site)
{
        struct lido_worker_event event = { .type = LIDO_WORKER_EVENT_MISUSE, .code = code, .site = site };

        event.worker = LIDO_UNLIMITED;
        executor_lock(ws);
        ws->stats.misused++;
        lock_give(&ws->lock);
        report_event(ws, &event);
}

void report_describe_locked(struct lido_workers *ws, struct lido_worker *w, struct lido_worker_event *ret_event)
{
        bool is_running = load_relaxed(&w->seq) & 1;

        (void)ws;
        memset(ret_event, 0, sizeof *ret_event);
        ret_event->worker = w->number;
        ret_event->thread = w->thread_id;
        ret_event->site = is_running || !w->is_lent ? load_relaxed(&w->site) : w->lease_site;
}

/* They are told one at a time, by number, for no event is sent under the lock and the table may change meanwhile. */
void report_holders(struct lido_workers *ws)
{
        uint32_t told = 0;

        for (;;) {
                struct lido_worker_event event;
                struct lido_worker *next = NULL;

                executor_lock(ws);
                list_for_each(link, &ws->all) {
                        struct lido_worker *w = list_entry(link, struct lido_worker, link);

                        if (w->number > told && (!next || w->number < next->number))
                                next = w;
                }
                if (next) {
                        report_describe_locked(ws, next, &event);
                        told = next->number;
                }
                lock_give(&ws->lock);
                if (!next)
                        return;
                event.type = LIDO_WORKER_EVENT_HOLDER;
                report_event(ws, &event);
        }
}

static uint32_t length(const struct list *head)
{
        uint32_t count = 0;

        list_for_each(link, head)
                count++;
        return count;
}

/* What it has taken but not begun. */
static uint32_t backlog(struct lido_worker *w)
{
        uint32_t count = length(&w->own);

        for (uint32_t i = 1; i < w->batched; i++)
                count += load_relaxed(&w->slot[i]) != NULL;
        return count;
}

static void gauges_locked(struct lido_workers *ws, struct lido_worker_stats *stats) REQUIRES(ws->lock)
{
        stats->threads = ws->threads;
        stats->lent = ws->lent;
        stats->idle = ws->idle_count;
        stats->busy = ws->threads - ws->lent - ws->idle_count;
        stats->blocked = ws->blocked;
        stats->queued = queue_count(&ws->queue);
        stats->queued_peak = ws->queue.peak;
        stats->delayed = ws->delayed_count;
        stats->waiting = length(&ws->room) + length(&ws->borrowers);
        stats->submitted = ws->submitted;
        stats->ran = ws->ran_by_ended;
        list_for_each(link, &ws->all) {
                struct lido_worker *w = list_entry(link, struct lido_worker, link);

                stats->ran += load_relaxed(&w->ran);
                stats->queued += backlog(w);
        }
}

int lido_workers_stats(struct lido_workers *ws, struct lido_worker_stats *stats)
{
        struct lido_worker_stats now;
        size_t room;

        if (!ws || !stats || stats->size < sizeof stats->size)
                return LIDO_EINVAL;
        if (is_foreign(ws))
                return LIDO_EFORKED;
        room = sized_room(stats->size, sizeof now);
        executor_lock(ws);
        now = ws->stats;
        gauges_locked(ws, &now);
        lock_give(&ws->lock);
        now.size = stats->size;
        memcpy(stats, &now, room);
        return LIDO_OK;
}

void executor_check(struct lido_workers *ws)
{
        uint32_t held = 0, lent = 0, batchers = 0;

        executor_lock(ws);
        queue_check(&ws->queue);
        list_for_each(link, &ws->all) {
                struct lido_worker *w = list_entry(link, struct lido_worker, link);

                held += w->place == WORKER_HELD;
                lent += w->is_lent;
                batchers += w->batched > 0;
                lido_assert(list_is_linked(&w->idle_link) == (w->place == WORKER_IDLE));
                lido_assert(w->place != WORKER_HELD || (w->is_lent && list_is_empty(&w->own)));
        }
        lido_assert(length(&ws->idle) == ws->idle_count);
        lido_assert(ws->threads == ws->busy + ws->idle_count + held);
        lido_assert(lent <= ws->lent); /* one that is being started is not in the table yet */
        lido_assert(batchers == ws->batchers);
        lido_assert(queue_count(&ws->queue) == 0 || ws->idle_count == 0 || ws->waking || ws->is_lingering);
        lock_give(&ws->lock);
}
