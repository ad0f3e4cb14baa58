/* Several leases at once. */
#include "support/suite.h"

#include <stdlib.h>

#include "pool/pool.h"
#include "support/toys.h"

static struct lido_service *service;
static struct toys toys[3];
static struct lido_pool *pool[3];

static void open_pools(uint32_t max, struct lido_budget *budget)
{
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;

        options.max = max;
        options.budget = budget;
        options.nested = LIDO_NESTED_STRICT;
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
        for (int i = 0; i < 3; i++) {
                struct lido_factory factory = toys_factory(&toys[i]);

                ck_assert_int_eq(lido_pool_open(&pool[i], service, &factory, &options), LIDO_OK);
        }
}

static void close_pools(void)
{
        for (int i = 0; i < 3; i++) {
                slots_check(pool[i], false);
                lido_pool_free(pool[i]);
        }
        ck_assert_int_eq(lido_service_stop(service, 1000), LIDO_OK);
        for (int i = 0; i < 3; i++)
                ck_assert_uint_eq(atomic_load(&toys[i].live), 0);
}

static void release_all(struct lido_many *many, int count)
{
        for (int i = 0; i < count; i++)
                ck_assert_int_eq(lido_release(many[i].lease), LIDO_OK);
}

START_TEST(all_come_each_of_its_pool)
{
        open_pools(2, NULL);
        struct lido_many many[] = { { pool[2], { 0, 0 } }, { pool[0], { 0, 0 } }, { pool[2], { 0, 0 } } };
        ck_assert_int_eq(lido_acquire_many(many, 3, 20000), LIDO_OK);
        for (int i = 0; i < 3; i++)
                ck_assert_ptr_eq(lido_lease_pool(many[i].lease), many[i].pool);
        ck_assert_ptr_ne(lido_object(many[0].lease), lido_object(many[2].lease));
        release_all(many, 3);
        close_pools();
}
END_TEST

START_TEST(on_failure_nothing_stays_held)
{
        lido_lease lease[2];
        struct lido_stats stats = LIDO_STATS_INIT;

        open_pools(1, NULL);
        struct lido_many many[] = { { pool[0], { 0, 0 } }, { pool[1], { 0, 0 } }, { pool[2], { 0, 0 } } };
        for (int held = 0; held < 3; held++) {
                ck_assert_int_eq(lido_acquire(pool[held], 20000, &lease[0]), LIDO_OK);
                ck_assert_int_eq(lido_acquire_many(many, 3, 0), LIDO_EEXHAUSTED);
                for (int i = 0; i < 3; i++) {
                        ck_assert_ptr_null(many[i].lease.slot);
                        lido_pool_stats(pool[i], &stats);
                        ck_assert_uint_eq(stats.leased, i == held);
                }
                lido_release(lease[0]);
        }
        close_pools();
}
END_TEST

START_TEST(one_deadline_counts_for_all)
{
        lido_lease lease;
        long began;

        open_pools(1, NULL);
        struct lido_many many[] = { { pool[0], { 0, 0 } }, { pool[1], { 0, 0 } } };
        ck_assert_int_eq(lido_acquire(pool[1], 20000, &lease), LIDO_OK);
        lido_transfer(lease);
        began = toys_now_ms();
        int rc = lido_acquire_many(many, 2, 30);
        ck_assert_msg(rc == LIDO_ETIMEDOUT || rc == LIDO_EDEADLK, "%s", lido_err_name(rc));
        ck_assert_int_lt(toys_now_ms() - began, 10000);
        lido_release(lease);
        ck_assert_int_eq(lido_acquire_many(many, 2, 20000), LIDO_OK);
        release_all(many, 2);
        close_pools();
}
END_TEST

START_TEST(what_can_never_be_is_refused)
{
        open_pools(1, NULL);
        struct lido_many many[] = { { pool[0], { 0, 0 } }, { pool[0], { 0, 0 } }, { NULL, { 0, 0 } } };
        ck_assert_int_eq(lido_acquire_many(many, 2, 10), LIDO_EINVAL);
        ck_assert_int_eq(lido_acquire_many(many, 0, 10), LIDO_EINVAL);
        ck_assert_int_eq(lido_acquire_many(&many[2], 1, 10), LIDO_EINVAL);
        ck_assert_int_eq(lido_acquire_many(NULL, 1, 10), LIDO_EINVAL);
        ck_assert_int_eq(lido_acquire_many(many, 1, -7), LIDO_EINVAL);
        close_pools();
}
END_TEST

/* ---- no circles --------------------------------------------------------------------------------------------- */

#define ROUNDS 600
#define THREADS 4
static uint32_t wanted;

static void *fill_hands(void *argument)
{
        unsigned seed = (unsigned)(uintptr_t)argument + 1;

        for (int i = 0; i < ROUNDS; i++) {
                struct lido_many many[3];
                uint32_t first = rand_r(&seed) % 3;

                /* some name the pools forwards and some backwards, from anywhere */
                for (uint32_t k = 0; k < wanted; k++)
                        many[k].pool = pool[(seed & 64 ? first + k : first + 3 - k % 3) % 3];
                if (lido_acquire_many(many, wanted, 20000) != LIDO_OK)
                        return &wanted;
                toys_yield();
                for (uint32_t k = 0; k < wanted; k++)
                        lido_release(many[k].lease);
        }
        return NULL;
}

static void let_them_fill_their_hands(void)
{
        pthread_t thread[THREADS];
        void *said;

        for (uintptr_t i = 0; i < THREADS; i++)
                pthread_create(&thread[i], NULL, fill_hands, (void *)i);
        for (int i = 0; i < THREADS; i++) {
                pthread_join(thread[i], &said);
                ck_assert_ptr_null(said);
        }
}

START_TEST(opposite_orders_never_deadlock)
{
        open_pools(1, NULL);
        wanted = 3;
        let_them_fill_their_hands();
        close_pools();
}
END_TEST

static void *fill_from_one(void *argument)
{
        (void)argument;
        for (int i = 0; i < ROUNDS; i++) {
                struct lido_many many[] = { { pool[0], { 0, 0 } }, { pool[0], { 0, 0 } } };

                if (lido_acquire_many(many, 2, 20000) != LIDO_OK)
                        return &wanted;
                lido_release(many[1].lease);
                lido_release(many[0].lease);
        }
        return NULL;
}

START_TEST(two_of_one_pool_never_deadlock)
{
        pthread_t thread[THREADS];
        void *said;

        open_pools(2, NULL);
        for (int i = 0; i < THREADS; i++)
                pthread_create(&thread[i], NULL, fill_from_one, NULL);
        for (int i = 0; i < THREADS; i++) {
                pthread_join(thread[i], &said);
                ck_assert_ptr_null(said);
        }
        close_pools();
}
END_TEST

START_TEST(pools_of_a_budget_too_small_for_two_never_deadlock)
{
        struct lido_budget *budget;

        ck_assert_int_eq(lido_budget_new(&budget, 3), LIDO_OK);
        open_pools(2, budget);
        wanted = 2;
        let_them_fill_their_hands();
        close_pools();
        lido_budget_free(budget);
}
END_TEST

int main(void)
{
        return suite_run("pool/many", (const TTest *[]){
                                              all_come_each_of_its_pool,
                                              on_failure_nothing_stays_held,
                                              one_deadline_counts_for_all,
                                              what_can_never_be_is_refused,
                                              opposite_orders_never_deadlock,
                                              two_of_one_pool_never_deadlock,
                                              pools_of_a_budget_too_small_for_two_never_deadlock,
                                              NULL,
                                      });
}
