/* Hooks and their answers: once, twice, late, from elsewhere, failing. Deadlines of hooks: tests/keeper/work.c; what a failed open
 * leads to: tests/keeper/grow.c.
 */
#include "pool/op.h"

#include <string.h>

#include "support/desk.h"
#include "support/suite.h"

static struct desk *desk_with(enum fake_hook hook, struct fake_step step)
{
        struct desk *desk = desk_new();

        desk->f.options.max = 1;
        fake_add_hooks(&desk->f.fake, FAKE_HAS_ALL);
        fake_always(&desk->f.fake, hook, step);
        desk_open(desk);
        return desk;
}

/* The op of the oldest call that waits for fake_answer. */
static lido_op op_of(struct desk *desk, enum fake_hook hook)
{
        ck_assert_ptr_nonnull(desk->f.fake.later[hook]);
        return desk->f.fake.later[hook]->op;
}

/* Somebody waits, so that an open has begun. */
static void ask(struct desk *desk, struct waiting *w)
{
        ck_assert_int_eq(desk_wait(desk, w, LIDO_NEVER), LIDO_OK);
        desk_turn(desk);
}

START_TEST(an_open_answered_later_is_taken_then)
{
        struct desk *desk = desk_with(FAKE_OPEN, (struct fake_step){ .way = FAKE_LATER });
        struct waiting w = { .calls = 0 };

        ask(desk, &w);
        ck_assert_uint_eq(stats_of(desk->pool).opening, 1);
        ck_assert_uint_eq(w.calls, 0);
        ck_assert_int_eq(fake_answer(&desk->f.fake, FAKE_OPEN), LIDO_OK);
        desk_turn(desk);

        ck_assert_int_eq(w.status, LIDO_OK);
        must_release(w.lease);
        desk_end(desk);
}
END_TEST

START_TEST(an_answer_from_another_thread_is_as_good)
{
        struct fixture *f = pool_of(4);

        for (int hook = 0; hook < FAKE_HOOKS; hook++)
                fake_always(&f->fake, (enum fake_hook)hook, (struct fake_step){ .way = FAKE_THREAD });
        warm_up(f, 4);

        ck_assert_uint_eq(stats_of(f->pool).opened, 4);
        fixture_end(f);
}
END_TEST

START_TEST(the_second_of_two_answers_is_refused_and_told)
{
        struct desk *desk = desk_with(FAKE_OPEN, (struct fake_step){ .way = FAKE_TWICE });

        desk_warm_up(desk, 1);

        ck_assert_uint_eq(atomic_load(&desk->f.fake.refused_answers), 1);
        ck_assert_uint_eq(atomic_load(&desk->f.fake.alive), 1);
        ck_assert_uint_eq(heard(&desk->f, LIDO_EVENT_MISUSE), 1);
        ck_assert_uint_eq(stats_of(desk->pool).misused, 1);
        desk_end(desk);
}
END_TEST

START_TEST(every_hook_may_answer_twice)
{
        struct desk *desk = desk_new();

        desk->f.options.max = 1;
        fake_add_hooks(&desk->f.fake, FAKE_HAS_ALL);
        for (int hook = 0; hook < FAKE_HOOKS; hook++)
                fake_always(&desk->f.fake, (enum fake_hook)hook, (struct fake_step){ .way = FAKE_TWICE });
        atomic_store(&desk->f.fake.verdict_says, LIDO_VERDICT_RESET);
        desk_open(desk);
        desk_warm_up(desk, 1);
        lido_lease lease = desk_acquire(desk);
        lido_handle_suspect(object_of(lease)->handle, "a test");
        must_release(lease);
        desk_turn(desk);
        lease = desk_acquire(desk);
        ck_assert_int_eq(lido_discard(lease), LIDO_OK);
        desk_turn(desk);

        ck_assert_uint_eq(atomic_load(&desk->f.fake.refused_answers), 4);
        ck_assert_uint_eq(stats_of(desk->pool).live, 0);
        desk_end(desk);
}
END_TEST

START_TEST(an_answer_after_the_slot_has_gone_on_is_stale)
{
        struct desk *desk = desk_with(FAKE_OPEN, (struct fake_step){ .way = FAKE_LATER });
        struct waiting w = { .calls = 0 };
        lido_op op;

        ask(desk, &w);
        op = op_of(desk, FAKE_OPEN);
        fake_answer(&desk->f.fake, FAKE_OPEN);
        ck_assert_int_eq(lido_op_opened(op, &op), LIDO_EDOUBLE);
        desk_turn(desk);

        ck_assert_int_eq(lido_op_opened(op, &op), LIDO_ESTALE);
        ck_assert_int_eq(lido_op_done(op, LIDO_OK), LIDO_ESTALE);
        ck_assert_int_eq(lido_op_done(op, LIDO_EFACTORY), LIDO_ESTALE);
        ck_assert_ptr_ne(lido_object(w.lease), &op);
        must_release(w.lease);
        desk_end(desk);
}
END_TEST

START_TEST(what_is_no_op_is_refused)
{
        struct desk *desk = desk_with(FAKE_OPEN, (struct fake_step){ .way = FAKE_LATER });
        struct waiting w = { .calls = 0 };
        lido_op none = { NULL, 0 }, forged;

        ask(desk, &w);
        forged = op_of(desk, FAKE_OPEN);
        forged.ticket += 7 * GENERATION_ONE;

        ck_assert_int_eq(lido_op_opened(none, NULL), LIDO_EINVAL);
        ck_assert_int_eq(lido_op_done(none, LIDO_OK), LIDO_EINVAL);
        ck_assert_int_eq(lido_op_failed(none, NULL), LIDO_EINVAL);
        ck_assert_int_eq(lido_op_done(forged, LIDO_OK), LIDO_EINVAL);
        forged.ticket += 1;
        ck_assert_int_eq(lido_op_done(forged, LIDO_OK), LIDO_EINVAL);
        ck_assert_uint_eq(lido_op_deadline_ns(none), 0);
        ck_assert_int_eq(lido_op_is_cancelled(none), 1);
        ck_assert_uint_eq(stats_of(desk->pool).opening, 1);
        fake_answer(&desk->f.fake, FAKE_OPEN);
        desk_turn(desk);
        must_release(w.lease);
        desk_end(desk);
}
END_TEST

START_TEST(an_open_is_not_done_without_an_object_and_only_an_open_brings_one)
{
        struct desk *desk = desk_with(FAKE_OPEN, (struct fake_step){ .way = FAKE_LATER });
        struct waiting w = { .calls = 0 };

        fake_always(&desk->f.fake, FAKE_CLOSE, (struct fake_step){ .way = FAKE_LATER });
        ask(desk, &w);
        ck_assert_int_eq(lido_op_done(op_of(desk, FAKE_OPEN), LIDO_OK), LIDO_EINVAL);
        desk_pass_time(desk, 20 * NS_PER_S); /* even when it is overdue */
        ck_assert_int_eq(lido_op_done(op_of(desk, FAKE_OPEN), LIDO_OK), LIDO_EINVAL);
        fake_answer(&desk->f.fake, FAKE_OPEN);
        desk_turn(desk);
        ck_assert_ptr_nonnull(lido_object(w.lease));
        lido_discard(w.lease);
        desk_turn(desk);

        ck_assert_int_eq(lido_op_opened(op_of(desk, FAKE_CLOSE), &w), LIDO_EINVAL);
        fake_answer(&desk->f.fake, FAKE_CLOSE);
        desk_turn(desk);
        ck_assert_uint_eq(stats_of(desk->pool).live, 0);
        desk_end(desk);
}
END_TEST

START_TEST(a_failed_open_leaves_its_slot_vacant_and_its_words_behind)
{
        struct desk *desk = desk_with(FAKE_OPEN, (struct fake_step){ .status = LIDO_EFACTORY,
                                                                     .failure = LIDO_FAILURE_NETWORK,
                                                                     .sqlstate = "08006",
                                                                     .text = "connection refused" });
        struct waiting w = { .calls = 0 };
        struct lido_blame blame = LIDO_BLAME_INIT;

        ask(desk, &w);
        lido_pool_blame(desk->pool, &blame);

        ck_assert_uint_eq(stats_of(desk->pool).live, 0);
        ck_assert_uint_eq(stats_of(desk->pool).open_failed, 1);
        ck_assert_int_eq(blame.cause, LIDO_CAUSE_DOWN);
        ck_assert_int_eq(blame.last_error_is_set, 1);
        ck_assert_str_eq(blame.last_error.text, "connection refused");
        ck_assert_str_eq(blame.last_error.sqlstate, "08006");
        ck_assert_int_eq(blame.last_error.failure, LIDO_FAILURE_NETWORK);
        ck_assert_str_eq(last_heard(&desk->f, LIDO_EVENT_OPEN_FAILED).error->text, "connection refused");
        lido_cancel(&w.request);
        desk_end(desk);
}
END_TEST

START_TEST(a_failure_without_a_code_is_the_factorys)
{
        struct desk *desk = desk_with(FAKE_OPEN, (struct fake_step){ .way = FAKE_LATER });
        struct waiting w = { .calls = 0 };
        struct lido_error error;

        memset(&error, 'x', sizeof error); /* no NUL in any text */
        error.code = LIDO_OK;
        error.failure = LIDO_FAILURE_TRANSIENT;
        ask(desk, &w);
        lido_op op = op_of(desk, FAKE_OPEN);
        ck_assert_int_eq(lido_op_failed(op, NULL), LIDO_EINVAL);
        ck_assert_int_eq(lido_op_failed(op, &error), LIDO_OK);
        desk_turn(desk);

        ck_assert_int_eq(last_heard(&desk->f, LIDO_EVENT_OPEN_FAILED).code, LIDO_EFACTORY);
        ck_assert_uint_eq(strlen(last_heard(&desk->f, LIDO_EVENT_OPEN_FAILED).error->text), sizeof error.text - 1);
        lido_cancel(&w.request);
        ck_assert_int_eq(fake_answer(&desk->f.fake, FAKE_OPEN), LIDO_ESTALE);
        desk_end(desk);
}
END_TEST

START_TEST(a_failed_check_closes_the_object)
{
        struct desk *desk = desk_with(FAKE_CHECK, (struct fake_step){ .status = LIDO_EFACTORY });
        lido_lease lease;

        desk_warm_up(desk, 1);
        lease = desk_acquire(desk);
        lido_handle_suspect(object_of(lease)->handle, "a test");
        must_release(lease);
        desk_turn(desk);

        ck_assert_uint_eq(stats_of(desk->pool).closed[LIDO_CLOSE_CHECK], 1);
        ck_assert_uint_eq(heard(&desk->f, LIDO_EVENT_CHECK_FAILED), 1);
        desk_end(desk);
}
END_TEST

START_TEST(a_failed_reset_closes_the_object)
{
        struct desk *desk = desk_with(FAKE_RESET, (struct fake_step){ .status = LIDO_EFACTORY });

        desk_warm_up(desk, 1);
        atomic_store(&desk->f.fake.verdict_says, LIDO_VERDICT_RESET);
        must_release(desk_acquire(desk));
        desk_turn(desk);

        ck_assert_uint_eq(stats_of(desk->pool).closed[LIDO_CLOSE_RESET], 1);
        ck_assert_uint_eq(heard(&desk->f, LIDO_EVENT_RESET_FAILED), 1);
        desk_end(desk);
}
END_TEST

START_TEST(without_a_reset_hook_a_dirty_object_is_closed)
{
        struct desk *desk = desk_new();

        fake_add_hooks(&desk->f.fake, FAKE_HAS_VERDICT);
        desk->f.fake.factory.reset = NULL;
        desk->f.options.max = 1;
        desk_open(desk);
        desk_warm_up(desk, 1);
        atomic_store(&desk->f.fake.verdict_says, LIDO_VERDICT_RESET);
        must_release(desk_acquire(desk));
        desk_turn(desk);

        ck_assert_uint_eq(stats_of(desk->pool).closed[LIDO_CLOSE_RESET], 1);
        desk_end(desk);
}
END_TEST

START_TEST(without_a_check_hook_a_doubted_object_is_taken_to_be_alive)
{
        struct desk *desk = desk_new();
        lido_lease lease;

        fake_add_hooks(&desk->f.fake, FAKE_HAS_WATCH);
        desk->f.fake.factory.check = NULL;
        desk->f.options.max = 1;
        desk_open(desk);
        desk_warm_up(desk, 1);
        lease = desk_acquire(desk);
        lido_handle_suspect(object_of(lease)->handle, "a test");
        must_release(lease);
        desk_turn(desk);

        ck_assert_uint_eq(stats_of(desk->pool).idle, 1);
        desk_end(desk);
}
END_TEST

START_TEST(an_op_knows_its_deadline)
{
        struct desk *desk = desk_with(FAKE_OPEN, (struct fake_step){ .way = FAKE_LATER });
        struct waiting w = { .calls = 0 };
        lido_op op;

        ask(desk, &w);
        op = op_of(desk, FAKE_OPEN);
        ck_assert_uint_eq(lido_op_deadline_ns(op), clock_now_ns() + 10 * NS_PER_S);
        ck_assert_int_eq(lido_op_is_cancelled(op), 0);
        fake_answer(&desk->f.fake, FAKE_OPEN);

        ck_assert_uint_eq(lido_op_deadline_ns(op), 0);
        ck_assert_int_eq(lido_op_is_cancelled(op), 1);
        desk_turn(desk);
        must_release(w.lease);
        desk_end(desk);
}
END_TEST

static void release_in_hook(struct fake *fake, enum fake_hook hook, void *object)
{
        lido_lease *lease = fake->data;

        (void)object;
        if (hook != FAKE_CLOSE || !lease->slot)
                return;
        ck_assert_int_eq(lido_release(*lease), LIDO_OK);
        lease->slot = NULL;
}

START_TEST(a_hook_may_release_and_look_at_its_own_pool)
{
        struct desk *desk = desk_new();
        lido_lease one, two;

        desk->f.options.max = 2;
        desk_open(desk);
        desk_warm_up(desk, 2);
        one = desk_acquire(desk);
        two = desk_acquire(desk);
        desk->f.fake.data = &two;
        desk->f.fake.on_hook = release_in_hook;
        ck_assert_int_eq(lido_discard(one), LIDO_OK);
        desk_turn(desk);

        ck_assert_ptr_null(two.slot);
        ck_assert_uint_eq(stats_of(desk->pool).idle, 1);
        desk_end(desk);
}
END_TEST

START_TEST(every_object_is_watched_from_open_to_close)
{
        struct desk *desk = desk_new();
        lido_lease lease;
        void *object;

        fake_add_hooks(&desk->f.fake, FAKE_HAS_WATCH);
        desk->f.options.max = 2;
        desk_open(desk);
        desk_warm_up(desk, 2);
        ck_assert_uint_eq(atomic_load(&desk->f.fake.watches), 2);
        lease = desk_acquire(desk);
        lido_discard(lease);
        desk_turn(desk);
        ck_assert_uint_eq(atomic_load(&desk->f.fake.unwatches), 1);
        lease = desk_acquire(desk);
        fake_forget(&desk->f.fake);
        ck_assert_int_eq(lido_detach(lease, &object), LIDO_OK);
        desk_turn(desk);

        ck_assert_uint_eq(atomic_load(&desk->f.fake.unwatches), 2);
        fake_drop(object);
        desk_end(desk);
}
END_TEST

int main(void)
{
        return suite_run("pool/op", (const TTest *[]){
                                            an_open_answered_later_is_taken_then,
                                            an_answer_from_another_thread_is_as_good,
                                            the_second_of_two_answers_is_refused_and_told,
                                            every_hook_may_answer_twice,
                                            an_answer_after_the_slot_has_gone_on_is_stale,
                                            what_is_no_op_is_refused,
                                            an_open_is_not_done_without_an_object_and_only_an_open_brings_one,
                                            a_failed_open_leaves_its_slot_vacant_and_its_words_behind,
                                            a_failure_without_a_code_is_the_factorys,
                                            a_failed_check_closes_the_object,
                                            a_failed_reset_closes_the_object,
                                            without_a_reset_hook_a_dirty_object_is_closed,
                                            without_a_check_hook_a_doubted_object_is_taken_to_be_alive,
                                            an_op_knows_its_deadline,
                                            a_hook_may_release_and_look_at_its_own_pool,
                                            every_object_is_watched_from_open_to_close,
                                            NULL,
                                    });
}
