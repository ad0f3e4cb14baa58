/* Options: what is taken in, and what libpq is handed for one attempt. Connecting with them: pg/connect.c. */
#include "pg/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support/suite.h"

static const char *const variables[] = {"PGHOST",     "PGHOSTADDR",   "PGPORT",   "PGPASSWORD",
                                        "PGSERVICE",  "PGGSSENCMODE", "PGCONNECT_TIMEOUT",
                                        "PGUSER",     "PGDATABASE",   "PGTARGETSESSIONATTRS"};

static void clear_environment(void)
{
        for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
                unsetenv(variables[i]);
}

static struct pg_options take(const char *conninfo)
{
        struct lido_pg_options given = LIDO_PG_OPTIONS_INIT;
        struct pg_options options;

        given.conninfo = conninfo;
        ck_assert_int_eq(options_init(&options, &given, "shop"), LIDO_OK);
        return options;
}

/* The value that libpq would use: the last one that is given. */
static const char *parameter(const struct pg_options *options, const struct pg_host *host, const char *keyword)
{
        static struct options_attempt attempt;
        const char *found = NULL;

        attempt = (struct options_attempt){ .host = host, .session_attrs = options->session_attrs };
        options_parameters(options, &attempt);
        for (size_t i = 0; attempt.keywords[i]; i++)
                if (strcmp(attempt.keywords[i], keyword) == 0)
                        found = attempt.values[i];
        return found;
}

static int refusal_of(const struct lido_pg_options *given, struct lido_error *error)
{
        struct lido_pg_options mine = *given;
        struct pg_options options;

        memset(error, 0, sizeof *error);
        mine.error = error;
        return options_init(&options, &mine, "shop");
}

START_TEST(a_conninfo_that_cannot_be_parsed_is_refused_without_quoting_its_password)
{
        /* given */ struct lido_pg_options given = LIDO_PG_OPTIONS_INIT;
        struct lido_error error;
        given.conninfo = "host=db password=Top Secret";
        /* when  */ int rc = refusal_of(&given, &error);
        /* then  */ ck_assert_int_eq(rc, LIDO_EINVAL);
        ck_assert_ptr_null(strstr(error.text, "Secret"));
        ck_assert_ptr_null(strstr(error.text, "Top"));
        ck_assert_uint_gt(strlen(error.text), 0);
}
END_TEST

START_TEST(a_malformed_uri_does_not_quote_its_password)
{
        /* given */ struct lido_pg_options given = LIDO_PG_OPTIONS_INIT;
        struct lido_error error;
        given.conninfo = "postgresql://user:Top%zzSecret@db/shop";
        /* when  */ int rc = refusal_of(&given, &error);
        /* then  */ ck_assert_int_eq(rc, LIDO_EINVAL);
        ck_assert_ptr_null(strstr(error.text, "Secret"));
}
END_TEST

START_TEST(libpqs_words_about_a_harmless_conninfo_are_passed_on)
{
        /* given */ struct lido_pg_options given = LIDO_PG_OPTIONS_INIT;
        struct lido_error error;
        given.conninfo = "host=db colour=blue";
        /* when  */ int rc = refusal_of(&given, &error);
        /* then  */ ck_assert_int_eq(rc, LIDO_EINVAL);
        ck_assert_ptr_nonnull(strstr(error.text, "colour"));
}
END_TEST

START_TEST(hosts_addresses_and_ports_are_paired)
{
        /* given */ struct pg_options options = take("host=a,b hostaddr=10.0.0.1,10.0.0.2 port=1,2");
        /* then  */ ck_assert_uint_eq(options.host_count, 2);
        ck_assert_str_eq(options.hosts[1].host, "b");
        ck_assert_str_eq(options.hosts[1].hostaddr, "10.0.0.2");
        ck_assert_str_eq(options.hosts[1].port, "2");
        options_fini(&options);
}
END_TEST

START_TEST(one_port_serves_all_hosts)
{
        /* given */ struct pg_options options = take("host=a,b port=7");
        /* then  */ ck_assert_uint_eq(options.host_count, 2);
        ck_assert_str_eq(options.hosts[0].port, "7");
        ck_assert_str_eq(options.hosts[1].port, "7");
        ck_assert_ptr_null(options.hosts[1].hostaddr);
        options_fini(&options);
}
END_TEST

START_TEST(without_hosts_the_environment_counts)
{
        /* given */ setenv("PGHOST", "x,y", 1);
        setenv("PGPORT", "5,6", 1);
        /* when  */ struct pg_options options = take("");
        /* then  */ ck_assert_uint_eq(options.host_count, 2);
        ck_assert_str_eq(options.hosts[1].host, "y");
        ck_assert_str_eq(options.hosts[1].port, "6");
        options_fini(&options);
}
END_TEST

START_TEST(without_any_word_libpqs_own_default_is_one_host)
{
        /* given */ struct pg_options options = take(NULL);
        /* then  */ ck_assert_uint_eq(options.host_count, 1);
        ck_assert_ptr_null(options.hosts[0].host);
        ck_assert_ptr_null(parameter(&options, &options.hosts[0], "host"));
        options_fini(&options);
}
END_TEST

START_TEST(lists_that_do_not_match_are_left_to_libpq)
{
        /* given */ struct pg_options options = take("host=a,b,c port=1,2");
        /* then  */ ck_assert_uint_eq(options.host_count, 0);
        ck_assert_str_eq(parameter(&options, NULL, "host"), "a,b,c");
        ck_assert_str_eq(parameter(&options, NULL, "port"), "1,2");
        options_fini(&options);
}
END_TEST

START_TEST(a_service_is_left_to_libpq)
{
        /* given */ struct pg_options options = take("service=shop");
        /* then  */ ck_assert_uint_eq(options.host_count, 0);
        ck_assert_str_eq(parameter(&options, NULL, "service"), "shop");
        options_fini(&options);
}
END_TEST

START_TEST(an_attempt_gets_its_own_host_and_everything_else_untouched)
{
        /* given */ struct pg_options options = take("host=a,b dbname=d sslmode=verify-full options='-c geqo=off'");
        const struct pg_host one = {.host = (char *)"b", .hostaddr = (char *)"10.0.0.2"};
        /* then  */ ck_assert_str_eq(parameter(&options, &one, "host"), "b");
        ck_assert_str_eq(parameter(&options, &one, "hostaddr"), "10.0.0.2");
        ck_assert_str_eq(parameter(&options, &one, "dbname"), "d");
        ck_assert_str_eq(parameter(&options, &one, "sslmode"), "verify-full");
        ck_assert_str_eq(parameter(&options, &one, "options"), "-c geqo=off");
        options_fini(&options);
}
END_TEST

START_TEST(every_option_of_libpq_is_passed_through_untouched)
{
        /* given */ PQconninfoOption *all = PQconndefaults();
        unsigned count = 0;
        /* when  */ for (PQconninfoOption *option = all; option->keyword; option++) {
                char conninfo[128];
                snprintf(conninfo, sizeof conninfo, "%s='it is 7'", option->keyword);
                if (strcmp(option->keyword, "service") == 0) /* libpq looks for it when it parses */
                        continue;
                struct pg_options options = take(conninfo);
                /* then  */ ck_assert_ptr_nonnull(parameter(&options, &options.hosts[0], option->keyword));
                ck_assert_str_eq(parameter(&options, &options.hosts[0], option->keyword), "it is 7");
                count++;
                options_fini(&options);
        }
        ck_assert_uint_gt(count, 30);
        PQconninfoFree(all);
}
END_TEST

START_TEST(name_and_password_of_a_provider_count_instead_of_conninfos)
{
        /* given */ struct pg_options options = take("host=a user=old password=older");
        struct options_attempt attempt = { .host = &options.hosts[0], .user = "new", .password = "newer" };
        const char *user = NULL, *password = NULL;
        /* when  */ options_parameters(&options, &attempt);
        for (size_t i = 0; attempt.keywords[i]; i++) {
                user = strcmp(attempt.keywords[i], "user") == 0 ? attempt.values[i] : user;
                password = strcmp(attempt.keywords[i], "password") == 0 ? attempt.values[i] : password;
        }
        /* then  */ ck_assert_str_eq(user, "new");
        ck_assert_str_eq(password, "newer");
        options_fini(&options);
}
END_TEST

START_TEST(the_application_name_may_be_a_template)
{
        /* given */ struct lido_pg_options given = LIDO_PG_OPTIONS_INIT;
        struct pg_options options;
        char text[64], wanted[64];
        given.application_name = "100%% %n/%c of %p%";
        ck_assert_int_eq(options_init(&options, &given, "shop"), LIDO_OK);
        /* when  */ options_expand_name(&options, 7, text, sizeof text);
        /* then  */ snprintf(wanted, sizeof wanted, "100%% shop/7 of %ld%%", (long)getpid());
        ck_assert_str_eq(text, wanted);
        options_expand_name(&options, 7, text, 8);
        ck_assert_str_eq(text, "100% sh");
        options_fini(&options);
}
END_TEST

START_TEST(several_hosts_are_watched_when_it_matters_which)
{
        struct pg_options any = take("host=a,b"), writers = take("host=a,b target_session_attrs=primary"),
                          one = take("host=a target_session_attrs=primary");

        ck_assert(!any.is_clustered);
        ck_assert(writers.is_clustered);
        ck_assert(!one.is_clustered);
        options_fini(&any);
        options_fini(&writers);
        options_fini(&one);
}
END_TEST

START_TEST(a_silent_peer_is_noticed_by_default_and_as_the_caller_says)
{
        /* given */ struct pg_options plain = take("host=a"), own = take("host=a tcp_user_timeout=9 keepalives_idle=8");
        /* then  */ ck_assert_str_eq(parameter(&plain, &plain.hosts[0], "tcp_user_timeout"), "30000");
        ck_assert_str_eq(parameter(&plain, &plain.hosts[0], "keepalives_idle"), "30");
        ck_assert_str_eq(parameter(&own, &own.hosts[0], "tcp_user_timeout"), "9");
        ck_assert_str_eq(parameter(&own, &own.hosts[0], "keepalives_idle"), "8");
        options_fini(&plain);
        options_fini(&own);
}
END_TEST

START_TEST(kerberos_is_asked_for_only_if_the_caller_says_so)
{
        /* given */ struct pg_options plain = take("host=a"), own = take("host=a gssencmode=prefer");
        /* then  */ ck_assert_str_eq(parameter(&plain, &plain.hosts[0], "gssencmode"), "disable");
        ck_assert_str_eq(parameter(&own, &own.hosts[0], "gssencmode"), "prefer");
        options_fini(&plain);
        options_fini(&own);
}
END_TEST

START_TEST(the_pools_name_is_the_fallback_application_name)
{
        /* given */ struct pg_options options = take("host=a");
        /* then  */ ck_assert_str_eq(parameter(&options, &options.hosts[0], "fallback_application_name"), "shop");
        ck_assert_ptr_null(parameter(&options, &options.hosts[0], "application_name"));
        options_fini(&options);
}
END_TEST

START_TEST(the_application_name_of_the_options_overrides_the_conninfos)
{
        /* given */ struct lido_pg_options given = LIDO_PG_OPTIONS_INIT;
        struct pg_options options;
        given.conninfo = "host=a application_name=old";
        given.application_name = "new";
        ck_assert_int_eq(options_init(&options, &given, "shop"), LIDO_OK);
        /* then  */ ck_assert_str_eq(parameter(&options, &options.hosts[0], "application_name"), "new");
        options_fini(&options);
}
END_TEST

START_TEST(connect_timeout_is_that_of_one_attempt)
{
        /* given */ struct pg_options options = take("host=a connect_timeout=7"), plain = take("host=a");
        /* then  */ ck_assert_int_eq(options.given.attempt_timeout_ms, 7000);
        ck_assert_int_eq(plain.given.attempt_timeout_ms, 5000);
        options_fini(&options);
        options_fini(&plain);
}
END_TEST

START_TEST(values_out_of_range_are_refused_with_a_reason)
{
        struct lido_pg_options timeout = LIDO_PG_OPTIONS_INIT, reset = LIDO_PG_OPTIONS_INIT;
        struct lido_error error;

        timeout.attempt_timeout_ms = -2;
        ck_assert_int_eq(refusal_of(&timeout, &error), LIDO_EINVAL);
        ck_assert_ptr_nonnull(strstr(error.text, "attempt_timeout_ms"));
        reset.reset = 99;
        ck_assert_int_eq(refusal_of(&reset, &error), LIDO_EINVAL);
        ck_assert_ptr_nonnull(strstr(error.text, "reset"));
}
END_TEST

START_TEST(every_known_password_is_kept_out_of_texts)
{
        /* given */ struct lido_error error = {.text = "one and two and three"};
        setenv("PGPASSWORD", "two", 1);
        struct pg_options options = take("host=a password=one sslpassword=three");
        /* when  */ options_redact(&options, &error);
        /* then  */ ck_assert_str_eq(error.text, "*** and *** and ***");
        options_fini(&options);
}
END_TEST

int main(void)
{
        return suite_run_with("pg/options",
                              (const TTest *[]){
                                      a_conninfo_that_cannot_be_parsed_is_refused_without_quoting_its_password,
                                      a_malformed_uri_does_not_quote_its_password,
                                      libpqs_words_about_a_harmless_conninfo_are_passed_on,
                                      hosts_addresses_and_ports_are_paired,
                                      one_port_serves_all_hosts,
                                      without_hosts_the_environment_counts,
                                      without_any_word_libpqs_own_default_is_one_host,
                                      lists_that_do_not_match_are_left_to_libpq,
                                      a_service_is_left_to_libpq,
                                      an_attempt_gets_its_own_host_and_everything_else_untouched,
                                      every_option_of_libpq_is_passed_through_untouched,
                                      name_and_password_of_a_provider_count_instead_of_conninfos,
                                      the_application_name_may_be_a_template,
                                      several_hosts_are_watched_when_it_matters_which,
                                      a_silent_peer_is_noticed_by_default_and_as_the_caller_says,
                                      kerberos_is_asked_for_only_if_the_caller_says_so,
                                      the_pools_name_is_the_fallback_application_name,
                                      the_application_name_of_the_options_overrides_the_conninfos,
                                      connect_timeout_is_that_of_one_attempt,
                                      values_out_of_range_are_refused_with_a_reason,
                                      every_known_password_is_kept_out_of_texts,
                                      NULL,
                              },
                              clear_environment, NULL);
}
