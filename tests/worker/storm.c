/* The storm: threads that submit, cancel, delay, group, borrow and resize at random, while invariants are checked.
 * Every job accepted must end exactly once: run and told, told without being run, or cancelled.
 *
 * LIDO_STORM_SEED repeats a storm (as far as the scheduler lets it), LIDO_STORM_MS makes it longer.
 */
#include "worker/support.h"

#include <stdio.h>

#include "base/random.h"

enum { STORMERS = 4, JOBS = 64 };

struct drop {
        struct lido_job job;
        _Atomic int is_pending;
        struct stormer *stormer;
        uint32_t work;
};

struct stormer {
        pthread_t thread;
        struct random random;
        struct drop drops[JOBS];
        struct lido_group group;
        uint64_t accepted, cancelled;
        _Atomic uint64_t ran, told_ok, told_otherwise;
};

static struct lido_workers *ws;
static struct stormer stormers[STORMERS];
static uint64_t until;

static uint32_t dice(struct stormer *s, uint32_t sides)
{
        return (uint32_t)random_below(&s->random, sides);
}

static void fall(struct lido_job *job)
{
        struct drop *drop = (struct drop *)(void *)job;
        uint32_t work = drop->work;

        atomic_fetch_add(&drop->stormer->ran, 1);
        if (work % 64 == 0)
                lido_blocking_begin();
        if (work % 16 == 0)
                thread_yield();
        for (uint32_t i = 0; i < work && !lido_job_is_cancelled(job); i++)
                cpu_relax();
        /* a hint that is not ended is the library's to end */
}

static void fallen(struct lido_job *job, int status)
{
        struct drop *drop = (struct drop *)(void *)job;

        if (status == LIDO_OK)
                atomic_fetch_add(&drop->stormer->told_ok, 1);
        else
                atomic_fetch_add(&drop->stormer->told_otherwise, 1);
        atomic_store(&drop->is_pending, 0);
}

static void submit_one(struct stormer *s, struct drop *drop)
{
        int rc;

        drop->job.run = fall;
        drop->job.done = fallen;
        drop->job.priority = (uint16_t)dice(s, 3);
        drop->job.group = dice(s, 4) == 0 ? &s->group : NULL;
        drop->work = dice(s, 8) == 0 ? dice(s, 2000) : dice(s, 20);
        drop->stormer = s;
        atomic_store(&drop->is_pending, 1);
        if (dice(s, 10) == 0)
                rc = lido_submit_after(ws, &drop->job, dice(s, 3));
        else
                rc = lido_submit(ws, &drop->job);
        if (rc == LIDO_OK)
                s->accepted++;
        else
                atomic_store(&drop->is_pending, 0);
        ck_assert(rc == LIDO_OK || rc == LIDO_EQUEUEFULL || rc == LIDO_ETIMEDOUT);
}

/* Only this thread submits the drop, so its memory is a job's for as long as it takes. */
static void cancel_one(struct stormer *s, struct drop *drop)
{
        int rc = lido_job_cancel(&drop->job);

        if (rc == LIDO_OK) {
                s->cancelled++;
                atomic_store(&drop->is_pending, 0);
        }
        ck_assert(rc == LIDO_OK || rc == LIDO_EBUSY || rc == LIDO_EINVAL);
}

static void borrow_one(struct stormer *s)
{
        struct held held = held_by(NULL);
        lido_thread thread;

        if (lido_thread_acquire(ws, dice(s, 3), &thread) != LIDO_OK)
                return;
        ck_assert_int_eq(lido_thread_run(thread, &held.job), LIDO_OK);
        if (dice(s, 2))
                while (atomic_load(&held.dones) == 0)
                        thread_yield();
        ck_assert_int_eq(lido_thread_release(thread), LIDO_OK);
        while (atomic_load(&held.dones) == 0)
                thread_yield();
}

static void group_one(struct stormer *s)
{
        if (dice(s, 2))
                lido_group_cancel(&s->group);
        ck_assert_int_eq(lido_group_wait(&s->group, LIDO_NEVER), LIDO_OK);
        ck_assert_int_eq(lido_group_init(&s->group, ws), LIDO_OK);
}

static void *storm(void *argument)
{
        struct stormer *s = argument;

        do
                for (int i = 0; i < 200; i++) {
                        struct drop *drop = &s->drops[dice(s, JOBS)];
                        uint32_t what = dice(s, 1000);

                        if (what < 3)
                                borrow_one(s);
                        else if (what < 6)
                                group_one(s);
                        else if (what < 8)
                                executor_check(ws);
                        else if (what < 9)
                                lido_workers_resize(ws, 2 + dice(s, 4));
                        else if (!atomic_load(&drop->is_pending))
                                submit_one(s, drop);
                        else if (what < 200)
                                cancel_one(s, drop);
                }
        while (clock_now_ns() < until);
        group_one(s);
        for (int i = 0; i < JOBS; i++)
                while (atomic_load(&s->drops[i].is_pending))
                        thread_yield();
        return NULL;
}

static void storm_with(struct lido_workers_options options)
{
        const char *seed_text = getenv("LIDO_STORM_SEED"), *ms_text = getenv("LIDO_STORM_MS");
        uint64_t ran = 0;
        uint64_t seed = seed_text ? strtoull(seed_text, NULL, 0) : random_seed();

        printf("storm: LIDO_STORM_SEED=%llu\n", (unsigned long long)seed);
        fflush(stdout);
        options.idle_timeout_ms = 3;
        options.stuck_after_ms = 50;
        ws = must_open(options);
        until = clock_now_ns() + (ms_text ? strtoull(ms_text, NULL, 0) : 200) * NS_PER_MS;
        for (int i = 0; i < STORMERS; i++) {
                struct stormer *s = &stormers[i];

                memset(s, 0, sizeof *s);
                s->random.state = seed + (uint64_t)i;
                ck_assert_int_eq(lido_group_init(&s->group, ws), LIDO_OK);
                pthread_create(&s->thread, NULL, storm, s);
        }
        for (int i = 0; i < STORMERS; i++) {
                struct stormer *s = &stormers[i];

                pthread_join(s->thread, NULL);
                ck_assert_uint_eq(s->accepted, s->cancelled + s->told_ok + s->told_otherwise);
                ck_assert_uint_eq(s->ran, s->told_ok);
                ran += s->ran;
        }
        ck_assert_uint_gt(ran, 0);
        must_drain(ws);
        ck_assert_uint_eq(stats_of(ws).queued + stats_of(ws).delayed + stats_of(ws).lent, 0);
        must_shut_down(ws);
}

START_TEST(in_a_storm_every_job_ends_once)
{
        storm_with(of_threads(1, 4));
}
END_TEST

START_TEST(in_a_storm_over_a_queue_that_drops_every_job_ends_once)
{
        struct lido_workers_options options = of_threads(2, 3);

        options.queue_limit = 5;
        options.queue_policy = LIDO_QUEUE_DROP_OLDEST;
        storm_with(options);
}
END_TEST

START_TEST(in_a_storm_over_a_queue_with_a_line_every_job_ends_once)
{
        struct lido_workers_options options = of_threads(1, 2);

        options.queue_limit = 3;
        options.queue_policy = LIDO_QUEUE_WAIT;
        options.queue_timeout_ms = 1;
        storm_with(options);
}
END_TEST

START_TEST(in_a_storm_over_a_queue_whose_callers_run_every_job_ends_once)
{
        struct lido_workers_options options = of_threads(1, 2);

        options.queue_limit = 3;
        options.queue_policy = LIDO_QUEUE_CALLER_RUNS;
        options.linger_us = 20;
        storm_with(options);
}
END_TEST

START_TEST(in_a_storm_with_an_overload_rule_every_job_ends_once)
{
        struct lido_workers_options options = of_threads(1, 2);

        options.codel_target_ms = 1;
        options.codel_interval_ms = 2;
        options.linger_us = 5;
        storm_with(options);
}
END_TEST

int main(void)
{
        return suite_run("worker/storm", (const TTest *[]){
                                                 in_a_storm_every_job_ends_once,
                                                 in_a_storm_over_a_queue_that_drops_every_job_ends_once,
                                                 in_a_storm_over_a_queue_with_a_line_every_job_ends_once,
                                                 in_a_storm_over_a_queue_whose_callers_run_every_job_ends_once,
                                                 in_a_storm_with_an_overload_rule_every_job_ends_once,
                                                 NULL,
                                         });
}
