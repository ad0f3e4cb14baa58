/* Delayed jobs and stuck workers. */
#include "worker/support.h"

#include <execinfo.h>
#include <signal.h>
#include <unistd.h>

START_TEST(a_delayed_job_runs_when_it_is_due_and_not_before)
{
        struct lido_workers *ws = workers_of(1, 1);
        struct held held = held_by(NULL);
        uint64_t due = clock_now_ns() + 20 * NS_PER_MS;

        ck_assert_int_eq(lido_submit_after(ws, &held.job, 20), LIDO_OK);
        ck_assert_uint_eq(stats_of(ws).delayed, 1);
        await(atomic_load(&held.dones) == 1);
        ck_assert_uint_ge(clock_now_ns(), due);
        ck_assert_uint_eq(stats_of(ws).delayed, 0);
        must_shut_down(ws);
}
END_TEST

START_TEST(delayed_jobs_run_in_the_order_of_their_times)
{
        struct lido_workers *ws = workers_of(1, 1);
        struct held held[5];

        for (int i = 0; i < 5; i++) {
                held[i] = held_by(NULL);
                ck_assert_int_eq(lido_submit_after(ws, &held[i].job, 50 - 10 * i), LIDO_OK);
        }
        await(atomic_load(&held[0].dones) == 1);
        for (int i = 1; i < 5; i++)
                ck_assert_int_gt(held[i - 1].order, held[i].order);
        must_shut_down(ws);
}
END_TEST

START_TEST(a_delayed_job_can_be_cancelled_and_submitted_at_once)
{
        struct lido_workers *ws = workers_of(1, 1);
        struct held held = held_by(NULL);

        ck_assert_int_eq(lido_submit_after(ws, &held.job, 100000), LIDO_OK);
        ck_assert_int_eq(lido_job_cancel(&held.job), LIDO_OK);
        ck_assert_uint_eq(stats_of(ws).delayed, 0);
        must_submit(ws, &held);
        must_drain(ws);
        ck_assert_int_eq(held.runs, 1);
        must_shut_down(ws);
}
END_TEST

START_TEST(drain_does_not_wait_for_what_is_not_due_and_close_drops_it)
{
        struct lido_workers *ws = workers_of(1, 1);
        struct held held = held_by(NULL);

        ck_assert_int_eq(lido_submit_after(ws, &held.job, 100000), LIDO_OK);
        must_drain(ws);
        ck_assert_int_eq(lido_workers_close(ws), LIDO_OK);
        ck_assert_int_eq(held.dones, 1);
        ck_assert_int_eq(held.status, LIDO_ECLOSED);
        must_shut_down(ws);
}
END_TEST

/* ---- stuck ------------------------------------------------------------------------------------------------ */

static struct {
        pthread_mutex_t lock;
        int count[8];
        struct lido_worker_event last[8];
        uint32_t frames;
} seen = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void on_event(const struct lido_worker_event *event, void *context)
{
        (void)context;
        pthread_mutex_lock(&seen.lock);
        seen.count[event->type]++;
        seen.last[event->type] = *event;
        if (event->frame_count > seen.frames)
                seen.frames = event->frame_count;
        pthread_mutex_unlock(&seen.lock);
}

static int count_of(int type)
{
        int count;

        pthread_mutex_lock(&seen.lock);
        count = seen.count[type];
        pthread_mutex_unlock(&seen.lock);
        return count;
}

static struct lido_workers_options watching(int64_t stuck_after_ms)
{
        struct lido_workers_options options = of_threads(1, 2);

        options.stuck_after_ms = stuck_after_ms;
        options.on_event = on_event;
        options.name = "watched";
        return options;
}

START_TEST(a_stuck_job_is_reported_once_with_its_site_and_again_when_it_returns)
{
        struct lido_workers *ws = must_open(watching(20));
        struct gate gate = GATE_INIT;
        struct held held = held_by(&gate), quick = held_by(NULL);
        const struct lido_worker_event *stuck = &seen.last[LIDO_WORKER_EVENT_STUCK];
        uint64_t begun = clock_now_ns();

        ck_assert_int_eq(lido_submit_at(ws, &held.job, "there.c:7"), LIDO_OK);
        gate_await(&gate, 1);
        await(count_of(LIDO_WORKER_EVENT_STUCK) == 1);
        ck_assert_uint_ge(clock_now_ns() - begun, 20 * NS_PER_MS);
        ck_assert_str_eq(stuck->site, "there.c:7");
        ck_assert_uint_eq(stuck->thread, held.thread);
        ck_assert_uint_ge(stuck->age_ns, 20 * NS_PER_MS);
        ck_assert_str_eq(stuck->name, "watched");
        must_submit(ws, &quick); /* the other worker takes it: what is stuck stays reported once */
        await(atomic_load(&quick.dones) == 1);
        gate_open(&gate);
        await(count_of(LIDO_WORKER_EVENT_UNSTUCK) == 1);
        ck_assert_int_eq(count_of(LIDO_WORKER_EVENT_STUCK), 1);
        ck_assert_uint_eq(stats_of(ws).stuck, 1);
        must_shut_down(ws);
}
END_TEST

START_TEST(a_stuck_thread_that_ends_with_its_job_is_reported_as_free)
{
        struct lido_workers_options options = watching(10);
        struct gate gate = GATE_INIT;
        struct held held = held_by(&gate);
        struct lido_workers *ws;

        ws = must_open(options);
        must_submit(ws, &held);
        gate_await(&gate, 1);
        await(count_of(LIDO_WORKER_EVENT_STUCK) == 1);
        gate_open(&gate);
        must_shut_down(ws);
        ck_assert_int_eq(count_of(LIDO_WORKER_EVENT_UNSTUCK), 1);
}
END_TEST

START_TEST(many_quick_jobs_are_not_taken_for_one_long_one)
{
        struct lido_workers *ws = must_open(watching(20));
        uint64_t until = clock_now_ns() + 60 * NS_PER_MS;

        while (clock_now_ns() < until) {
                struct held held = held_by(NULL);

                must_submit(ws, &held);
                await(atomic_load(&held.dones) == 1);
        }
        ck_assert_int_eq(count_of(LIDO_WORKER_EVENT_STUCK), 0);
        must_shut_down(ws);
}
END_TEST

START_TEST(a_watched_executor_that_is_idle_makes_no_wake_ups)
{
        struct lido_workers *ws = must_open(watching(4));
        struct held held = held_by(NULL);
        bool asleep = false;

        must_submit(ws, &held);
        must_drain(ws);
        while (!asleep) {
                lock_take(&ws->lock);
                asleep = ws->is_watch_asleep && heap_first(&ws->delayed) == NULL;
                lock_give(&ws->lock);
        }
        ck_assert(asleep);
        must_shut_down(ws);
}
END_TEST

START_TEST(on_request_a_stuck_job_says_where_it_is)
{
        struct lido_workers_options options = watching(10);
        struct gate gate = GATE_INIT;
        struct held held = held_by(&gate);
        struct lido_workers *ws;

        sigaction(SIGURG, &(struct sigaction){ .sa_handler = lido_workers_on_signal, .sa_flags = SA_RESTART }, NULL);
        options.backtrace_signal = SIGURG;
        ws = must_open(options);
        must_submit(ws, &held);
        gate_await(&gate, 1);
        await(count_of(LIDO_WORKER_EVENT_STUCK) == 1);
        ck_assert_uint_ge(seen.frames, 3);
        gate_open(&gate);
        must_drain(ws);
        must_shut_down(ws);
}
END_TEST

int main(void)
{
        return suite_run("worker/minder", (const TTest *[]){
                                                  a_delayed_job_runs_when_it_is_due_and_not_before,
                                                  delayed_jobs_run_in_the_order_of_their_times,
                                                  a_delayed_job_can_be_cancelled_and_submitted_at_once,
                                                  drain_does_not_wait_for_what_is_not_due_and_close_drops_it,
                                                  a_stuck_job_is_reported_once_with_its_site_and_again_when_it_returns,
                                                  a_stuck_thread_that_ends_with_its_job_is_reported_as_free,
                                                  many_quick_jobs_are_not_taken_for_one_long_one,
                                                  a_watched_executor_that_is_idle_makes_no_wake_ups,
                                                  on_request_a_stuck_job_says_where_it_is,
                                                  NULL,
                                          });
}
