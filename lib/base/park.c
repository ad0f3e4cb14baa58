#include "base/park.h"

#include "base/clock.h"

#if defined(__linux__) && !defined(LIDO_NO_FUTEX)

#include <errno.h>
#include <linux/futex.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The kernel may add 50 us of timer slack to a timed wait to save wake-ups. For a wait shorter than this the lateness
 * would show, so the slack is taken away around it: two calls of 0.2 us for some 50 us. */
#define SHORT_WAIT_NS (10 * NS_PER_MS)

static bool wait_until(_Atomic uint32_t *word, uint32_t value, uint64_t deadline_ns)
{
        struct timespec t = { .tv_sec = (time_t)(deadline_ns / NS_PER_S), .tv_nsec = (long)(deadline_ns % NS_PER_S) };
        const struct timespec *limit = deadline_ns == CLOCK_NEVER ? NULL : &t;
        long rc = syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, value, limit, NULL, FUTEX_BITSET_MATCH_ANY);

        return !(rc == -1 && errno == ETIMEDOUT);
}

bool park_wait(_Atomic uint32_t *word, uint32_t value, uint64_t deadline_ns)
{
        uint64_t now;
        long slack;
        bool woken;

        if (deadline_ns == CLOCK_NEVER)
                return wait_until(word, value, deadline_ns);
        now = clock_now_ns();
        if (now >= deadline_ns)
                return false;
        if (deadline_ns - now > SHORT_WAIT_NS)
                return wait_until(word, value, deadline_ns);
        slack = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
        if (slack > 1)
                prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
        woken = wait_until(word, value, deadline_ns);
        if (slack > 1)
                prctl(PR_SET_TIMERSLACK, slack, 0, 0, 0);
        return woken;
}

void park_wake(_Atomic uint32_t *word, int count)
{
        syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

#else

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <time.h>

/* Threads asleep on different words may share a bucket; a wake then wakes them all, and those whose word is unchanged
 * go back to sleep. Buckets are set up once, on the clock that deadlines are on. */
#define BUCKETS 64
struct bucket {
        pthread_mutex_t lock;
        pthread_cond_t cond;
};
static struct bucket buckets[BUCKETS];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void set_up(void)
{
        pthread_condattr_t attributes;

        pthread_condattr_init(&attributes);
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        for (int i = 0; i < BUCKETS; i++) {
                pthread_mutex_init(&buckets[i].lock, NULL);
                pthread_cond_init(&buckets[i].cond, &attributes);
        }
        pthread_condattr_destroy(&attributes);
}

static struct bucket *bucket_of(const void *word)
{
        pthread_once(&once, set_up);
        return &buckets[((uintptr_t)word >> 3) * 2654435761u % BUCKETS];
}

bool park_wait(_Atomic uint32_t *word, uint32_t value, uint64_t deadline_ns)
{
        struct bucket *bucket = bucket_of(word);
        struct timespec t = { .tv_sec = (time_t)(deadline_ns / NS_PER_S), .tv_nsec = (long)(deadline_ns % NS_PER_S) };
        int rc = 0;

        pthread_mutex_lock(&bucket->lock);
        if (atomic_load_explicit(word, memory_order_acquire) == value) {
                if (deadline_ns == CLOCK_NEVER)
                        rc = pthread_cond_wait(&bucket->cond, &bucket->lock);
                else
                        rc = pthread_cond_timedwait(&bucket->cond, &bucket->lock, &t);
        }
        pthread_mutex_unlock(&bucket->lock);
        return rc != ETIMEDOUT;
}

void park_wake(_Atomic uint32_t *word, int count)
{
        struct bucket *bucket = bucket_of(word);

        (void)count; /* whom a signal would reach is not known, for buckets are shared */
        pthread_mutex_lock(&bucket->lock);
        pthread_mutex_unlock(&bucket->lock);
        pthread_cond_broadcast(&bucket->cond);
}

#endif
