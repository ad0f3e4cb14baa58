/* Submit and cancel: whose a job is when, what a full queue does, where `done` is called. Groups are in group.c. */
#include "worker/support.h"

#include <uv.h>

/* An executor whose only thread is held at a gate. */
static struct gate gate;
static struct held holder;
static struct lido_workers *ws;

static void open_with(struct lido_workers_options options)
{
        ws = must_open(options);
        must_submit(ws, &holder);
        gate_await(&gate, 1);
}

static void setup(void)
{
        gate = (struct gate)GATE_INIT;
        holder = held_by(&gate);
}

static void let_go(void)
{
        gate_open(&gate);
        must_drain(ws);
        must_shut_down(ws);
}

START_TEST(a_job_runs_once_and_is_told)
{
        struct held held = held_by(NULL);

        open_with(of_threads(1, 1));
        must_submit(ws, &held);
        let_go();
        ck_assert_int_eq(held.runs, 1);
        ck_assert_int_eq(held.dones, 1);
        ck_assert_int_eq(held.status, LIDO_OK);
}
END_TEST

START_TEST(a_pending_job_is_refused_a_second_time)
{
        struct held held = held_by(NULL);

        open_with(of_threads(1, 1));
        must_submit(ws, &held);
        ck_assert_int_eq(lido_submit(ws, &held.job), LIDO_EBUSY);
        ck_assert_int_eq(lido_submit(ws, &holder.job), LIDO_EBUSY);
        ck_assert_int_eq(lido_submit_after(ws, &held.job, 5), LIDO_EBUSY);
        ck_assert_uint_eq(stats_of(ws).misused, 3);
        let_go();
        ck_assert_int_eq(held.runs, 1);
}
END_TEST

START_TEST(nonsense_is_refused)
{
        struct held held = held_by(NULL);

        open_with(of_threads(1, 1));
        ck_assert_int_eq(lido_submit(NULL, &held.job), LIDO_EINVAL);
        ck_assert_int_eq(lido_submit(ws, NULL), LIDO_EINVAL);
        held.job.run = NULL;
        ck_assert_int_eq(lido_submit(ws, &held.job), LIDO_EINVAL);
        held = held_by(NULL);
        held.job.priority = 4;
        ck_assert_int_eq(lido_submit(ws, &held.job), LIDO_EINVAL);
        held = held_by(NULL);
        held.job.flags = 0x80;
        ck_assert_int_eq(lido_submit(ws, &held.job), LIDO_EINVAL);
        held = held_by(NULL);
        ck_assert_int_eq(lido_submit_after(ws, &held.job, -1), LIDO_EINVAL);
        ck_assert_int_eq(lido_job_cancel(&held.job), LIDO_EINVAL);
        ck_assert_int_eq(lido_job_cancel(NULL), LIDO_EINVAL);
        let_go();
}
END_TEST

struct again {
        struct lido_job job;
        _Atomic int left;
};

static void run_again(struct lido_job *job)
{
        struct again *again = (struct again *)(void *)job;

        if (atomic_fetch_sub(&again->left, 1) > 1)
                ck_assert_int_eq(lido_submit(lido_workers_self(), job), LIDO_OK);
}

START_TEST(a_job_without_done_may_be_submitted_again_from_its_run)
{
        struct again again = { .job = { .run = run_again }, .left = 1000 };
        struct lido_workers *four = workers_of(4, 4);

        ck_assert_int_eq(lido_submit(four, &again.job), LIDO_OK);
        await(atomic_load(&again.left) == 0);
        must_drain(four);
        ck_assert_uint_eq(stats_of(four).ran, 1000);
        must_shut_down(four);
}
END_TEST

static void run_and_free(struct lido_job *job)
{
        free(job);
}

START_TEST(a_job_without_done_may_be_freed_by_its_run)
{
        struct lido_workers *four = workers_of(1, 4);

        for (int i = 0; i < 2000; i++) {
                struct lido_job *job = calloc(1, sizeof *job);

                job->run = run_and_free;
                ck_assert_int_eq(lido_submit(four, job), LIDO_OK);
        }
        must_drain(four);
        ck_assert_uint_eq(stats_of(four).ran, 2000);
        must_shut_down(four);
}
END_TEST

static void done_again(struct lido_job *job, int status)
{
        struct held *held = (struct held *)(void *)job;

        held_done(job, status);
        if (atomic_load(&held->dones) < 100)
                lido_submit(lido_workers_self(), job);
}

START_TEST(a_job_may_be_submitted_again_from_its_done)
{
        struct held held = held_by(NULL);
        struct lido_workers *two = workers_of(2, 2);

        held.job.done = done_again;
        must_submit(two, &held);
        await(atomic_load(&held.runs) == 100);
        must_drain(two);
        must_shut_down(two);
}
END_TEST

/* ---- cancel ----------------------------------------------------------------------------------------------- */

START_TEST(a_queued_job_that_is_cancelled_never_runs_and_is_the_callers_at_once)
{
        struct held *held = malloc(sizeof *held);

        *held = held_by(NULL);
        open_with(of_threads(1, 1));
        must_submit(ws, held);
        ck_assert_int_eq(lido_job_cancel(&held->job), LIDO_OK);
        ck_assert_int_eq(held->dones, 0);
        ck_assert_int_eq(lido_job_cancel(&held->job), LIDO_EINVAL);
        memset(held, 0xa5, sizeof *held);
        free(held);
        ck_assert_uint_eq(stats_of(ws).queued, 0);
        let_go();
}
END_TEST

START_TEST(a_running_job_that_is_cancelled_is_asked_to_stop)
{
        open_with(of_threads(1, 1));
        ck_assert_int_eq(lido_job_cancel(&holder.job), LIDO_EBUSY);
        let_go();
        ck_assert_int_eq(holder.was_asked_to_stop, 1);
        ck_assert_int_eq(holder.status, LIDO_OK);
        ck_assert_int_eq(lido_job_cancel(&holder.job), LIDO_EINVAL);
}
END_TEST

START_TEST(being_asked_to_stop_does_not_outlive_the_run)
{
        struct held next = held_by(NULL);

        open_with(of_threads(1, 1));
        lido_job_cancel(&holder.job);
        gate_open(&gate);
        must_drain(ws);
        holder.was_asked_to_stop = 0;
        must_submit(ws, &holder);
        must_submit(ws, &next);
        must_drain(ws);
        ck_assert_int_eq(holder.runs, 2);
        ck_assert_int_eq(holder.was_asked_to_stop, 0);
        must_shut_down(ws);
}
END_TEST

START_TEST(jobs_taken_but_not_begun_can_be_cancelled_and_freed)
{
        struct gate inner = GATE_INIT;
        struct held first = held_by(&inner), *many[100];
        int cancelled = 0;

        /* given: the worker has taken `first` together with others, and is held in it */
        open_with(of_threads(1, 1));
        must_submit(ws, &first);
        for (int i = 0; i < 100; i++) {
                many[i] = malloc(sizeof *many[i]);
                *many[i] = held_by(NULL);
                must_submit(ws, many[i]);
        }
        gate_open(&gate);
        gate_await(&inner, 1);
        ck_assert_uint_lt(queue_count(&ws->queue), 100);
        ck_assert_uint_eq(stats_of(ws).queued, 100);
        /* when */
        for (int i = 0; i < 100; i += 2)
                if (lido_job_cancel(&many[i]->job) == LIDO_OK) {
                        cancelled++;
                        free(many[i]);
                        many[i] = NULL;
                }
        /* then */
        ck_assert_int_eq(cancelled, 50);
        gate_open(&inner);
        must_drain(ws);
        for (int i = 0; i < 100; i++)
                if (many[i]) {
                        ck_assert_int_eq(many[i]->runs, 1);
                        free(many[i]);
                }
        must_shut_down(ws);
}
END_TEST

/* ---- a full queue ----------------------------------------------------------------------------------------- */

static struct lido_workers_options bounded(int policy)
{
        struct lido_workers_options options = of_threads(1, 1);

        options.queue_limit = 2;
        options.queue_policy = policy;
        return options;
}

START_TEST(a_full_queue_refuses)
{
        struct held held[3] = { held_by(NULL), held_by(NULL), held_by(NULL) };

        open_with(bounded(LIDO_QUEUE_REJECT));
        must_submit(ws, &held[0]);
        must_submit(ws, &held[1]);
        ck_assert_int_eq(lido_submit(ws, &held[2].job), LIDO_EQUEUEFULL);
        ck_assert_uint_eq(stats_of(ws).rejected, 1);
        let_go();
        ck_assert_int_eq(held[2].runs + held[2].dones, 0);
}
END_TEST

START_TEST(a_job_for_which_there_is_a_thread_does_not_count_as_queued)
{
        struct lido_workers_options options = bounded(LIDO_QUEUE_REJECT);
        struct held held[6];

        options.max = 4;
        options.queue_limit = 1;
        open_with(options);
        for (int i = 0; i < 6; i++) {
                held[i] = held_by(&gate);
                ck_assert_int_eq(lido_submit(ws, &held[i].job), i < 4 ? LIDO_OK : LIDO_EQUEUEFULL);
        }
        gate_await(&gate, 4);
        let_go();
}
END_TEST

START_TEST(a_full_queue_has_the_caller_run)
{
        struct held held[3] = { held_by(NULL), held_by(NULL), held_by(NULL) };

        open_with(bounded(LIDO_QUEUE_CALLER_RUNS));
        for (int i = 0; i < 3; i++)
                must_submit(ws, &held[i]);
        ck_assert_int_eq(held[2].dones, 1);
        ck_assert_uint_eq(held[2].thread, thread_id());
        ck_assert_int_eq(held[0].runs, 0);
        ck_assert_uint_eq(stats_of(ws).caller_ran, 1);
        let_go();
}
END_TEST

START_TEST(a_full_queue_drops_the_oldest_and_tells)
{
        struct held held[3] = { held_by(NULL), held_by(NULL), held_by(NULL) };

        open_with(bounded(LIDO_QUEUE_DROP_OLDEST));
        for (int i = 0; i < 3; i++)
                must_submit(ws, &held[i]);
        ck_assert_int_eq(held[0].dones, 1);
        ck_assert_int_eq(held[0].status, LIDO_ESHED);
        let_go();
        ck_assert_int_eq(held[0].runs, 0);
        ck_assert_int_eq(held[2].runs, 1);
}
END_TEST

START_TEST(a_full_queue_does_not_drop_what_is_to_be_kept)
{
        struct held held[3] = { held_by(NULL), held_by(NULL), held_by(NULL) };

        open_with(bounded(LIDO_QUEUE_DROP_OLDEST));
        for (int i = 0; i < 2; i++) {
                held[i].job.flags = i == 0 ? LIDO_JOB_KEEP : 0;
                held[i].job.priority = i == 0 ? LIDO_PRIORITY_NORMAL : LIDO_PRIORITY_CRITICAL;
                must_submit(ws, &held[i]);
        }
        ck_assert_int_eq(lido_submit(ws, &held[2].job), LIDO_EQUEUEFULL);
        let_go();
}
END_TEST

struct submitter {
        pthread_t thread;
        struct held held;
        _Atomic int rc;
};

static void *submit_it(void *argument)
{
        struct submitter *submitter = argument;

        submitter->rc = lido_submit(ws, &submitter->held.job);
        return NULL;
}

static void submitters_start(struct submitter *submitter, int count)
{
        for (int i = 0; i < count; i++) {
                submitter[i].held = held_by(NULL);
                submitter[i].rc = 1;
                pthread_create(&submitter[i].thread, NULL, submit_it, &submitter[i]);
                await((int)stats_of(ws).waiting == i + 1);
        }
}

START_TEST(submitters_wait_for_room_in_the_order_in_which_they_came)
{
        struct held held[2] = { held_by(NULL), held_by(NULL) };
        struct submitter submitter[3];

        open_with(bounded(LIDO_QUEUE_WAIT));
        must_submit(ws, &held[0]);
        must_submit(ws, &held[1]);
        submitters_start(submitter, 3);
        ck_assert_int_eq(lido_job_cancel(&held[0].job), LIDO_OK);
        await(submitter[0].rc == LIDO_OK);
        ck_assert_uint_eq(stats_of(ws).waiting, 2);
        gate_open(&gate);
        for (int i = 0; i < 3; i++)
                pthread_join(submitter[i].thread, NULL);
        must_drain(ws);
        ck_assert_int_lt(submitter[0].held.order, submitter[1].held.order);
        ck_assert_int_lt(submitter[1].held.order, submitter[2].held.order);
        must_shut_down(ws);
}
END_TEST

START_TEST(a_submitter_does_not_wait_beyond_its_deadline)
{
        struct lido_workers_options options = bounded(LIDO_QUEUE_WAIT);
        struct held held[3] = { held_by(NULL), held_by(NULL), held_by(NULL) };
        uint64_t before;

        options.queue_timeout_ms = 20;
        open_with(options);
        must_submit(ws, &held[0]);
        must_submit(ws, &held[1]);
        before = clock_now_ns();
        ck_assert_int_eq(lido_submit(ws, &held[2].job), LIDO_ETIMEDOUT);
        ck_assert_uint_ge(clock_now_ns() - before, 20 * NS_PER_MS);
        ck_assert_uint_eq(stats_of(ws).waiting, 0);
        let_go();
        ck_assert_int_eq(held[2].runs, 0);
}
END_TEST

START_TEST(a_waiting_submitter_is_told_of_the_end)
{
        struct held held[2] = { held_by(NULL), held_by(NULL) };
        struct submitter submitter[1];

        open_with(bounded(LIDO_QUEUE_WAIT));
        must_submit(ws, &held[0]);
        must_submit(ws, &held[1]);
        submitters_start(submitter, 1);
        ck_assert_int_eq(lido_workers_close(ws), LIDO_OK);
        pthread_join(submitter[0].thread, NULL);
        ck_assert_int_eq(submitter[0].rc, LIDO_ECLOSED);
        let_go();
}
END_TEST

static void submit_from_inside(struct lido_job *job)
{
        struct submitter *submitter = *(struct submitter **)(void *)(job + 1);

        submitter->rc = lido_submit(ws, &submitter->held.job);
}

START_TEST(a_worker_does_not_wait_for_room_in_its_own_queue)
{
        struct {
                struct lido_job job;
                struct submitter *submitter;
        } inside = { .job = { .run = submit_from_inside } };
        struct submitter submitter = { .held = held_by(NULL), .rc = 1 }, line[1];
        struct lido_workers_options options = bounded(LIDO_QUEUE_WAIT);
        struct held filler = held_by(NULL);

        inside.submitter = &submitter;
        open_with(options);
        ck_assert_int_eq(lido_submit(ws, &inside.job), LIDO_OK);
        must_submit(ws, &filler);
        /* the queue is full; as `inside` leaves it there is room for one, which a submitter in line takes */
        submitters_start(line, 1);
        gate_open(&gate);
        pthread_join(line[0].thread, NULL);
        must_drain(ws);
        ck_assert_int_eq(line[0].rc, LIDO_OK);
        ck_assert_int_eq(submitter.rc, LIDO_EDEADLK);
        must_shut_down(ws);
}
END_TEST

/* ---- overload --------------------------------------------------------------------------------------------- */

static void run_for_half_a_millisecond(struct lido_job *job)
{
        uint64_t end = clock_now_ns() + NS_PER_MS / 2;

        while (clock_now_ns() < end)
                cpu_relax();
        held_run(job);
}

START_TEST(a_standing_queue_sheds_and_tells)
{
        struct lido_workers_options options = of_threads(1, 1);
        struct held held[100];
        int shed = 0;

        /* given: 50 ms of work, and an overload rule that finds a queue standing after 5 */
        options.codel_target_ms = 1;
        options.codel_interval_ms = 5;
        ws = must_open(options);
        for (int i = 0; i < 100; i++) {
                held[i] = held_by(NULL);
                held[i].job.run = run_for_half_a_millisecond;
                must_submit(ws, &held[i]);
        }
        /* when */
        must_drain(ws);
        /* then: each was told once, of one end or of the other */
        for (int i = 0; i < 100; i++) {
                shed += held[i].status == LIDO_ESHED;
                ck_assert_int_eq(held[i].dones, 1);
                ck_assert_int_eq(held[i].runs, held[i].status == LIDO_OK);
        }
        ck_assert_int_gt(shed, 0);
        ck_assert_int_lt(shed, 100);
        ck_assert_uint_eq(stats_of(ws).shed, (unsigned)shed);
        must_shut_down(ws);
}
END_TEST

/* ---- completion on a loop --------------------------------------------------------------------------------- */

struct on_loop {
        struct held held;
        struct lido_loop *loop;
        uint32_t done_thread;
};

static void done_on_loop(struct lido_job *job, int status)
{
        struct on_loop *on_loop = (struct on_loop *)(void *)job;

        ck_assert(lido_loop_is_self(on_loop->loop));
        on_loop->done_thread = thread_id();
        held_done(job, status);
}

static struct lido_loop *loop_for(uv_loop_t *uv)
{
        struct lido_loop *loop;

        ck_assert_int_eq(uv_loop_init(uv), 0);
        ck_assert_int_eq(lido_loop_open(&loop, uv), LIDO_OK);
        return loop;
}

static void loop_end(uv_loop_t *uv, struct lido_loop *loop)
{
        lido_loop_close(loop, NULL, NULL);
        uv_run(uv, UV_RUN_DEFAULT);
        ck_assert_int_eq(uv_loop_close(uv), 0);
}

START_TEST(done_is_called_on_the_submitters_loop_which_runs_until_then)
{
        struct on_loop *many = calloc(500, sizeof *many);
        struct lido_workers *two = workers_of(2, 2);
        uv_loop_t uv;
        struct lido_loop *loop = loop_for(&uv);

        for (int i = 0; i < 500; i++) {
                many[i].held = held_by(NULL);
                many[i].loop = many[i].held.job.loop = loop;
                many[i].held.job.done = done_on_loop;
                must_submit(two, &many[i].held);
        }
        uv_run(&uv, UV_RUN_DEFAULT);
        for (int i = 0; i < 500; i++) {
                ck_assert_int_eq(many[i].held.dones, 1);
                ck_assert_uint_eq(many[i].done_thread, thread_id());
        }
        loop_end(&uv, loop);
        must_shut_down(two);
        free(many);
}
END_TEST

START_TEST(ends_that_come_together_are_told_in_one_turn_of_the_loop)
{
        static struct on_loop many[100];
        struct lido_workers *two = workers_of(2, 2);
        uv_loop_t uv;
        struct lido_loop *loop = loop_for(&uv);

        for (int i = 0; i < 100; i++) {
                many[i].held = held_by(NULL);
                many[i].loop = many[i].held.job.loop = loop;
                many[i].held.job.done = done_on_loop;
                must_submit(two, &many[i].held);
        }
        must_drain(two); /* all have run, and told the loop, which has not turned yet */
        uv_run(&uv, UV_RUN_ONCE);
        for (int i = 0; i < 100; i++)
                ck_assert_int_eq(many[i].held.dones, 1);
        loop_end(&uv, loop);
        must_shut_down(two);
}
END_TEST

START_TEST(a_cancelled_job_with_a_loop_is_told_there)
{
        struct on_loop job = { .held = held_by(NULL) };
        uv_loop_t uv;

        job.loop = job.held.job.loop = loop_for(&uv);
        job.held.job.done = done_on_loop;
        open_with(of_threads(1, 1));
        must_submit(ws, &job.held);
        ck_assert_int_eq(lido_job_cancel(&job.held.job), LIDO_OK);
        ck_assert_int_eq(job.held.dones, 0);
        ck_assert_int_eq(lido_job_cancel(&job.held.job), LIDO_EBUSY);
        uv_run(&uv, UV_RUN_DEFAULT);
        ck_assert_int_eq(job.held.status, LIDO_ECANCELED);
        ck_assert_int_eq(job.held.runs, 0);
        loop_end(&uv, job.loop);
        let_go();
}
END_TEST

START_TEST(a_refused_job_does_not_keep_the_loop_open)
{
        struct on_loop job = { .held = held_by(NULL) };
        struct held held[2] = { held_by(NULL), held_by(NULL) };
        uv_loop_t uv;

        job.loop = job.held.job.loop = loop_for(&uv);
        open_with(bounded(LIDO_QUEUE_REJECT));
        must_submit(ws, &held[0]);
        must_submit(ws, &held[1]);
        ck_assert_int_eq(lido_submit(ws, &job.held.job), LIDO_EQUEUEFULL);
        ck_assert_int_eq(uv_run(&uv, UV_RUN_NOWAIT), 0);
        loop_end(&uv, job.loop);
        let_go();
}
END_TEST

int main(void)
{
        return suite_run_with("worker/submit",
                              (const TTest *[]){
                                      a_job_runs_once_and_is_told,
                                      a_pending_job_is_refused_a_second_time,
                                      nonsense_is_refused,
                                      a_job_without_done_may_be_submitted_again_from_its_run,
                                      a_job_without_done_may_be_freed_by_its_run,
                                      a_job_may_be_submitted_again_from_its_done,
                                      a_queued_job_that_is_cancelled_never_runs_and_is_the_callers_at_once,
                                      a_running_job_that_is_cancelled_is_asked_to_stop,
                                      being_asked_to_stop_does_not_outlive_the_run,
                                      jobs_taken_but_not_begun_can_be_cancelled_and_freed,
                                      a_full_queue_refuses,
                                      a_job_for_which_there_is_a_thread_does_not_count_as_queued,
                                      a_full_queue_has_the_caller_run,
                                      a_full_queue_drops_the_oldest_and_tells,
                                      a_full_queue_does_not_drop_what_is_to_be_kept,
                                      submitters_wait_for_room_in_the_order_in_which_they_came,
                                      a_submitter_does_not_wait_beyond_its_deadline,
                                      a_waiting_submitter_is_told_of_the_end,
                                      a_worker_does_not_wait_for_room_in_its_own_queue,
                                      a_standing_queue_sheds_and_tells,
                                      done_is_called_on_the_submitters_loop_which_runs_until_then,
                                      ends_that_come_together_are_told_in_one_turn_of_the_loop,
                                      a_cancelled_job_with_a_loop_is_told_there,
                                      a_refused_job_does_not_keep_the_loop_open,
                                      NULL,
                              },
                              setup, NULL);
}
