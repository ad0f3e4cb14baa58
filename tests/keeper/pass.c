/* Upkeep of objects that are open, on a clock that the test moves. Not covered here: replacement (rotate.c). */
#include "keeper/pass.h"

#include "support/desk.h"
#include "support/suite.h"

#define MINUTE (60 * NS_PER_S)

static uint64_t closed(struct desk *desk, int reason)
{
        return stats_of(desk->pool).closed[reason];
}

START_TEST(what_nobody_needed_for_the_idle_timeout_goes_down_to_min)
{
        struct desk *desk = desk_new();

        desk->f.options.max = 5;
        desk->f.options.min = 2;
        desk->f.options.lifetime_ms = LIDO_NEVER;
        desk_open(desk);
        desk_warm_up(desk, 5);
        desk_pass_time(desk, 9 * MINUTE);
        ck_assert_uint_eq(stats_of(desk->pool).live, 5);

        desk_pass_time(desk, 4 * MINUTE);

        ck_assert_uint_eq(stats_of(desk->pool).live, 2);
        ck_assert_uint_eq(closed(desk, LIDO_CLOSE_IDLE), 3);
        desk_end(desk);
}
END_TEST

START_TEST(a_touch_now_and_then_does_not_keep_more_than_are_needed)
{
        struct desk *desk = desk_new();

        desk->f.options.max = 4;
        desk->f.fake.factory.check = NULL; /* or whoever comes after a minute would wait for a check */
        desk->f.options.lifetime_ms = LIDO_NEVER;
        desk_open(desk);
        desk_warm_up(desk, 4);
        for (int i = 0; i < 40; i++) { /* one is needed at a time, whichever it is */
                must_release(desk_acquire(desk));
                desk_pass_time(desk, MINUTE);
        }

        ck_assert_uint_le(stats_of(desk->pool).live, 1);
        desk_end(desk);
}
END_TEST

START_TEST(what_is_needed_at_once_now_and_then_stays)
{
        struct desk *desk = desk_new();
        lido_lease lease[3];

        desk->f.options.max = 4;
        desk->f.fake.factory.check = NULL; /* or whoever comes after a minute would wait for a check */
        desk->f.options.lifetime_ms = LIDO_NEVER;
        desk_open(desk);
        desk_warm_up(desk, 3);
        for (int i = 0; i < 60; i++) {
                for (int k = 0; k < 3; k++)
                        lease[k] = desk_acquire(desk);
                desk_pass_time(desk, 10 * NS_PER_S);
                for (int k = 0; k < 3; k++)
                        must_release(lease[k]);
                desk_pass_time(desk, 50 * NS_PER_S);
        }

        ck_assert_uint_eq(stats_of(desk->pool).live, 3);
        ck_assert_uint_eq(closed(desk, LIDO_CLOSE_IDLE), 0);
        desk_end(desk);
}
END_TEST

START_TEST(nothing_lives_longer_than_its_lifetime_and_not_all_die_at_once)
{
        struct desk *desk = desk_new();
        uint64_t halfway;

        desk->f.options.max = 20;
        desk->f.options.min = 20;
        desk->f.options.idle_timeout_ms = LIDO_NEVER;
        desk_open(desk);
        desk_warm_up(desk, 20);
        desk_pass_time(desk, 26 * MINUTE);
        ck_assert_uint_eq(closed(desk, LIDO_CLOSE_LIFETIME), 0);

        desk_pass_time(desk, 150 * NS_PER_S); /* the middle of the jitter */
        halfway = closed(desk, LIDO_CLOSE_LIFETIME);
        ck_assert_uint_gt(halfway, 0);
        ck_assert_uint_lt(halfway, 20);

        desk_pass_time(desk, 92 * NS_PER_S);
        ck_assert_uint_ge(closed(desk, LIDO_CLOSE_LIFETIME), 20);
        ck_assert_uint_eq(stats_of(desk->pool).live, 20);
        desk_end(desk);
}
END_TEST

START_TEST(one_that_is_lent_past_its_lifetime_goes_when_it_returns)
{
        struct desk *desk = desk_new();
        lido_lease lease;

        desk->f.options.max = 1;
        desk_open(desk);
        desk_warm_up(desk, 1);
        lease = desk_acquire(desk);
        desk_pass_time(desk, 40 * MINUTE);
        ck_assert_ptr_nonnull(lido_object(lease));

        must_release(lease);
        desk_turn(desk);

        ck_assert_uint_eq(closed(desk, LIDO_CLOSE_LIFETIME), 1);
        desk_end(desk);
}
END_TEST

START_TEST(a_rested_object_is_peeked_and_a_hot_one_is_not)
{
        struct desk *desk = desk_new();

        fake_add_hooks(&desk->f.fake, FAKE_HAS_PEEK);
        desk->f.options.max = 1;
        desk_open(desk);
        desk_warm_up(desk, 1);
        for (int i = 0; i < 10; i++)
                must_release(desk_acquire(desk));
        ck_assert_uint_eq(desk->f.fake.peeks, 0);

        desk_pass_time(desk, 3 * NS_PER_S);
        must_release(desk_acquire(desk));

        ck_assert_uint_eq(desk->f.fake.peeks, 1);
        desk_end(desk);
}
END_TEST

START_TEST(one_that_died_in_its_sleep_is_not_lent)
{
        struct desk *desk = desk_new();
        struct waiting w = { .calls = 0 };
        lido_lease lease;

        fake_add_hooks(&desk->f.fake, FAKE_HAS_PEEK);
        desk->f.options.max = 2;
        desk_open(desk);
        desk_warm_up(desk, 2);
        desk_pass_time(desk, 3 * NS_PER_S);
        lease = desk_acquire(desk);
        fake_break(object_of(lease));
        must_release(lease);
        desk_pass_time(desk, 3 * NS_PER_S);

        ck_assert_int_eq(desk_wait(desk, &w, 1000), LIDO_OK);
        desk_turn(desk);

        ck_assert_int_eq(w.status, LIDO_OK);
        ck_assert(!object_of(w.lease)->is_broken);
        must_release(w.lease);
        desk_end(desk);
}
END_TEST

START_TEST(idle_objects_are_checked_each_interval_and_the_dead_are_replaced)
{
        struct desk *desk = desk_new();
        uint64_t checked;

        desk->f.options.max = 2;
        desk->f.options.min = 2;
        desk->f.options.lifetime_ms = LIDO_NEVER;
        desk_open(desk);
        desk_warm_up(desk, 2);
        desk_pass_time(desk, 11 * MINUTE);
        checked = stats_of(desk->pool).checked;
        ck_assert_uint_ge(checked, 8);
        ck_assert_uint_le(checked, 12);

        fake_once(&desk->f.fake, FAKE_CHECK, (struct fake_step){ .status = LIDO_EFACTORY });
        desk_pass_time(desk, 3 * MINUTE);

        ck_assert_uint_eq(closed(desk, LIDO_CLOSE_CHECK), 1);
        ck_assert_uint_eq(heard(&desk->f, LIDO_EVENT_CHECK_FAILED), 1);
        ck_assert_uint_eq(stats_of(desk->pool).live, 2);
        desk_end(desk);
}
END_TEST

START_TEST(upkeep_takes_nothing_idle_while_somebody_waits)
{
        struct desk *desk = desk_new();
        struct waiting w[2] = { { .calls = 0 } };
        lido_lease lease;

        desk->f.options.max = 1;
        desk->f.options.check_interval_ms = 1000;
        desk->f.options.rest_after_ms = 100;
        desk_open(desk);
        desk_warm_up(desk, 1);
        lease = desk_acquire(desk);
        desk_wait(desk, &w[0], LIDO_NEVER);
        desk_wait(desk, &w[1], LIDO_NEVER);
        desk_pass_time(desk, 10 * NS_PER_S);

        must_release(lease);
        ck_assert_uint_eq(w[0].calls, 1); /* from hand to hand, with no check in between */
        must_release(w[0].lease);
        ck_assert_uint_eq(w[1].calls, 1);

        ck_assert_uint_eq(stats_of(desk->pool).checked, 0);
        must_release(w[1].lease);
        desk_end(desk);
}
END_TEST

START_TEST(a_lease_held_for_too_long_is_reported_once_and_so_is_its_return)
{
        struct desk *desk = desk_new();
        lido_lease lease;

        desk->f.options.leak_after_ms = 5000;
        desk_open(desk);
        desk_warm_up(desk, 1);
        lease = desk_acquire(desk);
        desk_pass_time(desk, 4 * NS_PER_S);
        ck_assert_uint_eq(heard(&desk->f, LIDO_EVENT_LEAK), 0);

        desk_pass_time(desk, MINUTE);
        ck_assert_uint_eq(heard(&desk->f, LIDO_EVENT_LEAK), 1);
        ck_assert_ptr_nonnull(last_heard(&desk->f, LIDO_EVENT_LEAK).site);

        must_release(lease);
        ck_assert_uint_eq(heard(&desk->f, LIDO_EVENT_LEAK_ENDED), 1);
        ck_assert_uint_eq(stats_of(desk->pool).leaked, 1);
        desk_end(desk);
}
END_TEST

START_TEST(a_lease_past_its_deadline_is_revoked_but_its_object_lives_until_it_returns)
{
        struct desk *desk = desk_new();
        lido_lease lease;

        desk_open(desk);
        desk_warm_up(desk, 1);
        lease = desk_acquire(desk);
        ck_assert_int_eq(lido_lease_set_deadline(lease, 2000), LIDO_OK);
        desk_pass_time(desk, 1900 * NS_PER_MS);
        ck_assert_ptr_nonnull(lido_object(lease));

        desk_pass_time(desk, 200 * NS_PER_MS);
        ck_assert_ptr_null(lido_object(lease));
        ck_assert_uint_eq(desk->f.fake.interrupts, 1);
        ck_assert_uint_eq(desk->f.fake.closed, 0);
        ck_assert_uint_eq(heard(&desk->f, LIDO_EVENT_REVOKED), 1);

        ck_assert_int_eq(lido_release(lease), LIDO_EREVOKED);
        desk_turn(desk);
        ck_assert_uint_eq(desk->f.fake.closed, 1);
        ck_assert_int_ne(lido_release(lease), LIDO_OK);
        desk_end(desk);
}
END_TEST

START_TEST(a_deadline_can_be_moved_and_lifted)
{
        struct desk *desk = desk_new();
        lido_lease lease;

        desk_open(desk);
        desk_warm_up(desk, 1);
        lease = desk_acquire(desk);
        lido_lease_set_deadline(lease, 1000);
        desk_pass_time(desk, 900 * NS_PER_MS);
        lido_lease_set_deadline(lease, 1000);
        desk_pass_time(desk, 900 * NS_PER_MS);
        ck_assert_ptr_nonnull(lido_object(lease));
        lido_lease_set_deadline(lease, LIDO_NEVER);
        desk_pass_time(desk, 5 * MINUTE);

        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        desk_end(desk);
}
END_TEST

START_TEST(reclaim_after_revokes_whoever_holds_for_so_long)
{
        struct desk *desk = desk_new();
        lido_lease lease;

        desk->f.options.reclaim_after_ms = 10000;
        desk_open(desk);
        desk_warm_up(desk, 1);
        lease = desk_acquire(desk);
        desk_pass_time(desk, 15 * NS_PER_S);

        ck_assert_int_eq(lido_release(lease), LIDO_EREVOKED);
        desk_end(desk);
}
END_TEST

START_TEST(a_hook_past_its_deadline_is_told_once_and_its_slot_waits_for_it)
{
        struct desk *desk = desk_new();
        struct waiting w = { .calls = 0 };

        desk->f.options.max = 1;
        fake_once(&desk->f.fake, FAKE_OPEN, (struct fake_step){ .way = FAKE_LATER });
        desk_open(desk);
        desk_wait(desk, &w, LIDO_NEVER);
        desk_turn(desk);
        desk_pass_time(desk, 9900 * NS_PER_MS);
        ck_assert_uint_eq(desk->f.fake.cancels, 0);

        desk_pass_time(desk, 60 * NS_PER_S);
        ck_assert_uint_eq(desk->f.fake.cancels, 1);
        ck_assert_uint_eq(heard(&desk->f, LIDO_EVENT_OVERDUE), 1);
        ck_assert_uint_eq(stats_of(desk->pool).opening, 1);

        fake_answer(&desk->f.fake, FAKE_OPEN);
        desk_turn(desk);
        ck_assert_int_eq(w.status, LIDO_OK);
        must_release(w.lease);
        desk_end(desk);
}
END_TEST

START_TEST(a_pool_at_rest_wants_no_turn_before_something_is_due)
{
        struct desk *desk = desk_new();

        desk->f.options.min = 3;
        desk->f.options.lifetime_ms = LIDO_NEVER;
        desk->f.options.check_interval_ms = LIDO_NEVER;
        desk_open(desk);
        desk_warm_up(desk, 3);
        desk_pass_time(desk, 30 * MINUTE);
        desk->turns = 0;

        desk_pass_time(desk, 24 * 60 * MINUTE);

        ck_assert_uint_eq(desk->turns, 0);
        ck_assert_uint_eq(desk->due_ns, CLOCK_NEVER);
        desk_end(desk);
}
END_TEST

/* A pool of `max` idle objects. */
static struct desk *warm(struct desk *desk, uint32_t max)
{
        desk->f.options.max = max;
        desk_open(desk);
        desk_warm_up(desk, max);
        return desk;
}

static enum slot_state state_at(struct desk *desk, uint32_t index)
{
        return word_state(load_relaxed(&slots_at(&desk->pool->slots, index)->word));
}

START_TEST(a_factory_may_have_every_idle_object_peeked)
{
        struct desk *desk = desk_new();

        fake_add_hooks(&desk->f.fake, FAKE_HAS_PEEK);
        desk->f.fake.factory.flags |= LIDO_FACTORY_PEEK_ALWAYS;
        warm(desk, 1);
        uint32_t before = atomic_load(&desk->f.fake.peeks);

        must_release(desk_acquire(desk));
        must_release(desk_acquire(desk));

        ck_assert_uint_eq(atomic_load(&desk->f.fake.peeks), before + 2);
        ck_assert_uint_eq(stats_of(desk->pool).checked, 0); /* it is fresh: a peek is enough */
        desk_end(desk);
}
END_TEST

START_TEST(all_dead_in_their_sleep_a_waiter_gets_a_new_one)
{
        struct desk *desk = desk_new();
        struct waiting w = { .calls = 0 };
        lido_lease lease[3];

        fake_add_hooks(&desk->f.fake, FAKE_HAS_PEEK);
        warm(desk, 3);
        for (int i = 0; i < 3; i++) {
                lease[i] = desk_acquire(desk);
                fake_break(object_of(lease[i]));
        }
        for (int i = 0; i < 3; i++)
                must_release(lease[i]);
        desk_pass_time(desk, 5 * NS_PER_S);
        desk_wait(desk, &w, 1000);
        desk_turn(desk);

        ck_assert_int_eq(w.status, LIDO_OK);
        ck_assert_uint_ge(object_of(w.lease)->serial, 4);
        must_release(w.lease);
        desk_end(desk);
}
END_TEST

START_TEST(what_has_slept_long_is_checked_before_it_is_lent)
{
        struct desk *desk = desk_new();
        struct waiting w = { .calls = 0 };

        desk->f.options.check_interval_ms = LIDO_NEVER;
        desk->f.options.idle_timeout_ms = LIDO_NEVER;
        warm(desk, 1);
        desk_pass_time(desk, 20 * NS_PER_S);
        must_release(desk_acquire(desk));
        ck_assert_uint_eq(stats_of(desk->pool).checked, 0);
        desk_pass_time(desk, 40 * NS_PER_S);
        desk_wait(desk, &w, 1000);
        desk_turn(desk);

        ck_assert_uint_eq(stats_of(desk->pool).checked, 1);
        ck_assert_int_eq(w.status, LIDO_OK);
        ck_assert_uint_eq(object_of(w.lease)->serial, 1);
        must_release(w.lease);
        desk_end(desk);
}
END_TEST

/* A pool of five that has slept for so long that each must be checked; checks are answered when the test says so. */
static struct desk *asleep(void)
{
        struct desk *desk = desk_new();

        desk->f.options.check_interval_ms = LIDO_NEVER;
        desk->f.options.idle_timeout_ms = LIDO_NEVER;
        desk->f.options.lifetime_ms = LIDO_NEVER;
        fake_always(&desk->f.fake, FAKE_CHECK, (struct fake_step){ .way = FAKE_LATER });
        warm(desk, 5);
        desk_pass_time(desk, MINUTE);
        return desk;
}

static uint32_t under_check(struct desk *desk)
{
        desk_turn(desk);
        return atomic_load(&desk->f.fake.at_work[FAKE_CHECK]);
}

START_TEST(one_who_comes_after_a_long_rest_has_one_object_checked_and_waits_for_it)
{
        struct desk *desk = asleep();
        struct waiting w = { .calls = 0 };

        desk_wait(desk, &w, 1000);
        ck_assert_uint_eq(under_check(desk), 1);
        ck_assert_uint_eq(w.calls, 0);
        fake_answer(&desk->f.fake, FAKE_CHECK);
        desk_turn(desk);

        ck_assert_int_eq(w.status, LIDO_OK);
        ck_assert_uint_eq(stats_of(desk->pool).checked, 1);
        ck_assert_uint_eq(stats_of(desk->pool).idle, 4);
        must_release(w.lease);
        desk_end(desk);
}
END_TEST

START_TEST(as_many_objects_are_checked_as_there_are_who_wait)
{
        struct desk *desk = asleep();
        struct waiting w[3] = { { .calls = 0 } };

        for (int i = 0; i < 3; i++) {
                desk_wait(desk, &w[i], 1000);
                ck_assert_uint_eq(under_check(desk), (uint32_t)i + 1);
        }
        fake_answer_all(&desk->f.fake);
        desk_turn(desk);

        for (int i = 0; i < 3; i++) {
                ck_assert_int_eq(w[i].status, LIDO_OK);
                must_release(w[i].lease);
        }
        ck_assert_uint_eq(stats_of(desk->pool).checked, 3);
        desk_end(desk);
}
END_TEST

START_TEST(tries_on_objects_that_have_slept_long_have_one_checked_and_lend_it_next)
{
        struct desk *desk = asleep();
        lido_lease lease;

        for (int i = 0; i < 10; i++) {
                ck_assert_int_eq(lido_try_acquire(desk->pool, &lease), LIDO_EEXHAUSTED);
                ck_assert_uint_eq(under_check(desk), 1);
        }
        fake_answer(&desk->f.fake, FAKE_CHECK);
        desk_turn(desk);

        must_release(desk_acquire(desk));
        ck_assert_uint_eq(stats_of(desk->pool).checked, 1);
        desk_end(desk);
}
END_TEST

START_TEST(what_is_fresh_is_lent_while_others_have_slept_long)
{
        struct desk *desk = asleep();
        struct waiting w = { .calls = 0 };
        lido_lease lease;

        desk_wait(desk, &w, 1000);
        desk_turn(desk);
        fake_answer(&desk->f.fake, FAKE_CHECK);
        desk_turn(desk);
        must_release(w.lease);
        desk_pass_time(desk, 5 * NS_PER_S); /* at rest, but not for long */

        lease = desk_acquire(desk);
        ck_assert_uint_eq(under_check(desk), 0);
        ck_assert_ptr_eq(lease.slot, w.lease.slot);
        must_release(lease);
        desk_end(desk);
}
END_TEST

START_TEST(an_object_with_the_wanted_label_that_has_slept_long_is_not_lent_unchecked)
{
        struct desk *desk = desk_new();
        struct lido_acquire_options options = LIDO_ACQUIRE_OPTIONS_INIT;
        lido_lease lease;

        desk->f.options.idle_timeout_ms = LIDO_NEVER;
        desk->f.options.check_interval_ms = LIDO_NEVER;
        warm(desk, 2);
        lease = desk_acquire(desk);
        ck_assert_int_eq(lido_set_label(lease, 7), LIDO_OK);
        must_release(lease);
        desk_pass_time(desk, MINUTE);
        options.want_label = 7;

        ck_assert_int_eq(lido_acquire_with(desk->pool, &options, &lease), LIDO_EDEADLK); /* the desk may not wait */
        desk_turn(desk);
        ck_assert_uint_eq(stats_of(desk->pool).checked, 1);
        desk_end(desk);
}
END_TEST

START_TEST(a_check_that_fails_is_followed_by_the_next_until_the_waiter_is_served)
{
        struct desk *desk = asleep();
        struct waiting w = { .calls = 0 };

        fake_always(&desk->f.fake, FAKE_CHECK, (struct fake_step){ .status = LIDO_OK });
        fake_once(&desk->f.fake, FAKE_CHECK, (struct fake_step){ .status = LIDO_EFACTORY });
        fake_once(&desk->f.fake, FAKE_CHECK, (struct fake_step){ .status = LIDO_EFACTORY });
        fake_always(&desk->f.fake, FAKE_OPEN, (struct fake_step){ .status = LIDO_EFACTORY });
        desk_wait(desk, &w, 1000);
        desk_turn(desk);

        ck_assert_int_eq(w.status, LIDO_OK);
        ck_assert_uint_eq(closed(desk, LIDO_CLOSE_CHECK), 2);
        must_release(w.lease);
        desk_end(desk);
}
END_TEST

START_TEST(a_check_that_fails_is_a_doubt_of_what_was_not_heard_of_since)
{
        struct desk *desk = desk_new();
        lido_handle handle;
        lido_lease lease;

        fake_add_hooks(&desk->f.fake, FAKE_HAS_WATCH);
        desk->f.options.open_limit = 2;
        warm(desk, 5);
        lease = desk_acquire(desk);
        handle = object_of(lease)->handle;
        must_release(lease);
        desk_pass_time(desk, 2 * NS_PER_S);
        fake_once(&desk->f.fake, FAKE_CHECK, (struct fake_step){ .status = LIDO_EFACTORY });
        fake_always(&desk->f.fake, FAKE_CHECK, (struct fake_step){ .way = FAKE_LATER });
        ck_assert_int_eq(lido_handle_suspect(handle, "it was slow"), LIDO_OK);

        ck_assert_uint_eq(under_check(desk), 2); /* of the other four, a few at a time */
        ck_assert_int_eq(lido_try_acquire(desk->pool, &lease), LIDO_EEXHAUSTED);
        fake_answer_all(&desk->f.fake);
        ck_assert_uint_eq(under_check(desk), 2);
        fake_answer_all(&desk->f.fake);
        desk_pass_time(desk, NS_PER_S);

        ck_assert_uint_eq(stats_of(desk->pool).checked, 5);
        ck_assert_uint_eq(closed(desk, LIDO_CLOSE_CHECK), 1);
        desk_end(desk);
}
END_TEST

START_TEST(an_object_in_use_does_not_rest)
{
        struct desk *desk = warm(desk_new(), 1);

        for (int i = 0; i < 100; i++) {
                desk_pass_time(desk, 700 * NS_PER_MS);
                ck_assert_int_eq(state_at(desk, 0), SLOT_IDLE);
                must_release(desk_acquire(desk));
        }
        desk_end(desk);
}
END_TEST

START_TEST(without_jitter_the_lifetime_is_exact)
{
        struct desk *desk = desk_new();

        desk->f.options.idle_timeout_ms = LIDO_NEVER;
        desk->f.options.lifetime_ms = 60000;
        desk->f.options.lifetime_jitter = LIDO_NONE;
        warm(desk, 1);
        desk_pass_time(desk, 59900 * NS_PER_MS);
        ck_assert_uint_eq(stats_of(desk->pool).closed[LIDO_CLOSE_LIFETIME], 0);
        desk_pass_time(desk, 200 * NS_PER_MS);

        ck_assert_uint_eq(stats_of(desk->pool).closed[LIDO_CLOSE_LIFETIME], 1);
        desk_end(desk);
}
END_TEST

START_TEST(lifetimes_drawn_apart_do_not_come_together_over_a_day)
{
        struct desk *desk = desk_new();
        uint32_t most = 0;

        desk->f.options.min = 20;
        desk->f.options.idle_timeout_ms = LIDO_NEVER;
        desk->f.options.lifetime_ms = 30 * 60000;
        warm(desk, 20);
        for (int i = 0; i < 24 * 360; i++) { /* ten seconds each */
                uint64_t before = stats_of(desk->pool).closed[LIDO_CLOSE_LIFETIME];
                uint32_t together;

                desk_pass_time(desk, 10 * NS_PER_S);
                together = (uint32_t)(stats_of(desk->pool).closed[LIDO_CLOSE_LIFETIME] - before);
                most = i > 360 && together > most ? together : most;
                ck_assert_uint_le(stats_of(desk->pool).live, 20);
        }

        ck_assert_uint_le(most, 10);
        ck_assert_uint_ge(stats_of(desk->pool).closed[LIDO_CLOSE_LIFETIME], 20 * 47);
        desk_end(desk);
}
END_TEST

START_TEST(raised_again_max_counts_at_once)
{
        struct desk *desk = warm(desk_new(), 2);
        struct waiting w[3] = { { .calls = 0 } };
        lido_lease lease[2] = { desk_acquire(desk), desk_acquire(desk) };

        ck_assert_int_eq(lido_pool_resize(desk->pool, 1), LIDO_OK);
        desk_turn(desk);
        for (int i = 0; i < 3; i++)
                desk_wait(desk, &w[i], LIDO_NEVER);
        desk_turn(desk);
        ck_assert_uint_eq(stats_of(desk->pool).live, 2);
        ck_assert_int_eq(lido_pool_resize(desk->pool, 5), LIDO_OK);
        desk_turn(desk);

        for (int i = 0; i < 3; i++) {
                ck_assert_int_eq(w[i].status, LIDO_OK);
                must_release(w[i].lease);
        }
        must_release(lease[0]);
        must_release(lease[1]);
        desk_end(desk);
}
END_TEST

START_TEST(a_lease_on_a_fresh_object_is_reported_as_soon)
{
        struct desk *desk = desk_new();
        struct waiting w = { .calls = 0 };

        desk->f.options.leak_after_ms = 2000;
        desk->f.options.max = 1;
        desk_open(desk);
        desk_wait(desk, &w, LIDO_NEVER);
        desk_turn(desk);
        ck_assert_int_eq(w.status, LIDO_OK);
        desk_pass_time(desk, 4 * NS_PER_S);

        ck_assert_uint_eq(heard(&desk->f, LIDO_EVENT_LEAK), 1);
        must_release(w.lease);
        desk_end(desk);
}
END_TEST

START_TEST(short_leases_are_never_taken_for_a_leak)
{
        struct desk *desk = desk_new();

        desk->f.options.leak_after_ms = 2000;
        warm(desk, 1);
        for (int i = 0; i < 100; i++) {
                lido_lease lease = desk_acquire(desk);

                desk_pass_time(desk, 1500 * NS_PER_MS);
                must_release(lease);
        }

        ck_assert_uint_eq(heard(&desk->f, LIDO_EVENT_LEAK), 0);
        desk_end(desk);
}
END_TEST

int main(void)
{
        return suite_run(
                "keeper/pass",
                (const TTest *[]){ what_nobody_needed_for_the_idle_timeout_goes_down_to_min,
                                   a_touch_now_and_then_does_not_keep_more_than_are_needed,
                                   what_is_needed_at_once_now_and_then_stays,
                                   nothing_lives_longer_than_its_lifetime_and_not_all_die_at_once,
                                   one_that_is_lent_past_its_lifetime_goes_when_it_returns,
                                   a_rested_object_is_peeked_and_a_hot_one_is_not, one_that_died_in_its_sleep_is_not_lent,
                                   idle_objects_are_checked_each_interval_and_the_dead_are_replaced,
                                   upkeep_takes_nothing_idle_while_somebody_waits,
                                   a_lease_held_for_too_long_is_reported_once_and_so_is_its_return,
                                   a_lease_past_its_deadline_is_revoked_but_its_object_lives_until_it_returns,
                                   a_deadline_can_be_moved_and_lifted, reclaim_after_revokes_whoever_holds_for_so_long,
                                   a_hook_past_its_deadline_is_told_once_and_its_slot_waits_for_it,
                                   a_pool_at_rest_wants_no_turn_before_something_is_due,
                                   a_factory_may_have_every_idle_object_peeked,
                                   all_dead_in_their_sleep_a_waiter_gets_a_new_one,
                                   what_has_slept_long_is_checked_before_it_is_lent,
                                   one_who_comes_after_a_long_rest_has_one_object_checked_and_waits_for_it,
                                   as_many_objects_are_checked_as_there_are_who_wait,
                                   tries_on_objects_that_have_slept_long_have_one_checked_and_lend_it_next,
                                   what_is_fresh_is_lent_while_others_have_slept_long,
                                   an_object_with_the_wanted_label_that_has_slept_long_is_not_lent_unchecked,
                                   a_check_that_fails_is_followed_by_the_next_until_the_waiter_is_served,
                                   a_check_that_fails_is_a_doubt_of_what_was_not_heard_of_since,
                                   an_object_in_use_does_not_rest,
                                   without_jitter_the_lifetime_is_exact,
                                   lifetimes_drawn_apart_do_not_come_together_over_a_day,
                                   raised_again_max_counts_at_once,
                                   a_lease_on_a_fresh_object_is_reported_as_soon,
                                   short_leases_are_never_taken_for_a_leak, NULL });
}
