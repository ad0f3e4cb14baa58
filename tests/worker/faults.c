/* The system refuses: each allocation and each thread of lib/worker in turn, once and from then on; and what allocates
 * nothing because it may not fail. Linked with a core in which each such call can be told to fail (base/fault.h). */
#include "base/fault.h"

#include <uv.h>

#include "support/patience.h"
#include "worker/support.h"

/* ---- nothing is allocated where nothing may fail ---------------------------------------------------------- */

static void sit(struct lido_workers *ws, struct lido_loop *loop, uv_loop_t *uv)
{
        struct held held[64];
        struct lido_group group;
        lido_thread thread;

        must(lido_group_init(&group, ws) == LIDO_OK);
        for (int i = 0; i < 64; i++) {
                held[i] = held_by(NULL);
                held[i].job.group = i % 2 ? &group : NULL;
                held[i].job.loop = i % 3 ? NULL : loop;
                held[i].job.priority = (uint16_t)(i % 4);
                must(lido_submit(ws, &held[i].job) == LIDO_OK);
        }
        uv_run(uv, UV_RUN_DEFAULT);
        must(lido_group_wait(&group, PATIENCE_MS) == LIDO_OK);
        must_drain(ws);
        must(lido_thread_acquire(ws, PATIENCE_MS, &thread) == LIDO_OK);
        held[0] = held_by(NULL);
        must(lido_thread_run(thread, &held[0].job) == LIDO_OK);
        must(lido_thread_release(thread) == LIDO_OK);
        held[1] = held_by(NULL);
        must(lido_submit(ws, &held[1].job) == LIDO_OK);
        lido_job_cancel(&held[1].job);
        must_drain(ws);
}

START_TEST(submit_run_done_groups_loans_and_cancel_allocate_nothing)
{
        struct lido_workers *ws = workers_of(4, 4);
        struct lido_loop *loop;
        uv_loop_t uv;

        ck_assert_int_eq(uv_loop_init(&uv), 0);
        ck_assert_int_eq(lido_loop_open(&loop, &uv), LIDO_OK);
        fault_arm(1, FAULT_FROM); /* and if something asked for memory, it would get none */
        for (int i = 0; i < 100; i++)
                sit(ws, loop, &uv);

        ck_assert_uint_eq(fault_disarm(), 0);
        lido_loop_close(loop, NULL, NULL);
        uv_run(&uv, UV_RUN_DEFAULT);
        ck_assert_int_eq(uv_loop_close(&uv), 0);
        must_shut_down(ws);
}
END_TEST

/* ---- every failure in turn -------------------------------------------------------------------------------- */

static bool is_refusal(int rc)
{
        return rc == LIDO_ENOMEM || rc == LIDO_ETHREAD;
}

/* Everything that may start a thread. Jobs that were taken have run when it returns, for `min` is there. */
static void use(struct lido_workers *ws)
{
        struct gate gate = GATE_INIT;
        struct held held[6], later = held_by(NULL);
        lido_thread thread;
        int rc;

        for (int i = 0; i < 6; i++) {
                held[i] = held_by(&gate);
                must_submit(ws, &held[i]);
        }
        rc = lido_submit_after(ws, &later.job, 1);
        must(rc == LIDO_OK || is_refusal(rc));
        gate_open(&gate);
        if (rc == LIDO_OK)
                ck_eventually(atomic_load(&later.dones) == 1);
        must_drain(ws);
        for (int i = 0; i < 6; i++)
                ck_assert_int_eq(held[i].runs, 1);
        rc = lido_thread_acquire(ws, PATIENCE_MS, &thread);
        must(rc == LIDO_OK || is_refusal(rc));
        if (rc == LIDO_OK)
                must(lido_thread_release(thread) == LIDO_OK);
        must_drain(ws);
}

static void refuse_each(enum fault_mode mode)
{
        struct lido_workers_options options = of_threads(1, 4);
        uint64_t hits = 1;

        options.stuck_after_ms = 1000;
        for (uint64_t at = 1; at <= hits; at++) {
                struct lido_workers *ws;
                int rc;

                fault_arm(at, mode);
                rc = lido_workers_open(&ws, &options);
                ck_assert(rc == LIDO_OK || is_refusal(rc));
                if (rc == LIDO_OK)
                        use(ws);
                if (fault_disarm() >= at)
                        hits = at + 1;
                if (rc != LIDO_OK)
                        continue;
                use(ws); /* what was refused is not held against it */
                must_shut_down(ws);
        }
        ck_assert_uint_ge(hits, 6); /* executor, worker, its thread, the minder's, a second worker, its thread, ... */
}

START_TEST(whatever_is_refused_once_every_job_runs)
{
        refuse_each(FAULT_ONCE);
}
END_TEST

START_TEST(whatever_is_refused_from_then_on_the_threads_that_are_there_run_every_job)
{
        refuse_each(FAULT_FROM);
}
END_TEST

int main(void)
{
        return suite_run("worker/faults",
                         (const TTest *[]){
                                 submit_run_done_groups_loans_and_cancel_allocate_nothing,
                                 whatever_is_refused_once_every_job_runs,
                                 whatever_is_refused_from_then_on_the_threads_that_are_there_run_every_job,
                                 NULL,
                         });
}
