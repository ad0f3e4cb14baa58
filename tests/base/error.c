/* Codes, names and sentences. Which function returns which: the test of that function. */
#include "lido/error.h"

#include <stdbool.h>
#include <string.h>

#include "support/suite.h"

static const struct {
        int code;
        const char *name;
        const char *sentence;
} all[] = {
#define XX(number, name, sentence) { LIDO_##name, "LIDO_" #name, sentence },
        LIDO_ERROR_MAP(XX)
#undef XX
};
#define COUNT (sizeof all / sizeof all[0])

START_TEST(every_code_is_negative_and_has_a_number_of_its_own)
{
        for (size_t i = 0; i < COUNT; i++) {
                ck_assert_int_lt(all[i].code, 0);
                for (size_t k = 0; k < i; k++)
                        ck_assert_int_ne(all[i].code, all[k].code);
        }
}
END_TEST

START_TEST(every_code_has_its_name_and_its_sentence)
{
        for (size_t i = 0; i < COUNT; i++) {
                ck_assert_str_eq(lido_err_name(all[i].code), all[i].name);
                ck_assert_str_eq(lido_strerror(all[i].code), all[i].sentence);
                ck_assert_uint_gt(strlen(all[i].sentence), 10);
        }
}
END_TEST

START_TEST(success_has_a_name_too)
{
        ck_assert_str_eq(lido_err_name(LIDO_OK), "LIDO_OK");
        ck_assert_uint_gt(strlen(lido_strerror(LIDO_OK)), 0);
}
END_TEST

START_TEST(a_number_that_is_no_code_is_called_so)
{
        ck_assert_str_eq(lido_err_name(1), "LIDO_E?");
        ck_assert_str_eq(lido_err_name(-999), "LIDO_E?");
        ck_assert_str_eq(lido_strerror(-999), "no code of lido");
}
END_TEST

/* A number is never used again, so the first codes stand here as they were published. */
START_TEST(published_numbers_stay)
{
        ck_assert_int_eq(LIDO_ETIMEDOUT, -1);
        ck_assert_int_eq(LIDO_EEXHAUSTED, -2);
        ck_assert_int_eq(LIDO_ECANCELED, -3);
        ck_assert_int_eq(LIDO_ECLOSED, -4);
        ck_assert_int_eq(LIDO_EINVAL, -20);
        ck_assert_int_eq(LIDO_ESTALE, -21);
        ck_assert_int_eq(LIDO_EDOUBLE, -22);
        ck_assert_int_eq(LIDO_EFOREIGN, -23);
        ck_assert_int_eq(LIDO_EDEADLK, -25);
        ck_assert_int_eq(LIDO_EFORKED, -26);
        ck_assert_int_eq(LIDO_ENOMEM, -40);
        ck_assert_int_eq(LIDO_EFACTORY, -60);
        ck_assert_int_eq(LIDO_EPERMANENT, -62);
}
END_TEST

int main(void)
{
        return suite_run("base/error", (const TTest *[]){
                                               every_code_is_negative_and_has_a_number_of_its_own,
                                               every_code_has_its_name_and_its_sentence,
                                               success_has_a_name_too,
                                               a_number_that_is_no_code_is_called_so,
                                               published_numbers_stay,
                                               NULL,
                                       });
}
