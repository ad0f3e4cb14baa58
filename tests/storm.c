/* The storm: everything at once, at random. What it does and checks stands at the head of support/storm.h; what goes wrong here
 * deserves a test by hand beside the module. Schedules that can be replayed are made in tests/sim.
 */
#include "support/storm.h"

#include <stdlib.h>

#include "support/suite.h"

static uint64_t usual(void)
{
        return getenv("LIDO_QUICK") ? 20000 : 200000;
}

START_TEST(no_promise_is_broken_by_a_few_threads_and_a_loop)
{
        storm_run((struct storm_plan){ .usual = usual(), .round_steps = 5000, .threads = 4 });
}
END_TEST

START_TEST(no_promise_is_broken_by_many_threads_on_short_lived_pools)
{
        storm_run((struct storm_plan){ .usual = usual() / 2, .round_steps = 1600, .threads = 16 });
}
END_TEST

int main(void)
{
        return suite_run("storm", (const TTest *[]){
                                          no_promise_is_broken_by_a_few_threads_and_a_loop,
                                          no_promise_is_broken_by_many_threads_on_short_lived_pools,
                                          NULL,
                                  });
}
