/* COPY on a lease: rows in and out, a writer that is held back, and what is left when it stops early or fails. */
#include "lido/pg.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "lido/service.h"
#include "support/patience.h"
#include "support/pgfixture.h"
#include "support/suite.h"

static struct lido_service *service;
static struct lido_pool *pool;
static struct lido_pg_query_options options;
static struct lido_error error;
static lido_lease lease;
static PGconn *admin;
static int pid;

static void open_pool(const char *conninfo)
{
        struct lido_pg_options pg = LIDO_PG_OPTIONS_INIT;
        struct lido_pool_options pool_options = LIDO_POOL_OPTIONS_INIT;

        pg.conninfo = conninfo;
        pool_options.max = 1;
        ck_assert_int_eq(lido_pg_pool_open(&pool, service, &pg, &pool_options), LIDO_OK);
        ck_assert_int_eq(lido_acquire(pool, 20000, &lease), LIDO_OK);
        pid = PQbackendPID(lido_pg_conn(lease));
}

static void set_up(void)
{
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
        open_pool(server_conninfo());
        admin = admin_connect(server_conninfo());
        admin_run(admin, "set client_min_messages to error; drop table if exists item; create table item (id int, name text)");
        options = (struct lido_pg_query_options)LIDO_PG_QUERY_OPTIONS_INIT;
        options.timeout_ms = 60000;
        options.error = &error;
}

static void tear_down(void)
{
        admin_run(admin, "drop table item");
        PQfinish(admin);
        lido_pool_free(pool);
        ck_assert_int_eq(lido_service_stop(service, 20000), LIDO_OK);
}

static long items(void)
{
        return admin_number(admin, "select count(*) from item");
}

static struct lido_pg_copy *writer(void)
{
        struct lido_pg_copy *copy;
        int rc = lido_pg_copy_in(lease, "copy item from stdin", &options, &copy);

        ck_assert_msg(rc == LIDO_OK, "%s: %s", lido_err_name(rc), error.text);
        return copy;
}

static struct lido_pg_copy *reader(const char *sql)
{
        struct lido_pg_copy *copy;
        int rc = lido_pg_copy_out(lease, sql, &options, &copy);

        ck_assert_msg(rc == LIDO_OK, "%s: %s", lido_err_name(rc), error.text);
        return copy;
}

static void write_row(struct lido_pg_copy *copy, int id)
{
        char line[32];
        int length = snprintf(line, sizeof line, "%d\titem %d\n", id, id);

        ck_assert_int_eq(lido_pg_copy_write(copy, line, (size_t)length), LIDO_OK);
}

/* The lease works on, and so does the pool afterwards, with the same backend. */
static void assert_kept(void)
{
        ck_assert_int_eq(admin_number(lido_pg_conn(lease), "select 4242"), 4242);
        ck_assert_int_eq(PQisnonblocking(lido_pg_conn(lease)), 0);
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        ck_assert_int_eq(lido_acquire(pool, 20000, &lease), LIDO_OK);
        ck_assert_int_eq(PQbackendPID(lido_pg_conn(lease)), pid);
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
}

/* The next borrower gets another one. */
static void assert_replaced(void)
{
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        ck_assert_int_eq(lido_acquire(pool, 20000, &lease), LIDO_OK);
        ck_assert_int_ne(PQbackendPID(lido_pg_conn(lease)), pid);
        ck_assert_int_eq(admin_number(lido_pg_conn(lease), "select 4242"), 4242);
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
}

START_TEST(rows_that_are_written_arrive_and_are_counted)
{
        struct lido_pg_copy *copy = writer();
        uint64_t rows = 0;

        for (int i = 0; i < 1000; i++)
                write_row(copy, i);
        ck_assert_int_eq(items(), 0);
        ck_assert_int_eq(lido_pg_copy_end(copy, &rows), LIDO_OK);
        ck_assert_uint_eq(rows, 1000);
        ck_assert_int_eq(lido_pg_copy_write(copy, "x", 1), LIDO_EINVAL); /* it has ended */
        lido_pg_copy_close(copy);
        ck_assert_int_eq(items(), 1000);
        ck_assert_int_eq(admin_number(admin, "select count(*) from item where name = 'item ' || id"), 1000);
        assert_kept();
}
END_TEST

START_TEST(a_row_may_be_written_in_pieces_and_many_rows_at_once)
{
        static char many[300000];
        struct lido_pg_copy *copy = writer();
        uint64_t rows = 0;
        size_t used = 0;

        for (int i = 0; i < 10000; i++)
                used += (size_t)snprintf(many + used, sizeof many - used, "%d\tsome name or other\n", i);
        for (size_t at = 0; at < 1000; at++)
                ck_assert_int_eq(lido_pg_copy_write(copy, many + at, 1), LIDO_OK);
        ck_assert_int_eq(lido_pg_copy_write(copy, many + 1000, used - 1000), LIDO_OK);
        ck_assert_int_eq(lido_pg_copy_end(copy, &rows), LIDO_OK);
        ck_assert_uint_eq(rows, 10000);
        lido_pg_copy_close(copy);
        assert_kept();
}
END_TEST

START_TEST(what_is_read_is_what_there_is)
{
        struct lido_pg_copy *copy = reader("copy (select i, 'name ' || i from generate_series(1, 5000) i) to stdout");
        const char *line;
        char expected[64];
        size_t length;

        for (int i = 1; i <= 5000; i++) {
                ck_assert_int_eq(lido_pg_copy_read(copy, &line, &length), 1);
                snprintf(expected, sizeof expected, "%d\tname %d\n", i, i);
                ck_assert_uint_eq(length, strlen(expected));
                ck_assert_int_eq(memcmp(line, expected, length), 0);
        }
        ck_assert_int_eq(lido_pg_copy_read(copy, &line, &length), 0);
        ck_assert_int_eq(lido_pg_copy_read(copy, &line, &length), 0);
        lido_pg_copy_close(copy);
        assert_kept();
}
END_TEST

extern size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

static long memory_kib(void)
{
        struct rusage usage;

        if (__sanitizer_get_current_allocated_bytes)
                return (long)(__sanitizer_get_current_allocated_bytes() / 1024);
        getrusage(RUSAGE_SELF, &usage);
        return usage.ru_maxrss;
}

START_TEST(a_server_that_does_not_read_holds_the_writer_back)
{
        static char block[100000];
        struct lido_pg_copy *copy;
        size_t written = 0;
        long before;
        int rc;

        options.timeout_ms = 1000;
        copy = writer();
        memset(block, '7', sizeof block);
        block[sizeof block - 1] = '\n';
        before = memory_kib();
        ck_assert_int_eq(kill(pid, SIGSTOP), 0);
        while ((rc = lido_pg_copy_write(copy, block, sizeof block)) == LIDO_OK)
                written += sizeof block;
        ck_assert_int_eq(rc, LIDO_EDEADLINE);
        ck_assert_uint_lt(written, 64u << 20); /* what the kernel keeps */
        ck_assert_int_lt(memory_kib() - before, 4096);
        ck_assert_int_eq(lido_pg_copy_write(copy, block, sizeof block), LIDO_EDEADLINE);
        lido_pg_copy_close(copy);
        ck_assert_int_eq(kill(pid, SIGCONT), 0);
        assert_replaced();
        ck_assert_int_eq(items(), 0);
}
END_TEST

START_TEST(a_reader_that_does_not_read_holds_the_server_back)
{
        struct lido_pg_copy *copy = reader("copy (select repeat('x', 1000), generate_series(1, 300000)) to stdout");
        const char *line;
        size_t length;
        long before, most = 0;
        int count = 0;

        before = memory_kib();
        while (lido_pg_copy_read(copy, &line, &length) == 1)
                if (++count % 1000 == 0 && memory_kib() > most)
                        most = memory_kib();
        ck_assert_int_eq(count, 300000);
        ck_assert_int_lt(most - before, 4096); /* of 300 MB */
        lido_pg_copy_close(copy);
        assert_kept();
}
END_TEST

START_TEST(a_writer_that_gives_up_leaves_nothing_behind)
{
        struct lido_pg_copy *copy = writer();

        for (int i = 0; i < 1000; i++)
                write_row(copy, i);
        lido_pg_copy_close(copy);
        ck_assert_int_eq(items(), 0);
        assert_kept();
}
END_TEST

START_TEST(a_reader_that_stops_early_gets_its_connection_back)
{
        struct lido_pg_copy *copy = reader("copy (select generate_series(1, 1000)) to stdout");
        const char *line;
        size_t length;

        ck_assert_int_eq(lido_pg_copy_read(copy, &line, &length), 1);
        lido_pg_copy_close(copy); /* the rest is short, and read off */
        ck_assert_int_eq(admin_number(lido_pg_conn(lease), "select 4242"), 4242);
        copy = reader("copy (select repeat('x', 1000), generate_series(1, 100000000)) to stdout");
        ck_assert_int_eq(lido_pg_copy_read(copy, &line, &length), 1);
        lido_pg_copy_close(copy); /* this one is cancelled */
        assert_kept();
}
END_TEST

START_TEST(a_row_that_is_refused_is_told_at_the_end)
{
        struct lido_pg_copy *copy = writer();
        uint64_t rows = 4711;

        write_row(copy, 1);
        ck_assert_int_eq(lido_pg_copy_write(copy, "one\ttwo\n", 8), LIDO_OK);
        for (int i = 0; i < 1000; i++)
                write_row(copy, i);
        ck_assert_int_eq(lido_pg_copy_end(copy, &rows), LIDO_EFACTORY);
        ck_assert_str_eq(error.sqlstate, "22P02");
        ck_assert_uint_eq(rows, 4711);
        lido_pg_copy_close(copy);
        ck_assert_int_eq(items(), 0);
        assert_kept();
}
END_TEST

START_TEST(a_query_that_fails_in_the_middle_fails_the_reader)
{
        struct lido_pg_copy *copy = reader("copy (select 1 / (500 - i) from generate_series(1, 1000) i) to stdout");
        const char *line;
        size_t length;
        int rc, count = 0;

        while ((rc = lido_pg_copy_read(copy, &line, &length)) == 1)
                count++;
        ck_assert_int_eq(rc, LIDO_EFACTORY);
        ck_assert_str_eq(error.sqlstate, "22012");
        ck_assert_int_eq(count, 499);
        ck_assert_int_eq(lido_pg_copy_read(copy, &line, &length), LIDO_EFACTORY);
        lido_pg_copy_close(copy);
        assert_kept();
}
END_TEST

START_TEST(what_is_no_such_copy_is_refused_and_the_connection_kept)
{
        struct lido_pg_copy *copy;

        ck_assert_int_eq(lido_pg_copy_in(lease, "select 1", &options, &copy), LIDO_EINVAL);
        ck_assert_int_eq(lido_pg_copy_in(lease, "copy item to stdout", &options, &copy), LIDO_EINVAL);
        ck_assert_int_eq(lido_pg_copy_out(lease, "copy item from stdin", &options, &copy), LIDO_EINVAL);
        ck_assert_int_eq(lido_pg_copy_out(lease, "copy nothing to stdout", &options, &copy), LIDO_EFACTORY);
        ck_assert_str_eq(error.sqlstate, "42P01");
        options.server_timeout = 1;
        ck_assert_int_eq(lido_pg_copy_out(lease, "copy item to stdout", &options, &copy), LIDO_ENOTSUP);
        assert_kept();
        ck_assert_int_eq(lido_pg_copy_out(lease, "copy item to stdout", NULL, &copy), LIDO_ESTALE);
}
END_TEST

START_TEST(a_connection_lost_on_the_way_in_fails_the_writer_with_the_servers_words)
{
        struct lido_pg_copy *copy = writer();
        int rc = LIDO_OK;

        write_row(copy, 1);
        admin_run(admin, "select pg_terminate_backend(%d)", pid);
        admin_wait_for(admin, 0, "select count(*) from pg_stat_activity where pid = %d", pid);
        for (int i = 0; i < 1000 && rc == LIDO_OK; i++)
                rc = lido_pg_copy_write(copy, "1\tone\n", 6);
        if (rc == LIDO_OK)
                rc = lido_pg_copy_end(copy, NULL);
        ck_assert_int_eq(rc, LIDO_EFACTORY);
        ck_assert_msg(strcmp(error.sqlstate, "57P01") == 0, "%s: %s", error.sqlstate, error.text);
        lido_pg_copy_close(copy);
        assert_replaced();
        ck_assert_int_eq(items(), 0);
}
END_TEST

START_TEST(a_reader_past_its_deadline_is_told_and_the_server_stops)
{
        struct lido_pg_copy *copy;
        const char *line;
        size_t length;
        int rc;

        options.timeout_ms = 500;
        ck_assert_int_eq(lido_pg_copy_out(lease, "copy (select pg_sleep(600)) to stdout", &options, &copy), LIDO_EDEADLINE);
        copy = reader("copy (select case when i < 1000 then repeat('x', 100) else pg_sleep(600)::text end "
                      "from generate_series(1, 1000) i) to stdout");
        while ((rc = lido_pg_copy_read(copy, &line, &length)) == 1)
                continue;
        ck_assert_msg(rc == LIDO_EDEADLINE, "%s: %s", lido_err_name(rc), error.text);
        lido_pg_copy_close(copy);
        assert_kept();
}
END_TEST

START_TEST(it_takes_part_in_a_transaction)
{
        struct lido_pg_copy *copy;

        ck_assert_int_eq(lido_pg_begin(lease, NULL), LIDO_OK);
        copy = writer();
        write_row(copy, 1);
        ck_assert_int_eq(lido_pg_copy_end(copy, NULL), LIDO_OK);
        lido_pg_copy_close(copy);
        ck_assert_int_eq(lido_pg_rollback(lease, 20000, &error), LIDO_OK);
        ck_assert_int_eq(items(), 0);
        ck_assert_int_eq(lido_pg_begin(lease, NULL), LIDO_OK);
        copy = writer();
        write_row(copy, 1);
        ck_assert_int_eq(lido_pg_copy_end(copy, NULL), LIDO_OK);
        lido_pg_copy_close(copy);
        ck_assert_int_eq(lido_pg_commit(lease, 20000, &error), LIDO_OK);
        ck_assert_int_eq(items(), 1);
        assert_kept();
}
END_TEST

START_TEST(a_copy_whose_lease_has_ended_touches_nothing)
{
        struct lido_pg_copy *copy = writer();

        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        ck_assert_int_eq(lido_pg_copy_write(copy, "x", 1), LIDO_ESTALE);
        ck_assert_int_eq(lido_acquire(pool, 20000, &lease), LIDO_OK);
        lido_pg_copy_close(copy);
        ck_assert_int_eq(admin_number(lido_pg_conn(lease), "select 4242"), 4242);
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
}
END_TEST

START_TEST(whoever_queries_on_the_lease_of_a_copy_is_refused_and_disturbs_nothing)
{
        struct lido_pg_copy *copy = writer();
        struct lido_pg_rows *rows;

        /* given */ write_row(copy, 1);
        /* when  */ ck_assert_int_eq(lido_pg_query_on(lease, "select 1", NULL, 0, &options, &rows), LIDO_EBUSY);
        /* then  */ ck_assert_int_eq(PQisnonblocking(lido_pg_conn(lease)), 1);
        write_row(copy, 2);
        ck_assert_int_eq(lido_pg_copy_end(copy, NULL), LIDO_OK);
        lido_pg_copy_close(copy);
        ck_assert_int_eq(items(), 2);
        assert_kept();
}
END_TEST

/* Rows of every size around that of TLS records and libpq's buffers. */
START_TEST(large_rows_pass_over_tls_and_scram_in_both_directions)
{
        static char row[200002];
        struct own_server server;
        struct lido_pg_copy *copy;
        const char *line;
        size_t length;

        lido_release(lease);
        lido_pool_free(pool);
        own_server_start(&server, "--tls --scram");
        open_pool(server.tcp_conninfo);
        memset(row, 'x', sizeof row);
        admin_run(lido_pg_conn(lease), "create table item (name text)");
        copy = writer();
        for (size_t size = 1; size <= 200000; size += 3777) {
                row[size] = '\n';
                ck_assert_int_eq(lido_pg_copy_write(copy, row, size + 1), LIDO_OK);
                row[size] = 'x';
        }
        ck_assert_int_eq(lido_pg_copy_end(copy, NULL), LIDO_OK);
        lido_pg_copy_close(copy);
        copy = reader("copy (select name from item order by length(name)) to stdout");
        for (size_t size = 1; size <= 200000; size += 3777) {
                ck_assert_int_eq(lido_pg_copy_read(copy, &line, &length), 1);
                ck_assert_uint_eq(length, size + 1);
        }
        ck_assert_int_eq(lido_pg_copy_read(copy, &line, &length), 0);
        lido_pg_copy_close(copy);
        assert_kept();
        lido_pool_free(pool);
        own_server_remove(&server);
        open_pool(server_conninfo());
        lido_release(lease);
}
END_TEST

int main(void)
{
        return suite_run_with("pg/copy",
                              (const TTest *[]){
                                      rows_that_are_written_arrive_and_are_counted,
                                      a_row_may_be_written_in_pieces_and_many_rows_at_once,
                                      what_is_read_is_what_there_is,
                                      a_server_that_does_not_read_holds_the_writer_back,
                                      a_reader_that_does_not_read_holds_the_server_back,
                                      a_writer_that_gives_up_leaves_nothing_behind,
                                      a_reader_that_stops_early_gets_its_connection_back,
                                      a_row_that_is_refused_is_told_at_the_end,
                                      a_query_that_fails_in_the_middle_fails_the_reader,
                                      what_is_no_such_copy_is_refused_and_the_connection_kept,
                                      a_connection_lost_on_the_way_in_fails_the_writer_with_the_servers_words,
                                      a_reader_past_its_deadline_is_told_and_the_server_stops,
                                      it_takes_part_in_a_transaction,
                                      a_copy_whose_lease_has_ended_touches_nothing,
                                      whoever_queries_on_the_lease_of_a_copy_is_refused_and_disturbs_nothing,
                                      large_rows_pass_over_tls_and_scram_in_both_directions,
                                      NULL,
                              },
                              set_up, tear_down);
}
