/* Groups: waiting for a set of jobs, cancelling it, and workers that wait for workers. */
#include "worker/support.h"

static struct gate gate;
static struct held holder;
static struct lido_workers *ws;
static struct lido_group group;

static void setup(void)
{
        gate = (struct gate)GATE_INIT;
        holder = held_by(&gate);
        ws = workers_of(1, 1);
        must_submit(ws, &holder);
        gate_await(&gate, 1);
        ck_assert_int_eq(lido_group_init(&group, ws), LIDO_OK);
}

static struct held member(void)
{
        struct held held = held_by(NULL);

        held.job.group = &group;
        return held;
}

static void finish(void)
{
        gate_open(&gate);
        must_drain(ws);
        must_shut_down(ws);
}

START_TEST(an_empty_group_is_not_waited_for)
{
        ck_assert_int_eq(lido_group_wait(&group, LIDO_NEVER), LIDO_OK);
        finish();
}
END_TEST

START_TEST(wait_returns_when_every_job_is_done)
{
        struct held held[20];

        for (int i = 0; i < 20; i++) {
                held[i] = member();
                must_submit(ws, &held[i]);
        }
        ck_assert_int_eq(lido_group_wait(&group, 10), LIDO_ETIMEDOUT);
        gate_open(&gate);
        ck_assert_int_eq(lido_group_wait(&group, LIDO_NEVER), LIDO_OK);
        for (int i = 0; i < 20; i++)
                ck_assert_int_eq(held[i].dones, 1);
        finish();
}
END_TEST

START_TEST(a_group_may_be_freed_as_soon_as_wait_returns)
{
        gate_open(&gate);
        for (int round = 0; round < 500; round++) {
                struct lido_group *own = malloc(sizeof *own);
                struct held held[3];

                ck_assert_int_eq(lido_group_init(own, ws), LIDO_OK);
                for (int i = 0; i < 3; i++) {
                        held[i] = held_by(NULL);
                        held[i].job.group = own;
                        must_submit(ws, &held[i]);
                }
                ck_assert_int_eq(lido_group_wait(own, LIDO_NEVER), LIDO_OK);
                memset(own, 0xa5, sizeof *own);
                free(own);
        }
        finish();
}
END_TEST

START_TEST(a_cancelled_group_drops_what_has_not_begun_and_refuses_more)
{
        struct held held[10], late = member(), delayed = member();

        for (int i = 0; i < 10; i++) {
                held[i] = member();
                must_submit(ws, &held[i]);
        }
        ck_assert_int_eq(lido_submit_after(ws, &delayed.job, 100000), LIDO_OK);
        ck_assert_int_eq(lido_group_cancel(&group), 11);
        ck_assert_int_eq(lido_submit(ws, &late.job), LIDO_ECANCELED);
        ck_assert_int_eq(lido_group_wait(&group, LIDO_NEVER), LIDO_OK);
        for (int i = 0; i < 10; i++) {
                ck_assert_int_eq(held[i].status, LIDO_ECANCELED);
                ck_assert_int_eq(held[i].runs, 0);
        }
        ck_assert_int_eq(delayed.status, LIDO_ECANCELED);
        ck_assert_int_eq(lido_group_init(&group, ws), LIDO_OK);
        must_submit(ws, &late);
        finish();
        ck_assert_int_eq(late.runs, 1);
}
END_TEST

START_TEST(a_running_member_is_asked_to_stop)
{
        struct gate inner = GATE_INIT;
        struct held held = member();

        held.gate = &inner;
        must_submit(ws, &held);
        gate_open(&gate);
        gate_await(&inner, 1);
        ck_assert_int_eq(lido_group_cancel(&group), 0);
        gate_open(&inner);
        ck_assert_int_eq(lido_group_wait(&group, LIDO_NEVER), LIDO_OK);
        ck_assert_int_eq(held.was_asked_to_stop, 1);
        finish();
}
END_TEST

START_TEST(a_single_member_can_be_cancelled_and_is_not_waited_for)
{
        struct held held = member();

        must_submit(ws, &held);
        ck_assert_int_eq(lido_job_cancel(&held.job), LIDO_OK);
        ck_assert_int_eq(lido_group_wait(&group, LIDO_NEVER), LIDO_OK);
        finish();
}
END_TEST

START_TEST(a_group_of_another_executor_is_refused)
{
        struct lido_workers *other = workers_of(1, 1);
        struct held held = member();

        ck_assert_int_eq(lido_submit(other, &held.job), LIDO_EINVAL);
        must_shut_down(other);
        finish();
}
END_TEST

/* A job that divides its range, and waits for both halves on the worker. */
struct sum {
        struct lido_job job;
        long from, to, answer;
};

static void add_up(struct lido_job *job)
{
        struct sum *sum = (struct sum *)(void *)job;
        struct lido_group halves;
        struct sum half[2];

        if (sum->to - sum->from <= 4) {
                for (long i = sum->from; i < sum->to; i++)
                        sum->answer += i;
                return;
        }
        lido_group_init(&halves, lido_workers_self());
        for (int i = 0; i < 2; i++) {
                long middle = (sum->from + sum->to) / 2;

                half[i] = (struct sum){ .job = { .run = add_up, .group = &halves } };
                half[i].from = i == 0 ? sum->from : middle;
                half[i].to = i == 0 ? middle : sum->to;
                ck_assert_int_eq(lido_submit(lido_workers_self(), &half[i].job), LIDO_OK);
        }
        ck_assert_int_eq(lido_group_wait(&halves, LIDO_NEVER), LIDO_OK);
        sum->answer = half[0].answer + half[1].answer;
}

START_TEST(workers_that_wait_for_workers_do_not_lock_each_other_up)
{
        gate_open(&gate);
        for (uint32_t threads = 1; threads <= 3; threads++) {
                struct lido_workers *few = workers_of(threads, threads);
                struct sum sum = { .job = { .run = add_up }, .from = 0, .to = 2000 };

                ck_assert_int_eq(lido_submit(few, &sum.job), LIDO_OK);
                must_drain(few);
                ck_assert_int_eq(sum.answer, 1999000);
                must_shut_down(few);
        }
        finish();
}
END_TEST

static struct held late_member;

static void wait_here(struct lido_job *job)
{
        (void)job;
        gate_pass(&gate);
        ck_assert_int_eq(lido_group_wait(&group, LIDO_NEVER), LIDO_OK);
}

START_TEST(a_job_that_enters_the_group_late_is_run_by_the_worker_that_waits)
{
        struct held first = member(), waiter = held_by(NULL);

        /* given: the only worker will wait for a group whose one job is not due for long */
        ck_assert_int_eq(lido_submit_after(ws, &first.job, 100000), LIDO_OK);
        waiter.job.run = wait_here;
        must_submit(ws, &waiter);
        gate_open(&gate);
        gate_await(&gate, 2);
        /* when */
        late_member = member();
        must_submit(ws, &late_member);
        /* then */
        await(atomic_load(&late_member.dones) == 1);
        ck_assert_int_eq(lido_job_cancel(&first.job), LIDO_OK);
        finish();
}
END_TEST

START_TEST(nonsense_is_refused)
{
        ck_assert_int_eq(lido_group_init(NULL, ws), LIDO_EINVAL);
        ck_assert_int_eq(lido_group_init(&group, NULL), LIDO_EINVAL);
        ck_assert_int_eq(lido_group_wait(NULL, 0), LIDO_EINVAL);
        ck_assert_int_eq(lido_group_wait(&group, -7), LIDO_EINVAL);
        ck_assert_int_eq(lido_group_cancel(NULL), LIDO_EINVAL);
        finish();
}
END_TEST

int main(void)
{
        return suite_run_with("worker/group",
                              (const TTest *[]){
                                      an_empty_group_is_not_waited_for,
                                      wait_returns_when_every_job_is_done,
                                      a_group_may_be_freed_as_soon_as_wait_returns,
                                      a_cancelled_group_drops_what_has_not_begun_and_refuses_more,
                                      a_running_member_is_asked_to_stop,
                                      a_single_member_can_be_cancelled_and_is_not_waited_for,
                                      a_group_of_another_executor_is_refused,
                                      workers_that_wait_for_workers_do_not_lock_each_other_up,
                                      a_job_that_enters_the_group_late_is_run_by_the_worker_that_waits,
                                      nonsense_is_refused,
                                      NULL,
                              },
                              setup, NULL);
}
