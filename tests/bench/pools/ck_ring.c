/* bench/pools/ck_ring.c - Concurrency Kit's bounded ring, holding the idle handles. It cannot wait: a
 * borrower polls. */
#define RIVAL_NAME "ck_ring"
#define RIVAL_WAITS 0
#define RIVAL_TRIES 1
#define RIVAL_TIMES 0
#define RIVAL_COUNTS 1

#include "bench/pools/rival.h"

#include <ck_ring.h>

typedef struct handle *grip;

struct ring {
        ck_ring_t idle __attribute__((aligned(128)));
        ck_ring_buffer_t *buffer;
};

/* A ring of a power of two, which holds one less than its size. */
static void *rival_open(unsigned handles)
{
        struct ring *self = aligned_alloc(128, sizeof *self);
        unsigned size = 4;

        if (!self)
                return NULL;
        while (size <= handles)
                size *= 2;
        self->buffer = calloc(size, sizeof *self->buffer);
        if (!self->buffer)
                return NULL;
        ck_ring_init(&self->idle, size);
        while (handles--)
                (void)ck_ring_enqueue_mpmc(&self->idle, self->buffer, handle_new());
        return self;
}

static inline bool rival_try(void *pool, grip *ret_grip)
{
        struct ring *self = pool;

        return ck_ring_dequeue_mpmc(&self->idle, self->buffer, ret_grip);
}

static inline void rival_release(void *pool, grip grip)
{
        struct ring *self = pool;

        while (!ck_ring_enqueue_mpmc(&self->idle, self->buffer, grip))
                ck_pr_stall();
}

static inline struct handle *rival_handle(grip grip)
{
        return grip;
}

static void rival_close(void *pool)
{
        struct ring *self = pool;
        grip grip;

        while (rival_try(pool, &grip))
                free(grip);
        free(self->buffer);
        free(self);
}

#include "bench/pools/load.h"
