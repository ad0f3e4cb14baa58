/* Misuse: leases that have ended, that never were, that belong to others; waiting where it would never end. Each is refused with
 * its code, and nothing changes. Garbage for a lease: tests/pool/region.c. Answers that come twice: tests/pool/op.c.
 */
#include <string.h>

#include "pool/lease.h"
#include "support/crew.h"
#include "support/fixture.h"
#include "support/suite.h"

static void check_refused(lido_lease lease, int code)
{
        void *object = &object;

        ck_assert_int_eq(lido_release(lease), code);
        ck_assert_int_eq(lido_discard(lease), code);
        ck_assert_int_eq(lido_detach(lease, &object), code);
        ck_assert_ptr_eq(object, &object); /* written on success only */
        ck_assert_ptr_null(lido_object(lease));
        ck_assert_ptr_null(lido_lease_pool(lease));
}

START_TEST(a_second_release_is_refused_and_both_sites_are_told)
{
        struct fixture *f = pool_of(1);
        lido_lease lease = must_acquire(f);
        struct lido_event event;

        ck_assert_int_eq(lido_release_at(lease, "first.c:1"), LIDO_OK);
        ck_assert_int_eq(lido_release_at(lease, "second.c:2"), LIDO_EDOUBLE);
        event = last_heard(f, LIDO_EVENT_MISUSE);

        ck_assert_int_eq(event.code, LIDO_EDOUBLE);
        ck_assert_str_eq(event.site, "second.c:2");
        ck_assert_str_eq(event.other_site, "first.c:1");
        ck_assert_uint_eq(event.thread, thread_id());
        ck_assert_ptr_eq(event.pool, f->pool);
        check_refused(lease, LIDO_EDOUBLE);
        ck_assert_uint_eq(stats_of(f->pool).idle, 1);
        ck_assert_uint_eq(stats_of(f->pool).misused, 4);
        check_quiet(f->pool);
        fixture_end(f);
}
END_TEST

START_TEST(a_double_release_does_not_end_the_next_borrowers_lease)
{
        struct fixture *f = pool_of(1);
        lido_lease old = must_acquire(f), now;

        must_release(old);
        now = must_acquire(f);
        check_refused(old, LIDO_EDOUBLE);

        ck_assert_ptr_nonnull(lido_object(now));
        must_release(now);
        check_quiet(f->pool);
        fixture_end(f);
}
END_TEST

START_TEST(a_lease_that_ended_long_ago_is_stale)
{
        struct fixture *f = pool_of(1);
        lido_lease old = must_acquire(f);

        must_release(old);
        for (int i = 0; i < 5; i++)
                must_release(must_acquire(f));

        check_refused(old, LIDO_ESTALE);
        check_quiet(f->pool);
        fixture_end(f);
}
END_TEST

START_TEST(a_lease_that_never_was_is_foreign)
{
        struct fixture *f = pool_of(1);
        lido_lease lease = must_acquire(f), forged = lease;

        forged.generation += 100 * GENERATION_ONE;
        check_refused(forged, LIDO_EFOREIGN);
        forged.generation = lease.generation + 1; /* no generation has such bits */
        ck_assert_int_eq(lido_release(forged), LIDO_EFOREIGN);

        must_release(lease);
        fixture_end(f);
}
END_TEST

START_TEST(a_lease_of_nothing_is_refused)
{
        lido_lease none = { NULL, 0 };

        check_refused(none, LIDO_EINVAL);
}
END_TEST

START_TEST(the_lease_of_a_pool_that_is_gone_is_stale_and_the_next_pool_is_unharmed)
{
        struct fixture *f = pool_of(1), *next;
        lido_lease old = must_acquire(f), now;

        must_release(old);
        fixture_end(f);
        ck_assert_int_ne(lido_release(old), LIDO_OK);
        next = pool_of(1);
        now = must_acquire(next);
        ck_assert_ptr_eq(now.slot, old.slot); /* the same memory serves again */

        check_refused(old, LIDO_ESTALE);
        ck_assert_ptr_nonnull(lido_object(now));
        ck_assert_uint_eq(heard(next, LIDO_EVENT_MISUSE), 0); /* it was no lease of this pool */
        must_release(now);
        fixture_end(next);
}
END_TEST

struct duel {
        lido_lease lease;
        _Atomic uint32_t won, lost;
};

static void end_it(void *context, unsigned number)
{
        struct duel *duel = context;
        void *object;
        int rc;

        if (number % 3 == 0)
                rc = lido_release(duel->lease);
        else if (number % 3 == 1)
                rc = lido_discard(duel->lease);
        else
                rc = lido_detach(duel->lease, &object);
        if (rc == LIDO_OK && number % 3 == 2)
                fake_drop(object);
        atomic_fetch_add(rc == LIDO_OK ? &duel->won : &duel->lost, 1);
        must(rc == LIDO_OK || rc == LIDO_EDOUBLE || rc == LIDO_ESTALE);
}

static void fake_balance(struct fixture *f)
{
        /* Whoever detaches drops without fake_forget, because it does not know beforehand that it will win. */
        atomic_store(&f->fake.alive, stats_of(f->pool).live);
}

START_TEST(of_threads_that_race_to_end_one_lease_exactly_one_does)
{
        struct fixture *f = pool_of(1);

        for (int round = 0; round < 100; round++) {
                struct duel duel = { .lease = must_acquire(f) };

                crew_run(6, end_it, &duel);
                ck_assert_uint_eq(atomic_load(&duel.won), 1);
                ck_assert_uint_eq(atomic_load(&duel.lost), 5);
        }
        check_quiet(f->pool);
        ck_assert_uint_eq(stats_of(f->pool).misused, 500);
        fake_balance(f);
        fixture_end(f);
}
END_TEST

static void release_it(void *context, unsigned number)
{
        struct duel *duel = context;

        (void)number;
        atomic_fetch_add(lido_release(duel->lease) == LIDO_OK ? &duel->won : &duel->lost, 1);
}

START_TEST(a_double_release_from_two_threads_is_found_each_time)
{
        struct fixture *f = pool_of(2);

        for (int round = 0; round < 300; round++) {
                struct duel duel = { .lease = must_acquire(f) };

                crew_run(2, release_it, &duel);
                ck_assert_uint_eq(atomic_load(&duel.won), 1);
                ck_assert_uint_eq(atomic_load(&duel.lost), 1);
        }
        check_quiet(f->pool);
        fixture_end(f);
}
END_TEST

struct graveyard {
        lido_lease lease[8];
        _Atomic bool is_over;
};

static void dig(void *context, unsigned number)
{
        struct graveyard *graveyard = context;

        while (!atomic_load(&graveyard->is_over)) {
                lido_lease lease = graveyard->lease[number];

                must(lido_release(lease) != LIDO_OK);
                must(!lido_object(lease));
        }
}

START_TEST(leases_of_a_dead_pool_harm_nobody_while_pools_come_and_go_in_its_memory)
{
        struct fixture *f = pool_of(4);
        struct graveyard graveyard = { .is_over = false };
        struct crew crew;

        for (int i = 0; i < 4; i++)
                graveyard.lease[i] = must_acquire(f);
        for (int i = 0; i < 4; i++)
                must_release(graveyard.lease[i]);
        fixture_end(f);

        crew_start(&crew, 4, dig, &graveyard);
        for (int i = 0; i < 100; i++) {
                f = pool_of(4);
                must_release(must_acquire(f));
                fixture_end(f);
        }
        atomic_store(&graveyard.is_over, true);
        crew_join(&crew);
        ck_assert_ptr_null(lido_object(graveyard.lease[0]));
}
END_TEST

/* ---- where waiting is forbidden ------------------------------------------------------------------------------ */

static int acquired_in_hook, tried_in_hook, acquired_elsewhere;
static struct fixture *elsewhere;

static void borrow_in_hook(struct fake *fake, enum fake_hook hook, void *object)
{
        struct fixture *f = fake->data;
        lido_lease lease;

        (void)object;
        if (hook != FAKE_CHECK)
                return;
        tried_in_hook = lido_try_acquire(f->pool, &lease);
        if (tried_in_hook == LIDO_OK)
                must_release(lease);
        acquired_in_hook = lido_acquire(f->pool, PATIENCE_MS, &lease);
        if (elsewhere) {
                acquired_elsewhere = lido_acquire(elsewhere->pool, PATIENCE_MS, &lease);
                must_release(lease);
        }
}

/* One object in its check, the other one lent or not. */
static void run_check_hook(struct fixture *f, bool is_other_lent)
{
        lido_lease lease, other = { NULL, 0 };

        f->fake.on_hook = borrow_in_hook;
        f->fake.data = f;
        f->options.max = 2;
        fake_add_hooks(&f->fake, FAKE_HAS_WATCH);
        fixture_open(f);
        warm_up(f, 2);
        lease = must_acquire(f);
        if (is_other_lent)
                other = must_acquire(f);
        lido_handle_suspect(object_of(lease)->handle, "a test");
        must_release(lease);
        ck_eventually(stats_of(f->pool).checked == 1);
        if (is_other_lent)
                must_release(other);
}

START_TEST(waiting_for_the_own_pool_in_a_hook_is_a_deadlock_and_trying_is_not)
{
        struct fixture *f = fixture_new();

        elsewhere = NULL;
        run_check_hook(f, true);
        ck_assert_int_eq(tried_in_hook, LIDO_EEXHAUSTED);
        ck_assert_int_eq(acquired_in_hook, LIDO_EDEADLK);
        fixture_end(f);
}
END_TEST

START_TEST(a_blocking_hook_may_wait_for_another_pool)
{
        struct fixture *f = fixture_new();

        elsewhere = pool_of(1);
        f->fake.factory.flags = LIDO_FACTORY_BLOCKING;
        run_check_hook(f, true);

        ck_assert_int_eq(acquired_in_hook, LIDO_EDEADLK);
        ck_assert_int_eq(acquired_elsewhere, LIDO_OK);
        fixture_end(f);
        fixture_end(elsewhere);
}
END_TEST

static int acquired_on_loop = 1;

static void acquire_on_event(struct fixture *f, const struct lido_event *event)
{
        lido_lease lease;

        if (event->type == LIDO_EVENT_OPEN_FAILED)
                acquired_on_loop = lido_acquire(f->pool, PATIENCE_MS, &lease);
}

START_TEST(waiting_on_the_services_own_loop_thread_is_a_deadlock)
{
        struct fixture *f = fixture_new();
        lido_lease lease;

        f->options.max = 1;
        f->options.backoff_min_ms = f->options.backoff_max_ms = 1;
        f->on_event = acquire_on_event;
        fake_once(&f->fake, FAKE_OPEN, (struct fake_step){ .status = LIDO_EFACTORY });
        fixture_open(f);
        lease = must_acquire(f);

        ck_assert_int_eq(acquired_on_loop, LIDO_EDEADLK);
        must_release(lease);
        fixture_end(f);
}
END_TEST

static int wait_while_holding(int nested, uint32_t *ret_heard)
{
        struct fixture *f = fixture_new();
        struct borrower other = { .rc = 0 };
        lido_lease mine, none;
        int rc;

        f->options.max = 2;
        f->options.nested = nested;
        fixture_open(f);
        borrower_start(&other, f->pool, PATIENCE_MS);
        ck_assert_int_eq(borrower_join(&other), LIDO_OK);
        mine = must_acquire(f);
        rc = lido_acquire(f->pool, 20, &none);
        *ret_heard = heard(f, LIDO_EVENT_NESTED);
        must_release(mine);
        must_release(other.lease);
        fixture_end(f);
        return rc;
}

START_TEST(a_nested_acquire_is_told_of_refused_or_let_be)
{
        uint32_t events;

        ck_assert_int_eq(wait_while_holding(LIDO_NESTED_WARN, &events), LIDO_ETIMEDOUT);
        ck_assert_uint_eq(events, 1);
        ck_assert_int_eq(wait_while_holding(LIDO_NESTED_LENIENT, &events), LIDO_ETIMEDOUT);
        ck_assert_uint_eq(events, 0);
        ck_assert_int_eq(wait_while_holding(LIDO_NESTED_STRICT, &events), LIDO_EDEADLK);
        ck_assert_uint_eq(events, 0);
}
END_TEST

int main(void)
{
        return suite_run("pool/misuse", (const TTest *[]){
                                                a_second_release_is_refused_and_both_sites_are_told,
                                                a_double_release_does_not_end_the_next_borrowers_lease,
                                                a_lease_that_ended_long_ago_is_stale,
                                                a_lease_that_never_was_is_foreign,
                                                a_lease_of_nothing_is_refused,
                                                the_lease_of_a_pool_that_is_gone_is_stale_and_the_next_pool_is_unharmed,
                                                of_threads_that_race_to_end_one_lease_exactly_one_does,
                                                a_double_release_from_two_threads_is_found_each_time,
                                                leases_of_a_dead_pool_harm_nobody_while_pools_come_and_go_in_its_memory,
                                                waiting_for_the_own_pool_in_a_hook_is_a_deadlock_and_trying_is_not,
                                                a_blocking_hook_may_wait_for_another_pool,
                                                waiting_on_the_services_own_loop_thread_is_a_deadlock,
                                                a_nested_acquire_is_told_of_refused_or_let_be,
                                                NULL,
                                        });
}
