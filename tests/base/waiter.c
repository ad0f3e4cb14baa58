/* One waiter and those who settle it. The line that waiters stand in is tests/pool/waitq.c. */
#include "base/waiter.h"

#include "support/crew.h"
#include "support/patience.h"
#include "support/suite.h"

#define ROUNDS 2000u
#define RIVALS 4u

START_TEST(the_first_to_settle_wins_and_the_rest_learn_that_they_lost)
{
        struct waiter w;

        waiter_init(&w, NULL);
        ck_assert(!waiter_is_settled(&w));

        ck_assert(waiter_settle(&w, WAITER_TIMED_OUT));
        ck_assert(!waiter_settle(&w, WAITER_GIVEN));
        ck_assert(!waiter_settle(&w, WAITER_CANCELED));
        ck_assert(waiter_is_settled(&w));
        ck_assert_int_eq(waiter_sleep(&w, CLOCK_NEVER), WAITER_TIMED_OUT);
}
END_TEST

START_TEST(a_poke_settles_nothing_and_is_consumed_by_one_look)
{
        struct waiter w;

        waiter_init(&w, NULL);
        ck_assert(waiter_poke(&w));
        ck_assert(!waiter_poke(&w));
        ck_assert(!waiter_is_settled(&w));

        ck_assert_int_eq(waiter_sleep(&w, CLOCK_NEVER), WAITER_POKED);
        ck_assert_int_eq(waiter_sleep(&w, clock_now_ns()), WAITER_WAITING);
        ck_assert(waiter_poke(&w));
}
END_TEST

START_TEST(a_poked_waiter_can_be_settled_and_a_settled_one_not_poked)
{
        struct waiter w;

        waiter_init(&w, NULL);
        ck_assert(waiter_poke(&w));
        ck_assert(waiter_settle(&w, WAITER_GIVEN));

        ck_assert(!waiter_poke(&w));
        ck_assert_int_eq(waiter_sleep(&w, CLOCK_NEVER), WAITER_GIVEN);
}
END_TEST

START_TEST(a_sleeper_wakes_at_its_deadline_and_not_before)
{
        struct waiter w;
        uint64_t deadline = clock_now_ns() + 5 * NS_PER_MS;

        waiter_init(&w, NULL);
        ck_assert_int_eq(waiter_sleep(&w, deadline), WAITER_WAITING);

        ck_assert_uint_ge(clock_now_ns(), deadline);
}
END_TEST

struct race {
        struct waiter waiter;
        pthread_barrier_t start, end;
        _Atomic uint32_t winners;
        _Atomic uint32_t outcome; /* of the winner */
};

static void settle_each_round(void *context, unsigned number)
{
        struct race *race = context;
        enum waiter_state outcome = (enum waiter_state)(WAITER_GIVEN + number);

        for (unsigned round = 0; round < ROUNDS; round++) {
                pthread_barrier_wait(&race->start);
                if (waiter_settle(&race->waiter, outcome)) {
                        atomic_fetch_add(&race->winners, 1);
                        atomic_store(&race->outcome, outcome);
                        park_wake(&race->waiter.state, 1);
                }
                pthread_barrier_wait(&race->end);
        }
}

START_TEST(however_give_timeout_cancel_and_failure_race_exactly_one_wins)
{
        struct race race;
        struct crew crew;

        pthread_barrier_init(&race.start, NULL, RIVALS + 1);
        pthread_barrier_init(&race.end, NULL, RIVALS + 1);
        crew_start(&crew, RIVALS, settle_each_round, &race);
        for (unsigned round = 0; round < ROUNDS; round++) {
                waiter_init(&race.waiter, NULL);
                atomic_store(&race.winners, 0);
                pthread_barrier_wait(&race.start);
                enum waiter_state state = waiter_sleep(&race.waiter, CLOCK_NEVER);
                pthread_barrier_wait(&race.end);

                ck_assert_uint_eq(atomic_load(&race.winners), 1);
                ck_assert_uint_eq(atomic_load(&race.outcome), state);
        }
        crew_join(&crew);
        pthread_barrier_destroy(&race.start);
        pthread_barrier_destroy(&race.end);
}
END_TEST

int main(void)
{
        return suite_run("base/waiter", (const TTest *[]){
                                                the_first_to_settle_wins_and_the_rest_learn_that_they_lost,
                                                a_poke_settles_nothing_and_is_consumed_by_one_look,
                                                a_poked_waiter_can_be_settled_and_a_settled_one_not_poked,
                                                a_sleeper_wakes_at_its_deadline_and_not_before,
                                                however_give_timeout_cancel_and_failure_race_exactly_one_wins,
                                                NULL,
                                        });
}
