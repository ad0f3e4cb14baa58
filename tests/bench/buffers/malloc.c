/* bench/buffers/malloc.c - the process's own allocator; others take its place by LD_PRELOAD. */
#define RIVAL_NAME "malloc"

#include "bench/buffers/rival.h"

static void rival_open(size_t bytes)
{
        (void)bytes;
}

static inline void *rival_acquire(size_t bytes)
{
        return malloc(bytes);
}

static inline void rival_release(void *buffer, size_t bytes)
{
        (void)bytes;
        free(buffer);
}

static void rival_close(void)
{
}

#include "bench/buffers/load.h"
