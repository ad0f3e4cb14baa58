/* bench/pools/apr_reslist.c - the resource list of the Apache Portable Runtime. It has no try. */
#define RIVAL_NAME "apr_reslist"
#define RIVAL_WAITS 1
#define RIVAL_TRIES 0
#define RIVAL_TIMES 1
#define RIVAL_COUNTS 1

#include "bench/pools/rival.h"

#include <apr_general.h>
#include <apr_pools.h>
#include <apr_reslist.h>

typedef struct handle *grip;

struct reslist {
        apr_pool_t *memory;
        apr_reslist_t *list;
        uint64_t timeout_ns;
};

static apr_status_t make(void **ret_resource, void *context, apr_pool_t *memory)
{
        (void)context, (void)memory;
        *ret_resource = handle_new();
        return APR_SUCCESS;
}

static apr_status_t end(void *resource, void *context, apr_pool_t *memory)
{
        (void)context, (void)memory;
        free(resource);
        return APR_SUCCESS;
}

static void *rival_open(unsigned handles)
{
        struct reslist *self = calloc(1, sizeof *self);
        int count = (int)handles;

        if (!self || apr_initialize() != APR_SUCCESS || apr_pool_create(&self->memory, NULL) != APR_SUCCESS)
                return NULL;
        if (apr_reslist_create(&self->list, count, count, count, 0, make, end, NULL, self->memory) !=
            APR_SUCCESS)
                return NULL;
        return self;
}

static inline bool rival_acquire(void *pool, grip *ret_grip)
{
        struct reslist *self = pool;

        return apr_reslist_acquire(self->list, (void **)ret_grip) == APR_SUCCESS;
}

/* The timeout belongs to the list, not to the call. */
static inline bool rival_timed(void *pool, uint64_t timeout_ns, grip *ret_grip)
{
        struct reslist *self = pool;

        if (self->timeout_ns != timeout_ns) {
                self->timeout_ns = timeout_ns;
                apr_reslist_timeout_set(self->list, (apr_interval_time_t)(timeout_ns / 1000));
        }
        return rival_acquire(pool, ret_grip);
}

static inline void rival_release(void *pool, grip grip)
{
        struct reslist *self = pool;

        (void)apr_reslist_release(self->list, grip);
}

static inline struct handle *rival_handle(grip grip)
{
        return grip;
}

static void rival_close(void *pool)
{
        struct reslist *self = pool;

        (void)apr_reslist_destroy(self->list);
        apr_pool_destroy(self->memory);
        free(self);
}

#include "bench/pools/load.h"
