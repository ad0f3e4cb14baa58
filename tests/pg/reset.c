/* What one borrower leaves and the next one finds, level by level. That a reset costs nothing when nothing is to be undone is
 * shown by the server's own count of statements. */
#include "pg/reset.h"

#include <stdio.h>
#include <string.h>

#include "lido/pg.h"
#include "lido/service.h"
#include "lido/stats.h"
#include "support/pgfixture.h"
#include "support/suite.h"

static struct lido_service *service;
static struct lido_pool *pool;
static struct lido_pg_options pg;

static void set_up(void)
{
        pg = (struct lido_pg_options)LIDO_PG_OPTIONS_INIT;
        pg.conninfo = server_conninfo();
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
}

static void tear_down(void)
{
        lido_pool_free(pool);
        pool = NULL;
        ck_assert_int_eq(lido_service_stop(service, 20000), LIDO_OK);
}

static void open_pool(int level)
{
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;

        options.max = 1;
        pg.reset = level;
        ck_assert_int_eq(lido_pg_pool_open(&pool, service, &pg, &options), LIDO_OK);
}

static lido_lease acquire(void)
{
        lido_lease lease;

        ck_assert_int_eq(lido_acquire(pool, 20000, &lease), LIDO_OK);
        return lease;
}

static void release(lido_lease lease)
{
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
}

static long ask(const char *sql)
{
        lido_lease lease = acquire();
        long number = admin_number(lido_pg_conn(lease), "%s", sql);

        release(lease);
        return number;
}

static void run(const char *sql)
{
        lido_lease lease = acquire();
        PGresult *result = PQexec(lido_pg_conn(lease), sql);

        ck_assert_msg(*PQresultErrorMessage(result) == '\0', "%s: %s", sql, PQresultErrorMessage(result));
        PQclear(result);
        release(lease);
}

/* What can be left, and how the next borrower would see it: by a number that is not 0. */
static const struct {
        const char *what, *leave, *look;
} traces[] = {
        { "search_path", "set search_path = pg_temp", "select (current_setting('search_path') = 'pg_temp')::int" },
        { "statement_timeout", "set statement_timeout = 1234", "select (current_setting('statement_timeout') = '1234ms')::int" },
        { "a tenant", "select set_config('app.tenant', 'a', false)",
          "select (coalesce(current_setting('app.tenant', true), '') = 'a')::int" },
        { "role", "set role lido_other", "select (current_user = 'lido_other')::int" },
        { "session authorization", "set session authorization lido_other", "select (session_user = 'lido_other')::int" },
        { "temporary table", "create temp table left_over (v int)",
          "select count(*) from pg_class where relname = 'left_over' and relnamespace = pg_my_temp_schema()" },
        { "temporary table by SELECT INTO", "select 1 as v into temp left_over",
          "select count(*) from pg_class where relname = 'left_over' and relnamespace = pg_my_temp_schema()" },
        { "advisory lock", "select pg_advisory_lock(4711)",
          "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()" },
        { "advisory lock by DO", "do $$ begin perform pg_advisory_lock(4712); end $$",
          "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()" },
        { "LISTEN", "listen news", "select count(*) from pg_listening_channels()" },
        { "cursor", "begin; declare left_over cursor with hold for select 1; commit", "select count(*) from pg_cursors" },
        { "client_encoding", "set client_encoding = latin1", "select (current_setting('client_encoding') = 'LATIN1')::int" },
        { "application_name", "set application_name = 'mallory'",
          "select (current_setting('application_name') = 'mallory')::int" },
};
#define TRACES (sizeof traces / sizeof *traces)

static void make_other_role(void)
{
        PGconn *admin = admin_connect(server_conninfo());

        admin_run(admin, "do $$ begin if to_regrole('lido_other') is null then create role lido_other; end if; end $$");
        PQfinish(admin);
}

static void assert_nothing_is_left(int level)
{
        make_other_role();
        open_pool(level);
        long pid = ask("select pg_backend_pid()");
        for (size_t i = 0; i < TRACES; i++) {
                run(traces[i].leave);
                ck_assert_msg(ask(traces[i].look) == 0, "%s is left", traces[i].what);
        }
        if (level < LIDO_PG_RESET_STRICT)
                ck_assert_int_eq(ask("select pg_backend_pid()"), pid);
}

START_TEST(auto_undoes_what_the_borrower_was_seen_to_do)
{
        assert_nothing_is_left(LIDO_PG_RESET_AUTO);
}
END_TEST

START_TEST(full_undoes_what_the_server_can_undo)
{
        assert_nothing_is_left(LIDO_PG_RESET_FULL);
}
END_TEST

START_TEST(strict_undoes_all_that)
{
        assert_nothing_is_left(LIDO_PG_RESET_STRICT);
}
END_TEST

START_TEST(rollback_leaves_all_but_the_transaction)
{
        /* the traces are real: without a reset the next borrower sees them */
        make_other_role();
        open_pool(LIDO_PG_RESET_ROLLBACK);
        for (size_t i = 0; i < TRACES; i++) {
                run(traces[i].leave);
                ck_assert_msg(ask(traces[i].look) != 0, "%s is not left", traces[i].what);
                run("discard all");
        }
}
END_TEST

START_TEST(auto_sees_through_a_transaction_left_open)
{
        open_pool(LIDO_PG_RESET_AUTO);
        run("listen news");
        run("begin; set statement_timeout = 1234; select 1");
        ck_assert_int_eq(ask("select (current_setting('statement_timeout') = '1234ms')::int"), 0);
        run("begin; set statement_timeout = 1234; commit; begin");
        ck_assert_int_eq(ask("select (current_setting('statement_timeout') = '1234ms')::int"), 0);
}
END_TEST

START_TEST(auto_keeps_prepared_statements_and_full_does_not)
{
        open_pool(LIDO_PG_RESET_AUTO);
        run("prepare kept as select 1");
        run("set statement_timeout = 1234");
        ck_assert_int_eq(ask("select count(*) from pg_prepared_statements"), 1);
        lido_pool_free(pool);
        open_pool(LIDO_PG_RESET_FULL);
        run("prepare kept as select 1");
        ck_assert_int_eq(ask("select count(*) from pg_prepared_statements"), 0);
}
END_TEST

START_TEST(auto_sends_nothing_after_plain_statements)
{
        /* given */ struct lido_stats stats = LIDO_STATS_INIT;
        open_pool(LIDO_PG_RESET_AUTO);
        /* when  */ run("create temp table t (v int)");
        ask("select 1");
        ck_assert_int_eq(lido_pool_stats(pool, &stats), LIDO_OK);
        uint64_t before = stats.reset;
        for (int i = 0; i < 10; i++) {
                run("select 1");
                run("begin; select 1; commit");
                run("select generate_series(1, 10)");
        }
        /* then  */ ck_assert_int_eq(lido_pool_stats(pool, &stats), LIDO_OK);
        ck_assert_uint_eq(stats.reset, before);
        ck_assert_uint_ge(before, 1);
}
END_TEST

START_TEST(the_set_up_holds_after_each_reset)
{
        static const int levels[] = { LIDO_PG_RESET_AUTO, LIDO_PG_RESET_FULL, LIDO_PG_RESET_STRICT };

        for (size_t i = 0; i < 3; i++) {
                pg.setup = "set statement_timeout = 4321";
                open_pool(levels[i]);
                run("set statement_timeout = 1");
                ck_assert_int_eq(ask("select (current_setting('statement_timeout') = '4321ms')::int"), 1);
                lido_pool_free(pool);
                pool = NULL;
        }
}
END_TEST

START_TEST(strict_closes_what_it_cannot_undo)
{
        open_pool(LIDO_PG_RESET_STRICT);
        long pid = ask("select pg_backend_pid()");
        ck_assert_int_eq(ask("select pg_backend_pid()"), pid);
        run("do $$ begin end $$");
        ck_assert_int_ne(ask("select pg_backend_pid()"), pid);
        pid = ask("select pg_backend_pid()");
        run("select setseed(0.5)");
        ck_assert_int_ne(ask("select pg_backend_pid()"), pid);
}
END_TEST

START_TEST(strict_makes_random_numbers_that_the_former_borrower_cannot_know)
{
        open_pool(LIDO_PG_RESET_STRICT);
        long pid = ask("select pg_backend_pid()");
        run("select 1 from (select setseed(0.5)) as hidden"); /* not seen */
        long first = ask("select (random() * 1e9)::int");
        run("select 1 from (select setseed(0.5)) as hidden");
        long second = ask("select (random() * 1e9)::int");
        ck_assert_int_ne(first, second);
        ck_assert_int_eq(ask("select pg_backend_pid()"), pid);
}
END_TEST

/* ---- the plan by itself ---------------------------------------------------------------------------------- */

START_TEST(a_clean_session_at_rest_gets_a_sign_of_life)
{
        struct reset_plan plan;

        reset_make_plan(&plan, LIDO_PG_RESET_AUTO, 0, PQTRANS_IDLE, "set x = 1");
        ck_assert_str_eq(plan.steps[0], "");
        ck_assert_ptr_null(plan.steps[1]);
}
END_TEST

START_TEST(rollback_and_discard_all_never_share_a_message)
{
        struct reset_plan plan;

        reset_make_plan(&plan, LIDO_PG_RESET_FULL, 0, PQTRANS_INERROR, "set x = 1");
        ck_assert_str_eq(plan.steps[0], "ROLLBACK");
        ck_assert_str_eq(plan.steps[1], "DISCARD ALL");
        ck_assert_str_eq(plan.steps[2], "set x = 1");
        ck_assert_ptr_null(plan.steps[3]);
}
END_TEST

START_TEST(all_that_can_be_dirty_fits_into_one_message)
{
        struct reset_plan plan;

        reset_make_plan(&plan, LIDO_PG_RESET_AUTO, DIRT_ALL, PQTRANS_IDLE, NULL);
        ck_assert_uint_lt(strlen(plan.sql), sizeof plan.sql - 1);
        ck_assert_ptr_nonnull(strstr(plan.sql, "DISCARD SEQUENCES;"));
        ck_assert_ptr_null(plan.steps[1]);
}
END_TEST

int main(void)
{
        return suite_run_with("pg/reset",
                              (const TTest *[]){
                                      auto_undoes_what_the_borrower_was_seen_to_do,
                                      full_undoes_what_the_server_can_undo,
                                      strict_undoes_all_that,
                                      rollback_leaves_all_but_the_transaction,
                                      auto_sees_through_a_transaction_left_open,
                                      auto_keeps_prepared_statements_and_full_does_not,
                                      auto_sends_nothing_after_plain_statements,
                                      the_set_up_holds_after_each_reset,
                                      strict_closes_what_it_cannot_undo,
                                      strict_makes_random_numbers_that_the_former_borrower_cannot_know,
                                      a_clean_session_at_rest_gets_a_sign_of_life,
                                      rollback_and_discard_all_never_share_a_message,
                                      all_that_can_be_dirty_fits_into_one_message,
                                      NULL,
                              },
                              set_up, tear_down);
}
