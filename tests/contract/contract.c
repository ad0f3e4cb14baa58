/* The claims. They go through public headers alone, as an embedder does. */
#include "contract/contract.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "support/crew.h"
#include "support/looper.h"
#include "support/patience.h"

#define MS UINT64_C(1000000)

static struct contract *const *all;

/* Of the test that runs. */
static struct contract *it;
static struct lido_pool *pool;

static struct lido_pool_options options_of(uint32_t max)
{
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;

        options.max = max;
        options.rest_after_ms = 5;
        options.check_after_ms = 20;
        options.backoff_min_ms = 1;
        options.backoff_max_ms = 20;
        return options;
}

static void open_as(int i, struct lido_pool_options options)
{
        it = all[i];
        pool = it->open(it, &options);
        ck_assert(pool || it->engine);
}

static void open_of(int i, uint32_t max)
{
        open_as(i, options_of(max));
}

/* ---- the two ways to lend: a pool's own, and an engine's --------------------------------------------------------------- */

static int try_for(int64_t timeout_ms, struct lent *ret_lent)
{
        int rc;

        memset(ret_lent, 0, sizeof *ret_lent);
        if (it->engine)
                return it->engine->acquire(it, timeout_ms, ret_lent);
        rc = timeout_ms == 0 ? lido_try_acquire(pool, &ret_lent->lease) : lido_acquire(pool, timeout_ms, &ret_lent->lease);
        if (rc == LIDO_OK)
                ret_lent->object = lido_object(ret_lent->lease);
        return rc;
}

static struct lent acquire(void)
{
        struct lent lent;
        int rc = try_for(PATIENCE_MS, &lent);

        if (rc != LIDO_OK)
                ck_abort_msg("acquire: %s", lido_err_name(rc));
        return lent;
}

static int give_back(struct lent lent)
{
        return it->engine ? it->engine->release(it, &lent) : lido_release(lent.lease);
}

static void release(struct lent lent)
{
        must(give_back(lent) == LIDO_OK);
}

/* Ended, where that can be asked for. */
static void discard(struct lent lent)
{
        must((it->engine ? it->engine->release(it, &lent) : lido_discard(lent.lease)) == LIDO_OK);
}

static void use(struct lent lent)
{
        if (it->engine)
                it->engine->use(it, &lent);
        else
                it->use(lent.object);
}

static bool can_kill(void)
{
        return it->engine ? it->engine->kill != NULL : it->kill != NULL;
}

static void kill_it(struct lent *lent)
{
        if (it->engine)
                it->engine->kill(it, lent);
        else
                it->kill(lent->object);
}

static struct contract_counts counts(void)
{
        struct lido_stats stats = LIDO_STATS_INIT;

        if (it->engine)
                return it->engine->counts(it);
        must(lido_pool_stats(pool, &stats) == LIDO_OK);
        return (struct contract_counts){ .live = stats.live, .opened = stats.opened, .acquired = stats.acquired, .misused = stats.misused,
                                         .ended_idle = stats.closed[LIDO_CLOSE_IDLE], .ended_old = stats.closed[LIDO_CLOSE_LIFETIME] };
}

/* What a count has to be, if this engine counts it. */
static bool is_known(uint64_t count)
{
        return count != CONTRACT_UNKNOWN;
}

static uint32_t least(void)
{
        return it->engine ? it->engine->least : 0;
}

static int close_pool(void)
{
        return it->engine ? it->engine->close(it) : lido_pool_close(pool, LIDO_NEVER);
}

static int drain_pool(int64_t timeout_ms)
{
        return it->engine ? it->engine->drain(it, timeout_ms) : lido_pool_drain(pool, timeout_ms);
}

static void free_pool(void)
{
        if (it->engine)
                it->engine->free(it);
        else
                lido_pool_free(pool);
}

static void end(void)
{
        free_pool();
        it->end(it);
}

/* ---- lending ---------------------------------------------------------------------------------------------------------- */

START_TEST(an_object_can_be_used_from_acquire_to_release)
{
        open_of(_i, 1);
        for (int i = 0; i < 20; i++) {
                struct lent lease = acquire();

                use(lease);
                use(lease);
                release(lease);
        }

        ck_assert_uint_eq(counts().opened, 1); /* and it is the same all the time */
        end();
}
END_TEST

START_TEST(there_are_never_more_objects_than_max)
{
        struct lent lease[4], none;

        open_of(_i, 4);
        for (int i = 0; i < 4; i++)
                lease[i] = acquire();
        ck_assert_int_ne(try_for(0, &none), LIDO_OK);
        for (int i = 0; i < 4; i++) {
                for (int k = 0; k < i; k++)
                        ck_assert_ptr_ne(lease[i].object, lease[k].object);
                use(lease[i]);
        }

        ck_assert_uint_eq(counts().live, 4);
        if (it->alive)
                ck_assert_uint_eq(it->alive(it), 4);
        for (int i = 0; i < 4; i++)
                release(lease[i]);
        end();
}
END_TEST

static void work(void *context, unsigned number)
{
        int rounds = *(int *)context;

        for (int i = 0; i < rounds; i++) {
                struct lent lease = acquire();

                use(lease);
                if ((unsigned)i % 50 == number)
                        discard(lease);
                else
                        release(lease);
        }
}

START_TEST(threads_share_the_objects_and_never_one_at_a_time)
{
        int rounds = 200;

        open_of(_i, 3);
        crew_run(8, work, &rounds);

        if (is_known(counts().acquired))
                ck_assert_uint_eq(counts().acquired, 1600);
        ck_assert_uint_eq(counts().misused, 0);
        end();
}
END_TEST

static void loops_of_a_pool(struct looper *looper)
{
        struct asked asked[6] = { { .calls = 0 } };

        for (int i = 0; i < 6; i++)
                ck_assert_int_eq(looper_ask(looper, &asked[i], pool, PATIENCE_MS), LIDO_OK);
        for (int i = 0; i < 6; i++) {
                ck_assert_int_eq(looper_await(looper, &asked[i]), LIDO_OK);
                it->use(lido_object(asked[i].lease));
                ck_assert_int_eq(lido_release(asked[i].lease), LIDO_OK);
        }
}

static void loops_of_an_engine(struct looper *looper)
{
        static struct contract_asked asked[6];

        for (int i = 0; i < 6; i++)
                ck_assert_int_eq(it->engine->ask(it, looper->loop, PATIENCE_MS, &asked[i]), LIDO_OK);
        for (int i = 0; i < 6; i++) {
                ck_eventually(looper_turn(looper) && asked[i].calls > 0);
                ck_assert_int_eq(asked[i].status, LIDO_OK);
                use(asked[i].lent);
                release(asked[i].lent);
        }
}

START_TEST(loops_get_objects_that_work)
{
        struct looper looper;

        open_of(_i, 2);
        looper_init(&looper);
        if (!it->engine)
                loops_of_a_pool(&looper);
        else if (it->engine->ask)
                loops_of_an_engine(&looper);
        looper_fini(&looper);
        end();
}
END_TEST

/* ---- coming back --------------------------------------------------------------------------------------------------------- */

START_TEST(what_one_borrower_leaves_the_next_does_not_find)
{
        open_of(_i, 1);
        if (it->soil)
                for (int i = 0; i < 10; i++) {
                        struct lent lease = acquire();

                        ck_assert(it->is_clean(lease.object));
                        it->soil(lease.object);
                        release(lease);
                }
        struct lent lease = acquire();

        if (it->is_clean)
                ck_assert(it->is_clean(lease.object));
        use(lease);
        release(lease);
        end();
}
END_TEST

START_TEST(what_died_in_its_borrowers_hands_is_not_lent_again)
{
        open_of(_i, 1);
        if (can_kill())
                for (int i = 0; i < 5; i++) {
                        struct lent lease = acquire();

                        use(lease);
                        kill_it(&lease);
                        release(lease);
                }
        struct lent lease = acquire();

        use(lease);
        if (can_kill())
                ck_assert_uint_ge(counts().opened, 6);
        release(lease);
        end();
}
END_TEST

static void rest_a_while(void)
{
        uint64_t until = real_now_ns() + 60 * MS;

        ck_eventually(real_now_ns() >= until); /* well beyond rest_after_ms: time is what it takes */
}

START_TEST(what_died_in_its_sleep_is_not_lent_again)
{
        struct lent lease[3];
        void *object[3];

        open_of(_i, 3);
        for (int i = 0; i < 3; i++) {
                lease[i] = acquire();
                object[i] = lease[i].object;
        }
        for (int i = 0; i < 3; i++)
                release(lease[i]);
        rest_a_while();
        if (it->kill)
                for (int i = 0; i < 3; i++)
                        it->kill(object[i]);
        for (int i = 0; i < 3; i++) {
                lease[i] = acquire();
                use(lease[i]);
        }
        for (int i = 0; i < 3; i++)
                release(lease[i]);
        end();
}
END_TEST

START_TEST(a_discarded_object_is_ended)
{
        open_of(_i, 1);
        struct lent lease = acquire();

        if (!it->engine) {
                discard(lease);
                ck_eventually(counts().live == 0);
                if (it->alive)
                        ck_eventually(it->alive(it) == 0);
                lease = acquire();
                ck_assert_uint_eq(counts().opened, 2);
        }
        use(lease);
        release(lease);
        end();
}
END_TEST

START_TEST(a_detached_object_goes_on_working_and_the_pool_has_room_for_another)
{
        void *object = NULL;

        open_of(_i, 1);
        if (it->drop) {
                struct lent lease = acquire();

                if (it->part)
                        it->part(it);
                ck_assert_int_eq(lido_detach(lease.lease, &object), LIDO_OK);
                it->use(object);
        }
        struct lent lease = acquire();

        use(lease);
        if (it->drop) {
                it->use(object);
                it->drop(it, object);
        }
        release(lease);
        end();
}
END_TEST

START_TEST(a_double_release_is_refused_and_harms_no_object)
{
        open_of(_i, 1);
        struct lent old = acquire(), now;

        release(old);
        ck_assert_int_eq(give_back(old), LIDO_EDOUBLE);
        now = acquire();
        if (!it->engine)
                ck_assert_int_eq(give_back(old), LIDO_EDOUBLE);
        else if (it->engine->tells_loans_apart)
                ck_assert_int_eq(give_back(old), LIDO_ESTALE);
        use(now);

        release(now);
        end();
}
END_TEST

/* ---- failing ----------------------------------------------------------------------------------------------------------------- */

START_TEST(while_nothing_can_be_opened_a_borrower_times_out_in_time_and_learns_why)
{
        struct lido_acquire_options options = LIDO_ACQUIRE_OPTIONS_INIT;
        struct lido_blame blame = LIDO_BLAME_INIT;
        struct lent lease;
        uint64_t began;

        open_of(_i, 1);
        if (it->refuse) {
                it->refuse(it, true);
                options.timeout_ms = 50;
                options.blame = &blame;
                began = real_now_ns();
                ck_assert_int_eq(lido_acquire_with(pool, &options, &lease.lease), LIDO_ETIMEDOUT);
                ck_assert_uint_ge(real_now_ns() - began, 50 * MS);
                ck_assert_int_eq(blame.cause, LIDO_CAUSE_DOWN);
                ck_assert_int_eq(blame.last_error_is_set, 1);
                ck_assert_int_ne(blame.last_error.text[0], '\0');
                it->refuse(it, false);
        }
        lease = acquire(); /* and it recovers by itself */
        use(lease);
        release(lease);
        end();
}
END_TEST

START_TEST(all_dead_at_once_every_borrower_is_served_again)
{
        int rounds = 5;
        struct lent lease[3];

        open_of(_i, 3);
        for (int i = 0; i < 3; i++)
                lease[i] = acquire();
        if (can_kill())
                for (int i = 0; i < 3; i++)
                        kill_it(&lease[i]);
        for (int i = 0; i < 3; i++)
                release(lease[i]);
        crew_run(6, work, &rounds);

        if (is_known(counts().acquired))
                ck_assert_uint_eq(counts().acquired, 3 + 30);
        end();
}
END_TEST

/* ---- the end -------------------------------------------------------------------------------------------------------------------- */

START_TEST(closing_ends_what_is_idle_and_waits_for_what_is_lent)
{
        open_of(_i, 2);
        struct lent lease = acquire(), second = acquire();

        release(second);
        ck_assert_int_eq(close_pool(), LIDO_OK);
        ck_assert_int_eq(drain_pool(20), LIDO_ETIMEDOUT);
        use(lease);
        release(lease);
        ck_assert_int_eq(drain_pool(PATIENCE_MS), LIDO_OK);

        if (it->alive)
                ck_eventually(it->alive(it) == 0);
        end();
}
END_TEST

START_TEST(a_lease_outlives_its_pool)
{
        open_of(_i, 1);
        struct lent lease = acquire();

        if (it->engine && !it->engine->is_outlived) {
                release(lease);
                end();
                return;
        }
        free_pool(); /* which interrupts the object, but does not end it */
        ck_assert_ptr_nonnull(lease.object);
        release(lease);
        if (it->alive)
                ck_eventually(it->alive(it) == 0);
        it->end(it);
}
END_TEST

START_TEST(idle_objects_that_nobody_needs_are_ended)
{
        struct lido_pool_options options = options_of(3);
        struct lent lease[3];

        options.idle_timeout_ms = 80;
        open_as(_i, options);
        for (int i = 0; i < 3; i++)
                lease[i] = acquire();
        for (int i = 0; i < 3; i++)
                release(lease[i]);
        ck_eventually(counts().live == least());

        if (is_known(counts().ended_idle))
                ck_assert_uint_eq(counts().ended_idle, 3 - least());
        if (it->alive)
                ck_eventually(it->alive(it) == least());
        end();
}
END_TEST

static bool use_one(void)
{
        struct lent lease = acquire();

        use(lease);
        release(lease);
        return true;
}

START_TEST(objects_are_replaced_at_the_end_of_their_lifetime_while_they_are_used)
{
        struct lido_pool_options options = options_of(2);

        options.lifetime_ms = 50;
        open_as(_i, options);
        ck_eventually(use_one() && counts().ended_old >= 3); /* an engine that knows no lifetime says it does not know */

        end();
}
END_TEST

int contract_run(const char *name, struct contract *const *contracts)
{
        const TTest *const claims[] = {
                an_object_can_be_used_from_acquire_to_release,
                there_are_never_more_objects_than_max,
                threads_share_the_objects_and_never_one_at_a_time,
                loops_get_objects_that_work,
                what_one_borrower_leaves_the_next_does_not_find,
                what_died_in_its_borrowers_hands_is_not_lent_again,
                what_died_in_its_sleep_is_not_lent_again,
                a_discarded_object_is_ended,
                a_detached_object_goes_on_working_and_the_pool_has_room_for_another,
                a_double_release_is_refused_and_harms_no_object,
                while_nothing_can_be_opened_a_borrower_times_out_in_time_and_learns_why,
                all_dead_at_once_every_borrower_is_served_again,
                closing_ends_what_is_idle_and_waits_for_what_is_lent,
                a_lease_outlives_its_pool,
                idle_objects_that_nobody_needs_are_ended,
                objects_are_replaced_at_the_end_of_their_lifetime_while_they_are_used,
        };
        Suite *suite = suite_create(name);
        SRunner *runner;
        int failed;

        all = contracts;
        for (int i = 0; contracts[i]; i++) {
                TCase *each = tcase_create(contracts[i]->name);

                for (size_t k = 0; k < sizeof claims / sizeof claims[0]; k++)
                        tcase_add_loop_test(each, claims[k], i, i + 1);
                suite_add_tcase(suite, each);
        }
        runner = srunner_create(suite);
        srunner_run_all(runner, CK_ENV);
        failed = srunner_ntests_failed(runner);
        srunner_free(runner);
        return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
