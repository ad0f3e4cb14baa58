/* Passwords from a provider: when he is asked, what becomes of his answers, and that they are seen nowhere. */
#include "pg/credentials.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mutex.h"
#include "lido/service.h"
#include "lido/stats.h"
#include "pg/connect.h"
#include "support/fakepg.h"
#include "support/pgfixture.h"
#include "support/suite.h"

/* The provider of the tests: answers at once with what it has, or keeps the question. */
static struct provider {
        const char *user, *password; /* NULL both: keeps the question */
        int64_t valid_ms;
        const char *refusal;
        _Atomic unsigned asked, asked_again;
        struct lido_pg_ask *_Atomic kept;
} provider;

static void answer(struct lido_pg_ask *ask, const char *password)
{
        struct lido_pg_credentials credentials = LIDO_PG_CREDENTIALS_INIT;

        credentials.user = provider.user;
        credentials.password = password;
        credentials.valid_ms = provider.valid_ms;
        ck_assert_int_eq(lido_pg_answer(ask, &credentials), LIDO_OK);
}

static void provide(struct lido_pg_ask *ask, void *context)
{
        ck_assert_ptr_eq(context, &provider);
        provider.asked++;
        provider.asked_again += (unsigned)lido_pg_ask_was_refused(ask);
        if (provider.refusal)
                ck_assert_int_eq(lido_pg_refuse(ask, provider.refusal), LIDO_OK);
        else if (provider.password)
                answer(ask, provider.password);
        else
                provider.kept = ask;
}

static struct pg_options options;
static struct resolver *resolver;
static struct credentials *credentials;
static struct connect_tools tools;
static struct lido_error error;

static void set_up(void)
{
        memset(&provider, 0, sizeof provider);
}

static void take(const char *conninfo)
{
        struct lido_pg_options given = LIDO_PG_OPTIONS_INIT;

        given.conninfo = conninfo;
        given.credentials = provide;
        given.credentials_context = &provider;
        ck_assert_int_eq(options_init(&options, &given, "test"), LIDO_OK);
        resolver = resolver_new(15000, NULL);
        credentials = credentials_new(&options.given);
        tools = (struct connect_tools){ .options = &options, .resolver = resolver, .credentials = credentials };
}

static void drop(void)
{
        credentials_free(credentials);
        resolver_free(resolver);
        options_fini(&options);
}

static int open_once(void)
{
        struct connect connect;

        connect_init(&connect, &tools, clock_after_ms(clock_now_ns(), 20000));
        int rc = connect_run(&connect, -1);
        if (rc == LIDO_OK)
                PQfinish(connect_take(&connect));
        else
                error = *connect_error(&connect);
        connect_fini(&connect);
        return rc;
}

/* ---- against a real server -------------------------------------------------------------------------------- */

static struct own_server server;
static char conninfo[600];
static PGconn *admin;

/* A role whose password the tests change; it is not in conninfo. */
static void start_server(void)
{
        own_server_start(&server, "--scram");
        admin = admin_connect(server.conninfo);
        admin_run(admin, "create role app login password 'first'");
        char *at = strstr(server.tcp_conninfo, " password=");
        snprintf(conninfo, sizeof conninfo, "%.*s sslmode=disable passfile=/nonexistent", (int)(at - server.tcp_conninfo),
                 server.tcp_conninfo);
}

static void remove_server(void)
{
        PQfinish(admin);
        own_server_remove(&server);
}

START_TEST(name_and_password_are_asked_for_and_kept_while_they_count)
{
        /* given */ start_server();
        provider.user = "app";
        provider.password = "first";
        provider.valid_ms = LIDO_NEVER;
        take(conninfo);
        /* when  */ for (int i = 0; i < 3; i++)
                ck_assert_msg(open_once() == LIDO_OK, "%s", error.text);
        /* then  */ ck_assert_uint_eq(provider.asked, 1);
        credentials_expire(credentials);
        ck_assert_int_eq(open_once(), LIDO_OK);
        ck_assert_uint_eq(provider.asked, 2);
        drop();
        remove_server();
}
END_TEST

START_TEST(without_a_time_they_count_for_one_connect)
{
        /* given */ start_server();
        provider.user = "app";
        provider.password = "first";
        take(conninfo);
        /* when  */ for (int i = 0; i < 3; i++)
                ck_assert_int_eq(open_once(), LIDO_OK);
        /* then  */ ck_assert_uint_eq(provider.asked, 3);
        drop();
        remove_server();
}
END_TEST

START_TEST(a_password_that_was_changed_is_asked_for_again_and_the_connect_succeeds)
{
        /* given */ start_server();
        provider.user = "app";
        provider.password = "first";
        provider.valid_ms = LIDO_NEVER;
        take(conninfo);
        ck_assert_int_eq(open_once(), LIDO_OK);
        /* when  */ admin_run(admin, "alter role app password 'second'");
        provider.password = "second";
        /* then  */ ck_assert_msg(open_once() == LIDO_OK, "%s", error.text);
        ck_assert_uint_eq(provider.asked, 2);
        ck_assert_uint_eq(provider.asked_again, 1);
        drop();
        remove_server();
}
END_TEST

START_TEST(a_password_refused_twice_is_permanent_and_shown_nowhere)
{
        /* given */ start_server();
        provider.user = "app";
        provider.password = "hunter2";
        provider.valid_ms = LIDO_NEVER;
        take(conninfo);
        /* when  */ int rc = open_once();
        /* then  */ ck_assert_int_eq(rc, LIDO_EPERMANENT);
        ck_assert_str_eq(error.sqlstate, "28P01");
        ck_assert_uint_eq(provider.asked, 2);
        ck_assert_ptr_null(strstr(error.text, "hunter2"));
        ck_assert_uint_eq(own_server_log_count(&server, "FATAL"), 2);
        drop();
        remove_server();
}
END_TEST

/* ---- against one that misbehaves -------------------------------------------------------------------------- */

static void quote_password(struct fakepg *fake, int fd, unsigned nth)
{
        (void)nth;
        if (fakepg_take_startup(fake, fd))
                fakepg_send_error(fd, "FATAL", "28P01", "hunter2 is wrong, said hunter2");
}

START_TEST(a_server_that_quotes_the_password_is_not_quoted)
{
        /* given */ struct fakepg fake;
        char text[256];
        fakepg_start(&fake, quote_password);
        provider.password = "hunter2";
        take(fakepg_conninfo(&fake, "", text, sizeof text));
        /* when  */ int rc = open_once();
        /* then  */ ck_assert_int_eq(rc, LIDO_EPERMANENT);
        ck_assert_ptr_null(strstr(error.text, "hunter2"));
        ck_assert_ptr_nonnull(strstr(error.text, "*** is wrong, said ***"));
        drop();
        fakepg_stop(&fake);
}
END_TEST

/* Lets nobody in. */
static void refuse_password(struct fakepg *fake, int fd, unsigned nth)
{
        (void)nth;
        if (fakepg_take_startup(fake, fd))
                fakepg_send_error(fd, "FATAL", "28P01", "no");
}

START_TEST(what_the_server_has_refused_is_not_sent_again_by_the_next_connect)
{
        /* given */ struct fakepg fake;
        char text[256];
        fakepg_start(&fake, refuse_password);
        provider.password = "p";
        provider.valid_ms = LIDO_NEVER;
        take(fakepg_conninfo(&fake, "", text, sizeof text));
        ck_assert_int_eq(open_once(), LIDO_EPERMANENT);
        ck_assert_uint_eq(fake.startups, 2);
        /* when  */ provider.refusal = "there is no other";
        int rc = open_once();
        /* then  */ ck_assert_int_eq(rc, LIDO_EFACTORY);
        ck_assert_str_eq(error.text, "there is no other");
        ck_assert_uint_eq(fake.startups, 2);
        ck_assert_uint_eq(provider.asked_again, 2);
        drop();
        fakepg_stop(&fake);
}
END_TEST

static void *change_then_answer(void *unused)
{
        struct lido_pg_ask *ask;

        (void)unused;
        while (!(ask = provider.kept))
                sched_yield();
        provider.password = "new";
        credentials_expire(credentials);
        answer(ask, "old");
        return NULL;
}

START_TEST(an_answer_to_a_question_put_before_the_change_counts_no_more)
{
        /* given */ struct fakepg fake;
        char text[256];
        pthread_t thread;
        struct connect connect;
        fakepg_start(&fake, fakepg_serve);
        provider.valid_ms = LIDO_NEVER;
        take(fakepg_conninfo(&fake, "", text, sizeof text));
        ck_assert_int_eq(pthread_create(&thread, NULL, change_then_answer, NULL), 0);
        /* when  */ connect_init(&connect, &tools, clock_after_ms(clock_now_ns(), 20000));
        ck_assert_int_eq(connect_run(&connect, -1), LIDO_OK);
        pthread_join(thread, NULL);
        /* then  */ ck_assert_str_eq(PQpass(connect.conn), "new");
        ck_assert_uint_eq(provider.asked, 2);
        PQfinish(connect_take(&connect));
        connect_fini(&connect);
        drop();
        fakepg_stop(&fake);
}
END_TEST

START_TEST(a_provider_who_has_none_says_why)
{
        /* given */ struct fakepg fake;
        char text[256];
        fakepg_start(&fake, fakepg_serve);
        provider.refusal = "the vault is sealed";
        take(fakepg_conninfo(&fake, "", text, sizeof text));
        /* when  */ int rc = open_once();
        /* then  */ ck_assert_int_eq(rc, LIDO_EFACTORY);
        ck_assert_str_eq(error.text, "the vault is sealed");
        ck_assert_uint_eq(fake.accepted, 0);
        provider.refusal = NULL;
        provider.password = "p";
        ck_assert_int_eq(open_once(), LIDO_OK);
        drop();
        fakepg_stop(&fake);
}
END_TEST

START_TEST(a_provider_who_never_answers_costs_the_deadline_and_may_answer_when_all_is_over)
{
        /* given */ struct fakepg fake;
        char text[256];
        struct connect connect;
        fakepg_start(&fake, fakepg_serve);
        take(fakepg_conninfo(&fake, "", text, sizeof text));
        /* when  */ connect_init(&connect, &tools, clock_after_ms(clock_now_ns(), 100));
        int rc = connect_run(&connect, -1);
        /* then  */ ck_assert_int_eq(rc, LIDO_EDEADLINE);
        ck_assert_ptr_nonnull(strstr(connect_error(&connect)->text, "a question for a password"));
        connect_fini(&connect);
        drop();
        answer(provider.kept, "too late");
        fakepg_stop(&fake);
}
END_TEST

/* ---- in a pool -------------------------------------------------------------------------------------------- */

static void *answer_later(void *unused)
{
        struct lido_pg_ask *ask;

        (void)unused;
        while (!(ask = provider.kept))
                sched_yield();
        answer(ask, "p");
        return NULL;
}

START_TEST(many_who_connect_at_once_ask_once_and_the_answer_comes_from_another_thread)
{
        /* given */ struct fakepg fake;
        char text[256];
        struct lido_service *service;
        struct lido_pool *pool;
        struct lido_pg_options pg = LIDO_PG_OPTIONS_INIT;
        struct lido_pool_options given = LIDO_POOL_OPTIONS_INIT;
        pthread_t thread;
        fakepg_start(&fake, fakepg_serve);
        pg.conninfo = fakepg_conninfo(&fake, "", text, sizeof text);
        pg.credentials = provide;
        pg.credentials_context = &provider;
        provider.valid_ms = LIDO_NEVER;
        given.min = given.max = 4;
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
        ck_assert_int_eq(pthread_create(&thread, NULL, answer_later, NULL), 0);
        /* when  */ ck_assert_int_eq(lido_pg_pool_open(&pool, service, &pg, &given), LIDO_OK);
        ck_assert_int_eq(lido_pool_wait_ready(pool, 4, 20000), LIDO_OK);
        pthread_join(thread, NULL);
        /* then  */ ck_assert_uint_eq(provider.asked, 1);

        /* when  */ provider.password = "q";
        ck_assert_int_eq(lido_pg_credentials_changed(pool, LIDO_NEVER), LIDO_OK);
        ck_assert_int_eq(lido_pool_clear(pool), LIDO_OK);
        /* then  */ while (provider.asked < 2) /* by the first of those that are opened anew */
                sched_yield();
        ck_assert_int_eq(lido_pool_wait_ready(pool, 4, 20000), LIDO_OK);
        ck_assert_uint_eq(provider.asked, 2);
        ck_assert_int_eq(lido_pg_credentials_changed(pool, 0), LIDO_OK);
        ck_assert_int_eq(lido_pg_credentials_changed(pool, -2), LIDO_EINVAL);
        lido_pool_free(pool);
        ck_assert_int_eq(lido_service_stop(service, 20000), LIDO_OK);
        fakepg_stop(&fake);
}
END_TEST

START_TEST(a_pool_closes_while_its_provider_thinks)
{
        /* given */ struct fakepg fake;
        char text[256];
        struct lido_service *service;
        struct lido_pool *pool;
        struct lido_pg_options pg = LIDO_PG_OPTIONS_INIT;
        lido_lease lease;
        fakepg_start(&fake, fakepg_serve);
        pg.conninfo = fakepg_conninfo(&fake, "", text, sizeof text);
        pg.credentials = provide;
        pg.credentials_context = &provider;
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
        ck_assert_int_eq(lido_pg_pool_open(&pool, service, &pg, NULL), LIDO_OK);
        /* when  */ ck_assert_int_eq(lido_acquire(pool, 50, &lease), LIDO_ETIMEDOUT);
        while (!provider.kept) /* by a connector that may not have had its turn yet */
                sched_yield();
        lido_pool_close(pool, 0);
        ck_assert_int_eq(lido_pool_drain(pool, 20000), LIDO_OK);
        lido_pool_free(pool);
        ck_assert_int_eq(lido_service_stop(service, 20000), LIDO_OK);
        /* then  */ ck_assert_int_eq(lido_pg_refuse(provider.kept, NULL), LIDO_OK);
        ck_assert_int_eq(lido_pg_refuse(NULL, NULL), LIDO_EINVAL);
        fakepg_stop(&fake);
}
END_TEST

int main(void)
{
        return suite_run_with("pg/credentials",
                              (const TTest *[]){
                                      name_and_password_are_asked_for_and_kept_while_they_count,
                                      without_a_time_they_count_for_one_connect,
                                      a_password_that_was_changed_is_asked_for_again_and_the_connect_succeeds,
                                      a_password_refused_twice_is_permanent_and_shown_nowhere,
                                      a_server_that_quotes_the_password_is_not_quoted,
                                      what_the_server_has_refused_is_not_sent_again_by_the_next_connect,
                                      an_answer_to_a_question_put_before_the_change_counts_no_more,
                                      a_provider_who_has_none_says_why,
                                      a_provider_who_never_answers_costs_the_deadline_and_may_answer_when_all_is_over,
                                      many_who_connect_at_once_ask_once_and_the_answer_comes_from_another_thread,
                                      a_pool_closes_while_its_provider_thinks,
                                      NULL,
                              },
                              set_up, NULL);
}
