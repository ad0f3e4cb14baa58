/* The pooled object by itself, without a pool: what it notices, in what state it says it comes back, how it ends. What the
 * loop does with it is tested in pg/watch.c. */
#include "pg/session.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "support/fakepg.h"
#include "support/pgfixture.h"
#include "support/suite.h"

static struct pg_options options;
static unsigned descriptors;
static PGconn *admin;

static void set_up(void)
{
        struct lido_pg_options given = LIDO_PG_OPTIONS_INIT;

        descriptors = open_descriptors();
        admin = admin_connect(server_conninfo());
        ck_assert_int_eq(options_init(&options, &given, "test"), LIDO_OK);
}

static void tear_down(void)
{
        options_fini(&options);
        PQfinish(admin);
        ck_assert_uint_eq(open_descriptors(), descriptors);
}

static struct pg_session *wrap(PGconn *conn)
{
        struct pg_session *session;

        ck_assert_int_eq(session_new(&session, conn, &options), LIDO_OK);
        session_expose(session);
        return session;
}

static struct pg_session *session_of_server(void)
{
        return wrap(admin_connect(server_conninfo()));
}

static void terminate(const struct pg_session *session)
{
        int pid = PQbackendPID(session->conn);

        admin_run(admin, "select pg_terminate_backend(%d)", pid);
        admin_wait_for(admin, 0, "select count(*) from pg_stat_activity where pid = %d", pid);
}

static void wait_readable(const struct pg_session *session)
{
        struct pollfd fd = {.fd = session->line->fd, .events = POLLIN};

        ck_assert_int_eq(poll(&fd, 1, 20000), 1);
}

static void discard(PGresult *result, ExecStatusType wanted)
{
        ck_assert_msg(PQresultStatus(result) == wanted, "%s: %s", PQresStatus(PQresultStatus(result)),
                      PQresultErrorMessage(result));
        PQclear(result);
}

static void run(struct pg_session *session, const char *sql, ExecStatusType wanted)
{
        discard(PQexec(session->conn, sql), wanted);
}

/* ---- peek ------------------------------------------------------------------------------------------------ */

START_TEST(a_healthy_session_peeks_ok)
{
        struct pg_session *session = session_of_server();

        ck_assert_int_eq(session_peek(session), LIDO_PEEK_OK);
        session_close(session);
}
END_TEST

START_TEST(a_terminated_session_never_peeks_ok_although_libpq_says_it_is)
{
        /* given */ struct pg_session *session = session_of_server();
        terminate(session);
        wait_readable(session);
        /* then  */ ck_assert_int_eq(PQstatus(session->conn), CONNECTION_OK);
        ck_assert_int_eq(session_peek(session), LIDO_PEEK_CHECK);
        session_close(session);
}
END_TEST

START_TEST(a_pending_notification_asks_for_a_check_and_is_no_death)
{
        /* given */ struct pg_session *session = session_of_server();
        run(session, "listen news", PGRES_COMMAND_OK);
        admin_run(admin, "notify news");
        wait_readable(session);
        /* then  */ ck_assert_int_eq(session_peek(session), LIDO_PEEK_CHECK);
        session_close(session);
}
END_TEST

START_TEST(a_closed_socket_peeks_dead)
{
        /* given */ struct pg_session *session = session_of_server();
        session_interrupt(session);
        /* then  */ ck_assert_int_eq(session_peek(session), LIDO_PEEK_DEAD);
        session_close(session);
}
END_TEST

/* ---- verdict --------------------------------------------------------------------------------------------- */

START_TEST(an_idle_session_comes_back_clean)
{
        struct pg_session *session = session_of_server();

        run(session, "select 1", PGRES_TUPLES_OK);
        ck_assert_int_eq(session_verdict(session), LIDO_VERDICT_CLEAN);
        run(session, "select 1/0", PGRES_FATAL_ERROR); /* an error of the borrower is no fault of the session */
        ck_assert_int_eq(session_verdict(session), LIDO_VERDICT_CLEAN);
        session_close(session);
}
END_TEST

START_TEST(an_open_or_failed_transaction_wants_a_reset)
{
        struct pg_session *session = session_of_server();

        run(session, "begin", PGRES_COMMAND_OK);
        ck_assert_int_eq(session_verdict(session), LIDO_VERDICT_RESET);
        run(session, "select 1/0", PGRES_FATAL_ERROR);
        ck_assert_int_eq(session_verdict(session), LIDO_VERDICT_RESET);
        session_close(session);
}
END_TEST

START_TEST(without_resets_whatever_is_not_at_rest_is_dead)
{
        /* given */ struct pg_session *session = session_of_server();
        options.given.reset = LIDO_PG_RESET_NONE;
        run(session, "begin", PGRES_COMMAND_OK);
        /* then  */ ck_assert_int_eq(session_verdict(session), LIDO_VERDICT_DEAD);
        session_close(session);
}
END_TEST

START_TEST(unread_rows_want_a_reset)
{
        struct pg_session *session = session_of_server();

        ck_assert_int_eq(PQsendQuery(session->conn, "select generate_series(1, 10)"), 1);
        ck_assert_int_eq(PQsetSingleRowMode(session->conn), 1);
        ck_assert_int_eq(session_verdict(session), LIDO_VERDICT_RESET);
        discard(PQgetResult(session->conn), PGRES_SINGLE_TUPLE);
        ck_assert_int_eq(session_verdict(session), LIDO_VERDICT_RESET);
        session_close(session);
}
END_TEST

START_TEST(a_pipeline_with_work_in_it_is_dead)
{
        struct pg_session *session = session_of_server();

        ck_assert_int_eq(PQenterPipelineMode(session->conn), 1);
        ck_assert_int_eq(PQsendQueryParams(session->conn, "select 1", 0, NULL, NULL, NULL, NULL, 0), 1);
        ck_assert_int_eq(session_verdict(session), LIDO_VERDICT_DEAD);
        session_close(session);
}
END_TEST

START_TEST(an_empty_pipeline_is_left_and_the_session_is_clean)
{
        struct pg_session *session = session_of_server();

        ck_assert_int_eq(PQenterPipelineMode(session->conn), 1);
        ck_assert_int_eq(session_verdict(session), LIDO_VERDICT_CLEAN);
        ck_assert_int_eq(PQpipelineStatus(session->conn), PQ_PIPELINE_OFF);
        run(session, "select 1", PGRES_TUPLES_OK);
        session_close(session);
}
END_TEST

START_TEST(copy_out_wants_a_reset_and_copy_in_is_dead)
{
        struct pg_session *out = session_of_server(), *in = session_of_server();

        run(out, "copy (select generate_series(1, 10)) to stdout", PGRES_COPY_OUT);
        ck_assert_int_eq(session_verdict(out), LIDO_VERDICT_RESET);
        run(in, "create temp table t (v int); copy t from stdin", PGRES_COPY_IN);
        ck_assert_int_eq(session_verdict(in), LIDO_VERDICT_DEAD);
        session_close(out);
        session_close(in);
}
END_TEST

START_TEST(a_session_that_the_server_ended_is_dead)
{
        struct pg_session *session = session_of_server();

        terminate(session);
        wait_readable(session);
        discard(PQexec(session->conn, "select 1"), PGRES_FATAL_ERROR);
        ck_assert_int_eq(session_verdict(session), LIDO_VERDICT_DEAD);
        ck_assert_str_eq(session->sqlstate, "57P01");
        session_close(session);
}
END_TEST

START_TEST(a_write_in_a_transaction_made_read_only_is_the_borrowers_own_fault)
{
        struct pg_session *session = session_of_server();

        run(session, "begin read only", PGRES_COMMAND_OK);
        run(session, "create table never (v int)", PGRES_FATAL_ERROR);
        ck_assert_int_eq(session_verdict(session), LIDO_VERDICT_RESET); /* a transaction is open */
        ck_assert(!session->is_alarming);
        ck_assert(!session_close(session));
}
END_TEST

START_TEST(a_write_that_a_server_refuses_which_has_become_read_only_is_alarming)
{
        struct pg_session *session = session_of_server();

        run(session, "set default_transaction_read_only = on", PGRES_COMMAND_OK);
        run(session, "create table never (v int)", PGRES_FATAL_ERROR);
        ck_assert(!session->is_alarming); /* that is judged at the return */
        ck_assert_int_eq(session_verdict(session), LIDO_VERDICT_RESET);
        ck_assert(session->is_alarming);
        ck_assert(session_close(session));
}
END_TEST

START_TEST(what_an_immediate_shutdown_leaves_behind_is_never_clean)
{
        /* given */ struct own_server server;
        own_server_start(&server, "");
        struct pg_session *session = wrap(admin_connect(server.conninfo));
        run(session, "select 1", PGRES_TUPLES_OK);
        own_server_command(&server, "stop", "immediate");
        /* when  */ discard(PQexec(session->conn, "select 1"), PGRES_FATAL_ERROR);
        /* then  */ ck_assert_int_eq(session_verdict(session), LIDO_VERDICT_DEAD);
        session_close(session);
        own_server_remove(&server);
}
END_TEST

static void die_without_a_word(struct fakepg *server, int fd, unsigned nth)
{
        (void)nth;
        if (fakepg_take_startup(server, fd) && fakepg_let_in(fd) && fakepg_take_message(fd))
                fakepg_send_error(fd, "ERROR", "XX000", "and then nothing");
}

START_TEST(a_server_that_dies_in_the_middle_of_an_answer_leaves_nothing_clean)
{
        /* given */ struct fakepg server;
        char text[256];
        fakepg_start(&server, die_without_a_word);
        struct pg_session *session = wrap(admin_connect(fakepg_conninfo(&server, "", text, sizeof text)));
        /* when  */ discard(PQexec(session->conn, "select 1"), PGRES_FATAL_ERROR);
        /* then  */ ck_assert_int_eq(session_verdict(session), LIDO_VERDICT_DEAD);
        session_close(session);
        fakepg_stop(&server);
}
END_TEST

START_TEST(a_borrower_who_ends_or_resets_the_connection_returns_a_dead_session)
{
        struct pg_session *ended = session_of_server(), *reset = session_of_server();

        PQfinish(ended->conn);
        ck_assert_ptr_null(ended->conn);
        ck_assert_int_eq(session_verdict(ended), LIDO_VERDICT_DEAD);
        PQreset(reset->conn);
        ck_assert_int_eq(session_verdict(reset), LIDO_VERDICT_DEAD);
        session_close(ended);
        session_close(reset);
}
END_TEST

START_TEST(a_row_of_many_megabytes_makes_a_session_fat_and_many_small_rows_do_not)
{
        struct pg_session *session = session_of_server();

        options.given.fat_bytes = 1 << 20;
        run(session, "select repeat('x', 1000) from generate_series(1, 3000)", PGRES_TUPLES_OK);
        ck_assert_int_eq(session_verdict(session), LIDO_VERDICT_CLEAN);
        run(session, "select repeat('x', 2000000)", PGRES_TUPLES_OK);
        ck_assert_int_eq(session_verdict(session), LIDO_VERDICT_DEAD);
        session_close(session);
}
END_TEST

/* ---- libpq's own settings -------------------------------------------------------------------------------- */

static void borrowed_receiver(void *context, const PGresult *notice)
{
        (void)notice;
        ++*(int *)context;
}

static void borrowed_processor(void *context, const char *message)
{
        (void)message;
        ++*(int *)context;
}

START_TEST(libpqs_settings_are_put_back)
{
        /* given */ struct pg_session *session = session_of_server();
        PGconn *conn = session->conn;
        FILE *trace = tmpfile();
        int calls = 0;
        ck_assert_ptr_nonnull(trace);
        PQsetnonblocking(conn, 1);
        PQsetNoticeReceiver(conn, borrowed_receiver, &calls);
        PQsetErrorVerbosity(conn, PQERRORS_VERBOSE);
        PQsetErrorContextVisibility(conn, PQSHOW_CONTEXT_ALWAYS);
        PQtrace(conn, trace);
        /* when  */ ck_assert_int_eq(session_verdict(session), LIDO_VERDICT_CLEAN);
        /* then  */ ck_assert_int_eq(PQisnonblocking(conn), 0);
        ck_assert_int_eq(PQsetErrorVerbosity(conn, PQERRORS_DEFAULT), PQERRORS_DEFAULT);
        ck_assert_int_eq(PQsetErrorContextVisibility(conn, PQSHOW_CONTEXT_ERRORS), PQSHOW_CONTEXT_ERRORS);
        run(session, "do $$ begin raise notice 'hello'; end $$", PGRES_COMMAND_OK);
        ck_assert_int_eq(calls, 0);
        ck_assert_int_eq(ftell(trace), 0);
        fclose(trace);
        session_close(session);
}
END_TEST

START_TEST(a_borrowed_notice_processor_is_taken_off)
{
        struct pg_session *session = session_of_server();
        int calls = 0;

        PQsetNoticeProcessor(session->conn, borrowed_processor, &calls);
        ck_assert_int_eq(session_verdict(session), LIDO_VERDICT_CLEAN);
        run(session, "do $$ begin raise notice 'hello'; end $$", PGRES_COMMAND_OK);
        ck_assert_int_eq(calls, 0);
        session_close(session);
}
END_TEST

START_TEST(queued_notifications_do_not_reach_the_next_borrower)
{
        struct pg_session *session = session_of_server();

        options.given.reset = LIDO_PG_RESET_ROLLBACK;
        run(session, "listen news; notify news; unlisten *", PGRES_COMMAND_OK);
        run(session, "listen news", PGRES_COMMAND_OK);
        run(session, "notify news", PGRES_COMMAND_OK);
        ck_assert_int_eq(session_verdict(session), LIDO_VERDICT_CLEAN);
        ck_assert_ptr_null(PQnotifies(session->conn));
        session_close(session);
}
END_TEST

static void shout(struct fakepg *server, int fd, unsigned nth)
{
        (void)nth;
        if (fakepg_take_startup(server, fd) && fakepg_let_in(fd) && fakepg_take_message(fd) &&
            fakepg_send_notice(fd, "WARNING", "01000", "attention"))
                fakepg_send_complete(fd, "SELECT 1");
        fakepg_wait_for_end(fd);
}

START_TEST(nothing_is_printed_for_a_notice)
{
        /* given */ struct fakepg server;
        char text[256], printed[64] = "";
        int pipe_fds[2], old = dup(STDERR_FILENO);
        fakepg_start(&server, shout);
        struct pg_session *session = wrap(admin_connect(fakepg_conninfo(&server, "", text, sizeof text)));
        ck_assert_int_eq(pipe(pipe_fds), 0);
        /* when  */ dup2(pipe_fds[1], STDERR_FILENO);
        PQclear(PQexec(session->conn, "select 1"));
        fflush(stderr);
        dup2(old, STDERR_FILENO);
        close(pipe_fds[1]);
        /* then  */ ck_assert_int_eq(read(pipe_fds[0], printed, sizeof printed), 0);
        close(pipe_fds[0]);
        close(old);
        session_close(session);
        fakepg_stop(&server);
}
END_TEST

/* ---- the end --------------------------------------------------------------------------------------------- */

START_TEST(closing_an_idle_session_ends_its_backend)
{
        /* given */ struct pg_session *session = session_of_server();
        int pid = PQbackendPID(session->conn);
        /* when  */ session_close(session);
        /* then  */ admin_wait_for(admin, 0, "select count(*) from pg_stat_activity where pid = %d", pid);
}
END_TEST

START_TEST(closing_learns_why_the_server_hung_up)
{
        /* given */ struct pg_session *session = session_of_server();
        terminate(session);
        wait_readable(session);
        add_relaxed(&session->users, 1);
        /* when  */ session_close(session);
        /* then  */ ck_assert_str_eq(session->sqlstate, "57P01");
        session_unref(session);
}
END_TEST

START_TEST(closing_does_not_wait_for_a_server_that_has_stopped_reading)
{
        /* given */ struct pg_session *session = session_of_server();
        int pid = PQbackendPID(session->conn);
        static char block[8000];
        run(session, "create temp table t (v text); copy t from stdin", PGRES_COPY_IN);
        ck_assert_int_eq(kill(pid, SIGSTOP), 0);
        PQsetnonblocking(session->conn, 1);
        memset(block, 'x', sizeof block);
        for (int i = 0; i < 200; i++) /* more than the socket holds */
                ck_assert_int_eq(PQputCopyData(session->conn, block, sizeof block), 1);
        /* when  */ uint64_t start = clock_now_ns();
        session_close(session);
        /* then  */ ck_assert_uint_lt(clock_now_ns() - start, NS_PER_S);
        ck_assert_int_eq(kill(pid, SIGCONT), 0);
}
END_TEST

static void *interrupt_soon(void *session_pointer)
{
        struct pg_session *session = session_pointer;
        PGconn *mine = admin_connect(server_conninfo());

        admin_wait_for(mine, 1, "select count(*) from pg_stat_activity where query like '%%pg_sleep(300)' and pid <> %d",
                       PQbackendPID(mine));
        session_interrupt(session);
        PQfinish(mine);
        return NULL;
}

START_TEST(interrupt_frees_a_thread_that_is_stuck_in_a_query)
{
        /* given */ struct pg_session *session = session_of_server();
        pthread_t thread;
        ck_assert_int_eq(pthread_create(&thread, NULL, interrupt_soon, session), 0);
        /* when  */ discard(PQexec(session->conn, "select pg_sleep(300)"), PGRES_FATAL_ERROR);
        /* then  */ ck_assert_int_eq(session_verdict(session), LIDO_VERDICT_DEAD);
        pthread_join(thread, NULL);
        session_close(session);
}
END_TEST

START_TEST(a_result_may_outlive_its_session)
{
        /* given */ struct pg_session *session = session_of_server();
        PGresult *result = PQexec(session->conn, "select 42");
        /* when  */ session_close(session);
        /* then  */ ck_assert_str_eq(PQgetvalue(result, 0, 0), "42");
        PQclear(result);
}
END_TEST

START_TEST(a_connection_that_is_given_away_works_without_its_session)
{
        /* given */ PGconn *conn = session_release_conn(session_of_server());
        /* when  */ discard(PQexec(conn, "select 1"), PGRES_TUPLES_OK);
        discard(PQexec(conn, "select 1/0"), PGRES_FATAL_ERROR);
        /* then  */ PQfinish(conn);
}
END_TEST

int main(void)
{
        return suite_run_with("pg/session",
                              (const TTest *[]){
                                      a_healthy_session_peeks_ok,
                                      a_terminated_session_never_peeks_ok_although_libpq_says_it_is,
                                      a_pending_notification_asks_for_a_check_and_is_no_death,
                                      a_closed_socket_peeks_dead,
                                      an_idle_session_comes_back_clean,
                                      an_open_or_failed_transaction_wants_a_reset,
                                      without_resets_whatever_is_not_at_rest_is_dead,
                                      unread_rows_want_a_reset,
                                      a_pipeline_with_work_in_it_is_dead,
                                      an_empty_pipeline_is_left_and_the_session_is_clean,
                                      copy_out_wants_a_reset_and_copy_in_is_dead,
                                      a_session_that_the_server_ended_is_dead,
                                      a_write_in_a_transaction_made_read_only_is_the_borrowers_own_fault,
                                      a_write_that_a_server_refuses_which_has_become_read_only_is_alarming,
                                      what_an_immediate_shutdown_leaves_behind_is_never_clean,
                                      a_server_that_dies_in_the_middle_of_an_answer_leaves_nothing_clean,
                                      a_borrower_who_ends_or_resets_the_connection_returns_a_dead_session,
                                      a_row_of_many_megabytes_makes_a_session_fat_and_many_small_rows_do_not,
                                      libpqs_settings_are_put_back,
                                      a_borrowed_notice_processor_is_taken_off,
                                      queued_notifications_do_not_reach_the_next_borrower,
                                      nothing_is_printed_for_a_notice,
                                      closing_an_idle_session_ends_its_backend,
                                      closing_learns_why_the_server_hung_up,
                                      closing_does_not_wait_for_a_server_that_has_stopped_reading,
                                      interrupt_frees_a_thread_that_is_stuck_in_a_query,
                                      a_result_may_outlive_its_session,
                                      a_connection_that_is_given_away_works_without_its_session,
                                      NULL,
                              },
                              set_up, tear_down);
}
