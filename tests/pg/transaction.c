/* Transactions: what is committed, what is undone, when the function is called again and when never. */
#include "lido/pg.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lido/service.h"
#include "support/patience.h"
#include "support/pgfixture.h"
#include "support/suite.h"

static struct lido_service *service;
static struct lido_pool *pool;
static struct lido_pg_transaction_options options;
static struct lido_error error;
static PGconn *admin;
static int calls;

static void set_up(void)
{
        struct lido_pg_options pg = LIDO_PG_OPTIONS_INIT;
        struct lido_pool_options pool_options = LIDO_POOL_OPTIONS_INIT;

        pg.conninfo = server_conninfo();
        pool_options.max = 2;
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
        ck_assert_int_eq(lido_pg_pool_open(&pool, service, &pg, &pool_options), LIDO_OK);
        admin = admin_connect(server_conninfo());
        admin_run(admin, "create table account (id int primary key, amount int); "
                         "insert into account values (1, 100), (2, 100)");
        options = (struct lido_pg_transaction_options)LIDO_PG_TRANSACTION_OPTIONS_INIT;
        options.timeout_ms = 60000;
        options.error = &error;
        calls = 0;
}

static void tear_down(void)
{
        admin_run(admin, "drop table account");
        PQfinish(admin);
        lido_pool_free(pool);
        ck_assert_int_eq(lido_service_stop(service, 20000), LIDO_OK);
}

static int run(lido_lease lease, const char *sql)
{
        struct lido_pg_rows *rows;
        struct lido_pg_row row;
        int rc = lido_pg_query_on(lease, sql, NULL, 0, NULL, &rows);

        if (rc != LIDO_OK)
                return rc;
        while ((rc = lido_pg_next_row(rows, &row)) == 1)
                continue;
        lido_pg_rows_close(rows);
        return rc;
}

static int value(lido_lease lease, const char *sql)
{
        struct lido_pg_rows *rows;
        struct lido_pg_row row;

        must(lido_pg_query_on(lease, sql, NULL, 0, NULL, &rows) == LIDO_OK);
        must(lido_pg_next_row(rows, &row) == 1);
        int number = (int)strtol(PQgetvalue(row.result, row.index, 0), NULL, 10);
        lido_pg_rows_close(rows);
        return number;
}

static long amount(int id)
{
        return admin_number(admin, "select amount from account where id = %d", id);
}

static int move(lido_lease lease, void *context)
{
        (void)context;
        calls++;
        ck_assert_int_eq(run(lease, "update account set amount = amount - 10 where id = 1"), LIDO_OK);
        ck_assert_int_eq(amount(1), 100); /* seen by nobody yet */
        return run(lease, "update account set amount = amount + 10 where id = 2");
}

START_TEST(what_the_function_did_is_committed_as_a_whole)
{
        ck_assert_int_eq(lido_pg_transaction(pool, &options, move, NULL), LIDO_OK);
        ck_assert_int_eq(calls, 1);
        ck_assert_int_eq(amount(1), 90);
        ck_assert_int_eq(amount(2), 110);
}
END_TEST

static int move_and_regret(lido_lease lease, void *code)
{
        move(lease, NULL);
        return *(int *)code;
}

START_TEST(what_the_function_returns_is_returned_and_all_is_undone)
{
        int code = -4711;

        ck_assert_int_eq(lido_pg_transaction(pool, &options, move_and_regret, &code), code);
        ck_assert_int_eq(calls, 1);
        ck_assert_int_eq(amount(1), 100);
        ck_assert_int_eq(lido_pg_transaction(pool, &options, move, NULL), LIDO_OK); /* nothing is left of the first */
        ck_assert_int_eq(amount(1), 90);
}
END_TEST

/* ---- once more ------------------------------------------------------------------------------------------- */

/* Somebody else changes the row in the middle of the first `*times` calls. */
static int meet_somebody(lido_lease lease, void *times)
{
        int seen = value(lease, "select amount from account where id = 1");
        char sql[100];

        if (++calls <= *(int *)times)
                admin_run(admin, "update account set amount = amount + 1 where id = 1");
        snprintf(sql, sizeof sql, "update account set amount = %d where id = 1", seen - 10);
        return run(lease, sql);
}

START_TEST(after_a_serialization_failure_it_is_done_again_on_what_is_true_then)
{
        int times = 2;

        options.isolation = LIDO_PG_REPEATABLE_READ;
        ck_assert_int_eq(lido_pg_transaction(pool, &options, meet_somebody, &times), LIDO_OK);
        ck_assert_int_eq(calls, 3);
        ck_assert_int_eq(amount(1), 92);
}
END_TEST

static int meet_somebody_by_libpq(lido_lease lease, void *times)
{
        PGconn *conn = lido_pg_conn(lease);
        PGresult *result;
        int ok;

        admin_number(conn, "select amount from account where id = 1");
        if (++calls <= *(int *)times)
                admin_run(admin, "update account set amount = amount + 1 where id = 1");
        result = PQexec(conn, "update account set amount = 0 where id = 1");
        ok = PQresultStatus(result) == PGRES_COMMAND_OK;
        PQclear(result);
        return ok ? LIDO_OK : -4711; /* a code of its own, that says nothing */
}

START_TEST(a_function_that_calls_libpq_itself_is_done_again_too)
{
        int times = 1;

        options.isolation = LIDO_PG_SERIALIZABLE;
        ck_assert_int_eq(lido_pg_transaction(pool, &options, meet_somebody_by_libpq, &times), LIDO_OK);
        ck_assert_int_eq(calls, 2);
        ck_assert_int_eq(amount(1), 0);
}
END_TEST

START_TEST(attempts_are_bounded_and_the_last_failure_is_told)
{
        int times = 100;

        options.isolation = LIDO_PG_REPEATABLE_READ;
        options.attempts = 3;
        ck_assert_int_eq(lido_pg_transaction(pool, &options, meet_somebody, &times), LIDO_EFACTORY);
        ck_assert_str_eq(error.sqlstate, "40001");
        ck_assert_int_eq(calls, 3);
        ck_assert_int_eq(amount(1), 103);
}
END_TEST

static int meet_somebody_and_give_up(lido_lease lease, void *times)
{
        ck_assert_int_eq(meet_somebody(lease, times), LIDO_EFACTORY);
        return LIDO_ECANCELED;
}

START_TEST(a_function_that_gives_up_is_not_called_again)
{
        int times = 100;

        options.isolation = LIDO_PG_REPEATABLE_READ;
        ck_assert_int_eq(lido_pg_transaction(pool, &options, meet_somebody_and_give_up, &times), LIDO_ECANCELED);
        ck_assert_int_eq(calls, 1);
}
END_TEST

START_TEST(no_pause_goes_past_the_deadline)
{
        int times = 1000;

        options.isolation = LIDO_PG_REPEATABLE_READ;
        options.timeout_ms = 1000;
        options.backoff_min_ms = options.backoff_max_ms = INT32_MAX; /* a pause of weeks */
        ck_assert_int_eq(lido_pg_transaction(pool, &options, meet_somebody, &times), LIDO_EFACTORY);
        ck_assert_str_eq(error.sqlstate, "40001");
        ck_assert_int_le(calls, 3); /* a pause of less than a second is not likely, and short */
}
END_TEST

/* Each reads what the other writes: the one that commits last is refused, at its COMMIT. */
static int write_skew(lido_lease lease, void *others_pointer)
{
        lido_lease *other = others_pointer;

        value(lease, "select sum(amount)::int from account where id = 1");
        if (++calls == 1) {
                value(*other, "select sum(amount)::int from account where id = 2");
                ck_assert_int_eq(run(*other, "update account set amount = 0 where id = 1"), LIDO_OK);
        }
        ck_assert_int_eq(run(lease, "update account set amount = amount + 5 where id = 2"), LIDO_OK);
        if (calls == 1)
                ck_assert_int_eq(lido_pg_commit(*other, 20000, &error), LIDO_OK);
        return LIDO_OK;
}

START_TEST(a_conflict_that_comes_out_at_the_commit_is_one_too)
{
        lido_lease other;

        options.isolation = LIDO_PG_SERIALIZABLE;
        ck_assert_int_eq(lido_acquire(pool, 20000, &other), LIDO_OK);
        ck_assert_int_eq(lido_pg_begin(other, &options), LIDO_OK);
        ck_assert_int_eq(lido_pg_transaction(pool, &options, write_skew, &other), LIDO_OK);
        ck_assert_int_eq(calls, 2);
        ck_assert_int_eq(amount(1), 0);
        ck_assert_int_eq(amount(2), 105);
        lido_release(other);
}
END_TEST

struct locker {
        const char *first, *second;
        pthread_barrier_t *barrier;
        int calls, rc;
};

static int lock_both(lido_lease lease, void *locker_pointer)
{
        struct locker *locker = locker_pointer;
        int rc = run(lease, locker->first);

        if (locker->calls++ == 0)
                pthread_barrier_wait(locker->barrier); /* both have their first */
        return rc == LIDO_OK ? run(lease, locker->second) : rc;
}

static void *lock(void *locker_pointer)
{
        struct locker *locker = locker_pointer;

        locker->rc = lido_pg_transaction(pool, NULL, lock_both, locker);
        return NULL;
}

START_TEST(of_two_in_a_deadlock_both_come_through)
{
        const char *one = "update account set amount = amount + 1 where id = 1";
        const char *two = "update account set amount = amount + 1 where id = 2";
        pthread_barrier_t barrier;
        struct locker a = { one, two, &barrier, 0, 0 }, b = { two, one, &barrier, 0, 0 };
        pthread_t thread;

        pthread_barrier_init(&barrier, NULL, 2);
        ck_assert_int_eq(pthread_create(&thread, NULL, lock, &a), 0);
        lock(&b);
        pthread_join(thread, NULL);
        pthread_barrier_destroy(&barrier);
        ck_assert_int_eq(a.rc, LIDO_OK);
        ck_assert_int_eq(b.rc, LIDO_OK);
        ck_assert_int_ge(a.calls + b.calls, 3);
        ck_assert_int_eq(amount(1), 102);
        ck_assert_int_eq(amount(2), 102);
}
END_TEST

/* ---- what is not committed, and what nobody knows -------------------------------------------------------- */

static int fail_and_say_nothing(lido_lease lease, void *context)
{
        (void)context;
        calls++;
        run(lease, "update account set amount = 0 where id = 1");
        run(lease, "select 1/0");
        return LIDO_OK;
}

START_TEST(a_failed_statement_is_never_taken_for_a_commit)
{
        ck_assert_int_eq(lido_pg_transaction(pool, &options, fail_and_say_nothing, NULL), LIDO_EFACTORY);
        ck_assert_str_eq(error.sqlstate, "25P02");
        ck_assert_int_eq(calls, 1);
        ck_assert_int_eq(amount(1), 100);
}
END_TEST

/* At COMMIT, the server does this. */
static void at_commit(const char *what)
{
        admin_run(admin, "create or replace function at_commit() returns trigger language plpgsql as $$ begin %s; return null; end $$",
                  what);
        admin_run(admin, "create constraint trigger at_commit after update on account deferrable initially deferred "
                         "for each row execute function at_commit()");
}

static int update(lido_lease lease, void *context)
{
        (void)context;
        calls++;
        return run(lease, "update account set amount = amount - 10 where id = 1");
}

START_TEST(a_connection_lost_in_the_commit_leaves_it_unknown_and_is_never_tried_again)
{
        at_commit("perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(10)");
        ck_assert_int_eq(lido_pg_transaction(pool, &options, update, NULL), LIDO_EUNKNOWN);
        ck_assert_str_eq(error.sqlstate, "57P01");
        ck_assert_int_eq(calls, 1);
}
END_TEST

START_TEST(a_commit_without_an_answer_by_the_deadline_is_unknown)
{
        at_commit("perform pg_advisory_xact_lock(7)");
        admin_number(admin, "select 1 from pg_advisory_lock(7)");
        options.timeout_ms = 500;
        ck_assert_int_eq(lido_pg_transaction(pool, &options, update, NULL), LIDO_EUNKNOWN);
        ck_assert_int_eq(calls, 1);
        admin_number(admin, "select 1 from pg_advisory_unlock(7)");
}
END_TEST

START_TEST(a_commit_that_is_refused_is_known_to_have_failed)
{
        at_commit("raise exception 'no' using errcode = '23514'");
        ck_assert_int_eq(lido_pg_transaction(pool, &options, update, NULL), LIDO_EFACTORY);
        ck_assert_str_eq(error.sqlstate, "23514");
        ck_assert_int_eq(calls, 1);
        ck_assert_int_eq(amount(1), 100);
}
END_TEST

START_TEST(a_refused_commit_leaves_the_lease_as_it_was)
{
        lido_lease lease;

        at_commit("raise exception 'no' using errcode = '23514'");
        ck_assert_int_eq(lido_acquire(pool, 20000, &lease), LIDO_OK);
        ck_assert_int_eq(lido_pg_begin(lease, NULL), LIDO_OK);
        ck_assert_int_eq(update(lease, NULL), LIDO_OK);
        ck_assert_int_eq(lido_pg_commit(lease, 20000, &error), LIDO_EFACTORY);
        ck_assert_str_eq(error.sqlstate, "23514");
        ck_assert_int_eq(PQisnonblocking(lido_pg_conn(lease)), 0);
        ck_assert_int_eq(PQtransactionStatus(lido_pg_conn(lease)), PQTRANS_IDLE);
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
}
END_TEST

static int update_and_lose(lido_lease lease, void *context)
{
        int pid = value(lease, "select pg_backend_pid()");
        int rc = update(lease, context);

        admin_run(admin, "select pg_terminate_backend(%d)", pid);
        admin_wait_for(admin, 0, "select count(*) from pg_stat_activity where pid = %d", pid);
        return rc;
}

START_TEST(a_connection_lost_before_the_commit_is_no_doubt)
{
        ck_assert_int_eq(lido_pg_transaction(pool, &options, update_and_lose, NULL), LIDO_EFACTORY);
        ck_assert_str_eq(error.sqlstate, "57P01");
        ck_assert_int_eq(calls, 1);
        ck_assert_int_eq(amount(1), 100);
}
END_TEST

/* ---- what kind ------------------------------------------------------------------------------------------- */

static int look_at_the_kind(lido_lease lease, void *context)
{
        (void)context;
        ck_assert_int_eq(value(lease, "select count(*)::int from (values (current_setting('transaction_isolation')), "
                                      "(current_setting('transaction_read_only')), (current_setting('transaction_deferrable'))) v(v) "
                                      "where v in ('serializable', 'on')"), 3);
        return LIDO_OK;
}

START_TEST(isolation_and_access_are_as_the_options_say)
{
        options.isolation = LIDO_PG_SERIALIZABLE;
        options.read_only = options.deferrable = 1;
        ck_assert_int_eq(lido_pg_transaction(pool, &options, look_at_the_kind, NULL), LIDO_OK);
        ck_assert_int_eq(lido_pg_transaction(pool, &options, update, NULL), LIDO_EFACTORY);
}
END_TEST

static int look_at_the_timeout(lido_lease lease, void *pid)
{
        *(int *)pid = value(lease, "select pg_backend_pid()");
        return value(lease, "select setting::int from pg_settings where name = 'statement_timeout'") > 0 ? LIDO_OK : -1;
}

START_TEST(a_timeout_told_to_the_server_ends_with_the_transaction)
{
        int pid = 0;
        lido_lease lease;

        options.server_timeout = 1;
        ck_assert_int_eq(lido_pg_transaction(pool, &options, look_at_the_timeout, &pid), LIDO_OK);
        ck_assert_int_eq(lido_acquire(pool, 20000, &lease), LIDO_OK);
        ck_assert_int_eq(value(lease, "select setting::int from pg_settings where name = 'statement_timeout'"), 0);
        ck_assert_int_eq(value(lease, "select pg_backend_pid()"), pid);
        lido_release(lease);
}
END_TEST

static int end_it_oneself(lido_lease lease, void *context)
{
        int rc = update(lease, context);

        return rc == LIDO_OK ? run(lease, "commit") : rc;
}

START_TEST(a_function_may_end_the_transaction_itself)
{
        ck_assert_int_eq(lido_pg_transaction(pool, &options, end_it_oneself, NULL), LIDO_OK);
        ck_assert_int_eq(amount(1), 90);
}
END_TEST

START_TEST(on_a_lease_one_begins_commits_and_rolls_back_by_hand)
{
        lido_lease lease;

        ck_assert_int_eq(lido_acquire(pool, 20000, &lease), LIDO_OK);
        ck_assert_int_eq(lido_pg_commit(lease, 20000, &error), LIDO_EINVAL);
        ck_assert_int_eq(lido_pg_begin(lease, NULL), LIDO_OK);
        ck_assert_int_eq(lido_pg_begin(lease, NULL), LIDO_EBUSY);
        ck_assert_int_eq(update(lease, NULL), LIDO_OK);
        ck_assert_int_eq(lido_pg_rollback(lease, 20000, &error), LIDO_OK);
        ck_assert_int_eq(amount(1), 100);
        ck_assert_int_eq(lido_pg_begin(lease, NULL), LIDO_OK);
        ck_assert_int_eq(update(lease, NULL), LIDO_OK);
        ck_assert_int_eq(lido_pg_commit(lease, 20000, &error), LIDO_OK);
        ck_assert_int_eq(amount(1), 90);
        ck_assert_int_eq(lido_pg_begin(lease, NULL), LIDO_OK);
        run(lease, "select 1/0");
        ck_assert_int_eq(lido_pg_commit(lease, 20000, &error), LIDO_EFACTORY);
        ck_assert_str_eq(error.sqlstate, "25P02");
        lido_release(lease);
        ck_assert_int_eq(lido_pg_begin(lease, NULL), LIDO_ESTALE);
}
END_TEST

START_TEST(arguments_that_make_no_sense_are_refused)
{
        ck_assert_int_eq(lido_pg_transaction(NULL, &options, move, NULL), LIDO_EINVAL);
        ck_assert_int_eq(lido_pg_transaction(pool, &options, NULL, NULL), LIDO_EINVAL);
        options.isolation = 9;
        ck_assert_int_eq(lido_pg_transaction(pool, &options, move, NULL), LIDO_EINVAL);
        ck_assert_int_eq(calls, 0);
}
END_TEST

int main(void)
{
        return suite_run_with("pg/transaction",
                              (const TTest *[]){
                                      what_the_function_did_is_committed_as_a_whole,
                                      what_the_function_returns_is_returned_and_all_is_undone,
                                      after_a_serialization_failure_it_is_done_again_on_what_is_true_then,
                                      a_function_that_calls_libpq_itself_is_done_again_too,
                                      attempts_are_bounded_and_the_last_failure_is_told,
                                      a_function_that_gives_up_is_not_called_again,
                                      no_pause_goes_past_the_deadline,
                                      a_conflict_that_comes_out_at_the_commit_is_one_too,
                                      of_two_in_a_deadlock_both_come_through,
                                      a_failed_statement_is_never_taken_for_a_commit,
                                      a_connection_lost_in_the_commit_leaves_it_unknown_and_is_never_tried_again,
                                      a_commit_without_an_answer_by_the_deadline_is_unknown,
                                      a_commit_that_is_refused_is_known_to_have_failed,
                                      a_refused_commit_leaves_the_lease_as_it_was,
                                      a_connection_lost_before_the_commit_is_no_doubt,
                                      isolation_and_access_are_as_the_options_say,
                                      a_timeout_told_to_the_server_ends_with_the_transaction,
                                      a_function_may_end_the_transaction_itself,
                                      on_a_lease_one_begins_commits_and_rolls_back_by_hand,
                                      arguments_that_make_no_sense_are_refused,
                                      NULL,
                              },
                              set_up, tear_down);
}
