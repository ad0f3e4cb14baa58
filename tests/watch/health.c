/* Health of a pool: by a look on a clock that the test moves, and by having an object for real. */
#include <string.h>

#include "lido/admin.h"
#include "support/desk.h"
#include "support/suite.h"

static struct lido_health health_of(struct lido_pool *pool, int64_t timeout_ms)
{
        struct lido_health health = LIDO_HEALTH_INIT;

        ck_assert_int_eq(lido_pool_health(pool, timeout_ms, &health), LIDO_OK);
        ck_assert_uint_eq(health.reasons == 0, health.status == LIDO_HEALTHY);
        return health;
}

/* ---- a look -------------------------------------------------------------------------------------------------------------- */

START_TEST(a_pool_with_nothing_wrong_is_healthy)
{
        struct desk *desk = desk_new();
        struct lido_health health;

        desk->f.options.min = 2;
        desk_open(desk);
        health = health_of(desk->pool, 0);

        ck_assert_int_eq(health.status, LIDO_HEALTHY);
        ck_assert_str_eq(health.text, "healthy");
        desk_end(desk);
}
END_TEST

START_TEST(while_nothing_can_be_opened_a_pool_with_objects_is_degraded_and_one_without_unhealthy)
{
        struct desk *desk = desk_new();
        struct lido_health health;

        desk->f.options.min = 2;
        fake_once(&desk->f.fake, FAKE_OPEN, (struct fake_step){ .status = LIDO_OK });
        fake_always(&desk->f.fake, FAKE_OPEN, (struct fake_step){ .status = LIDO_EFACTORY, .sqlstate = "08006", .text = "refused" });
        desk_open(desk);
        health = health_of(desk->pool, 0);
        ck_assert_int_eq(health.status, LIDO_DEGRADED);
        ck_assert_uint_eq(health.reasons, LIDO_HEALTH_DOWN | LIDO_HEALTH_SHORT);
        ck_assert_str_eq(health.text, "degraded: opening fails (08006 refused, 0.0 s ago); 1 of min 2 open");

        lido_discard(desk_acquire(desk));
        desk_turn(desk);
        ck_assert_int_eq(health_of(desk->pool, 0).status, LIDO_UNHEALTHY);
        desk_end(desk);
}
END_TEST

START_TEST(paused_or_closed_it_is_unhealthy)
{
        struct desk *desk = desk_new();

        desk_open(desk);
        lido_pool_pause(desk->pool, LIDO_PAUSE_HOLD);
        ck_assert_uint_eq(health_of(desk->pool, 0).reasons, LIDO_HEALTH_PAUSED);
        ck_assert_int_eq(health_of(desk->pool, 0).status, LIDO_UNHEALTHY);
        lido_pool_resume(desk->pool);
        ck_assert_int_eq(health_of(desk->pool, 0).status, LIDO_HEALTHY);

        lido_pool_close(desk->pool, 0);
        ck_assert_uint_eq(health_of(desk->pool, 0).reasons, LIDO_HEALTH_CLOSED);
        desk_end(desk);
}
END_TEST

START_TEST(one_who_waits_too_long_a_leak_and_a_stuck_hook_are_signs)
{
        struct desk *desk = desk_new();
        struct waiting w = { .calls = 0 };
        lido_lease lease;

        desk->f.options.max = 2;
        desk->f.options.acquire_timeout_ms = 10000;
        desk->f.options.leak_after_ms = 20000;
        desk_open(desk);
        desk_warm_up(desk, 2);
        fake_always(&desk->f.fake, FAKE_CHECK, (struct fake_step){ .way = FAKE_LATER });
        lease = desk_acquire(desk);
        lido_pool_suspect(desk->pool);
        desk_turn(desk);
        desk_wait(desk, &w, LIDO_NEVER);
        desk_pass_time(desk, 4 * NS_PER_S);
        ck_assert_uint_eq(health_of(desk->pool, 0).reasons, LIDO_HEALTH_STUCK);
        desk_pass_time(desk, 2 * NS_PER_S);
        ck_assert_uint_eq(health_of(desk->pool, 0).reasons, LIDO_HEALTH_STUCK | LIDO_HEALTH_QUEUE);
        desk_pass_time(desk, 20 * NS_PER_S);
        ck_assert_uint_eq(health_of(desk->pool, 0).reasons, LIDO_HEALTH_STUCK | LIDO_HEALTH_QUEUE | LIDO_HEALTH_LEAK);
        ck_assert_int_eq(health_of(desk->pool, 0).status, LIDO_DEGRADED);

        fake_always(&desk->f.fake, FAKE_CHECK, (struct fake_step){ .status = LIDO_OK });
        fake_answer_all(&desk->f.fake);
        desk_turn(desk);
        must_release(lease);
        desk_turn(desk);
        must_release(w.lease);
        ck_assert_int_eq(health_of(desk->pool, 0).status, LIDO_HEALTHY);
        desk_end(desk);
}
END_TEST

/* ---- for real ------------------------------------------------------------------------------------------------------------ */

START_TEST(asked_for_real_it_opens_and_checks_an_object)
{
        struct fixture *f = pool_of(1);

        ck_assert_int_eq(health_of(f->pool, PATIENCE_MS).status, LIDO_HEALTHY);

        ck_assert_uint_eq(atomic_load(&f->fake.opened), 1);
        ck_assert_uint_eq(atomic_load(&f->fake.called[FAKE_CHECK]), 1);
        check_quiet(f->pool);
        ck_assert_uint_eq(stats_of(f->pool).idle, 1);
        fixture_end(f);
}
END_TEST

START_TEST(an_object_that_fails_its_check_is_a_reason)
{
        struct fixture *f = pool_of(1);
        struct lido_health health;

        fake_always(&f->fake, FAKE_CHECK, (struct fake_step){ .status = LIDO_EFACTORY });
        health = health_of(f->pool, PATIENCE_MS);

        ck_assert_uint_eq(health.reasons, LIDO_HEALTH_FAILED);
        ck_assert_int_eq(health.code, LIDO_EFACTORY);
        ck_assert_str_eq(health.text, "unhealthy: an object did not pass its check");
        fixture_end(f);
}
END_TEST

START_TEST(with_every_object_lent_it_says_that_none_could_be_had)
{
        struct fixture *f = pool_of(1);
        struct borrower other = { .rc = 0 };
        struct lido_health health;

        borrower_start(&other, f->pool, PATIENCE_MS);
        ck_assert_int_eq(borrower_join(&other), LIDO_OK);
        health = health_of(f->pool, 10);

        ck_assert_int_eq(health.status, LIDO_UNHEALTHY);
        ck_assert_int_eq(health.code, LIDO_ETIMEDOUT);
        must_release(other.lease);
        fixture_end(f);
}
END_TEST

START_TEST(a_check_that_is_not_answered_in_time_is_a_reason)
{
        struct fixture *f = pool_of(1);
        struct lido_health health;

        warm_up(f, 1);
        fake_always(&f->fake, FAKE_CHECK, (struct fake_step){ .way = FAKE_LATER });
        health = health_of(f->pool, 50);
        ck_assert_uint_eq(health.reasons, LIDO_HEALTH_FAILED);
        ck_assert_int_eq(health.code, LIDO_ETIMEDOUT);
        ck_eventually(fake_kept(&f->fake, FAKE_CHECK) == 1);
        fake_answer_all(&f->fake);
        fixture_end(f);
}
END_TEST

START_TEST(what_is_no_question_is_refused)
{
        struct desk *desk = desk_new();
        struct lido_health health = LIDO_HEALTH_INIT;

        desk_open(desk);
        ck_assert_int_eq(lido_pool_health(NULL, 0, &health), LIDO_EINVAL);
        ck_assert_int_eq(lido_pool_health(desk->pool, 0, NULL), LIDO_EINVAL);
        ck_assert_int_eq(lido_pool_health(desk->pool, -3, &health), LIDO_EINVAL);
        ck_assert_int_eq(lido_pool_health(desk->pool, 100, &health), LIDO_EDEADLK); /* the desk is the keeper */
        desk_end(desk);
}
END_TEST

START_TEST(an_older_caller_gets_as_much_as_it_has_room_for)
{
        struct desk *desk = desk_new();
        struct lido_health health;

        memset(&health, 0x55, sizeof health);
        health.size = offsetof(struct lido_health, code);
        desk_open(desk);
        ck_assert_int_eq(lido_pool_health(desk->pool, 0, &health), LIDO_OK);

        ck_assert_int_eq(health.status, LIDO_HEALTHY);
        ck_assert_int_eq(health.code, 0x55555555);
        desk_end(desk);
}
END_TEST

int main(void)
{
        return suite_run("watch/health",
                         (const TTest *[]){
                                 a_pool_with_nothing_wrong_is_healthy,
                                 while_nothing_can_be_opened_a_pool_with_objects_is_degraded_and_one_without_unhealthy,
                                 paused_or_closed_it_is_unhealthy,
                                 one_who_waits_too_long_a_leak_and_a_stuck_hook_are_signs,
                                 asked_for_real_it_opens_and_checks_an_object,
                                 an_object_that_fails_its_check_is_a_reason,
                                 with_every_object_lent_it_says_that_none_could_be_had,
                                 a_check_that_is_not_answered_in_time_is_a_reason,
                                 what_is_no_question_is_refused,
                                 an_older_caller_gets_as_much_as_it_has_room_for,
                                 NULL,
                         });
}
