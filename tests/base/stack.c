/* Return addresses and their names. On a C library without backtrace(3) there is nothing to see. */
#include "base/stack.h"

#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "support/suite.h"

/* Tells where it will return to as well: the second of the addresses. */
static __attribute__((noinline)) uint32_t walk_here(void **frame, uint32_t most, uint32_t skip, void **ret_caller)
{
        uint32_t count = stack_walk(frame, most, skip);

        *ret_caller = __builtin_return_address(0);
        __asm__ volatile("" ::: "memory"); /* no tail call */
        return count;
}

START_TEST(a_walk_begins_with_the_caller_and_can_skip)
{
        void *all[16], *some[16], *caller, *same_caller;
        uint32_t count = walk_here(all, 16, 0, &caller), fewer = walk_here(some, 16, 1, &same_caller);

#ifdef HAVE_BACKTRACE
        ck_assert_uint_ge(count, 3);
        ck_assert_ptr_eq(all[1], caller);
        ck_assert_ptr_eq(some[0], same_caller);
        ck_assert_ptr_eq(some[1], all[2]);
#else
        (void)caller, (void)same_caller;
#endif
        ck_assert(fewer == count - 1 || fewer == count);
}
END_TEST

START_TEST(a_walk_keeps_to_its_bound)
{
        void *frame[3] = { NULL, NULL, frame };

        ck_assert_uint_le(stack_walk(frame, 2, 0), 2);
        ck_assert_ptr_eq(frame[2], frame);
        ck_assert_uint_eq(stack_walk(frame, 2, 1000), 0);
}
END_TEST

START_TEST(an_address_in_a_library_has_its_name_and_any_other_a_number)
{
        char text[200];

#ifdef HAVE_DLADDR
        stack_name((char *)(uintptr_t)uv_version + 1, text, sizeof text);
        ck_assert_ptr_nonnull(strstr(text, "libuv"));
        ck_assert_ptr_nonnull(stack_object((void *)(uintptr_t)uv_version));
#endif
        stack_name((void *)16, text, sizeof text);
        ck_assert_str_eq(text, "0x10");
        ck_assert_ptr_null(stack_object((void *)16));
}
END_TEST

int main(void)
{
        return suite_run("base/stack", (const TTest *[]){
                                               a_walk_begins_with_the_caller_and_can_skip,
                                               a_walk_keeps_to_its_bound,
                                               an_address_in_a_library_has_its_name_and_any_other_a_number,
                                               NULL,
                                       });
}
