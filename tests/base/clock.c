/* The real clock, which the other tests replace (support/clock.h). */
#include "base/clock.h"

#include <time.h>

#include "support/suite.h"

START_TEST(time_does_not_go_back)
{
        uint64_t last = clock_now_ns();

        for (int i = 0; i < 100000; i++) {
                uint64_t now = clock_now_ns();

                ck_assert_uint_ge(now, last);
                last = now;
        }
}
END_TEST

START_TEST(it_is_the_monotonic_clock_whatever_the_calendar_says)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        uint64_t before = (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
        uint64_t now = clock_now_ns();
        clock_gettime(CLOCK_MONOTONIC, &t);

        ck_assert_uint_ge(now, before);
        ck_assert_uint_le(now, (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec);
}
END_TEST

START_TEST(the_boot_clock_is_never_behind)
{
        uint64_t now = clock_now_ns();

        ck_assert_uint_ge(clock_boot_ns(), now);
}
END_TEST

START_TEST(the_time_suspended_does_not_grow_while_the_machine_runs)
{
        uint64_t before = clock_suspended_ns();

        for (int i = 0; i < 1000; i++)
                ck_assert_uint_lt(clock_suspended_ns(), before + NS_PER_S);
}
END_TEST

START_TEST(a_duration_is_added_in_milliseconds)
{
        ck_assert_uint_eq(clock_after_ms(5, 0), 5);
        ck_assert_uint_eq(clock_after_ms(5, 2), 5 + 2 * NS_PER_MS);
}
END_TEST

START_TEST(a_negative_duration_never_ends)
{
        ck_assert_uint_eq(clock_after_ms(5, -1), CLOCK_NEVER);
        ck_assert_uint_eq(clock_after_ms(5, INT64_MIN), CLOCK_NEVER);
}
END_TEST

START_TEST(sums_saturate)
{
        ck_assert_uint_eq(clock_after_ms(0, INT64_MAX), CLOCK_NEVER);
        ck_assert_uint_eq(clock_after_ms(CLOCK_NEVER, 1), CLOCK_NEVER);
        ck_assert_uint_eq(clock_after_ms(CLOCK_NEVER - NS_PER_MS + 1, 1), CLOCK_NEVER);
        ck_assert_uint_lt(clock_after_ms(CLOCK_NEVER - 2 * NS_PER_MS, 1), CLOCK_NEVER);
}
END_TEST

START_TEST(min_is_the_earlier)
{
        ck_assert_uint_eq(clock_min(1, 2), 1);
        ck_assert_uint_eq(clock_min(CLOCK_NEVER, 2), 2);
}
END_TEST

int main(void)
{
        return suite_run("base/clock", (const TTest *[]){
                                               time_does_not_go_back,
                                               it_is_the_monotonic_clock_whatever_the_calendar_says,
                                               the_boot_clock_is_never_behind,
                                               the_time_suspended_does_not_grow_while_the_machine_runs,
                                               a_duration_is_added_in_milliseconds,
                                               a_negative_duration_never_ends,
                                               sums_saturate,
                                               min_is_the_earlier,
                                               NULL,
                                       });
}
