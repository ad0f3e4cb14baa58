/* The life of an executor: options, drain, close, shutdown. */
#include "worker/support.h"


static struct lido_worker_event events[8];
static _Atomic int event_count;

static void note(const struct lido_worker_event *event, void *context)
{
        (void)context;
        if (event_count < 8)
                events[event_count++] = *event;
}

static int open_rc(struct lido_workers_options options)
{
        struct lido_workers *ws;
        int rc = lido_workers_open(&ws, &options);

        if (rc == LIDO_OK)
                must_shut_down(ws);
        return rc;
}

START_TEST(defaults_are_one_to_four_threads)
{
        struct lido_workers *ws;

        ck_assert_int_eq(lido_workers_open(&ws, NULL), LIDO_OK);
        ck_assert_uint_eq(ws->options.min, 1);
        ck_assert_uint_eq(ws->max, 4);
        ck_assert_uint_eq(stats_of(ws).threads, 1);
        must_shut_down(ws);
}
END_TEST

#define REFUSED(field, value)                                                                                  \
        do {                                                                                                   \
                struct lido_workers_options options = of_threads(1, 2);                                        \
                options.field = value;                                                                         \
                ck_assert_int_eq(open_rc(options), LIDO_EINVAL);                                               \
        } while (0)

#define TAKEN(field, value)                                                                                    \
        do {                                                                                                   \
                struct lido_workers_options options = of_threads(1, 2);                                        \
                options.field = value;                                                                         \
                ck_assert_int_eq(open_rc(options), LIDO_OK);                                                   \
        } while (0)

START_TEST(options_out_of_range_are_refused)
{
        REFUSED(min, 3);
        REFUSED(max, 70000);
        REFUSED(blocking_limit, 70000);
        REFUSED(lease_limit, 3);
        REFUSED(idle_timeout_ms, -2);
        REFUSED(queue_policy, 4);
        REFUSED(queue_policy, -1);
        REFUSED(queue_timeout_ms, -2);
        REFUSED(codel_target_ms, -2);
        REFUSED(codel_interval_ms, -1);
        REFUSED(stuck_after_ms, -2);
        REFUSED(backtrace_signal, -1);
        REFUSED(backtrace_signal, 9);
        REFUSED(reserved, 1);
        TAKEN(min, 2);
        TAKEN(idle_timeout_ms, LIDO_NEVER);
        TAKEN(queue_policy, LIDO_QUEUE_WAIT);
        TAKEN(stuck_after_ms, INT64_MAX);
        TAKEN(name, "a name that is far too long for a thread");
        ck_assert_int_eq(lido_workers_open(NULL, NULL), LIDO_EINVAL);
}
END_TEST

START_TEST(a_newer_callers_option_is_refused_and_an_older_callers_struct_is_taken)
{
        struct {
                struct lido_workers_options options;
                uint64_t more;
        } newer = { .options = of_threads(1, 1), .more = 1 };
        struct lido_workers_options older = LIDO_WORKERS_OPTIONS_INIT;
        struct lido_workers *ws;

        newer.options.size = sizeof newer;
        ck_assert_int_eq(lido_workers_open(&ws, &newer.options), LIDO_E2NEW);
        older.size = offsetof(struct lido_workers_options, max);
        older.max = 70000; /* beyond its end */
        ck_assert_int_eq(open_rc(older), LIDO_OK);
}
END_TEST

START_TEST(drain_waits_for_what_is_queued_and_what_runs)
{
        struct gate gate = GATE_INIT;
        struct held held[3];
        struct lido_workers *ws = workers_of(1, 2);

        for (int i = 0; i < 3; i++) {
                held[i] = held_by(&gate);
                must_submit(ws, &held[i]);
        }
        ck_assert_int_eq(lido_workers_drain(ws, 10), LIDO_ETIMEDOUT);
        gate_open(&gate);
        ck_assert_int_eq(lido_workers_drain(ws, 5000), LIDO_OK);
        for (int i = 0; i < 3; i++)
                ck_assert_int_eq(held[i].dones, 1);
        ck_assert_int_eq(lido_workers_drain(ws, -3), LIDO_EINVAL);
        ck_assert_int_eq(lido_workers_drain(NULL, 0), LIDO_EINVAL);
        must_shut_down(ws);
}
END_TEST

static _Atomic int inside_rc[2];

static void wait_for_myself(struct lido_job *job)
{
        (void)job;
        inside_rc[0] = lido_workers_drain(lido_workers_self(), LIDO_NEVER);
        inside_rc[1] = lido_workers_shutdown(lido_workers_self(), LIDO_NEVER);
}

START_TEST(a_worker_cannot_wait_for_its_own_executor)
{
        struct lido_workers *ws = workers_of(1, 1);
        struct held held = held_by(NULL);

        held.job.run = wait_for_myself;
        must_submit(ws, &held);
        must_drain(ws);
        ck_assert_int_eq(inside_rc[0], LIDO_EDEADLK);
        ck_assert_int_eq(inside_rc[1], LIDO_EDEADLK);
        must_shut_down(ws);
}
END_TEST

START_TEST(a_closed_executor_refuses_and_runs_what_it_has)
{
        struct gate gate = GATE_INIT;
        struct held held[2] = { held_by(&gate), held_by(NULL) }, late = held_by(NULL);
        struct lido_workers *ws = workers_of(1, 1);

        must_submit(ws, &held[0]);
        must_submit(ws, &held[1]);
        ck_assert_int_eq(lido_workers_close(ws), LIDO_OK);
        ck_assert_int_eq(lido_workers_close(ws), LIDO_OK);
        ck_assert_int_eq(lido_submit(ws, &late.job), LIDO_ECLOSED);
        ck_assert_int_eq(lido_submit_after(ws, &late.job, 1), LIDO_ECLOSED);
        gate_open(&gate);
        must_shut_down(ws);
        ck_assert_int_eq(held[1].runs, 1);
        ck_assert_int_eq(late.runs + late.dones, 0);
}
END_TEST

START_TEST(shutdown_runs_what_is_queued)
{
        struct held *held = calloc(1000, sizeof *held);
        struct lido_workers *ws = workers_of(2, 2);

        for (int i = 0; i < 1000; i++) {
                held[i] = held_by(NULL);
                must_submit(ws, &held[i]);
        }
        ck_assert_int_eq(lido_workers_shutdown(ws, LIDO_NEVER), LIDO_OK);
        for (int i = 0; i < 1000; i++)
                ck_assert_int_eq(held[i].runs, 1);
        free(held);
}
END_TEST

START_TEST(at_its_deadline_shutdown_drops_the_rest_asks_the_others_and_names_them)
{
        struct gate gate = GATE_INIT;
        struct held held = held_by(&gate), *rest = calloc(100, sizeof *rest);
        struct lido_workers_options options = of_threads(1, 1);
        struct lido_workers *ws;

        options.on_event = note;
        ws = must_open(options);
        ck_assert_int_eq(lido_submit_at(ws, &held.job, "held.c:1"), LIDO_OK);
        for (int i = 0; i < 100; i++) {
                rest[i] = held_by(NULL);
                must_submit(ws, &rest[i]);
        }
        gate_await(&gate, 1);
        ck_assert_int_eq(lido_workers_shutdown(ws, 10), LIDO_ETIMEDOUT);
        for (int i = 0; i < 100; i++) {
                ck_assert_int_eq(rest[i].status, LIDO_ECLOSED);
                ck_assert_int_eq(rest[i].runs, 0);
        }
        ck_assert_int_eq(event_count, 1);
        ck_assert_int_eq(events[0].type, LIDO_WORKER_EVENT_HOLDER);
        ck_assert_str_eq(events[0].site, "held.c:1");
        gate_open(&gate);
        ck_assert_int_eq(lido_workers_shutdown(ws, 5000), LIDO_OK);
        ck_assert_int_eq(held.was_asked_to_stop, 1);
        free(rest);
}
END_TEST

START_TEST(an_executor_opens_and_ends_many_times)
{
        for (int i = 0; i < 100; i++) {
                struct lido_workers *ws = workers_of(1 + (uint32_t)i % 4, 4);
                struct held held[3];

                for (int k = 0; k < 3; k++) {
                        held[k] = held_by(NULL);
                        must_submit(ws, &held[k]);
                }
                ck_assert_int_eq(lido_workers_shutdown(ws, LIDO_NEVER), LIDO_OK);
                ck_assert_int_eq(held[0].runs + held[1].runs + held[2].runs, 3);
        }
        ck_assert_int_eq(lido_workers_shutdown(NULL, 0), LIDO_OK);
}
END_TEST

START_TEST(threads_that_cannot_be_started_are_reported_and_jobs_run_on_the_others)
{
        struct lido_workers_options options = of_threads(1, 4);
        struct gate gate = GATE_INIT;
        struct held held[3];
        struct lido_workers *ws;

        options.on_event = note;
        options.stack_bytes = (size_t)1 << 20;
        ws = must_open(options);
        await(stats_of(ws).idle == 1);
        ws->options.stack_bytes = (size_t)1 << 46; /* more than there are addresses */
        for (int i = 0; i < 3; i++) {
                held[i] = held_by(&gate);
                must_submit(ws, &held[i]);
        }
        gate_await(&gate, 1);
        await(stats_of(ws).start_failed >= 1);
        gate_open(&gate);
        must_drain(ws);
        for (int i = 0; i < 3; i++)
                ck_assert_int_eq(held[i].runs, 1);
        ck_assert_int_eq(events[0].type, LIDO_WORKER_EVENT_START_FAILED);
        ck_assert_uint_eq(stats_of(ws).threads, 1);
        must_shut_down(ws);
}
END_TEST

START_TEST(stats_add_up)
{
        struct gate gate = GATE_INIT;
        struct held held[5];
        struct lido_workers *ws = workers_of(2, 3);
        struct lido_worker_stats stats, tiny = { .size = 4 };
        lido_thread thread;

        ck_assert_int_eq(lido_thread_acquire(ws, 1000, &thread), LIDO_OK);
        for (int i = 0; i < 5; i++) {
                held[i] = held_by(&gate);
                must_submit(ws, &held[i]);
        }
        gate_await(&gate, 2);
        stats = stats_of(ws);
        ck_assert_uint_eq(stats.threads, stats.busy + stats.idle + stats.lent);
        ck_assert_uint_eq(stats.busy, 2);
        ck_assert_uint_eq(stats.lent, 1);
        ck_assert_uint_eq(stats.queued, 3);
        ck_assert_uint_eq(stats.submitted, 5);
        ck_assert_int_eq(lido_workers_stats(ws, &tiny), LIDO_EINVAL);
        lido_thread_release(thread);
        gate_open(&gate);
        must_drain(ws);
        ck_assert_uint_eq(stats_of(ws).ran, 5);
        must_shut_down(ws);
}
END_TEST

START_TEST(every_event_has_a_name)
{
        for (int type = LIDO_WORKER_EVENT_STUCK; type <= LIDO_WORKER_EVENT_DIED; type++)
                ck_assert_str_ne(lido_worker_event_name(type), "?");
        ck_assert_str_eq(lido_worker_event_name(-1), "?");
        ck_assert_str_eq(lido_worker_event_name(99), "?");
}
END_TEST

int main(void)
{
        return suite_run("worker/executor", (const TTest *[]){
                                                    defaults_are_one_to_four_threads,
                                                    options_out_of_range_are_refused,
                                                    a_newer_callers_option_is_refused_and_an_older_callers_struct_is_taken,
                                                    drain_waits_for_what_is_queued_and_what_runs,
                                                    a_worker_cannot_wait_for_its_own_executor,
                                                    a_closed_executor_refuses_and_runs_what_it_has,
                                                    shutdown_runs_what_is_queued,
                                                    at_its_deadline_shutdown_drops_the_rest_asks_the_others_and_names_them,
                                                    an_executor_opens_and_ends_many_times,
                                                    threads_that_cannot_be_started_are_reported_and_jobs_run_on_the_others,
                                                    stats_add_up,
                                                    every_event_has_a_name,
                                                    NULL,
                                            });
}
