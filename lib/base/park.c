#include "base/park.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <time.h>

#include "base/clock.h"
#include "base/fork.h"
#include "lido/clock.h"

#if defined(__linux__) && !defined(LIDO_NO_FUTEX)
#define HAS_FUTEX 1

#include <linux/futex.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
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

static bool futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t deadline_ns)
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

static void futex_wake(_Atomic uint32_t *word, int count)
{
        syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

#endif

/* ---- condition variables ---------------------------------------------------------------------------------- */

/* Where there is no futex, and with a clock of the embedder's: the look at that clock and the sleep are one step to whoever takes
 * the lock between them, as `moved` does. Threads asleep on different words may share a bucket; a wake then wakes them all, and
 * those whose word is unchanged go back to sleep. Buckets are set up once, on the clock that the kernel's deadlines are on. */
#define BUCKETS 32 /* a fork holds them all, and tools that watch locks allow for some 60 */
struct bucket {
        pthread_mutex_t lock;
        pthread_cond_t cond;
};
static struct bucket buckets[BUCKETS];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void wake_bucket(struct bucket *bucket)
{
        pthread_mutex_lock(&bucket->lock);
        pthread_mutex_unlock(&bucket->lock);
        pthread_cond_broadcast(&bucket->cond);
}

static void moved(struct lido_clock_watch *watch)
{
        (void)watch;
        for (int i = 0; i < BUCKETS; i++)
                wake_bucket(&buckets[i]);
}

static void make_conds(void)
{
        pthread_condattr_t attributes;

        pthread_condattr_init(&attributes);
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        for (int i = 0; i < BUCKETS; i++)
                pthread_cond_init(&buckets[i].cond, &attributes);
        pthread_condattr_destroy(&attributes);
}

static void before_fork(void)
{
        for (int i = 0; i < BUCKETS; i++)
                pthread_mutex_lock(&buckets[i].lock);
}

static void after_fork(void)
{
        for (int i = 0; i < BUCKETS; i++)
                pthread_mutex_unlock(&buckets[i].lock);
}

/* Those asleep are not here, and a condition variable would wait for them. */
static void after_fork_in_child(void)
{
        make_conds();
        after_fork();
}

static void set_up(void)
{
        static struct lido_clock_watch watch = { .moved = moved };

        make_conds();
        for (int i = 0; i < BUCKETS; i++)
                pthread_mutex_init(&buckets[i].lock, NULL);
        fork_watch(before_fork, after_fork, after_fork_in_child);
        if (clock_is_theirs())
                lido_clock_watch(&watch);
}

static struct bucket *bucket_of(const void *word)
{
        pthread_once(&once, set_up);
        return &buckets[((uintptr_t)word >> 3) * 2654435761u % BUCKETS];
}

/* The lock of the bucket is held. Returns: false when the deadline has passed. */
static bool sleep_in(struct bucket *bucket, uint64_t deadline_ns)
{
        struct timespec t = { .tv_sec = (time_t)(deadline_ns / NS_PER_S), .tv_nsec = (long)(deadline_ns % NS_PER_S) };

        if (deadline_ns != CLOCK_NEVER && !clock_is_theirs())
                return pthread_cond_timedwait(&bucket->cond, &bucket->lock, &t) != ETIMEDOUT;
        if (deadline_ns != CLOCK_NEVER && clock_now_ns() >= deadline_ns)
                return false;
        pthread_cond_wait(&bucket->cond, &bucket->lock);
        return true;
}

static bool bucket_wait(_Atomic uint32_t *word, uint32_t value, uint64_t deadline_ns)
{
        struct bucket *bucket = bucket_of(word);
        bool is_in_time = true;

        pthread_mutex_lock(&bucket->lock);
        if (atomic_load_explicit(word, memory_order_acquire) == value)
                is_in_time = sleep_in(bucket, deadline_ns);
        pthread_mutex_unlock(&bucket->lock);
        return is_in_time;
}

/* ---- which of them ---------------------------------------------------------------------------------------- */

bool park_wait(_Atomic uint32_t *word, uint32_t value, uint64_t deadline_ns)
{
#ifdef HAS_FUTEX
        if (__builtin_expect(!clock_is_theirs(), 1))
                return futex_wait(word, value, deadline_ns);
#endif
        return bucket_wait(word, value, deadline_ns);
}

/* In a bucket the count is not used, for whom a signal would reach is not known. */
void park_wake(_Atomic uint32_t *word, int count)
{
#ifdef HAS_FUTEX
        if (__builtin_expect(!clock_is_theirs(), 1)) {
                futex_wake(word, count);
                return;
        }
#endif
        (void)count;
        wake_bucket(bucket_of(word));
}
