/* bench/adapters/pools.c - lido for the "pools" harness, whose adapters hand out a pointer to a struct
 * handle.
 *
 * The lease lies in the handle itself while it is lent, in the room that the harness leaves for such things.
 */
#define PEER_NAME "lido"
#define PEER_HAS_ACQUIRE 1
#define PEER_HAS_TRY 1
#define PEER_HAS_TIMED 1
#include "handle.h"

#include <lido.h>

static struct lido_service *service;

static void open_handle(lido_op op, void *context)
{
        (void)context;
        (void)lido_op_opened(op, handle_new());
}

static void close_handle(lido_op op, void *object, void *context)
{
        (void)context;
        free(object);
        (void)lido_op_done(op, LIDO_OK);
}

static void *peer_create(int handles, int threads)
{
        struct lido_factory factory = LIDO_FACTORY_INIT;
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        struct lido_pool *pool;

        (void)threads;
        factory.open = open_handle;
        factory.close = close_handle;
        options.max = options.min = (uint32_t)handles;
        options.start = LIDO_START_FAIL_FAST;
        if (lido_service_start(&service, NULL) != LIDO_OK)
                return NULL;
        return lido_pool_open(&pool, service, &factory, &options) == LIDO_OK ? pool : NULL;
}

static inline void *keep(lido_lease lease)
{
        struct handle *handle = lido_object(lease);

        handle->link[0] = lease.slot;
        handle->link[1] = (void *)(uintptr_t)lease.generation;
        return handle;
}

static inline void *peer_acquire(void *pool)
{
        lido_lease lease;

        return lido_acquire(pool, LIDO_NEVER, &lease) == LIDO_OK ? keep(lease) : NULL;
}

static inline void *peer_try(void *pool)
{
        lido_lease lease;

        return lido_try_acquire(pool, &lease) == LIDO_OK ? keep(lease) : NULL;
}

static inline void *peer_timed(void *pool, long ns)
{
        lido_lease lease;

        return lido_acquire(pool, ns / 1000000, &lease) == LIDO_OK ? keep(lease) : NULL;
}

static inline void peer_release(void *pool, void *object)
{
        struct handle *handle = object;
        lido_lease lease = {handle->link[0], (uint64_t)(uintptr_t)handle->link[1]};

        (void)pool;
        if (lido_release(lease) != LIDO_OK)
                abort();
}

static void peer_destroy(void *pool)
{
        lido_pool_free(pool);
        (void)lido_service_stop(service, 1000);
}

#include "harness.h"
