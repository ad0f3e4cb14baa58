/* bench/pools/lido.c - our own pool, used as an embedder uses it: public headers, default options. `lido` has the library
 * linked into it, as the pools of one file have; `lido_so` calls the shared one. */
#ifndef RIVAL_NAME
#define RIVAL_NAME "lido"
#endif
#define RIVAL_WAITS 1
#define RIVAL_TRIES 1
#define RIVAL_TIMES 1
#define RIVAL_COUNTS 1

#include "bench/pools/rival.h"

#include <lido.h>

typedef lido_lease grip;

struct borrowed {
        struct lido_service *service;
        struct lido_pool *pool;
};

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

static void *rival_open(unsigned handles)
{
        struct lido_factory factory = LIDO_FACTORY_INIT;
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        struct borrowed *self = calloc(1, sizeof *self);

        factory.kind = "handle";
        factory.open = open_handle;
        factory.close = close_handle;
        options.max = options.min = handles;
        options.start = LIDO_START_FAIL_FAST;
        if (!self || lido_service_start(&self->service, NULL) != LIDO_OK)
                return NULL;
        if (lido_pool_open(&self->pool, self->service, &factory, &options) != LIDO_OK)
                return NULL;
        return self;
}

static inline bool rival_acquire(void *pool, grip *ret_grip)
{
        struct borrowed *self = pool;
        int rc = lido_acquire(self->pool, LIDO_NEVER, ret_grip);

        if (rc != LIDO_OK)
                (void)fprintf(stderr, "lido_acquire: %s, %s\n", lido_err_name(rc), lido_strerror(rc));
        return rc == LIDO_OK;
}

static inline bool rival_try(void *pool, grip *ret_grip)
{
        struct borrowed *self = pool;

        return lido_try_acquire(self->pool, ret_grip) == LIDO_OK;
}

static inline bool rival_timed(void *pool, uint64_t timeout_ns, grip *ret_grip)
{
        struct borrowed *self = pool;

        return lido_acquire(self->pool, (int64_t)(timeout_ns / 1000000), ret_grip) == LIDO_OK;
}

/* A refused release is a fault of ours: the run must not go on as if nothing had happened. */
static inline void rival_release(void *pool, grip grip)
{
        (void)pool;
        if (lido_release(grip) != LIDO_OK)
                abort();
}

static inline struct handle *rival_handle(grip grip)
{
        return lido_object(grip);
}

static void rival_close(void *pool)
{
        struct borrowed *self = pool;

        lido_pool_free(self->pool);
        (void)lido_service_stop(self->service, 1000);
        free(self);
}

#include "bench/pools/load.h"
