/* bench/buffers/gslice.c - GLib's slices; since GLib 2.76 they are malloc by another name. */
#define RIVAL_NAME "gslice"

#include "bench/buffers/rival.h"

#include <glib.h>

static void rival_open(size_t bytes)
{
        (void)bytes;
}

static inline void *rival_acquire(size_t bytes)
{
        return g_slice_alloc(bytes);
}

static inline void rival_release(void *buffer, size_t bytes)
{
        g_slice_free1(bytes, buffer);
}

static void rival_close(void)
{
}

#include "bench/buffers/load.h"
