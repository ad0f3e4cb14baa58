/* Statements that share connections: from threads and from a loop. How a statement's text is judged is in tests/pg/mux_sql.c.
 *
 * To have contention, a test takes all but the last connection away, or all of them for a while: with none idle a statement must go
 * by the shard. The counters say which way it went.
 */
#include "lido/pg_mux.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "lido/service.h"
#include "lido/stats.h"
#include "pg/mux.h"
#include "support/crew.h"
#include "support/looper.h"
#include "support/patience.h"
#include "support/pgfixture.h"
#include "support/suite.h"

static struct lido_service *service;
static struct lido_pool *pool;
static struct lido_pg_mux *mux;
static struct lido_error error;
static PGconn *admin, *locker; /* locker holds locks: in a transaction the view of activity stands still */

static void open_pool_at(const char *conninfo, uint32_t max, const struct lido_pg_options *others)
{
        struct lido_pg_options pg = LIDO_PG_OPTIONS_INIT;
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;

        if (others)
                pg = *others;
        pg.conninfo = conninfo;
        options.max = options.min = max;
        options.start = LIDO_START_WARM;
        options.acquire_timeout_ms = 60000;
        ck_assert_int_eq(lido_pg_pool_open(&pool, service, &pg, &options), LIDO_OK);
}

static void open_pool(uint32_t max, const struct lido_pg_options *others)
{
        open_pool_at(server_conninfo(), max, others);
}

static void open_mux(struct lido_loop *loop, uint32_t connections, uint32_t statements)
{
        struct lido_pg_mux_options options = LIDO_PG_MUX_OPTIONS_INIT;

        options.connections = connections;
        options.statements = statements;
        ck_assert_int_eq(lido_pg_mux_open(&mux, pool, loop, &options), LIDO_OK);
}

static void set_up(void)
{
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
        admin = admin_connect(server_conninfo());
        locker = admin_connect(server_conninfo());
        admin_run(admin, "set client_min_messages = warning; drop table if exists mux; create table mux (id int, text text)");
        open_pool(2, NULL);
        mux = NULL;
}

/* Whatever a test did, all connections have come back. */
static void tear_down(void)
{
        struct lido_stats stats = LIDO_STATS_INIT;

        lido_pg_mux_close(mux, NULL, NULL);
        ck_assert_int_eq(lido_pool_stats(pool, &stats), LIDO_OK);
        ck_assert_uint_eq(stats.leased, 0);
        lido_pool_free(pool);
        ck_assert_int_eq(lido_service_stop(service, 20000), LIDO_OK);
        PQfinish(admin);
        PQfinish(locker);
}

static struct lido_pg_mux_stats stats_now(void)
{
        struct lido_pg_mux_stats stats = LIDO_PG_MUX_STATS_INIT;

        must(lido_pg_mux_stats(mux, &stats) == LIDO_OK);
        return stats;
}

static uint32_t leased_now(void)
{
        struct lido_stats stats = LIDO_STATS_INIT;

        must(lido_pool_stats(pool, &stats) == LIDO_OK);
        return stats.leased;
}

static int exec(const char *sql, int64_t timeout_ms, struct lido_error *ret_error, PGresult **ret_result)
{
        struct lido_pg_exec_options options = LIDO_PG_EXEC_OPTIONS_INIT;

        options.timeout_ms = timeout_ms;
        options.error = ret_error;
        *ret_result = NULL;
        return lido_pg_mux_exec(mux, sql, NULL, 0, &options, ret_result);
}

/* A statement on a thread of its own. */
struct errand {
        pthread_t thread;
        const char *sql;
        int64_t timeout_ms;
        int code;
        char value[64];
        struct lido_error error;
        _Atomic uint32_t is_over;
};

static void *run_errand(void *pointer)
{
        struct errand *errand = pointer;
        PGresult *result;

        errand->code = exec(errand->sql, errand->timeout_ms, &errand->error, &result);
        if (errand->code == LIDO_OK && PQntuples(result) > 0)
                snprintf(errand->value, sizeof errand->value, "%s", PQgetvalue(result, 0, 0));
        PQclear(result);
        store_release(&errand->is_over, 1);
        return NULL;
}

static void errand_start(struct errand *errand, const char *sql, int64_t timeout_ms)
{
        memset(errand, 0, sizeof *errand);
        errand->sql = sql;
        errand->timeout_ms = timeout_ms;
        ck_assert_int_eq(pthread_create(&errand->thread, NULL, run_errand, errand), 0);
}

static int errand_join(struct errand *errand)
{
        pthread_join(errand->thread, NULL);
        return errand->code;
}

/* Take all connections away, so that what comes goes by the shard; and give them back. */
static lido_lease taken[8];

static void take_all(uint32_t count)
{
        for (uint32_t i = 0; i < count; i++)
                ck_assert_int_eq(lido_acquire(pool, 20000, &taken[i]), LIDO_OK);
}

static void give_all(uint32_t count)
{
        for (uint32_t i = 0; i < count; i++)
                ck_assert_int_eq(lido_release(taken[i]), LIDO_OK);
}

/* ---- from threads ---------------------------------------------------------------------------------------- */

START_TEST(a_statement_takes_an_idle_connection_directly)
{
        struct lido_pg_param params[] = { lido_pg_int4(41) };
        PGresult *result;

        /* given */ open_mux(NULL, 1, 0);
        /* when  */ ck_assert_int_eq(lido_pg_mux_exec(mux, "select $1 + 1", params, 1, NULL, &result), LIDO_OK);
        /* then  */ ck_assert_str_eq(PQgetvalue(result, 0, 0), "42");
        ck_assert_uint_eq(stats_now().direct, 1);
        ck_assert_uint_eq(stats_now().shared, 0);
        ck_assert_uint_eq(leased_now(), 0);
        PQclear(result);
}
END_TEST

static _Atomic uint32_t wrong;

static void ask_often(void *unused, unsigned number)
{
        (void)unused;
        for (int i = 0; i < 100; i++) {
                struct lido_pg_param params[] = { lido_pg_int4((int32_t)(number * 1000) + i) };
                char expected[16];
                PGresult *result;

                snprintf(expected, sizeof expected, "%u", number * 1000 + (unsigned)i);
                if (lido_pg_mux_exec(mux, "select $1", params, 1, NULL, &result) != LIDO_OK) {
                        add_relaxed(&wrong, 1);
                        continue;
                }
                if (strcmp(PQgetvalue(result, 0, 0), expected) != 0)
                        add_relaxed(&wrong, 1);
                PQclear(result);
        }
}

START_TEST(under_contention_statements_share_and_each_gets_its_own_answer)
{
        /* given */ open_mux(NULL, 1, 0);
        /* when  */ crew_run(16, ask_often, NULL);
        /* then  */ ck_assert_uint_eq(load_relaxed(&wrong), 0);
        struct lido_pg_mux_stats stats = stats_now();
        ck_assert_uint_eq(stats.direct + stats.shared, 1600);
        ck_assert_uint_gt(stats.shared, 0);
        ck_assert_uint_gt(stats.shared, stats.converted);
}
END_TEST

/* Several statements that are sure to travel on one connection, in this order. */
static void share(struct errand *errands, const char *const *sql, unsigned count)
{
        uint64_t shared = stats_now().shared;

        take_all(2);
        for (unsigned i = 0; i < count; i++) {
                errand_start(&errands[i], sql[i], 20000);
                ck_eventually(stats_now().shared == shared + i + 1);
        }
        give_all(2);
        for (unsigned i = 0; i < count; i++)
                errand_join(&errands[i]);
}

START_TEST(each_is_a_transaction_of_its_own_and_fails_alone)
{
        static const char *const sql[] = { "insert into mux values (1)", "select 1/0", "insert into mux values (2)",
                                           "insert into nowhere values (3)", "select 5" };
        struct errand errands[5];

        /* given */ open_mux(NULL, 1, 0);
        /* when  */ share(errands, sql, 5);
        /* then  */ ck_assert_int_eq(errands[0].code, LIDO_OK);
        ck_assert_int_eq(errands[1].code, LIDO_EFACTORY);
        ck_assert_str_eq(errands[1].error.sqlstate, "22012");
        ck_assert_int_eq(errands[2].code, LIDO_OK);
        ck_assert_str_eq(errands[3].error.sqlstate, "42P01");
        ck_assert_str_eq(errands[4].value, "5");
        ck_assert_int_eq(admin_number(admin, "select sum(id) from mux"), 3);
        ck_assert_uint_eq(stats_now().converted, 1);
}
END_TEST

START_TEST(a_constraint_that_fails_at_the_commit_fails_its_own_statement)
{
        static const char *const sql[] = { "select 1", "insert into mux_late values (1)", "select 3" };
        struct errand errands[3];

        admin_run(admin, "drop table if exists mux_late, mux_first; create table mux_first (id int primary key);"
                         "create table mux_late (id int references mux_first deferrable initially deferred)");
        open_mux(NULL, 1, 0);
        share(errands, sql, 3);
        ck_assert_str_eq(errands[0].value, "1");
        ck_assert_int_eq(errands[1].code, LIDO_EFACTORY);
        ck_assert_str_eq(errands[1].error.sqlstate, "23503");
        ck_assert_str_eq(errands[2].value, "3");
        admin_run(admin, "drop table mux_late, mux_first");
}
END_TEST

START_TEST(a_connection_is_shared_from_the_first_contention_on_and_goes_back_after_it)
{
        struct errand errand;
        PGresult *result;

        /* given */ open_mux(NULL, 1, 0);
        take_all(2);
        /* when  */ errand_start(&errand, "select 1", 20000);
        ck_eventually(stats_now().shared == 1);
        lido_release(taken[0]);
        ck_assert_int_eq(errand_join(&errand), LIDO_OK);
        /* then  */ ck_assert_uint_eq(stats_now().converted, 1);
        ck_eventually(stats_now().returned == 1);
        ck_eventually(leased_now() == 1);
        ck_assert_int_eq(exec("select 2", 20000, &error, &result), LIDO_OK);
        PQclear(result);
        ck_assert_uint_eq(stats_now().direct, 1);
        lido_release(taken[1]);
}
END_TEST

START_TEST(a_busy_shard_gives_the_pool_its_connection_back_now_and_then)
{
        struct crew crew;
        lido_lease lease;

        /* given */ lido_pool_free(pool);
        open_pool(1, NULL);
        open_mux(NULL, 1, 0);
        crew_start(&crew, 8, ask_often, NULL);
        /* when  */ int rc = lido_acquire(pool, 60000, &lease);
        /* then  */ ck_assert_int_eq(rc, LIDO_OK);
        lido_release(lease);
        crew_join(&crew);
        ck_assert_uint_eq(load_relaxed(&wrong), 0);
}
END_TEST

START_TEST(a_deadline_detaches_the_caller_and_nobody_else)
{
        struct errand slow, behind;

        /* given */ open_mux(NULL, 1, 0);
        take_all(2);
        admin_run(locker, "begin; lock table mux");
        errand_start(&slow, "insert into mux values (7)", 500);
        ck_eventually(stats_now().shared == 1);
        errand_start(&behind, "select 8", 60000);
        ck_eventually(stats_now().shared == 2);
        lido_release(taken[0]);
        /* when  */ int rc = errand_join(&slow);
        /* then  */ ck_assert_int_eq(rc, LIDO_EDEADLINE);
        ck_assert_uint_eq(load_acquire(&behind.is_over), 0);
        ck_assert_uint_eq(stats_now().detached, 1);
        admin_run(locker, "commit");
        ck_assert_int_eq(errand_join(&behind), LIDO_OK);
        ck_assert_str_eq(behind.value, "8");
        ck_assert_int_eq(admin_number(admin, "select count(*) from mux where id = 7"), 1);
        lido_release(taken[1]);
}
END_TEST

START_TEST(a_deadline_in_the_queue_says_that_nothing_was_sent)
{
        PGresult *result;

        open_mux(NULL, 1, 0);
        take_all(2);
        ck_assert_int_eq(exec("insert into mux values (1)", 50, &error, &result), LIDO_ETIMEDOUT);
        ck_assert_int_eq(error.code, LIDO_ETIMEDOUT);
        give_all(2);
        ck_eventually(leased_now() == 0);
        ck_assert_int_eq(admin_number(admin, "select count(*) from mux"), 0);
}
END_TEST

/* The statement's result has come already when its commit is refused. */
START_TEST(a_direct_statement_whose_commit_is_refused_says_so)
{
        PGresult *result;

        /* given */ admin_run(admin, "alter table mux add unique (id) deferrable initially deferred; insert into mux values (1)");
        open_mux(NULL, 1, 0);
        /* when  */ ck_assert_int_eq(exec("insert into mux values (1) returning id", 60000, &error, &result), LIDO_EFACTORY);
        /* then  */ ck_assert_str_eq(error.sqlstate, "23505");
        ck_assert_uint_eq(stats_now().direct, 1);
        ck_assert_int_eq(admin_number(admin, "select count(*) from mux"), 1);
        PQclear(result);
}
END_TEST

START_TEST(a_deadline_of_a_direct_statement_leaves_the_connection_whole)
{
        PGresult *result;
        long backends;

        open_mux(NULL, 1, 0);
        backends = admin_number(admin, "select max(pid) from pg_stat_activity where application_name = 'lido'");
        ck_assert_int_eq(exec("select pg_sleep(600)", 50, &error, &result), LIDO_EDEADLINE);
        ck_assert_uint_eq(stats_now().detached, 1);
        ck_eventually(leased_now() == 0);
        ck_assert_uint_eq(stats_now().returned, 1);
        ck_assert_int_eq(exec("select 1", 20000, &error, &result), LIDO_OK);
        PQclear(result);
        ck_assert_int_eq(admin_number(admin, "select max(pid) from pg_stat_activity where application_name = 'lido'"), backends);
}
END_TEST

START_TEST(what_changes_the_session_has_a_lease_to_itself_and_leaves_nothing_behind)
{
        PGresult *result;

        open_mux(NULL, 1, 0);
        ck_assert_int_eq(exec("select set_config('application_name', 'changed', false)", 20000, &error, &result), LIDO_OK);
        PQclear(result);
        ck_assert_int_eq(exec("create temp table mux_temp (id int)", 20000, &error, &result), LIDO_OK);
        PQclear(result);
        ck_assert_int_eq(exec("select pg_advisory_lock(77)", 20000, &error, &result), LIDO_OK);
        PQclear(result);
        ck_assert_uint_eq(stats_now().alone, 3);
        ck_assert_uint_eq(stats_now().shared, 0);
        admin_wait_for(admin, 0, "select count(*) from pg_stat_activity where application_name = 'changed'");
        admin_wait_for(admin, 0, "select count(*) from pg_locks where locktype = 'advisory' and objid = 77");
        admin_wait_for(admin, 0, "select count(*) from pg_class where relname = 'mux_temp'");
}
END_TEST

START_TEST(what_has_no_sense_on_its_own_is_refused_before_it_is_sent)
{
        static const char *const sql[] = { "begin", "set work_mem = 1", "listen x", "copy mux to stdout", "prepare p as select 1", NULL };
        PGresult *result;

        open_mux(NULL, 1, 0);
        for (int i = 0; sql[i]; i++) {
                ck_assert_int_eq(exec(sql[i], 20000, &error, &result), LIDO_EINVAL);
                ck_assert_ptr_nonnull(strstr(error.text, "lease of its own"));
        }
        ck_assert_uint_eq(stats_now().direct + stats_now().shared + stats_now().alone, 0);
}
END_TEST

/* The judge is passed by: what it lets through by mistake must not poison a neighbour either. */
static struct call *slip_in(const char *sql)
{
        static const struct lido_pg_exec_options options = LIDO_PG_EXEC_OPTIONS_INIT;
        struct call *call = call_new(sql, NULL, 0, &options, 2);
        uint64_t shared = stats_now().shared;

        ck_assert_int_eq(shard_submit(&mux->shards[0], call), LIDO_OK);
        ck_eventually(stats_now().shared == shared + 1);
        return call;
}

static int outcome(struct call *call)
{
        int code;

        ck_assert_int_eq(call_wait(call, CLOCK_NEVER), LIDO_OK);
        code = call->code;
        call_unref(call);
        return code;
}

START_TEST(a_transaction_left_open_never_reaches_a_neighbour)
{
        struct call *calls[4];

        /* given */ open_mux(NULL, 1, 0);
        take_all(2);
        calls[0] = slip_in("insert into mux values (1)");
        calls[1] = slip_in("begin");
        calls[2] = slip_in("insert into mux values (2)");
        calls[3] = slip_in("select 1/0");
        /* when  */ give_all(2);
        /* then  */ ck_assert_int_eq(outcome(calls[0]), LIDO_OK);
        ck_assert_int_eq(outcome(calls[1]), LIDO_EINVAL);
        ck_assert_int_eq(outcome(calls[2]), LIDO_EFACTORY);
        ck_assert_int_eq(outcome(calls[3]), LIDO_EFACTORY);
        ck_assert_uint_eq(stats_now().breaches, 1);
        admin_wait_for(admin, 0, "select count(*) from pg_stat_activity where state like 'idle in transaction%%' and application_name = 'lido'");
        ck_assert_int_eq(admin_number(admin, "select sum(id) from mux"), 1);
}
END_TEST

START_TEST(copy_never_reaches_a_neighbour)
{
        struct call *calls[2];
        PGresult *result;

        open_mux(NULL, 1, 0);
        take_all(2);
        calls[0] = slip_in("copy mux to stdout");
        calls[1] = slip_in("select 1");
        give_all(2);
        ck_assert_int_eq(outcome(calls[0]), LIDO_EINVAL);
        ck_assert_int_eq(outcome(calls[1]), LIDO_EFACTORY);
        ck_assert_int_eq(exec("select 2", 20000, &error, &result), LIDO_OK);
        PQclear(result);
}
END_TEST

START_TEST(a_session_found_changed_is_taken_out_and_reset)
{
        struct call *call;

        open_mux(NULL, 1, 0);
        take_all(2);
        call = slip_in("select set_config('application_name', 'changed', false)");
        give_all(2);
        ck_assert_int_eq(outcome(call), LIDO_OK);
        ck_eventually(stats_now().returned == 1);
        ck_assert_uint_eq(stats_now().lost, 0);
        admin_wait_for(admin, 0, "select count(*) from pg_stat_activity where application_name = 'changed'");
        admin_wait_for(admin, 2, "select count(*) from pg_stat_activity where application_name = 'lido'");
}
END_TEST

START_TEST(the_limit_of_statements_under_way_is_kept)
{
        struct errand errands[6];

        /* given */ open_mux(NULL, 1, 2);
        take_all(2);
        admin_run(locker, "begin; lock table mux");
        for (unsigned i = 0; i < 6; i++) {
                errand_start(&errands[i], "insert into mux values (1)", i < 2 ? 60000 : 1000);
                ck_eventually(stats_now().shared == i + 1);
        }
        /* when  */ lido_release(taken[0]);
        /* then  */ for (unsigned i = 2; i < 6; i++)
                ck_assert_int_eq(errand_join(&errands[i]), LIDO_ETIMEDOUT);
        admin_run(locker, "commit");
        ck_assert_int_eq(errand_join(&errands[0]), LIDO_OK);
        ck_assert_int_eq(errand_join(&errands[1]), LIDO_OK);
        lido_release(taken[1]);
        ck_eventually(leased_now() == 0);
        ck_assert_int_eq(admin_number(admin, "select count(*) from mux"), 2);
}
END_TEST

START_TEST(the_limit_of_bytes_under_way_is_kept_and_a_single_larger_one_passes)
{
        struct lido_pg_mux_options options = LIDO_PG_MUX_OPTIONS_INIT;
        static char long_sql[3][20000];
        static const char *sql[3] = { long_sql[0], long_sql[1], long_sql[2] };
        struct errand errands[3];

        options.connections = 1;
        options.bytes = 10000;
        ck_assert_int_eq(lido_pg_mux_open(&mux, pool, NULL, &options), LIDO_OK);
        for (int i = 0; i < 3; i++) {
                memset(long_sql[i], ' ', sizeof long_sql[i] - 1);
                memcpy(long_sql[i], "select 1", 8);
        }
        share(errands, sql, 3);
        for (int i = 0; i < 3; i++)
                ck_assert_str_eq(errands[i].value, "1");
}
END_TEST

START_TEST(a_full_queue_is_refused)
{
        struct lido_pg_mux_options options = LIDO_PG_MUX_OPTIONS_INIT;
        struct errand errand;
        PGresult *result;

        options.queue_limit = 1;
        ck_assert_int_eq(lido_pg_mux_open(&mux, pool, NULL, &options), LIDO_OK);
        take_all(2);
        errand_start(&errand, "select 1", 20000);
        ck_eventually(stats_now().shared == 1);
        ck_assert_int_eq(exec("select 2", 20000, &error, &result), LIDO_EQUEUEFULL);
        give_all(2);
        ck_assert_int_eq(errand_join(&errand), LIDO_OK);
}
END_TEST

START_TEST(a_result_outlives_multiplexer_and_pool)
{
        PGresult *result;

        open_mux(NULL, 1, 0);
        ck_assert_int_eq(exec("select 'still here'", 20000, &error, &result), LIDO_OK);
        lido_pg_mux_close(mux, NULL, NULL);
        mux = NULL;
        lido_pool_free(pool);
        open_pool(2, NULL);
        ck_assert_str_eq(PQgetvalue(result, 0, 0), "still here");
        PQclear(result);
}
END_TEST

START_TEST(a_statement_whose_plan_is_outdated_runs_once_more_prepared_anew)
{
        static const char *const same[] = { "select * from mux", "select * from mux", "select * from mux", "select * from mux" };
        struct errand errands[4];
        PGresult *result;

        lido_pool_free(pool);
        open_pool(2, NULL);
        open_mux(NULL, 1, 0);
        admin_run(admin, "insert into mux values (1, 'a')");
        share(errands, same, 4);
        share(errands, same, 4);
        admin_run(admin, "alter table mux add column more int");
        for (int round = 0; round < 2; round++) {
                share(errands, same, 4);
                for (int i = 0; i < 4; i++) {
                        ck_assert_msg(errands[i].code == LIDO_OK, "%s", errands[i].error.text);
                        ck_assert_str_eq(errands[i].value, "1");
                }
        }
        ck_assert_uint_gt(stats_now().retried, 0);
        for (int i = 0; i < 6; i++) { /* by a connection of its own as well */
                if (i == 4)
                        admin_run(admin, "alter table mux drop column more");
                ck_assert_int_eq(exec("select * from mux", 20000, &error, &result), LIDO_OK);
                PQclear(result);
        }
}
END_TEST

START_TEST(a_statement_that_cannot_be_prepared_says_its_sqlstate_each_time)
{
        static const char *const sql[] = { "select nothing", "select nothing", "select nothing", "select nothing", "select 1" };
        struct errand errands[5];

        open_mux(NULL, 1, 0);
        share(errands, sql, 5);
        for (int i = 0; i < 4; i++)
                ck_assert_str_eq(errands[i].error.sqlstate, "42703");
        ck_assert_str_eq(errands[4].value, "1");
}
END_TEST

START_TEST(no_more_statements_stay_prepared_than_the_options_say)
{
        struct lido_pg_options pg = LIDO_PG_OPTIONS_INIT;
        struct lido_pg_exec_options options = LIDO_PG_EXEC_OPTIONS_INIT;
        PGresult *result;
        char sql[32];

        lido_pool_free(pool);
        pg.statement_cache = 3;
        open_pool(1, &pg);
        open_mux(NULL, 1, 0);
        options.prepare = LIDO_PG_PREPARE_AT_ONCE;
        for (int i = 0; i < 20; i++) {
                snprintf(sql, sizeof sql, "select %d", i);
                ck_assert_int_eq(lido_pg_mux_exec(mux, sql, NULL, 0, &options, &result), LIDO_OK);
                PQclear(result);
        }
        ck_assert_int_eq(exec("select count(*) from pg_prepared_statements", 20000, &error, &result), LIDO_OK);
        ck_assert_int_le(atoi(PQgetvalue(result, 0, 0)), 3);
        PQclear(result);
}
END_TEST

START_TEST(the_death_of_the_server_process_fails_each_caller_once)
{
        struct errand errands[12];
        PGresult *result;

        /* given */ open_mux(NULL, 1, 0);
        take_all(2);
        admin_run(locker, "begin; lock table mux");
        for (int i = 0; i < 12; i++) {
                errand_start(&errands[i], "insert into mux values (1)", 60000);
                ck_eventually(stats_now().shared == (uint64_t)i + 1);
        }
        lido_release(taken[0]);
        admin_wait_for(admin, 1, "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like 'insert into mux%%'");
        /* when  */ admin_run(admin, "select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type = 'Lock' and query like 'insert into mux%%'");
        /* then  */ for (int i = 0; i < 12; i++) {
                ck_assert_int_eq(errand_join(&errands[i]), LIDO_EFACTORY);
                ck_assert_str_eq(errands[i].error.sqlstate, "57P01");
        }
        admin_run(locker, "commit");
        ck_assert_uint_eq(stats_now().lost, 1);
        ck_assert_int_eq(admin_number(admin, "select count(*) from mux"), 0);
        lido_release(taken[1]);
        ck_assert_int_eq(exec("select 1", 20000, &error, &result), LIDO_OK);
        PQclear(result);
}
END_TEST

START_TEST(what_was_not_sent_when_a_connection_dies_runs_on_another)
{
        struct errand errands[8];

        /* given */ open_mux(NULL, 1, 2);
        take_all(2);
        admin_run(locker, "begin; lock table mux");
        for (int i = 0; i < 8; i++) {
                errand_start(&errands[i], "insert into mux values (1)", 60000);
                ck_eventually(stats_now().shared == (uint64_t)i + 1);
        }
        lido_release(taken[0]);
        admin_wait_for(admin, 1, "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like 'insert into mux%%'");
        /* when  */ admin_run(admin, "select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type = 'Lock' and query like 'insert into mux%%'");
        ck_assert_int_eq(errand_join(&errands[0]), LIDO_EFACTORY);
        ck_assert_int_eq(errand_join(&errands[1]), LIDO_EFACTORY);
        admin_run(locker, "commit");
        lido_release(taken[1]);
        /* then  */ for (int i = 2; i < 8; i++)
                ck_assert_int_eq(errand_join(&errands[i]), LIDO_OK);
        ck_assert_int_eq(admin_number(admin, "select count(*) from mux"), 6);
}
END_TEST

START_TEST(closing_answers_those_who_wait)
{
        struct errand waiting[2], sent;

        open_mux(NULL, 1, 1);
        take_all(2);
        admin_run(locker, "begin; lock table mux");
        errand_start(&sent, "insert into mux values (1)", 60000);
        ck_eventually(stats_now().shared == 1);
        lido_release(taken[0]);
        admin_wait_for(admin, 1, "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like 'insert into mux%%'");
        for (int i = 0; i < 2; i++) {
                errand_start(&waiting[i], "select 1", 60000);
                ck_eventually(stats_now().shared == (uint64_t)i + 2);
        }
        lido_pg_mux_close(mux, NULL, NULL);
        mux = NULL;
        ck_assert_int_eq(errand_join(&sent), LIDO_ECLOSED);
        ck_assert_int_eq(errand_join(&waiting[0]), LIDO_ECLOSED);
        ck_assert_int_eq(errand_join(&waiting[1]), LIDO_ECLOSED);
        admin_run(locker, "commit");
        lido_release(taken[1]);
}
END_TEST

START_TEST(a_closed_pool_is_told_to_those_who_wait)
{
        struct errand errand;
        PGresult *result;

        open_mux(NULL, 1, 0);
        take_all(2);
        errand_start(&errand, "select 1", 60000);
        ck_eventually(stats_now().shared == 1);
        lido_pool_close(pool, 1000);
        ck_assert_int_eq(errand_join(&errand), LIDO_ECLOSED);
        ck_assert_int_eq(exec("select 1", 1000, &error, &result), LIDO_ECLOSED);
        give_all(2);
}
END_TEST

START_TEST(arguments_that_make_no_sense_are_refused)
{
        struct lido_pg_mux_options options = LIDO_PG_MUX_OPTIONS_INIT;
        struct lido_pg_exec_options how = LIDO_PG_EXEC_OPTIONS_INIT;
        PGresult *result;

        open_mux(NULL, 1, 0);
        ck_assert_int_eq(lido_pg_mux_open(NULL, pool, NULL, NULL), LIDO_EINVAL);
        ck_assert_int_eq(lido_pg_mux_open(&mux, NULL, NULL, NULL), LIDO_EINVAL);
        options.size = 1;
        ck_assert_int_eq(lido_pg_mux_open(&mux, pool, NULL, &options), LIDO_EINVAL);
        ck_assert_int_eq(lido_pg_mux_exec(NULL, "select 1", NULL, 0, NULL, &result), LIDO_EINVAL);
        ck_assert_int_eq(lido_pg_mux_exec(mux, NULL, NULL, 0, NULL, &result), LIDO_EINVAL);
        ck_assert_int_eq(lido_pg_mux_exec(mux, "select 1", NULL, 1, NULL, &result), LIDO_EINVAL);
        ck_assert_int_eq(lido_pg_mux_exec(mux, "select 1", NULL, 0, NULL, NULL), LIDO_EINVAL);
        how.flags = 2;
        ck_assert_int_eq(lido_pg_mux_exec(mux, "select 1", NULL, 0, &how, &result), LIDO_EINVAL);
        ck_assert_int_eq(lido_pg_mux_exec_async(mux, "select 1", NULL, 0, NULL, NULL, NULL), LIDO_EINVAL);
        lido_pg_mux_close(NULL, NULL, NULL);
}
END_TEST

/* ---- the storm ------------------------------------------------------------------------------------------- */

/* Each insert has a number of its own: afterwards the table says what was done, and it must be what the callers were told. */
#define STORM_THREADS 12
#define STORM_INSERTS 150

static struct {
        char outcome[STORM_THREADS][STORM_INSERTS]; /* 'd'one, 'n'ot done, '?' */
        _Atomic uint32_t running;
} storm;

static void insert_often(void *unused, unsigned number)
{
        (void)unused;
        for (unsigned i = 0; i < STORM_INSERTS; i++) {
                struct lido_pg_param params[] = { lido_pg_int4((int32_t)(number * STORM_INSERTS + i)) };
                struct lido_pg_exec_options options = LIDO_PG_EXEC_OPTIONS_INIT;
                struct lido_error what = { .code = LIDO_OK };
                PGresult *result = NULL;
                int rc;

                options.error = &what;
                options.timeout_ms = i % 10 == 9 ? 1 : 60000;
                rc = lido_pg_mux_exec(mux, "insert into mux values ($1)", params, 1, &options, &result);
                if (rc == LIDO_OK)
                        storm.outcome[number][i] = 'd';
                else if (rc == LIDO_ETIMEDOUT)
                        storm.outcome[number][i] = 'n';
                else
                        storm.outcome[number][i] = rc == LIDO_EFACTORY || rc == LIDO_EDEADLINE ? '?' : 'x';
                PQclear(result);
        }
        sub_acq_rel(&storm.running, 1);
}

START_TEST(in_a_storm_of_killed_backends_each_statement_has_exactly_one_outcome_and_it_is_true)
{
        struct crew crew;
        char probe[64];
        unsigned known = 0;

        /* given */ lido_pool_free(pool);
        open_pool(4, NULL);
        open_mux(NULL, 2, 8);
        store_relaxed(&storm.running, STORM_THREADS);
        crew_start(&crew, STORM_THREADS, insert_often, NULL);
        /* when  */ while (load_acquire(&storm.running) > 0) {
                admin_run(admin, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'lido' "
                                 "order by random() limit 1");
                admin_run(admin, "select pg_sleep(0.005)");
        }
        crew_join(&crew);
        /* then  */ lido_pg_mux_close(mux, NULL, NULL);
        mux = NULL;
        admin_wait_for(admin, 0, "select count(*) from pg_stat_activity where application_name = 'lido' and state = 'active'");
        ck_assert_int_eq(admin_number(admin, "select count(*) - count(distinct id) from mux"), 0);
        for (int thread = 0; thread < STORM_THREADS; thread++)
                for (int i = 0; i < STORM_INSERTS; i++) {
                        long there;

                        if (storm.outcome[thread][i] == '?')
                                continue;
                        known++;
                        there = admin_number(admin, "select count(*) from mux where id = %d", thread * STORM_INSERTS + i);
                        snprintf(probe, sizeof probe, "%d: %c, %ld", thread * STORM_INSERTS + i, storm.outcome[thread][i], there);
                        ck_assert_msg(there == (storm.outcome[thread][i] == 'd' ? 1 : 0), "%s", probe);
                }
        ck_assert_uint_gt(known, STORM_THREADS);
}
END_TEST

/* ---- from a loop ----------------------------------------------------------------------------------------- */

static struct looper looper;
static bool mux_is_gone;

static void note_gone(void *unused)
{
        (void)unused;
        mux_is_gone = true;
}

static void loop_up(uint32_t connections)
{
        looper_init(&looper);
        mux_is_gone = false;
        open_mux(looper.loop, connections, 0);
}

static void loop_down(void)
{
        if (mux)
                lido_pg_mux_close(mux, note_gone, NULL);
        ck_eventually(looper_turn(&looper) && mux_is_gone);
        mux = NULL;
        looper_fini(&looper);
}

struct reply {
        unsigned calls;
        int code;
        char value[32];
        char sqlstate[6];
        struct reply *next; /* to be asked from the callback */
};

static void on_reply(int status, PGresult *result, const struct lido_error *what, void *context)
{
        struct reply *reply = context;

        reply->calls++;
        reply->code = status;
        memcpy(reply->sqlstate, what->sqlstate, sizeof reply->sqlstate);
        if (result && PQntuples(result) > 0)
                snprintf(reply->value, sizeof reply->value, "%s", PQgetvalue(result, 0, 0));
        PQclear(result);
        if (reply->next)
                must(lido_pg_mux_exec_async(mux, "select 'next'", NULL, 0, NULL, on_reply, reply->next) == LIDO_OK);
}

static void on_reply_close(int status, PGresult *result, const struct lido_error *what, void *context)
{
        on_reply(status, result, what, context);
        if (mux)
                lido_pg_mux_close(mux, note_gone, NULL);
        mux = NULL;
}

static void ask(const char *sql, int64_t timeout_ms, uint32_t flags, struct reply *reply)
{
        struct lido_pg_exec_options options = LIDO_PG_EXEC_OPTIONS_INIT;

        options.timeout_ms = timeout_ms;
        options.flags = flags;
        ck_assert_int_eq(lido_pg_mux_exec_async(mux, sql, NULL, 0, &options, on_reply, reply), LIDO_OK);
        ck_assert_uint_eq(reply->calls, 0);
}

START_TEST(a_loop_is_called_back_once_for_each_statement_with_its_own_answer)
{
        struct reply replies[200] = { { .calls = 0 } };

        loop_up(2);
        for (int i = 0; i < 200; i++) {
                char sql[32];

                snprintf(sql, sizeof sql, i % 10 == 3 ? "select %d/0" : "select %d", i);
                ask(sql, 0, 0, &replies[i]);
        }
        for (int i = 0; i < 200; i++) {
                char expected[32];

                ck_eventually(looper_turn(&looper) && replies[i].calls > 0);
                snprintf(expected, sizeof expected, "%d", i);
                if (i % 10 == 3)
                        ck_assert_str_eq(replies[i].sqlstate, "22012");
                else
                        ck_assert_str_eq(replies[i].value, expected);
        }
        ck_assert_uint_eq(stats_now().shared, 200);
        loop_down();
        for (int i = 0; i < 200; i++)
                ck_assert_uint_eq(replies[i].calls, 1);
}
END_TEST

/* A descriptor of the single connection's socket, to look at. */
static int socket_of_pool(void)
{
        lido_lease lease;
        int fd;

        ck_assert_int_eq(lido_acquire(pool, 20000, &lease), LIDO_OK);
        fd = dup(PQsocket(lido_pg_conn(lease)));
        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        return fd;
}

/* The kernel tells more than the C library's struct has fields for. */
struct tcp_counts {
        struct tcp_info begin;
        uint64_t rates[2], bytes[2];
        uint32_t segments[2], notsent, min_rtt, data_segments_in, data_segments_out;
};

static unsigned segments_sent(int fd)
{
        struct tcp_counts counts = { .data_segments_out = 0 };
        socklen_t size = sizeof counts;

        ck_assert_int_eq(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &counts, &size), 0);
        return counts.data_segments_out;
}

START_TEST(what_a_turn_asks_for_goes_over_tcp_in_one_piece)
{
        enum { COUNT = 60 }; /* on one connection at once */
        struct reply replies[COUNT] = { { .calls = 0 } };
        unsigned before;
        int fd, is_corked = 1;
        socklen_t size = sizeof is_corked;

        lido_pool_free(pool);
        open_pool_at(server_tcp_conninfo(), 1, NULL);
        fd = socket_of_pool();
        loop_up(1);
        before = segments_sent(fd);
        ck_assert_uint_gt(before, 0); /* the kernel counts */
        for (int i = 0; i < COUNT; i++)
                ask("select 1", 0, 0, &replies[i]);
        for (int i = 0; i < COUNT; i++)
                ck_eventually(looper_turn(&looper) && replies[i].calls > 0);
        ck_assert_uint_le(segments_sent(fd) - before, 4);
        ck_assert_int_eq(getsockopt(fd, IPPROTO_TCP, TCP_CORK, &is_corked, &size), 0);
        ck_assert_int_eq(is_corked, 0);
        loop_down();
        close(fd);
}
END_TEST

START_TEST(a_callback_may_ask_again)
{
        struct reply second = { .calls = 0 }, first = { .next = &second };

        loop_up(1);
        ask("select 1", 0, 0, &first);
        ck_eventually(looper_turn(&looper) && second.calls > 0);
        ck_assert_str_eq(second.value, "next");
        loop_down();
}
END_TEST

START_TEST(a_callback_may_close_the_multiplexer)
{
        struct reply first = { .calls = 0 }, second = { .calls = 0 };

        loop_up(1);
        ck_assert_int_eq(lido_pg_mux_exec_async(mux, "select 1", NULL, 0, NULL, on_reply_close, &first), LIDO_OK);
        ask("select pg_sleep(600)", 0, 0, &second);
        ck_eventually(looper_turn(&looper) && first.calls > 0);
        loop_down();
        ck_assert_int_eq(first.code, LIDO_OK);
        ck_assert_uint_eq(second.calls, 1);
        ck_assert_int_eq(second.code, LIDO_ECLOSED);
}
END_TEST

/* The multiplexer goes with the call that told of it; what is told is to be there still. */
START_TEST(a_callback_of_a_deadline_may_close_the_multiplexer)
{
        struct lido_pg_exec_options options = LIDO_PG_EXEC_OPTIONS_INIT;
        struct reply reply = { .calls = 0 };

        loop_up(1);
        take_all(2);
        options.timeout_ms = 20;
        ck_assert_int_eq(lido_pg_mux_exec_async(mux, "select 1", NULL, 0, &options, on_reply_close, &reply), LIDO_OK);
        ck_eventually(looper_turn(&looper) && reply.calls > 0);
        ck_assert_int_eq(reply.code, LIDO_ETIMEDOUT);
        give_all(2);
        loop_down();
        ck_assert_uint_eq(reply.calls, 1);
}
END_TEST

START_TEST(a_deadline_on_a_loop_detaches_its_caller_alone)
{
        struct reply slow = { .calls = 0 }, behind = { .calls = 0 };

        loop_up(1);
        take_all(1);
        admin_run(locker, "begin; lock table mux");
        ask("insert into mux values (1)", 300, 0, &slow);
        ask("select 2", 60000, 0, &behind);
        ck_eventually(looper_turn(&looper) && slow.calls > 0);
        ck_assert_int_eq(slow.code, LIDO_EDEADLINE);
        ck_assert_uint_eq(behind.calls, 0);
        admin_run(locker, "commit");
        ck_eventually(looper_turn(&looper) && behind.calls > 0);
        ck_assert_str_eq(behind.value, "2");
        give_all(1);
        loop_down();
        ck_assert_int_eq(admin_number(admin, "select count(*) from mux"), 1);
}
END_TEST

START_TEST(a_deadline_in_the_queue_of_a_loop_says_that_nothing_was_sent)
{
        struct reply reply = { .calls = 0 };

        loop_up(1);
        take_all(2);
        ask("insert into mux values (1)", 20, 0, &reply);
        ck_eventually(looper_turn(&looper) && reply.calls > 0);
        ck_assert_int_eq(reply.code, LIDO_ETIMEDOUT);
        give_all(2);
        loop_down();
        ck_assert_int_eq(admin_number(admin, "select count(*) from mux"), 0);
        ck_assert_uint_eq(reply.calls, 1);
}
END_TEST

START_TEST(on_a_loop_too_what_changes_the_session_is_alone_and_what_has_no_sense_refused)
{
        struct reply alone = { .calls = 0 }, slow = { .calls = 0 }, other = { .calls = 0 };

        loop_up(1);
        ck_assert_int_eq(lido_pg_mux_exec_async(mux, "begin", NULL, 0, NULL, on_reply, &alone), LIDO_EINVAL);
        ask("select set_config('application_name', 'changed', false)", 0, 0, &alone);
        ask("select pg_sleep(0)", 0, LIDO_PG_ALONE, &slow);
        ask("select 3", 0, 0, &other);
        ck_eventually(looper_turn(&looper) && alone.calls > 0 && slow.calls > 0 && other.calls > 0);
        ck_assert_int_eq(alone.code, LIDO_OK);
        ck_assert_int_eq(slow.code, LIDO_OK);
        ck_assert_str_eq(other.value, "3");
        ck_assert_uint_eq(stats_now().alone, 2);
        admin_wait_for(admin, 0, "select count(*) from pg_stat_activity where application_name = 'changed'");
        loop_down();
}
END_TEST

START_TEST(a_loop_survives_the_death_of_its_connections)
{
        struct reply replies[20] = { { .calls = 0 } }, after = { .calls = 0 };

        loop_up(2);
        admin_run(locker, "begin; lock table mux");
        for (int i = 0; i < 20; i++)
                ask("insert into mux values (1)", 0, 0, &replies[i]);
        do
                looper_turn(&looper);
        while (admin_number(admin, "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like 'insert into mux%%'") < 2);
        admin_run(admin, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'lido'");
        for (int i = 0; i < 20; i++) {
                ck_eventually(looper_turn(&looper) && replies[i].calls > 0);
                ck_assert_int_eq(replies[i].code, LIDO_EFACTORY);
        }
        admin_run(locker, "commit");
        ask("select 1", 60000, 0, &after);
        ck_eventually(looper_turn(&looper) && after.calls > 0);
        ck_assert_int_eq(after.code, LIDO_OK);
        loop_down();
        for (int i = 0; i < 20; i++)
                ck_assert_uint_eq(replies[i].calls, 1);
}
END_TEST

static void ask_three(void *unused, unsigned number)
{
        (void)unused;
        (void)number;
        for (int i = 0; i < 3; i++) {
                PGresult *result;

                if (exec("select 1", 60000, NULL, &result) != LIDO_OK)
                        add_relaxed(&wrong, 1);
                PQclear(result);
        }
        sub_acq_rel(&storm.running, 1);
}

START_TEST(threads_may_use_the_shard_of_a_loop)
{
        struct crew crew;

        loop_up(1);
        lido_loop_hold(looper.loop);
        take_all(1);
        store_relaxed(&storm.running, 8);
        crew_start(&crew, 8, ask_three, NULL);
        ck_eventually(looper_turn(&looper) && load_acquire(&storm.running) == 0);
        crew_join(&crew);
        ck_assert_uint_eq(load_relaxed(&wrong), 0);
        give_all(1);
        lido_loop_unhold(looper.loop);
        loop_down();
}
END_TEST

START_TEST(an_idle_multiplexer_does_not_keep_the_loop_running)
{
        struct reply reply = { .calls = 0 };

        loop_up(1);
        ask("select 1", 0, 0, &reply);
        uv_run(&looper.uv, UV_RUN_DEFAULT);
        ck_assert_uint_eq(reply.calls, 1);
        ck_assert_uint_eq(stats_now().returned, 1);
        loop_down();
}
END_TEST

START_TEST(a_loop_that_waits_for_itself_is_told_so)
{
        PGresult *result;

        loop_up(1);
        ck_assert_int_eq(exec("select 1", 1000, &error, &result), LIDO_EDEADLK);
        loop_down();
}
END_TEST

int main(void)
{
        return suite_run_with("pg/mux",
                              (const TTest *[]){
                                      a_statement_takes_an_idle_connection_directly,
                                      under_contention_statements_share_and_each_gets_its_own_answer,
                                      each_is_a_transaction_of_its_own_and_fails_alone,
                                      a_constraint_that_fails_at_the_commit_fails_its_own_statement,
                                      a_connection_is_shared_from_the_first_contention_on_and_goes_back_after_it,
                                      a_busy_shard_gives_the_pool_its_connection_back_now_and_then,
                                      a_deadline_detaches_the_caller_and_nobody_else,
                                      a_deadline_in_the_queue_says_that_nothing_was_sent,
                                      a_direct_statement_whose_commit_is_refused_says_so,
                                      a_deadline_of_a_direct_statement_leaves_the_connection_whole,
                                      what_changes_the_session_has_a_lease_to_itself_and_leaves_nothing_behind,
                                      what_has_no_sense_on_its_own_is_refused_before_it_is_sent,
                                      a_transaction_left_open_never_reaches_a_neighbour,
                                      copy_never_reaches_a_neighbour,
                                      a_session_found_changed_is_taken_out_and_reset,
                                      the_limit_of_statements_under_way_is_kept,
                                      the_limit_of_bytes_under_way_is_kept_and_a_single_larger_one_passes,
                                      a_full_queue_is_refused,
                                      a_result_outlives_multiplexer_and_pool,
                                      a_statement_whose_plan_is_outdated_runs_once_more_prepared_anew,
                                      a_statement_that_cannot_be_prepared_says_its_sqlstate_each_time,
                                      no_more_statements_stay_prepared_than_the_options_say,
                                      the_death_of_the_server_process_fails_each_caller_once,
                                      what_was_not_sent_when_a_connection_dies_runs_on_another,
                                      closing_answers_those_who_wait,
                                      a_closed_pool_is_told_to_those_who_wait,
                                      arguments_that_make_no_sense_are_refused,
                                      in_a_storm_of_killed_backends_each_statement_has_exactly_one_outcome_and_it_is_true,
                                      a_loop_is_called_back_once_for_each_statement_with_its_own_answer,
                                      what_a_turn_asks_for_goes_over_tcp_in_one_piece,
                                      a_callback_may_ask_again,
                                      a_callback_may_close_the_multiplexer,
                                      a_callback_of_a_deadline_may_close_the_multiplexer,
                                      a_deadline_on_a_loop_detaches_its_caller_alone,
                                      a_deadline_in_the_queue_of_a_loop_says_that_nothing_was_sent,
                                      on_a_loop_too_what_changes_the_session_is_alone_and_what_has_no_sense_refused,
                                      a_loop_survives_the_death_of_its_connections,
                                      threads_may_use_the_shard_of_a_loop,
                                      an_idle_multiplexer_does_not_keep_the_loop_running,
                                      a_loop_that_waits_for_itself_is_told_so,
                                      NULL,
                              },
                              set_up, tear_down);
}
