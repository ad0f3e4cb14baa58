/* bench/spike/textbook.c - the pool that everybody writes first: who finds none idle opens one, while there is room. */
#define SPIKE_NAME "textbook"
#include "bench/spike/spike.h"

static struct {
        pthread_mutex_t lock;
        pthread_cond_t more;
        unsigned idle, live;
        void *stack[SPIKE_THREADS];
} book = {.lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER};

static void *spike_open(void)
{
        while (book.idle < SPIKE_IDLE)
                book.stack[book.idle++] = spike_make();
        book.live = book.idle;
        return &book;
}

static void *spike_acquire(void *pool, void **ret_grip)
{
        bool opens = false;

        (void)pool;
        (void)pthread_mutex_lock(&book.lock);
        while (book.idle == 0 && !opens) {
                opens = book.live < SPIKE_THREADS;
                if (opens)
                        book.live++;
                else
                        (void)pthread_cond_wait(&book.more, &book.lock);
        }
        if (!opens)
                *ret_grip = book.stack[--book.idle];
        (void)pthread_mutex_unlock(&book.lock);
        if (opens)
                *ret_grip = spike_make();
        return *ret_grip;
}

static void spike_release(void *pool, void *grip)
{
        (void)pool;
        (void)pthread_mutex_lock(&book.lock);
        book.stack[book.idle++] = *(void **)grip;
        (void)pthread_cond_signal(&book.more);
        (void)pthread_mutex_unlock(&book.lock);
}
