/* The version that the library reports. That headers and library agree once installed is tests/installcheck.sh. */
#include "support/suite.h"

#include <stdio.h>

#include "lido/version.h"

START_TEST(the_library_reports_the_version_of_its_header)
{
        ck_assert_str_eq(lido_version(), LIDO_VERSION_STRING);
        ck_assert_uint_eq(lido_version_number(), LIDO_VERSION_NUMBER);
}
END_TEST

START_TEST(the_text_and_the_numbers_agree)
{
        char text[32];

        snprintf(text, sizeof(text), "%d.%d.%d", LIDO_VERSION_MAJOR, LIDO_VERSION_MINOR, LIDO_VERSION_PATCH);
        ck_assert_str_eq(text, LIDO_VERSION_STRING);
}
END_TEST

int main(void)
{
        return suite_run("base/version", (const TTest *[]){
                                                 the_library_reports_the_version_of_its_header,
                                                 the_text_and_the_numbers_agree,
                                                 NULL,
                                         });
}
