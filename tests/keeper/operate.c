/* What an operator does to a running pool, and rotation, on a clock that the test moves. */
#include "keeper/rotate.h"
#include "support/desk.h"
#include "support/suite.h"

#include <string.h>

START_TEST(whether_an_acquire_would_wait_is_told_without_one)
{
        struct desk *desk = desk_new();
        lido_lease lease;

        desk->f.options.max = 1;
        desk->f.options.check_interval_ms = LIDO_NEVER;
        desk_open(desk);
        ck_assert_int_eq(lido_would_wait(desk->pool), 1); /* for an open */
        desk_warm_up(desk, 1);
        ck_assert_int_eq(lido_would_wait(desk->pool), 0);
        lease = desk_acquire(desk);
        ck_assert_int_eq(lido_would_wait(desk->pool), 1);
        must_release(lease);
        desk_pass_time(desk, 60 * NS_PER_S);
        ck_assert_int_eq(lido_would_wait(desk->pool), 1); /* for a check */
        lido_pool_suspect(desk->pool);
        desk_turn(desk);
        lido_pool_pause(desk->pool, LIDO_PAUSE_HOLD);
        ck_assert_int_eq(lido_would_wait(desk->pool), 1);
        lido_pool_resume(desk->pool);
        ck_assert_int_eq(lido_would_wait(desk->pool), 0);
        ck_assert_int_eq(lido_would_wait(NULL), 0);
        desk_end(desk);
}
END_TEST

START_TEST(a_pause_holds_borrowers_in_line_and_resume_serves_them_in_order)
{
        struct desk *desk = desk_new();
        struct waiting w[3] = { { .calls = 0 } };

        desk->f.options.max = 1;
        desk_open(desk);
        desk_warm_up(desk, 1);
        ck_assert_int_eq(lido_pool_pause(desk->pool, LIDO_PAUSE_HOLD), LIDO_OK);
        for (int i = 0; i < 3; i++)
                desk_wait(desk, &w[i], LIDO_NEVER);
        desk_pass_time(desk, 5 * NS_PER_S);
        ck_assert_uint_eq(w[0].calls, 0);

        ck_assert_int_eq(lido_pool_resume(desk->pool), LIDO_OK);
        for (int i = 0; i < 3; i++) {
                ck_assert_uint_eq(w[i].calls, 1);
                must_release(w[i].lease);
        }
        desk_end(desk);
}
END_TEST

START_TEST(a_rejecting_pause_answers_those_in_line_and_those_who_come)
{
        struct desk *desk = desk_new();
        struct waiting w = { .calls = 0 };
        lido_lease lease;

        desk_open(desk);
        desk_warm_up(desk, 1);
        lido_pool_pause(desk->pool, LIDO_PAUSE_HOLD);
        desk_wait(desk, &w, LIDO_NEVER);
        ck_assert_int_eq(lido_pool_pause(desk->pool, LIDO_PAUSE_REJECT), LIDO_OK);

        ck_assert_int_eq(w.status, LIDO_EPAUSED);
        ck_assert_int_eq(lido_try_acquire(desk->pool, &lease), LIDO_EPAUSED);
        lido_pool_resume(desk->pool);
        must_release(desk_acquire(desk));
        desk_end(desk);
}
END_TEST

START_TEST(trim_closes_idle_objects_down_to_what_is_kept)
{
        struct desk *desk = desk_new();
        lido_lease lease;

        desk->f.options.max = 5;
        desk_open(desk);
        desk_warm_up(desk, 5);
        lease = desk_acquire(desk);
        ck_assert_int_eq(lido_pool_trim(desk->pool, 2), 3);
        desk_turn(desk);

        ck_assert_uint_eq(stats_of(desk->pool).live, 2);
        ck_assert_int_eq(lido_pool_trim(desk->pool, 0), 1);
        must_release(lease);
        desk_end(desk);
}
END_TEST

START_TEST(clear_closes_idle_objects_now_and_lent_ones_when_they_return)
{
        struct desk *desk = desk_new();
        lido_lease lease;

        desk->f.options.max = 3;
        desk_open(desk);
        desk_warm_up(desk, 3);
        lease = desk_acquire(desk);
        lido_pool_clear(desk->pool);
        desk_turn(desk);
        ck_assert_uint_eq(desk->f.fake.closed, 2);
        ck_assert_ptr_nonnull(lido_object(lease));

        must_release(lease);
        desk_turn(desk);
        ck_assert_uint_eq(desk->f.fake.closed, 3);
        desk_end(desk);
}
END_TEST

START_TEST(suspects_are_checked_before_they_are_lent_and_a_few_at_a_time)
{
        struct desk *desk = desk_new();
        lido_lease lent;

        desk->f.options.max = 10;
        desk->f.options.open_limit = 2;
        desk_open(desk);
        desk_warm_up(desk, 10);
        lent = desk_acquire(desk);
        fake_always(&desk->f.fake, FAKE_CHECK, (struct fake_step){ .way = FAKE_LATER });
        ck_assert_int_eq(lido_pool_suspect(desk->pool), LIDO_OK);
        desk_turn(desk);
        ck_assert_uint_le(desk->f.fake.at_work[FAKE_CHECK], 2);

        fake_always(&desk->f.fake, FAKE_CHECK, (struct fake_step){ .status = LIDO_OK });
        fake_answer_all(&desk->f.fake);
        desk_pass_time(desk, NS_PER_S);
        ck_assert_uint_eq(stats_of(desk->pool).checked, 9);

        must_release(lent);
        desk_turn(desk);
        ck_assert_uint_eq(stats_of(desk->pool).checked, 10);
        ck_assert_uint_eq(desk->f.fake.closed, 0);
        desk_end(desk);
}
END_TEST

START_TEST(why_an_object_is_to_be_closed_is_not_forgotten_when_it_is_doubted)
{
        struct desk *desk = desk_new();
        lido_lease lent;

        desk->f.options.lifetime_ms = 10000;
        desk_open(desk);
        desk_warm_up(desk, 1);
        lent = desk_acquire(desk);
        desk_pass_time(desk, 20 * NS_PER_S);
        lido_pool_suspect(desk->pool);
        must_release(lent);
        desk_turn(desk);

        ck_assert_int_eq(last_heard(&desk->f, LIDO_EVENT_CLOSED).code, LIDO_CLOSE_LIFETIME);
        ck_assert_uint_eq(stats_of(desk->pool).closed[LIDO_CLOSE_ROTATED], 0);
        desk_end(desk);
}
END_TEST

START_TEST(a_borrower_does_not_get_a_suspect_that_fails_its_check)
{
        struct desk *desk = desk_new();
        struct waiting w = { .calls = 0 };

        desk->f.options.max = 2;
        desk_open(desk);
        desk_warm_up(desk, 1);
        fake_once(&desk->f.fake, FAKE_CHECK, (struct fake_step){ .status = LIDO_EFACTORY });
        lido_pool_suspect(desk->pool);
        desk_wait(desk, &w, LIDO_NEVER);
        desk_pass_time(desk, NS_PER_S);

        ck_assert_int_eq(w.status, LIDO_OK);
        ck_assert_uint_eq(object_of(w.lease)->serial, 2);
        must_release(w.lease);
        desk_end(desk);
}
END_TEST

/* A pool of `max` that has been at rest for two seconds. */
static struct desk *at_rest(uint32_t max)
{
        struct desk *desk = desk_new();

        desk->f.options.max = max;
        desk->f.options.open_limit = 2;
        desk_open(desk);
        desk_warm_up(desk, max);
        desk_pass_time(desk, 2 * NS_PER_S);
        fake_always(&desk->f.fake, FAKE_CHECK, (struct fake_step){ .way = FAKE_LATER });
        return desk;
}

START_TEST(after_a_suspend_every_object_is_checked_before_it_is_lent)
{
        struct desk *desk = at_rest(5);
        lido_lease lease;

        clock_suspend(3600 * NS_PER_S);
        ck_assert_int_eq(lido_try_acquire(desk->pool, &lease), LIDO_EEXHAUSTED); /* before the keeper has noticed */
        desk_turn(desk);
        ck_assert_uint_eq(heard(&desk->f, LIDO_EVENT_SUSPENDED), 1);
        ck_assert_uint_eq(last_heard(&desk->f, LIDO_EVENT_SUSPENDED).age_ns, 3600 * NS_PER_S);
        ck_assert_uint_eq(desk->f.fake.at_work[FAKE_CHECK], 2); /* a few at a time */

        fake_always(&desk->f.fake, FAKE_CHECK, (struct fake_step){ .status = LIDO_OK });
        fake_answer_all(&desk->f.fake);
        desk_pass_time(desk, NS_PER_S);
        ck_assert_uint_eq(stats_of(desk->pool).checked, 5);
        ck_assert_uint_eq(heard(&desk->f, LIDO_EVENT_SUSPENDED), 1);
        must_release(desk_acquire(desk));
        desk_end(desk);
}
END_TEST

START_TEST(a_suspend_is_noticed_at_the_keepers_next_turn_and_hot_objects_are_doubted_too)
{
        struct desk *desk = at_rest(2);
        lido_lease lent = desk_acquire(desk), hot = desk_acquire(desk), lease;

        must_release(hot);
        clock_suspend(10 * NS_PER_S);
        desk_turn(desk);
        ck_assert_int_eq(lido_try_acquire(desk->pool, &lease), LIDO_EEXHAUSTED);
        ck_assert_uint_eq(desk->f.fake.at_work[FAKE_CHECK], 1);
        must_release(lent);
        desk_turn(desk);

        ck_assert_uint_eq(desk->f.fake.at_work[FAKE_CHECK], 2);
        fake_answer_all(&desk->f.fake);
        desk_turn(desk);
        ck_assert_uint_eq(stats_of(desk->pool).idle, 2);
        desk_end(desk);
}
END_TEST

START_TEST(a_pool_opened_after_a_suspend_doubts_nothing)
{
        struct desk *desk;
        lido_lease lease;

        clock_suspend(3600 * NS_PER_S);
        desk = at_rest(2);
        desk_turn(desk);

        lease = desk_acquire(desk);
        ck_assert_uint_eq(heard(&desk->f, LIDO_EVENT_SUSPENDED), 0);
        must_release(lease);
        desk_end(desk);
}
END_TEST

START_TEST(a_doze_of_less_than_a_second_is_no_suspend)
{
        struct desk *desk = at_rest(2);

        clock_suspend(900 * NS_PER_MS);
        desk_turn(desk);

        must_release(desk_acquire(desk));
        ck_assert_uint_eq(heard(&desk->f, LIDO_EVENT_SUSPENDED), 0);
        desk_end(desk);
}
END_TEST

START_TEST(a_suspend_is_told_even_where_nothing_can_be_checked)
{
        struct desk *desk = desk_new();

        desk->f.fake.factory.check = NULL;
        desk_open(desk);
        desk_warm_up(desk, 2);
        clock_suspend(3600 * NS_PER_S);
        desk_turn(desk);

        ck_assert_uint_eq(heard(&desk->f, LIDO_EVENT_SUSPENDED), 1);
        must_release(desk_acquire(desk));
        desk_end(desk);
}
END_TEST

START_TEST(a_rotation_replaces_all_over_its_time_and_never_has_fewer)
{
        struct desk *desk = desk_new();
        uint32_t fewest = UINT32_MAX;

        desk->f.options.max = 6;
        desk->f.options.min = 5;
        desk_open(desk);
        desk_warm_up(desk, 5);
        desk_pass_time(desk, NS_PER_S);
        ck_assert_int_eq(lido_pool_rotate(desk->pool, 60000), LIDO_OK);
        for (int i = 0; i < 700; i++) {
                uint32_t usable;

                desk_pass_time(desk, 100 * NS_PER_MS);
                usable = stats_of(desk->pool).idle;
                fewest = usable < fewest ? usable : fewest;
                if (i == 300) {
                        ck_assert_uint_ge(desk->f.fake.closed, 1);
                        ck_assert_uint_le(desk->f.fake.closed, 4);
                }
        }

        ck_assert_uint_eq(desk->f.fake.closed, 5);
        ck_assert_uint_eq(stats_of(desk->pool).closed[LIDO_CLOSE_ROTATED], 5);
        ck_assert_uint_ge(fewest, 5);
        ck_assert_uint_le(desk->f.fake.most_alive, 6);
        desk_end(desk);
}
END_TEST

START_TEST(a_rotation_concerns_all_that_was_open_when_it_was_asked_for)
{
        struct desk *desk = desk_new();
        struct waiting w = { .calls = 0 };
        uint64_t early;

        desk->f.options.max = 2;
        desk_open(desk);
        early = clock_now_ns();
        clock_advance(NS_PER_S);
        desk_wait(desk, &w, LIDO_NEVER);
        keeper_turn(&desk->keeper, early); /* a long turn: what it opens is younger than the turn */
        must_release(w.lease);
        clock_advance(1);
        lido_pool_rotate(desk->pool, 0);
        desk->due_ns = keeper_turn(&desk->keeper, early);
        desk_pass_time(desk, NS_PER_S);

        ck_assert_uint_eq(stats_of(desk->pool).closed[LIDO_CLOSE_ROTATED], 1);
        ck_assert_uint_eq(stats_of(desk->pool).live, 1);
        desk_end(desk);
}
END_TEST

START_TEST(a_rotation_closes_nothing_while_opening_fails)
{
        struct desk *desk = desk_new();

        desk->f.options.max = 4;
        desk->f.options.min = 3;
        desk_open(desk);
        desk_warm_up(desk, 3);
        fake_always(&desk->f.fake, FAKE_OPEN,
                    (struct fake_step){ .status = LIDO_EFACTORY, .failure = LIDO_FAILURE_NETWORK });
        desk_pass_time(desk, NS_PER_S);
        lido_pool_rotate(desk->pool, 1000);
        desk_pass_time(desk, 30 * NS_PER_S);
        ck_assert_uint_eq(desk->f.fake.closed, 0);

        fake_always(&desk->f.fake, FAKE_OPEN, (struct fake_step){ .status = LIDO_OK });
        desk_pass_time(desk, 30 * NS_PER_S);
        ck_assert_uint_eq(desk->f.fake.closed, 3);
        ck_assert_uint_eq(stats_of(desk->pool).live, 3);
        desk_end(desk);
}
END_TEST

struct wish {
        struct desk *desk;
        uint32_t serial; /* objects up to this one are to go */
        uint32_t asked;
        int waiting; /* what to wait for an object answered */
};

static int is_old(void *object, void *context)
{
        struct wish *wish = context;
        lido_lease lease;

        /* no lock is held: the pool may be used */
        ck_assert_uint_le(stats_of(wish->desk->pool).live, 6);
        if (lido_try_acquire(wish->desk->pool, &lease) == LIDO_OK)
                must_release(lease);
        wish->waiting = lido_acquire(wish->desk->pool, 1000, &lease);
        if (wish->waiting == LIDO_OK)
                must_release(lease);
        wish->asked++;
        return ((struct fake_object *)object)->serial <= wish->serial;
}

START_TEST(a_rotation_of_some_replaces_those_over_its_time_and_never_has_fewer)
{
        struct desk *desk = desk_new();
        struct wish wish = { .desk = desk, .serial = 3 };
        uint32_t fewest = UINT32_MAX;

        desk->f.options.max = 6;
        desk->f.options.min = 5;
        desk_open(desk);
        desk_warm_up(desk, 5);
        desk_pass_time(desk, NS_PER_S);
        ck_assert_int_eq(lido_pool_rotate_if(desk->pool, 60000, is_old, &wish), 3);
        ck_assert_uint_eq(wish.asked, 5);
        for (int i = 0; i < 700; i++) {
                uint32_t usable;

                desk_pass_time(desk, 100 * NS_PER_MS);
                usable = stats_of(desk->pool).idle;
                fewest = usable < fewest ? usable : fewest;
                if (i == 100)
                        ck_assert_uint_le(desk->f.fake.closed, 1);
                if (i == 350)
                        ck_assert_uint_ge(desk->f.fake.closed, 1);
        }

        ck_assert_uint_eq(desk->f.fake.closed, 3);
        ck_assert_uint_eq(stats_of(desk->pool).closed[LIDO_CLOSE_ROTATED], 3);
        ck_assert_uint_ge(fewest, 5);
        ck_assert_uint_le(desk->f.fake.most_alive, 6);
        ck_assert_int_eq(lido_pool_rotate_if(desk->pool, 0, is_old, &wish), 0);
        desk_end(desk);
}
END_TEST

START_TEST(what_is_lent_is_asked_about_too_and_goes_when_it_returns)
{
        struct desk *desk = desk_new();
        struct wish wish = { .desk = desk, .serial = 1 };
        lido_lease first, second;

        desk->f.options.max = 3;
        desk_open(desk);
        desk_warm_up(desk, 2);
        first = desk_acquire(desk);
        second = desk_acquire(desk);
        ck_assert_int_eq(lido_pool_rotate_if(desk->pool, 0, is_old, &wish), 1);
        ck_assert_int_eq(wish.waiting, LIDO_EDEADLK);
        desk_pass_time(desk, NS_PER_S);
        ck_assert_uint_eq(desk->f.fake.closed, 0);
        ck_assert_ptr_nonnull(lido_object(first));
        must_release(first);
        must_release(second);
        desk_pass_time(desk, NS_PER_S);

        ck_assert_uint_eq(stats_of(desk->pool).closed[LIDO_CLOSE_ROTATED], 1);
        ck_assert_uint_eq(stats_of(desk->pool).live, 2);
        desk_end(desk);
}
END_TEST

static int counts(void *object, void *context)
{
        (void)object;
        ++*(uint32_t *)context;
        return 0;
}

START_TEST(an_object_that_is_not_to_go_is_left_as_it_was)
{
        struct desk *desk = desk_new();
        uint32_t asked = 0;
        uint64_t word;

        desk->f.options.max = 2;
        desk_open(desk);
        desk_warm_up(desk, 1);
        desk_pass_time(desk, 5 * NS_PER_S);
        word = load_acquire(&slots_at(&desk->pool->slots, 0)->word);
        ck_assert_int_eq(word_state(word), SLOT_RESTED);
        ck_assert_int_eq(lido_pool_rotate_if(desk->pool, 0, counts, &asked), 0);

        ck_assert_uint_eq(asked, 1);
        ck_assert(load_acquire(&slots_at(&desk->pool->slots, 0)->word) == word);
        ck_assert_int_eq(lido_pool_rotate_if(desk->pool, -1, counts, &asked), LIDO_EINVAL);
        ck_assert_int_eq(lido_pool_rotate_if(desk->pool, 0, NULL, NULL), LIDO_EINVAL);
        ck_assert_int_eq(lido_pool_rotate_if(NULL, 0, counts, &asked), LIDO_EINVAL);
        desk_end(desk);
}
END_TEST

START_TEST(a_rotation_of_some_hurries_no_other_that_is_under_way)
{
        struct desk *desk = desk_new();
        struct wish wish = { .desk = desk, .serial = 2 };

        desk->f.options.max = 6;
        desk->f.options.min = 5;
        desk_open(desk);
        desk_warm_up(desk, 5);
        desk_pass_time(desk, NS_PER_S);
        lido_pool_rotate(desk->pool, 60000);
        desk_pass_time(desk, NS_PER_S);
        ck_assert_int_eq(lido_pool_rotate_if(desk->pool, 0, is_old, &wish), 1);
        desk_pass_time(desk, 10 * NS_PER_S);
        ck_assert_uint_le(desk->f.fake.closed, 2);
        desk_pass_time(desk, 60 * NS_PER_S);

        ck_assert_uint_eq(desk->f.fake.closed, 5);
        ck_assert_uint_eq(stats_of(desk->pool).live, 5);
        desk_end(desk);
}
END_TEST

START_TEST(a_rotation_does_not_forget_what_was_being_checked_meanwhile)
{
        struct desk *desk = desk_new();

        desk->f.options.max = 3;
        desk->f.options.min = 2;
        desk->f.options.check_timeout_ms = 3600000;
        desk_open(desk);
        desk_warm_up(desk, 2);
        fake_once(&desk->f.fake, FAKE_CHECK, (struct fake_step){ .way = FAKE_LATER });
        fake_once(&desk->f.fake, FAKE_CHECK, (struct fake_step){ .way = FAKE_LATER });
        desk_pass_time(desk, 130 * NS_PER_S); /* check_interval_ms */
        ck_assert_uint_eq(desk->f.fake.at_work[FAKE_CHECK], 2);
        lido_pool_rotate(desk->pool, 1000);
        desk_pass_time(desk, 10 * NS_PER_S);
        fake_answer_all(&desk->f.fake);
        desk_pass_time(desk, 10 * NS_PER_S);

        ck_assert_uint_eq(stats_of(desk->pool).closed[LIDO_CLOSE_ROTATED], 2);
        ck_assert_uint_eq(stats_of(desk->pool).live, 2);
        desk_end(desk);
}
END_TEST

START_TEST(an_object_in_demand_is_replaced_before_its_lifetime_ends)
{
        struct desk *desk = desk_new();
        uint32_t fewest = UINT32_MAX;

        desk->f.options.max = 3;
        desk->f.options.min = 2;
        desk->f.options.lifetime_jitter = LIDO_NONE;
        desk_open(desk);
        desk_warm_up(desk, 2);
        for (int i = 0; i < 1850; i++) { /* nearly 31 minutes, in seconds */
                desk_pass_time(desk, NS_PER_S);
                fewest = stats_of(desk->pool).idle < fewest ? stats_of(desk->pool).idle : fewest;
        }

        ck_assert_uint_eq(stats_of(desk->pool).closed[LIDO_CLOSE_LIFETIME], 2);
        ck_assert_uint_ge(fewest, 1);
        desk_end(desk);
}
END_TEST

START_TEST(an_adopted_object_is_lent_like_any_other)
{
        struct desk *desk = desk_new();
        struct fake_object *object;
        lido_lease lease;

        desk->f.options.max = 1;
        desk_open(desk);
        desk_turn(desk);
        object = fake_make(&desk->f.fake);
        fake_remember(&desk->f.fake);
        ck_assert_int_eq(lido_pool_adopt(desk->pool, object), LIDO_OK);
        desk_turn(desk);

        lease = desk_acquire(desk);
        ck_assert_ptr_eq(object_of(lease), object);
        ck_assert_int_eq(lido_pool_adopt(desk->pool, object), LIDO_EEXHAUSTED);
        must_release(lease);
        desk_end(desk);
}
END_TEST

START_TEST(a_reconfiguration_counts_as_a_whole_or_not_at_all)
{
        struct desk *desk = desk_new();
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        struct lido_error error;

        desk->f.options.max = 2;
        desk_open(desk);
        desk_warm_up(desk, 2);
        options.max = 4;
        options.min = 9;
        ck_assert_int_eq(lido_pool_reconfigure(desk->pool, &options, &error), LIDO_EINVAL);
        ck_assert_ptr_nonnull(strstr(error.text, "min=9"));
        ck_assert_uint_eq(stats_of(desk->pool).max, 2);

        options.min = 4;
        ck_assert_int_eq(lido_pool_reconfigure(desk->pool, &options, &error), LIDO_OK);
        desk_turn(desk);
        ck_assert_uint_eq(stats_of(desk->pool).live, 4);
        desk_end(desk);
}
END_TEST

START_TEST(a_lowered_max_closes_idle_objects_now_and_lent_ones_when_they_return)
{
        struct desk *desk = desk_new();
        lido_lease lease[3];

        desk->f.options.max = 4;
        desk_open(desk);
        desk_warm_up(desk, 4);
        for (int i = 0; i < 3; i++)
                lease[i] = desk_acquire(desk);
        ck_assert_int_eq(lido_pool_resize(desk->pool, 1), LIDO_OK);
        desk_turn(desk);
        ck_assert_uint_eq(stats_of(desk->pool).live, 3);

        for (int i = 0; i < 3; i++)
                must_release(lease[i]);
        desk_turn(desk);
        ck_assert_uint_eq(stats_of(desk->pool).live, 1);

        ck_assert_int_eq(lido_pool_resize(desk->pool, 100), LIDO_OK);
        desk_warm_up(desk, 100);
        ck_assert_uint_eq(stats_of(desk->pool).live, 100);
        desk_end(desk);
}
END_TEST

START_TEST(the_wait_of_a_newcomer_is_estimated_by_how_the_line_moves)
{
        struct desk *desk = desk_new();
        struct waiting w[10] = { { .calls = 0 } };
        lido_lease lease;
        uint64_t estimate;

        desk->f.options.max = 1;
        desk_open(desk);
        desk_warm_up(desk, 1);
        ck_assert_uint_eq(lido_estimated_wait_ns(desk->pool), 0);
        lease = desk_acquire(desk);
        for (int i = 0; i < 10; i++)
                desk_wait(desk, &w[i], LIDO_NEVER);
        for (int i = 0; i < 8; i++) { /* each holds it for a tenth of a second */
                desk_pass_time(desk, 100 * NS_PER_MS);
                must_release(lease);
                lease = w[i].lease;
        }
        estimate = lido_estimated_wait_ns(desk->pool); /* two wait: the newcomer would be the third */

        ck_assert_uint_ge(estimate, 200 * NS_PER_MS);
        ck_assert_uint_le(estimate, 400 * NS_PER_MS);
        must_release(lease);
        must_release(w[8].lease);
        must_release(w[9].lease);
        desk_end(desk);
}
END_TEST

int main(void)
{
        return suite_run("keeper/operate",
                         (const TTest *[]){ whether_an_acquire_would_wait_is_told_without_one,
                                            a_pause_holds_borrowers_in_line_and_resume_serves_them_in_order,
                                            a_rejecting_pause_answers_those_in_line_and_those_who_come,
                                            trim_closes_idle_objects_down_to_what_is_kept,
                                            clear_closes_idle_objects_now_and_lent_ones_when_they_return,
                                            suspects_are_checked_before_they_are_lent_and_a_few_at_a_time,
                                            after_a_suspend_every_object_is_checked_before_it_is_lent,
                                            a_suspend_is_noticed_at_the_keepers_next_turn_and_hot_objects_are_doubted_too,
                                            a_pool_opened_after_a_suspend_doubts_nothing,
                                            a_doze_of_less_than_a_second_is_no_suspend,
                                            a_suspend_is_told_even_where_nothing_can_be_checked,
                                            why_an_object_is_to_be_closed_is_not_forgotten_when_it_is_doubted,
                                            a_borrower_does_not_get_a_suspect_that_fails_its_check,
                                            a_rotation_replaces_all_over_its_time_and_never_has_fewer,
                                            a_rotation_concerns_all_that_was_open_when_it_was_asked_for,
                                            a_rotation_closes_nothing_while_opening_fails,
                                            a_rotation_of_some_replaces_those_over_its_time_and_never_has_fewer,
                                            what_is_lent_is_asked_about_too_and_goes_when_it_returns,
                                            an_object_that_is_not_to_go_is_left_as_it_was,
                                            a_rotation_of_some_hurries_no_other_that_is_under_way,
                                            a_rotation_does_not_forget_what_was_being_checked_meanwhile,
                                            an_object_in_demand_is_replaced_before_its_lifetime_ends,
                                            an_adopted_object_is_lent_like_any_other,
                                            a_reconfiguration_counts_as_a_whole_or_not_at_all,
                                            a_lowered_max_closes_idle_objects_now_and_lent_ones_when_they_return,
                                            the_wait_of_a_newcomer_is_estimated_by_how_the_line_moves, NULL });
}
