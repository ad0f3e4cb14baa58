/* base/thread.h - threads of our own, and who the calling one is. */
#ifndef LIDO_BASE_THREAD_H
#define LIDO_BASE_THREAD_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

struct thread {
#ifdef LIDO_SIM
        int sim_number;
#else
        pthread_t native;
#endif
        void (*run)(void *argument);
        void *argument;
        char name[16];
};

/* Start a thread with every signal blocked. `name` is cut to 15 characters; a stack_size of 0 is the system's.
 * Owns: `thread` must live until thread_join. Returns: LIDO_OK; LIDO_ETHREAD. */
int thread_start(struct thread *thread, const char *name, size_t stack_size, void (*run)(void *), void *argument);

/* Wait for its end. */
void thread_join(struct thread *thread);

/* Is the calling thread this one? */
int thread_is_self(const struct thread *thread);

/* Let others run. */
void thread_yield(void);

/* What lido remembers of the calling thread. Only hints: nothing is to be cleaned up when it ends.
 * Reached in one instruction (initial-exec), also from a shared library; a coroutine's own under the model scheduler. */
#define THREAD_HINTS 8

/* The slot that this thread had last, of one pool, and the word that it has if nobody has touched it since. */
struct thread_hint {
        const void *owner; /* the pool; NULL: no hint */
        void *slot;
        uint64_t word;
        size_t index; /* where in `hint` it belongs */
};

struct thread_self {
        struct thread_hint latest; /* of the pool that this thread used last: found without a look at the pool */
        uint32_t id;               /* the kernel's, 0 before its first use */
        void *in_hook;             /* the pool one of whose hooks runs on this thread; NULL: none */
        void *last_notice;         /* the end of a queue of callbacks that wait for the one that runs; NULL: none runs */
        struct thread_hint hint[THREAD_HINTS]; /* of the others */
};

#ifdef LIDO_SIM
struct thread_self *thread_self(void);
uint32_t thread_id(void);
#else
extern _Thread_local struct thread_self thread_self_now __attribute__((tls_model("initial-exec"), visibility("hidden")));
uint32_t thread_id_slow(void);

static inline struct thread_self *thread_self(void)
{
        return &thread_self_now;
}

/* The kernel's id of the calling thread: one load after the first call. */
static inline uint32_t thread_id(void)
{
        uint32_t id = thread_self_now.id;

        return __builtin_expect(id != 0, 1) ? id : thread_id_slow();
}
#endif

#endif
