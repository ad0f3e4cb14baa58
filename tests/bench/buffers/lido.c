/* bench/buffers/lido.c - our own buffers: of one size where the workload has one, by classes where it has
 * many. */
#define RIVAL_NAME "lido"
#define RIVAL_BULK 1

#include "bench/buffers/rival.h"

#include <lido.h>
#include <lido/buffer.h>

static struct lido_buffer_pool *pool;

static void rival_open(size_t bytes)
{
        struct lido_buffer_options options = LIDO_BUFFER_OPTIONS_INIT;

        options.buffer_bytes = bytes;
        if (lido_buffer_pool_open(&pool, &options) != LIDO_OK)
                abort();
}

static inline void *rival_acquire(size_t bytes)
{
        void *buffer;

        if (lido_buffer_acquire(pool, bytes, &buffer) != LIDO_OK)
                abort();
        return buffer;
}

static inline void rival_release(void *buffer, size_t bytes)
{
        (void)bytes;
        if (lido_buffer_release(buffer) != LIDO_OK)
                abort();
}

static inline void rival_acquire_bulk(size_t bytes, unsigned count, void **buffers)
{
        if (lido_buffer_acquire_bulk(pool, bytes, count, buffers) != LIDO_OK)
                abort();
}

static inline void rival_release_bulk(size_t bytes, unsigned count, void **buffers)
{
        (void)bytes;
        if (lido_buffer_release_bulk(buffers, count) != LIDO_OK)
                abort();
}

static void rival_close(void)
{
        lido_buffer_pool_free(pool);
}

#include "bench/buffers/load.h"
