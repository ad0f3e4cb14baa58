/* Numbers for jitter. */
#include "base/random.h"

#include "support/suite.h"

START_TEST(a_seed_gives_the_same_numbers_each_time)
{
        struct random a = { 42 }, b = { 42 }, c = { 43 };
        unsigned equal = 0;

        for (int i = 0; i < 1000; i++) {
                uint64_t number = random_next(&a);

                ck_assert_uint_eq(number, random_next(&b));
                equal += number == random_next(&c);
        }
        ck_assert_uint_eq(equal, 0);
}
END_TEST

START_TEST(a_generator_can_begin_in_the_middle)
{
        struct random walked = { 42 }, begun = random_after((struct random){ 42 }, 1000);

        for (int i = 0; i < 1000; i++)
                random_next(&walked);
        ck_assert_uint_eq(random_next(&walked), random_next(&begun));
}
END_TEST

START_TEST(a_number_below_a_limit_is_below_it_and_takes_every_value)
{
        struct random random = { 1 };
        unsigned seen[10] = { 0 };

        for (int i = 0; i < 10000; i++) {
                uint64_t number = random_below(&random, 10);

                ck_assert_uint_lt(number, 10);
                seen[number]++;
        }
        for (int i = 0; i < 10; i++) {
                ck_assert_uint_gt(seen[i], 800);
                ck_assert_uint_lt(seen[i], 1200);
        }
        ck_assert_uint_eq(random_below(&random, 0), 0);
        ck_assert_uint_eq(random_below(&random, 1), 0);
}
END_TEST

START_TEST(two_seeds_of_the_system_differ)
{
        ck_assert_uint_ne(random_seed(), random_seed());
}
END_TEST

int main(void)
{
        return suite_run("base/random", (const TTest *[]){
                                                a_generator_can_begin_in_the_middle,
                                                a_seed_gives_the_same_numbers_each_time,
                                                a_number_below_a_limit_is_below_it_and_takes_every_value,
                                                two_seeds_of_the_system_differ,
                                                NULL,
                                        });
}
