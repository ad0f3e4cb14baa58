/* One statement from a loop: everything comes by callback, once, and the loop goes on meanwhile. */
#include "lido/pg.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "lido/service.h"
#include "lido/stats.h"
#include "support/looper.h"
#include "support/pgfixture.h"
#include "support/suite.h"

static struct lido_service *service;
static struct lido_pool *pool;
static struct looper looper;
static struct lido_pg_query_options options;
static PGconn *admin;

struct asking {
        struct lido_pg_call call; /* first: the callbacks get it */
        int dones, status, rows;
        int pause_at, stop_at; /* rows; 0: never */
        long sum;
        char value[64];
        PGresult *result;
};

static void open_pool(const char *conninfo, uint32_t max)
{
        struct lido_pg_options pg = LIDO_PG_OPTIONS_INIT;
        struct lido_pool_options pool_options = LIDO_POOL_OPTIONS_INIT;

        pg.conninfo = conninfo;
        pool_options.max = max;
        ck_assert_int_eq(lido_pg_pool_open(&pool, service, &pg, &pool_options), LIDO_OK);
}

static void set_up(void)
{
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
        open_pool(server_conninfo(), 1);
        admin = admin_connect(server_conninfo());
        looper_init(&looper);
        options = (struct lido_pg_query_options)LIDO_PG_QUERY_OPTIONS_INIT;
        options.timeout_ms = 60000;
}

static void tear_down(void)
{
        struct lido_stats stats = LIDO_STATS_INIT;

        looper_fini(&looper);
        ck_assert_int_eq(lido_pool_stats(pool, &stats), LIDO_OK);
        ck_assert_uint_eq(stats.leased, 0);
        lido_pool_free(pool);
        ck_assert_int_eq(lido_service_stop(service, 20000), LIDO_OK);
        PQfinish(admin);
}

static void on_done(struct lido_pg_call *call, int status, PGresult *result)
{
        struct asking *asking = (struct asking *)(void *)call;

        asking->dones++;
        asking->status = status;
        if (result && PQntuples(result) > 0)
                snprintf(asking->value, sizeof asking->value, "%s", PQgetvalue(result, 0, 0));
        asking->result = result;
}

static int on_row(struct lido_pg_call *call, const struct lido_pg_row *row)
{
        struct asking *asking = (struct asking *)(void *)call;

        asking->rows++;
        asking->sum += strtol(PQgetvalue(row->result, row->index, 0), NULL, 10);
        if (asking->rows == asking->stop_at)
                return -1;
        return asking->rows == asking->pause_at ? LIDO_PG_PAUSE : 0;
}

static int ask(struct asking *asking, const char *sql)
{
        asking->call.loop = looper.loop;
        asking->call.on_done = on_done;
        asking->dones = asking->rows = 0;
        asking->sum = 0;
        PQclear(asking->result);
        asking->result = NULL;
        return lido_pg_query_async(pool, &asking->call, sql, NULL, 0, &options);
}

static int await(struct asking *asking)
{
        ck_eventually(looper_turn(&looper) && asking->dones > 0);
        ck_assert_int_eq(asking->dones, 1);
        return asking->status;
}

static const char *value_of(const char *sql)
{
        static struct asking asking;

        memset(&asking, 0, sizeof asking);
        ck_assert_int_eq(ask(&asking, sql), LIDO_OK);
        ck_assert_int_eq(asking.dones, 0); /* never before the call has returned */
        ck_assert_msg(await(&asking) == LIDO_OK, "%s", asking.call.error.text);
        PQclear(asking.result);
        asking.result = NULL;
        return asking.value;
}

START_TEST(a_result_comes_by_callback_after_the_call_has_returned)
{
        ck_assert_str_eq(value_of("select 42"), "42");
        for (int i = 0; i < 5; i++) /* at the third time it is prepared */
                ck_assert_str_eq(value_of("select count(*) + 7 from generate_series(1, 1000)"), "1007");
}
END_TEST

START_TEST(text_and_parameters_may_go_at_once)
{
        struct asking asking = { 0 };
        char sql[] = "select $1::text || $2 || encode($3, 'hex')", text[] = "one";
        unsigned char bytes[] = { 1, 2 };
        struct lido_pg_param params[] = { lido_pg_text(text), lido_pg_int4(2), lido_pg_bytea(bytes, 2) };

        asking.call.loop = looper.loop;
        asking.call.on_done = on_done;
        ck_assert_int_eq(lido_pg_query_async(pool, &asking.call, sql, params, 3, &options), LIDO_OK);
        memset(sql, 'x', sizeof sql);
        memset(text, 'x', sizeof text);
        memset(bytes, 9, sizeof bytes);
        memset(params, 0, sizeof params);
        ck_assert_msg(await(&asking) == LIDO_OK, "%s", asking.call.error.text);
        ck_assert_str_eq(asking.value, "one20102");
        PQclear(asking.result);
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

START_TEST(rows_come_one_by_one_in_constant_memory)
{
        struct asking asking = { .call.on_row = on_row };
        long before;

        value_of("select 1");
        before = memory_kib();
        ck_assert_int_eq(ask(&asking, "select i, repeat('x', 500) from generate_series(1, 200000) i"), LIDO_OK);
        ck_assert_int_eq(await(&asking), LIDO_OK);
        ck_assert_int_eq(asking.rows, 200000);
        ck_assert_int_eq(asking.sum, 200000L * 200001 / 2);
        ck_assert_uint_eq(asking.call.affected, 200000);
        ck_assert_int_lt(memory_kib() - before, 4096); /* of 100 MB */
}
END_TEST

START_TEST(a_pause_holds_the_server_back_and_loses_no_row)
{
        struct asking asking = { .call.on_row = on_row, .pause_at = 1000 };
        long before;

        value_of("select 1");
        before = memory_kib();
        ck_assert_int_eq(ask(&asking, "select i, repeat('x', 500) from generate_series(1, 200000) i"), LIDO_OK);
        ck_eventually(looper_turn(&looper) && asking.rows == 1000);
        for (int turn = 0; turn < 1000; turn++)
                looper_turn(&looper);
        admin_wait_for(admin, 1, "select count(*) from pg_stat_activity where wait_event = 'ClientWrite'");
        looper_turn(&looper);
        ck_assert_int_eq(asking.rows, 1000);
        ck_assert_int_eq(asking.dones, 0);
        ck_assert_int_lt(memory_kib() - before, 4096);
        ck_assert_int_eq(lido_pg_call_resume(&asking.call), LIDO_OK);
        ck_assert_int_eq(lido_pg_call_resume(&asking.call), LIDO_EINVAL);
        ck_assert_int_eq(asking.rows, 1000); /* never from inside */
        ck_assert_int_eq(await(&asking), LIDO_OK);
        ck_assert_int_eq(asking.sum, 200000L * 200001 / 2);
}
END_TEST

START_TEST(a_pause_at_the_last_row_that_was_read_does_not_stall)
{
        struct asking asking = { .call.on_row = on_row };

        for (asking.pause_at = 1; asking.pause_at <= 20; asking.pause_at++) {
                ck_assert_int_eq(ask(&asking, "select generate_series(1, 20)"), LIDO_OK);
                ck_eventually(looper_turn(&looper) && asking.rows == asking.pause_at);
                ck_assert_int_eq(lido_pg_call_resume(&asking.call), LIDO_OK);
                ck_assert_int_eq(await(&asking), LIDO_OK);
                ck_assert_int_eq(asking.rows, 20);
        }
}
END_TEST

START_TEST(whoever_wants_no_more_rows_gets_none)
{
        struct asking asking = { .call.on_row = on_row, .stop_at = 10 };

        ck_assert_int_eq(ask(&asking, "select generate_series(1, 100000000)"), LIDO_OK);
        ck_assert_int_eq(await(&asking), LIDO_ECANCELED);
        ck_assert_int_eq(asking.rows, 10);
        ck_assert_str_eq(value_of("select 42"), "42");
        ck_assert_int_eq(asking.rows, 10);
}
END_TEST

START_TEST(a_failure_says_its_sqlstate)
{
        struct asking asking = { 0 };

        ck_assert_int_eq(ask(&asking, "select no_such_column"), LIDO_OK);
        ck_assert_int_eq(await(&asking), LIDO_EFACTORY);
        ck_assert_str_eq(asking.call.error.sqlstate, "42703");
        ck_assert_int_eq(ask(&asking, "copy (select 1) to stdout"), LIDO_OK);
        ck_assert_int_eq(await(&asking), LIDO_EINVAL);
        ck_assert_str_eq(value_of("select 42"), "42");
}
END_TEST

static void wait_until_active(const char *what, long count)
{
        admin_wait_for(admin, count, "select count(*) from pg_stat_activity where state = 'active' and query like '%%%s%%' and "
                                     "pid <> pg_backend_pid()", what);
}

START_TEST(a_deadline_ends_the_call_and_the_statement)
{
        struct asking asking = { 0 };
        uint64_t start = clock_now_ns();

        value_of("select 1");
        options.timeout_ms = 200;
        ck_assert_int_eq(ask(&asking, "select pg_sleep(601)"), LIDO_OK);
        ck_assert_int_eq(await(&asking), LIDO_EDEADLINE);
        ck_assert_uint_ge(clock_now_ns() - start, 200 * NS_PER_MS);
        wait_until_active("sleep(601)", 0);
        options.timeout_ms = 60000;
        ck_assert_str_eq(value_of("select 42"), "42");
}
END_TEST

START_TEST(a_deadline_may_be_told_to_the_server)
{
        struct asking asking = { .call.on_row = on_row };
        long pid = strtol(value_of("select pg_backend_pid()"), NULL, 10);

        options.server_timeout = 1;
        ck_assert_int_gt(strtol(value_of("select setting from pg_settings where name = 'statement_timeout'"), NULL, 10), 0);
        ck_assert_int_eq(ask(&asking, "select generate_series(1, 1000)"), LIDO_OK);
        ck_assert_int_eq(await(&asking), LIDO_OK);
        ck_assert_int_eq(asking.rows, 1000);
        options.server_timeout = 0;
        ck_assert_str_eq(value_of("show statement_timeout"), "0");
        ck_assert_int_eq(strtol(value_of("select pg_backend_pid()"), NULL, 10), pid);
}
END_TEST

START_TEST(a_call_is_cancelled_once_whether_it_waits_or_runs)
{
        struct asking running = { 0 }, waiting = { 0 };

        ck_assert_int_eq(ask(&running, "select pg_sleep(602)"), LIDO_OK);
        ck_eventually(looper_turn(&looper) && admin_number(admin, "select count(*) from pg_stat_activity where state = 'active' and "
                                                                  "query like '%%sleep(602)%%' and pid <> pg_backend_pid()") == 1);
        ck_assert_int_eq(ask(&waiting, "select 1"), LIDO_OK); /* the pool has one connection */
        looper_turn(&looper);
        ck_assert_int_eq(lido_pg_call_cancel(&waiting.call), LIDO_OK);
        ck_assert_int_eq(lido_pg_call_cancel(&running.call), LIDO_OK);
        ck_assert_int_eq(lido_pg_call_cancel(&running.call), LIDO_EINVAL);
        ck_assert_int_eq(running.dones + waiting.dones, 0); /* never from inside */
        ck_assert_int_eq(await(&waiting), LIDO_ECANCELED);
        ck_assert_int_eq(await(&running), LIDO_ECANCELED);
        ck_assert_int_eq(lido_pg_call_cancel(&running.call), LIDO_EINVAL);
        wait_until_active("sleep(602)", 0);
        ck_assert_str_eq(value_of("select 42"), "42");
        ck_assert_int_eq(running.dones, 1);
        ck_assert_int_eq(waiting.dones, 1);
}
END_TEST

START_TEST(a_lost_connection_fails_the_call_and_the_next_gets_another)
{
        struct asking asking = { 0 };

        ck_assert_int_eq(ask(&asking, "select pg_terminate_backend(pg_backend_pid()), pg_sleep(10)"), LIDO_OK);
        ck_assert_int_eq(await(&asking), LIDO_EFACTORY);
        ck_assert_str_eq(asking.call.error.sqlstate, "57P01");
        ck_assert_str_eq(value_of("select 42"), "42");
}
END_TEST

static void tick(uv_timer_t *timer)
{
        ++*(int *)timer->data;
}

static void send_on(struct asking *asking, const char *sql)
{
        struct lido_pg_param large = lido_pg_text(sql);

        asking->call.loop = looper.loop;
        asking->call.on_done = on_done;
        ck_assert_int_eq(lido_pg_query_async(pool, &asking->call, "select length($1)", &large, 1, &options), LIDO_OK);
}

/* It takes 30 MB, more than any socket holds, and the server takes nothing. */
START_TEST(a_server_that_does_not_read_does_not_stop_the_loop)
{
        static char text[30000001];
        static uv_timer_t timer; /* closed with the loop */
        struct asking asking = { 0 };
        int ticks = 0, pid = (int)strtol(value_of("select pg_backend_pid()"), NULL, 10);

        memset(text, 'x', sizeof text - 1);
        uv_timer_init(&looper.uv, &timer);
        timer.data = &ticks;
        ck_assert_int_eq(kill(pid, SIGSTOP), 0);
        send_on(&asking, text);
        uv_timer_start(&timer, tick, 1, 1);
        ck_eventually(looper_turn(&looper) && ticks >= 50);
        ck_assert_int_eq(asking.dones, 0);
        ck_assert_int_eq(kill(pid, SIGCONT), 0);
        ck_assert_int_eq(await(&asking), LIDO_OK);
        ck_assert_str_eq(asking.value, "30000000");
        PQclear(asking.result);
        uv_close((uv_handle_t *)&timer, NULL);
}
END_TEST

START_TEST(hundreds_of_calls_share_a_few_connections)
{
        static struct asking many[300];

        lido_pool_free(pool);
        open_pool(server_conninfo(), 4);
        for (int i = 0; i < 300; i++) {
                char sql[64];

                snprintf(sql, sizeof sql, "select %d from pg_sleep(0)", i);
                ck_assert_int_eq(ask(&many[i], sql), LIDO_OK);
        }
        for (int i = 0; i < 300; i++) {
                ck_assert_int_eq(await(&many[i]), LIDO_OK);
                ck_assert_int_eq(strtol(many[i].value, NULL, 10), i);
                PQclear(many[i].result);
        }
}
END_TEST

/* ---- on a lease ------------------------------------------------------------------------------------------- */

START_TEST(calls_on_a_lease_make_a_transaction)
{
        static const char *const steps[] = { "begin", "create temp table t on commit drop as select 7 as v", "select v from t",
                                             "commit" };
        struct asked asked = { 0 };
        struct asking asking = { 0 };

        ck_assert_int_eq(looper_ask(&looper, &asked, pool, 20000), LIDO_OK);
        ck_assert_int_eq(looper_await(&looper, &asked), LIDO_OK);
        asking.call.lease = asked.lease;
        for (int i = 0; i < 4; i++) {
                ck_assert_int_eq(ask(&asking, steps[i]), LIDO_OK);
                ck_assert_int_eq(asking.dones, 0);
                ck_assert_int_eq(ask(&asking, "select 1"), LIDO_EBUSY);
                ck_assert_msg(await(&asking) == LIDO_OK, "%s", asking.call.error.text);
        }
        ck_assert_str_eq(asking.value, "7");
        PQclear(asking.result);
        ck_assert_int_eq(PQtransactionStatus(lido_pg_conn(asked.lease)), PQTRANS_IDLE);
        ck_assert_int_eq(PQisnonblocking(lido_pg_conn(asked.lease)), 0);
        ck_assert_int_eq(lido_release(asked.lease), LIDO_OK);
        ck_assert_int_eq(lido_pg_query_async(NULL, &asking.call, "select 1", NULL, 0, &options), LIDO_ESTALE);
}
END_TEST

static void take_back_a_lease_in_use(bool has_begun)
{
        struct asked asked = { 0 };
        struct asking asking = { 0 };

        ck_assert_int_eq(looper_ask(&looper, &asked, pool, 20000), LIDO_OK);
        ck_assert_int_eq(looper_await(&looper, &asked), LIDO_OK);
        asking.call.lease = asked.lease;
        ck_assert_int_eq(ask(&asking, "select pg_sleep(603)"), LIDO_OK);
        if (has_begun)
                looper_turn(&looper);
        ck_assert_int_eq(lido_revoke(asked.lease), LIDO_OK);
        ck_assert_int_eq(await(&asking), LIDO_ESTALE);
        ck_assert_int_eq(lido_release(asked.lease), LIDO_EREVOKED);
        ck_assert_str_eq(value_of("select 42"), "42");
}

START_TEST(a_lease_that_is_taken_back_ends_its_call)
{
        take_back_a_lease_in_use(true);
}
END_TEST

/* The call is on its way to the loop, which has not seen it. */
START_TEST(a_lease_that_is_taken_back_before_its_call_begins_ends_it)
{
        take_back_a_lease_in_use(false);
}
END_TEST

/* ---- other loops, other servers --------------------------------------------------------------------------- */

/* Results of every size around that of TLS records and libpq's buffers. */
START_TEST(large_tls_records_do_not_stall_a_call)
{
        struct asking asking = { .call.on_row = on_row };
        struct own_server server;

        lido_pool_free(pool);
        own_server_start(&server, "--tls --scram");
        open_pool(server.tcp_conninfo, 1);
        for (int rows = 1; rows <= 120; rows += 7) {
                char sql[100];

                snprintf(sql, sizeof sql, "select 1, repeat('x', 3000) from generate_series(1, %d)", rows);
                asking.pause_at = rows / 2;
                ck_assert_int_eq(ask(&asking, sql), LIDO_OK);
                if (asking.pause_at > 0) {
                        ck_eventually(looper_turn(&looper) && asking.rows == asking.pause_at);
                        ck_assert_int_eq(lido_pg_call_resume(&asking.call), LIDO_OK);
                }
                ck_assert_msg(await(&asking) == LIDO_OK, "%s", asking.call.error.text);
                ck_assert_int_eq(asking.rows, rows);
                snprintf(sql, sizeof sql, "select length(repeat('x', %d)), repeat('x', %d)", rows * 3000, rows * 3000);
                ck_assert_int_eq(strtol(value_of(sql), NULL, 10), rows * 3000);
        }
        lido_pool_free(pool);
        own_server_remove(&server);
        open_pool(server_conninfo(), 1);
}
END_TEST

static void note_detached(int status, void *is_detached)
{
        must(status == LIDO_OK);
        *(bool *)is_detached = true;
}

/* The pool watches the same connection on the same loop. */
START_TEST(the_loop_may_be_that_of_the_service)
{
        bool is_detached = false;

        lido_pool_free(pool);
        ck_assert_int_eq(lido_service_stop(service, 20000), LIDO_OK);
        ck_assert_int_eq(lido_service_attach(&service, &looper.uv, NULL), LIDO_OK);
        open_pool(server_conninfo(), 1);
        for (int i = 0; i < 5; i++)
                ck_assert_str_eq(value_of("select 42"), "42");
        lido_pool_free(pool);
        ck_assert_int_eq(lido_service_detach(service, 20000, note_detached, &is_detached), LIDO_OK);
        ck_eventually(looper_turn(&looper) && is_detached);
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
        open_pool(server_conninfo(), 1);
}
END_TEST

START_TEST(closing_the_loop_ends_calls_that_wait_and_lets_others_finish)
{
        struct asking running = { 0 }, waiting = { 0 };

        ck_assert_int_eq(ask(&running, "select 42 from pg_sleep(0.1)"), LIDO_OK);
        ck_assert_int_eq(ask(&waiting, "select 1"), LIDO_OK);
        ck_eventually(looper_turn(&looper) && admin_number(admin, "select count(*) from pg_stat_activity where query like "
                                                                  "'%%sleep(0.1)%%' and pid <> pg_backend_pid()") == 1);
        looper_fini(&looper);
        ck_assert_int_eq(running.dones, 1);
        ck_assert_int_eq(running.status, LIDO_OK);
        ck_assert_int_eq(waiting.dones, 1);
        ck_assert(waiting.status == LIDO_ECANCELED || waiting.status == LIDO_OK);
        PQclear(running.result);
        PQclear(waiting.result);
        looper_init(&looper);
}
END_TEST

START_TEST(arguments_that_make_no_sense_are_refused)
{
        struct asking asking = { 0 };

        ck_assert_int_eq(lido_pg_query_async(pool, NULL, "select 1", NULL, 0, NULL), LIDO_EINVAL);
        ck_assert_int_eq(lido_pg_query_async(pool, &asking.call, "select 1", NULL, 0, NULL), LIDO_EINVAL); /* no loop */
        asking.call.loop = looper.loop;
        ck_assert_int_eq(lido_pg_query_async(pool, &asking.call, "select 1", NULL, 0, NULL), LIDO_EINVAL); /* no on_done */
        asking.call.on_done = on_done;
        ck_assert_int_eq(lido_pg_query_async(NULL, &asking.call, "select 1", NULL, 0, NULL), LIDO_EINVAL);
        ck_assert_int_eq(lido_pg_query_async(pool, &asking.call, NULL, NULL, 0, NULL), LIDO_EINVAL);
        ck_assert_int_eq(lido_pg_query_async(pool, &asking.call, "select $1", NULL, 1, NULL), LIDO_EINVAL);
        ck_assert_int_eq(lido_pg_call_resume(&asking.call), LIDO_EINVAL);
        ck_assert_int_eq(lido_pg_call_cancel(&asking.call), LIDO_EINVAL);
        ck_assert_int_eq(asking.dones, 0);
}
END_TEST

int main(void)
{
        return suite_run_with("pg/call",
                              (const TTest *[]){
                                      a_result_comes_by_callback_after_the_call_has_returned,
                                      text_and_parameters_may_go_at_once,
                                      rows_come_one_by_one_in_constant_memory,
                                      a_pause_holds_the_server_back_and_loses_no_row,
                                      a_pause_at_the_last_row_that_was_read_does_not_stall,
                                      whoever_wants_no_more_rows_gets_none,
                                      a_failure_says_its_sqlstate,
                                      a_deadline_ends_the_call_and_the_statement,
                                      a_deadline_may_be_told_to_the_server,
                                      a_call_is_cancelled_once_whether_it_waits_or_runs,
                                      a_lost_connection_fails_the_call_and_the_next_gets_another,
                                      a_server_that_does_not_read_does_not_stop_the_loop,
                                      hundreds_of_calls_share_a_few_connections,
                                      calls_on_a_lease_make_a_transaction,
                                      a_lease_that_is_taken_back_ends_its_call,
                                      a_lease_that_is_taken_back_before_its_call_begins_ends_it,
                                      large_tls_records_do_not_stall_a_call,
                                      the_loop_may_be_that_of_the_service,
                                      closing_the_loop_ends_calls_that_wait_and_lets_others_finish,
                                      arguments_that_make_no_sense_are_refused,
                                      NULL,
                              },
                              set_up, tear_down);
}
