/* bench/workers/uv_queue_work.c - libuv's thread pool. It may be used only from a loop's thread: each
 * producer runs one. */
#define RIVAL_NAME "uv_queue_work"
#define RIVAL_CANCELS 1
#define RIVAL_LOOPS 1

#include "bench/workers/rival.h"

struct own {
        uv_work_t request;
};

#include "bench/workers/load.h"

static __thread uv_loop_t loop;

static void rival_open(unsigned workers)
{
        char text[16];

        (void)snprintf(text, sizeof text, "%u", workers);
        (void)setenv("UV_THREADPOOL_SIZE", text, 1);
}

static void rival_begin(void)
{
        (void)uv_loop_init(&loop);
}

static void work_on(uv_work_t *request)
{
        run_task((struct task *)request);
}

static void after_work(uv_work_t *request, int status)
{
        (void)status;
        task_is_free((struct task *)request);
}

static void after_trip(uv_work_t *request, int status)
{
        (void)status;
        task_is_back((struct task *)request);
}

static inline void rival_submit(struct task *task)
{
        if (uv_queue_work(&loop, &task->own.request, work_on, after_work))
                abort();
}

static inline void rival_reap(void)
{
        (void)uv_run(&loop, UV_RUN_ONCE);
}

/* The memory comes back by way of the loop, when the next submit asks for it. */
static inline bool rival_cancel(struct task *task)
{
        return uv_cancel((uv_req_t *)&task->own.request) == 0;
}

static inline void rival_submit_from_loop(uv_loop_t *on, struct task *task)
{
        if (uv_queue_work(on, &task->own.request, work_on, after_trip))
                abort();
}

static void rival_loop_end(uv_loop_t *on)
{
        (void)on;
}

static void rival_end(void)
{
        (void)uv_run(&loop, UV_RUN_DEFAULT);
        if (uv_loop_close(&loop))
                abort();
}
