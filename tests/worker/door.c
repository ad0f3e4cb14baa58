/* The door: jobs that come in beside the executor's lock. What becomes of them later is no different from others:
 * submit.c, executor.c, storm.c. */
#include "worker/support.h"

enum { CROWD = 8, THREADS = 4, ROUNDS = 4000 };

struct scene {
        struct gate gate;
        struct held blocker, crowd[CROWD];
        struct lido_workers *ws;
};

/* One worker, which is held in a job: nobody to wake, so the door is open. */
static void set_scene(struct scene *scene, uint32_t max)
{
        *scene = (struct scene){ .gate = GATE_INIT };
        scene->blocker = held_by(&scene->gate);
        scene->ws = workers_of(1, max);
        must_submit(scene->ws, &scene->blocker);
        gate_await(&scene->gate, 1);
        for (int i = 0; i < CROWD; i++)
                scene->crowd[i] = held_by(NULL);
        atomic_store(&held_order, 0);
}

static uint32_t at_the_door(struct scene *scene)
{
        return load_relaxed(&scene->ws->door.count);
}

static void submit_crowd(struct scene *scene, int from, int to)
{
        for (int i = from; i < to; i++)
                must_submit(scene->ws, &scene->crowd[i]);
}

static void end_scene(struct scene *scene)
{
        gate_open(&scene->gate);
        must_drain(scene->ws);
        must_shut_down(scene->ws);
}

START_TEST(jobs_come_in_by_the_door_while_nobody_is_to_be_woken)
{
        struct scene scene;

        set_scene(&scene, 1);
        submit_crowd(&scene, 0, CROWD);
        ck_assert_uint_eq(at_the_door(&scene), CROWD);
        end_scene(&scene);
        for (int i = 0; i < CROWD; i++) {
                ck_assert_int_eq(scene.crowd[i].runs, 1);
                ck_assert_int_eq(scene.crowd[i].dones, 1);
        }
}
END_TEST

START_TEST(the_door_is_shut_while_a_thread_may_be_started)
{
        struct scene scene;

        set_scene(&scene, 2);
        ck_assert(!door_is_open(&scene.ws->door));
        must_submit(scene.ws, &scene.crowd[0]);
        await(scene.crowd[0].dones == 1); /* by a second thread: the first is held */
        end_scene(&scene);
}
END_TEST

START_TEST(jobs_keep_their_order_whichever_way_they_come)
{
        struct scene scene;

        set_scene(&scene, 1);
        submit_crowd(&scene, 0, 3);
        scene.crowd[3].job.priority = LIDO_PRIORITY_HIGH; /* by the lock, and ahead of all */
        submit_crowd(&scene, 3, 5);
        (void)stats_of(scene.ws);
        submit_crowd(&scene, 5, CROWD);
        end_scene(&scene);
        ck_assert_int_eq(scene.crowd[3].order, 1);
        for (int i = 0; i < 3; i++)
                ck_assert_int_eq(scene.crowd[i].order, i + 2);
        for (int i = 4; i < CROWD; i++)
                ck_assert_int_eq(scene.crowd[i].order, i + 1);
}
END_TEST

START_TEST(what_stands_at_the_door_is_counted)
{
        struct scene scene;
        struct lido_worker_stats stats;

        set_scene(&scene, 1);
        submit_crowd(&scene, 0, CROWD);
        stats = stats_of(scene.ws);
        ck_assert_uint_eq(stats.queued, CROWD);
        ck_assert_uint_eq(stats.queued_peak, CROWD);
        ck_assert_uint_eq(stats.submitted, CROWD + 1);
        executor_check(scene.ws);
        end_scene(&scene);
        ck_assert_uint_eq(scene.crowd[CROWD - 1].runs, 1);
}
END_TEST

START_TEST(a_job_at_the_door_is_cancelled_exactly)
{
        struct scene scene;

        set_scene(&scene, 1);
        submit_crowd(&scene, 0, 3);
        ck_assert_uint_eq(at_the_door(&scene), 3);
        ck_assert_int_eq(lido_job_cancel(&scene.crowd[1].job), LIDO_OK);
        memset(&scene.crowd[1], 0, sizeof scene.crowd[1]); /* it is ours again */
        end_scene(&scene);
        ck_assert_int_eq(scene.crowd[0].runs, 1);
        ck_assert_int_eq(scene.crowd[1].runs, 0);
        ck_assert_int_eq(scene.crowd[2].runs, 1);
}
END_TEST

START_TEST(a_job_at_the_door_is_not_taken_twice)
{
        struct scene scene;

        set_scene(&scene, 1);
        submit_crowd(&scene, 0, 1);
        ck_assert_int_eq(lido_submit(scene.ws, &scene.crowd[0].job), LIDO_EBUSY);
        ck_assert_uint_eq(at_the_door(&scene), 0); /* the misuse was counted, under the lock */
        ck_assert_int_eq(lido_submit(scene.ws, &scene.crowd[0].job), LIDO_EBUSY);
        ck_assert_uint_eq(stats_of(scene.ws).misused, 2);
        end_scene(&scene);
        ck_assert_int_eq(scene.crowd[0].runs, 1);
}
END_TEST

START_TEST(closing_shuts_the_door_and_keeps_what_stands_there)
{
        struct scene scene;

        set_scene(&scene, 1);
        submit_crowd(&scene, 0, 2);
        ck_assert_int_eq(lido_workers_close(scene.ws), LIDO_OK);
        ck_assert_int_eq(lido_submit(scene.ws, &scene.crowd[2].job), LIDO_ECLOSED);
        ck_assert(!door_is_open(&scene.ws->door));
        end_scene(&scene);
        ck_assert_int_eq(scene.crowd[0].runs, 1);
        ck_assert_int_eq(scene.crowd[1].runs, 1);
        ck_assert_int_eq(scene.crowd[2].runs, 0);
}
END_TEST

START_TEST(shutdown_at_its_deadline_drops_what_stands_at_the_door)
{
        struct scene scene;

        set_scene(&scene, 1);
        submit_crowd(&scene, 0, CROWD);
        ck_assert_int_eq(lido_workers_shutdown(scene.ws, 0), LIDO_ETIMEDOUT);
        for (int i = 0; i < CROWD; i++) {
                ck_assert_int_eq(scene.crowd[i].runs, 0);
                ck_assert_int_eq(scene.crowd[i].dones, 1);
                ck_assert_int_eq(scene.crowd[i].status, LIDO_ECLOSED);
        }
        gate_open(&scene.gate);
        ck_assert_int_eq(lido_workers_shutdown(scene.ws, 10000), LIDO_OK);
}
END_TEST

/* ---- many at once ------------------------------------------------------------------------------------------ */

static struct lido_workers *shared;
static struct lido_job contested;
static _Atomic uint32_t accepted, refused, run_count, done_count;

static void note_run(struct lido_job *job)
{
        (void)job;
        atomic_fetch_add(&run_count, 1);
}

static void note_done(struct lido_job *job, int status)
{
        (void)job, (void)status;
        atomic_fetch_add(&done_count, 1);
}

static void *submit_contested(void *nothing)
{
        for (int i = 0; i < ROUNDS / THREADS; i++) {
                int rc = lido_submit(shared, &contested);

                atomic_fetch_add(rc == LIDO_OK ? &accepted : &refused, 1);
                ck_assert(rc == LIDO_OK || rc == LIDO_EBUSY);
        }
        return nothing;
}

/* Each its own job, again as soon as it has run: the workers fall asleep and are woken all the time. */
static void *submit_own(void *nothing)
{
        for (int i = 0; i < ROUNDS / THREADS; i++) {
                struct held held = held_by(NULL);

                must_submit(shared, &held);
                await(held.dones == 1);
                ck_assert_int_eq(held.runs, 1);
        }
        return nothing;
}

static void *look_on(void *nothing)
{
        for (int i = 0; i < ROUNDS / THREADS; i++) {
                executor_check(shared);
                thread_yield();
        }
        return nothing;
}

static void at_once(void *(*run)(void *), void *(*beside)(void *))
{
        pthread_t threads[THREADS];

        for (int i = 0; i < THREADS; i++)
                ck_assert_int_eq(pthread_create(&threads[i], NULL, i == 0 && beside ? beside : run, NULL), 0);
        for (int i = 0; i < THREADS; i++)
                pthread_join(threads[i], NULL);
}

START_TEST(of_those_who_submit_one_job_at_once_one_succeeds)
{
        shared = workers_of(2, 2);
        memset(&contested, 0, sizeof contested);
        contested.run = note_run;
        contested.done = note_done;
        at_once(submit_contested, NULL);
        must_drain(shared);
        ck_assert_uint_eq(accepted + refused, ROUNDS);
        ck_assert_uint_eq(run_count, accepted);
        ck_assert_uint_eq(done_count, accepted);
        ck_assert_uint_eq(stats_of(shared).submitted, accepted);
        must_shut_down(shared);
}
END_TEST

START_TEST(nobody_sleeps_while_a_job_stands_at_the_door)
{
        shared = workers_of(2, 2);
        at_once(submit_own, look_on);
        must_drain(shared);
        ck_assert_uint_eq(stats_of(shared).submitted, (uint64_t)(THREADS - 1) * (ROUNDS / THREADS));
        must_shut_down(shared);
}
END_TEST

int main(void)
{
        return suite_run("worker/door", (const TTest *[]){
                                                jobs_come_in_by_the_door_while_nobody_is_to_be_woken,
                                                the_door_is_shut_while_a_thread_may_be_started,
                                                jobs_keep_their_order_whichever_way_they_come,
                                                what_stands_at_the_door_is_counted,
                                                a_job_at_the_door_is_cancelled_exactly,
                                                a_job_at_the_door_is_not_taken_twice,
                                                closing_shuts_the_door_and_keeps_what_stands_there,
                                                shutdown_at_its_deadline_drops_what_stands_at_the_door,
                                                of_those_who_submit_one_job_at_once_one_succeeds,
                                                nobody_sleeps_while_a_job_stands_at_the_door,
                                                NULL,
                                        });
}
