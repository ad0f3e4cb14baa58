/* bench/spike/apr_reslist.c - the resource list of the Apache Portable Runtime: it opens in the borrower's thread. */
#define SPIKE_NAME "apr_reslist"
#include <apr_general.h>
#include <apr_pools.h>
#include <apr_reslist.h>

#include "bench/spike/spike.h"

static apr_status_t make(void **ret_resource, void *context, apr_pool_t *memory)
{
        (void)context, (void)memory;
        *ret_resource = spike_make();
        return APR_SUCCESS;
}

static apr_status_t end(void *resource, void *context, apr_pool_t *memory)
{
        (void)context, (void)memory;
        free(resource);
        return APR_SUCCESS;
}

static void *spike_open(void)
{
        apr_pool_t *memory;
        apr_reslist_t *list;

        if (apr_initialize() != APR_SUCCESS || apr_pool_create(&memory, NULL) != APR_SUCCESS ||
            apr_reslist_create(&list, SPIKE_IDLE, SPIKE_IDLE, SPIKE_THREADS, 0, make, end, NULL, memory) != APR_SUCCESS)
                return NULL;
        return list;
}

static void *spike_acquire(void *pool, void **ret_grip)
{
        return apr_reslist_acquire(pool, ret_grip) == APR_SUCCESS ? *ret_grip : NULL;
}

static void spike_release(void *pool, void *grip)
{
        (void)apr_reslist_release(pool, *(void **)grip);
}
