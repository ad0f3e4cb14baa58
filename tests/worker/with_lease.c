/* Jobs that wait for an object of a pool: queued with their lease, told why there is none, cancelled at any
 * moment. */
#include "worker/support.h"

#include "lido/service.h"
#include "lido/stats.h"

static struct lido_service *service;
static struct lido_pool *pool;
static struct lido_workers *ws;
static int object;

static void open_object(lido_op op, void *context)
{
        (void)context;
        lido_op_opened(op, &object);
}

static void close_object(lido_op op, void *it, void *context)
{
        (void)it;
        (void)context;
        lido_op_done(op, LIDO_OK);
}

static void setup(void)
{
        struct lido_factory factory = LIDO_FACTORY_INIT;
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;

        factory.kind = "thing";
        factory.open = open_object;
        factory.close = close_object;
        options.max = 1;
        options.start = LIDO_START_WARM;
        options.min = 1;
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
        ck_assert_int_eq(lido_pool_open(&pool, service, &factory, &options), LIDO_OK);
        ws = workers_of(1, 2);
}

static void finish(void)
{
        struct lido_stats stats = LIDO_STATS_INIT;

        must_shut_down(ws);
        ck_assert_int_eq(lido_pool_stats(pool, &stats), LIDO_OK);
        ck_assert_uint_eq(stats.leased, 0);
        ck_assert_uint_eq(stats.waiting, 0);
        lido_pool_free(pool);
        lido_service_stop(service, 5000);
}

struct using {
        struct lido_lease_job lease_job;
        _Atomic int runs, dones, status;
        bool keeps;
        lido_lease kept;
};

static void use(struct lido_job *job)
{
        struct using *using = (struct using *)(void *)job;

        ck_assert_ptr_eq(lido_object(using->lease_job.lease), &object);
        if (using->keeps) {
                using->kept = using->lease_job.lease;
                using->lease_job.lease.slot = NULL;
        }
        atomic_fetch_add(&using->runs, 1);
}

static void used(struct lido_job *job, int status)
{
        struct using *using = (struct using *)(void *)job;

        ck_assert_ptr_eq(job->run, use);
        atomic_store(&using->status, status);
        atomic_fetch_add(&using->dones, 1);
}

static struct using user(void)
{
        struct using using;

        memset(&using, 0, sizeof using);
        using.lease_job.job.run = use;
        using.lease_job.job.done = used;
        using.status = 1;
        return using;
}

static void must_use(struct using *using)
{
        ck_assert_int_eq(lido_submit_with_lease(ws, pool, &using->lease_job), LIDO_OK);
}

static lido_lease must_acquire(void)
{
        lido_lease lease;

        ck_assert_int_eq(lido_acquire(pool, 5000, &lease), LIDO_OK);
        return lease;
}

START_TEST(a_job_runs_with_its_lease_which_is_released_after_it)
{
        struct using using = user();

        for (int i = 1; i <= 3; i++) {
                must_use(&using);
                await(atomic_load(&using.dones) == i);
                ck_assert_int_eq(using.status, LIDO_OK);
        }
        finish();
        ck_assert_int_eq(using.runs, 3);
}
END_TEST

START_TEST(no_thread_waits_for_a_lease)
{
        lido_lease lease = must_acquire();
        struct using using[10];
        struct held other = held_by(NULL);

        for (int i = 0; i < 10; i++) {
                using[i] = user();
                must_use(&using[i]);
        }
        must_submit(ws, &other);
        await(atomic_load(&other.dones) == 1);
        await(stats_of(ws).busy == 0);
        for (int i = 0; i < 10; i++)
                ck_assert_int_eq(using[i].runs, 0);
        ck_assert_int_eq(lido_workers_drain(ws, 5), LIDO_ETIMEDOUT);
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        must_drain(ws);
        for (int i = 0; i < 10; i++)
                ck_assert_int_eq(using[i].runs, 1);
        finish();
}
END_TEST

START_TEST(a_job_may_keep_its_lease)
{
        struct using using = user();

        using.keeps = true;
        must_use(&using);
        must_drain(ws);
        ck_assert_int_eq(lido_release(using.kept), LIDO_OK);
        finish();
}
END_TEST

START_TEST(a_job_that_gets_no_lease_in_time_is_told)
{
        lido_lease lease = must_acquire();
        struct using using = user();

        using.lease_job.timeout_ms = 20;
        must_use(&using);
        await(atomic_load(&using.dones) == 1);
        ck_assert_int_eq(using.status, LIDO_ETIMEDOUT);
        ck_assert_int_eq(using.runs, 0);
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        finish();
}
END_TEST

START_TEST(a_job_that_waits_can_be_cancelled)
{
        lido_lease lease = must_acquire();
        struct using using = user();

        must_use(&using);
        ck_assert_int_eq(lido_submit_with_lease(ws, pool, &using.lease_job), LIDO_EBUSY);
        ck_assert_int_eq(lido_job_cancel(&using.lease_job.job), LIDO_OK);
        await(atomic_load(&using.dones) == 1);
        ck_assert_int_eq(using.status, LIDO_ECANCELED);
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        must_use(&using);
        must_drain(ws);
        ck_assert_int_eq(using.runs, 1);
        finish();
}
END_TEST

START_TEST(a_job_cancelled_with_its_lease_gives_it_back)
{
        struct gate gate = GATE_INIT;
        struct held holder[2] = { held_by(&gate), held_by(&gate) };
        struct using using = user();

        for (int i = 0; i < 2; i++)
                must_submit(ws, &holder[i]);
        gate_await(&gate, 2);
        must_use(&using);
        await(stats_of(ws).queued == 1);
        ck_assert_int_eq(lido_job_cancel(&using.lease_job.job), LIDO_OK);
        ck_assert_int_eq(using.status, LIDO_ECANCELED);
        ck_assert_int_eq(lido_release(must_acquire()), LIDO_OK);
        gate_open(&gate);
        must_drain(ws);
        finish();
}
END_TEST

START_TEST(a_group_cancels_those_that_wait_too)
{
        lido_lease lease = must_acquire();
        struct using using[5];
        struct lido_group group;

        lido_group_init(&group, ws);
        for (int i = 0; i < 5; i++) {
                using[i] = user();
                using[i].lease_job.job.group = &group;
                must_use(&using[i]);
        }
        ck_assert_int_eq(lido_group_cancel(&group), 5);
        ck_assert_int_eq(lido_group_wait(&group, 5000), LIDO_OK);
        for (int i = 0; i < 5; i++)
                ck_assert_int_eq(using[i].status, LIDO_ECANCELED);
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        finish();
}
END_TEST

START_TEST(closing_the_executor_ends_those_that_wait)
{
        lido_lease lease = must_acquire();
        struct using using = user();

        must_use(&using);
        ck_assert_int_eq(lido_workers_close(ws), LIDO_OK);
        await(atomic_load(&using.dones) == 1);
        ck_assert_int_eq(using.status, LIDO_ECLOSED);
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        finish();
}
END_TEST

START_TEST(nonsense_is_refused)
{
        struct using using = user();

        using.lease_job.job.done = NULL;
        ck_assert_int_eq(lido_submit_with_lease(ws, pool, &using.lease_job), LIDO_EINVAL);
        using = user();
        ck_assert_int_eq(lido_submit_with_lease(ws, NULL, &using.lease_job), LIDO_EINVAL);
        using.lease_job.timeout_ms = -5;
        ck_assert_int_eq(lido_submit_with_lease(ws, pool, &using.lease_job), LIDO_EINVAL);
        finish();
}
END_TEST

static void *cancel_it(void *argument)
{
        lido_job_cancel(&((struct using *)argument)->lease_job.job);
        return NULL;
}

START_TEST(a_cancel_that_races_with_the_lease_ends_the_job_once)
{
        for (int round = 0; round < 300; round++) {
                lido_lease lease = must_acquire();
                struct using *using = malloc(sizeof *using);
                pthread_t canceller;

                *using = user();
                must_use(using);
                pthread_create(&canceller, NULL, cancel_it, using);
                if (round % 2)
                        thread_yield();
                ck_assert_int_eq(lido_release(lease), LIDO_OK);
                pthread_join(canceller, NULL);
                await(atomic_load(&using->dones) == 1);
                ck_assert_int_eq(using->runs, using->status == LIDO_OK);
                must_drain(ws);
                free(using);
        }
        finish();
}
END_TEST

int main(void)
{
        return suite_run_with("worker/with_lease",
                              (const TTest *[]){
                                      a_job_runs_with_its_lease_which_is_released_after_it,
                                      no_thread_waits_for_a_lease,
                                      a_job_may_keep_its_lease,
                                      a_job_that_gets_no_lease_in_time_is_told,
                                      a_job_that_waits_can_be_cancelled,
                                      a_job_cancelled_with_its_lease_gives_it_back,
                                      a_group_cancels_those_that_wait_too,
                                      closing_the_executor_ends_those_that_wait,
                                      nonsense_is_refused,
                                      a_cancel_that_races_with_the_lease_ends_the_job_once,
                                      NULL,
                              },
                              setup, NULL);
}
