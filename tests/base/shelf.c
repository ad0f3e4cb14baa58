/* Memory that keeps its type. Who looks too late at it: tests/pool/region.c and tests/pool/lease.c. */
#include "base/shelf.h"

#include <stdint.h>
#include <string.h>

#include "support/crew.h"
#include "support/suite.h"

struct thing {
        uint64_t number;
        void *link;
        char rest[40];
} __attribute__((aligned(64)));

START_TEST(a_new_thing_is_zero_and_aligned)
{
        static struct shelf shelf = SHELF_INIT(struct thing, link);
        struct thing none = { .number = 0 };
        int is_new = 0;

        struct thing *thing = shelf_take(&shelf, &is_new);

        ck_assert_int_eq(is_new, 1);
        ck_assert_uint_eq((uintptr_t)thing % 64, 0);
        ck_assert_mem_eq(thing, &none, sizeof none);
        shelf_give(&shelf, thing);
}
END_TEST

START_TEST(what_was_given_back_comes_again_as_it_was_left)
{
        static struct shelf shelf = SHELF_INIT(struct thing, link);
        int is_new;
        struct thing *thing = shelf_take(&shelf, &is_new), *again;

        thing->number = 42;
        strcpy(thing->rest, "as it was");
        shelf_give(&shelf, thing);
        again = shelf_take(&shelf, &is_new);

        ck_assert_int_eq(is_new, 0);
        ck_assert_ptr_eq(again, thing);
        ck_assert_uint_eq(again->number, 42);
        ck_assert_str_eq(again->rest, "as it was");
        shelf_give(&shelf, again);
}
END_TEST

START_TEST(it_grows_to_the_most_in_use_at_once_and_no_further)
{
        static struct shelf shelf = SHELF_INIT(struct thing, link);
        struct thing *things[3];
        int is_new, fresh = 0;

        for (int round = 0; round < 10; round++) {
                for (int i = 0; i < 3; i++) {
                        things[i] = shelf_take(&shelf, &is_new);
                        fresh += is_new;
                }
                for (int i = 0; i < 3; i++)
                        shelf_give(&shelf, things[i]);
        }

        ck_assert_int_eq(fresh, 3);
}
END_TEST

static void take_and_give(void *context, unsigned number)
{
        int is_new;

        for (uint64_t i = 1; i <= 5000; i++) {
                struct thing *thing = shelf_take(context, &is_new);
                uint64_t mine = number * 10000 + i;

                thing->number = mine;
                ck_assert_uint_eq(thing->number, mine);
                shelf_give(context, thing);
        }
}

START_TEST(nobody_has_a_thing_twice)
{
        static struct shelf shelf = SHELF_INIT(struct thing, link);

        crew_run(4, take_and_give, &shelf);

        ck_assert_ptr_nonnull(shelf.first);
}
END_TEST

int main(void)
{
        return suite_run("base/shelf", (const TTest *[]){
                                               a_new_thing_is_zero_and_aligned,
                                               what_was_given_back_comes_again_as_it_was_left,
                                               it_grows_to_the_most_in_use_at_once_and_no_further,
                                               nobody_has_a_thing_twice,
                                               NULL,
                                       });
}
