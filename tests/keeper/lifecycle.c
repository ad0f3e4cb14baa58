/* From lido_pool_open to lido_pool_free on a real service: start policies, readiness, draining, resizing. How a closing pool ends
 * its objects: tests/keeper/keeper.c. The end of the service: tests/keeper/service.c.
 */
#include <stdlib.h>
#include <string.h>

#include "pool/pool.h"
#include "support/crew.h"
#include "support/fixture.h"
#include "support/suite.h"

static int open_with(struct fixture *f)
{
        if (!f->service)
                must(lido_service_start(&f->service, NULL) == LIDO_OK);
        return lido_pool_open(&f->pool, f->service, &f->fake.factory, &f->options);
}

/* No pool was opened: nothing of the fake's is left either. */
static void end_without_pool(struct fixture *f)
{
        ck_assert_ptr_null(f->pool);
        ck_assert_int_eq(lido_service_stop(f->service, PATIENCE_MS), LIDO_OK);
        f->service = NULL;
        atomic_store(&f->fake.ends, 1);
        fixture_end(f);
}

START_TEST(a_pool_without_a_factory_or_its_two_hooks_is_refused)
{
        struct fixture *f = fixture_new();
        struct lido_factory factory = f->fake.factory;

        ck_assert_int_eq(lido_service_start(&f->service, NULL), LIDO_OK);
        ck_assert_int_eq(lido_pool_open(&f->pool, f->service, NULL, NULL), LIDO_EINVAL);
        ck_assert_int_eq(lido_pool_open(NULL, f->service, &factory, NULL), LIDO_EINVAL);
        ck_assert_int_eq(lido_pool_open(&f->pool, NULL, &factory, NULL), LIDO_EINVAL);
        factory.open = NULL;
        ck_assert_int_eq(lido_pool_open(&f->pool, f->service, &factory, NULL), LIDO_EINVAL);
        factory.open = f->fake.factory.open;
        factory.close = NULL;
        ck_assert_int_eq(lido_pool_open(&f->pool, f->service, &factory, NULL), LIDO_EINVAL);
        end_without_pool(f);
}
END_TEST

START_TEST(options_out_of_range_open_no_pool)
{
        struct fixture *f = fixture_new();

        f->options.max = 2;
        f->options.min = 3;
        ck_assert_int_eq(open_with(f), LIDO_EINVAL);
        end_without_pool(f);
}
END_TEST

START_TEST(a_factory_with_hooks_unknown_here_is_refused)
{
        struct fixture *f = fixture_new();
        struct {
                struct lido_factory known;
                void (*unknown)(void);
        } newer = { f->fake.factory, NULL };

        newer.known.size = sizeof newer;
        newer.unknown = (void (*)(void))abort;
        ck_assert_int_eq(lido_service_start(&f->service, NULL), LIDO_OK);
        ck_assert_int_eq(lido_pool_open(&f->pool, f->service, &newer.known, NULL), LIDO_E2NEW);
        end_without_pool(f);
}
END_TEST

START_TEST(inline_opens_and_blocking_hooks_exclude_each_other)
{
        struct fixture *f = fixture_new();

        f->options.open_inline = 1;
        f->fake.factory.flags = LIDO_FACTORY_BLOCKING;
        ck_assert_int_eq(open_with(f), LIDO_EINVAL);
        end_without_pool(f);
}
END_TEST

/* ---- starting ------------------------------------------------------------------------------------------------------- */

START_TEST(a_lazy_pool_is_open_before_its_objects_are)
{
        struct fixture *f = fixture_new();

        f->options.min = 2;
        fake_always(&f->fake, FAKE_OPEN, (struct fake_step){ .way = FAKE_LATER });
        ck_assert_int_eq(open_with(f), LIDO_OK);
        ck_eventually(stats_of(f->pool).opening == 2);
        ck_assert_int_eq(lido_pool_wait_ready(f->pool, 2, 5), LIDO_ETIMEDOUT);
        fake_answer_all(&f->fake);

        ck_assert_int_eq(lido_pool_wait_ready(f->pool, 2, PATIENCE_MS), LIDO_OK);
        ck_assert_uint_eq(stats_of(f->pool).idle, 2);
        fixture_end(f);
}
END_TEST

START_TEST(a_warm_pool_is_open_once_its_least_objects_are)
{
        struct fixture *f = fixture_new();

        f->options.min = 3;
        f->options.start = LIDO_START_WARM;
        fake_always(&f->fake, FAKE_OPEN, (struct fake_step){ .way = FAKE_THREAD });
        ck_assert_int_eq(open_with(f), LIDO_OK);

        ck_assert_uint_ge(stats_of(f->pool).opened, 3);
        fixture_end(f);
}
END_TEST

START_TEST(a_warm_pool_that_cannot_open_is_open_all_the_same_after_its_time)
{
        struct fixture *f = fixture_new();

        f->options.min = 1;
        f->options.start = LIDO_START_WARM;
        f->options.start_timeout_ms = 30;
        fake_always(&f->fake, FAKE_OPEN, (struct fake_step){ .status = LIDO_EFACTORY });
        ck_assert_int_eq(open_with(f), LIDO_OK);

        ck_assert_uint_ge(stats_of(f->pool).open_failed, 1);
        fixture_end(f);
}
END_TEST

START_TEST(a_pool_that_is_to_fail_fast_says_at_once_that_it_cannot_open)
{
        static const struct {
                int failure, code;
        } cases[] = { { LIDO_FAILURE_NETWORK, LIDO_EUNAVAIL }, { LIDO_FAILURE_PERMANENT, LIDO_EPERMANENT } };

        for (int i = 0; i < 2; i++) {
                struct fixture *f = fixture_new();

                f->options.min = 1;
                f->options.start = LIDO_START_FAIL_FAST;
                f->options.start_timeout_ms = PATIENCE_MS;
                fake_always(&f->fake, FAKE_OPEN,
                            (struct fake_step){ .status = LIDO_EFACTORY, .failure = cases[i].failure });
                ck_assert_int_eq(open_with(f), cases[i].code);
                ck_assert_ptr_null(f->pool);
                ck_eventually(atomic_load(&f->fake.ends) == 1); /* the pool that was not to be is gone */
                atomic_store(&f->fake.ends, 0);
                end_without_pool(f);
        }
}
END_TEST

START_TEST(a_pool_that_is_to_fail_fast_does_not_outwait_its_time)
{
        struct fixture *f = fixture_new();

        f->options.min = 1;
        f->options.start = LIDO_START_FAIL_FAST;
        f->options.start_timeout_ms = 20;
        fake_always(&f->fake, FAKE_OPEN, (struct fake_step){ .way = FAKE_LATER });
        ck_assert_int_eq(open_with(f), LIDO_ETIMEDOUT);
        fake_answer_all(&f->fake);

        ck_eventually(atomic_load(&f->fake.ends) == 1);
        end_without_pool(f);
}
END_TEST

/* ---- readiness ------------------------------------------------------------------------------------------------------- */

START_TEST(waiting_for_what_can_never_be_is_refused)
{
        struct fixture *f = pool_of(2);

        ck_assert_int_eq(lido_pool_wait_ready(f->pool, 3, 1000), LIDO_EINVAL);
        ck_assert_int_eq(lido_pool_wait_ready(f->pool, 1, -3), LIDO_EINVAL);
        ck_assert_int_eq(lido_pool_wait_ready(NULL, 1, 1), LIDO_EINVAL);
        ck_assert_int_eq(lido_pool_wait_ready(f->pool, 0, 0), LIDO_OK);
        fixture_end(f);
}
END_TEST

START_TEST(waiting_to_be_ready_ends_when_opening_can_only_fail)
{
        struct fixture *f = fixture_new();

        f->options.min = 1;
        fake_always(&f->fake, FAKE_OPEN, (struct fake_step){ .status = LIDO_EFACTORY, .failure = LIDO_FAILURE_PERMANENT });
        fixture_open(f);

        ck_assert_int_eq(lido_pool_wait_ready(f->pool, 1, PATIENCE_MS), LIDO_EPERMANENT);
        fixture_end(f);
}
END_TEST

struct readiness {
        struct fixture *f;
        _Atomic int rc[CREW_MOST];
};

static void wait_ready(void *context, unsigned number)
{
        struct readiness *readiness = context;

        atomic_store(&readiness->rc[number], lido_pool_wait_ready(readiness->f->pool, 1, PATIENCE_MS));
}

START_TEST(closing_wakes_those_who_wait_for_the_pool_to_be_ready)
{
        struct fixture *f = pool_of(1);
        struct readiness readiness = { .f = f };
        struct crew crew;

        crew_start(&crew, 3, wait_ready, &readiness);
        ck_assert_int_eq(lido_pool_close(f->pool, 0), LIDO_OK);
        crew_join(&crew);

        for (int i = 0; i < 3; i++)
                ck_assert_int_eq(atomic_load(&readiness.rc[i]), LIDO_ECLOSED);
        fixture_end(f);
}
END_TEST

/* ---- the end ------------------------------------------------------------------------------------------------------------ */

START_TEST(draining_waits_for_the_last_lease_and_the_end_hook)
{
        struct fixture *f = pool_of(2);
        lido_lease lease = must_acquire(f);

        ck_assert_int_eq(lido_pool_drain(f->pool, 0), LIDO_EINVAL); /* it is not closed */
        ck_assert_int_eq(lido_pool_close(f->pool, LIDO_NEVER), LIDO_OK);
        ck_assert_int_eq(lido_pool_drain(f->pool, 5), LIDO_ETIMEDOUT);
        must_release(lease);
        ck_assert_int_eq(lido_pool_drain(f->pool, PATIENCE_MS), LIDO_OK);
        ck_assert_uint_eq(atomic_load(&f->fake.ends), 1);
        ck_assert_uint_eq(atomic_load(&f->fake.alive), 0);
        ck_assert_int_eq(lido_pool_drain(f->pool, 0), LIDO_OK);
        ck_assert_int_eq(lido_pool_drain(f->pool, -7), LIDO_EINVAL);
        fixture_end(f);
}
END_TEST

START_TEST(draining_has_seen_the_end_hook_each_time)
{
        for (int i = 0; i < 200; i++) {
                struct fixture *f = pool_of(1);

                must_release(must_acquire(f));
                must(lido_pool_close(f->pool, 0) == LIDO_OK);
                must(lido_pool_drain(f->pool, PATIENCE_MS) == LIDO_OK);
                must(atomic_load(&f->fake.ends) == 1);
                fixture_end(f);
        }
}
END_TEST

START_TEST(freeing_nothing_is_harmless)
{
        lido_pool_free(NULL);
        ck_assert_int_eq(lido_pool_close(NULL, 0), LIDO_EINVAL);
        ck_assert_int_eq(lido_pool_drain(NULL, 0), LIDO_EINVAL);
        ck_assert_int_eq(lido_pool_resize(NULL, 1), LIDO_EINVAL);
}
END_TEST

START_TEST(a_freed_pools_lease_works_until_it_is_released)
{
        struct fixture *f = pool_of(2);
        lido_lease lease = must_acquire(f);
        struct fake_object *object = object_of(lease);

        lido_pool_free(f->pool);
        f->pool = NULL;
        ck_assert_ptr_eq(lido_object(lease), object);
        fake_use(object);
        fake_unuse(object);
        ck_assert_uint_eq(atomic_load(&f->fake.ends), 0);
        must_release(lease);

        ck_eventually(atomic_load(&f->fake.ends) == 1);
        fixture_end(f);
}
END_TEST

static void close_it(void *context, unsigned number)
{
        struct fixture *f = context;

        must(lido_pool_close(f->pool, number) == LIDO_OK);
        must(lido_pool_drain(f->pool, PATIENCE_MS) == LIDO_OK);
}

START_TEST(closing_and_draining_from_many_threads_is_harmless)
{
        for (int i = 0; i < 20; i++) {
                struct fixture *f = pool_of(3);

                warm_up(f, 3);
                crew_run(6, close_it, f);
                must(atomic_load(&f->fake.ends) == 1);
                fixture_end(f);
        }
}
END_TEST

START_TEST(a_pool_that_is_closed_cannot_be_resized)
{
        struct fixture *f = pool_of(1);

        ck_assert_int_eq(lido_pool_resize(f->pool, 0), LIDO_EINVAL);
        ck_assert_int_eq(lido_pool_close(f->pool, 0), LIDO_OK);
        ck_assert_int_eq(lido_pool_resize(f->pool, 3), LIDO_ECLOSED);
        fixture_end(f);
}
END_TEST

START_TEST(a_raised_max_serves_those_who_wait)
{
        struct fixture *f = pool_of(1);
        lido_lease lease = must_acquire(f);
        struct borrower b[40] = { { .rc = 0 } };

        for (int i = 0; i < 40; i++)
                borrower_start(&b[i], f->pool, PATIENCE_MS);
        await_waiting(f->pool, 40);
        ck_assert_int_eq(lido_pool_resize(f->pool, 41), LIDO_OK); /* beyond the slots there were */
        for (int i = 0; i < 40; i++)
                ck_assert_int_eq(borrower_join(&b[i]), LIDO_OK);

        ck_assert_uint_eq(stats_of(f->pool).leased, 41);
        for (int i = 0; i < 40; i++)
                must_release(b[i].lease);
        must_release(lease);
        ck_assert_int_eq(lido_pool_resize(f->pool, 2), LIDO_OK);
        ck_eventually(stats_of(f->pool).live == 2);
        check_quiet(f->pool);
        fixture_end(f);
}
END_TEST

START_TEST(a_pool_knows_its_name_kind_and_context)
{
        struct fixture *f = fixture_new();
        char long_name[100];

        memset(long_name, 'n', sizeof long_name);
        long_name[99] = '\0';
        f->options.name = long_name;
        fixture_open(f);
        long_name[0] = 'x'; /* it was copied */

        ck_assert_uint_eq(strlen(lido_pool_name(f->pool)), 31);
        ck_assert_int_eq(lido_pool_name(f->pool)[0], 'n');
        ck_assert_ptr_eq(lido_pool_kind(f->pool), f->fake.factory.kind);
        ck_assert_ptr_eq(lido_pool_context(f->pool), &f->fake);
        ck_assert_str_eq(lido_pool_name(NULL), "");
        ck_assert_ptr_null(lido_pool_kind(NULL));
        fixture_end(f);
}
END_TEST

START_TEST(many_pools_share_one_service)
{
        struct fixture *first = pool_of(2), *f[10];

        for (int i = 0; i < 10; i++) {
                f[i] = fixture_new();
                f[i]->service = first->service;
                f[i]->options.max = 2;
                fixture_open(f[i]);
        }
        for (int i = 0; i < 10; i++)
                must_release(must_acquire(f[i]));
        for (int i = 0; i < 10; i++) {
                fixture_free_pool(f[i]);
                f[i]->service = NULL;
                fixture_end(f[i]);
        }
        fixture_end(first);
}
END_TEST

int main(void)
{
        return suite_run("keeper/lifecycle",
                         (const TTest *[]){
                                 a_pool_without_a_factory_or_its_two_hooks_is_refused,
                                 options_out_of_range_open_no_pool,
                                 a_factory_with_hooks_unknown_here_is_refused,
                                 inline_opens_and_blocking_hooks_exclude_each_other,
                                 a_lazy_pool_is_open_before_its_objects_are,
                                 a_warm_pool_is_open_once_its_least_objects_are,
                                 a_warm_pool_that_cannot_open_is_open_all_the_same_after_its_time,
                                 a_pool_that_is_to_fail_fast_says_at_once_that_it_cannot_open,
                                 a_pool_that_is_to_fail_fast_does_not_outwait_its_time,
                                 waiting_for_what_can_never_be_is_refused,
                                 waiting_to_be_ready_ends_when_opening_can_only_fail,
                                 closing_wakes_those_who_wait_for_the_pool_to_be_ready,
                                 draining_waits_for_the_last_lease_and_the_end_hook,
                                 draining_has_seen_the_end_hook_each_time,
                                 freeing_nothing_is_harmless,
                                 a_freed_pools_lease_works_until_it_is_released,
                                 closing_and_draining_from_many_threads_is_harmless,
                                 a_pool_that_is_closed_cannot_be_resized,
                                 a_raised_max_serves_those_who_wait,
                                 a_pool_knows_its_name_kind_and_context,
                                 many_pools_share_one_service,
                                 NULL,
                         });
}
