/* The keeper's turns: what wakes it, when it wants to be called again, and how pools end under it. What it does in a turn:
 * tests/keeper/{grow,pass,work,operate}.c.
 */
#include "keeper/keeper.h"

#include <stdio.h>
#include <string.h>

#include "keeper/lifecycle.h"
#include "support/desk.h"
#include "support/suite.h"

START_TEST(a_keeper_without_work_wants_no_turn)
{
        struct desk *desk = desk_new();

        desk_open(desk);
        uint32_t turns = desk->turns, wakes = desk->wakes;
        desk_pass_time(desk, 24 * 3600 * NS_PER_S);

        ck_assert_uint_eq(desk->turns, turns);
        ck_assert_uint_eq(desk->wakes, wakes);
        desk_end(desk);
}
END_TEST

START_TEST(acquire_and_release_of_a_hot_object_wake_nobody)
{
        struct desk *desk = desk_new();

        desk->f.options.max = 1;
        desk_open(desk);
        desk_warm_up(desk, 1);
        uint32_t wakes = desk->wakes;
        for (int i = 0; i < 10000; i++)
                must_release(desk_acquire(desk));

        ck_assert_uint_eq(desk->wakes, wakes);
        desk_end(desk);
}
END_TEST

START_TEST(a_burst_of_waiters_wakes_the_keeper_once)
{
        struct desk *desk = desk_new();
        struct waiting w[50] = { { .calls = 0 } };

        desk->f.options.max = 2;
        desk_open(desk);
        uint32_t wakes = desk->wakes;
        for (int i = 0; i < 50; i++)
                desk_wait(desk, &w[i], LIDO_NEVER);

        ck_assert_uint_eq(desk->wakes, wakes + 1);
        for (int i = 0; i < 50; i++)
                lido_cancel(&w[i].request);
        desk_end(desk);
}
END_TEST

START_TEST(a_lost_wake_up_is_made_good_by_the_next_turn)
{
        struct desk *desk = desk_new();
        struct waiting w = { .calls = 0 };

        desk->f.options.max = 1;
        desk_open(desk);
        desk_wait(desk, &w, LIDO_NEVER);
        ck_assert_uint_eq(w.calls, 0);
        desk_turn(desk); /* for whatever reason */

        ck_assert_int_eq(w.status, LIDO_OK);
        must_release(w.lease);
        desk_end(desk);
}
END_TEST

START_TEST(while_somebody_waits_nothing_idle_is_claimed_for_upkeep)
{
        struct desk *desk = desk_new();
        struct waiting w = { .calls = 0 };

        fake_add_hooks(&desk->f.fake, FAKE_HAS_WATCH);
        desk->f.options.max = 2;
        desk_open(desk);
        desk_warm_up(desk, 2);
        lido_lease a = desk_acquire(desk), b = desk_acquire(desk);
        desk_wait(desk, &w, LIDO_NEVER);
        clock_advance(3600 * NS_PER_S); /* both are too old, and due for a check */
        must_release(a);
        ck_assert_int_eq(w.status, LIDO_OK); /* served first */
        must_release(b);
        desk_turn(desk);

        must_release(w.lease);
        desk_turn(desk);
        desk_end(desk);
}
END_TEST

/* ---- closing ------------------------------------------------------------------------------------------------------ */

START_TEST(a_closing_pool_refuses_ends_what_is_idle_and_waits_for_what_is_lent)
{
        struct desk *desk = desk_new();
        lido_lease lease, none;

        desk->f.options.max = 3;
        desk_open(desk);
        desk_warm_up(desk, 3);
        lease = desk_acquire(desk);
        ck_assert_int_eq(lido_pool_close(desk->pool, LIDO_NEVER), LIDO_OK);
        desk_turn(desk);
        ck_assert_int_eq(lido_try_acquire(desk->pool, &none), LIDO_ECLOSED);
        ck_assert_int_eq(lido_acquire(desk->pool, 100, &none), LIDO_ECLOSED);
        ck_assert_uint_eq(stats_of(desk->pool).live, 1);
        ck_assert_uint_eq(atomic_load(&desk->f.fake.ends), 0);
        ck_assert_ptr_nonnull(lido_object(lease));
        must_release(lease);
        desk_turn(desk);

        ck_assert_uint_eq(atomic_load(&desk->f.fake.closed), 3);
        ck_assert_uint_eq(atomic_load(&desk->f.fake.ends), 1);
        desk_end(desk);
}
END_TEST

START_TEST(at_the_closing_deadline_holders_are_reported_and_their_objects_interrupted_once)
{
        struct desk *desk = desk_new();
        struct lido_event event;
        lido_lease lease[2];

        desk->f.options.max = 2;
        desk_open(desk);
        desk_warm_up(desk, 2);
        ck_assert_int_eq(lido_try_acquire_at(desk->pool, &lease[0], "holder.c:1"), LIDO_OK);
        ck_assert_int_eq(lido_try_acquire_at(desk->pool, &lease[1], "holder.c:1"), LIDO_OK);
        lido_pool_close(desk->pool, 500);
        desk_turn(desk);
        ck_assert_uint_eq(heard(&desk->f, LIDO_EVENT_HOLDER), 0);
        desk_pass_time(desk, 501 * NS_PER_MS);
        ck_assert_uint_eq(heard(&desk->f, LIDO_EVENT_HOLDER), 2);
        event = last_heard(&desk->f, LIDO_EVENT_HOLDER);
        desk_pass_time(desk, 3600 * NS_PER_S);

        ck_assert_str_eq(event.site, "holder.c:1");
        ck_assert_uint_eq(heard(&desk->f, LIDO_EVENT_HOLDER), 2);
        ck_assert_uint_eq(atomic_load(&desk->f.fake.interrupts), 2);
        ck_assert_ptr_nonnull(lido_object(lease[0])); /* broken, but still there */
        must_release(lease[0]);
        must_release(lease[1]);
        desk_turn(desk);
        ck_assert_uint_eq(atomic_load(&desk->f.fake.ends), 1);
        desk_end(desk);
}
END_TEST

START_TEST(closing_twice_is_harmless_and_the_earlier_deadline_counts)
{
        struct desk *desk = desk_new();
        lido_lease lease;

        desk->f.options.max = 1;
        desk_open(desk);
        desk_warm_up(desk, 1);
        lease = desk_acquire(desk);
        ck_assert_int_eq(lido_pool_close(desk->pool, LIDO_NEVER), LIDO_OK);
        ck_assert_int_eq(lido_pool_close(desk->pool, 100), LIDO_OK);
        ck_assert_int_eq(lido_pool_close(desk->pool, 5000), LIDO_OK);
        desk_turn(desk);
        desk_pass_time(desk, 101 * NS_PER_MS);

        ck_assert_uint_eq(heard(&desk->f, LIDO_EVENT_HOLDER), 1);
        must_release(lease);
        desk_end(desk);
}
END_TEST

START_TEST(an_object_opened_for_a_pool_that_closes_is_closed_too)
{
        struct desk *desk = desk_new();
        struct waiting w = { .calls = 0 };

        desk->f.options.max = 1;
        fake_always(&desk->f.fake, FAKE_OPEN, (struct fake_step){ .way = FAKE_LATER });
        desk_open(desk);
        desk_wait(desk, &w, LIDO_NEVER);
        desk_turn(desk);
        lido_pool_close(desk->pool, LIDO_NEVER);
        desk_turn(desk);
        ck_assert_int_eq(w.status, LIDO_ECLOSED);
        ck_assert_int_eq(fake_answer(&desk->f.fake, FAKE_OPEN), LIDO_OK);
        desk_turn(desk);

        ck_assert_uint_eq(atomic_load(&desk->f.fake.closed), 1);
        ck_assert_uint_eq(stats_of(desk->pool).closed[LIDO_CLOSE_SHUTDOWN], 1);
        desk_end(desk);
}
END_TEST

START_TEST(an_object_may_be_closing_checking_or_resetting_when_its_pool_closes)
{
        static const enum fake_hook hooks[] = { FAKE_CHECK, FAKE_RESET, FAKE_CLOSE };

        for (int i = 0; i < 3; i++) {
                struct desk *desk = desk_new();
                lido_lease lease;

                fake_add_hooks(&desk->f.fake, FAKE_HAS_ALL);
                desk->f.options.max = 1;
                fake_once(&desk->f.fake, hooks[i], (struct fake_step){ .way = FAKE_LATER });
                desk_open(desk);
                desk_warm_up(desk, 1);
                lease = desk_acquire(desk);
                if (hooks[i] == FAKE_CHECK)
                        lido_handle_suspect(object_of(lease)->handle, "a test");
                atomic_store(&desk->f.fake.verdict_says, hooks[i] == FAKE_RESET ? LIDO_VERDICT_RESET : LIDO_VERDICT_CLEAN);
                ck_assert_int_eq(hooks[i] == FAKE_CLOSE ? lido_discard(lease) : lido_release(lease), LIDO_OK);
                desk_turn(desk);
                ck_assert_uint_eq(fake_kept(&desk->f.fake, hooks[i]), 1);
                lido_pool_close(desk->pool, LIDO_NEVER);
                desk_turn(desk);
                ck_assert_uint_eq(atomic_load(&desk->f.fake.ends), 0);
                ck_assert_int_eq(fake_answer(&desk->f.fake, hooks[i]), LIDO_OK);
                desk_turn(desk);

                ck_assert_uint_eq(atomic_load(&desk->f.fake.closed), 1);
                ck_assert_uint_eq(atomic_load(&desk->f.fake.ends), 1);
                desk_end(desk);
        }
}
END_TEST

START_TEST(a_freed_pool_lives_until_its_last_lease_has_returned)
{
        struct desk *desk = desk_new();
        lido_lease lease;

        desk->f.options.max = 1;
        desk_open(desk);
        desk_warm_up(desk, 1);
        lease = desk_acquire(desk);
        lido_pool_free(desk->pool);
        desk->pool = NULL;
        desk_turn(desk);
        ck_assert_uint_eq(atomic_load(&desk->f.fake.ends), 0);
        ck_assert_ptr_nonnull(lido_object(lease));
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        desk_turn(desk);

        ck_assert_uint_eq(atomic_load(&desk->f.fake.ends), 1);
        ck_assert_int_ne(lido_release(lease), LIDO_OK);
        desk_end(desk);
}
END_TEST

/* ---- a real service at rest ------------------------------------------------------------------------------------------ */

static long switches_of(uint32_t thread)
{
        char path[64], line[128];
        long sum = 0, number;
        FILE *file;

        snprintf(path, sizeof path, "/proc/self/task/%u/status", thread);
        file = fopen(path, "r");
        ck_assert_ptr_nonnull(file);
        while (fgets(line, sizeof line, file))
                if (sscanf(line, "voluntary_ctxt_switches: %ld", &number) == 1)
                        sum += number;
        fclose(file);
        return sum;
}

static bool sleeps_a_second(uint32_t thread)
{
        uint64_t until = real_now_ns() + 1100 * NS_PER_MS;
        long before = switches_of(thread);

        while (real_now_ns() < until)
                give_way();
        return switches_of(thread) == before;
}

/* Everything open has come to rest after a while, and nothing is due for long: the loop thread sleeps. */
START_TEST(an_idle_service_makes_no_wake_ups)
{
        struct fixture *f = pool_of(4);
        uint32_t thread;

        warm_up(f, 4);
        thread = load_relaxed(&load_relaxed(&f->pool->host)->thread);

        ck_eventually(sleeps_a_second(thread));
        fixture_end(f);
}
END_TEST

int main(void)
{
        return suite_run("keeper/keeper",
                         (const TTest *[]){
                                 a_keeper_without_work_wants_no_turn,
                                 acquire_and_release_of_a_hot_object_wake_nobody,
                                 a_burst_of_waiters_wakes_the_keeper_once,
                                 a_lost_wake_up_is_made_good_by_the_next_turn,
                                 while_somebody_waits_nothing_idle_is_claimed_for_upkeep,
                                 a_closing_pool_refuses_ends_what_is_idle_and_waits_for_what_is_lent,
                                 at_the_closing_deadline_holders_are_reported_and_their_objects_interrupted_once,
                                 closing_twice_is_harmless_and_the_earlier_deadline_counts,
                                 an_object_opened_for_a_pool_that_closes_is_closed_too,
                                 an_object_may_be_closing_checking_or_resetting_when_its_pool_closes,
                                 a_freed_pool_lives_until_its_last_lease_has_returned,
                                 an_idle_service_makes_no_wake_ups,
                                 NULL,
                         });
}
