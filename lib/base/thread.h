/* base/thread.h - threads of our own, and who the calling one is. */
#ifndef LIDO_BASE_THREAD_H
#define LIDO_BASE_THREAD_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

struct thread {
        pthread_t native;
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

/* The kernel's id of the calling thread: one load after the first call. */
#ifdef LIDO_SIM
uint32_t thread_id(void);
#else
extern _Thread_local uint32_t thread_id_cache __attribute__((tls_model("initial-exec")));
uint32_t thread_id_slow(void);

static inline uint32_t thread_id(void)
{
        uint32_t id = thread_id_cache;

        return __builtin_expect(id != 0, 1) ? id : thread_id_slow();
}
#endif

#endif
