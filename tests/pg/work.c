/* Reading off and running statements without blocking, driven by poll(2) here as on a connector thread. The same on a loop:
 * pg/watch.c. */
#include "pg/work.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "support/fakepg.h"
#include "support/pgfixture.h"
#include "support/suite.h"

#define BUDGET (1u << 20)
#define STEPS(...) ((const char *const[]){__VA_ARGS__, NULL})

static PGconn *conn;
static struct work work;

static void set_up(void)
{
        conn = admin_connect(server_conninfo());
}

static void tear_down(void)
{
        PQfinish(conn);
}

static enum work_want go_on(void)
{
        enum work_want want;

        while ((want = work_advance(&work)) == WORK_READ || want == WORK_READ_WRITE) {
                struct pollfd fd = {.fd = PQsocket(work.conn), .events = want == WORK_READ ? POLLIN : POLLIN | POLLOUT};

                ck_assert_msg(poll(&fd, 1, 20000) == 1, "the work waits for what does not come");
        }
        return want;
}

static enum work_want do_work(const char *const *steps)
{
        work_start(&work, conn, steps, BUDGET);
        return go_on();
}

static void discard(PGresult *result, ExecStatusType wanted)
{
        ck_assert_msg(PQresultStatus(result) == wanted, "%s: %s", PQresStatus(PQresultStatus(result)),
                      PQresultErrorMessage(result));
        PQclear(result);
}

/* At rest, in blocking mode, and its answers are those to its own questions. */
static void assert_usable(void)
{
        ck_assert_int_eq(PQtransactionStatus(conn), PQTRANS_IDLE);
        ck_assert_int_eq(PQisnonblocking(conn), 0);
        ck_assert_int_eq(admin_number(conn, "select 4242"), 4242);
}

START_TEST(an_empty_statement_is_a_sign_of_life)
{
        ck_assert_int_eq(do_work(STEPS("")), WORK_DONE);
        assert_usable();
}
END_TEST

START_TEST(no_statement_is_done_at_once)
{
        ck_assert_int_eq(do_work((const char *const[]){NULL}), WORK_DONE);
        assert_usable();
}
END_TEST

START_TEST(an_open_transaction_is_rolled_back)
{
        discard(PQexec(conn, "create temp table t (v int)"), PGRES_COMMAND_OK);
        discard(PQexec(conn, "begin; insert into t values (1)"), PGRES_COMMAND_OK);
        ck_assert_int_eq(do_work(STEPS("ROLLBACK")), WORK_DONE);
        assert_usable();
        ck_assert_int_eq(admin_number(conn, "select count(*) from t"), 0);
}
END_TEST

START_TEST(a_failed_transaction_is_rolled_back_and_the_session_stays_the_same)
{
        int pid = PQbackendPID(conn);
        discard(PQexec(conn, "begin"), PGRES_COMMAND_OK);
        discard(PQexec(conn, "select 1/0"), PGRES_FATAL_ERROR);
        ck_assert_int_eq(do_work(STEPS("ROLLBACK", "DISCARD ALL")), WORK_DONE);
        assert_usable();
        ck_assert_int_eq(admin_number(conn, "select pg_backend_pid()"), pid);
}
END_TEST

START_TEST(unread_rows_are_dropped_before_the_first_statement)
{
        ck_assert_int_eq(PQsendQuery(conn, "select generate_series(1, 1000)"), 1);
        ck_assert_int_eq(do_work(STEPS("")), WORK_DONE);
        assert_usable();
}
END_TEST

START_TEST(leftovers_of_single_row_mode_are_dropped)
{
        ck_assert_int_eq(PQsendQuery(conn, "begin; select generate_series(1, 1000)"), 1);
        ck_assert_int_eq(PQsetSingleRowMode(conn), 1);
        discard(PQgetResult(conn), PGRES_COMMAND_OK);
        discard(PQgetResult(conn), PGRES_SINGLE_TUPLE);
        ck_assert_int_eq(do_work(STEPS("ROLLBACK")), WORK_DONE);
        assert_usable();
}
END_TEST

START_TEST(an_error_in_what_was_left_is_no_failure_of_the_work)
{
        ck_assert_int_eq(PQsendQuery(conn, "select 1/0"), 1);
        ck_assert_int_eq(do_work(STEPS("")), WORK_DONE);
        assert_usable();
}
END_TEST

START_TEST(copy_out_is_read_to_its_end)
{
        discard(PQexec(conn, "copy (select generate_series(1, 1000)) to stdout"), PGRES_COPY_OUT);
        ck_assert_int_eq(do_work(STEPS("")), WORK_DONE);
        assert_usable();
}
END_TEST

START_TEST(more_rows_than_the_budget_are_a_failure_and_not_read)
{
        ck_assert_int_eq(PQsendQuery(conn, "select repeat('x', 1000), generate_series(1, 100000000)"), 1);
        ck_assert_int_eq(PQsetSingleRowMode(conn), 1);
        ck_assert_int_eq(do_work(STEPS("")), WORK_FAILED);
        ck_assert_ptr_nonnull(strstr(work.error.text, "unread rows"));
}
END_TEST

START_TEST(more_of_a_copy_than_the_budget_is_a_failure_and_not_read)
{
        discard(PQexec(conn, "copy (select repeat('x', 1000), generate_series(1, 100000000)) to stdout"), PGRES_COPY_OUT);
        ck_assert_int_eq(do_work(STEPS("")), WORK_FAILED);
        ck_assert_ptr_nonnull(strstr(work.error.text, "COPY"));
}
END_TEST

START_TEST(copy_in_is_not_understood_and_does_not_spin)
{
        discard(PQexec(conn, "create temp table t (v int); copy t from stdin"), PGRES_COPY_IN);
        ck_assert_int_eq(do_work(STEPS("ROLLBACK")), WORK_FAILED);
}
END_TEST

START_TEST(a_statement_that_fails_fails_the_work_with_its_sqlstate)
{
        ck_assert_int_eq(do_work(STEPS("select 1/0", "select 1")), WORK_FAILED);
        ck_assert_str_eq(work.error.sqlstate, "22012");
}
END_TEST

START_TEST(the_servers_last_words_are_kept)
{
        PGconn *admin = admin_connect(server_conninfo());
        admin_run(admin, "select pg_terminate_backend(%d)", PQbackendPID(conn));
        admin_wait_for(admin, 0, "select count(*) from pg_stat_activity where pid = %d", PQbackendPID(conn));
        ck_assert_int_eq(do_work(STEPS("")), WORK_FAILED);
        ck_assert_str_eq(work.error.sqlstate, "57P01");
        PQfinish(admin);
}
END_TEST

START_TEST(a_server_that_does_not_answer_is_left_when_the_socket_is_shut_down)
{
        /* given */ PGconn *admin = admin_connect(server_conninfo());
        work_start(&work, conn, STEPS("select pg_sleep(300)"), BUDGET);
        ck_assert_int_eq(work_advance(&work), WORK_READ);
        /* when  */ shutdown(PQsocket(conn), SHUT_RDWR);
        /* then  */ ck_assert_int_eq(go_on(), WORK_FAILED);
        PQfinish(admin);
}
END_TEST

START_TEST(a_large_statement_goes_out_in_pieces)
{
        static char sql[3000000];
        size_t length = (size_t)sprintf(sql, "select length('");
        memset(sql + length, 'x', sizeof sql - length - 10);
        strcpy(sql + sizeof sql - 10, "')");
        ck_assert_int_eq(do_work(STEPS(sql)), WORK_DONE);
        assert_usable();
}
END_TEST

START_TEST(large_tls_records_do_not_stall)
{
        struct own_server server;

        own_server_start(&server, "--tls");
        PQfinish(conn);
        conn = admin_connect(server.tcp_conninfo);
        ck_assert_int_eq(PQsslInUse(conn), 1);
        for (int rows = 1; rows <= 120; rows++) {
                char sql[100];

                snprintf(sql, sizeof sql, "select repeat('x', 3000) from generate_series(1, %d)", rows);
                ck_assert_int_eq(PQsendQuery(conn, sql), 1);
                ck_assert_int_eq(do_work(STEPS("")), WORK_DONE);
        }
        assert_usable();
        own_server_remove(&server);
}
END_TEST

int main(void)
{
        return suite_run_with("pg/work",
                              (const TTest *[]){
                                      an_empty_statement_is_a_sign_of_life,
                                      no_statement_is_done_at_once,
                                      an_open_transaction_is_rolled_back,
                                      a_failed_transaction_is_rolled_back_and_the_session_stays_the_same,
                                      unread_rows_are_dropped_before_the_first_statement,
                                      leftovers_of_single_row_mode_are_dropped,
                                      an_error_in_what_was_left_is_no_failure_of_the_work,
                                      copy_out_is_read_to_its_end,
                                      more_rows_than_the_budget_are_a_failure_and_not_read,
                                      more_of_a_copy_than_the_budget_is_a_failure_and_not_read,
                                      copy_in_is_not_understood_and_does_not_spin,
                                      a_statement_that_fails_fails_the_work_with_its_sqlstate,
                                      the_servers_last_words_are_kept,
                                      a_server_that_does_not_answer_is_left_when_the_socket_is_shut_down,
                                      a_large_statement_goes_out_in_pieces,
                                      large_tls_records_do_not_stall,
                                      NULL,
                              },
                              set_up, tear_down);
}
