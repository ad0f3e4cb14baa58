/* One statement from a thread: its parameters, its rows one by one, how it fails. */
#include "lido/pg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "lido/service.h"
#include "lido/stats.h"
#include "support/patience.h"
#include "support/pgfixture.h"
#include "support/suite.h"

static struct lido_service *service;
static struct lido_pool *pool;
static struct lido_error error;

static void set_up(void)
{
        struct lido_pg_options pg = LIDO_PG_OPTIONS_INIT;
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;

        pg.conninfo = server_conninfo();
        options.max = 1;
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
        ck_assert_int_eq(lido_pg_pool_open(&pool, service, &pg, &options), LIDO_OK);
}

/* Whatever a test did, the connection has come back. */
static void tear_down(void)
{
        struct lido_stats stats = LIDO_STATS_INIT;

        ck_assert_int_eq(lido_pool_stats(pool, &stats), LIDO_OK);
        ck_assert_uint_eq(stats.leased, 0);
        lido_pool_free(pool);
        ck_assert_int_eq(lido_service_stop(service, 20000), LIDO_OK);
}

static int query(const char *sql, const struct lido_pg_param *params, uint32_t count, int64_t timeout_ms,
                 struct lido_pg_rows **ret_rows)
{
        struct lido_pg_query_options options = LIDO_PG_QUERY_OPTIONS_INIT;

        memset(&error, 0, sizeof error);
        options.error = &error;
        options.timeout_ms = timeout_ms;
        return lido_pg_query(pool, sql, params, count, &options, ret_rows);
}

/* The single value of a query, as text. */
static const char *value_of(const char *sql, const struct lido_pg_param *params, uint32_t count)
{
        static char value[256];
        struct lido_pg_rows *rows;
        struct lido_pg_row row;
        int rc = query(sql, params, count, 20000, &rows);

        ck_assert_msg(rc == LIDO_OK, "%s: %s", lido_err_name(rc), error.text);
        ck_assert_int_eq(lido_pg_next_row(rows, &row), 1);
        snprintf(value, sizeof value, "%s",
                 PQgetisnull(row.result, row.index, 0) ? "NULL" : PQgetvalue(row.result, row.index, 0));
        ck_assert_int_eq(lido_pg_next_row(rows, &row), 0);
        lido_pg_rows_close(rows);
        return value;
}

#define VALUE_WITH(sql, ...)                                                                                   \
        value_of(sql, (const struct lido_pg_param[]){ __VA_ARGS__ },                                           \
                 sizeof((const struct lido_pg_param[]){ __VA_ARGS__ }) / sizeof(struct lido_pg_param))

START_TEST(rows_come_one_by_one_and_end)
{
        struct lido_pg_rows *rows;
        struct lido_pg_row row;
        char expected[16];

        ck_assert_int_eq(query("select generate_series(1, 100)", NULL, 0, 20000, &rows), LIDO_OK);
        for (int i = 1; i <= 100; i++) {
                ck_assert_int_eq(lido_pg_next_row(rows, &row), 1);
                snprintf(expected, sizeof expected, "%d", i);
                ck_assert_str_eq(PQgetvalue(row.result, row.index, 0), expected);
        }
        ck_assert_int_eq(lido_pg_next_row(rows, &row), 0);
        ck_assert_int_eq(lido_pg_next_row(rows, &row), 0);
        ck_assert_uint_eq(lido_pg_affected(rows), 100);
        lido_pg_rows_close(rows);
}
END_TEST

START_TEST(a_query_without_rows_ends_at_once)
{
        struct lido_pg_rows *rows;
        struct lido_pg_row row;

        ck_assert_int_eq(query("select 1 where false", NULL, 0, 20000, &rows), LIDO_OK);
        ck_assert_int_eq(lido_pg_next_row(rows, &row), 0);
        lido_pg_rows_close(rows);
        ck_assert_int_eq(query("", NULL, 0, 20000, &rows), LIDO_OK);
        ck_assert_int_eq(lido_pg_next_row(rows, &row), 0);
        lido_pg_rows_close(rows);
}
END_TEST

START_TEST(parameters_arrive_with_their_types_and_values)
{
        ck_assert_str_eq(VALUE_WITH("select $1 + 1", lido_pg_int4(-42)), "-41");
        ck_assert_str_eq(VALUE_WITH("select $1 + 1", lido_pg_int8(INT64_MIN)), "-9223372036854775807");
        ck_assert_str_eq(VALUE_WITH("select $1 * 2", lido_pg_float8(-0.25)), "-0.5");
        ck_assert_str_eq(VALUE_WITH("select not $1", lido_pg_bool(1)), "f");
        ck_assert_str_eq(VALUE_WITH("select $1::text || '!'", lido_pg_text("it's")), "it's!");
        ck_assert_str_eq(VALUE_WITH("select encode($1, 'hex')", lido_pg_bytea("\0\1\377", 3)), "0001ff");
        ck_assert_str_eq(VALUE_WITH("select $1::int", lido_pg_null()), "NULL");
        ck_assert_str_eq(VALUE_WITH("select pg_typeof($1)::text || pg_typeof($2)::text", lido_pg_int8(1), lido_pg_bool(0)),
                         "bigintboolean");
}
END_TEST

START_TEST(a_hundred_parameters_are_no_matter)
{
        struct lido_pg_param params[100];
        char sql[1000] = "select $1";
        size_t used = strlen(sql);

        for (int i = 0; i < 100; i++) {
                params[i] = lido_pg_int4(i);
                if (i > 0)
                        used += (size_t)snprintf(sql + used, sizeof sql - used, "+$%d", i + 1);
        }
        ck_assert_str_eq(value_of(sql, params, 100), "4950");
}
END_TEST

START_TEST(a_change_tells_how_many_rows_it_affected)
{
        struct lido_pg_rows *rows;
        struct lido_pg_row row;

        ck_assert_int_eq(query("create temp table t as select generate_series(1, 10) as v", NULL, 0, 20000, &rows), LIDO_OK);
        ck_assert_int_eq(lido_pg_next_row(rows, &row), 0);
        ck_assert_uint_eq(lido_pg_affected(rows), 10);
        lido_pg_rows_close(rows);
}
END_TEST

START_TEST(a_statement_that_fails_says_its_sqlstate_at_once)
{
        struct lido_pg_rows *rows = NULL;

        ck_assert_int_eq(query("select no_such_column", NULL, 0, 20000, &rows), LIDO_EFACTORY);
        ck_assert_ptr_null(rows);
        ck_assert_str_eq(error.sqlstate, "42703");
        ck_assert_str_eq(VALUE_WITH("select $1", lido_pg_int4(1)), "1");
}
END_TEST

START_TEST(a_failure_in_the_middle_comes_after_the_rows_before_it)
{
        struct lido_pg_rows *rows;
        struct lido_pg_row row;
        int count = 0, rc;

        ck_assert_int_eq(query("select 1 / (50 - generate_series(1, 100))", NULL, 0, 20000, &rows), LIDO_OK);
        while ((rc = lido_pg_next_row(rows, &row)) == 1)
                count++;
        ck_assert_int_eq(rc, LIDO_EFACTORY);
        ck_assert_int_eq(count, 49);
        ck_assert_str_eq(error.sqlstate, "22012");
        ck_assert_int_eq(lido_pg_next_row(rows, &row), LIDO_EFACTORY);
        lido_pg_rows_close(rows);
}
END_TEST

START_TEST(the_connection_is_free_once_the_last_row_is_read)
{
        struct lido_pg_rows *rows;
        struct lido_pg_row row;

        ck_assert_int_eq(query("select 1", NULL, 0, 20000, &rows), LIDO_OK);
        ck_assert_int_eq(lido_pg_next_row(rows, &row), 1);
        ck_assert_int_eq(lido_pg_next_row(rows, &row), 0);
        ck_assert_str_eq(VALUE_WITH("select $1", lido_pg_int4(7)), "7"); /* the pool has one connection */
        lido_pg_rows_close(rows);
}
END_TEST

/* A sanitizer keeps freed memory from reuse for a while; then what is allocated counts, not what is resident. */
extern size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

static long memory_kib(void)
{
        struct rusage usage;

        if (__sanitizer_get_current_allocated_bytes)
                return (long)(__sanitizer_get_current_allocated_bytes() / 1024);
        getrusage(RUSAGE_SELF, &usage);
        return usage.ru_maxrss;
}

START_TEST(a_million_rows_need_no_more_memory_than_a_few)
{
        struct lido_pg_rows *rows;
        struct lido_pg_row row;
        unsigned long count = 0;
        int rc;

        value_of("select 1", NULL, 0);
        long before = memory_kib(), most = before;
        ck_assert_int_eq(query("select generate_series(1, 1000000), repeat('x', 100)", NULL, 0, 300000, &rows), LIDO_OK);
        while ((rc = lido_pg_next_row(rows, &row)) == 1)
                if (++count % 1000 == 0 && memory_kib() > most)
                        most = memory_kib();
        ck_assert_int_eq(rc, 0);
        ck_assert_uint_eq(count, 1000000);
        ck_assert_int_lt(most - before, 8192); /* the rows are 130 MB */
        lido_pg_rows_close(rows);
}
END_TEST

START_TEST(stopping_early_does_not_read_gigabytes)
{
        struct lido_pg_rows *rows;
        struct lido_pg_row row;

        ck_assert_int_eq(query("select repeat('x', 1000), generate_series(1, 100000000)", NULL, 0, 20000, &rows), LIDO_OK);
        ck_assert_int_eq(lido_pg_next_row(rows, &row), 1);
        uint64_t start = clock_now_ns();
        lido_pg_rows_close(rows);
        ck_assert_uint_lt(clock_now_ns() - start, NS_PER_S);
        ck_assert_str_eq(VALUE_WITH("select $1", lido_pg_int4(7)), "7");
}
END_TEST

START_TEST(a_deadline_ends_a_statement_that_takes_too_long)
{
        struct lido_pg_rows *rows;
        uint64_t start = clock_now_ns();

        value_of("select 1", NULL, 0);
        start = clock_now_ns();
        ck_assert_int_eq(query("select pg_sleep(300)", NULL, 0, 200, &rows), LIDO_EDEADLINE);
        ck_assert_uint_ge(clock_now_ns() - start, 200 * NS_PER_MS);
        ck_assert_uint_lt(clock_now_ns() - start, 5 * NS_PER_S);
}
END_TEST

static int read_until_it_ends(struct lido_pg_rows *rows)
{
        struct lido_pg_row row;
        int rc;

        while ((rc = lido_pg_next_row(rows, &row)) == 1)
                continue;
        lido_pg_rows_close(rows);
        return rc;
}

/* Rows of 11 bytes, of 100 kB; there is always one to be had. */
START_TEST(a_deadline_ends_rows_that_do_not_stop_coming)
{
        static const char *const endless[] = {
                "select generate_series(1, 9e18::int8)",
                "select repeat('x', 100000) || generate_series(1, 9e18::int8)",
        };
        struct lido_pg_query_options options = LIDO_PG_QUERY_OPTIONS_INIT;
        struct lido_pg_rows *rows;
        lido_lease lease;

        options.timeout_ms = 2000; /* the first row comes before that */
        for (int i = 0; i < 2; i++) {
                ck_assert_int_eq(query(endless[i], NULL, 0, options.timeout_ms, &rows), LIDO_OK);
                ck_assert_int_eq(read_until_it_ends(rows), LIDO_EDEADLINE);
                ck_assert_int_eq(error.code, LIDO_EDEADLINE);
        }
        ck_assert_int_eq(lido_acquire(pool, 20000, &lease), LIDO_OK);
        ck_assert_int_eq(lido_pg_query_on(lease, endless[0], NULL, 0, &options, &rows), LIDO_OK);
        ck_assert_int_eq(read_until_it_ends(rows), LIDO_EDEADLINE);
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        ck_assert_str_eq(value_of("select 7", NULL, 0), "7");
}
END_TEST

START_TEST(large_rows_come_between_small_ones)
{
        struct lido_pg_rows *rows;
        struct lido_pg_row row;

        for (int64_t deadline_ms = 0; deadline_ms <= 20000; deadline_ms += 20000) {
                int length = 0, count = 0;

                ck_assert_int_eq(query("select repeat('x', case when i % 3 = 0 then 200000 else i end) from generate_series(1, 30) i",
                                       NULL, 0, deadline_ms, &rows), LIDO_OK);
                for (; lido_pg_next_row(rows, &row) == 1; count++) {
                        length = PQgetlength(row.result, row.index, 0);
                        ck_assert_int_eq(length, (count + 1) % 3 == 0 ? 200000 : count + 1);
                }
                ck_assert_int_eq(count, 30);
                ck_assert_uint_eq(lido_pg_affected(rows), 30);
                lido_pg_rows_close(rows);
        }
}
END_TEST

START_TEST(a_lost_connection_fails_the_statement)
{
        PGconn *admin = admin_connect(server_conninfo());
        struct lido_pg_rows *rows;
        struct lido_pg_row row;
        int rc;

        ck_assert_int_eq(query("select pg_backend_pid() from generate_series(1, 3)", NULL, 0, 20000, &rows), LIDO_OK);
        ck_assert_int_eq(lido_pg_next_row(rows, &row), 1);
        lido_pg_rows_close(rows);
        rc = query("select pg_terminate_backend(pg_backend_pid()), pg_sleep(1)", NULL, 0, 20000, &rows);
        ck_assert_int_eq(rc, LIDO_EFACTORY);
        ck_assert_str_eq(error.sqlstate, "57P01");
        ck_assert_str_eq(VALUE_WITH("select $1", lido_pg_int4(7)), "7");
        PQfinish(admin);
}
END_TEST

START_TEST(copy_is_refused)
{
        struct lido_pg_rows *rows;

        ck_assert_int_eq(query("copy (select 1) to stdout", NULL, 0, 20000, &rows), LIDO_EINVAL);
        ck_assert_str_eq(VALUE_WITH("select $1", lido_pg_int4(7)), "7");
}
END_TEST

static void open_nothing(lido_op op, void *context)
{
        (void)context;
        lido_op_done(op, LIDO_EFACTORY);
}

static void close_nothing(lido_op op, void *object, void *context)
{
        (void)object;
        (void)context;
        lido_op_done(op, LIDO_OK);
}

START_TEST(another_kind_of_pool_is_refused)
{
        struct lido_factory factory = LIDO_FACTORY_INIT;
        struct lido_pool *other;
        struct lido_pg_rows *rows;

        factory.kind = "pg";
        factory.open = open_nothing;
        factory.close = close_nothing;
        ck_assert_int_eq(lido_pool_open(&other, service, &factory, NULL), LIDO_OK);
        ck_assert_int_eq(lido_pg_query(other, "select 1", NULL, 0, NULL, &rows), LIDO_EFOREIGN);
        lido_pool_free(other);
}
END_TEST

START_TEST(arguments_that_make_no_sense_are_refused)
{
        struct lido_pg_rows *rows;

        ck_assert_int_eq(lido_pg_query(NULL, "select 1", NULL, 0, NULL, &rows), LIDO_EINVAL);
        ck_assert_int_eq(lido_pg_query(pool, NULL, NULL, 0, NULL, &rows), LIDO_EINVAL);
        ck_assert_int_eq(lido_pg_query(pool, "select $1", NULL, 1, NULL, &rows), LIDO_EINVAL);
        ck_assert_int_eq(query("select 1", NULL, 0, -5, &rows), LIDO_EINVAL);
        lido_pg_rows_close(NULL);
}
END_TEST

/* ---- prepared statements --------------------------------------------------------------------------------- */

static long prepared_count(void)
{
        return strtol(value_of("select count(*) from pg_prepared_statements where name like 'lido%'", NULL, 0), NULL, 10);
}

static void on_lease(const char *sql)
{
        lido_lease lease;

        ck_assert_int_eq(lido_acquire(pool, 20000, &lease), LIDO_OK);
        admin_run(lido_pg_conn(lease), "%s", sql);
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
}

static const char *prepared_now(const char *sql)
{
        static char value[64];
        struct lido_pg_query_options options = LIDO_PG_QUERY_OPTIONS_INIT;
        struct lido_pg_rows *rows;
        struct lido_pg_row row;

        memset(&error, 0, sizeof error);
        options.error = &error;
        options.prepare = LIDO_PG_PREPARE_AT_ONCE;
        int rc = lido_pg_query(pool, sql, NULL, 0, &options, &rows);
        ck_assert_msg(rc == LIDO_OK, "%s: %s", lido_err_name(rc), error.text);
        ck_assert_int_eq(lido_pg_next_row(rows, &row), 1);
        snprintf(value, sizeof value, "%s", PQgetvalue(row.result, row.index, PQnfields(row.result) - 1));
        ck_assert_int_eq(lido_pg_next_row(rows, &row), 0);
        lido_pg_rows_close(rows);
        return value;
}

START_TEST(a_statement_is_prepared_at_its_third_use)
{
        for (int use = 1; use <= 5; use++) {
                ck_assert_str_eq(VALUE_WITH("select $1 + 1", lido_pg_int4(use * 10)),
                                 ((const char *[]){ "11", "21", "31", "41", "51" })[use - 1]);
                ck_assert_int_eq(strtol(value_of(use % 2 ? "select count(*) from pg_prepared_statements"
                                                         : "select count(*), 1 from pg_prepared_statements",
                                                 NULL, 0),
                                        NULL, 10),
                                 use < 3 ? 0 : use < 5 ? 1 : 2); /* at last the counting itself is prepared */
        }
}
END_TEST

START_TEST(the_same_text_with_other_types_is_another_statement)
{
        for (int use = 0; use < 4; use++) {
                ck_assert_str_eq(VALUE_WITH("select pg_typeof($1)::text", lido_pg_int4(1)), "integer");
                ck_assert_str_eq(VALUE_WITH("select pg_typeof($1)::text", lido_pg_int8(1)), "bigint");
        }
}
END_TEST

START_TEST(a_table_that_has_changed_its_shape_is_no_error)
{
        on_lease("drop table if exists changing");
        on_lease("create table changing (a int); insert into changing values (1)");
        ck_assert_str_eq(prepared_now("select * from changing"), "1");
        on_lease("alter table changing add column b text default 'new'");
        ck_assert_str_eq(prepared_now("select * from changing"), "new");
        on_lease("drop table changing");
}
END_TEST

START_TEST(a_borrower_who_drops_all_statements_causes_no_error)
{
        ck_assert_str_eq(prepared_now("select 4711"), "4711");
        on_lease("deallocate all"); /* seen */
        ck_assert_str_eq(prepared_now("select 4711"), "4711");
        on_lease("do $$ begin execute 'deallocate all'; end $$"); /* not seen */
        ck_assert_str_eq(prepared_now("select 4711"), "4711");
        on_lease("discard all");
        ck_assert_str_eq(prepared_now("select 4711"), "4711");
        ck_assert_int_eq(prepared_count(), 1);
}
END_TEST

START_TEST(a_statement_that_cannot_be_prepared_says_its_sqlstate)
{
        struct lido_pg_query_options options = LIDO_PG_QUERY_OPTIONS_INIT;
        struct lido_pg_rows *rows;

        options.error = &error;
        options.prepare = LIDO_PG_PREPARE_AT_ONCE;
        ck_assert_int_eq(lido_pg_query(pool, "selekt 1", NULL, 0, &options, &rows), LIDO_EFACTORY);
        ck_assert_str_eq(error.sqlstate, "42601");
        ck_assert_str_eq(VALUE_WITH("select $1", lido_pg_int4(7)), "7");
}
END_TEST

START_TEST(no_more_statements_are_kept_than_the_options_say)
{
        struct lido_pg_options pg = LIDO_PG_OPTIONS_INIT;
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        char sql[64], number[16];

        lido_pool_free(pool);
        pg.conninfo = server_conninfo();
        pg.statement_cache = 3;
        options.max = 1;
        ck_assert_int_eq(lido_pg_pool_open(&pool, service, &pg, &options), LIDO_OK);
        for (int i = 0; i < 20; i++) {
                snprintf(sql, sizeof sql, "select %d", i % 7);
                snprintf(number, sizeof number, "%d", i % 7);
                ck_assert_str_eq(prepared_now(sql), number);
        }
        ck_assert_int_le(prepared_count(), 3);
}
END_TEST

START_TEST(nothing_is_prepared_where_the_reset_would_drop_it)
{
        struct lido_pg_options pg = LIDO_PG_OPTIONS_INIT;
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;

        lido_pool_free(pool);
        pg.conninfo = server_conninfo();
        pg.reset = LIDO_PG_RESET_FULL;
        options.max = 1;
        ck_assert_int_eq(lido_pg_pool_open(&pool, service, &pg, &options), LIDO_OK);
        for (int use = 0; use < 5; use++)
                ck_assert_str_eq(prepared_now("select count(*) from pg_prepared_statements"), "0");
}
END_TEST

/* Every Parse is in the server's log. */
START_TEST(a_statement_in_use_is_parsed_three_times_and_never_again)
{
        struct own_server server;
        struct lido_pg_options pg = LIDO_PG_OPTIONS_INIT;
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        lido_lease lease;

        lido_pool_free(pool);
        own_server_start(&server, "--set log_min_duration_statement=0");
        pg.conninfo = server.conninfo;
        options.max = 1;
        ck_assert_int_eq(lido_pg_pool_open(&pool, service, &pg, &options), LIDO_OK);
        for (int use = 0; use < 50; use++) {
                ck_assert_str_eq(VALUE_WITH("select $1 + 4711", lido_pg_int4(1)), "4712");
                ck_assert_int_eq(lido_acquire(pool, 20000, &lease), LIDO_OK); /* somebody else has it in between */
                admin_run(lido_pg_conn(lease), "begin; set local work_mem = '10MB'; select 1");
                ck_assert_int_eq(lido_release(lease), LIDO_OK);
        }
        ck_assert_uint_eq(own_server_log_count(&server, "ms  execute"), 50);
        ck_assert_uint_eq(own_server_log_count(&server, "ms  parse"), 3); /* twice without a name, then for good */
        ck_assert_uint_eq(own_server_log_count(&server, "DISCARD ALL"), 0);
        lido_pool_free(pool);
        own_server_remove(&server);
        pg.conninfo = server_conninfo();
        ck_assert_int_eq(lido_pg_pool_open(&pool, service, &pg, &options), LIDO_OK);
}
END_TEST

/* ---- without a deadline, where waiting is left to libpq -------------------------------------------------- */

START_TEST(without_a_deadline_rows_come_and_end_and_fail_alike)
{
        struct lido_pg_rows *rows;
        struct lido_pg_row row;
        long sum = 0;
        int rc, count = 0;

        ck_assert_int_eq(query("select generate_series(1, 100000)", NULL, 0, 0, &rows), LIDO_OK);
        while ((rc = lido_pg_next_row(rows, &row)) == 1)
                sum += strtol(PQgetvalue(row.result, row.index, 0), NULL, 10);
        ck_assert_int_eq(rc, 0);
        ck_assert_int_eq(sum, 100000L * 100001 / 2);
        ck_assert_uint_eq(lido_pg_affected(rows), 100000);
        ck_assert_int_eq(lido_pg_next_row(rows, &row), 0);
        lido_pg_rows_close(rows);
        ck_assert_int_eq(query("select 1 / (50 - generate_series(1, 100))", NULL, 0, 0, &rows), LIDO_OK);
        while ((rc = lido_pg_next_row(rows, &row)) == 1)
                count++;
        ck_assert_int_eq(rc, LIDO_EFACTORY);
        ck_assert_int_eq(count, 49);
        ck_assert_str_eq(error.sqlstate, "22012");
        lido_pg_rows_close(rows);
        ck_assert_int_eq(query("select repeat('x', 1000), generate_series(1, 100000000)", NULL, 0, 0, &rows), LIDO_OK);
        ck_assert_int_eq(lido_pg_next_row(rows, &row), 1);
        ck_assert_int_eq(lido_pg_next_row(rows, &row), 1);
        lido_pg_rows_close(rows);
        ck_assert_str_eq(VALUE_WITH("select $1", lido_pg_int4(7)), "7");
}
END_TEST

START_TEST(without_a_deadline_a_lost_connection_fails_the_rows_too)
{
        PGconn *admin = admin_connect(server_conninfo());
        struct lido_pg_rows *rows;
        struct lido_pg_row row;
        int rc, count = 0;

        ck_assert_int_eq(query("select pg_backend_pid(), repeat('x', 1000), generate_series(1, 10000000)", NULL, 0, 0, &rows), LIDO_OK);
        while ((rc = lido_pg_next_row(rows, &row)) == 1)
                if (++count == 100)
                        admin_run(admin, "select pg_terminate_backend(%s)", PQgetvalue(row.result, row.index, 0));
        ck_assert_int_eq(rc, LIDO_EFACTORY);
        ck_assert_int_ge(count, 100);
        lido_pg_rows_close(rows);
        ck_assert_str_eq(VALUE_WITH("select $1", lido_pg_int4(7)), "7");
        PQfinish(admin);
}
END_TEST

/* The hook of libpq that shows what a borrower does costs four allocations a result; rows here are seen as they are read. */
START_TEST(a_fat_row_is_seen_without_libpqs_hook)
{
        struct lido_pg_options pg = LIDO_PG_OPTIONS_INIT;
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        char pid[16];

        lido_pool_free(pool);
        pg.conninfo = server_conninfo();
        pg.fat_bytes = 100000;
        options.max = 1;
        ck_assert_int_eq(lido_pg_pool_open(&pool, service, &pg, &options), LIDO_OK);
        snprintf(pid, sizeof pid, "%s", value_of("select pg_backend_pid()", NULL, 0));
        ck_assert_str_eq(value_of("select length(repeat('x', 1000000))", NULL, 0), "1000000");
        ck_assert_str_eq(value_of("select pg_backend_pid()", NULL, 0), pid);
        for (int deadline_ms = 0; deadline_ms <= 20000; deadline_ms += 20000) {
                struct lido_pg_rows *rows;
                struct lido_pg_row row;

                snprintf(pid, sizeof pid, "%s", value_of("select pg_backend_pid()", NULL, 0));
                ck_assert_int_eq(query("select repeat('x', 1000) from generate_series(1, 1000) union all select repeat('x', 100001)",
                                       NULL, 0, deadline_ms, &rows), LIDO_OK);
                while (lido_pg_next_row(rows, &row) == 1)
                        continue;
                lido_pg_rows_close(rows);
                ck_assert_str_ne(value_of("select pg_backend_pid()", NULL, 0), pid);
        }
}
END_TEST

START_TEST(what_a_statement_changes_is_undone_without_libpqs_hook)
{
        struct lido_pg_rows *rows;

        ck_assert_int_eq(query("set work_mem = '77MB'", NULL, 0, 20000, &rows), LIDO_OK);
        lido_pg_rows_close(rows);
        ck_assert_str_ne(value_of("show work_mem", NULL, 0), "77MB");
        ck_assert_str_eq(value_of("select set_config('work_mem', '77MB', false)", NULL, 0), "77MB");
        ck_assert_str_ne(value_of("show work_mem", NULL, 0), "77MB");
}
END_TEST

/* ---- on a lease of the caller's -------------------------------------------------------------------------- */

static lido_lease borrow(void)
{
        lido_lease lease;

        ck_assert_int_eq(lido_acquire(pool, 20000, &lease), LIDO_OK);
        return lease;
}

static const char *value_on(lido_lease lease, const char *sql)
{
        static char value[64];
        struct lido_pg_query_options options = LIDO_PG_QUERY_OPTIONS_INIT;
        struct lido_pg_rows *rows;
        struct lido_pg_row row;

        options.error = &error;
        ck_assert_msg(lido_pg_query_on(lease, sql, NULL, 0, &options, &rows) == LIDO_OK, "%s", error.text);
        value[0] = '\0';
        if (lido_pg_next_row(rows, &row) == 1)
                snprintf(value, sizeof value, "%s", PQgetvalue(row.result, row.index, 0));
        lido_pg_rows_close(rows);
        return value;
}

START_TEST(statements_on_a_lease_follow_each_other_on_one_connection)
{
        lido_lease lease = borrow();
        int pid = PQbackendPID(lido_pg_conn(lease));
        char text[16];

        snprintf(text, sizeof text, "%d", pid);
        ck_assert_str_eq(value_on(lease, "select pg_backend_pid()"), text);
        ck_assert_str_eq(value_on(lease, "begin"), "");
        ck_assert_str_eq(value_on(lease, "create temp table t on commit drop as select 7 as v"), "");
        ck_assert_str_eq(value_on(lease, "select v from t"), "7");
        ck_assert_str_eq(value_on(lease, "commit"), "");
        ck_assert_int_eq(PQisnonblocking(lido_pg_conn(lease)), 0); /* as libpq's own functions want it */
        ck_assert_int_eq(admin_number(lido_pg_conn(lease), "select 42"), 42);
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        ck_assert_str_eq(VALUE_WITH("select pg_backend_pid() - $1", lido_pg_int4(pid)), "0");
}
END_TEST

START_TEST(rows_left_on_a_lease_are_read_off_and_the_transaction_goes_on)
{
        struct lido_pg_rows *rows, *others;
        struct lido_pg_row row;
        lido_lease lease = borrow();
        PGconn *admin = admin_connect(server_conninfo());

        value_on(lease, "begin");
        ck_assert_int_eq(lido_pg_query_on(lease, "select generate_series(1, 1000)", NULL, 0, NULL, &rows), LIDO_OK);
        ck_assert_int_eq(lido_pg_next_row(rows, &row), 1);
        ck_assert_int_eq(lido_pg_query_on(lease, "select 1", NULL, 0, NULL, &others), LIDO_EBUSY);
        ck_assert_int_eq(lido_pg_next_row(rows, &row), 1); /* nothing has happened to them */
        ck_assert_str_eq(PQgetvalue(row.result, row.index, 0), "2");
        admin_wait_for(admin, 1, "select count(*) from pg_stat_activity where pid = %d and state = 'idle in transaction'",
                       PQbackendPID(lido_pg_conn(lease))); /* all of it is on its way, so that it is not long in coming */
        PQfinish(admin);
        lido_pg_rows_close(rows);
        ck_assert_str_eq(value_on(lease, "select now() = transaction_timestamp()"), "t");
        ck_assert_int_eq(PQtransactionStatus(lido_pg_conn(lease)), PQTRANS_INTRANS);
        value_on(lease, "rollback");
        lido_release(lease);
}
END_TEST

START_TEST(a_flood_left_on_a_lease_is_cancelled_and_the_connection_kept)
{
        struct lido_pg_rows *rows;
        struct lido_pg_row row;
        lido_lease lease = borrow();
        int pid = PQbackendPID(lido_pg_conn(lease));

        ck_assert_int_eq(lido_pg_query_on(lease, "select repeat('x', 1000), generate_series(1, 100000000)", NULL, 0, NULL, &rows),
                         LIDO_OK);
        ck_assert_int_eq(lido_pg_next_row(rows, &row), 1);
        lido_pg_rows_close(rows);
        ck_assert_str_eq(value_on(lease, "select 7"), "7");
        lido_release(lease);
        ck_assert_str_eq(VALUE_WITH("select pg_backend_pid() - $1", lido_pg_int4(pid)), "0");
}
END_TEST

START_TEST(a_lease_that_has_ended_is_asked_nothing)
{
        struct lido_pg_rows *rows;
        lido_lease lease = borrow();

        lido_release(lease);
        ck_assert_int_eq(lido_pg_query_on(lease, "select 1", NULL, 0, NULL, &rows), LIDO_ESTALE);
}
END_TEST

START_TEST(an_error_on_a_lease_fails_its_transaction_as_anywhere)
{
        struct lido_pg_query_options options = LIDO_PG_QUERY_OPTIONS_INIT;
        struct lido_pg_rows *rows;
        lido_lease lease = borrow();

        options.error = &error;
        value_on(lease, "begin");
        ck_assert_int_eq(lido_pg_query_on(lease, "select 1/0", NULL, 0, &options, &rows), LIDO_EFACTORY);
        ck_assert_str_eq(error.sqlstate, "22012");
        ck_assert_int_eq(lido_pg_query_on(lease, "select 1", NULL, 0, &options, &rows), LIDO_EFACTORY);
        ck_assert_str_eq(error.sqlstate, "25P02");
        value_on(lease, "rollback");
        ck_assert_str_eq(value_on(lease, "select 7"), "7");
        lido_release(lease);
}
END_TEST

/* A prepared statement cannot be prepared anew in the middle of a transaction, which has failed by then. */
START_TEST(in_a_transaction_a_stale_statement_is_an_error_and_not_run_twice)
{
        struct lido_pg_query_options options = LIDO_PG_QUERY_OPTIONS_INIT;
        struct lido_pg_rows *rows;
        lido_lease lease;

        options.error = &error;
        options.prepare = LIDO_PG_PREPARE_AT_ONCE;
        ck_assert_str_eq(prepared_now("select 4711"), "4711");
        lease = borrow();
        value_on(lease, "do $$ begin execute 'deallocate all'; end $$");
        value_on(lease, "begin");
        ck_assert_int_eq(lido_pg_query_on(lease, "select 4711", NULL, 0, &options, &rows), LIDO_EFACTORY);
        ck_assert_str_eq(error.sqlstate, "26000");
        value_on(lease, "rollback");
        ck_assert_int_eq(lido_pg_query_on(lease, "select 4711", NULL, 0, &options, &rows), LIDO_OK);
        lido_pg_rows_close(rows);
        lido_release(lease);
}
END_TEST

/* ---- the server is told of the deadline ------------------------------------------------------------------ */

static int query_with_server_timeout(const char *sql, int64_t timeout_ms, struct lido_pg_rows **ret_rows)
{
        struct lido_pg_query_options options = LIDO_PG_QUERY_OPTIONS_INIT;

        memset(&error, 0, sizeof error);
        options.error = &error;
        options.timeout_ms = timeout_ms;
        options.server_timeout = 1;
        return lido_pg_query(pool, sql, NULL, 0, &options, ret_rows);
}

START_TEST(the_server_is_told_of_the_deadline_and_the_next_borrower_is_not)
{
        struct lido_pg_rows *rows;
        struct lido_pg_row row;
        char pid[16];

        snprintf(pid, sizeof pid, "%s", value_of("select pg_backend_pid()", NULL, 0));
        ck_assert_int_eq(query_with_server_timeout("select pg_backend_pid(), setting::int from pg_settings "
                                                   "where name = 'statement_timeout'", 60000, &rows), LIDO_OK);
        ck_assert_int_eq(lido_pg_next_row(rows, &row), 1);
        ck_assert_str_eq(PQgetvalue(row.result, row.index, 0), pid);
        ck_assert_int_gt(strtol(PQgetvalue(row.result, row.index, 1), NULL, 10), 0);
        ck_assert_int_le(strtol(PQgetvalue(row.result, row.index, 1), NULL, 10), 60000);
        ck_assert_int_eq(lido_pg_next_row(rows, &row), 0);
        lido_pg_rows_close(rows);
        ck_assert_str_eq(value_of("show statement_timeout", NULL, 0), "0");
        ck_assert_str_eq(value_of("select pg_backend_pid()", NULL, 0), pid);
        ck_assert_int_eq(query_with_server_timeout("select 1/0", 60000, &rows), LIDO_EFACTORY);
        ck_assert_str_eq(error.sqlstate, "22012");
        ck_assert_str_eq(value_of("show statement_timeout", NULL, 0), "0");
        ck_assert_str_eq(value_of("select pg_backend_pid()", NULL, 0), pid);
}
END_TEST

START_TEST(rows_stream_and_may_be_left_also_when_the_server_knows_the_deadline)
{
        struct lido_pg_rows *rows;
        struct lido_pg_row row;
        char pid[16];
        int count = 0;

        snprintf(pid, sizeof pid, "%s", value_of("select pg_backend_pid()", NULL, 0));
        ck_assert_int_eq(query_with_server_timeout("select generate_series(1, 5000)", 60000, &rows), LIDO_OK);
        while (lido_pg_next_row(rows, &row) == 1) {
                ck_assert_int_eq(PQresultStatus(row.result), PGRES_SINGLE_TUPLE);
                ck_assert_int_eq(strtol(PQgetvalue(row.result, row.index, 0), NULL, 10), ++count);
        }
        ck_assert_int_eq(count, 5000);
        lido_pg_rows_close(rows);
        ck_assert_int_eq(query_with_server_timeout("select generate_series(1, 20000)", 60000, &rows), LIDO_OK);
        ck_assert_int_eq(lido_pg_next_row(rows, &row), 1);
        lido_pg_rows_close(rows); /* the pipeline is read off by the pool */
        ck_assert_str_eq(value_of("select pg_backend_pid()", NULL, 0), pid);
        ck_assert_str_eq(value_of("show statement_timeout", NULL, 0), "0");
}
END_TEST

START_TEST(the_server_ends_the_statement_at_the_deadline_without_a_cancel_request)
{
        struct own_server server;
        struct lido_pg_options pg = LIDO_PG_OPTIONS_INIT;
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        struct lido_pg_rows *rows;
        PGconn *admin;

        lido_pool_free(pool);
        own_server_start(&server, "");
        pg.conninfo = server.conninfo;
        options.max = 1;
        options.reset_timeout_ms = 60000;
        ck_assert_int_eq(lido_pg_pool_open(&pool, service, &pg, &options), LIDO_OK);
        admin = admin_connect(server.conninfo);
        ck_assert_int_eq(query_with_server_timeout("select pg_sleep(600)", 300, &rows), LIDO_EDEADLINE);
        admin_wait_for(admin, 0, "select count(*) from pg_stat_activity where state = 'active' and query like '%%sleep(600)%%' and "
                                 "pid <> pg_backend_pid()");
        ck_assert_str_eq(value_of("show statement_timeout", NULL, 0), "0");
        ck_eventually(own_server_log_count(&server, "due to statement timeout") == 1);
        ck_assert_uint_eq(own_server_log_count(&server, "due to user request"), 0);
        PQfinish(admin);
        lido_pool_free(pool);
        own_server_remove(&server);
        pg.conninfo = server_conninfo(); /* for the end of the test */
        ck_assert_int_eq(lido_pg_pool_open(&pool, service, &pg, &options), LIDO_OK);
}
END_TEST

int main(void)
{
        return suite_run_with("pg/query",
                              (const TTest *[]){
                                      rows_come_one_by_one_and_end,
                                      a_query_without_rows_ends_at_once,
                                      parameters_arrive_with_their_types_and_values,
                                      a_hundred_parameters_are_no_matter,
                                      a_change_tells_how_many_rows_it_affected,
                                      a_statement_that_fails_says_its_sqlstate_at_once,
                                      a_failure_in_the_middle_comes_after_the_rows_before_it,
                                      the_connection_is_free_once_the_last_row_is_read,
                                      a_million_rows_need_no_more_memory_than_a_few,
                                      stopping_early_does_not_read_gigabytes,
                                      a_deadline_ends_a_statement_that_takes_too_long,
                                      a_deadline_ends_rows_that_do_not_stop_coming,
                                      large_rows_come_between_small_ones,
                                      a_lost_connection_fails_the_statement,
                                      copy_is_refused,
                                      another_kind_of_pool_is_refused,
                                      arguments_that_make_no_sense_are_refused,
                                      a_statement_is_prepared_at_its_third_use,
                                      the_same_text_with_other_types_is_another_statement,
                                      a_table_that_has_changed_its_shape_is_no_error,
                                      a_borrower_who_drops_all_statements_causes_no_error,
                                      a_statement_that_cannot_be_prepared_says_its_sqlstate,
                                      no_more_statements_are_kept_than_the_options_say,
                                      nothing_is_prepared_where_the_reset_would_drop_it,
                                      a_statement_in_use_is_parsed_three_times_and_never_again,
                                      without_a_deadline_rows_come_and_end_and_fail_alike,
                                      without_a_deadline_a_lost_connection_fails_the_rows_too,
                                      a_fat_row_is_seen_without_libpqs_hook,
                                      what_a_statement_changes_is_undone_without_libpqs_hook,
                                      statements_on_a_lease_follow_each_other_on_one_connection,
                                      rows_left_on_a_lease_are_read_off_and_the_transaction_goes_on,
                                      a_flood_left_on_a_lease_is_cancelled_and_the_connection_kept,
                                      a_lease_that_has_ended_is_asked_nothing,
                                      an_error_on_a_lease_fails_its_transaction_as_anywhere,
                                      in_a_transaction_a_stale_statement_is_an_error_and_not_run_twice,
                                      the_server_is_told_of_the_deadline_and_the_next_borrower_is_not,
                                      rows_stream_and_may_be_left_also_when_the_server_knows_the_deadline,
                                      the_server_ends_the_statement_at_the_deadline_without_a_cancel_request,
                                      NULL,
                              },
                              set_up, tear_down);
}
