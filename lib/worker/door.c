#include "worker/door.h"

#include "worker/executor.h"

/* Move what is in the list into the queue. */
static void empty_locked(struct lido_workers *ws, struct door *door) REQUIRES(ws->lock) REQUIRES(door->lock)
{
        uint32_t count = load_relaxed(&door->count);

        if (count == 0)
                return;
        queue_adopt(&ws->queue, &door->jobs, count);
        store_relaxed(&door->count, 0);
        ws->submitted += count;
}

void door_empty_locked(struct lido_workers *ws)
{
        lock_take(&ws->door.lock);
        empty_locked(ws, &ws->door);
        lock_give(&ws->door.lock);
}

void door_shut_locked(struct lido_workers *ws)
{
        lock_take(&ws->door.lock);
        store_relaxed(&ws->door.is_open, 0);
        empty_locked(ws, &ws->door);
        lock_give(&ws->door.lock);
}

/* Has a submitter nobody to summon, and nothing else to see to? */
static bool may_be_open_locked(struct lido_workers *ws) REQUIRES(ws->lock)
{
        if (ws->is_closed || ws->is_lingering || ws->options.queue_limit != LIDO_UNLIMITED || queue_keeps_time(&ws->queue))
                return false;
        return ws->waking > 0 || (list_is_empty(&ws->idle) && ws->threads - ws->blocked >= ws->max);
}

void door_settle_locked(struct lido_workers *ws, struct after *after)
{
        bool may_be = may_be_open_locked(ws);

        if (may_be == door_is_open(&ws->door))
                return;
        if (may_be) {
                store_relaxed(&ws->door.is_open, 1);
                return;
        }
        door_shut_locked(ws);
        if (queue_count(&ws->queue) > 0)
                summon_locked(ws, after);
}
