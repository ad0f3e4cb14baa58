/* bench/spike/spike.h - a burst that meets a pool with few objects open, and opening takes long: the last line of every
 * adapter.
 *
 * Five objects are idle, fifty threads come at once, each holds an object for 2 ms, an open takes 150 ms, and the pool may
 * open fifty. Twenty milliseconds of work for what is there; a pool that opens an object for each who waits has made
 * forty-five too many, and made most of them wait for those. (The setting is the one that HikariCP's authors published.)
 *
 *      PROGRAM         prints: name, milliseconds until all are done, longest wait in milliseconds, objects opened
 *
 * An adapter defines SPIKE_NAME, spike_open (a pool with SPIKE_IDLE objects, which it makes by spike_make),
 * spike_acquire, spike_release, and calls spike_make and nothing else for each object it opens.
 */
#ifndef BENCH_SPIKE_SPIKE_H
#define BENCH_SPIKE_SPIKE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define SPIKE_IDLE 5
#define SPIKE_THREADS 50
#define SPIKE_OPEN_NS 150000000
#define SPIKE_HOLD_NS 2000000

static _Atomic unsigned opened; /* begun, whether or not it is done */
static _Atomic bool is_cheap;   /* before the burst */
static pthread_barrier_t start;

static uint64_t now_ns(void)
{
        struct timespec now;

        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void take_ns(long ns)
{
        struct timespec time = {.tv_nsec = ns};

        (void)nanosleep(&time, NULL);
}

static void *spike_make(void)
{
        (void)atomic_fetch_add(&opened, 1);
        if (!atomic_load(&is_cheap))
                take_ns(SPIKE_OPEN_NS);
        return malloc(1);
}

static void *spike_open(void);
static void *spike_acquire(void *pool, void **ret_grip); /* the object; NULL: failed */
static void spike_release(void *pool, void *grip);

struct borrower {
        pthread_t thread;
        void *pool;
        uint64_t waited_ns;
        uint64_t done_ns;
};

static void *borrow(void *argument)
{
        struct borrower *self = argument;
        uint64_t asked_ns;
        void *grip[2];

        (void)pthread_barrier_wait(&start);
        asked_ns = now_ns();
        if (!spike_acquire(self->pool, grip)) {
                (void)fprintf(stderr, SPIKE_NAME ": an acquire failed\n");
                exit(1);
        }
        self->waited_ns = now_ns() - asked_ns;
        take_ns(SPIKE_HOLD_NS);
        spike_release(self->pool, grip);
        self->done_ns = now_ns();
        return NULL;
}

int main(void)
{
        static struct borrower borrower[SPIKE_THREADS];
        uint64_t began_ns, done_ns = 0, waited_ns = 0;
        void *pool;

        atomic_store(&is_cheap, true);
        pool = spike_open();
        if (!pool || atomic_load(&opened) != SPIKE_IDLE) {
                (void)fprintf(stderr, SPIKE_NAME ": the pool has %u objects\n", atomic_load(&opened));
                return 1;
        }
        atomic_store(&is_cheap, false);
        (void)pthread_barrier_init(&start, NULL, SPIKE_THREADS + 1);
        for (int i = 0; i < SPIKE_THREADS; i++) {
                borrower[i].pool = pool;
                if (pthread_create(&borrower[i].thread, NULL, borrow, &borrower[i]) != 0)
                        return 1;
        }
        (void)pthread_barrier_wait(&start);
        began_ns = now_ns();
        for (int i = 0; i < SPIKE_THREADS; i++) {
                (void)pthread_join(borrower[i].thread, NULL);
                done_ns = borrower[i].done_ns > done_ns ? borrower[i].done_ns : done_ns;
                waited_ns = borrower[i].waited_ns > waited_ns ? borrower[i].waited_ns : waited_ns;
        }
        take_ns(2 * SPIKE_OPEN_NS); /* what was begun is counted; whatever would begin late is too */
        (void)printf("%s\t%.1f\t%.1f\t%u\n", SPIKE_NAME, (double)(done_ns - began_ns) / 1e6, (double)waited_ns / 1e6,
                     atomic_load(&opened));
        return 0;
}

#endif
