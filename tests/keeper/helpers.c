/* Hooks that block, on the service's helper threads. What the keeper does with the answers: tests/keeper/work.c. */
#include "keeper/helpers.h"

#include "support/fixture.h"
#include "support/suite.h"

static struct fixture *blocking_pool(uint32_t max, uint32_t helpers)
{
        struct fixture *f = fixture_new();

        f->fake.factory.flags |= LIDO_FACTORY_BLOCKING;
        f->options.max = max;
        f->options.open_limit = max;
        f->service_options.helpers = helpers;
        return f;
}

START_TEST(hooks_that_block_run_beside_each_other_up_to_the_number_of_helpers)
{
        struct fixture *f = blocking_pool(6, 3);
        struct borrower b[6] = { { .rc = 0 } };

        fake_always(&f->fake, FAKE_OPEN, (struct fake_step){ .way = FAKE_GATE });
        fixture_open(f);
        for (int i = 0; i < 6; i++)
                borrower_start(&b[i], f->pool, PATIENCE_MS);
        gate_await(&f->fake.gate[FAKE_OPEN], 3);
        await_waiting(f->pool, 6);
        ck_assert_uint_eq(atomic_load(&f->fake.at_work[FAKE_OPEN]), 3);
        gate_open(&f->fake.gate[FAKE_OPEN]);

        for (int i = 0; i < 6; i++)
                ck_assert_int_eq(borrower_join(&b[i]), LIDO_OK);
        ck_assert_uint_eq(atomic_load(&f->fake.most_at_work[FAKE_OPEN]), 3);
        for (int i = 0; i < 6; i++)
                must_release(b[i].lease);
        fixture_end(f);
}
END_TEST

START_TEST(with_one_helper_idle_hooks_that_come_together_do_not_wait_for_each_other)
{
        struct fixture *f = blocking_pool(4, 4);
        struct borrower b[3] = { { .rc = 0 } };
        lido_lease lease;

        fixture_open(f);
        lease = must_acquire(f); /* one helper thread is there now, and idle */
        fake_always(&f->fake, FAKE_OPEN, (struct fake_step){ .way = FAKE_GATE });
        for (int i = 0; i < 3; i++)
                borrower_start(&b[i], f->pool, PATIENCE_MS);

        gate_await(&f->fake.gate[FAKE_OPEN], 3); /* all three at once */
        gate_open(&f->fake.gate[FAKE_OPEN]);
        for (int i = 0; i < 3; i++) {
                ck_assert_int_eq(borrower_join(&b[i]), LIDO_OK);
                must_release(b[i].lease);
        }
        must_release(lease);
        fixture_end(f);
}
END_TEST

START_TEST(a_hook_that_blocks_keeps_nobody_from_what_is_idle)
{
        struct fixture *f = blocking_pool(2, 1);
        struct borrower b = { .rc = 0 };
        lido_lease lease;

        fixture_open(f);
        lease = must_acquire(f);
        fake_always(&f->fake, FAKE_OPEN, (struct fake_step){ .way = FAKE_GATE });
        borrower_queue(&b, f->pool, PATIENCE_MS);
        gate_await(&f->fake.gate[FAKE_OPEN], 1);
        must_release(lease);

        ck_assert_int_eq(borrower_join(&b), LIDO_OK); /* while the open still blocks */
        must_release(b.lease);
        for (int i = 0; i < 100; i++)
                must_release(must_acquire(f));
        gate_open(&f->fake.gate[FAKE_OPEN]);
        fixture_end(f);
}
END_TEST

START_TEST(a_blocking_hook_past_its_deadline_is_reported_while_it_blocks)
{
        struct fixture *f = blocking_pool(1, 1);
        struct borrower b = { .rc = 0 };

        f->options.open_timeout_ms = 20;
        fake_always(&f->fake, FAKE_OPEN, (struct fake_step){ .way = FAKE_GATE });
        fixture_open(f);
        borrower_queue(&b, f->pool, PATIENCE_MS);
        ck_eventually(heard(f, LIDO_EVENT_OVERDUE) == 1);
        ck_assert_uint_ge(last_heard(f, LIDO_EVENT_OVERDUE).age_ns, 20000000);
        ck_assert_uint_eq(atomic_load(&f->fake.cancels), 1);
        gate_open(&f->fake.gate[FAKE_OPEN]);

        ck_assert_int_eq(borrower_join(&b), LIDO_OK);
        must_release(b.lease);
        fixture_end(f);
}
END_TEST

START_TEST(stopping_waits_for_the_hooks_at_work_and_ends_what_they_opened)
{
        struct fixture *f = blocking_pool(2, 2);
        struct borrower b[2] = { { .rc = 0 } };

        fake_always(&f->fake, FAKE_OPEN, (struct fake_step){ .way = FAKE_GATE });
        fixture_open(f);
        for (int i = 0; i < 2; i++)
                borrower_start(&b[i], f->pool, PATIENCE_MS);
        gate_await(&f->fake.gate[FAKE_OPEN], 2);
        ck_assert_int_eq(lido_pool_close(f->pool, 0), LIDO_OK);
        for (int i = 0; i < 2; i++)
                ck_assert_int_eq(borrower_join(&b[i]), LIDO_ECLOSED);
        ck_eventually(atomic_load(&f->fake.cancels) == 2);
        gate_open(&f->fake.gate[FAKE_OPEN]);

        fixture_end(f); /* sees that both were closed */
}
END_TEST

static int stopped_in_hook;

static void stop_in_hook(struct fake *fake, enum fake_hook hook, void *object)
{
        struct fixture *f = fake->data;

        (void)object;
        if (hook == FAKE_OPEN)
                stopped_in_hook = lido_service_stop(f->service, 0);
}

START_TEST(a_service_cannot_be_stopped_from_its_own_helper)
{
        struct fixture *f = blocking_pool(1, 1);

        f->fake.data = f;
        f->fake.on_hook = stop_in_hook;
        fixture_open(f);
        must_release(must_acquire(f));

        ck_assert_int_eq(stopped_in_hook, LIDO_EDEADLK);
        fixture_end(f);
}
END_TEST

int main(void)
{
        return suite_run("keeper/helpers",
                         (const TTest *[]){
                                 hooks_that_block_run_beside_each_other_up_to_the_number_of_helpers,
                                 with_one_helper_idle_hooks_that_come_together_do_not_wait_for_each_other,
                                 a_hook_that_blocks_keeps_nobody_from_what_is_idle,
                                 a_blocking_hook_past_its_deadline_is_reported_while_it_blocks,
                                 stopping_waits_for_the_hooks_at_work_and_ends_what_they_opened,
                                 a_service_cannot_be_stopped_from_its_own_helper,
                                 NULL,
                         });
}
