/* Why an acquire fails: the cause, the last error, the longest holders. In words: tests/watch/report.c. */
#include "pool/blame.h"

#include "support/desk.h"
#include "support/suite.h"

static struct lido_blame blame_of(struct desk *desk)
{
        struct lido_blame blame = LIDO_BLAME_INIT;

        ck_assert_int_eq(lido_pool_blame(desk->pool, &blame), LIDO_OK);
        return blame;
}

static struct desk *desk_of(uint32_t max)
{
        struct desk *desk = desk_new();

        desk->f.options.max = max;
        desk_open(desk);
        return desk;
}

START_TEST(with_something_idle_nothing_stands_in_the_way)
{
        struct desk *desk = desk_of(1);

        desk_warm_up(desk, 1);

        ck_assert_int_eq(blame_of(desk).cause, LIDO_CAUSE_NONE);
        ck_assert_uint_eq(blame_of(desk).idle, 1);
        desk_end(desk);
}
END_TEST

START_TEST(all_lent_the_holders_are_to_blame)
{
        struct desk *desk = desk_of(1);
        lido_lease lease;

        desk_warm_up(desk, 1);
        lease = desk_acquire(desk);

        ck_assert_int_eq(blame_of(desk).cause, LIDO_CAUSE_EXHAUSTED);
        must_release(lease);
        desk_end(desk);
}
END_TEST

START_TEST(one_who_is_refused_at_once_because_opening_is_paused_is_told_so)
{
        struct fixture *f = fixture_new();
        struct lido_acquire_options options = LIDO_ACQUIRE_OPTIONS_INIT;
        struct lido_blame blame = LIDO_BLAME_INIT;
        lido_lease lease;

        fake_always(&f->fake, FAKE_OPEN,
                    (struct fake_step){ .status = LIDO_EFACTORY, .failure = LIDO_FAILURE_PERMANENT, .text = "no such database" });
        fixture_open(f);
        options.timeout_ms = PATIENCE_MS;
        options.blame = &blame;
        ck_assert_int_eq(lido_acquire_with(f->pool, &options, &lease), LIDO_EPERMANENT);

        ck_assert_int_eq(blame.cause, LIDO_CAUSE_BREAKER);
        ck_assert_str_eq(blame.last_error.text, "no such database");
        fixture_end(f);
}
END_TEST

START_TEST(a_slow_open_is_to_blame)
{
        struct desk *desk = desk_of(1);
        struct waiting w = { .calls = 0 };

        fake_always(&desk->f.fake, FAKE_OPEN, (struct fake_step){ .way = FAKE_LATER });
        desk_wait(desk, &w, LIDO_NEVER);
        desk_turn(desk);

        ck_assert_int_eq(blame_of(desk).cause, LIDO_CAUSE_OPENING);
        ck_assert_uint_eq(blame_of(desk).waiting, 1);
        fake_answer(&desk->f.fake, FAKE_OPEN);
        desk_turn(desk);
        must_release(w.lease);
        desk_end(desk);
}
END_TEST

START_TEST(a_server_that_is_down_is_to_blame_and_its_last_words_are_kept_with_their_age)
{
        struct desk *desk = desk_of(1);
        struct waiting w = { .calls = 0 };

        fake_always(&desk->f.fake, FAKE_OPEN,
                    (struct fake_step){ .status = LIDO_EFACTORY, .failure = LIDO_FAILURE_PERMANENT, .text = "no such database" });
        desk_wait(desk, &w, LIDO_NEVER);
        desk_turn(desk);
        clock_advance(3 * NS_PER_S);

        ck_assert_int_eq(blame_of(desk).cause, LIDO_CAUSE_DOWN);
        ck_assert_str_eq(blame_of(desk).last_error.text, "no such database");
        ck_assert_uint_eq(blame_of(desk).last_error_age_ns, 3 * NS_PER_S);
        desk_end(desk);
}
END_TEST

START_TEST(an_open_that_tries_again_does_not_hide_that_the_server_is_down)
{
        struct desk *desk = desk_new();
        struct waiting w = { .calls = 0 };

        desk->f.options.max = 1;
        desk->f.options.backoff_min_ms = desk->f.options.backoff_max_ms = 10;
        fake_once(&desk->f.fake, FAKE_OPEN, (struct fake_step){ .status = LIDO_EFACTORY });
        fake_always(&desk->f.fake, FAKE_OPEN, (struct fake_step){ .way = FAKE_LATER });
        desk_open(desk);
        desk_wait(desk, &w, LIDO_NEVER);
        desk_turn(desk);
        desk_pass_time(desk, NS_PER_S);
        ck_assert_uint_eq(fake_kept(&desk->f.fake, FAKE_OPEN), 1);

        ck_assert_int_eq(blame_of(desk).cause, LIDO_CAUSE_DOWN);
        fake_answer(&desk->f.fake, FAKE_OPEN);
        desk_turn(desk);
        must_release(w.lease);
        desk_end(desk);
}
END_TEST

START_TEST(what_is_being_ended_is_to_blame)
{
        struct desk *desk = desk_of(1);

        fake_always(&desk->f.fake, FAKE_CLOSE, (struct fake_step){ .way = FAKE_LATER });
        desk_warm_up(desk, 1);
        lido_discard(desk_acquire(desk));
        desk_turn(desk);

        ck_assert_int_eq(blame_of(desk).cause, LIDO_CAUSE_UPKEEP);
        fake_answer(&desk->f.fake, FAKE_CLOSE);
        desk_turn(desk);
        desk_end(desk);
}
END_TEST

START_TEST(a_pause_is_to_blame)
{
        struct desk *desk = desk_of(1);
        struct lido_acquire_options options = LIDO_ACQUIRE_OPTIONS_INIT;
        struct lido_blame blame = LIDO_BLAME_INIT;
        lido_lease lease;

        desk_warm_up(desk, 1);
        ck_assert_int_eq(lido_pool_pause(desk->pool, LIDO_PAUSE_REJECT), LIDO_OK);
        ck_assert_int_eq(blame_of(desk).cause, LIDO_CAUSE_PAUSED);
        options.blame = &blame;
        ck_assert_int_ne(lido_acquire_with(desk->pool, &options, &lease), LIDO_OK);
        ck_assert_uint_ne(blame.cause, LIDO_CAUSE_NONE);
        ck_assert_int_eq(lido_pool_resume(desk->pool), LIDO_OK);
        ck_assert_int_eq(blame_of(desk).cause, LIDO_CAUSE_NONE);
        desk_end(desk);
}
END_TEST

START_TEST(of_many_holders_the_longest_are_named_longest_first)
{
        struct desk *desk = desk_new();
        struct lido_blame blame;
        lido_lease lease[12];

        desk->f.options.max = 12;
        desk->f.options.lifetime_ms = LIDO_NEVER;
        desk->f.fake.factory.flags |= LIDO_FACTORY_TIMED;
        desk_open(desk);
        desk_warm_up(desk, 12);
        for (int i = 0; i < 12; i++) {
                lease[i] = desk_acquire(desk);
                clock_advance(NS_PER_S);
        }
        blame = blame_of(desk);

        ck_assert_uint_eq(blame.holders, LIDO_BLAME_HOLDERS);
        for (uint32_t i = 0; i < LIDO_BLAME_HOLDERS; i++) {
                ck_assert_uint_eq(blame.holder[i].slot, lease[i].slot->index);
                ck_assert_uint_eq(blame.holder[i].held_ns, (12 - i) * NS_PER_S);
        }
        for (int i = 0; i < 12; i++)
                must_release(lease[i]);
        desk_end(desk);
}
END_TEST

START_TEST(without_a_clock_at_each_acquire_a_holders_age_comes_from_the_passes)
{
        struct desk *desk = desk_of(2);
        lido_lease lease;

        desk_warm_up(desk, 2);
        lease = desk_acquire(desk);
        ck_assert_uint_eq(blame_of(desk).holder[0].held_ns, 0); /* not known yet */
        desk_pass_time(desk, 60 * NS_PER_S);

        ck_assert_uint_ge(blame_of(desk).holder[0].held_ns, 55 * NS_PER_S);
        ck_assert_uint_le(blame_of(desk).holder[0].held_ns, 60 * NS_PER_S);
        must_release(lease);
        desk_end(desk);
}
END_TEST

/* Between the claim and the note of it; only a test can stand still there. */
START_TEST(the_age_of_an_earlier_lease_is_not_that_of_the_next)
{
        struct desk *desk = desk_new();
        lido_lease lease;
        uint64_t word;

        desk->f.fake.factory.flags |= LIDO_FACTORY_TIMED;
        desk_open(desk);
        desk_warm_up(desk, 1);
        lease = desk_acquire(desk);
        desk_pass_time(desk, NS_PER_S);
        word = load_relaxed(&lease.slot->word);
        ck_assert_uint_eq(blame_held_ns(desk->pool, lease.slot, word, clock_now_ns()), NS_PER_S);

        ck_assert_uint_eq(blame_held_ns(desk->pool, lease.slot, word_make(lease.generation + GENERATION_ONE, SLOT_LEASED),
                                        clock_now_ns()), 0);
        must_release(lease);
        desk_end(desk);
}
END_TEST

START_TEST(a_caller_with_an_older_struct_gets_what_it_has_room_for)
{
        struct desk *desk = desk_of(7);
        struct lido_blame blame = { .size = offsetof(struct lido_blame, live), .live = 99 };

        ck_assert_int_eq(lido_pool_blame(desk->pool, &blame), LIDO_OK);

        ck_assert_uint_eq(blame.max, 7);
        ck_assert_uint_eq(blame.live, 99);
        desk_end(desk);
}
END_TEST

START_TEST(why_an_object_was_discarded_last_is_kept_with_its_age)
{
        struct desk *desk = desk_of(3);

        desk_warm_up(desk, 3);
        lido_discard_because_at(desk_acquire(desk), "first", "a.c:1");
        clock_advance(NS_PER_S);
        lido_discard_because_at(desk_acquire(desk), "second", "a.c:2");
        clock_advance(NS_PER_S);
        lido_discard(desk_acquire(desk)); /* gives none, and hides none */
        clock_advance(NS_PER_S);
        struct lido_blame blame = blame_of(desk);

        ck_assert_str_eq(blame.discard_reason, "second");
        ck_assert_str_eq(blame.discard_site, "a.c:2");
        ck_assert_uint_eq(blame.discard_age_ns, 2 * NS_PER_S);
        desk_end(desk);
}
END_TEST

START_TEST(a_pool_in_the_memory_of_another_knows_none_of_its_reasons)
{
        struct desk *desk = desk_of(1);
        struct lido_pool *former = desk->pool;

        desk_warm_up(desk, 1);
        lido_discard_because(desk_acquire(desk), "the former pool's");
        desk_end(desk);
        desk = desk_of(1);

        ck_assert_ptr_eq(desk->pool, former);
        ck_assert_str_eq(blame_of(desk).discard_reason, "");
        desk_end(desk);
}
END_TEST

int main(void)
{
        return suite_run("pool/blame", (const TTest *[]){
                                               with_something_idle_nothing_stands_in_the_way,
                                               all_lent_the_holders_are_to_blame,
                                               one_who_is_refused_at_once_because_opening_is_paused_is_told_so,
                                               a_slow_open_is_to_blame,
                                               a_server_that_is_down_is_to_blame_and_its_last_words_are_kept_with_their_age,
                                               an_open_that_tries_again_does_not_hide_that_the_server_is_down,
                                               what_is_being_ended_is_to_blame,
                                               a_pause_is_to_blame,
                                               of_many_holders_the_longest_are_named_longest_first,
                                               without_a_clock_at_each_acquire_a_holders_age_comes_from_the_passes,
                                               the_age_of_an_earlier_lease_is_not_that_of_the_next,
                                               a_caller_with_an_older_struct_gets_what_it_has_room_for,
                                               why_an_object_was_discarded_last_is_kept_with_its_age,
                                               a_pool_in_the_memory_of_another_knows_none_of_its_reasons,
                                               NULL,
                                       });
}
