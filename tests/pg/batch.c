/* One statement with many sets of parameters: each with its own answer, whatever happens to the others. */
#include "lido/pg.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lido/service.h"
#include "support/patience.h"
#include "support/pgfixture.h"
#include "support/suite.h"

#define MANY 5000

static struct lido_service *service;
static struct lido_pool *pool;
static struct lido_pg_batch_options options;
static struct lido_error error;
static lido_lease lease;
static PGconn *admin;
static int pid;
static struct lido_pg_param params[MANY][2];
static struct lido_pg_item items[MANY];

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
        admin_run(admin, "set client_min_messages to error; drop table if exists item; "
                         "create table item (id int primary key deferrable initially deferred, n int8 check (n >= 0))");
        options = (struct lido_pg_batch_options)LIDO_PG_BATCH_OPTIONS_INIT;
        options.timeout_ms = 60000;
        options.error = &error;
        for (int i = 0; i < MANY; i++) {
                params[i][0] = lido_pg_int4(i);
                params[i][1] = lido_pg_int8(i * INT64_C(1000000000));
                items[i] = (struct lido_pg_item){ params[i], NULL, 4711 };
        }
}

static void tear_down(void)
{
        lido_pg_items_clear(items, MANY);
        admin_run(admin, "drop table item");
        PQfinish(admin);
        lido_release(lease);
        lido_pool_free(pool);
        ck_assert_int_eq(lido_service_stop(service, 20000), LIDO_OK);
}

static int insert(uint32_t count)
{
        memset(&error, 0, sizeof error);
        lido_pg_items_clear(items, MANY);
        return lido_pg_batch(lease, "insert into item values ($1, $2) returning id", 2, items, count, &options);
}

static long rows(void)
{
        return admin_number(admin, "select count(*) from item");
}

static void assert_kept(void)
{
        ck_assert_int_eq(admin_number(lido_pg_conn(lease), "select 4242"), 4242);
        ck_assert_int_eq(PQpipelineStatus(lido_pg_conn(lease)), PQ_PIPELINE_OFF);
        ck_assert_int_eq(PQisnonblocking(lido_pg_conn(lease)), 0);
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        ck_assert_int_eq(lido_acquire(pool, 20000, &lease), LIDO_OK);
        ck_assert_int_eq(PQbackendPID(lido_pg_conn(lease)), pid);
}

static void assert_replaced(void)
{
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        ck_assert_int_eq(lido_acquire(pool, 20000, &lease), LIDO_OK);
        ck_assert_int_ne(PQbackendPID(lido_pg_conn(lease)), pid);
        ck_assert_int_eq(admin_number(lido_pg_conn(lease), "select 4242"), 4242);
}

START_TEST(each_item_gets_its_own_answer)
{
        ck_assert_msg(insert(MANY) == LIDO_OK, "%s", error.text);
        for (int i = 0; i < MANY; i++) {
                ck_assert_int_eq(items[i].status, LIDO_OK);
                ck_assert_int_eq(PQntuples(items[i].result), 1);
                ck_assert_int_eq(strtol(PQgetvalue(items[i].result, 0, 0), NULL, 10), i);
        }
        ck_assert_int_eq(rows(), MANY);
        ck_assert_int_eq(admin_number(admin, "select count(*) from item where n = id * 1000000000::int8"), MANY);
        assert_kept();
}
END_TEST

START_TEST(an_item_that_fails_fails_alone)
{
        params[3][1] = lido_pg_int8(-1);
        params[700][1] = lido_pg_int8(-1);
        ck_assert_int_eq(insert(1000), LIDO_EFACTORY);
        ck_assert_str_eq(error.sqlstate, "23514");
        for (int i = 0; i < 1000; i++)
                ck_assert_int_eq(items[i].status, i == 3 || i == 700 ? LIDO_EFACTORY : LIDO_OK);
        ck_assert_str_eq(PQresultErrorField(items[700].result, PG_DIAG_SQLSTATE), "23514");
        ck_assert_int_eq(rows(), 998);
        assert_kept();
}
END_TEST

START_TEST(an_item_that_cannot_be_committed_fails_alone_too)
{
        params[5][0] = lido_pg_int4(4); /* twice, which is found at the commit */
        ck_assert_int_eq(insert(10), LIDO_EFACTORY);
        ck_assert_str_eq(error.sqlstate, "23505");
        for (int i = 0; i < 10; i++)
                ck_assert_int_eq(items[i].status, i == 5 ? LIDO_EFACTORY : LIDO_OK);
        ck_assert_int_eq(rows(), 9);
        assert_kept();
}
END_TEST

START_TEST(all_or_nothing_is_one_transaction)
{
        options.atomic = 1;
        ck_assert_int_eq(insert(1000), LIDO_OK);
        ck_assert_int_eq(rows(), 1000);
        ck_assert_int_eq(admin_number(admin, "select count(distinct xmin::text) from item"), 1);
        assert_kept();
}
END_TEST

START_TEST(of_all_or_nothing_one_that_fails_leaves_nothing)
{
        options.atomic = 1;
        params[500][1] = lido_pg_int8(-1);
        ck_assert_int_eq(insert(1000), LIDO_EFACTORY);
        ck_assert_str_eq(error.sqlstate, "23514");
        for (int i = 0; i < 1000; i++)
                ck_assert_int_eq(items[i].status, i == 500 ? LIDO_EFACTORY : LIDO_ECANCELED);
        ck_assert_int_eq(rows(), 0);
        lido_pg_items_clear(items, 1000);
        params[500][1] = lido_pg_int8(1);
        params[999][0] = lido_pg_int4(4); /* found at the commit */
        ck_assert_int_eq(insert(1000), LIDO_EFACTORY);
        ck_assert_str_eq(error.sqlstate, "23505");
        for (int i = 0; i < 1000; i++)
                ck_assert_int_ne(items[i].status, LIDO_OK);
        ck_assert_int_eq(rows(), 0);
        assert_kept();
}
END_TEST

START_TEST(in_a_transaction_they_are_committed_with_it)
{
        ck_assert_int_eq(lido_pg_begin(lease, NULL), LIDO_OK);
        ck_assert_int_eq(insert(100), LIDO_OK);
        ck_assert_int_eq(rows(), 0);
        ck_assert_int_eq(lido_pg_commit(lease, 20000, &error), LIDO_OK);
        ck_assert_int_eq(rows(), 100);
        assert_kept();
}
END_TEST

START_TEST(a_statement_that_cannot_be_prepared_fails_every_item)
{
        ck_assert_int_eq(lido_pg_batch(lease, "insert into nowhere values ($1, $2)", 2, items, 10, &options), LIDO_EFACTORY);
        ck_assert_str_eq(error.sqlstate, "42P01");
        for (int i = 0; i < 10; i++)
                ck_assert_int_eq(items[i].status, LIDO_EFACTORY);
        assert_kept();
}
END_TEST

/* Each way more than socket buffers hold, so that whoever only writes waits for ever. */
START_TEST(much_in_both_directions_does_not_lock_up)
{
        static char text[20001];
        struct lido_pg_param large[1];

        memset(text, 'x', sizeof text - 1);
        large[0] = lido_pg_text(text);
        for (int i = 0; i < 1000; i++)
                items[i].params = large;
        ck_assert_int_eq(lido_pg_batch(lease, "select $1::text || $1", 1, items, 1000, &options), LIDO_OK);
        for (int i = 0; i < 1000; i++)
                ck_assert_int_eq(PQgetlength(items[i].result, 0, 0), 40000);
        assert_kept();
}
END_TEST

START_TEST(rows_of_a_statement_before_do_not_change_how_answers_come)
{
        struct lido_pg_rows *others;
        struct lido_pg_row row;

        ck_assert_int_eq(lido_pg_query_on(lease, "select generate_series(1, 3)", NULL, 0, NULL, &others), LIDO_OK);
        while (lido_pg_next_row(others, &row) == 1)
                continue;
        lido_pg_rows_close(others);
        ck_assert_int_eq(lido_pg_batch(lease, "select generate_series(1, $1), $2", 2, items, 10, &options), LIDO_OK);
        for (int i = 0; i < 10; i++) {
                ck_assert_int_eq(PQresultStatus(items[i].result), PGRES_TUPLES_OK);
                ck_assert_int_eq(PQntuples(items[i].result), i);
        }
        assert_kept();
}
END_TEST

/* The Sync of those behind never comes. */
START_TEST(a_server_that_dies_answers_each_item_once_and_nobody_waits)
{
        items[0].params = items[1].params = params[1];
        for (int i = 0; i < MANY; i++)
                params[i][1] = lido_pg_int8(0);
        ck_assert_int_eq(lido_pg_batch(lease, "select case when $1 = 100 then pg_terminate_backend(pg_backend_pid()) end, pg_sleep(0), $2",
                                       2, items, MANY, &options), LIDO_EFACTORY);
        ck_assert_str_eq(error.sqlstate, "57P01");
        for (int i = 0; i < 100; i++)
                ck_assert_int_eq(items[i].status, LIDO_OK);
        ck_assert(items[100].status == LIDO_EFACTORY || items[100].status == LIDO_EUNKNOWN);
        for (int i = 101; i < MANY; i++)
                ck_assert_int_ne(items[i].status, LIDO_OK);
        ck_assert_int_eq(items[200].status, LIDO_EUNKNOWN); /* it was under way */
        ck_assert_int_eq(items[MANY - 1].status, LIDO_ECANCELED); /* it was never sent */
        assert_replaced();
}
END_TEST

START_TEST(a_batch_past_its_deadline_is_told_and_the_next_borrower_sees_nothing_of_it)
{
        options.timeout_ms = 500;
        ck_assert_int_eq(lido_pg_batch(lease, "select pg_sleep(case when $1 = 10 then 600 else 0 end), $2", 2, items, 1000, &options),
                         LIDO_EDEADLINE);
        ck_assert_int_eq(items[9].status, LIDO_OK);
        ck_assert_int_eq(items[10].status, LIDO_EUNKNOWN);
        ck_assert_int_eq(items[999].status, LIDO_ECANCELED);
        lido_pg_items_clear(items, MANY);
        ck_assert_int_eq(insert(10), LIDO_EBUSY);
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        ck_assert_int_eq(lido_acquire(pool, 20000, &lease), LIDO_OK);
        ck_assert_int_eq(admin_number(lido_pg_conn(lease), "select 4242"), 4242);
        ck_assert_int_eq(insert(10), LIDO_OK);
}
END_TEST

START_TEST(arguments_that_make_no_sense_are_refused)
{
        struct lido_pg_rows *others;

        ck_assert_int_eq(insert(0), LIDO_OK);
        ck_assert_int_eq(lido_pg_batch(lease, NULL, 2, items, 1, &options), LIDO_EINVAL);
        ck_assert_int_eq(lido_pg_batch(lease, "select 1", 2, NULL, 1, &options), LIDO_EINVAL);
        params[1][0] = lido_pg_int8(7);
        ck_assert_int_eq(insert(2), LIDO_EINVAL); /* of two types */
        params[1][0] = lido_pg_null();
        ck_assert_int_eq(insert(2), LIDO_EFACTORY); /* NULL has none, and the table refuses it */
        ck_assert_str_eq(error.sqlstate, "23502");
        ck_assert_int_eq(lido_pg_query_on(lease, "select generate_series(1, 3)", NULL, 0, NULL, &others), LIDO_OK);
        ck_assert_int_eq(insert(2), LIDO_EBUSY);
        lido_pg_rows_close(others);
        assert_kept();
}
END_TEST

START_TEST(it_works_over_tls_and_scram_as_well)
{
        struct own_server server;

        lido_release(lease);
        lido_pool_free(pool);
        own_server_start(&server, "--tls --scram");
        open_pool(server.tcp_conninfo);
        ck_assert_int_eq(lido_pg_batch(lease, "select repeat('x', $1), $2", 2, items, MANY, &options), LIDO_OK);
        for (int i = 0; i < MANY; i++)
                ck_assert_int_eq(PQgetlength(items[i].result, 0, 0), i);
        assert_kept();
        lido_release(lease);
        lido_pool_free(pool);
        own_server_remove(&server);
        open_pool(server_conninfo());
}
END_TEST

int main(void)
{
        return suite_run_with("pg/batch",
                              (const TTest *[]){
                                      each_item_gets_its_own_answer,
                                      an_item_that_fails_fails_alone,
                                      an_item_that_cannot_be_committed_fails_alone_too,
                                      all_or_nothing_is_one_transaction,
                                      of_all_or_nothing_one_that_fails_leaves_nothing,
                                      in_a_transaction_they_are_committed_with_it,
                                      a_statement_that_cannot_be_prepared_fails_every_item,
                                      much_in_both_directions_does_not_lock_up,
                                      rows_of_a_statement_before_do_not_change_how_answers_come,
                                      a_server_that_dies_answers_each_item_once_and_nobody_waits,
                                      a_batch_past_its_deadline_is_told_and_the_next_borrower_sees_nothing_of_it,
                                      arguments_that_make_no_sense_are_refused,
                                      it_works_over_tls_and_scram_as_well,
                                      NULL,
                              },
                              set_up, tear_down);
}
