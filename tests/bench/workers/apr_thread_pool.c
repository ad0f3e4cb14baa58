/* bench/workers/apr_thread_pool.c - the thread pool of the Apache Portable Runtime. */
#define RIVAL_NAME "apr_thread_pool"
#define RIVAL_CANCELS 0
#define RIVAL_LOOPS 0
#define RIVAL_FREES_EARLY 1

#include "bench/workers/rival.h"

#include <apr_general.h>
#include <apr_thread_pool.h>

struct own {
        char nothing;
};

#include "bench/workers/load.h"

static apr_thread_pool_t *pool;

static void *APR_THREAD_FUNC work_on(apr_thread_t *thread, void *task)
{
        (void)thread;
        run_task(task);
        return NULL;
}

static void rival_open(unsigned workers)
{
        apr_pool_t *memory;

        if (apr_initialize() != APR_SUCCESS || apr_pool_create(&memory, NULL) != APR_SUCCESS ||
            apr_thread_pool_create(&pool, workers, workers, memory) != APR_SUCCESS)
                abort();
}

static void rival_begin(void)
{
}

static inline void rival_submit(struct task *task)
{
        if (apr_thread_pool_push(pool, work_on, task, APR_THREAD_TASK_PRIORITY_NORMAL, NULL) != APR_SUCCESS)
                abort();
}

static inline void rival_reap(void)
{
        sleep_ns(REAP_NS);
}

static void rival_end(void)
{
}
