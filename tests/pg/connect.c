/* Opening one connection, against a real server and against one that misbehaves. The threads that do it: pg/connector.c. */
#include "pg/connect.h"

#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "pg/failure.h"
#include "support/fakepg.h"
#include "support/pgfixture.h"
#include "support/suite.h"

static struct pg_options options;
static struct connect_tools tools;
static struct lido_error error;
static int abort_fd;
static unsigned descriptors;
static struct resolver *resolver;

static void set_up(void)
{
        resolver = resolver_new(15000, NULL);
        abort_fd = eventfd(0, EFD_CLOEXEC);
        descriptors = open_descriptors();
        memset(&options, 0, sizeof options);
}

/* Whatever happened, no descriptor is left over. */
static void tear_down(void)
{
        resolver_free(resolver);
        ck_assert_uint_eq(open_descriptors(), descriptors);
}

static void take(struct lido_pg_options *given)
{
        ck_assert_int_eq(options_init(&options, given, "test"), LIDO_OK);
}

/* Open with a deadline; on success the connection is returned. */
static int open_within(const char *conninfo, int64_t ms, PGconn **ret_conn)
{
        struct lido_pg_options given = LIDO_PG_OPTIONS_INIT;
        struct connect connect;

        if (!options.conninfo) {
                given.conninfo = conninfo;
                take(&given);
        }
        *ret_conn = NULL;
        tools = (struct connect_tools){ .options = &options, .resolver = resolver };
        connect_init(&connect, &tools, clock_after_ms(clock_now_ns(), ms));
        int rc = connect_run(&connect, abort_fd);
        if (rc == LIDO_OK)
                *ret_conn = connect_take(&connect);
        else
                error = *connect_error(&connect);
        connect_fini(&connect);
        ck_assert_int_eq(rc, rc == LIDO_OK ? LIDO_OK : error.code);
        return rc;
}

static int failure_within(const char *conninfo, int64_t ms)
{
        PGconn *conn;
        int rc = open_within(conninfo, ms, &conn);

        ck_assert_ptr_null(conn);
        options_fini(&options);
        memset(&options, 0, sizeof options);
        return rc;
}

static void succeed_within(const char *conninfo, int64_t ms)
{
        PGconn *conn;
        int rc = open_within(conninfo, ms, &conn);

        ck_assert_msg(rc == LIDO_OK, "%s: %s", lido_err_name(rc), error.text);
        ck_assert_int_eq(PQstatus(conn), CONNECTION_OK);
        ck_assert_int_eq(PQtransactionStatus(conn), PQTRANS_IDLE);
        ck_assert_int_eq(PQisnonblocking(conn), 0);
        PQfinish(conn);
        options_fini(&options);
        memset(&options, 0, sizeof options);
}

static char text[1024];

static const char *format(const char *pattern, const char *argument)
{
        static char formatted[1024];

        snprintf(formatted, sizeof formatted, pattern, argument);
        return formatted;
}

/* A port at which nobody listens: it was just free. */
static int refused_port(void)
{
        struct fakepg server;

        fakepg_start(&server, fakepg_silent);
        fakepg_stop(&server);
        return server.port;
}

/* ---- that it works --------------------------------------------------------------------------------------- */

START_TEST(it_connects_by_socket_and_by_tcp)
{
        succeed_within(server_conninfo(), 10000);
        succeed_within(server_tcp_conninfo(), 10000);
}
END_TEST

START_TEST(a_host_name_is_looked_up_and_kept_for_the_certificate)
{
        /* given */ PGconn *conn;
        /* when  */ int rc = open_within(format("%s host=localhost", server_tcp_conninfo()), 10000, &conn);
        /* then  */ ck_assert_msg(rc == LIDO_OK, "%s", error.text);
        ck_assert_str_eq(PQhost(conn), "localhost");
        ck_assert_str_eq(PQhostaddr(conn), "127.0.0.1");
        PQfinish(conn);
        options_fini(&options);
}
END_TEST

START_TEST(a_name_that_does_not_exist_fails_and_says_so)
{
        ck_assert_int_eq(failure_within("host=no-such-host.invalid", 10000), LIDO_EFACTORY);
        ck_assert_int_eq(error.failure, LIDO_FAILURE_NETWORK);
        ck_assert_ptr_nonnull(strstr(error.text, "no-such-host.invalid"));
}
END_TEST

/* ---- hosts in turn --------------------------------------------------------------------------------------- */

START_TEST(a_host_that_refuses_does_not_hide_the_next)
{
        /* given */ struct fakepg good;
        fakepg_start(&good, fakepg_serve);
        snprintf(text, sizeof text, "host=127.0.0.1,127.0.0.1 port=%d,%d dbname=d user=u sslmode=disable", refused_port(),
                 good.port);
        /* when  */ uint64_t start = clock_now_ns();
        succeed_within(text, 5000);
        /* then  */ ck_assert_uint_lt(clock_now_ns() - start, NS_PER_S);
        fakepg_stop(&good);
}
END_TEST

START_TEST(when_all_refuse_the_text_says_so)
{
        /* given */ snprintf(text, sizeof text, "host=127.0.0.1,127.0.0.1 port=%d,%d", refused_port(), refused_port());
        /* when  */ int rc = failure_within(text, 5000);
        /* then  */ ck_assert_int_eq(rc, LIDO_EFACTORY);
        ck_assert_int_eq(error.failure, LIDO_FAILURE_NETWORK);
        ck_assert_ptr_nonnull(strstr(error.text, "Connection refused"));
}
END_TEST

static void starting_up(struct fakepg *server, int fd, unsigned nth)
{
        (void)nth;
        if (fakepg_take_startup(server, fd))
                fakepg_send_error(fd, "FATAL", "57P03", "the database system is starting up");
}

START_TEST(a_server_that_is_starting_up_is_passed_over)
{
        /* given */ struct fakepg starting, good;
        fakepg_start(&starting, starting_up);
        fakepg_start(&good, fakepg_serve);
        snprintf(text, sizeof text, "host=127.0.0.1,127.0.0.1 port=%d,%d dbname=d user=u sslmode=disable", starting.port,
                 good.port);
        /* when  */ succeed_within(text, 5000);
        /* then  */ ck_assert_uint_eq(starting.startups, 1);
        fakepg_stop(&starting);
        fakepg_stop(&good);
}
END_TEST

START_TEST(a_server_that_is_starting_up_is_not_ready)
{
        /* given */ struct fakepg starting;
        fakepg_start(&starting, starting_up);
        /* when  */ int rc = failure_within(fakepg_conninfo(&starting, "", text, sizeof text), 5000);
        /* then  */ ck_assert_int_eq(rc, LIDO_EFACTORY);
        ck_assert_int_eq(error.failure, LIDO_FAILURE_NOT_READY);
        ck_assert_str_eq(error.sqlstate, "57P03");
        fakepg_stop(&starting);
}
END_TEST

START_TEST(a_silent_host_costs_its_attempt_and_no_more)
{
        /* given */ struct fakepg silent, good;
        struct lido_pg_options given = LIDO_PG_OPTIONS_INIT;
        fakepg_start(&silent, fakepg_silent);
        fakepg_start(&good, fakepg_serve);
        snprintf(text, sizeof text, "host=127.0.0.1,127.0.0.1 port=%d,%d dbname=d user=u sslmode=disable", silent.port,
                 good.port);
        given.conninfo = text;
        given.attempt_timeout_ms = 200;
        take(&given);
        /* when  */ uint64_t start = clock_now_ns();
        succeed_within(NULL, 10000);
        /* then  */ uint64_t took = clock_now_ns() - start;
        ck_assert_uint_ge(took, 200 * NS_PER_MS);
        ck_assert_uint_lt(took, 2 * NS_PER_S);
        fakepg_stop(&silent);
        fakepg_stop(&good);
}
END_TEST

/* ---- time ------------------------------------------------------------------------------------------------ */

START_TEST(a_silent_server_is_left_at_the_deadline)
{
        /* given */ struct fakepg silent;
        uint64_t best = CLOCK_NEVER;
        fakepg_start(&silent, fakepg_silent);
        /* when  */ for (int turn = 0; turn < 3; turn++) { /* how exact it is shows when nobody takes the CPU away */
                uint64_t start = clock_now_ns();
                int rc = failure_within(fakepg_conninfo(&silent, "connect_timeout=60", text, sizeof text), 300);
                uint64_t took = clock_now_ns() - start;
                ck_assert_int_eq(rc, LIDO_EDEADLINE);
                ck_assert_uint_ge(took, 300 * NS_PER_MS);
                best = clock_min(best, took);
        }
        /* then  */ ck_assert_uint_le(best, 350 * NS_PER_MS);
        ck_assert_int_eq(error.failure, LIDO_FAILURE_NETWORK);
        ck_assert_ptr_nonnull(strstr(error.text, "no answer in time"));
        fakepg_stop(&silent);
}
END_TEST

START_TEST(a_descriptor_that_is_always_ready_does_not_put_the_deadline_off)
{
        /* given */ struct fakepg silent;
        struct lido_pg_options given = LIDO_PG_OPTIONS_INIT;
        struct connect connect;
        fakepg_start(&silent, fakepg_silent);
        given.conninfo = fakepg_conninfo(&silent, "", text, sizeof text);
        take(&given);
        tools = (struct connect_tools){ .options = &options, .resolver = resolver };
        connect_init(&connect, &tools, clock_after_ms(clock_now_ns(), 50));
        enum connect_want want = connect_advance(&connect, false);
        /* when  */ for (uint64_t end = clock_after_ms(clock_now_ns(), 2000); want < CONNECT_DONE && clock_now_ns() < end;)
                want = connect_advance(&connect, true);
        /* then  */ ck_assert_int_eq(want, CONNECT_FAILED);
        ck_assert_int_eq(connect_error(&connect)->code, LIDO_EDEADLINE);
        connect_fini(&connect);
        options_fini(&options);
        fakepg_stop(&silent);
}
END_TEST

static void silent_after_login(struct fakepg *server, int fd, unsigned nth)
{
        (void)nth;
        if (fakepg_take_startup(server, fd) && fakepg_let_in(fd))
                fakepg_wait_for_end(fd);
}

START_TEST(a_set_up_that_is_not_answered_is_left_at_the_deadline)
{
        /* given */ struct fakepg silent;
        struct lido_pg_options given = LIDO_PG_OPTIONS_INIT;
        fakepg_start(&silent, silent_after_login);
        given.conninfo = fakepg_conninfo(&silent, "", text, sizeof text);
        given.setup = "select 1";
        take(&given);
        /* then  */ ck_assert_int_eq(failure_within(NULL, 200), LIDO_EDEADLINE);
        fakepg_stop(&silent);
}
END_TEST

static void *abort_soon(void *server_pointer)
{
        struct fakepg *server = server_pointer;

        while (atomic_load(&server->accepted) == 0)
                usleep(1000); /* until the attempt is under way */
        ck_assert_int_eq(eventfd_write(abort_fd, 1), 0);
        return NULL;
}

START_TEST(an_attempt_that_is_not_wanted_any_more_ends_at_once)
{
        /* given */ struct fakepg silent;
        pthread_t thread;
        fakepg_start(&silent, fakepg_silent);
        ck_assert_int_eq(pthread_create(&thread, NULL, abort_soon, &silent), 0);
        /* when  */ uint64_t start = clock_now_ns();
        int rc = failure_within(fakepg_conninfo(&silent, "", text, sizeof text), 60000);
        /* then  */ ck_assert_int_eq(rc, LIDO_ECANCELED);
        ck_assert_uint_lt(clock_now_ns() - start, 5 * NS_PER_S);
        pthread_join(thread, NULL);
        fakepg_stop(&silent);
}
END_TEST

/* ---- refusals -------------------------------------------------------------------------------------------- */

static void wrong_password(struct fakepg *server, int fd, unsigned nth)
{
        (void)nth;
        if (fakepg_take_startup(server, fd))
                fakepg_send_error(fd, "FATAL", "28P01", "password authentication failed for \"hunter2\"");
}

START_TEST(a_wrong_password_is_permanent_and_tried_once)
{
        /* given */ struct fakepg strict, next;
        fakepg_start(&strict, wrong_password);
        fakepg_start(&next, fakepg_serve);
        snprintf(text, sizeof text, "host=127.0.0.1,127.0.0.1 port=%d,%d dbname=d user=u password=hunter2 sslmode=prefer",
                 strict.port, next.port);
        /* when  */ int rc = failure_within(text, 5000);
        /* then  */ ck_assert_int_eq(rc, LIDO_EPERMANENT);
        ck_assert_int_eq(error.failure, LIDO_FAILURE_PERMANENT);
        ck_assert_str_eq(error.sqlstate, "28P01");
        ck_assert_uint_eq(strict.startups, 1);
        ck_assert_uint_eq(next.accepted, 0);
        fakepg_stop(&strict);
        fakepg_stop(&next);
}
END_TEST

START_TEST(a_password_never_shows_in_the_text)
{
        /* given */ struct fakepg strict;
        fakepg_start(&strict, wrong_password);
        /* when  */ failure_within(fakepg_conninfo(&strict, "password=hunter2", text, sizeof text), 5000);
        /* then  */ ck_assert_ptr_null(strstr(error.text, "hunter2"));
        ck_assert_ptr_nonnull(strstr(error.text, "password authentication failed"));
        fakepg_stop(&strict);
}
END_TEST

static void want_password(struct fakepg *server, int fd, unsigned nth)
{
        (void)nth;
        if (fakepg_take_startup(server, fd) && fakepg_send(fd, 'R', "\0\0\0\3", 4))
                fakepg_wait_for_end(fd);
}

START_TEST(a_password_that_is_missing_is_permanent)
{
        /* given */ struct fakepg strict;
        fakepg_start(&strict, want_password);
        /* when  */ int rc = failure_within(fakepg_conninfo(&strict, "passfile=/nonexistent", text, sizeof text), 5000);
        /* then  */ ck_assert_int_eq(rc, LIDO_EPERMANENT);
        fakepg_stop(&strict);
}
END_TEST

START_TEST(a_real_server_says_why_it_refuses)
{
        /* given */ PGconn *admin = admin_connect(server_conninfo());
        admin_run(admin, "drop role if exists full_up; create role full_up login connection limit 0");
        /* then  */ ck_assert_int_eq(failure_within(format("%s dbname=nowhere", server_conninfo()), 5000), LIDO_EPERMANENT);
        ck_assert_str_eq(error.sqlstate, "3D000");
        ck_assert_int_eq(failure_within(format("%s user=nobody_at_all", server_conninfo()), 5000), LIDO_EPERMANENT);
        ck_assert_str_eq(error.sqlstate, "28000");
        ck_assert_int_eq(failure_within(format("%s options='-c no_such_thing=1'", server_conninfo()), 5000), LIDO_EPERMANENT);
        ck_assert_str_eq(error.sqlstate, "42704");
        ck_assert_int_eq(failure_within(format("%s user=full_up", server_conninfo()), 5000), LIDO_EFACTORY);
        ck_assert_str_eq(error.sqlstate, "53300");
        ck_assert_int_eq(error.failure, LIDO_FAILURE_CAPACITY);
        admin_run(admin, "drop role full_up");
        PQfinish(admin);
}
END_TEST

START_TEST(a_server_in_the_wrong_role_is_not_ready)
{
        ck_assert_int_eq(failure_within(format("%s target_session_attrs=standby", server_conninfo()), 5000), LIDO_EFACTORY);
        ck_assert_int_eq(error.failure, LIDO_FAILURE_NOT_READY);
}
END_TEST

START_TEST(a_standby_is_preferred_and_not_required)
{
        succeed_within(format("%s target_session_attrs=prefer-standby", server_conninfo()), 5000);
}
END_TEST

static void hang_up(struct fakepg *server, int fd, unsigned nth)
{
        (void)nth;
        fakepg_take_startup(server, fd);
}

static void garbage(struct fakepg *server, int fd, unsigned nth)
{
        (void)nth;
        if (fakepg_take_startup(server, fd))
                fakepg_send(fd, '?', "garbage", 7);
        fakepg_wait_for_end(fd);
}

START_TEST(a_server_that_hangs_up_or_talks_nonsense_is_a_network_failure)
{
        struct fakepg rude, mad;

        fakepg_start(&rude, hang_up);
        fakepg_start(&mad, garbage);
        ck_assert_int_eq(failure_within(fakepg_conninfo(&rude, "", text, sizeof text), 5000), LIDO_EFACTORY);
        ck_assert_int_eq(error.failure, LIDO_FAILURE_NETWORK);
        ck_assert_int_eq(failure_within(fakepg_conninfo(&mad, "", text, sizeof text), 5000), LIDO_EFACTORY);
        ck_assert_int_eq(error.failure, LIDO_FAILURE_NETWORK);
        fakepg_stop(&rude);
        fakepg_stop(&mad);
}
END_TEST

/* ---- set-up ---------------------------------------------------------------------------------------------- */

START_TEST(each_connection_runs_its_set_up)
{
        /* given */ struct lido_pg_options given = LIDO_PG_OPTIONS_INIT;
        PGconn *conn;
        given.conninfo = server_conninfo();
        given.setup = "set statement_timeout = 4321; set search_path = pg_catalog";
        take(&given);
        /* when  */ ck_assert_int_eq(open_within(NULL, 10000, &conn), LIDO_OK);
        /* then  */ ck_assert_int_eq(admin_number(conn, "select setting from pg_settings where name = 'statement_timeout'"),
                                     4321);
        PQfinish(conn);
        options_fini(&options);
}
END_TEST

START_TEST(a_set_up_that_fails_fails_the_open_with_its_sqlstate)
{
        /* given */ struct lido_pg_options given = LIDO_PG_OPTIONS_INIT;
        given.conninfo = server_conninfo();
        given.setup = "set no_such_thing = 1";
        take(&given);
        /* when  */ int rc = failure_within(NULL, 10000);
        /* then  */ ck_assert_int_eq(rc, LIDO_EPERMANENT);
        ck_assert_str_eq(error.sqlstate, "42704");
}
END_TEST

START_TEST(a_set_up_that_leaves_a_transaction_open_fails_the_open)
{
        /* given */ struct lido_pg_options given = LIDO_PG_OPTIONS_INIT;
        given.conninfo = server_conninfo();
        given.setup = "begin";
        take(&given);
        /* then  */ ck_assert_int_eq(failure_within(NULL, 10000), LIDO_EPERMANENT);
}
END_TEST

static unsigned notices;

static void count_notice(const PGresult *notice, void *wanted)
{
        notices += strcmp(PQresultErrorField(notice, PG_DIAG_MESSAGE_PRIMARY), wanted) == 0;
}

START_TEST(notices_while_connecting_go_to_the_hook)
{
        /* given */ struct lido_pg_options given = LIDO_PG_OPTIONS_INIT;
        given.conninfo = server_conninfo();
        given.setup = "do $$ begin raise notice 'hello'; end $$";
        given.on_notice = count_notice;
        given.notice_context = (void *)"hello";
        take(&given);
        /* when  */ succeed_within(NULL, 10000);
        /* then  */ ck_assert_uint_eq(notices, 1);
}
END_TEST

/* ---- TLS and SCRAM --------------------------------------------------------------------------------------- */

START_TEST(it_connects_by_tls_and_scram_and_a_wrong_password_is_tried_once)
{
        /* given */ struct own_server server;
        own_server_start(&server, "--tls --scram");
        /* when  */ PGconn *conn;
        ck_assert_int_eq(open_within(server.tcp_conninfo, 20000, &conn), LIDO_OK);
        ck_assert_int_eq(PQsslInUse(conn), 1);
        PQfinish(conn);
        options_fini(&options);
        memset(&options, 0, sizeof options);
        /* then  */ int rc = failure_within(format("%s password=wrong-one sslmode=prefer", server.tcp_conninfo), 20000);
        ck_assert_int_eq(rc, LIDO_EPERMANENT);
        ck_assert_str_eq(error.sqlstate, "28P01");
        ck_assert_uint_eq(own_server_log_count(&server, "FATAL"), 1);
        own_server_remove(&server);
}
END_TEST

START_TEST(a_certificate_that_is_not_trusted_is_permanent)
{
        /* given */ struct own_server server;
        own_server_start(&server, "--tls");
        /* when  */ int rc = failure_within(format("%s sslmode=verify-ca sslrootcert=/etc/ssl/certs/ca-certificates.crt",
                                                   server.tcp_conninfo),
                                            20000);
        /* then  */ ck_assert_int_eq(rc, LIDO_EPERMANENT);
        ck_assert_ptr_nonnull(strstr(error.text, "certificate"));
        own_server_remove(&server);
}
END_TEST

int main(void)
{
        return suite_run_with("pg/connect",
                              (const TTest *[]){
                                      it_connects_by_socket_and_by_tcp,
                                      a_host_name_is_looked_up_and_kept_for_the_certificate,
                                      a_name_that_does_not_exist_fails_and_says_so,
                                      a_host_that_refuses_does_not_hide_the_next,
                                      when_all_refuse_the_text_says_so,
                                      a_server_that_is_starting_up_is_passed_over,
                                      a_server_that_is_starting_up_is_not_ready,
                                      a_silent_host_costs_its_attempt_and_no_more,
                                      a_silent_server_is_left_at_the_deadline,
                                      a_descriptor_that_is_always_ready_does_not_put_the_deadline_off,
                                      a_set_up_that_is_not_answered_is_left_at_the_deadline,
                                      an_attempt_that_is_not_wanted_any_more_ends_at_once,
                                      a_wrong_password_is_permanent_and_tried_once,
                                      a_password_never_shows_in_the_text,
                                      a_password_that_is_missing_is_permanent,
                                      a_real_server_says_why_it_refuses,
                                      a_server_in_the_wrong_role_is_not_ready,
                                      a_standby_is_preferred_and_not_required,
                                      a_server_that_hangs_up_or_talks_nonsense_is_a_network_failure,
                                      each_connection_runs_its_set_up,
                                      a_set_up_that_fails_fails_the_open_with_its_sqlstate,
                                      a_set_up_that_leaves_a_transaction_open_fails_the_open,
                                      notices_while_connecting_go_to_the_hook,
                                      it_connects_by_tls_and_scram_and_a_wrong_password_is_tried_once,
                                      a_certificate_that_is_not_trusted_is_permanent,
                                      NULL,
                              },
                              set_up, tear_down);
}
