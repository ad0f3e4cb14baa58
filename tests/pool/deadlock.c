/* A proof of a deadlock is one: threads whose holds are short are never told that waiting could not end. */
#include "support/suite.h"

#include <stdlib.h>

#include "base/clock.h"
#include "support/toys.h"

#define THREADS 6
#define ROUNDS 1000

static struct lido_pool *pool;
static _Atomic int unexpected;

static void *borrow_and_return(void *argument)
{
        (void)argument;
        for (int i = 0; i < ROUNDS; i++) {
                lido_lease lease;
                int rc = lido_acquire(pool, 20000, &lease);

                if (rc != LIDO_OK) {
                        atomic_store(&unexpected, rc);
                        return NULL;
                }
                for (uint64_t end = clock_now_ns() + 40 * NS_PER_US; clock_now_ns() < end;)
                        ; /* so long that the object goes from hand to hand */
                lido_release(lease);
        }
        return NULL;
}

START_TEST(threads_that_take_turns_are_never_taken_for_deadlocked)
{
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        struct lido_service *service;
        static struct toys toys;
        struct lido_factory factory = toys_factory(&toys);
        pthread_t thread[THREADS];

        options.max = 1;
        atomic_store(&unexpected, LIDO_OK);
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
        ck_assert_int_eq(lido_pool_open(&pool, service, &factory, &options), LIDO_OK);
        for (int i = 0; i < THREADS; i++)
                pthread_create(&thread[i], NULL, borrow_and_return, NULL);
        for (int i = 0; i < THREADS; i++)
                pthread_join(thread[i], NULL);
        ck_assert_str_eq(lido_err_name(atomic_load(&unexpected)), "LIDO_OK");
        lido_pool_free(pool);
        lido_service_stop(service, 1000);
}
END_TEST

START_TEST(a_thread_that_waits_for_what_it_holds_alone_is_told)
{
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        struct lido_service *service;
        static struct toys toys;
        struct lido_factory factory = toys_factory(&toys);
        lido_lease lease, other;

        options.max = 1;
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
        ck_assert_int_eq(lido_pool_open(&pool, service, &factory, &options), LIDO_OK);
        ck_assert_int_eq(lido_acquire(pool, 20000, &lease), LIDO_OK);
        ck_assert_int_eq(lido_acquire(pool, 20000, &other), LIDO_EDEADLK);
        lido_release(lease);
        ck_assert_int_eq(lido_acquire(pool, 20000, &lease), LIDO_OK);
        lido_release(lease);
        lido_pool_free(pool);
        lido_service_stop(service, 1000);
}
END_TEST

int main(void)
{
        return suite_run("pool/deadlock", (const TTest *[]){
                                                  threads_that_take_turns_are_never_taken_for_deadlocked,
                                                  a_thread_that_waits_for_what_it_holds_alone_is_told,
                                                  NULL,
                                          });
}
