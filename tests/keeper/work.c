/* Hooks that are late, on a clock of the test's: who is told, and what becomes of the slot. Hooks on helper threads:
 * tests/keeper/helpers.c. Answers: tests/pool/op.c.
 */
#include "keeper/work.h"

#include "support/desk.h"
#include "support/suite.h"

static const struct fake_step later = { .way = FAKE_LATER };

static struct desk *desk_of_one(void)
{
        struct desk *desk = desk_new();

        fake_add_hooks(&desk->f.fake, FAKE_HAS_ALL);
        desk->f.options.max = 1;
        return desk;
}

START_TEST(a_late_open_is_told_to_hurry_at_its_deadline_once)
{
        struct desk *desk = desk_of_one();
        struct waiting w = { .calls = 0 };

        desk->f.options.open_timeout_ms = 700;
        fake_always(&desk->f.fake, FAKE_OPEN, later);
        desk_open(desk);
        desk_wait(desk, &w, LIDO_NEVER);
        desk_turn(desk);
        desk_pass_time(desk, 699 * NS_PER_MS);
        ck_assert_uint_eq(atomic_load(&desk->f.fake.cancels), 0);
        desk_pass_time(desk, 1 * NS_PER_MS);
        desk_turn(desk);
        ck_assert_uint_eq(atomic_load(&desk->f.fake.cancels), 1);
        desk_pass_time(desk, 100 * NS_PER_S);

        ck_assert_uint_eq(atomic_load(&desk->f.fake.cancels), 1);
        ck_assert_uint_eq(heard(&desk->f, LIDO_EVENT_OVERDUE), 1);
        ck_assert_uint_eq(last_heard(&desk->f, LIDO_EVENT_OVERDUE).age_ns, 700 * NS_PER_MS);
        ck_assert_uint_eq(stats_of(desk->pool).opening, 1); /* its slot waits for it all the same */
        fake_answer(&desk->f.fake, FAKE_OPEN);
        desk_turn(desk);
        ck_assert_int_eq(w.status, LIDO_OK);
        must_release(w.lease);
        desk_end(desk);
}
END_TEST

START_TEST(a_late_check_has_its_object_interrupted)
{
        struct desk *desk = desk_of_one();
        lido_lease lease;

        fake_always(&desk->f.fake, FAKE_CHECK, later);
        desk_open(desk);
        desk_warm_up(desk, 1);
        lease = desk_acquire(desk);
        lido_handle_suspect(object_of(lease)->handle, "a test");
        must_release(lease);
        desk_turn(desk);
        desk_pass_time(desk, 1000 * NS_PER_MS);
        desk_turn(desk);

        ck_assert_uint_eq(atomic_load(&desk->f.fake.interrupts), 1);
        ck_assert_uint_eq(atomic_load(&desk->f.fake.cancels), 1);
        fake_answer(&desk->f.fake, FAKE_CHECK);
        desk_turn(desk);
        desk_end(desk);
}
END_TEST

START_TEST(a_late_close_is_told_to_hurry_and_its_object_left_alone)
{
        struct desk *desk = desk_of_one();

        fake_always(&desk->f.fake, FAKE_CLOSE, later);
        desk_open(desk);
        desk_warm_up(desk, 1);
        lido_discard(desk_acquire(desk));
        desk_turn(desk);
        desk_pass_time(desk, 5 * NS_PER_S);

        ck_assert_uint_eq(atomic_load(&desk->f.fake.cancels), 1);
        ck_assert_uint_eq(atomic_load(&desk->f.fake.interrupts), 0);
        ck_assert_uint_eq(stats_of(desk->pool).closing, 1);
        fake_answer(&desk->f.fake, FAKE_CLOSE);
        desk_turn(desk);
        ck_assert_uint_eq(stats_of(desk->pool).live, 0);
        desk_end(desk);
}
END_TEST

START_TEST(a_hook_without_a_limit_is_never_told_to_hurry)
{
        struct desk *desk = desk_of_one();
        struct waiting w = { .calls = 0 };

        desk->f.options.open_timeout_ms = LIDO_NEVER;
        fake_always(&desk->f.fake, FAKE_OPEN, later);
        desk_open(desk);
        desk_wait(desk, &w, LIDO_NEVER);
        desk_turn(desk);
        desk_pass_time(desk, 24 * 3600 * NS_PER_S);

        ck_assert_uint_eq(atomic_load(&desk->f.fake.cancels), 0);
        ck_assert_uint_eq(desk->due_ns, CLOCK_NEVER);
        fake_answer(&desk->f.fake, FAKE_OPEN);
        desk_turn(desk);
        must_release(w.lease);
        desk_end(desk);
}
END_TEST

START_TEST(a_hook_that_hangs_costs_its_slot_and_nothing_else)
{
        struct desk *desk = desk_new();
        struct waiting w = { .calls = 0 };

        desk->f.options.max = 2;
        fake_once(&desk->f.fake, FAKE_OPEN, later);
        desk_open(desk);
        desk_wait(desk, &w, LIDO_NEVER);
        desk_turn(desk);
        struct waiting second = { .calls = 0 };
        desk_wait(desk, &second, LIDO_NEVER);
        desk_turn(desk);

        ck_assert_int_eq(w.status, LIDO_OK); /* the oldest is served, by the open that works */
        for (int i = 0; i < 100; i++) {
                must_release(w.lease);
                ck_assert_int_eq(second.status, LIDO_OK);
                w = second;
                second = (struct waiting){ .calls = 0 };
                desk_wait(desk, &second, LIDO_NEVER);
                desk_pass_time(desk, NS_PER_S);
        }
        ck_assert_uint_eq(stats_of(desk->pool).opening, 1);
        lido_cancel(&second.request);
        must_release(w.lease);
        fake_answer(&desk->f.fake, FAKE_OPEN);
        desk_turn(desk);
        ck_assert_uint_eq(stats_of(desk->pool).idle, 2);
        desk_end(desk);
}
END_TEST

START_TEST(closing_hurries_the_hooks_at_work_when_its_own_deadline_has_passed)
{
        struct desk *desk = desk_of_one();
        struct waiting w = { .calls = 0 };

        fake_always(&desk->f.fake, FAKE_OPEN, later);
        desk_open(desk);
        desk_wait(desk, &w, LIDO_NEVER);
        desk_turn(desk);
        ck_assert_int_eq(lido_pool_close(desk->pool, 200), LIDO_OK);
        desk_turn(desk);
        ck_assert_uint_eq(atomic_load(&desk->f.fake.cancels), 0);
        desk_pass_time(desk, 201 * NS_PER_MS);
        ck_assert_uint_eq(atomic_load(&desk->f.fake.cancels), 1);
        ck_assert_int_eq(w.status, LIDO_ECLOSED);
        ck_assert_int_eq(fake_answer(&desk->f.fake, FAKE_OPEN), LIDO_OK);
        desk_turn(desk);

        ck_assert_uint_eq(atomic_load(&desk->f.fake.closed), 1); /* nobody wants it any more */
        desk_end(desk);
}
END_TEST

int main(void)
{
        return suite_run("keeper/work", (const TTest *[]){
                                                a_late_open_is_told_to_hurry_at_its_deadline_once,
                                                a_late_check_has_its_object_interrupted,
                                                a_late_close_is_told_to_hurry_and_its_object_left_alone,
                                                a_hook_without_a_limit_is_never_told_to_hurry,
                                                a_hook_that_hangs_costs_its_slot_and_nothing_else,
                                                closing_hurries_the_hooks_at_work_when_its_own_deadline_has_passed,
                                                NULL,
                                        });
}
