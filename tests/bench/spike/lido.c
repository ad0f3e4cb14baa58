/* bench/spike/lido.c - our own pool: a blocking factory, default options but for the numbers that the spike names. */
#define SPIKE_NAME "lido"
#include <lido.h>

#include "bench/spike/spike.h"

static void open_object(lido_op op, void *context)
{
        (void)context;
        (void)lido_op_opened(op, spike_make());
}

static void close_object(lido_op op, void *object, void *context)
{
        (void)context;
        free(object);
        (void)lido_op_done(op, LIDO_OK);
}

static void *spike_open(void)
{
        struct lido_factory factory = LIDO_FACTORY_INIT;
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        struct lido_service *service;
        struct lido_pool *pool;

        factory.kind = "slow";
        factory.flags = LIDO_FACTORY_BLOCKING;
        factory.open = open_object;
        factory.close = close_object;
        options.min = SPIKE_IDLE;
        options.max = SPIKE_THREADS;
        options.start = LIDO_START_WARM;
        if (lido_service_start(&service, NULL) != LIDO_OK ||
            lido_pool_open(&pool, service, &factory, &options) != LIDO_OK ||
            lido_pool_wait_ready(pool, SPIKE_IDLE, 5000) != LIDO_OK)
                return NULL;
        return pool;
}

static void *spike_acquire(void *pool, void **ret_grip)
{
        lido_lease lease;

        if (lido_acquire(pool, LIDO_NEVER, &lease) != LIDO_OK)
                return NULL;
        ret_grip[0] = lease.slot;
        ret_grip[1] = (void *)(uintptr_t)lease.generation;
        return lido_object(lease);
}

static void spike_release(void *pool, void *grip)
{
        void **word = grip;
        lido_lease lease = {.slot = word[0], .generation = (uintptr_t)word[1]};

        (void)pool;
        if (lido_release(lease) != LIDO_OK)
                abort();
}
