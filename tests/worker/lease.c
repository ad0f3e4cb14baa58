/* Threads on loan. */
#include "worker/support.h"

START_TEST(a_lent_thread_runs_only_its_borrowers_jobs_in_order)
{
        struct gate gate = GATE_INIT;
        struct held mine[3] = { held_by(&gate), held_by(NULL), held_by(NULL) }, other = held_by(NULL);
        struct lido_workers *ws = workers_of(1, 2);
        lido_thread thread;

        ck_assert_int_eq(lido_thread_acquire(ws, 1000, &thread), LIDO_OK);
        for (int i = 0; i < 3; i++)
                ck_assert_int_eq(lido_thread_run(thread, &mine[i].job), LIDO_OK);
        gate_await(&gate, 1);
        must_submit(ws, &other);
        await(atomic_load(&other.dones) == 1);
        ck_assert_int_eq(mine[1].runs, 0);
        gate_open(&gate);
        await(atomic_load(&mine[2].dones) == 1);
        ck_assert_uint_eq(mine[0].thread, mine[2].thread);
        ck_assert_uint_ne(mine[0].thread, other.thread);
        ck_assert_int_lt(mine[1].order, mine[2].order);
        ck_assert_int_eq(lido_thread_release(thread), LIDO_OK);
        must_drain(ws);
        must_shut_down(ws);
}
END_TEST

START_TEST(an_idle_thread_is_lent_and_goes_back_to_the_queue)
{
        struct lido_workers *ws = workers_of(1, 1);
        struct held held = held_by(NULL);
        lido_thread thread;

        await(stats_of(ws).idle == 1);
        ck_assert_int_eq(lido_thread_acquire(ws, 0, &thread), LIDO_OK);
        ck_assert_uint_eq(stats_of(ws).lent, 1);
        ck_assert_uint_eq(stats_of(ws).started, 1);
        must_submit(ws, &held);
        ck_assert_int_eq(held.dones, 0);
        ck_assert_int_eq(lido_thread_release(thread), LIDO_OK);
        await(atomic_load(&held.dones) == 1);
        must_drain(ws);
        must_shut_down(ws);
}
END_TEST

START_TEST(a_loan_that_has_ended_is_recognised)
{
        struct lido_workers *ws = workers_of(1, 1);
        struct held held = held_by(NULL);
        lido_thread first, second, garbage = { 0 };

        ck_assert_int_eq(lido_thread_acquire(ws, 1000, &first), LIDO_OK);
        ck_assert_int_eq(lido_thread_release(first), LIDO_OK);
        ck_assert_int_eq(lido_thread_release(first), LIDO_EDOUBLE);
        ck_assert_int_eq(lido_thread_run(first, &held.job), LIDO_ESTALE);
        ck_assert_int_eq(lido_thread_acquire(ws, 1000, &second), LIDO_OK);
        ck_assert_int_eq(lido_thread_release(first), LIDO_ESTALE);
        ck_assert_int_eq(lido_thread_run(first, &held.job), LIDO_ESTALE);
        ck_assert_int_eq(lido_thread_release(garbage), LIDO_EINVAL);
        ck_assert_int_eq(lido_thread_run(garbage, &held.job), LIDO_EINVAL);
        second.generation += 7;
        ck_assert_int_eq(lido_thread_release(second), LIDO_EINVAL);
        second.generation -= 7;
        ck_assert_int_eq(lido_thread_release(second), LIDO_OK);
        ck_assert_uint_eq(stats_of(ws).misused, 5); /* garbage is nobody's */
        must_shut_down(ws);
}
END_TEST

struct releaser {
        lido_thread thread;
        _Atomic int won;
};

static void *release_it(void *argument)
{
        struct releaser *releaser = argument;

        if (lido_thread_release(releaser->thread) == LIDO_OK)
                atomic_fetch_add(&releaser->won, 1);
        return NULL;
}

START_TEST(of_racing_releases_one_wins)
{
        struct lido_workers *ws = workers_of(1, 1);

        for (int round = 0; round < 200; round++) {
                struct releaser releaser = { 0 };
                pthread_t thread[2];

                ck_assert_int_eq(lido_thread_acquire(ws, 1000, &releaser.thread), LIDO_OK);
                for (int i = 0; i < 2; i++)
                        pthread_create(&thread[i], NULL, release_it, &releaser);
                for (int i = 0; i < 2; i++)
                        pthread_join(thread[i], NULL);
                ck_assert_int_eq(releaser.won, 1);
        }
        must_shut_down(ws);
}
END_TEST

START_TEST(no_more_are_lent_than_the_limit)
{
        struct lido_workers *ws = workers_of(1, 3);
        lido_thread thread[3];

        ck_assert_int_eq(lido_thread_acquire(ws, 1000, &thread[0]), LIDO_OK);
        ck_assert_int_eq(lido_thread_acquire(ws, 1000, &thread[1]), LIDO_OK);
        ck_assert_int_eq(lido_thread_acquire(ws, 0, &thread[2]), LIDO_EEXHAUSTED);
        ck_assert_int_eq(lido_thread_acquire(ws, 10, &thread[2]), LIDO_ETIMEDOUT);
        ck_assert_uint_eq(stats_of(ws).waiting, 0);
        lido_thread_release(thread[0]);
        lido_thread_release(thread[1]);
        must_shut_down(ws);
}
END_TEST

struct borrower {
        pthread_t id;
        struct lido_workers *ws;
        lido_thread thread;
        _Atomic int rc;
};

static void *borrow(void *argument)
{
        struct borrower *borrower = argument;

        borrower->rc = lido_thread_acquire(borrower->ws, LIDO_NEVER, &borrower->thread);
        return NULL;
}

START_TEST(borrowers_stand_in_line)
{
        struct lido_workers *ws = workers_of(1, 1);
        struct borrower line[3];
        lido_thread thread;

        ck_assert_int_eq(lido_thread_acquire(ws, 1000, &thread), LIDO_OK);
        for (int i = 0; i < 3; i++) {
                line[i] = (struct borrower){ .ws = ws, .rc = 1 };
                pthread_create(&line[i].id, NULL, borrow, &line[i]);
                await((int)stats_of(ws).waiting == i + 1);
        }
        for (int i = 0; i < 3; i++) {
                ck_assert_int_eq(lido_thread_release(i == 0 ? thread : line[i - 1].thread), LIDO_OK);
                pthread_join(line[i].id, NULL);
                ck_assert_int_eq(line[i].rc, LIDO_OK);
                ck_assert_uint_eq(stats_of(ws).waiting, 2 - (unsigned)i);
        }
        ck_assert_int_eq(lido_thread_release(line[2].thread), LIDO_OK);
        must_shut_down(ws);
}
END_TEST

START_TEST(a_borrower_is_served_by_a_worker_that_comes_back_from_its_job)
{
        struct gate gate = GATE_INIT;
        struct held busy = held_by(&gate), queued = held_by(NULL);
        struct lido_workers *ws = workers_of(1, 1);
        struct borrower borrower = { .ws = ws, .rc = 1 };

        must_submit(ws, &busy);
        gate_await(&gate, 1);
        pthread_create(&borrower.id, NULL, borrow, &borrower);
        await(stats_of(ws).waiting == 1);
        must_submit(ws, &queued);
        gate_open(&gate);
        pthread_join(borrower.id, NULL);
        ck_assert_int_eq(borrower.rc, LIDO_OK);
        ck_assert_int_eq(lido_thread_release(borrower.thread), LIDO_OK);
        await(atomic_load(&queued.dones) == 1);
        must_drain(ws);
        must_shut_down(ws);
}
END_TEST

START_TEST(what_was_handed_over_before_the_release_still_runs)
{
        struct gate gate = GATE_INIT;
        struct held held[3] = { held_by(&gate), held_by(NULL), held_by(NULL) };
        struct lido_workers *ws = workers_of(1, 1);
        lido_thread thread;

        ck_assert_int_eq(lido_thread_acquire(ws, 1000, &thread), LIDO_OK);
        for (int i = 0; i < 2; i++)
                ck_assert_int_eq(lido_thread_run(thread, &held[i].job), LIDO_OK);
        gate_await(&gate, 1);
        ck_assert_int_eq(lido_thread_release(thread), LIDO_OK);
        must_submit(ws, &held[2]);
        gate_open(&gate);
        must_drain(ws);
        ck_assert_int_lt(held[1].order, held[2].order);
        must_shut_down(ws);
}
END_TEST

START_TEST(a_job_handed_to_a_lent_thread_can_be_cancelled)
{
        struct gate gate = GATE_INIT;
        struct held held[2] = { held_by(&gate), held_by(NULL) };
        struct lido_workers *ws = workers_of(1, 2);
        lido_thread thread;

        ck_assert_int_eq(lido_thread_acquire(ws, 1000, &thread), LIDO_OK);
        ck_assert_int_eq(lido_thread_run(thread, &held[0].job), LIDO_OK);
        gate_await(&gate, 1);
        ck_assert_int_eq(lido_thread_run(thread, &held[1].job), LIDO_OK);
        ck_assert_int_eq(lido_job_cancel(&held[1].job), LIDO_OK);
        gate_open(&gate);
        must_drain(ws);
        ck_assert_int_eq(held[1].runs, 0);
        lido_thread_release(thread);
        must_shut_down(ws);
}
END_TEST

START_TEST(a_lent_thread_survives_the_idle_timeout_and_ends_after_its_return)
{
        struct lido_workers_options options = of_threads(1, 4);
        struct lido_workers *ws;
        struct held held;
        lido_thread thread[2];
        uint64_t until;

        options.idle_timeout_ms = 10;
        ws = must_open(options);
        for (int i = 0; i < 2; i++)
                ck_assert_int_eq(lido_thread_acquire(ws, 1000, &thread[i]), LIDO_OK);
        until = clock_now_ns() + 30 * NS_PER_MS;
        await(clock_now_ns() > until);
        for (int i = 0; i < 2; i++) {
                held = held_by(NULL);
                ck_assert_int_eq(lido_thread_run(thread[i], &held.job), LIDO_OK);
                await(atomic_load(&held.dones) == 1);
                ck_assert_int_eq(lido_thread_release(thread[i]), LIDO_OK);
        }
        await(stats_of(ws).threads == 1);
        must_shut_down(ws);
}
END_TEST

START_TEST(shutdown_waits_for_loans_and_reports_them)
{
        struct lido_workers *ws = workers_of(1, 1);
        lido_thread thread;

        ck_assert_int_eq(lido_thread_acquire(ws, 1000, &thread), LIDO_OK);
        ck_assert_int_eq(lido_workers_shutdown(ws, 5), LIDO_ETIMEDOUT);
        ck_assert_int_eq(lido_thread_acquire(ws, 5, &(lido_thread){ 0 }), LIDO_ECLOSED);
        ck_assert_int_eq(lido_thread_release(thread), LIDO_OK);
        ck_assert_int_eq(lido_workers_shutdown(ws, 5000), LIDO_OK);
}
END_TEST

int main(void)
{
        return suite_run("worker/lease", (const TTest *[]){
                                                 a_lent_thread_runs_only_its_borrowers_jobs_in_order,
                                                 an_idle_thread_is_lent_and_goes_back_to_the_queue,
                                                 a_loan_that_has_ended_is_recognised,
                                                 of_racing_releases_one_wins,
                                                 no_more_are_lent_than_the_limit,
                                                 borrowers_stand_in_line,
                                                 a_borrower_is_served_by_a_worker_that_comes_back_from_its_job,
                                                 what_was_handed_over_before_the_release_still_runs,
                                                 a_job_handed_to_a_lent_thread_can_be_cancelled,
                                                 a_lent_thread_survives_the_idle_timeout_and_ends_after_its_return,
                                                 shutdown_waits_for_loans_and_reports_them,
                                                 NULL,
                                         });
}
