/* Structs from callers of other versions. Which public functions take them: tests/pool/options.c, tests/keeper/lifecycle.c. */
#include "base/sized.h"

#include <stdint.h>

#include "lido/error.h"
#include "support/suite.h"

struct ours {
        size_t size;
        uint32_t a, b;
        uint64_t c;
};

struct newer {
        struct ours known;
        uint64_t unknown;
};

START_TEST(no_struct_at_all_means_all_default)
{
        struct ours taken = { 1, 2, 3, 4 };

        ck_assert_int_eq(sized_take(&taken, sizeof taken, NULL), LIDO_OK);

        ck_assert_uint_eq(taken.size, sizeof taken);
        ck_assert_uint_eq(taken.a + taken.b + taken.c, 0);
}
END_TEST

START_TEST(one_of_our_own_size_is_copied)
{
        struct ours theirs = { sizeof theirs, 2, 3, 4 }, taken;

        ck_assert_int_eq(sized_take(&taken, sizeof taken, &theirs), LIDO_OK);

        ck_assert_mem_eq(&taken, &theirs, sizeof taken);
}
END_TEST

START_TEST(what_an_older_caller_lacks_is_zero)
{
        struct ours theirs = { offsetof(struct ours, b), 2, 3, 4 }, taken = { 9, 9, 9, 9 };

        ck_assert_int_eq(sized_take(&taken, sizeof taken, &theirs), LIDO_OK);

        ck_assert_uint_eq(taken.size, sizeof taken);
        ck_assert_uint_eq(taken.a, 2);
        ck_assert_uint_eq(taken.b, 0);
        ck_assert_uint_eq(taken.c, 0);
}
END_TEST

START_TEST(a_newer_caller_who_asks_for_nothing_new_is_served)
{
        struct newer theirs = { { sizeof theirs, 2, 3, 4 }, 0 };
        struct ours taken;

        ck_assert_int_eq(sized_take(&taken, sizeof taken, &theirs), LIDO_OK);

        ck_assert_uint_eq(taken.size, sizeof taken);
        ck_assert_uint_eq(taken.c, 4);
}
END_TEST

START_TEST(a_newer_caller_who_asks_for_something_new_is_refused)
{
        struct newer theirs = { { sizeof theirs, 2, 3, 4 }, 1 };
        struct ours taken;

        ck_assert_int_eq(sized_take(&taken, sizeof taken, &theirs), LIDO_E2NEW);
}
END_TEST

START_TEST(an_impossible_size_is_an_error)
{
        struct ours theirs = { 0, 2, 3, 4 }, taken;

        ck_assert_int_eq(sized_take(&taken, sizeof taken, &theirs), LIDO_EINVAL);
        theirs.size = sizeof theirs.size - 1;
        ck_assert_int_eq(sized_take(&taken, sizeof taken, &theirs), LIDO_EINVAL);
        theirs.size = SIZE_MAX;
        ck_assert_int_eq(sized_take(&taken, sizeof taken, &theirs), LIDO_EINVAL);
}
END_TEST

START_TEST(room_is_the_smaller_of_the_two)
{
        ck_assert_uint_eq(sized_room(8, 24), 8);
        ck_assert_uint_eq(sized_room(24, 24), 24);
        ck_assert_uint_eq(sized_room(32, 24), 24);
}
END_TEST

int main(void)
{
        return suite_run("base/sized", (const TTest *[]){
                                               no_struct_at_all_means_all_default,
                                               one_of_our_own_size_is_copied,
                                               what_an_older_caller_lacks_is_zero,
                                               a_newer_caller_who_asks_for_nothing_new_is_served,
                                               a_newer_caller_who_asks_for_something_new_is_refused,
                                               an_impossible_size_is_an_error,
                                               room_is_the_smaller_of_the_two,
                                               NULL,
                                       });
}
