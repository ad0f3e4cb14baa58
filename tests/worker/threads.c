/* Workers: how many there are, who is woken, what is taken over, how they end. The lives of executors are in
 * executor.c. */
#include "worker/support.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>
#include <uv.h>

START_TEST(threads_grow_only_while_all_are_busy_and_then_jobs_queue)
{
        struct gate gate = GATE_INIT;
        struct held held[5];
        struct lido_workers *ws = workers_of(1, 3);

        for (int i = 0; i < 5; i++) {
                held[i] = held_by(&gate);
                must_submit(ws, &held[i]);
                if (i < 3)
                        gate_await(&gate, i + 1);
                ck_assert_uint_eq(stats_of(ws).threads, i < 3 ? (unsigned)i + 1 : 3);
        }
        ck_assert_uint_eq(stats_of(ws).queued, 2);
        gate_open(&gate);
        must_drain(ws);
        ck_assert_uint_eq(stats_of(ws).ran, 5);
        ck_assert_uint_eq(stats_of(ws).threads_peak, 3);
        must_shut_down(ws);
}
END_TEST

START_TEST(an_idle_thread_is_used_before_one_is_started)
{
        struct lido_workers *ws = workers_of(2, 8);

        await(stats_of(ws).idle == 2);
        for (int i = 0; i < 50; i++) {
                struct held held = held_by(NULL);

                must_submit(ws, &held);
                await(atomic_load(&held.dones) == 1);
                await(stats_of(ws).idle == 2);
        }
        ck_assert_uint_eq(stats_of(ws).started, 2);
        must_shut_down(ws);
}
END_TEST

START_TEST(a_burst_of_blocking_jobs_gets_a_thread_each)
{
        struct gate gate = GATE_INIT;
        struct held held[16];
        struct lido_workers *ws = workers_of(1, 16);

        for (int i = 0; i < 16; i++) {
                held[i] = held_by(&gate);
                must_submit(ws, &held[i]);
        }
        gate_await(&gate, 16);
        ck_assert_uint_eq(stats_of(ws).busy, 16);
        gate_open(&gate);
        must_drain(ws);
        must_shut_down(ws);
}
END_TEST

START_TEST(no_job_waits_behind_a_long_one_while_somebody_is_idle)
{
        struct gate gate = GATE_INIT;
        struct gate start = GATE_INIT;
        struct lido_workers *ws = workers_of(2, 2);
        struct held first[2], long_one = held_by(&gate), *many = calloc(200, sizeof *many);

        /* given: both are busy, and behind them a long job at the head of a queue that is taken several at a time */
        for (int i = 0; i < 2; i++) {
                first[i] = held_by(&start);
                must_submit(ws, &first[i]);
        }
        gate_await(&start, 2);
        must_submit(ws, &long_one);
        for (int i = 0; i < 200; i++) {
                many[i] = held_by(NULL);
                must_submit(ws, &many[i]);
        }
        /* when */
        gate_open(&start);
        /* then: all others are done while the long one is held */
        for (int i = 0; i < 200; i++)
                await(atomic_load(&many[i].dones) == 1);
        ck_assert_int_eq(atomic_load(&long_one.dones), 0);
        gate_open(&gate);
        must_drain(ws);
        must_shut_down(ws);
        free(many);
}
END_TEST

/* A job that keeps the queue from ever falling empty. */
struct endless {
        struct lido_job job;
        _Atomic bool *is_over;
        _Atomic long *runs;
};

static void go_on(struct lido_job *job)
{
        struct endless *endless = (struct endless *)(void *)job;

        atomic_fetch_add(endless->runs, 1);
        if (!atomic_load(endless->is_over))
                lido_submit(lido_workers_self(), job);
}

START_TEST(no_job_waits_behind_a_long_one_although_nobody_is_ever_idle)
{
        struct gate gate = GATE_INIT, start = GATE_INIT;
        struct lido_workers *ws = workers_of(2, 2);
        struct held first[2], long_one = held_by(&gate), many[20];
        struct endless endless[64];
        _Atomic bool is_over = false;
        _Atomic long runs = 0;

        /* given: a long job is taken together with others, and behind it is a queue without end */
        for (int i = 0; i < 2; i++) {
                first[i] = held_by(&start);
                must_submit(ws, &first[i]);
        }
        gate_await(&start, 2);
        must_submit(ws, &long_one);
        for (int i = 0; i < 20; i++) {
                many[i] = held_by(NULL);
                must_submit(ws, &many[i]);
        }
        for (int i = 0; i < 64; i++) {
                endless[i] = (struct endless){ { .run = go_on }, &is_over, &runs };
                ck_assert_int_eq(lido_submit(ws, &endless[i].job), LIDO_OK);
        }
        /* when */
        gate_open(&start);
        gate_await(&gate, 1);
        /* then */
        for (int i = 0; i < 20; i++)
                await(atomic_load(&many[i].dones) == 1);
        ck_assert_int_eq(atomic_load(&long_one.dones), 0);
        ck_assert_int_gt(atomic_load(&runs), 0);
        atomic_store(&is_over, true);
        gate_open(&gate);
        must_drain(ws);
        must_shut_down(ws);
}
END_TEST

START_TEST(threads_beyond_min_end_when_idle_and_those_of_min_stay)
{
        struct gate gate = GATE_INIT;
        struct held held[12];
        struct lido_workers_options options = of_threads(2, 12);
        struct lido_workers *ws;

        options.idle_timeout_ms = 30;
        ws = must_open(options);
        for (int i = 0; i < 12; i++) {
                held[i] = held_by(&gate);
                must_submit(ws, &held[i]);
        }
        gate_await(&gate, 12);
        gate_open(&gate);
        must_drain(ws);
        await(stats_of(ws).threads == 2);
        await(stats_of(ws).ended == 10);
        must_drain(ws);
        ck_assert_uint_eq(stats_of(ws).threads, 2);
        ck_assert_uint_eq(stats_of(ws).ran, 12);
        must_shut_down(ws);
}
END_TEST

/* How often the workers have gone to sleep and come back, as the kernel counts it. */
static long sleeps_of_workers(struct lido_workers *ws)
{
        uint32_t ids[8], count = 0;
        long sleeps = 0;

        lock_take(&ws->lock);
        list_for_each(link, &ws->all)
                ids[count++] = list_entry(link, struct lido_worker, link)->thread_id;
        lock_give(&ws->lock);
        for (uint32_t i = 0; i < count; i++) {
                char line[128];
                long number;
                FILE *file;

                snprintf(line, sizeof line, "/proc/self/task/%u/status", ids[i]);
                file = fopen(line, "r");
                ck_assert_ptr_nonnull(file);
                while (fgets(line, sizeof line, file))
                        if (sscanf(line, "voluntary_ctxt_switches: %ld", &number) == 1)
                                sleeps += number;
                fclose(file);
        }
        return sleeps;
}

START_TEST(idle_threads_make_no_wake_ups)
{
        struct lido_workers *ws = workers_of(4, 4);
        struct held held = held_by(NULL);
        long before;

        await(stats_of(ws).idle == 4);
        usleep(20000); /* until those that are idle by the lock are so by the kernel, too */
        before = sleeps_of_workers(ws);
        usleep(200000); /* the claim is about what happens while nothing happens */
        ck_assert_int_eq(sleeps_of_workers(ws), before);
        must_submit(ws, &held);
        await(atomic_load(&held.dones) == 1);
        await(stats_of(ws).idle == 4);
        await(sleeps_of_workers(ws) > before); /* so a wake-up would have been counted */
        must_shut_down(ws);
}
END_TEST

static _Atomic int starts, stops;

static void count_start(uint32_t worker, void *context)
{
        ck_assert_uint_ge(worker, 1);
        ck_assert_ptr_eq(context, &starts);
        atomic_fetch_add(&starts, 1);
}

static void count_stop(uint32_t worker, void *context)
{
        (void)worker;
        (void)context;
        atomic_fetch_add(&stops, 1);
}

START_TEST(hooks_run_once_on_each_thread)
{
        struct gate gate = GATE_INIT;
        struct held held[3];
        struct lido_workers_options options = of_threads(1, 3);
        struct lido_workers *ws;

        options.on_start = count_start;
        options.on_stop = count_stop;
        options.context = &starts;
        ws = must_open(options);
        for (int i = 0; i < 3; i++) {
                held[i] = held_by(&gate);
                must_submit(ws, &held[i]);
        }
        gate_await(&gate, 3);
        gate_open(&gate);
        must_drain(ws);
        must_shut_down(ws);
        ck_assert_int_eq(atomic_load(&starts), 3);
        ck_assert_int_eq(atomic_load(&stops), 3);
}
END_TEST

static char name_seen[16];
static size_t stack_seen;
static cpu_set_t cpus_seen;
static sigset_t signals_seen;

static void look_around(struct lido_job *job)
{
        pthread_attr_t attributes;
        void *address;

        (void)job;
        pthread_getname_np(pthread_self(), name_seen, sizeof name_seen);
        pthread_getattr_np(pthread_self(), &attributes);
        pthread_attr_getstack(&attributes, &address, &stack_seen);
        pthread_attr_destroy(&attributes);
        pthread_getaffinity_np(pthread_self(), sizeof cpus_seen, &cpus_seen);
        pthread_sigmask(SIG_SETMASK, NULL, &signals_seen);
}

START_TEST(a_thread_has_the_name_stack_cpus_and_blocked_signals_asked_for)
{
        struct lido_workers_options options = of_threads(1, 1);
        struct held held = held_by(NULL);
        struct lido_workers *ws;

        options.name = "resolver";
        options.stack_bytes = 512 * 1024;
        options.cpus = 1;
        ws = must_open(options);
        held.job.run = look_around;
        must_submit(ws, &held);
        must_drain(ws);
        ck_assert_str_eq(name_seen, "resolver-1");
        ck_assert_uint_ge(stack_seen, 512 * 1024 - 65536);
#ifndef __SANITIZE_THREAD__ /* it adds room for itself */
        ck_assert_uint_le(stack_seen, 512 * 1024 + 65536);
#endif
        ck_assert_int_eq(CPU_COUNT(&cpus_seen), 1);
        ck_assert(CPU_ISSET(0, &cpus_seen));
        ck_assert(sigismember(&signals_seen, SIGTERM));
        must_shut_down(ws);
}
END_TEST

struct blocking_job {
        struct held held;
        struct gate *inside;
};

static void block(struct lido_job *job)
{
        struct blocking_job *blocking = (struct blocking_job *)(void *)job;

        lido_blocking_begin();
        lido_blocking_begin();
        gate_pass(blocking->inside);
        lido_blocking_end();
        lido_blocking_end();
}

START_TEST(a_blocking_hint_lends_a_thread_and_takes_it_back)
{
        struct gate inside = GATE_INIT;
        struct blocking_job blocking = { held_by(NULL), &inside };
        struct held held = held_by(NULL);
        struct lido_workers *ws = workers_of(1, 1);

        /* given: the only thread blocks, and says so */
        blocking.held.job.run = block;
        must_submit(ws, &blocking.held);
        gate_await(&inside, 1);
        ck_assert_uint_eq(stats_of(ws).blocked, 1);
        /* when */
        must_submit(ws, &held);
        /* then */
        await(atomic_load(&held.dones) == 1);
        ck_assert_uint_eq(stats_of(ws).threads, 2);
        gate_open(&inside);
        must_drain(ws);
        ck_assert_uint_eq(stats_of(ws).blocked, 0);
        /* and the surplus thread goes when it next has to look */
        for (int i = 0; i < 2; i++) {
                struct held again = held_by(NULL);

                must_submit(ws, &again);
                must_drain(ws);
        }
        await(stats_of(ws).threads == 1);
        must_shut_down(ws);
}
END_TEST

START_TEST(blocking_hints_add_no_more_threads_than_their_limit)
{
        struct gate inside = GATE_INIT;
        struct blocking_job blocking[4];
        struct lido_workers_options options = of_threads(1, 1);
        struct lido_workers *ws;

        options.blocking_limit = 2;
        ws = must_open(options);
        for (int i = 0; i < 4; i++) {
                blocking[i] = (struct blocking_job){ held_by(NULL), &inside };
                blocking[i].held.job.run = block;
                must_submit(ws, &blocking[i].held);
        }
        gate_await(&inside, 3);
        ck_assert_uint_eq(stats_of(ws).threads, 3);
        ck_assert_uint_eq(stats_of(ws).queued, 1);
        gate_open(&inside);
        must_drain(ws);
        must_shut_down(ws);
}
END_TEST

static void forget_to_end(struct lido_job *job)
{
        (void)job;
        lido_blocking_begin();
}

START_TEST(a_hint_that_is_not_ended_ends_with_its_job)
{
        struct held held = held_by(NULL);
        struct lido_workers *ws = workers_of(1, 1);

        held.job.run = forget_to_end;
        must_submit(ws, &held);
        must_drain(ws);
        ck_assert_uint_eq(stats_of(ws).blocked, 0);
        must_shut_down(ws);
}
END_TEST

START_TEST(hints_outside_of_a_worker_are_harmless)
{
        lido_blocking_end();
        lido_blocking_begin();
        lido_blocking_end();
        ck_assert_ptr_null(lido_workers_self());
}
END_TEST

static void find_self(struct lido_job *job)
{
        struct held *held = (struct held *)(void *)job;

        atomic_store(&held->order, lido_workers_self() == (void *)held->gate);
}

START_TEST(a_job_knows_whose_thread_it_is_on)
{
        struct held held = held_by(NULL);
        struct lido_workers *ws = workers_of(1, 1);

        held.job.run = find_self;
        held.gate = (void *)ws;
        must_submit(ws, &held);
        must_drain(ws);
        ck_assert_int_eq(atomic_load(&held.order), 1);
        must_shut_down(ws);
}
END_TEST

START_TEST(a_lingering_worker_takes_what_comes_without_being_woken)
{
        struct lido_workers_options options = of_threads(1, 1);
        struct held held = held_by(NULL);
        struct lido_workers *ws;
        uint64_t woken;

        options.linger_us = 1000000;
        ws = must_open(options);
        must_submit(ws, &held);
        await(atomic_load(&held.dones) == 1);
        woken = stats_of(ws).woken;
        for (int i = 0; i < 100; i++) {
                struct held next = held_by(NULL);

                must_submit(ws, &next);
                await(atomic_load(&next.dones) == 1);
        }
        ck_assert_uint_eq(stats_of(ws).woken, woken);
        must_shut_down(ws);
}
END_TEST

START_TEST(a_lowered_max_ends_threads_and_a_raised_one_starts_them)
{
        struct gate gate = GATE_INIT;
        struct held held[4];
        struct lido_workers *ws = workers_of(1, 4);

        for (int i = 0; i < 4; i++) {
                held[i] = held_by(&gate);
                must_submit(ws, &held[i]);
        }
        gate_await(&gate, 4);
        ck_assert_int_eq(lido_workers_resize(ws, 2), LIDO_OK);
        gate_open(&gate);
        must_drain(ws);
        await(stats_of(ws).threads == 2);

        gate.is_open = false;
        gate.arrived = 0;
        for (int i = 0; i < 4; i++)
                must_submit(ws, &held[i]);
        gate_await(&gate, 2);
        ck_assert_int_eq(lido_workers_resize(ws, 4), LIDO_OK);
        gate_await(&gate, 4);
        gate_open(&gate);
        must_drain(ws);
        must_shut_down(ws);
}
END_TEST

static void end_the_thread(struct lido_job *job)
{
        (void)job;
        pthread_exit(NULL);
}

START_TEST(a_job_that_ends_its_thread_costs_the_thread_and_nothing_else)
{
        struct gate gate = GATE_INIT;
        struct held killer = held_by(NULL), *many = calloc(64, sizeof *many), first = held_by(&gate);
        struct lido_workers *ws = workers_of(1, 1);

        killer.job.run = end_the_thread;
        must_submit(ws, &first);
        gate_await(&gate, 1);
        must_submit(ws, &killer);
        for (int i = 0; i < 64; i++) {
                many[i] = held_by(NULL);
                must_submit(ws, &many[i]);
        }
        gate_open(&gate);
        for (int i = 0; i < 64; i++)
                await(atomic_load(&many[i].dones) == 1);
        ck_assert_int_eq(atomic_load(&killer.dones), 1);
        must_drain(ws);
        ck_assert_uint_eq(stats_of(ws).threads, 1);
        must_shut_down(ws);
        free(many);
}
END_TEST

struct uv_held {
        uv_work_t work;
        struct gate *gate;
};

static void uv_held_run(uv_work_t *work)
{
        gate_pass(((struct uv_held *)(void *)work)->gate);
}

START_TEST(jobs_run_while_libuvs_own_threads_are_all_busy)
{
        enum { MORE_THAN_LIBUV_HAS = 32 };
        static struct uv_held busy[MORE_THAN_LIBUV_HAS];
        struct held job = held_by(NULL);
        struct gate gate = GATE_INIT;
        struct lido_workers *ws = workers_of(1, 1);
        uv_loop_t uv;

        ck_assert_int_eq(uv_loop_init(&uv), 0);
        for (int i = 0; i < MORE_THAN_LIBUV_HAS; i++) {
                busy[i].gate = &gate;
                ck_assert_int_eq(uv_queue_work(&uv, &busy[i].work, uv_held_run, NULL), 0);
        }
        gate_await(&gate, 1);
        must_submit(ws, &job);
        must_drain(ws);
        ck_assert_int_eq(job.runs, 1);
        ck_assert_int_eq(gate.passed, 0);
        gate_open(&gate);
        uv_run(&uv, UV_RUN_DEFAULT);
        ck_assert_int_eq(uv_loop_close(&uv), 0);
        must_shut_down(ws);
}
END_TEST

int main(void)
{
        return suite_run("worker/threads", (const TTest *[]){
                                                   threads_grow_only_while_all_are_busy_and_then_jobs_queue,
                                                   an_idle_thread_is_used_before_one_is_started,
                                                   a_burst_of_blocking_jobs_gets_a_thread_each,
                                                   no_job_waits_behind_a_long_one_while_somebody_is_idle,
                                                   no_job_waits_behind_a_long_one_although_nobody_is_ever_idle,
                                                   threads_beyond_min_end_when_idle_and_those_of_min_stay,
                                                   idle_threads_make_no_wake_ups,
                                                   hooks_run_once_on_each_thread,
                                                   a_thread_has_the_name_stack_cpus_and_blocked_signals_asked_for,
                                                   a_blocking_hint_lends_a_thread_and_takes_it_back,
                                                   blocking_hints_add_no_more_threads_than_their_limit,
                                                   a_hint_that_is_not_ended_ends_with_its_job,
                                                   hints_outside_of_a_worker_are_harmless,
                                                   a_job_knows_whose_thread_it_is_on,
                                                   a_lingering_worker_takes_what_comes_without_being_woken,
                                                   a_lowered_max_ends_threads_and_a_raised_one_starts_them,
                                                   a_job_that_ends_its_thread_costs_the_thread_and_nothing_else,
                                                   jobs_run_while_libuvs_own_threads_are_all_busy,
                                                   NULL,
                                           });
}
