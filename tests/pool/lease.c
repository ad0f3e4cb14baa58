/* Acquire and release by threads: the fast way, waiting, deadlines. The line itself: tests/pool/waitq.c. Every misuse:
 * tests/pool/misuse.c. What the keeper does with what comes back: tests/keeper. What else can be asked of a lease:
 * tests/pool/borrowed.c. On a loop: tests/keeper/request.c.
 */
#include "pool/lease.h"

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "support/crew.h"
#include "support/desk.h"
#include "support/suite.h"

#define LATE_NS (20 * NS_PER_MS)

/* A lease that this thread does not hold: whoever waits for what it holds itself is in a deadlock, and told so. */
static lido_lease lent_to_another(struct fixture *f)
{
        struct borrower b = { .rc = 0 };

        borrower_start(&b, f->pool, PATIENCE_MS);
        ck_assert_int_eq(borrower_join(&b), LIDO_OK);
        return b.lease;
}

/* ---- the way there and back ------------------------------------------------------------------------------- */

START_TEST(an_acquire_on_an_empty_pool_waits_for_an_open)
{
        struct fixture *f = pool_of(1);
        lido_lease lease = must_acquire(f);

        ck_assert_uint_eq(object_of(lease)->serial, 1);
        ck_assert_ptr_eq(lido_lease_pool(lease), f->pool);
        ck_assert_uint_eq(stats_of(f->pool).leased, 1);
        ck_assert_uint_eq(stats_of(f->pool).waited, 1);
        must_release(lease);
        fixture_end(f);
}
END_TEST

START_TEST(a_released_object_is_lent_again_without_waiting)
{
        struct fixture *f = pool_of(1);
        lido_lease first = must_acquire(f), second;

        must_release(first);
        second = must_acquire(f);

        ck_assert_uint_eq(object_of(second)->serial, 1);
        ck_assert_uint_eq(atomic_load(&f->fake.opened), 1);
        ck_assert_uint_eq(stats_of(f->pool).waited, 1);
        ck_assert_uint_eq(stats_of(f->pool).acquired, 2);
        must_release(second);
        fixture_end(f);
}
END_TEST

START_TEST(a_thread_gets_the_object_that_it_had_last)
{
        struct fixture *f = pool_of(3);
        lido_lease lease;

        warm_up(f, 3);
        lido_lease a = must_acquire(f), b = must_acquire(f);
        struct fake_object *last = object_of(b);

        must_release(a);
        must_release(b);
        for (int i = 0; i < 10; i++) {
                lease = must_acquire(f);
                ck_assert_ptr_eq(object_of(lease), last);
                must_release(lease);
        }
        fixture_end(f);
}
END_TEST

START_TEST(what_it_had_last_is_remembered_over_the_first_use_of_another_pool)
{
        struct fixture *f = pool_of(2), *other = pool_of(1);
        lido_lease lease;

        warm_up(f, 2);
        lido_lease low = must_acquire(f), high = must_acquire(f);
        if (high.slot < low.slot) {
                lease = low;
                low = high;
                high = lease;
        }
        must_release(high);
        high = must_acquire(f);
        struct fake_object *last = object_of(high); /* a search would find the other first */

        must_release(low);
        must_release(high);
        must_release(must_acquire(other));
        lease = must_acquire(f);
        ck_assert_ptr_eq(object_of(lease), last);
        must_release(lease);
        fixture_end(other);
        fixture_end(f);
}
END_TEST

START_TEST(load_gathers_on_the_low_slots)
{
        struct fixture *f = pool_of(4);
        lido_lease lease[4];

        warm_up(f, 4);
        for (int i = 0; i < 4; i++)
                lease[i] = must_acquire(f);
        for (int i = 0; i < 4; i++)
                must_release(lease[i]);
        must_release(lease[0] = must_acquire(f)); /* of the hint */
        lease[0] = must_acquire(f);
        lease[1] = must_acquire(f);

        ck_assert_uint_le(lease[1].slot->index, 1);
        must_release(lease[0]);
        must_release(lease[1]);
        fixture_end(f);
}
END_TEST

START_TEST(a_fifo_pool_lends_the_object_that_has_been_idle_longest)
{
        struct desk *desk = desk_new();
        lido_lease lease[3];

        desk->f.options.max = 3;
        desk->f.options.order = LIDO_ORDER_FIFO;
        desk_open(desk);
        desk_warm_up(desk, 3);
        for (int i = 0; i < 3; i++)
                lease[i] = desk_acquire(desk);
        must_release(lease[2]);
        must_release(lease[0]);
        must_release(lease[1]);

        ck_assert_ptr_eq(desk_acquire(desk).slot, lease[2].slot);
        ck_assert_ptr_eq(desk_acquire(desk).slot, lease[0].slot);
        ck_assert_ptr_eq(desk_acquire(desk).slot, lease[1].slot);
        for (int i = 0; i < 3; i++) {
                lease[i].generation = word_generation(load_relaxed(&lease[i].slot->word)); /* of the second round */
                must_release(lease[i]);
        }
        desk_end(desk);
}
END_TEST

START_TEST(the_site_of_an_acquire_is_remembered)
{
        struct fixture *f = pool_of(1);
        struct lido_blame blame = LIDO_BLAME_INIT;
        lido_lease lease;

        ck_assert_int_eq(lido_acquire_at(f->pool, PATIENCE_MS, &lease, "here.c:1"), LIDO_OK);
        ck_assert_int_eq(lido_pool_blame(f->pool, &blame), LIDO_OK);

        ck_assert_uint_eq(blame.holders, 1);
        ck_assert_str_eq(blame.holder[0].site, "here.c:1");
        ck_assert_uint_eq(blame.holder[0].thread, thread_id());
        must_release(lease);
        fixture_end(f);
}
END_TEST

START_TEST(a_lease_may_be_released_by_another_thread)
{
        struct fixture *f = pool_of(1);
        struct borrower b = { .rc = 0 };

        borrower_start(&b, f->pool, PATIENCE_MS);
        ck_assert_int_eq(borrower_join(&b), LIDO_OK); /* and its thread is gone */
        must_release(b.lease);

        ck_assert_uint_eq(stats_of(f->pool).idle, 1);
        fixture_end(f);
}
END_TEST

/* ---- trying ------------------------------------------------------------------------------------------------ */

START_TEST(a_try_takes_what_is_idle_and_never_waits)
{
        struct fixture *f = pool_of(1);
        lido_lease lease, second;

        warm_up(f, 1);
        ck_assert_int_eq(lido_try_acquire(f->pool, &lease), LIDO_OK);
        ck_assert_int_eq(lido_try_acquire(f->pool, &second), LIDO_EEXHAUSTED);
        ck_assert_int_eq(lido_acquire(f->pool, 0, &second), LIDO_EEXHAUSTED);
        must_release(lease);
        ck_assert_int_eq(lido_try_acquire(f->pool, &lease), LIDO_OK);

        must_release(lease);
        fixture_end(f);
}
END_TEST

START_TEST(a_try_in_vain_has_an_object_opened_for_the_next)
{
        struct fixture *f = pool_of(1);
        lido_lease lease;

        ck_assert_int_eq(lido_try_acquire(f->pool, &lease), LIDO_EEXHAUSTED);
        ck_eventually(stats_of(f->pool).idle == 1);

        ck_assert_int_eq(lido_try_acquire(f->pool, &lease), LIDO_OK);
        must_release(lease);
        fixture_end(f);
}
END_TEST

static bool try_succeeds(struct fixture *f)
{
        lido_lease lease;

        if (lido_try_acquire(f->pool, &lease) != LIDO_OK)
                return false;
        must_release(lease);
        return true;
}

START_TEST(a_try_finds_room_that_a_discard_has_made)
{
        struct fixture *f = pool_of(1);
        lido_lease lease = must_acquire(f);

        ck_assert(!try_succeeds(f));
        ck_assert_int_eq(lido_discard(lease), LIDO_OK);

        ck_eventually(try_succeeds(f));
        fixture_end(f);
}
END_TEST

START_TEST(a_try_finds_room_that_a_detach_has_made)
{
        struct fixture *f = pool_of(1);
        lido_lease lease = must_acquire(f);
        void *object;

        ck_assert(!try_succeeds(f));
        fake_forget(&f->fake);
        ck_assert_int_eq(lido_detach(lease, &object), LIDO_OK);

        ck_eventually(try_succeeds(f));
        fake_drop(object);
        fixture_end(f);
}
END_TEST

START_TEST(a_try_finds_room_that_a_raised_max_has_made)
{
        struct fixture *f = pool_of(1);
        lido_lease lease = must_acquire(f);

        ck_assert(!try_succeeds(f));
        ck_assert_int_eq(lido_pool_resize(f->pool, 2), LIDO_OK);

        ck_eventually(try_succeeds(f));
        must_release(lease);
        fixture_end(f);
}
END_TEST

START_TEST(a_try_asks_again_after_a_failed_open)
{
        struct fixture *f = fixture_new();

        f->options.max = 1;
        f->options.backoff_min_ms = f->options.backoff_max_ms = 1;
        fake_once(&f->fake, FAKE_OPEN, (struct fake_step){ .status = LIDO_EFACTORY });
        fixture_open(f);

        ck_eventually(try_succeeds(f));
        ck_assert_uint_eq(stats_of(f->pool).open_failed, 1);
        fixture_end(f);
}
END_TEST

/* ---- deadlines --------------------------------------------------------------------------------------------- */

/* 28 time-outs, none of them early. Returns: how many were late. */
static unsigned time_outs_that_were_late(struct fixture *f)
{
        static const int64_t timeouts[] = { 1, 2, 5, 9, 11, 20, 50 };
        lido_lease none = { NULL, 0 };
        unsigned late = 0;

        for (unsigned i = 0; i < 28; i++) {
                uint64_t timeout_ns = (uint64_t)timeouts[i % 7] * NS_PER_MS, began = real_now_ns(), took;

                ck_assert_int_eq(lido_acquire(f->pool, timeouts[i % 7], &none), LIDO_ETIMEDOUT);
                took = real_now_ns() - began;
                ck_assert_uint_ge(took, timeout_ns);
                late += took > timeout_ns + LATE_NS;
        }
        ck_assert_ptr_null(none.slot); /* written on success only */
        return late;
}

START_TEST(a_timeout_comes_at_its_deadline_and_never_before)
{
        struct fixture *f = pool_of(1);
        lido_lease lease = lent_to_another(f);
        unsigned rounds = 1;

        /* A thread that is due runs when the kernel lets it: where others keep the cores, another round is tried. A deadline
         * that is missed by our doing is missed in each. */
        while (time_outs_that_were_late(f) > 4)
                ck_assert_uint_lt(rounds++, 20);

        ck_assert_uint_eq(stats_of(f->pool).timed_out, 28 * rounds);
        must_release(lease);
        fixture_end(f);
}
END_TEST

START_TEST(the_default_timeout_is_the_pools_own)
{
        struct fixture *f = fixture_new();
        lido_lease lease, second;
        uint64_t began;

        f->options.max = 1;
        f->options.acquire_timeout_ms = 30;
        fixture_open(f);
        lease = lent_to_another(f);
        began = real_now_ns();
        ck_assert_int_eq(lido_acquire(f->pool, LIDO_TIMEOUT_DEFAULT, &second), LIDO_ETIMEDOUT);

        ck_assert_uint_ge(real_now_ns() - began, 30 * NS_PER_MS);
        must_release(lease);
        fixture_end(f);
}
END_TEST

START_TEST(a_timeout_that_is_none_is_refused_and_the_longest_is_taken)
{
        struct fixture *f = pool_of(1);
        lido_lease lease;

        ck_assert_int_eq(lido_acquire(f->pool, -3, &lease), LIDO_EINVAL);
        ck_assert_int_eq(lido_acquire(f->pool, INT64_MIN, &lease), LIDO_EINVAL);
        ck_assert_int_eq(lido_acquire(f->pool, INT64_MAX, &lease), LIDO_OK);
        must_release(lease);
        ck_assert_int_eq(lido_acquire(f->pool, LIDO_NEVER, &lease), LIDO_OK);
        must_release(lease);
        fixture_end(f);
}
END_TEST

START_TEST(no_pool_or_no_place_for_the_lease_is_refused)
{
        struct fixture *f = pool_of(1);
        lido_lease lease;

        ck_assert_int_eq(lido_acquire(NULL, 0, &lease), LIDO_EINVAL);
        ck_assert_int_eq(lido_acquire(f->pool, 0, NULL), LIDO_EINVAL);
        ck_assert_int_eq(lido_try_acquire(NULL, &lease), LIDO_EINVAL);
        ck_assert_int_eq(lido_try_acquire(f->pool, NULL), LIDO_EINVAL);
        ck_assert_int_eq(lido_acquire_with(NULL, NULL, &lease), LIDO_EINVAL);
        fixture_end(f);
}
END_TEST

START_TEST(a_waiter_who_times_out_leaves_the_object_to_the_next)
{
        struct fixture *f = pool_of(1);
        lido_lease lease = must_acquire(f);
        struct borrower soon = { .rc = 0 }, later = { .rc = 0 };

        borrower_queue(&soon, f->pool, 40);
        borrower_queue(&later, f->pool, PATIENCE_MS);
        ck_assert_int_eq(borrower_join(&soon), LIDO_ETIMEDOUT);
        must_release(lease);

        ck_assert_int_eq(borrower_join(&later), LIDO_OK);
        must_release(later.lease);
        fixture_end(f);
}
END_TEST

/* ---- what comes back ------------------------------------------------------------------------------------------ */

START_TEST(a_discarded_object_is_closed_and_a_new_one_opened)
{
        struct fixture *f = pool_of(1);
        lido_lease lease = must_acquire(f);

        ck_assert_int_eq(lido_discard(lease), LIDO_OK);
        lease = must_acquire(f);

        ck_assert_uint_eq(object_of(lease)->serial, 2);
        ck_assert_uint_eq(stats_of(f->pool).closed[LIDO_CLOSE_DISCARDED], 1);
        must_release(lease);
        fixture_end(f);
}
END_TEST

START_TEST(whoever_discards_may_say_why_and_it_is_told_with_both_sites)
{
        struct fixture *f = pool_of(1);
        char reason[] = "answered with garbage";
        lido_lease lease = must_acquire(f);
        struct lido_event event;

        ck_assert_int_eq(lido_discard_because_at(lease, reason, "here:1"), LIDO_OK);
        memset(reason, 'x', sizeof reason - 1); /* what is told is a copy */
        event = last_heard(f, LIDO_EVENT_DISCARDED);

        ck_assert_str_eq(event.reason, "answered with garbage");
        ck_assert_str_eq(event.other_site, "here:1");
        ck_assert_ptr_nonnull(strstr(event.site, "fixture.c"));
        ck_assert_uint_eq(event.thread, (uint32_t)syscall(SYS_gettid));
        ck_eventually(stats_of(f->pool).closed[LIDO_CLOSE_DISCARDED] == 1);
        fixture_end(f);
}
END_TEST

START_TEST(a_discard_without_a_reason_is_told_too)
{
        struct fixture *f = pool_of(1);

        ck_assert_int_eq(lido_discard(must_acquire(f)), LIDO_OK);
        ck_assert_uint_eq(heard(f, LIDO_EVENT_DISCARDED), 1);
        ck_assert_ptr_null(last_heard(f, LIDO_EVENT_DISCARDED).reason);
        ck_assert_int_eq(lido_discard_because(must_acquire(f), ""), LIDO_OK);

        ck_assert_uint_eq(heard(f, LIDO_EVENT_DISCARDED), 2);
        ck_assert_ptr_null(last_heard(f, LIDO_EVENT_DISCARDED).reason);
        fixture_end(f);
}
END_TEST

START_TEST(a_discard_that_is_refused_leaves_no_reason_behind)
{
        struct lido_blame blame = LIDO_BLAME_INIT;
        struct fixture *f = pool_of(1);
        lido_lease lease = must_acquire(f);

        must_release(lease);
        ck_assert_int_eq(lido_discard_because(lease, "too late"), LIDO_EDOUBLE);

        ck_assert_uint_eq(heard(f, LIDO_EVENT_DISCARDED), 0);
        ck_assert_int_eq(lido_pool_blame(f->pool, &blame), LIDO_OK);
        ck_assert_str_eq(blame.discard_reason, "");
        fixture_end(f);
}
END_TEST

START_TEST(a_long_reason_is_cut_between_characters_and_stays_one_line)
{
        struct fixture *f = pool_of(1);
        char reason[LIDO_REASON_SIZE + 10], told[LIDO_REASON_SIZE];

        memset(reason, 'a', sizeof reason - 1);
        reason[sizeof reason - 1] = '\0';
        memcpy(reason, "one\nline\x7f", 9);
        memcpy(reason + LIDO_REASON_SIZE - 3, "\xe2\x82\xac", 3); /* three bytes, for two of which there is room */
        memcpy(told, reason, sizeof told);
        told[3] = told[8] = ' ';
        told[LIDO_REASON_SIZE - 3] = '\0';
        ck_assert_int_eq(lido_discard_because(must_acquire(f), reason), LIDO_OK);

        ck_assert_str_eq(last_heard(f, LIDO_EVENT_DISCARDED).reason, told);
        fixture_end(f);
}
END_TEST

START_TEST(a_detached_object_is_the_borrowers_and_the_pool_has_room_for_another)
{
        struct fixture *f = pool_of(1);
        lido_lease lease = must_acquire(f);
        struct fake_object *mine = object_of(lease);
        void *object = NULL;

        fake_forget(&f->fake);
        ck_assert_int_eq(lido_detach(lease, &object), LIDO_OK);
        lease = must_acquire(f);

        ck_assert_ptr_eq(object, mine);
        ck_assert_uint_eq(object_of(lease)->serial, 2);
        ck_assert_uint_eq(atomic_load(&f->fake.called[FAKE_CLOSE]), 0);
        ck_assert_uint_eq(stats_of(f->pool).closed[LIDO_CLOSE_DETACHED], 1);
        must_release(lease);
        fake_drop(object);
        fixture_end(f);
}
END_TEST

START_TEST(a_discard_lets_somebody_who_waits_have_a_new_object)
{
        struct fixture *f = pool_of(1);
        lido_lease lease = must_acquire(f);
        struct borrower b = { .rc = 0 };

        borrower_queue(&b, f->pool, PATIENCE_MS);
        ck_assert_int_eq(lido_discard(lease), LIDO_OK);

        ck_assert_int_eq(borrower_join(&b), LIDO_OK);
        ck_assert_uint_eq(object_of(b.lease)->serial, 2);
        must_release(b.lease);
        fixture_end(f);
}
END_TEST

START_TEST(what_its_verdict_calls_dead_is_closed)
{
        struct fixture *f = fixture_new();
        lido_lease lease;

        f->options.max = 1;
        fake_add_hooks(&f->fake, FAKE_HAS_VERDICT);
        fixture_open(f);
        lease = must_acquire(f);
        fake_break(object_of(lease));
        must_release(lease);
        lease = must_acquire(f);

        ck_assert_uint_eq(object_of(lease)->serial, 2);
        ck_assert_uint_eq(stats_of(f->pool).closed[LIDO_CLOSE_BROKEN], 1);
        must_release(lease);
        fixture_end(f);
}
END_TEST

START_TEST(what_its_verdict_calls_dead_is_closed_also_when_it_would_pass_a_check)
{
        struct fixture *f = fixture_new();
        lido_lease lease;

        f->options.max = 1;
        fake_add_hooks(&f->fake, FAKE_HAS_VERDICT);
        fixture_open(f);
        lease = must_acquire(f);
        ck_assert_int_eq(lido_pool_suspect(f->pool), LIDO_OK);
        atomic_store(&f->fake.verdict_says, LIDO_VERDICT_DEAD);
        must_release(lease);
        atomic_store(&f->fake.verdict_says, LIDO_VERDICT_CLEAN);
        lease = must_acquire(f);

        ck_assert_uint_eq(object_of(lease)->serial, 2);
        ck_assert_uint_eq(stats_of(f->pool).closed[LIDO_CLOSE_BROKEN], 1);
        must_release(lease);
        fixture_end(f);
}
END_TEST

START_TEST(what_its_verdict_calls_dirty_is_reset_before_it_is_lent)
{
        struct fixture *f = fixture_new();

        f->options.max = 1;
        fake_add_hooks(&f->fake, FAKE_HAS_VERDICT);
        fixture_open(f);
        atomic_store(&f->fake.verdict_says, LIDO_VERDICT_RESET);
        must_release(must_acquire(f));
        lido_lease lease = must_acquire(f);

        ck_assert_uint_eq(object_of(lease)->serial, 1);
        ck_assert_uint_eq(atomic_load(&f->fake.called[FAKE_RESET]), 1);
        ck_assert_uint_eq(stats_of(f->pool).reset, 1);
        must_release(lease);
        fixture_end(f);
}
END_TEST

START_TEST(an_object_is_closed_after_as_many_leases_as_it_may_have)
{
        struct fixture *f = fixture_new();
        uint32_t serial[7];

        f->options.max = 1;
        f->options.max_uses = 3;
        fixture_open(f);
        for (int i = 0; i < 7; i++) {
                lido_lease lease = must_acquire(f);

                serial[i] = object_of(lease)->serial;
                must_release(lease);
        }

        ck_assert_uint_eq(serial[2], 1);
        ck_assert_uint_eq(serial[3], 2);
        ck_assert_uint_eq(serial[5], 2);
        ck_assert_uint_eq(serial[6], 3);
        ck_assert_uint_eq(stats_of(f->pool).closed[LIDO_CLOSE_USES], 2);
        fixture_end(f);
}
END_TEST

/* ---- objects made by the borrower ---------------------------------------------------------------------------- */

static struct fixture *inline_pool(uint32_t max)
{
        struct fixture *f = fixture_new();

        f->options.max = max;
        f->options.open_inline = 1;
        fixture_open(f);
        return f;
}

START_TEST(an_object_that_cannot_block_is_opened_by_the_borrower_itself)
{
        struct fixture *f = inline_pool(2);
        lido_lease lease, second, third;

        ck_assert_int_eq(lido_try_acquire(f->pool, &lease), LIDO_OK);
        ck_assert_int_eq(lido_try_acquire(f->pool, &second), LIDO_OK);
        ck_assert_int_eq(lido_try_acquire(f->pool, &third), LIDO_EEXHAUSTED);

        ck_assert_uint_eq(atomic_load(&f->fake.opened), 2);
        ck_assert_uint_eq(stats_of(f->pool).waited, 0);
        must_release(lease);
        must_release(second);
        check_quiet(f->pool);
        fixture_end(f);
}
END_TEST

START_TEST(a_borrower_whose_own_open_fails_is_told_so)
{
        struct fixture *f = inline_pool(1);
        lido_lease lease;

        fake_once(&f->fake, FAKE_OPEN, (struct fake_step){ .status = LIDO_EFACTORY });
        ck_assert_int_eq(lido_try_acquire(f->pool, &lease), LIDO_EFACTORY);
        ck_assert_int_eq(lido_try_acquire(f->pool, &lease), LIDO_OK);

        must_release(lease);
        check_quiet(f->pool);
        fixture_end(f);
}
END_TEST

START_TEST(a_borrowers_failed_open_is_room_for_whoever_waits)
{
        struct fixture *f = inline_pool(1);
        struct borrower first = { .rc = 0 }, second = { .rc = 0 };

        gate_shut(&f->fake.gate[FAKE_OPEN]);
        fake_once(&f->fake, FAKE_OPEN, (struct fake_step){ .way = FAKE_GATE, .status = LIDO_EFACTORY });
        borrower_start(&first, f->pool, PATIENCE_MS);
        gate_await(&f->fake.gate[FAKE_OPEN], 1);
        borrower_queue(&second, f->pool, PATIENCE_MS);
        gate_open(&f->fake.gate[FAKE_OPEN]);

        ck_assert_int_eq(borrower_join(&first), LIDO_EFACTORY);
        ck_assert_int_eq(borrower_join(&second), LIDO_OK);
        must_release(second.lease);
        check_quiet(f->pool);
        fixture_end(f);
}
END_TEST

START_TEST(an_open_that_breaks_its_promise_to_answer_at_once_is_survived)
{
        struct fixture *f = inline_pool(1);
        lido_lease lease;

        fake_once(&f->fake, FAKE_OPEN, (struct fake_step){ .way = FAKE_LATER });
        ck_assert_int_eq(lido_try_acquire(f->pool, &lease), LIDO_EEXHAUSTED);
        fake_answer(&f->fake, FAKE_OPEN);

        lease = must_acquire(f);
        ck_assert_uint_eq(object_of(lease)->serial, 1);
        must_release(lease);
        check_quiet(f->pool);
        fixture_end(f);
}
END_TEST

START_TEST(an_object_opened_by_its_borrower_lives_as_long_as_any)
{
        struct desk *desk = desk_new();
        lido_lease lease;

        desk->f.options.open_inline = 1;
        desk->f.options.idle_timeout_ms = LIDO_NEVER;
        desk_open(desk);
        lease = desk_acquire(desk);
        must_release(lease);
        desk_pass_time(desk, 26 * 60 * NS_PER_S);
        ck_assert_uint_eq(stats_of(desk->pool).idle, 1);
        desk_pass_time(desk, 4 * 60 * NS_PER_S);

        ck_assert_uint_eq(stats_of(desk->pool).closed[LIDO_CLOSE_LIFETIME], 1);
        desk_end(desk);
}
END_TEST

/* ---- made ready for its borrower --------------------------------------------------------------------------------- */

static uint32_t activated;
static int activate_says;

static int activate(void *object, const char *tag, void *context)
{
        ck_assert_ptr_nonnull(object);
        ck_assert_ptr_nonnull(context);
        ck_assert(!tag || strcmp(tag, "orders") == 0);
        activated += tag ? 100 : 1;
        return activate_says;
}

static struct desk *activating(uint32_t max)
{
        struct desk *desk = desk_new();

        activated = 0;
        activate_says = LIDO_OK;
        desk->f.options.max = max;
        desk->f.fake.factory.activate = activate;
        desk_open(desk);
        return desk;
}

START_TEST(an_object_is_activated_each_time_that_it_is_lent)
{
        struct desk *desk = activating(1);
        struct waiting w = { .calls = 0 };
        struct lido_acquire_options options = LIDO_ACQUIRE_OPTIONS_INIT;
        lido_lease lease;

        desk_wait(desk, &w, LIDO_NEVER); /* fresh */
        desk_turn(desk);
        ck_assert_uint_eq(activated, 1);
        must_release(w.lease);
        lease = desk_acquire(desk); /* hot */
        ck_assert_uint_eq(activated, 2);
        desk_wait(desk, &w, LIDO_NEVER);
        must_release(lease); /* from hand to hand */
        ck_assert_uint_eq(activated, 3);
        must_release(w.lease);

        options.tag = "orders";
        ck_assert_int_eq(lido_acquire_with(desk->pool, &options, &lease), LIDO_OK);
        ck_assert_uint_eq(activated, 103);
        must_release(lease);
        desk_end(desk);
}
END_TEST

START_TEST(an_object_that_cannot_be_activated_is_closed_and_another_is_lent)
{
        struct desk *desk = activating(2);
        struct waiting w = { .calls = 0 };
        lido_lease lease;

        desk_warm_up(desk, 2);
        activate_says = LIDO_EFACTORY;
        ck_assert_int_eq(lido_try_acquire(desk->pool, &lease), LIDO_EEXHAUSTED);
        activate_says = LIDO_OK;
        desk_wait(desk, &w, LIDO_NEVER);
        desk_turn(desk);

        ck_assert_int_eq(w.status, LIDO_OK);
        ck_assert_uint_eq(stats_of(desk->pool).closed[LIDO_CLOSE_BROKEN], 2);
        must_release(w.lease);
        desk_end(desk);
}
END_TEST

START_TEST(the_age_of_a_lease_on_an_object_opened_by_its_borrower_is_exact_where_leases_are_timed)
{
        struct desk *desk = desk_new();
        struct lido_blame blame = LIDO_BLAME_INIT;
        lido_lease lease;

        desk->f.options.open_inline = 1;
        desk->f.fake.factory.flags |= LIDO_FACTORY_TIMED;
        desk_open(desk);
        lease = desk_acquire(desk);
        clock_advance(3 * NS_PER_MS);
        ck_assert_int_eq(lido_pool_blame(desk->pool, &blame), LIDO_OK);

        ck_assert_uint_eq(blame.holder[0].held_ns, 3 * NS_PER_MS);
        must_release(lease);
        desk_end(desk);
}
END_TEST

START_TEST(an_object_opened_by_its_borrower_is_activated_too)
{
        struct desk *desk = desk_new();
        lido_lease lease;

        activated = 0;
        activate_says = LIDO_OK;
        desk->f.options.open_inline = 1;
        desk->f.fake.factory.activate = activate;
        desk_open(desk);
        lease = desk_acquire(desk);
        ck_assert_uint_eq(activated, 1);
        must_release(lease);
        lido_discard(desk_acquire(desk));
        activate_says = LIDO_EFACTORY;
        ck_assert_int_eq(lido_try_acquire(desk->pool, &lease), LIDO_EFACTORY);
        desk_turn(desk);

        ck_assert_uint_eq(stats_of(desk->pool).closed[LIDO_CLOSE_BROKEN], 1);
        desk_end(desk);
}
END_TEST

/* ---- acquire with options ------------------------------------------------------------------------------------- */

START_TEST(a_failed_acquire_says_why_and_who)
{
        struct fixture *f = pool_of(1);
        struct lido_acquire_options options = LIDO_ACQUIRE_OPTIONS_INIT;
        struct lido_blame blame = LIDO_BLAME_INIT;
        lido_lease lease = lent_to_another(f), second;

        options.timeout_ms = 1;
        options.blame = &blame;
        ck_assert_int_eq(lido_acquire_with(f->pool, &options, &second), LIDO_ETIMEDOUT);

        ck_assert_int_eq(blame.cause, LIDO_CAUSE_EXHAUSTED);
        ck_assert_uint_eq(blame.holders, 1);
        ck_assert_uint_eq(blame.holder[0].slot, lease.slot->index);
        must_release(lease);
        fixture_end(f);
}
END_TEST

START_TEST(options_unknown_here_are_refused)
{
        struct fixture *f = pool_of(1);
        struct {
                struct lido_acquire_options known;
                uint64_t unknown;
        } newer = { LIDO_ACQUIRE_OPTIONS_INIT, 1 };
        lido_lease lease;

        newer.known.size = sizeof newer;
        ck_assert_int_eq(lido_acquire_with(f->pool, &newer.known, &lease), LIDO_E2NEW);
        newer.unknown = 0;
        ck_assert_int_eq(lido_acquire_with(f->pool, &newer.known, &lease), LIDO_OK);
        must_release(lease);
        fixture_end(f);
}
END_TEST

/* ---- threads --------------------------------------------------------------------------------------------------- */

static void work(void *context, unsigned number)
{
        struct fixture *f = context;

        for (int i = 0; i < 2000; i++) {
                lido_lease lease = must_acquire(f);

                fake_use(object_of(lease));
                if (i % 64 == (int)number)
                        thread_yield();
                fake_unuse(object_of(lease));
                must_release(lease);
        }
}

START_TEST(no_object_is_lent_to_two_threads_and_nobody_is_forgotten)
{
        struct fixture *f = pool_of(2);

        crew_run(6, work, f);

        ck_assert_uint_eq(stats_of(f->pool).acquired, 12000);
        ck_assert_uint_le(atomic_load(&f->fake.opened), 2);
        check_quiet(f->pool);
        fixture_end(f);
}
END_TEST

int main(void)
{
        return suite_run("pool/lease", (const TTest *[]){
                                               an_acquire_on_an_empty_pool_waits_for_an_open,
                                               a_released_object_is_lent_again_without_waiting,
                                               a_thread_gets_the_object_that_it_had_last,
                                               what_it_had_last_is_remembered_over_the_first_use_of_another_pool,
                                               load_gathers_on_the_low_slots,
                                               a_fifo_pool_lends_the_object_that_has_been_idle_longest,
                                               the_site_of_an_acquire_is_remembered,
                                               a_lease_may_be_released_by_another_thread,
                                               a_try_takes_what_is_idle_and_never_waits,
                                               a_try_in_vain_has_an_object_opened_for_the_next,
                                               a_try_finds_room_that_a_discard_has_made,
                                               a_try_finds_room_that_a_detach_has_made,
                                               a_try_finds_room_that_a_raised_max_has_made,
                                               a_try_asks_again_after_a_failed_open,
                                               a_timeout_comes_at_its_deadline_and_never_before,
                                               the_default_timeout_is_the_pools_own,
                                               a_timeout_that_is_none_is_refused_and_the_longest_is_taken,
                                               no_pool_or_no_place_for_the_lease_is_refused,
                                               a_waiter_who_times_out_leaves_the_object_to_the_next,
                                               a_discarded_object_is_closed_and_a_new_one_opened,
                                               whoever_discards_may_say_why_and_it_is_told_with_both_sites,
                                               a_discard_without_a_reason_is_told_too,
                                               a_discard_that_is_refused_leaves_no_reason_behind,
                                               a_long_reason_is_cut_between_characters_and_stays_one_line,
                                               a_detached_object_is_the_borrowers_and_the_pool_has_room_for_another,
                                               a_discard_lets_somebody_who_waits_have_a_new_object,
                                               what_its_verdict_calls_dead_is_closed,
                                               what_its_verdict_calls_dead_is_closed_also_when_it_would_pass_a_check,
                                               what_its_verdict_calls_dirty_is_reset_before_it_is_lent,
                                               an_object_is_closed_after_as_many_leases_as_it_may_have,
                                               an_object_that_cannot_block_is_opened_by_the_borrower_itself,
                                               a_borrower_whose_own_open_fails_is_told_so,
                                               a_borrowers_failed_open_is_room_for_whoever_waits,
                                               an_object_is_activated_each_time_that_it_is_lent,
                                               an_object_that_cannot_be_activated_is_closed_and_another_is_lent,
                                               the_age_of_a_lease_on_an_object_opened_by_its_borrower_is_exact_where_leases_are_timed,
                                               an_object_opened_by_its_borrower_is_activated_too,
                                               an_open_that_breaks_its_promise_to_answer_at_once_is_survived,
                                               an_object_opened_by_its_borrower_lives_as_long_as_any,
                                               a_failed_acquire_says_why_and_who,
                                               options_unknown_here_are_refused,
                                               no_object_is_lent_to_two_threads_and_nobody_is_forgotten,
                                               NULL,
                                       });
}
