/* Memory. What happens when there is none: tests/faults.c. */
#include "base/mem.h"

#include <stdint.h>
#include <string.h>

#include "support/suite.h"

static int is_zero(const unsigned char *bytes, size_t size)
{
        for (size_t i = 0; i < size; i++)
                if (bytes[i] != 0)
                        return 0;
        return 1;
}

START_TEST(new_memory_is_zero)
{
        unsigned char *memory = mem_zalloc(1000);

        ck_assert_ptr_nonnull(memory);
        ck_assert(is_zero(memory, 1000));
        mem_free(memory);
        mem_free(NULL);
}
END_TEST

START_TEST(aligned_memory_is_aligned_and_zero)
{
        for (size_t alignment = sizeof(void *); alignment <= 4096; alignment *= 2) {
                unsigned char *memory = mem_zalloc_aligned(alignment, 3 * alignment);

                ck_assert_uint_eq((uintptr_t)memory % alignment, 0);
                ck_assert(is_zero(memory, 3 * alignment));
                mem_free(memory);
        }
}
END_TEST

START_TEST(a_copied_string_is_equal_and_another)
{
        const char *string = "a string";
        char *copy = mem_strdup(string);

        ck_assert_str_eq(copy, string);
        ck_assert_ptr_ne(copy, string);
        mem_free(copy);
}
END_TEST

START_TEST(wiped_memory_is_zero)
{
        char secret[32];

        strcpy(secret, "a password");
        mem_wipe(secret, sizeof secret);

        ck_assert(is_zero((unsigned char *)secret, sizeof secret));
}
END_TEST

int main(void)
{
        return suite_run("base/mem", (const TTest *[]){
                                             new_memory_is_zero,
                                             aligned_memory_is_aligned_and_zero,
                                             a_copied_string_is_equal_and_another,
                                             wiped_memory_is_zero,
                                             NULL,
                                     });
}
