#include "worker/group.h"

#include <limits.h>

#include "worker/executor.h"

#define SLEEPER 1u
#define ONE 2u

bool group_enter_locked(struct lido_group *group)
{
        return add_acq_rel(&group_of(group)->pending, ONE) & SLEEPER;
}

void group_call(struct lido_group *group)
{
        park_wake(&group_of(group)->pending, INT_MAX);
}

void group_leave(struct lido_group *group)
{
        _Atomic uint32_t *pending = &group_of(group)->pending;

        if (sub_acq_rel(pending, ONE) == (ONE | SLEEPER))
                park_wake(pending, INT_MAX);
}

int lido_group_init(struct lido_group *group, struct lido_workers *ws)
{
        struct group *g = group_of(group);

        if (!group || !ws)
                return LIDO_EINVAL;
        if (is_foreign(ws))
                return LIDO_EFORKED;
        g->workers = ws;
        store_relaxed(&g->pending, 0);
        store_relaxed(&g->is_canceled, 0);
        list_init(&g->queued);
        list_init(&g->parked);
        return LIDO_OK;
}

/* Take a queued job of the group to run it here. */
static struct job *take_one(struct lido_workers *ws, struct group *g)
{
        struct after after;
        struct job *job = NULL;
        struct list *link;

        after_init(&after);
        executor_lock(ws);
        link = list_front(&g->queued);
        if (link) {
                job = list_entry(link, struct job, group_link);
                job_withdraw_locked(ws, job);
                job_begin(job);
                room_give_locked(ws, &after);
        }
        lock_give(&ws->lock);
        after_unlock(ws, &after);
        return job;
}

int lido_group_wait(struct lido_group *group, int64_t timeout_ms)
{
        struct group *g = group_of(group);
        struct lido_worker *self = worker_self();
        struct lido_workers *ws;
        uint64_t deadline;
        bool helps;

        if (!group || timeout_ms < LIDO_NEVER)
                return LIDO_EINVAL;
        ws = g->workers;
        if (is_foreign(ws))
                return LIDO_EFORKED;
        helps = self && self->workers == ws && self->depth < DEPTH_MAX;
        deadline = clock_after_ms(clock_now_ns(), timeout_ms);
        for (;;) {
                uint32_t seen = load_acquire(&g->pending);
                struct job *job;

                if (seen < ONE)
                        return LIDO_OK;
                if (helps && (job = take_one(ws, g)) != NULL) {
                        worker_run(self, job);
                        continue;
                }
                if (!(seen & SLEEPER) && !cas_acq_rel(&g->pending, &seen, seen | SLEEPER))
                        continue;
                if (!park_wait(&g->pending, seen | SLEEPER, deadline))
                        return load_acquire(&g->pending) < ONE ? LIDO_OK : LIDO_ETIMEDOUT;
        }
}

static int drop_all_locked(struct lido_workers *ws, struct list *jobs, struct list *dropped) REQUIRES(ws->lock)
{
        int count = 0;

        list_for_each_safe(link, jobs)
                count += job_drop_locked(ws, list_entry(link, struct job, group_link), dropped);
        ws->stats.canceled += (uint64_t)count;
        return count;
}

int lido_group_cancel(struct lido_group *group)
{
        struct group *g = group_of(group);
        struct after after;
        struct lido_workers *ws;
        struct list dropped;
        int count, leasing;

        if (!group || !g->workers)
                return LIDO_EINVAL;
        ws = g->workers;
        if (is_foreign(ws))
                return LIDO_EFORKED;
        list_init(&dropped);
        after_init(&after);
        executor_lock(ws);
        store_release(&g->is_canceled, 1);
        count = drop_all_locked(ws, &g->queued, &dropped) + drop_all_locked(ws, &g->parked, &dropped);
        room_give_locked(ws, &after);
        quiet_note_locked(ws, &after);
        lock_give(&ws->lock);
        after_unlock(ws, &after);
        leasing = lease_jobs_cancel(ws, group, LIDO_ECANCELED);
        jobs_end(&dropped, LIDO_ECANCELED);
        return count + leasing;
}
