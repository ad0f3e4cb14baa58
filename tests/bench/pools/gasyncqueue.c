/* bench/pools/gasyncqueue.c - GLib's queue between threads, holding the idle handles. */
#define RIVAL_NAME "gasyncqueue"
#define RIVAL_WAITS 1
#define RIVAL_TRIES 1
#define RIVAL_TIMES 1
#define RIVAL_COUNTS 1

#include "bench/pools/rival.h"

#include <glib.h>

typedef struct handle *grip;

static void *rival_open(unsigned handles)
{
        GAsyncQueue *queue = g_async_queue_new_full(free);

        for (unsigned i = 0; i < handles; i++)
                g_async_queue_push(queue, handle_new());
        return queue;
}

static inline bool rival_acquire(void *pool, grip *ret_grip)
{
        *ret_grip = g_async_queue_pop(pool);
        return true;
}

static inline bool rival_try(void *pool, grip *ret_grip)
{
        return (*ret_grip = g_async_queue_try_pop(pool)) != NULL;
}

static inline bool rival_timed(void *pool, uint64_t timeout_ns, grip *ret_grip)
{
        return (*ret_grip = g_async_queue_timeout_pop(pool, timeout_ns / 1000)) != NULL;
}

static inline void rival_release(void *pool, grip grip)
{
        g_async_queue_push(pool, grip);
}

static inline struct handle *rival_handle(grip grip)
{
        return grip;
}

static void rival_close(void *pool)
{
        g_async_queue_unref(pool);
}

#include "bench/pools/load.h"
