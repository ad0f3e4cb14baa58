/* bench/workers/gthreadpool.c - GLib's thread pool, with threads of its own. */
#define RIVAL_NAME "gthreadpool"
#define RIVAL_CANCELS 0
#define RIVAL_LOOPS 0
#define RIVAL_FREES_EARLY 1

#include "bench/workers/rival.h"

#include <glib.h>

struct own {
        char nothing;
};

#include "bench/workers/load.h"

static GThreadPool *pool;

static void work_on(void *task, void *nothing)
{
        (void)nothing;
        run_task(task);
}

static void rival_open(unsigned workers)
{
        pool = g_thread_pool_new(work_on, NULL, (int)workers, TRUE, NULL);
}

static void rival_begin(void)
{
}

static inline void rival_submit(struct task *task)
{
        (void)g_thread_pool_push(pool, task, NULL);
}

static inline void rival_reap(void)
{
        sleep_ns(REAP_NS);
}

static void rival_end(void)
{
}
