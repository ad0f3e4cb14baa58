/* Blocking hints: a worker that says it will block does not count against max, so another may be started in its
 * stead. */
#include "worker/executor.h"

void lido_blocking_begin(void)
{
        struct lido_worker *w = worker_self();
        struct lido_workers *ws;
        struct after after;

        if (!w || w->blocking++ > 0)
                return;
        ws = w->workers;
        after_init(&after);
        executor_lock(ws);
        w->is_blocked = !w->is_lent && ws->blocked < ws->options.blocking_limit;
        if (w->is_blocked) {
                ws->blocked++;
                if (queue_count(&ws->queue) > 0 || ws->batchers > 0 || !list_is_empty(&ws->borrowers))
                        summon_locked(ws, &after);
        }
        lock_give(&ws->lock);
        after_unlock(ws, &after);
}

/* Now there may be one thread too many; the first that comes to the lock without a job in hand ends. */
void lido_blocking_end(void)
{
        struct lido_worker *w = worker_self();
        struct lido_workers *ws;

        if (!w || w->blocking == 0 || --w->blocking > 0)
                return;
        ws = w->workers;
        executor_lock(ws);
        if (w->is_blocked)
                ws->blocked--;
        w->is_blocked = false;
        lock_give(&ws->lock);
}
