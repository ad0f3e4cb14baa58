/* base/mutex.h - a lock, with the annotations by which `clang -Wthread-safety` checks who holds it.
 *
 * Locks of lido never nest, no user code runs under one, and nobody is woken under one.
 */
#ifndef LIDO_BASE_MUTEX_H
#define LIDO_BASE_MUTEX_H

#include <pthread.h>
#include <stdint.h>

#if defined(__clang__)
#define LIDO_THREAD_SAFETY(x) __attribute__((x))
#else
#define LIDO_THREAD_SAFETY(x)
#endif
#define CAPABILITY(name) LIDO_THREAD_SAFETY(capability(name))
#define ACQUIRES(...) LIDO_THREAD_SAFETY(acquire_capability(__VA_ARGS__))
#define RELEASES(...) LIDO_THREAD_SAFETY(release_capability(__VA_ARGS__))
#define REQUIRES(...) LIDO_THREAD_SAFETY(requires_capability(__VA_ARGS__))
#define NO_THREAD_SAFETY LIDO_THREAD_SAFETY(no_thread_safety_analysis)

struct CAPABILITY("mutex") mutex {
#ifdef LIDO_SIM
        void *sim_owner;
        uint64_t sim_run; /* the run of the scheduler in which the owner is one */
#else
        pthread_mutex_t native;
#endif
};

#ifdef LIDO_SIM
#define MUTEX_INIT                                                                                             \
        {                                                                                                      \
                0, 0                                                                                           \
        }
#else
#define MUTEX_INIT                                                                                             \
        {                                                                                                      \
                PTHREAD_MUTEX_INITIALIZER                                                                      \
        }
#endif

void mutex_init(struct mutex *mutex);
void mutex_fini(struct mutex *mutex);
void mutex_lock(struct mutex *mutex) ACQUIRES(*mutex);
void mutex_unlock(struct mutex *mutex) RELEASES(*mutex);

#endif
