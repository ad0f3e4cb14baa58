/* bench/pools/ck_stack.c - Concurrency Kit's lock-free stack. It cannot wait: a borrower polls.
 *
 * With RIVAL_SEMAPHORE a POSIX semaphore counts the idle handles, and the pool can wait.
 */
#ifdef RIVAL_SEMAPHORE
#define RIVAL_NAME "sem+ck_stack"
#else
#define RIVAL_NAME "ck_stack"
#define RIVAL_SEMAPHORE 0
#endif
#define RIVAL_WAITS RIVAL_SEMAPHORE
#define RIVAL_TRIES 1
#define RIVAL_TIMES RIVAL_SEMAPHORE
#define RIVAL_COUNTS 1

#include "bench/pools/rival.h"

#include <ck_stack.h>
#include <errno.h>
#include <semaphore.h>
#include <time.h>

typedef struct handle *grip;

struct stack {
        ck_stack_t idle __attribute__((aligned(128)));
        sem_t count __attribute__((aligned(128)));
};

CK_STACK_CONTAINER(struct handle, link, handle_of)

static void *rival_open(unsigned handles)
{
        struct stack *self = aligned_alloc(128, sizeof *self);

        if (!self)
                return NULL;
        ck_stack_init(&self->idle);
        (void)sem_init(&self->count, 0, handles);
        while (handles--)
                ck_stack_push_mpmc(&self->idle, (ck_stack_entry_t *)handle_new()->link);
        return self;
}

#if RIVAL_SEMAPHORE

/* Whoever has got past the semaphore finds a handle. */
static inline bool rival_acquire(void *pool, grip *ret_grip)
{
        struct stack *self = pool;

        while (sem_wait(&self->count))
                continue;
        *ret_grip = handle_of(ck_stack_pop_mpmc(&self->idle));
        return true;
}

static inline bool rival_try(void *pool, grip *ret_grip)
{
        struct stack *self = pool;

        if (sem_trywait(&self->count))
                return false;
        *ret_grip = handle_of(ck_stack_pop_mpmc(&self->idle));
        return true;
}

static inline bool rival_timed(void *pool, uint64_t timeout_ns, grip *ret_grip)
{
        struct stack *self = pool;
        uint64_t deadline_ns = now_ns() + timeout_ns;
        struct timespec deadline = {(time_t)(deadline_ns / 1000000000u), (long)(deadline_ns % 1000000000u)};

        while (sem_clockwait(&self->count, CLOCK_MONOTONIC, &deadline))
                if (errno != EINTR)
                        return false;
        *ret_grip = handle_of(ck_stack_pop_mpmc(&self->idle));
        return true;
}

#else

static inline bool rival_try(void *pool, grip *ret_grip)
{
        struct stack *self = pool;
        ck_stack_entry_t *entry = ck_stack_pop_mpmc(&self->idle);

        if (entry)
                *ret_grip = handle_of(entry);
        return entry != NULL;
}

#endif

static inline void rival_release(void *pool, grip grip)
{
        struct stack *self = pool;

        ck_stack_push_mpmc(&self->idle, (ck_stack_entry_t *)grip->link);
        if (RIVAL_SEMAPHORE)
                (void)sem_post(&self->count);
}

static inline struct handle *rival_handle(grip grip)
{
        return grip;
}

static void rival_close(void *pool)
{
        struct stack *self = pool;
        ck_stack_entry_t *entry;

        while ((entry = ck_stack_pop_mpmc(&self->idle)) != NULL)
                free(handle_of(entry));
        (void)sem_destroy(&self->count);
        free(self);
}

#include "bench/pools/load.h"
