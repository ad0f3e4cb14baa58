/* bench/pools/textbook.c - the pool that everybody writes first: a mutex, a condition variable, a stack of
 * handles.
 *
 * With RIVAL_LATE the waiter is signalled after the unlock instead of before it, which is much faster under
 * load.
 */
#ifdef RIVAL_LATE
#define RIVAL_NAME "textbook-late"
#else
#define RIVAL_NAME "textbook"
#endif
#define RIVAL_WAITS 1
#define RIVAL_TRIES 1
#define RIVAL_TIMES 1
#define RIVAL_COUNTS 1

#include "bench/pools/rival.h"

#include <pthread.h>
#include <time.h>

typedef struct handle *grip;

struct textbook {
        pthread_mutex_t lock;
        pthread_cond_t more;
        unsigned idle;
        struct handle *stack[];
};

static void *rival_open(unsigned handles)
{
        struct textbook *self = calloc(1, sizeof *self + handles * sizeof self->stack[0]);
        pthread_condattr_t monotonic;

        if (!self)
                return NULL;
        (void)pthread_mutex_init(&self->lock, NULL);
        (void)pthread_condattr_init(&monotonic);
        (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
        (void)pthread_cond_init(&self->more, &monotonic);
        while (self->idle < handles)
                self->stack[self->idle++] = handle_new();
        return self;
}

static inline bool rival_acquire(void *pool, grip *ret_grip)
{
        struct textbook *self = pool;

        (void)pthread_mutex_lock(&self->lock);
        while (self->idle == 0)
                (void)pthread_cond_wait(&self->more, &self->lock);
        *ret_grip = self->stack[--self->idle];
        (void)pthread_mutex_unlock(&self->lock);
        return true;
}

static inline bool rival_try(void *pool, grip *ret_grip)
{
        struct textbook *self = pool;
        bool is_there;

        (void)pthread_mutex_lock(&self->lock);
        is_there = self->idle > 0;
        if (is_there)
                *ret_grip = self->stack[--self->idle];
        (void)pthread_mutex_unlock(&self->lock);
        return is_there;
}

static inline bool rival_timed(void *pool, uint64_t timeout_ns, grip *ret_grip)
{
        struct textbook *self = pool;
        uint64_t deadline_ns = now_ns() + timeout_ns;
        struct timespec deadline = {(time_t)(deadline_ns / 1000000000u), (long)(deadline_ns % 1000000000u)};
        bool is_there;

        (void)pthread_mutex_lock(&self->lock);
        while (self->idle == 0)
                if (pthread_cond_timedwait(&self->more, &self->lock, &deadline))
                        break;
        is_there = self->idle > 0;
        if (is_there)
                *ret_grip = self->stack[--self->idle];
        (void)pthread_mutex_unlock(&self->lock);
        return is_there;
}

static inline void rival_release(void *pool, grip grip)
{
        struct textbook *self = pool;

        (void)pthread_mutex_lock(&self->lock);
        self->stack[self->idle++] = grip;
#ifdef RIVAL_LATE
        (void)pthread_mutex_unlock(&self->lock);
        (void)pthread_cond_signal(&self->more);
#else
        (void)pthread_cond_signal(&self->more);
        (void)pthread_mutex_unlock(&self->lock);
#endif
}

static inline struct handle *rival_handle(grip grip)
{
        return grip;
}

static void rival_close(void *pool)
{
        struct textbook *self = pool;

        while (self->idle > 0)
                free(self->stack[--self->idle]);
        (void)pthread_cond_destroy(&self->more);
        (void)pthread_mutex_destroy(&self->lock);
        free(self);
}

#include "bench/pools/load.h"
