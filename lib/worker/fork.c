/* What becomes of executors in a child made by fork(2): they have no threads there, and hand out the jobs they had.
 *
 * The parent's fork takes the lock of every executor first (the one place in lido where locks nest: `registry`, then
 * executors in the order of their opening), so that the child inherits lists that are whole. In the child the epoch moves:
 * from then on is_foreign is true for every inherited executor, and nothing but lido_workers_forked looks inside.
 */
#include "base/fork.h"
#include "base/mem.h"
#include "base/mutex.h"
#include "worker/executor.h"
#include "worker/group.h"

_Atomic uint32_t worker_epoch;

static struct mutex registry = MUTEX_INIT;
static struct list executors = { &executors, &executors }; /* registry */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void lock_all(void) NO_THREAD_SAFETY
{
        mutex_lock(&registry);
        list_for_each(link, &executors)
                executor_lock(list_entry(link, struct lido_workers, registry_link));
}

static void unlock_all(void) NO_THREAD_SAFETY
{
        list_for_each(link, &executors)
                lock_give(&list_entry(link, struct lido_workers, registry_link)->lock);
        mutex_unlock(&registry);
}

static void unlock_in_child(void) NO_THREAD_SAFETY
{
        store_relaxed(&worker_epoch, load_relaxed(&worker_epoch) + 1);
        unlock_all();
}

static void watch_forks(void)
{
        fork_watch(lock_all, unlock_all, unlock_in_child);
}

void fork_register(struct lido_workers *ws)
{
        pthread_once(&once, watch_forks);
        mutex_lock(&registry);
        ws->epoch = load_relaxed(&worker_epoch);
        list_push_back(&executors, &ws->registry_link);
        mutex_unlock(&registry);
}

void fork_unregister(struct lido_workers *ws)
{
        mutex_lock(&registry);
        list_unlink(&ws->registry_link);
        mutex_unlock(&registry);
}

/* ---- in the child ----------------------------------------------------------------------------------------- */

struct heirs {
        void (*inherited)(struct lido_job *job, void *context);
        void *context;
        int count;
};

static void hand_out(struct job *job, struct heirs *heirs)
{
        struct lido_group *group = job->group;

        job_move(job, JOB_IDLE);
        if (group)
                group_leave(group);
        heirs->count++;
        if (heirs->inherited)
                heirs->inherited(job_public(job), heirs->context);
}

/* The parent may have been between claiming a job and calling it: then the slot is empty and the job is not ours. */
static void hand_out_of_worker(struct lido_workers *ws, struct lido_worker *w, struct heirs *heirs) NO_THREAD_SAFETY
{
        struct list *link;

        for (uint32_t i = 1; i < w->batched; i++) {
                struct job *job = load_relaxed(&w->slot[i]);

                if (job)
                        hand_out(job, heirs);
        }
        while ((link = list_front(&w->own)) != NULL) {
                struct job *job = list_entry(link, struct job, link);

                job_withdraw_locked(ws, job);
                hand_out(job, heirs);
        }
}

static void free_workers(struct list *workers)
{
        struct list *link;

        while ((link = list_front(workers)) != NULL) {
                list_unlink(link);
                mem_free(list_entry(link, struct lido_worker, link));
        }
}

int lido_workers_forked(struct lido_workers *ws, void (*inherited)(struct lido_job *job, void *context),
                        void *context) NO_THREAD_SAFETY
{
        struct heirs heirs = { inherited, context, 0 };
        struct heap_node *node;
        struct job *job;

        if (!ws || !is_foreign(ws))
                return LIDO_EINVAL;
        list_for_each(link, &ws->all)
                hand_out_of_worker(ws, list_entry(link, struct lido_worker, link), &heirs);
        while ((job = queue_peek(&ws->queue)) != NULL) {
                job_withdraw_locked(ws, job);
                hand_out(job, &heirs);
        }
        while ((node = heap_first(&ws->delayed)) != NULL) {
                job = (struct job *)(void *)((char *)node - offsetof(struct job, due));
                job_withdraw_locked(ws, job);
                hand_out(job, &heirs);
        }
        while (!list_is_empty(&ws->leasing)) {
                job = list_entry(ws->leasing.next, struct job, link);
                list_unlink(&job->link);
                if (job->group)
                        list_unlink(&job->group_link);
                lease_job_abandon(job);
                hand_out(job, &heirs);
        }
        fork_unregister(ws);
        free_workers(&ws->all);
        free_workers(&ws->ended);
        free_workers(&ws->spare);
        mem_free(ws);
        return heirs.count;
}
