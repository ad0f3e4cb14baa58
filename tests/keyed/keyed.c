/* Keyed pools: finding, making and forgetting. That budgets are fair and lose nothing is tests/pool/budget.c. */
#include "support/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "keyed/keyed.h"
#include "support/toys.h"

static struct lido_service *service;
static struct lido_keyed *keyed;
static struct toys toys;

static void set_up(void)
{
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
}

static void tear_down(void)
{
        lido_keyed_free(keyed);
        keyed = NULL;
        ck_assert_int_eq(lido_service_stop(service, 1000), LIDO_OK);
        ck_assert_uint_eq(atomic_load(&toys.live), 0);
        ck_assert_uint_eq(atomic_load(&toys.ended), 1);
}

/* Keyed pools of `total` objects, which forget a key at once when more than `spare` have none. */
static void keyed_of(uint32_t total, uint32_t spare, const struct lido_pool_options *each)
{
        struct lido_keyed_options options = LIDO_KEYED_OPTIONS_INIT;
        struct lido_factory factory = toys_factory(&toys);

        options.total = total;
        options.spare_keys = spare;
        options.each = each;
        options.forget_after_ms = LIDO_NEVER;
        ck_assert_int_eq(lido_keyed_open(&keyed, service, &factory, &options), LIDO_OK);
}

static struct lido_keyed_stats stats(void)
{
        struct lido_keyed_stats s = LIDO_KEYED_STATS_INIT;

        ck_assert_int_eq(lido_keyed_stats(keyed, &s), LIDO_OK);
        return s;
}

static struct lido_stats stats_of(const char *key)
{
        struct lido_stats s = LIDO_STATS_INIT;

        ck_assert_int_eq(lido_keyed_key_stats(keyed, key, strlen(key), &s), LIDO_OK);
        return s;
}

static lido_lease must_acquire(const char *key)
{
        lido_lease lease = { NULL, 0 };

        ck_assert_int_eq(lido_keyed_acquire(keyed, LIDO_WISH(key, strlen(key), 20000), &lease), LIDO_OK);
        return lease;
}

static void use(const char *key)
{
        ck_assert_int_eq(lido_release(must_acquire(key)), LIDO_OK);
}

START_TEST(each_key_has_objects_of_its_own)
{
        keyed_of(10, 0, NULL);
        lido_lease a = must_acquire("a");
        void *object_of_a = lido_object(a);
        lido_release(a);
        lido_lease b = must_acquire("b");
        ck_assert_ptr_ne(lido_object(b), object_of_a);
        a = must_acquire("a");
        ck_assert_ptr_eq(lido_object(a), object_of_a);
        ck_assert_uint_eq(atomic_load(&toys.opened), 2);
        ck_assert_uint_eq(stats().keys, 2);
        lido_release(a);
        lido_release(b);
        keyed_check(keyed);
}
END_TEST

START_TEST(a_key_may_be_any_bytes_or_none)
{
        static char longest[LIDO_KEY_MOST + 1];
        lido_lease lease;

        keyed_of(10, 0, NULL);
        ck_assert_int_eq(lido_keyed_acquire(keyed, LIDO_WISH("a\0b", 3, 20000), &lease), LIDO_OK);
        lido_release(lease);
        ck_assert_int_eq(lido_keyed_acquire(keyed, LIDO_WISH("a\0c", 3, 20000), &lease), LIDO_OK);
        lido_release(lease);
        ck_assert_int_eq(lido_keyed_acquire(keyed, LIDO_WISH(NULL, 0, 20000), &lease), LIDO_OK);
        lido_release(lease);
        ck_assert_int_eq(lido_keyed_acquire(keyed, LIDO_WISH(longest, LIDO_KEY_MOST, 20000), &lease), LIDO_OK);
        lido_release(lease);
        ck_assert_uint_eq(stats().keys, 4);
        ck_assert_int_eq(lido_keyed_acquire(keyed, LIDO_WISH(longest, sizeof longest, 20000), &lease), LIDO_EINVAL);
        ck_assert_int_eq(lido_keyed_acquire(keyed, LIDO_WISH(NULL, 1, 20000), &lease), LIDO_EINVAL);
}
END_TEST

/* ---- the factory learns the key ----------------------------------------------------------------------------- */

static char opened_key[16], closed_key[16];

static void copy_key(lido_op op, char *text)
{
        size_t size = 0;
        const void *key = lido_op_key(op, &size);

        ck_assert_ptr_nonnull(key);
        memcpy(text, key, size);
        text[size] = '\0';
}

static void open_and_tell(lido_op op, void *context)
{
        (void)context;
        copy_key(op, opened_key);
        lido_op_opened(op, malloc(1));
}

static void close_and_tell(lido_op op, void *object, void *context)
{
        (void)context;
        copy_key(op, closed_key);
        free(object);
        lido_op_done(op, LIDO_OK);
}

START_TEST(hooks_and_holders_learn_the_key)
{
        struct lido_factory factory = LIDO_FACTORY_INIT;
        size_t size = 0;

        keyed_of(1, 0, NULL);
        lido_keyed_free(keyed);
        factory.open = open_and_tell;
        factory.close = close_and_tell;
        ck_assert_int_eq(lido_keyed_open(&keyed, service, &factory, NULL), LIDO_OK);
        lido_lease lease = must_acquire("tenant 7");
        ck_assert_str_eq(opened_key, "tenant 7");
        ck_assert_mem_eq(lido_lease_key(lease, &size), "tenant 7", 8);
        ck_assert_uint_eq(size, 8);
        lido_release(lease);
        ck_assert_ptr_null(lido_lease_key(lease, &size));
        ck_assert_int_eq(lido_keyed_close(keyed, 1000), LIDO_OK);
        ck_assert_int_eq(lido_keyed_drain(keyed, 20000), LIDO_OK);
        ck_assert_str_eq(closed_key, "tenant 7");
}
END_TEST

/* ---- limits ------------------------------------------------------------------------------------------------- */

START_TEST(a_key_has_no_more_than_its_max_and_all_no_more_than_the_total)
{
        struct lido_pool_options each = LIDO_POOL_OPTIONS_INIT;
        lido_lease lease;

        each.max = 2;
        keyed_of(3, 0, &each);
        lido_lease a = must_acquire("a"), b = must_acquire("a");
        ck_assert_int_eq(lido_keyed_acquire(keyed, LIDO_WISH("a", 1, 0), &lease), LIDO_EEXHAUSTED);
        lido_lease c = must_acquire("b");
        ck_assert_int_eq(lido_keyed_acquire(keyed, LIDO_WISH("c", 1, 20), &lease), LIDO_ETIMEDOUT);
        ck_assert_uint_le(atomic_load(&toys.most), 3);
        lido_release(a);
        lido_release(b);
        lido_release(c);
}
END_TEST

START_TEST(the_least_recently_used_key_is_robbed)
{
        char key[] = "0";

        keyed_of(4, 0, NULL);
        for (key[0] = '0'; key[0] < '4'; key[0]++)
                use(key);
        use("0"); /* now 1 is the one used least recently, then 2 */
        use("x");
        ck_assert_uint_eq(stats_of("1").closed[LIDO_CLOSE_STOLEN] + (stats_of("1").opened == 0), 1);
        ck_assert_uint_eq(stats_of("0").idle, 1);
        ck_assert_uint_eq(stats_of("2").idle, 1);
        use("y");
        ck_assert_uint_eq(stats_of("0").idle, 1);
        ck_assert_uint_eq(stats_of("2").idle, 0);
        ck_assert_uint_eq(stats_of("3").idle, 1);
        ck_assert_uint_le(atomic_load(&toys.most), 4);
}
END_TEST

struct asker {
        pthread_t thread;
        char key[8];
        unsigned place;
};
static _Atomic unsigned order;

static void *ask(void *argument)
{
        struct asker *asker = argument;
        lido_lease lease = must_acquire(asker->key);

        asker->place = atomic_fetch_add(&order, 1);
        lido_release(lease);
        return NULL;
}

START_TEST(freed_capacity_goes_to_the_key_that_has_waited_longest)
{
        struct asker asker[6];
        const int number = (int)(sizeof asker / sizeof asker[0]);

        keyed_of(1, 0, NULL);
        atomic_store(&order, 0);
        lido_lease lease = must_acquire("busy");
        for (int i = 0; i < number; i++) {
                snprintf(asker[i].key, sizeof asker[i].key, "%d", (i * 5 + 3) % number);
                pthread_create(&asker[i].thread, NULL, ask, &asker[i]);
                until(stats().budget.waiting == (uint32_t)i + 1);
        }
        lido_release(lease);
        for (int i = 0; i < number; i++) {
                pthread_join(asker[i].thread, NULL);
                ck_assert_uint_eq(asker[i].place, i);
        }
        ck_assert_uint_eq(atomic_load(&toys.most), 1);
}
END_TEST

/* ---- forgetting --------------------------------------------------------------------------------------------- */

START_TEST(a_key_without_objects_is_forgotten_when_there_are_too_many)
{
        char key[16];

        keyed_of(3, 2, NULL);
        for (int i = 0; i < 50; i++) {
                snprintf(key, sizeof key, "%d", i);
                use(key);
        }
        until(stats().keys <= 5);
        ck_assert_uint_eq(stats().seen, 50);
        until(stats().forgotten >= 45);
        ck_assert_uint_eq(stats_of("0").opened + stats_of("49").opened, stats_of("0").opened + 1);
        keyed_check(keyed);
}
END_TEST

START_TEST(a_key_that_was_not_used_for_long_is_forgotten_with_its_min)
{
        struct lido_keyed_options options = LIDO_KEYED_OPTIONS_INIT;
        struct lido_pool_options each = LIDO_POOL_OPTIONS_INIT;
        struct lido_factory factory = toys_factory(&toys);

        each.min = 2;
        options.each = &each;
        options.forget_after_ms = 5;
        ck_assert_int_eq(lido_keyed_open(&keyed, service, &factory, &options), LIDO_OK);
        lido_lease lease = must_acquire("a");
        use("b");
        until(stats().keys == 1); /* b goes, a is held */
        ck_assert_uint_eq(stats().forgotten, 1);
        lido_release(lease);
        until(stats().keys == 0);
        until(atomic_load(&toys.live) == 0);
        use("a");
}
END_TEST

START_TEST(a_forgotten_key_comes_back_as_new)
{
        keyed_of(1, 1, NULL);
        for (int i = 0; i < 30; i++) {
                use("a");
                use("b");
                use("c");
        }
        ck_assert_uint_le(atomic_load(&toys.most), 1);
        until(stats().keys <= 2);
}
END_TEST

#define RACERS 4
#define RACES 1500

static void *race(void *argument)
{
        unsigned seed = (unsigned)(uintptr_t)argument + 1;

        for (int i = 0; i < RACES; i++) {
                char key[8];
                lido_lease lease;
                int64_t timeout_ms = rand_r(&seed) % 4 ? 20000 : 0;
                int rc;

                snprintf(key, sizeof key, "%d", rand_r(&seed) % 6);
                rc = lido_keyed_acquire(keyed, LIDO_WISH(key, strlen(key), timeout_ms), &lease);
                if (rc != LIDO_OK) {
                        if (timeout_ms != 0 || rc != LIDO_EEXHAUSTED) {
                                fprintf(stderr, "%s\n", lido_err_name(rc));
                                abort();
                        }
                        continue;
                }
                if (rand_r(&seed) % 3)
                        lido_release(lease);
                else
                        lido_discard(lease);
        }
        return NULL;
}

START_TEST(nobody_is_turned_away_while_keys_are_forgotten)
{
        struct lido_keyed_options options = LIDO_KEYED_OPTIONS_INIT;
        struct lido_factory factory = toys_factory(&toys);
        pthread_t thread[RACERS];

        options.total = 3;
        options.spare_keys = 1;
        options.forget_after_ms = 1;
        ck_assert_int_eq(lido_keyed_open(&keyed, service, &factory, &options), LIDO_OK);
        for (uintptr_t i = 0; i < RACERS; i++)
                pthread_create(&thread[i], NULL, race, (void *)i);
        for (int i = 0; i < RACERS; i++)
                pthread_join(thread[i], NULL);
        ck_assert_uint_gt(stats().forgotten, 10);
        ck_assert_uint_le(atomic_load(&toys.most), 3);
}
END_TEST

START_TEST(many_keys_seen_cost_no_more_memory_than_those_alive)
{
        const char *text = getenv("LIDO_TEST_KEYS");
        unsigned long number = text ? strtoul(text, NULL, 10) : 3000;
        uint32_t most = 0;

        keyed_of(100, 100, NULL);
        for (unsigned long i = 0; i < number; i++) {
                struct lido_keyed_stats s;
                char key[32];

                snprintf(key, sizeof key, "key %lu", i);
                use(key);
                if (i % 64 != 0)
                        continue;
                s = stats();
                most = most < s.keys ? s.keys : most;
        }
        ck_assert_uint_eq(stats().seen, number);
        ck_assert_uint_le(most, 100 + 100 + 32); /* alive, spare, and those about to be forgotten */
        ck_assert_uint_le(atomic_load(&toys.most), 100);
        keyed_check(keyed);
}
END_TEST

/* ---- loops -------------------------------------------------------------------------------------------------- */

static int answers;
static lido_lease answered;

static void on_answer(struct lido_request *request, int status, lido_lease lease)
{
        answers += status == LIDO_OK ? 1 : 100;
        answered = lease;
        *(int *)request->data = status;
}

START_TEST(a_loop_acquires_by_key)
{
        int status = 1;
        struct lido_request request = { .data = &status };
        struct lido_loop *loop;
        uv_loop_t uv;

        keyed_of(1, 1, NULL);
        answers = 0;
        uv_loop_init(&uv);
        ck_assert_int_eq(lido_loop_open(&loop, &uv), LIDO_OK);
        request.loop = loop;
        lido_lease lease = must_acquire("a");
        ck_assert_int_eq(lido_keyed_acquire_async(keyed, LIDO_WISH("b", 1, 20000), &request, on_answer), LIDO_OK);
        until(stats().budget.waiting == 1);
        lido_release(lease);
        uv_run(&uv, UV_RUN_DEFAULT);
        ck_assert_int_eq(answers, 1);
        ck_assert_int_eq(status, LIDO_OK);
        lido_release(answered);
        lido_loop_close(loop, NULL, NULL);
        uv_run(&uv, UV_RUN_DEFAULT);
        uv_loop_close(&uv);
}
END_TEST

static _Atomic int told = 1;

static void on_told(struct lido_request *request, int status, lido_lease lease)
{
        (void)request;
        lido_release(lease);
        atomic_store(&told, status);
}

START_TEST(one_without_a_loop_is_told_by_key)
{
        struct lido_request request = { .data = NULL };

        keyed_of(1, 1, NULL);
        lido_lease lease = must_acquire("a");
        ck_assert_int_eq(lido_keyed_acquire_notify(keyed, LIDO_WISH("b", 1, 20000), &request, on_told), LIDO_OK);
        lido_release(lease);
        until(atomic_load(&told) != 1);
        ck_assert_int_eq(atomic_load(&told), LIDO_OK);
}
END_TEST

/* ---- the end ------------------------------------------------------------------------------------------------ */

static void *wait_for_busy(void *argument)
{
        lido_lease lease;

        *(_Atomic int *)argument = lido_keyed_acquire(keyed, LIDO_WISH("b", 1, 20000), &lease);
        return NULL;
}

START_TEST(closing_fails_waiters_and_refuses_newcomers)
{
        pthread_t thread;
        _Atomic int status = 1;
        lido_lease lease, other;

        keyed_of(1, 1, NULL);
        lease = must_acquire("a");
        pthread_create(&thread, NULL, wait_for_busy, &status);
        until(stats().budget.waiting == 1);
        ck_assert_int_eq(lido_keyed_close(keyed, LIDO_NEVER), LIDO_OK);
        pthread_join(thread, NULL);
        ck_assert_int_eq(status, LIDO_ECLOSED);
        ck_assert_int_eq(lido_keyed_acquire(keyed, LIDO_WISH("a", 1, 20000), &other), LIDO_ECLOSED);
        ck_assert_int_eq(lido_keyed_acquire(keyed, LIDO_WISH("new", 3, 20000), &other), LIDO_ECLOSED);
        ck_assert_int_eq(lido_keyed_drain(keyed, 10), LIDO_ETIMEDOUT);
        lido_release(lease);
        ck_assert_int_eq(lido_keyed_drain(keyed, 20000), LIDO_OK);
        ck_assert_int_eq(lido_keyed_close(keyed, 0), LIDO_OK);
}
END_TEST

START_TEST(a_lease_outlives_the_keyed_pools)
{
        keyed_of(2, 1, NULL);
        lido_lease lease = must_acquire("a");
        lido_keyed_free(keyed);
        keyed = NULL;
        ck_assert_uint_eq(atomic_load(&toys.ended), 0);
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        until(atomic_load(&toys.ended) == 1);
}
END_TEST

START_TEST(impossible_options_are_refused)
{
        struct lido_keyed_options options = LIDO_KEYED_OPTIONS_INIT;
        struct lido_pool_options each = LIDO_POOL_OPTIONS_INIT;
        struct lido_factory factory = toys_factory(&toys), none = LIDO_FACTORY_INIT;
        struct lido_budget *budget;

        ck_assert_int_eq(lido_keyed_open(&keyed, service, &none, NULL), LIDO_EINVAL);
        options.each = &each;
        each.start = LIDO_START_WARM;
        ck_assert_int_eq(lido_keyed_open(&keyed, service, &factory, &options), LIDO_EINVAL);
        each.start = LIDO_START_LAZY;
        ck_assert_int_eq(lido_budget_new(&budget, 1), LIDO_OK);
        each.budget = budget;
        ck_assert_int_eq(lido_keyed_open(&keyed, service, &factory, &options), LIDO_EINVAL);
        each.budget = NULL;
        options.budget = budget;
        options.total = 5;
        ck_assert_int_eq(lido_keyed_open(&keyed, service, &factory, &options), LIDO_EINVAL);
        options.total = 0;
        ck_assert_int_eq(lido_keyed_open(&keyed, service, &factory, &options), LIDO_OK);
        lido_budget_free(budget);
        use("a");
}
END_TEST

int main(void)
{
        return suite_run_with("keyed/keyed",
                              (const TTest *[]){
                                      each_key_has_objects_of_its_own,
                                      a_key_may_be_any_bytes_or_none,
                                      hooks_and_holders_learn_the_key,
                                      a_key_has_no_more_than_its_max_and_all_no_more_than_the_total,
                                      the_least_recently_used_key_is_robbed,
                                      freed_capacity_goes_to_the_key_that_has_waited_longest,
                                      a_key_without_objects_is_forgotten_when_there_are_too_many,
                                      a_key_that_was_not_used_for_long_is_forgotten_with_its_min,
                                      a_forgotten_key_comes_back_as_new,
                                      nobody_is_turned_away_while_keys_are_forgotten,
                                      many_keys_seen_cost_no_more_memory_than_those_alive,
                                      a_loop_acquires_by_key,
                                      one_without_a_loop_is_told_by_key,
                                      closing_fails_waiters_and_refuses_newcomers,
                                      a_lease_outlives_the_keyed_pools,
                                      impossible_options_are_refused,
                                      NULL,
                              },
                              set_up, tear_down);
}
