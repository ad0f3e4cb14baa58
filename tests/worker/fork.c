/* fork(2) with an executor at work. The child answers by its exit status, for Check's own report is the parent's. */
#include "worker/support.h"

#include <sys/wait.h>
#include <unistd.h>

static struct gate gate;
static struct held holder;
static struct lido_workers *ws;

static void setup(void)
{
        gate = (struct gate)GATE_INIT;
        holder = held_by(&gate);
        ws = workers_of(1, 1);
        must_submit(ws, &holder);
        gate_await(&gate, 1);
}

static void finish(void)
{
        gate_open(&gate);
        must_drain(ws);
        must_shut_down(ws);
}

/* The number of the first claim that does not hold in the child, 0 if all do. */
static int in_child(int (*claims)(void))
{
        int status;
        pid_t pid = fork();

        if (pid == 0)
                _exit(claims());
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert(WIFEXITED(status));
        return WEXITSTATUS(status);
}

#define CLAIM(number, condition)                                                                               \
        do {                                                                                                   \
                if (!(condition))                                                                              \
                        return number;                                                                         \
        } while (0)

static int all_answer_forked(void)
{
        struct lido_worker_stats stats = LIDO_WORKER_STATS_INIT;
        struct held held = held_by(NULL);
        struct lido_group group;
        lido_thread thread;

        CLAIM(1, lido_submit(ws, &held.job) == LIDO_EFORKED);
        CLAIM(2, lido_submit_after(ws, &held.job, 1) == LIDO_EFORKED);
        CLAIM(3, lido_job_cancel(&holder.job) == LIDO_EFORKED);
        CLAIM(4, lido_workers_drain(ws, 0) == LIDO_EFORKED);
        CLAIM(5, lido_workers_close(ws) == LIDO_EFORKED);
        CLAIM(6, lido_workers_shutdown(ws, 0) == LIDO_EFORKED);
        CLAIM(7, lido_workers_stats(ws, &stats) == LIDO_EFORKED);
        CLAIM(8, lido_workers_resize(ws, 2) == LIDO_EFORKED);
        CLAIM(9, lido_group_init(&group, ws) == LIDO_EFORKED);
        CLAIM(10, lido_thread_acquire(ws, 0, &thread) == LIDO_EFORKED);
        return 0;
}

START_TEST(in_the_child_every_call_answers_forked)
{
        ck_assert_int_eq(in_child(all_answer_forked), 0);
        finish();
}
END_TEST

static struct held queued[40], delayed;
static int handed_out;

static void count(struct lido_job *job, void *context)
{
        struct held *held = (struct held *)(void *)job;

        if (context == &handed_out && (held == &delayed || (held >= queued && held < queued + 40)))
                handed_out++;
}

static int jobs_are_handed_out(void)
{
        CLAIM(1, lido_workers_forked(ws, count, &handed_out) == 41);
        CLAIM(2, handed_out == 41);
        CLAIM(3, queued[0].runs == 0 && queued[0].dones == 0);
        return 0;
}

#ifndef __SANITIZE_THREAD__
static int a_new_executor_works(void)
{
        struct lido_workers_options options = of_threads(1, 2);
        struct lido_workers *own;

        CLAIM(1, lido_workers_forked(ws, NULL, NULL) == 41);
        CLAIM(2, lido_workers_open(&own, &options) == LIDO_OK);
        for (int i = 0; i < 40; i++)
                CLAIM(3, lido_submit(own, &queued[i].job) == LIDO_OK);
        CLAIM(4, lido_workers_shutdown(own, 5000) == LIDO_OK);
        for (int i = 0; i < 40; i++)
                CLAIM(5, queued[i].runs == 1);
        return 0;
}
#endif

static void submit_41(void)
{
        for (int i = 0; i < 40; i++) {
                queued[i] = held_by(NULL);
                must_submit(ws, &queued[i]);
        }
        delayed = held_by(NULL);
        ck_assert_int_eq(lido_submit_after(ws, &delayed.job, 100000), LIDO_OK);
}

START_TEST(the_child_is_handed_the_jobs_that_had_not_begun)
{
        submit_41();
        ck_assert_int_eq(lido_workers_forked(ws, NULL, NULL), LIDO_EINVAL);
        ck_assert_int_eq(in_child(jobs_are_handed_out), 0);
        ck_assert_int_eq(lido_job_cancel(&delayed.job), LIDO_OK);
        finish();
        for (int i = 0; i < 40; i++)
                ck_assert_int_eq(queued[i].runs, 1);
}
END_TEST

#ifndef __SANITIZE_THREAD__
START_TEST(the_child_can_run_them_on_an_executor_of_its_own)
{
        submit_41();
        ck_assert_int_eq(in_child(a_new_executor_works), 0);
        ck_assert_int_eq(lido_job_cancel(&delayed.job), LIDO_OK);
        finish();
}
END_TEST
#endif

static _Atomic bool is_over;

static void *submit_all_the_time(void *argument)
{
        struct lido_workers *own = argument;

        while (!is_over) {
                struct held held[20];

                for (int i = 0; i < 20; i++) {
                        held[i] = held_by(NULL);
                        must_submit(own, &held[i]);
                }
                for (int i = 0; i < 20; i++)
                        while (atomic_load(&held[i].dones) == 0)
                                thread_yield();
        }
        return NULL;
}

static struct lido_workers *stormy;

static int lists_are_whole(void)
{
        int count = lido_workers_forked(stormy, NULL, NULL);

        CLAIM(1, count >= 0 && count <= 40);
        return 0;
}

START_TEST(a_fork_at_any_moment_leaves_the_child_lists_that_are_whole)
{
        pthread_t submitter[2];

        stormy = workers_of(2, 4);
        for (int i = 0; i < 2; i++)
                pthread_create(&submitter[i], NULL, submit_all_the_time, stormy);
        for (int i = 0; i < 50; i++)
                ck_assert_int_eq(in_child(lists_are_whole), 0);
        is_over = true;
        for (int i = 0; i < 2; i++)
                pthread_join(submitter[i], NULL);
        must_shut_down(stormy);
        finish();
}
END_TEST

int main(void)
{
        return suite_run_with("worker/fork",
                              (const TTest *[]){
                                      in_the_child_every_call_answers_forked,
                                      the_child_is_handed_the_jobs_that_had_not_begun,
#ifndef __SANITIZE_THREAD__ /* it cannot start threads in the child of a process with threads */
                                      the_child_can_run_them_on_an_executor_of_its_own,
#endif
                                      a_fork_at_any_moment_leaves_the_child_lists_that_are_whole,
                                      NULL,
                              },
                              setup, NULL);
}
