/* Sleep on a word. What is built on it: tests/base/waiter.c. */
#include "base/park.h"

#include <limits.h>
#include <sys/prctl.h>

#include "base/clock.h"
#include "support/crew.h"
#include "support/patience.h"
#include "support/suite.h"

#define LATE_LIMIT_NS (20 * NS_PER_MS)

START_TEST(a_word_that_has_changed_already_is_not_slept_on)
{
        _Atomic uint32_t word = 1;

        ck_assert(park_wait(&word, 0, CLOCK_NEVER));
}
END_TEST

START_TEST(a_deadline_that_has_passed_returns_at_once)
{
        _Atomic uint32_t word = 0;
        uint64_t before = clock_now_ns();

        ck_assert(!park_wait(&word, 0, before - 1));
        ck_assert(!park_wait(&word, 0, 1));
}
END_TEST

/* Returns: how many were late. */
static unsigned sleep_often(void)
{
        _Atomic uint32_t word = 0;
        unsigned late = 0;

        for (unsigned ms = 1; ms <= 24; ms++) {
                uint64_t deadline = clock_now_ns() + ms * NS_PER_MS;

                while (park_wait(&word, 0, deadline))
                        ;
                ck_assert_uint_ge(clock_now_ns(), deadline);
                late += clock_now_ns() > deadline + LATE_LIMIT_NS;
        }
        return late;
}

/* A machine with more to do than it can wakes everybody late. What park_wait adds to that, it would add each time. */
START_TEST(a_sleeper_wakes_at_its_deadline_and_never_before)
{
        unsigned least = UINT_MAX;

        for (int round = 0; round < 20 && least > 2; round++) {
                unsigned late = sleep_often();

                least = late < least ? late : least;
        }
        ck_assert_uint_le(least, 2);
}
END_TEST

START_TEST(a_short_sleep_leaves_the_threads_timer_slack_as_it_was)
{
        _Atomic uint32_t word = 0;
        long before = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);

        park_wait(&word, 0, clock_now_ns() + NS_PER_MS);

        ck_assert_int_eq(prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0), before);
}
END_TEST

#define TURNS 5000u

/* Two threads pass a ball: each changes the word, wakes the other, and sleeps until it has changed again. */
static void play(void *context, unsigned number)
{
        _Atomic uint32_t *word = context;

        for (uint32_t turn = number; turn < TURNS; turn += 2) {
                uint32_t seen;

                while ((seen = atomic_load(word)) != turn)
                        park_wait(word, seen, CLOCK_NEVER);
                atomic_store(word, turn + 1);
                park_wake(word, 1);
        }
}

START_TEST(no_wake_is_lost_between_two_who_take_turns)
{
        _Atomic uint32_t word = 0;

        crew_run(2, play, &word);

        ck_assert_uint_eq(atomic_load(&word), TURNS);
}
END_TEST

static void sleep_until_set(void *context, unsigned number)
{
        _Atomic uint32_t *word = context;

        (void)number;
        while (atomic_load(word) == 0)
                park_wait(word, 0, CLOCK_NEVER);
}

START_TEST(one_wake_can_reach_all_who_sleep)
{
        _Atomic uint32_t word = 0;
        struct crew crew;

        crew_start(&crew, 8, sleep_until_set, &word);
        atomic_store(&word, 1);
        park_wake(&word, INT32_MAX);

        crew_join(&crew); /* or the test never ends */
        ck_assert_uint_eq(atomic_load(&word), 1);
}
END_TEST

START_TEST(waking_an_address_whose_owner_is_gone_is_harmless)
{
        _Atomic uint32_t *nowhere = (_Atomic uint32_t *)(uintptr_t)4096;
        _Atomic uint32_t word = 0;

        park_wake(nowhere, 1);
        park_wake(nowhere, INT32_MAX);

        ck_assert(!park_wait(&word, 0, clock_now_ns() + 1));
}
END_TEST

int main(void)
{
        return suite_run("base/park", (const TTest *[]){
                                              a_word_that_has_changed_already_is_not_slept_on,
                                              a_deadline_that_has_passed_returns_at_once,
                                              a_sleeper_wakes_at_its_deadline_and_never_before,
                                              a_short_sleep_leaves_the_threads_timer_slack_as_it_was,
                                              no_wake_is_lost_between_two_who_take_turns,
                                              one_wake_can_reach_all_who_sleep,
                                              waking_an_address_whose_owner_is_gone_is_harmless,
                                              NULL,
                                      });
}
