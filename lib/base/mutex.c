#include "base/mutex.h"

#include "base/assert.h"

/* A normal pthread mutex can only fail by misuse, which is a broken invariant of ours. */

void mutex_init(struct mutex *mutex)
{
        int rc = pthread_mutex_init(&mutex->native, NULL);

        lido_assert(rc == 0);
}

void mutex_fini(struct mutex *mutex)
{
        int rc = pthread_mutex_destroy(&mutex->native);

        lido_assert(rc == 0);
}

void mutex_lock(struct mutex *mutex) NO_THREAD_SAFETY
{
        int rc = pthread_mutex_lock(&mutex->native);

        lido_assert(rc == 0);
}

void mutex_unlock(struct mutex *mutex) NO_THREAD_SAFETY
{
        int rc = pthread_mutex_unlock(&mutex->native);

        lido_assert(rc == 0);
}
