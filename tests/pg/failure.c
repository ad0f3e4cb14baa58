/* What failures mean. That a real server's words look like this is tested in pg/connect.c. */
#include "pg/failure.h"

#include <string.h>

#include "support/suite.h"

START_TEST(wrong_passwords_and_missing_databases_are_permanent)
{
        ck_assert_int_eq(failure_kind("28P01"), LIDO_FAILURE_PERMANENT);
        ck_assert_int_eq(failure_kind("28000"), LIDO_FAILURE_PERMANENT);
        ck_assert_int_eq(failure_kind("3D000"), LIDO_FAILURE_PERMANENT);
}
END_TEST

START_TEST(a_full_or_starting_server_is_not_permanent)
{
        ck_assert_int_eq(failure_kind("53300"), LIDO_FAILURE_CAPACITY);
        ck_assert_int_eq(failure_kind("57P03"), LIDO_FAILURE_NOT_READY);
        ck_assert_int_eq(failure_kind("08006"), LIDO_FAILURE_NETWORK);
        ck_assert_int_eq(failure_kind("XX000"), LIDO_FAILURE_TRANSIENT);
        ck_assert_int_eq(failure_kind(""), LIDO_FAILURE_TRANSIENT);
}
END_TEST

START_TEST(the_sqlstate_is_found_in_a_translated_text_and_taken_out_of_it)
{
        /* given */ struct lido_error error;
        const char *text = "Verbindung fehlgeschlagen: FATAL:  28P01: Passwort-Authentifizierung\nORT:  auth_failed, auth.c:323\n";
        /* when  */ failure_from_text(&error, text);
        /* then  */ ck_assert_str_eq(error.sqlstate, "28P01");
        ck_assert_int_eq(error.failure, LIDO_FAILURE_PERMANENT);
        ck_assert_str_eq(error.text, "Verbindung fehlgeschlagen: FATAL: Passwort-Authentifizierung");
}
END_TEST

START_TEST(five_letters_of_a_name_are_no_sqlstate)
{
        ck_assert_ptr_null(failure_find_sqlstate("role \"ADMIN\": ADMIN: denied"));
        ck_assert_ptr_null(failure_find_sqlstate("FATAL:  ABCDEF: six"));
        ck_assert_ptr_null(failure_find_sqlstate("FATAL:  abcde: lower case"));
        ck_assert_ptr_null(failure_find_sqlstate(""));
}
END_TEST

START_TEST(the_first_of_several_attempts_counts)
{
        /* given */ struct lido_error error;
        /* when  */ failure_from_text(&error, "a: FATAL:  28P01: first\nLOCATION: x\nb: FATAL:  57P03: second\n");
        /* then  */ ck_assert_str_eq(error.sqlstate, "28P01");
        ck_assert_str_eq(error.text, "a: FATAL: first");
}
END_TEST

START_TEST(a_text_without_sqlstate_is_cut_to_its_first_line)
{
        /* given */ struct lido_error error;
        /* when  */ failure_from_text(&error, "connection failed: Connection refused\n\tIs the server running?\n");
        /* then  */ ck_assert_str_eq(error.text, "connection failed: Connection refused");
        ck_assert_str_eq(error.sqlstate, "");
}
END_TEST

START_TEST(a_long_text_is_cut_and_ended)
{
        /* given */ struct lido_error error;
        char text[1000];
        memset(text, 'x', sizeof text);
        text[sizeof text - 1] = '\0';
        /* when  */ failure_from_text(&error, text);
        /* then  */ ck_assert_uint_eq(strlen(error.text), sizeof error.text - 1);
}
END_TEST

START_TEST(a_secret_is_taken_out_wherever_it_stands)
{
        /* given */ struct lido_error error;
        failure_set(&error, LIDO_EFACTORY, LIDO_FAILURE_TRANSIENT, "hunter2 is not \"hunter2\", hunter2");
        /* when  */ failure_redact(&error, "hunter2");
        /* then  */ ck_assert_str_eq(error.text, "*** is not \"***\", ***");
}
END_TEST

START_TEST(a_text_that_grows_when_redacted_stays_in_bounds)
{
        /* given */ struct lido_error error;
        char text[300];
        memset(text, 'x', sizeof text - 1);
        text[sizeof text - 1] = '\0';
        failure_set(&error, LIDO_EFACTORY, LIDO_FAILURE_TRANSIENT, text);
        /* when  */ failure_redact(&error, "x");
        /* then  */ ck_assert_ptr_null(strchr(error.text, 'x'));
        ck_assert_uint_lt(strlen(error.text), sizeof error.text);
}
END_TEST

START_TEST(a_secret_that_was_cut_at_the_end_of_a_text_is_taken_out_too)
{
        /* given */ struct lido_error error;
        char text[300];
        memset(text, 'x', sizeof text);
        for (size_t known = 1; known <= 7; known++) {
                snprintf(text + sizeof error.text - 1 - known, sizeof text - sizeof error.text, "hunter2 is wrong");
                failure_set(&error, LIDO_EFACTORY, LIDO_FAILURE_TRANSIENT, text);
                ck_assert_uint_eq(strlen(error.text), sizeof error.text - 1);
                /* when  */ failure_redact(&error, "hunter2");
                /* then  */ ck_assert_ptr_null(strchr(error.text, 'h'));
                text[sizeof error.text - 1 - known] = 'x';
        }
}
END_TEST

START_TEST(no_secret_changes_nothing)
{
        /* given */ struct lido_error error;
        failure_set(&error, LIDO_EFACTORY, LIDO_FAILURE_TRANSIENT, "text");
        /* when  */ failure_redact(&error, NULL);
        failure_redact(&error, "");
        /* then  */ ck_assert_str_eq(error.text, "text");
}
END_TEST

int main(void)
{
        return suite_run("pg/failure", (const TTest *[]){
                                               wrong_passwords_and_missing_databases_are_permanent,
                                               a_full_or_starting_server_is_not_permanent,
                                               the_sqlstate_is_found_in_a_translated_text_and_taken_out_of_it,
                                               five_letters_of_a_name_are_no_sqlstate,
                                               the_first_of_several_attempts_counts,
                                               a_text_without_sqlstate_is_cut_to_its_first_line,
                                               a_long_text_is_cut_and_ended,
                                               a_secret_is_taken_out_wherever_it_stands,
                                               a_text_that_grows_when_redacted_stays_in_bounds,
                                               a_secret_that_was_cut_at_the_end_of_a_text_is_taken_out_too,
                                               no_secret_changes_nothing,
                                               NULL,
                                       });
}
