/* bench/workers/lido.c - our own executor, with as many threads at least as at most. */
#define RIVAL_NAME "lido"
#define RIVAL_CANCELS 1
#define RIVAL_LOOPS 1

#include "bench/workers/rival.h"

#include <lido.h>
#include <lido/worker.h>

struct own {
        struct lido_job job;
};

#include "bench/workers/load.h"

static struct lido_workers *executor;

static void rival_open(unsigned workers)
{
        struct lido_workers_options options = LIDO_WORKERS_OPTIONS_INIT;

        options.min = options.max = workers;
        if (lido_workers_open(&executor, &options) != LIDO_OK)
                abort();
}

static void rival_begin(void)
{
}

/* A job without `done` is the caller's again as soon as this is called. */
static void work_on(struct lido_job *job)
{
        struct task *task = (struct task *)job;

        run_task(task);
        task_is_free(task);
}

static inline void rival_submit(struct task *task)
{
        task->own.job.run = work_on;
        if (lido_submit(executor, &task->own.job) != LIDO_OK)
                abort();
}

static inline void rival_reap(void)
{
        sleep_ns(REAP_NS);
}

static inline bool rival_cancel(struct task *task)
{
        if (lido_job_cancel(&task->own.job) != LIDO_OK)
                return false;
        task_is_free(task);
        return true;
}

static void work_on_trip(struct lido_job *job)
{
        run_task((struct task *)job);
}

static void after_trip(struct lido_job *job, int status)
{
        (void)status;
        task_is_back((struct task *)job);
}

static inline void rival_submit_from_loop(uv_loop_t *loop, struct task *task)
{
        struct lido_loop *ours = loop->data;

        if (!ours) {
                if (lido_loop_open(&ours, loop) != LIDO_OK)
                        abort();
                loop->data = ours;
        }
        task->own.job.run = work_on_trip;
        task->own.job.done = after_trip;
        task->own.job.loop = ours;
        if (lido_submit(executor, &task->own.job) != LIDO_OK)
                abort();
}

static void rival_loop_end(uv_loop_t *loop)
{
        lido_loop_close(loop->data, NULL, NULL);
        loop->data = NULL;
}

static void rival_end(void)
{
}
