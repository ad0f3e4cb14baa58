/* A pool of connections for each key: what a key may say, and that all keys share one limit. The pools of keys themselves are
 * tests/keyed/keyed.c. */
#include "lido/pg_keyed.h"

#include <stdio.h>
#include <string.h>

#include "lido/service.h"
#include "support/pgfixture.h"
#include "support/suite.h"

#define IN_TWO "dbname=two"
#define IN_POSTGRES "dbname=postgres"

static struct lido_service *service;
static struct lido_keyed *keyed;
static PGconn *admin;

static void open_keyed(uint32_t total, uint32_t connect_on_loop)
{
        struct lido_pg_options pg = LIDO_PG_OPTIONS_INIT;
        struct lido_keyed_options options = LIDO_KEYED_OPTIONS_INIT;

        pg.conninfo = server_conninfo();
        pg.application_name = "keyed";
        pg.connect_on_loop = connect_on_loop;
        options.total = total;
        ck_assert_int_eq(lido_pg_keyed_open(&keyed, service, &pg, &options), LIDO_OK);
}

static void set_up(void)
{
        admin = admin_connect(server_conninfo());
        if (admin_number(admin, "select count(*) from pg_database where datname = 'two'") == 0)
                admin_run(admin, "create database two");
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
}

static void tear_down(void)
{
        lido_keyed_free(keyed);
        keyed = NULL;
        ck_assert_int_eq(lido_service_stop(service, 20000), LIDO_OK);
        PQfinish(admin);
}

static int acquire(const char *key, lido_lease *ret_lease)
{
        return lido_keyed_acquire(keyed, LIDO_WISH(key, strlen(key), 20000), ret_lease);
}

static lido_lease must_acquire(const char *key)
{
        lido_lease lease = { NULL, 0 };

        ck_assert_int_eq(acquire(key, &lease), LIDO_OK);
        return lease;
}

/* The single value of a query on a lease, as text. */
static const char *value_on(lido_lease lease, const char *sql)
{
        static char value[256];
        struct lido_pg_rows *rows;
        struct lido_pg_row row;

        ck_assert_int_eq(lido_pg_query_on(lease, sql, NULL, 0, NULL, &rows), LIDO_OK);
        ck_assert_int_eq(lido_pg_next_row(rows, &row), 1);
        snprintf(value, sizeof value, "%s", PQgetvalue(row.result, row.index, 0));
        lido_pg_rows_close(rows);
        return value;
}

static const char *value_of(const char *key, const char *sql)
{
        lido_lease lease = must_acquire(key);
        const char *value = value_on(lease, sql);

        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        return value;
}

static void check_databases(void)
{
        ck_assert_str_eq(value_of(IN_TWO, "select current_database()"), "two");
        ck_assert_str_eq(value_of(IN_POSTGRES, "select current_database()"), "postgres");
        ck_assert_str_eq(value_of(IN_TWO, "select current_database()"), "two");
        admin_wait_for(admin, 2, "select count(*) from pg_stat_activity where application_name = 'keyed'");
}

START_TEST(each_database_has_connections_of_its_own)
{
        open_keyed(10, 0);
        check_databases();
}
END_TEST

START_TEST(each_database_has_connections_of_its_own_opened_on_the_loop_too)
{
        open_keyed(10, 1);
        check_databases();
}
END_TEST

START_TEST(an_idle_connection_of_one_database_makes_room_for_another)
{
        open_keyed(1, 0);
        ck_assert_str_eq(value_of(IN_TWO, "select current_database()"), "two");
        ck_assert_str_eq(value_of(IN_POSTGRES, "select current_database()"), "postgres");
        admin_wait_for(admin, 0, "select count(*) from pg_stat_activity where application_name = 'keyed' and datname = 'two'");
        ck_assert_str_eq(value_of(IN_TWO, "select current_database()"), "two");
        admin_wait_for(admin, 1, "select count(*) from pg_stat_activity where application_name = 'keyed'");
}
END_TEST

START_TEST(a_key_may_set_a_user_and_settings)
{
        admin_run(admin, "drop role if exists alice");
        admin_run(admin, "create role alice login");
        open_keyed(10, 0);
        ck_assert_str_eq(value_of("user=alice dbname=two options='-c search_path=tenant_7'",
                                  "select current_user || ' ' || current_database() || ' ' || current_setting('search_path')"),
                         "alice two tenant_7");
        ck_assert_str_eq(value_of("", "select current_database()"), "postgres"); /* as conninfo has it */
}
END_TEST

/* They are of the user's startup packet, so a reset comes back to them. */
START_TEST(what_a_borrower_changes_is_undone_to_what_the_key_says)
{
        static const char key[] = "dbname=two options='-c search_path=tenant_7'";
        lido_lease lease;
        char backend[32];

        open_keyed(1, 0);
        lease = must_acquire(key);
        snprintf(backend, sizeof backend, "%s", value_on(lease, "select pg_backend_pid()"));
        PQclear(PQexec(lido_pg_conn(lease), "set search_path to elsewhere"));
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        lease = must_acquire(key);
        ck_assert_str_eq(value_on(lease, "select pg_backend_pid()"), backend);
        ck_assert_str_eq(value_on(lease, "show search_path"), "tenant_7");
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
}
END_TEST

START_TEST(a_key_that_says_where_to_connect_or_a_secret_is_refused_and_others_are_served)
{
        static const char *const refused[] = {
                "host=elsewhere", "hostaddr=127.0.0.1 dbname=two", "port=1", "service=x", "target_session_attrs=any",
                "password=secret", "dbname", "=", "no_such_keyword=1",
        };
        lido_lease lease;

        open_keyed(10, 0);
        for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
                ck_assert_msg(acquire(refused[i], &lease) == LIDO_EPERMANENT, "%s", refused[i]);
        ck_assert_int_eq(lido_keyed_acquire(keyed, LIDO_WISH("dbname=two\0x", 12, 20000), &lease), LIDO_EPERMANENT);
        ck_assert_str_eq(value_of(IN_TWO, "select current_database()"), "two");
}
END_TEST

START_TEST(a_database_that_is_not_there_fails_its_own_borrowers_alone)
{
        lido_lease lease;

        open_keyed(10, 0);
        ck_assert_int_eq(acquire("dbname=nowhere", &lease), LIDO_EPERMANENT);
        ck_assert_str_eq(value_of(IN_TWO, "select current_database()"), "two");
}
END_TEST

START_TEST(a_lease_of_a_key_does_all_that_a_lease_does)
{
        lido_lease lease;
        PGconn *conn;

        open_keyed(2, 0);
        lease = must_acquire(IN_TWO);
        ck_assert_int_eq(lido_pg_begin(lease, NULL), LIDO_OK);
        ck_assert_str_eq(value_on(lease, "select 7"), "7");
        ck_assert_int_eq(lido_pg_commit(lease, 0, NULL), LIDO_OK);
        ck_assert_int_eq(lido_pg_cancel(lease, 20000), LIDO_OK);
        ck_assert_int_eq(lido_pg_detach(lease, &conn), LIDO_OK);
        ck_assert_str_eq(PQdb(conn), "two");
        PQfinish(conn);
}
END_TEST

static void no_credentials(struct lido_pg_ask *ask, void *context)
{
        (void)context;
        lido_pg_refuse(ask, NULL);
}

START_TEST(options_that_make_no_sense_are_refused)
{
        struct lido_pg_options pg = LIDO_PG_OPTIONS_INIT;
        struct lido_keyed_options options = LIDO_KEYED_OPTIONS_INIT;

        ck_assert_int_eq(lido_pg_keyed_open(NULL, service, &pg, &options), LIDO_EINVAL);
        ck_assert_int_eq(lido_pg_keyed_open(&keyed, NULL, &pg, &options), LIDO_EINVAL);
        pg.conninfo = "nonsense";
        ck_assert_int_eq(lido_pg_keyed_open(&keyed, service, &pg, &options), LIDO_EINVAL);
        pg.conninfo = server_conninfo();
        options.forget_after_ms = -7;
        ck_assert_int_eq(lido_pg_keyed_open(&keyed, service, &pg, &options), LIDO_EINVAL);
        options.forget_after_ms = 0;
        pg.credentials = no_credentials;
        ck_assert_int_eq(lido_pg_keyed_open(&keyed, service, &pg, &options), LIDO_ENOTSUP);
}
END_TEST

int main(void)
{
        return suite_run_with("pg/keyed",
                              (const TTest *[]){
                                      each_database_has_connections_of_its_own,
                                      each_database_has_connections_of_its_own_opened_on_the_loop_too,
                                      an_idle_connection_of_one_database_makes_room_for_another,
                                      a_key_may_set_a_user_and_settings,
                                      what_a_borrower_changes_is_undone_to_what_the_key_says,
                                      a_key_that_says_where_to_connect_or_a_secret_is_refused_and_others_are_served,
                                      a_database_that_is_not_there_fails_its_own_borrowers_alone,
                                      a_lease_of_a_key_does_all_that_a_lease_does,
                                      options_that_make_no_sense_are_refused,
                                      NULL,
                              },
                              set_up, tear_down);
}
