/* What a factory reports about an object that somebody else may own. Who watches objects: tests/pool/op.c. */
#include <string.h>

#include "pool/slots.h"
#include "support/crew.h"
#include "support/desk.h"
#include "support/suite.h"

static struct desk *watched(uint32_t max)
{
        struct desk *desk = desk_new();

        fake_add_hooks(&desk->f.fake, FAKE_HAS_WATCH);
        desk->f.options.max = max;
        desk_open(desk);
        desk_warm_up(desk, max);
        return desk;
}

static lido_handle handle_of(struct desk *desk, lido_lease *lease)
{
        *lease = desk_acquire(desk);
        return object_of(*lease)->handle;
}

START_TEST(an_idle_object_that_is_broken_is_closed_at_once)
{
        struct desk *desk = watched(2);
        lido_lease lease;
        lido_handle handle = handle_of(desk, &lease);

        must_release(lease);
        ck_assert_int_eq(lido_handle_broken(handle, "it hung up"), LIDO_OK);
        desk_turn(desk);

        ck_assert_uint_eq(stats_of(desk->pool).live, 1);
        ck_assert_uint_eq(stats_of(desk->pool).closed[LIDO_CLOSE_BROKEN], 1);
        ck_assert_str_eq(last_heard(&desk->f, LIDO_EVENT_BROKEN).reason, "it hung up");
        desk_end(desk);
}
END_TEST

START_TEST(a_rested_object_that_is_broken_is_closed_at_once)
{
        struct desk *desk = watched(1);
        lido_lease lease;
        lido_handle handle = handle_of(desk, &lease);

        must_release(lease);
        desk_pass_time(desk, 5 * NS_PER_S);
        ck_assert_int_eq(word_state(load_relaxed(&lease.slot->word)), SLOT_RESTED);
        ck_assert_int_eq(lido_handle_broken(handle, "it hung up"), LIDO_OK);
        desk_turn(desk);

        ck_assert_uint_eq(stats_of(desk->pool).live, 0);
        desk_end(desk);
}
END_TEST

START_TEST(a_lent_object_that_is_broken_is_closed_when_it_returns)
{
        struct desk *desk = watched(1);
        lido_lease lease;
        lido_handle handle = handle_of(desk, &lease);

        ck_assert_int_eq(lido_handle_broken(handle, "it hung up"), LIDO_OK);
        ck_assert_int_eq(lido_handle_broken(handle, "it hung up"), LIDO_OK);
        desk_turn(desk);
        ck_assert_ptr_nonnull(lido_object(lease));
        must_release(lease);
        desk_turn(desk);

        ck_assert_uint_eq(stats_of(desk->pool).closed[LIDO_CLOSE_BROKEN], 1);
        desk_end(desk);
}
END_TEST

START_TEST(a_doubted_object_is_checked_before_it_is_lent_again)
{
        struct desk *desk = watched(1);
        lido_lease lease;
        lido_handle handle = handle_of(desk, &lease);

        ck_assert_int_eq(lido_handle_suspect(handle, "it was slow"), LIDO_OK);
        must_release(lease);
        desk_turn(desk);
        ck_assert_uint_eq(stats_of(desk->pool).checked, 1);
        ck_assert_int_eq(lido_handle_suspect(handle, "it was slow"), LIDO_OK); /* idle this time */
        desk_turn(desk);

        ck_assert_uint_eq(stats_of(desk->pool).checked, 2);
        ck_assert_uint_eq(stats_of(desk->pool).idle, 1);
        desk_end(desk);
}
END_TEST

START_TEST(broken_counts_more_than_doubted)
{
        struct desk *desk = watched(1);
        lido_lease lease;
        lido_handle handle = handle_of(desk, &lease);

        lido_handle_suspect(handle, "first");
        lido_handle_broken(handle, "then");
        must_release(lease);
        desk_turn(desk);

        ck_assert_uint_eq(stats_of(desk->pool).checked, 0);
        ck_assert_uint_eq(stats_of(desk->pool).live, 0);
        desk_end(desk);
}
END_TEST

START_TEST(a_handle_names_one_object_and_not_the_next_in_its_slot)
{
        struct desk *desk = watched(1);
        lido_lease lease;
        lido_handle old = handle_of(desk, &lease);

        lido_discard(lease);
        desk_turn(desk);
        ck_assert_int_eq(lido_handle_broken(old, "too late"), LIDO_ESTALE);
        desk_warm_up(desk, 1);
        lease = desk_acquire(desk);
        ck_assert_ptr_eq(lease.slot, old.slot);

        ck_assert_int_eq(lido_handle_broken(old, "too late"), LIDO_ESTALE);
        ck_assert_int_eq(lido_handle_suspect(old, "too late"), LIDO_ESTALE);
        must_release(lease);
        desk_turn(desk);
        ck_assert_uint_eq(stats_of(desk->pool).idle, 1);
        desk_end(desk);
}
END_TEST

START_TEST(what_is_no_handle_is_refused)
{
        lido_handle none = { NULL, 0 }, garbage = { (struct lido_slot *)(void *)&none, 1 };

        ck_assert_int_eq(lido_handle_broken(none, "?"), LIDO_EINVAL);
        ck_assert_int_eq(lido_handle_suspect(garbage, "?"), LIDO_EINVAL);
}
END_TEST

/* ---- beside borrowers -------------------------------------------------------------------------------------------------- */

struct pests {
        struct fixture *f;
        _Atomic bool is_over;
};

static void borrow_or_report(void *context, unsigned number)
{
        struct pests *pests = context;

        for (int i = 0; i < 3000; i++) {
                lido_lease lease = must_acquire(pests->f);
                lido_handle handle = object_of(lease)->handle;

                fake_use(object_of(lease));
                fake_unuse(object_of(lease));
                must_release(lease);
                if (number == 0 && i % 10 == 0) {
                        int rc = i % 20 ? lido_handle_broken(handle, "a pest") : lido_handle_suspect(handle, "a pest");

                        must(rc == LIDO_OK || rc == LIDO_ESTALE);
                }
        }
}

START_TEST(reports_beside_borrowers_take_nobodys_object_away)
{
        struct pests pests = { .f = fixture_new() };

        fake_add_hooks(&pests.f->fake, FAKE_HAS_WATCH);
        pests.f->options.max = 2;
        fixture_open(pests.f);
        crew_run(4, borrow_or_report, &pests);

        check_quiet(pests.f->pool);
        ck_assert_uint_gt(stats_of(pests.f->pool).closed[LIDO_CLOSE_BROKEN], 0);
        ck_assert_uint_gt(stats_of(pests.f->pool).checked, 0);
        fixture_end(pests.f);
}
END_TEST

int main(void)
{
        return suite_run("pool/handle", (const TTest *[]){
                                                an_idle_object_that_is_broken_is_closed_at_once,
                                                a_rested_object_that_is_broken_is_closed_at_once,
                                                a_lent_object_that_is_broken_is_closed_when_it_returns,
                                                a_doubted_object_is_checked_before_it_is_lent_again,
                                                broken_counts_more_than_doubted,
                                                a_handle_names_one_object_and_not_the_next_in_its_slot,
                                                what_is_no_handle_is_refused,
                                                reports_beside_borrowers_take_nobodys_object_away,
                                                NULL,
                                        });
}
