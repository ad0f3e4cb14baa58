/* tests/worker/support.h - gates that hold jobs at a point, and executors to hold them in. */
#ifndef LIDO_TESTS_WORKER_SUPPORT_H
#define LIDO_TESTS_WORKER_SUPPORT_H

#include "support/suite.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "worker/executor.h"

/* Jobs arrive at a gate and wait until it is open. */
struct gate {
        pthread_mutex_t lock;
        pthread_cond_t changed;
        int arrived;
        int passed;
        bool is_open;
};
#define GATE_INIT                                                                                              \
        {                                                                                                      \
                .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER                         \
        }

static inline void gate_pass(struct gate *gate)
{
        pthread_mutex_lock(&gate->lock);
        gate->arrived++;
        pthread_cond_broadcast(&gate->changed);
        while (!gate->is_open)
                pthread_cond_wait(&gate->changed, &gate->lock);
        gate->passed++;
        pthread_cond_broadcast(&gate->changed);
        pthread_mutex_unlock(&gate->lock);
}

/* Wait until so many have arrived. */
static inline void gate_await(struct gate *gate, int arrived)
{
        pthread_mutex_lock(&gate->lock);
        while (gate->arrived < arrived)
                pthread_cond_wait(&gate->changed, &gate->lock);
        pthread_mutex_unlock(&gate->lock);
}

static inline void gate_open(struct gate *gate)
{
        pthread_mutex_lock(&gate->lock);
        gate->is_open = true;
        pthread_cond_broadcast(&gate->changed);
        pthread_mutex_unlock(&gate->lock);
}

/* A job that is held by a gate, and notes what becomes of it. */
struct held {
        struct lido_job job;
        struct gate *gate;       /* NULL: it does not wait */
        _Atomic int runs, dones; /* how often each was called */
        _Atomic int status;      /* of done */
        _Atomic int order;       /* the how manieth to run, from 1 */
        _Atomic int was_asked_to_stop;
        _Atomic uint32_t thread; /* that ran it */
};

static _Atomic int held_order;

static inline void held_run(struct lido_job *job)
{
        struct held *held = (struct held *)(void *)job;

        atomic_store(&held->order, atomic_fetch_add(&held_order, 1) + 1);
        atomic_store(&held->thread, thread_id());
        if (held->gate)
                gate_pass(held->gate);
        atomic_store(&held->was_asked_to_stop, lido_job_is_cancelled(job));
        atomic_fetch_add(&held->runs, 1);
}

static inline void held_done(struct lido_job *job, int status)
{
        struct held *held = (struct held *)(void *)job;

        atomic_store(&held->status, status);
        atomic_fetch_add(&held->dones, 1);
}

static inline struct held held_by(struct gate *gate)
{
        struct held held;

        memset(&held, 0, sizeof held);
        held.job.run = held_run;
        held.job.done = held_done;
        held.gate = gate;
        held.status = 1;
        return held;
}

static inline struct lido_workers_options of_threads(uint32_t min, uint32_t max)
{
        struct lido_workers_options options = LIDO_WORKERS_OPTIONS_INIT;

        options.min = min;
        options.max = max;
        return options;
}

static inline struct lido_workers *must_open(struct lido_workers_options options)
{
        struct lido_workers *ws;

        ck_assert_int_eq(lido_workers_open(&ws, &options), LIDO_OK);
        return ws;
}

static inline struct lido_workers *workers_of(uint32_t min, uint32_t max)
{
        return must_open(of_threads(min, max));
}

static inline void must_submit(struct lido_workers *ws, struct held *held)
{
        ck_assert_int_eq(lido_submit(ws, &held->job), LIDO_OK);
}

static inline void must_drain(struct lido_workers *ws)
{
        ck_assert_int_eq(lido_workers_drain(ws, 10000), LIDO_OK);
        executor_check(ws);
}

static inline void must_shut_down(struct lido_workers *ws)
{
        executor_check(ws);
        ck_assert_int_eq(lido_workers_shutdown(ws, 10000), LIDO_OK);
}

static inline struct lido_worker_stats stats_of(struct lido_workers *ws)
{
        struct lido_worker_stats stats = LIDO_WORKER_STATS_INIT;

        ck_assert_int_eq(lido_workers_stats(ws, &stats), LIDO_OK);
        return stats;
}

/* Wait until `condition` holds, for at most ten seconds. */
#define await(condition)                                                                                       \
        do {                                                                                                   \
                uint64_t await_end = clock_now_ns() + 10 * NS_PER_S;                                           \
                while (!(condition) && clock_now_ns() < await_end)                                             \
                        thread_yield();                                                                        \
                ck_assert(condition);                                                                          \
        } while (0)

#endif
