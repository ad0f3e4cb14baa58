/* The whole: a pool of connections to a real server, by its public face. Its parts are tested by themselves in the files
 * beside this one; kills at random in pg/kill.c. */
#include "lido/pg.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "lido/events.h"
#include "lido/loop.h"
#include "lido/service.h"
#include "lido/stats.h"
#include "support/fakepg.h"
#include "support/pgfixture.h"
#include "support/suite.h"

static struct lido_service *service;
static struct lido_pool *pool;
static struct lido_pg_options pg;
static struct lido_pool_options options;
static PGconn *admin;
static unsigned descriptors;
static char text[1024];

/* ---- fixture --------------------------------------------------------------------------------------------- */

static pthread_mutex_t events_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t events_changed = PTHREAD_COND_INITIALIZER;
static unsigned events[64];         /* by type */
static char last_reason[64][128];   /* by type */
static struct lido_error last_error[64];

static void on_event(const struct lido_event *event, void *context)
{
        (void)context;
        pthread_mutex_lock(&events_lock);
        events[event->type]++;
        snprintf(last_reason[event->type], sizeof last_reason[0], "%s", event->reason ? event->reason : "");
        if (event->error)
                last_error[event->type] = *event->error;
        pthread_cond_broadcast(&events_changed);
        pthread_mutex_unlock(&events_lock);
}

static void wait_for_events(int type, unsigned count)
{
        struct timespec deadline;

        clock_gettime(CLOCK_REALTIME, &deadline);
        deadline.tv_sec += 20;
        pthread_mutex_lock(&events_lock);
        while (events[type] < count)
                ck_assert_msg(pthread_cond_timedwait(&events_changed, &events_lock, &deadline) == 0, "%u events %s, wanted %u",
                              events[type], lido_event_name(type), count);
        pthread_mutex_unlock(&events_lock);
}

static void set_up(void)
{
        pg = (struct lido_pg_options)LIDO_PG_OPTIONS_INIT;
        options = (struct lido_pool_options)LIDO_POOL_OPTIONS_INIT;
        options.on_event = on_event;
        options.max = 4;
        pg.conninfo = server_conninfo();
        admin = admin_connect(server_conninfo());
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
        descriptors = open_descriptors();
}

static void open_pool(void)
{
        int rc = lido_pg_pool_open(&pool, service, &pg, &options);

        ck_assert_msg(rc == LIDO_OK, "%s", lido_err_name(rc));
}

static void tear_down(void)
{
        if (pool) {
                lido_pool_close(pool, 0);
                ck_assert_int_eq(lido_pool_drain(pool, 20000), LIDO_OK);
                lido_pool_free(pool);
        }
        ck_assert_int_eq(lido_service_stop(service, 20000), LIDO_OK);
        PQfinish(admin);
}

/* A moment, in which others go on. */
static void give_others_a_moment(void)
{
        const struct timespec pause = { .tv_nsec = 1000000 };

        nanosleep(&pause, NULL);
}

static lido_lease acquire(void)
{
        lido_lease lease;
        int rc = lido_acquire(pool, 20000, &lease);

        ck_assert_msg(rc == LIDO_OK, "%s", lido_err_name(rc));
        return lease;
}

static void release(lido_lease lease)
{
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
}

static void run(lido_lease lease, const char *sql, ExecStatusType wanted)
{
        PGresult *result = PQexec(lido_pg_conn(lease), sql);

        ck_assert_msg(PQresultStatus(result) == wanted, "%s: %s: %s", sql, PQresStatus(PQresultStatus(result)),
                      PQerrorMessage(lido_pg_conn(lease)));
        PQclear(result);
}

static int pid_of(lido_lease lease)
{
        return PQbackendPID(lido_pg_conn(lease));
}

static struct lido_stats stats_of(void)
{
        struct lido_stats stats = LIDO_STATS_INIT;

        ck_assert_int_eq(lido_pool_stats(pool, &stats), LIDO_OK);
        return stats;
}

/* Until the pool's own threads have done what they have been told. */
static void wait_for_idle(uint32_t idle)
{
        const struct timespec pause = { .tv_nsec = 1000000 };

        for (int turn = 0; stats_of().idle != idle; turn++) {
                ck_assert_msg(turn < 20000, "%u idle, wanted %u", stats_of().idle, idle);
                nanosleep(&pause, NULL);
        }
}

static void terminate(int pid)
{
        admin_run(admin, "select pg_terminate_backend(%d)", pid);
        admin_wait_for(admin, 0, "select count(*) from pg_stat_activity where pid = %d", pid);
}

/* ---- borrowing ------------------------------------------------------------------------------------------- */

START_TEST(a_borrower_gets_a_connection_that_works)
{
        open_pool();
        lido_lease lease = acquire();
        ck_assert_int_eq(admin_number(lido_pg_conn(lease), "select 42"), 42);
        release(lease);
        ck_assert_ptr_null(lido_pg_conn(lease));
}
END_TEST

START_TEST(a_connection_is_used_again)
{
        open_pool();
        lido_lease lease = acquire();
        int pid = pid_of(lease);
        release(lease);
        lease = acquire();
        ck_assert_int_eq(pid_of(lease), pid);
        release(lease);
}
END_TEST

START_TEST(the_pools_name_shows_in_pg_stat_activity)
{
        options.name = "orders";
        open_pool();
        lido_lease lease = acquire();
        ck_assert_int_eq(admin_number(admin, "select count(*) from pg_stat_activity where application_name = 'orders'"), 1);
        release(lease);
}
END_TEST

START_TEST(a_pool_that_is_closed_leaves_no_backend_no_thread_and_no_descriptor)
{
        /* given */ options.min = 4;
        options.start = LIDO_START_WARM;
        options.name = "closing";
        open_pool();
        /* when  */ lido_pool_close(pool, 1000);
        ck_assert_int_eq(lido_pool_drain(pool, 20000), LIDO_OK);
        /* then  */ admin_wait_for(admin, 0, "select count(*) from pg_stat_activity where application_name = 'closing'");
        lido_pool_free(pool);
        pool = NULL;
        ck_assert_int_eq(lido_service_stop(service, 20000), LIDO_OK);
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
        ck_assert_uint_eq(open_descriptors(), descriptors);
}
END_TEST

START_TEST(a_detached_connection_lives_on_without_the_pool)
{
        open_pool();
        PGconn *conn;
        lido_lease lease = acquire();
        ck_assert_int_eq(lido_pg_detach(lease, &conn), LIDO_OK);
        int rc = lido_pg_detach(lease, &conn);
        ck_assert(rc == LIDO_EDOUBLE || rc == LIDO_ESTALE); /* the loop may have gone on with the slot */
        lido_pool_close(pool, 1000);
        ck_assert_int_eq(lido_pool_drain(pool, 20000), LIDO_OK);
        ck_assert_int_eq(admin_number(conn, "select 42"), 42);
        PQfinish(conn);
}
END_TEST

START_TEST(a_detached_connection_has_libpqs_own_notice_hooks)
{
        /* given */ PGconn *fresh = admin_connect(server_conninfo()), *conn;
        open_pool();
        /* when  */ ck_assert_int_eq(lido_pg_detach(acquire(), &conn), LIDO_OK);
        /* then  */ ck_assert(PQsetNoticeReceiver(conn, NULL, NULL) == PQsetNoticeReceiver(fresh, NULL, NULL));
        ck_assert(PQsetNoticeProcessor(conn, NULL, NULL) == PQsetNoticeProcessor(fresh, NULL, NULL));
        PQfinish(conn);
        PQfinish(fresh);
}
END_TEST

START_TEST(an_error_is_told_with_its_sqlstate)
{
        struct lido_error error;

        open_pool();
        lido_lease lease = acquire();
        PGresult *result = PQexec(lido_pg_conn(lease), "select 1/0");
        lido_pg_error(result, NULL, &error);
        PQclear(result);
        ck_assert_int_eq(error.code, LIDO_EFACTORY);
        ck_assert_str_eq(error.sqlstate, "22012");
        ck_assert_str_eq(error.text, "division by zero");
        result = PQexec(lido_pg_conn(lease), "select 1");
        lido_pg_error(result, NULL, &error);
        PQclear(result);
        ck_assert_int_eq(error.code, LIDO_OK);
        release(lease);
}
END_TEST

/* ---- death ----------------------------------------------------------------------------------------------- */

START_TEST(connections_killed_while_idle_are_never_lent)
{
        /* given */ options.min = 4;
        options.start = LIDO_START_WARM;
        open_pool();
        lido_lease leases[4];
        int pids[4];
        for (int i = 0; i < 4; i++)
                pids[i] = pid_of(leases[i] = acquire());
        for (int i = 0; i < 4; i++)
                release(leases[i]);
        /* when  */ for (int i = 0; i < 4; i++)
                terminate(pids[i]);
        /* then  */ for (int i = 0; i < 100; i++) {
                lido_lease lease = acquire();
                run(lease, "select 1", PGRES_TUPLES_OK);
                release(lease);
        }
}
END_TEST

START_TEST(the_watch_tells_why_an_idle_connection_ended)
{
        /* given */ options.max = 1;
        open_pool();
        lido_lease lease = acquire();
        int pid = pid_of(lease);
        release(lease);
        /* when  */ terminate(pid);
        wait_for_events(LIDO_EVENT_BROKEN, 1);
        /* then  */ ck_assert_str_eq(last_reason[LIDO_EVENT_BROKEN], "the server ended the session: admin_shutdown (57P01)");
        wait_for_events(LIDO_EVENT_CLOSED, 1);
}
END_TEST

START_TEST(a_connection_killed_while_lent_is_closed_when_it_returns)
{
        open_pool();
        lido_lease lease = acquire();
        int pid = pid_of(lease);
        terminate(pid);
        run(lease, "select 1", PGRES_FATAL_ERROR);
        release(lease);
        lease = acquire();
        ck_assert_int_ne(pid_of(lease), pid);
        run(lease, "select 1", PGRES_TUPLES_OK);
        release(lease);
}
END_TEST

START_TEST(a_session_that_timed_out_while_idle_is_not_lent)
{
        /* given */ pg.setup = "set idle_session_timeout = 100";
        options.max = 1;
        open_pool();
        lido_lease lease = acquire();
        int pid = pid_of(lease);
        release(lease);
        /* when  */ admin_wait_for(admin, 0, "select count(*) from pg_stat_activity where pid = %d", pid);
        /* then  */ lease = acquire();
        ck_assert_int_ne(pid_of(lease), pid);
        run(lease, "select 1", PGRES_TUPLES_OK);
        release(lease);
}
END_TEST

START_TEST(a_backend_that_does_not_answer_its_check_is_replaced)
{
        /* given */ options.max = 1;
        options.check_after_ms = 1;
        options.check_timeout_ms = 200;
        options.rest_after_ms = 1;
        open_pool();
        lido_lease lease = acquire();
        int pid = pid_of(lease);
        release(lease);
        ck_assert_int_eq(kill(pid, SIGSTOP), 0);
        wait_for_idle(1);
        nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL); /* it has to age */
        /* when  */ uint64_t start = clock_now_ns();
        lease = acquire();
        uint64_t took = clock_now_ns() - start;
        /* then  */ ck_assert_int_ne(pid_of(lease), pid);
        ck_assert_uint_lt(took, 2 * NS_PER_S);
        run(lease, "select 1", PGRES_TUPLES_OK);
        release(lease);
        kill(pid, SIGCONT);
}
END_TEST

static void fatal_when_told(struct fakepg *server, int fd, unsigned nth)
{
        const struct timespec pause = { .tv_nsec = 1000000 };

        if (nth > 0) {
                fakepg_serve(server, fd, nth);
                return;
        }
        if (!fakepg_take_startup(server, fd) || !fakepg_let_in(fd))
                return;
        while (!atomic_load(&server->flag))
                nanosleep(&pause, NULL);
        fakepg_send_error(fd, "FATAL", "57P01", "terminating"); /* but the connection stays open */
        fakepg_wait_for_end(fd);
}

START_TEST(a_fatal_that_waits_to_be_read_is_a_death_though_the_socket_is_open)
{
        /* given */ struct fakepg server;
        fakepg_start(&server, fatal_when_told);
        pg.conninfo = fakepg_conninfo(&server, "", text, sizeof text);
        options.max = 1;
        open_pool();
        release(acquire());
        wait_for_idle(1);
        atomic_store(&server.flag, true);
        /* when  */ for (unsigned turn = 0; server.accepted < 2; turn++) {
                ck_assert_uint_lt(turn, 100000);
                lido_lease lease = acquire();
                release(lease);
        }
        /* then  */ lido_lease lease = acquire();
        run(lease, "", PGRES_EMPTY_QUERY);
        release(lease);
        tear_down();
        fakepg_stop(&server);
        pool = NULL;
        set_up();
}
END_TEST

START_TEST(a_pending_notification_does_not_cost_the_connection)
{
        /* given */ options.max = 1;
        open_pool();
        lido_lease lease = acquire();
        int pid = pid_of(lease);
        run(lease, "listen news", PGRES_COMMAND_OK);
        release(lease);
        wait_for_idle(1);
        admin_run(admin, "notify news");
        /* when  */ lease = acquire();
        /* then  */ ck_assert_int_eq(pid_of(lease), pid);
        release(lease);
}
END_TEST

/* ---- a flood of notifications ------------------------------------------------------------------------------ */

#define LISTENERS 3
#define NOTES_AT_ONCE 1000

static struct {
        struct lido_post post;   /* to the service's loop, to set the timer there */
        struct lido_timer timer;
        _Atomic unsigned ticks;
        _Atomic unsigned notes;  /* notified so far */
        _Atomic bool is_over;
        _Atomic bool has_stopped; /* the timer */
        struct lido_loop *loop;
} flood;

static void tick(struct lido_timer *timer)
{
        atomic_fetch_add(&flood.ticks, 1);
        if (atomic_load(&flood.is_over))
                atomic_store(&flood.has_stopped, true);
        else
                lido_timer_set(flood.loop, timer, clock_now_ns() + NS_PER_MS);
}

static void begin_to_tick(struct lido_post *post)
{
        (void)post;
        flood.timer.run = tick;
        tick(&flood.timer);
}

static void *notify_without_end(void *ignored)
{
        PGconn *conn = admin_connect(server_conninfo());

        while (!atomic_load(&flood.is_over)) {
                admin_run(conn, "select pg_notify('flood', repeat('x', 100) || i) from generate_series(1, %d) i", NOTES_AT_ONCE);
                atomic_fetch_add(&flood.notes, NOTES_AT_ONCE);
        }
        PQfinish(conn);
        return ignored;
}

START_TEST(a_flood_of_notifications_to_idle_connections_starves_neither_the_loop_nor_borrowers)
{
        /* given */ int pids[LISTENERS];
        lido_lease leases[LISTENERS];
        pthread_t notifier;
        unsigned served = 0;
        uint64_t checked;
        options.max = LISTENERS + 1;
        options.min = LISTENERS + 1;
        options.rest_after_ms = 1;
        options.check_interval_ms = 5;
        options.check_timeout_ms = 60000; /* that it ends is the claim, not when */
        pg.reset = LIDO_PG_RESET_NONE;    /* so that the idle go on listening */
        open_pool();
        for (int i = 0; i < LISTENERS; i++) {
                leases[i] = acquire();
                pids[i] = pid_of(leases[i]);
                run(leases[i], "listen flood", PGRES_COMMAND_OK);
        }
        for (int i = 0; i < LISTENERS; i++)
                release(leases[i]);
        flood.loop = lido_service_loop(service);
        flood.post.run = begin_to_tick;
        lido_loop_post(flood.loop, &flood.post);
        /* when  */ ck_assert_int_eq(pthread_create(&notifier, NULL, notify_without_end, NULL), 0);
        while (atomic_load(&flood.notes) == 0)
                give_others_a_moment();
        checked = stats_of().checked;
        unsigned ticks = atomic_load(&flood.ticks);
        /* then  */ while (served < 50 || stats_of().checked < checked + 50 || atomic_load(&flood.ticks) < ticks + 50 ||
                           atomic_load(&flood.notes) < 20 * NOTES_AT_ONCE) {
                lido_lease lease = acquire();

                run(lease, "select 1", PGRES_TUPLES_OK);
                release(lease);
                served++;
                give_others_a_moment(); /* so that the idle are idle for a while, and are checked */
        }
        atomic_store(&flood.is_over, true);
        ck_assert_int_eq(pthread_join(notifier, NULL), 0);
        while (!atomic_load(&flood.has_stopped))
                give_others_a_moment();
        ck_assert_uint_eq(stats_of().closed[LIDO_CLOSE_CHECK] + stats_of().closed[LIDO_CLOSE_BROKEN], 0);
        for (int i = 0; i < LISTENERS; i++)
                ck_assert_int_eq(admin_number(admin, "select count(*) from pg_stat_activity where pid = %d", pids[i]), 1);
}
END_TEST

START_TEST(a_server_that_restarts_at_once_is_used_again)
{
        /* given */ struct own_server server;
        own_server_start(&server, "");
        pg.conninfo = server.conninfo;
        options.min = 4;
        options.start = LIDO_START_WARM;
        open_pool();
        lido_lease leases[4];
        for (int i = 0; i < 4; i++)
                leases[i] = acquire();
        /* when  */ own_server_command(&server, "restart", "immediate");
        for (int i = 0; i < 4; i++) {
                run(leases[i], "select 1", PGRES_FATAL_ERROR);
                release(leases[i]);
        }
        /* then  */ for (int i = 0; i < 20; i++) {
                lido_lease lease = acquire();
                run(lease, "select 1", PGRES_TUPLES_OK);
                release(lease);
        }
        lido_pool_close(pool, 0);
        ck_assert_int_eq(lido_pool_drain(pool, 20000), LIDO_OK);
        own_server_remove(&server);
}
END_TEST

START_TEST(connections_closed_right_after_they_were_opened_upset_no_loop)
{
        open_pool();
        for (int i = 0; i < 200; i++) {
                lido_lease lease = acquire();

                run(lease, "select 1", PGRES_TUPLES_OK);
                ck_assert_int_eq(lido_discard(lease), LIDO_OK);
        }
}
END_TEST

/* ---- what a borrower leaves behind ----------------------------------------------------------------------- */

START_TEST(an_open_transaction_is_undone_and_the_backend_kept)
{
        options.max = 1;
        open_pool();
        lido_lease lease = acquire();
        int pid = pid_of(lease);
        run(lease, "begin", PGRES_COMMAND_OK);
        run(lease, "create table left_over (v int)", PGRES_COMMAND_OK);
        release(lease);
        lease = acquire();
        ck_assert_int_eq(PQtransactionStatus(lido_pg_conn(lease)), PQTRANS_IDLE);
        ck_assert_int_eq(pid_of(lease), pid);
        ck_assert_int_eq(admin_number(lido_pg_conn(lease), "select count(*) from pg_class where relname = 'left_over'"), 0);
        release(lease);
}
END_TEST

START_TEST(a_failed_transaction_is_undone_and_the_backend_kept)
{
        options.max = 1;
        open_pool();
        lido_lease lease = acquire();
        int pid = pid_of(lease);
        run(lease, "begin", PGRES_COMMAND_OK);
        run(lease, "select 1/0", PGRES_FATAL_ERROR);
        release(lease);
        lease = acquire();
        ck_assert_int_eq(PQtransactionStatus(lido_pg_conn(lease)), PQTRANS_IDLE);
        ck_assert_int_eq(pid_of(lease), pid);
        run(lease, "select 1", PGRES_TUPLES_OK);
        release(lease);
}
END_TEST

START_TEST(unread_results_never_reach_the_next_borrower)
{
        options.max = 1;
        open_pool();
        for (int i = 0; i < 50; i++) {
                lido_lease lease = acquire();
                PGconn *conn = lido_pg_conn(lease);

                ck_assert_int_eq(admin_number(conn, "select %d", 1000 + i), 1000 + i); /* its own rows, not a former's */
                if (i % 3 == 0)
                        PQenterPipelineMode(conn);
                ck_assert_int_eq(PQsendQueryParams(conn, "select generate_series(1, 100)", 0, NULL, NULL, NULL, NULL, 0), 1);
                if (i % 3 == 0)
                        PQpipelineSync(conn);
                if (i % 3 == 1)
                        PQsetSingleRowMode(conn);
                if (i % 3 == 1)
                        PQclear(PQgetResult(conn));
                release(lease);
        }
}
END_TEST

static double cpu_seconds(void)
{
        struct timespec used;

        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
        return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

START_TEST(copy_left_in_the_middle_is_undone_quickly_and_without_spinning)
{
        static const char *const copies[] = { "copy (select generate_series(1, 1000)) to stdout",
                                              "copy (select repeat('x', 1000), generate_series(1, 100000000)) to stdout",
                                              "copy t from stdin" };

        options.max = 1;
        open_pool();
        double before = cpu_seconds();
        for (int i = 0; i < 3; i++) {
                lido_lease lease = acquire();
                run(lease, "create temp table if not exists t (v int)", PGRES_COMMAND_OK);
                run(lease, copies[i], i == 2 ? PGRES_COPY_IN : PGRES_COPY_OUT);
                uint64_t start = clock_now_ns();
                release(lease);
                ck_assert_uint_lt(clock_now_ns() - start, 10 * NS_PER_MS);
                lease = acquire();
                ck_assert_int_eq(admin_number(lido_pg_conn(lease), "select 42"), 42);
                release(lease);
        }
        ck_assert(cpu_seconds() - before < 3);
}
END_TEST

START_TEST(a_query_still_running_at_release_is_given_up_after_the_reset_deadline)
{
        /* given */ options.max = 1;
        options.reset_timeout_ms = 200;
        open_pool();
        lido_lease lease = acquire();
        int pid = pid_of(lease);
        ck_assert_int_eq(PQsendQuery(lido_pg_conn(lease), "select pg_sleep(300)"), 1);
        /* when  */ release(lease);
        lease = acquire();
        /* then  */ ck_assert_int_ne(pid_of(lease), pid);
        run(lease, "select 1", PGRES_TUPLES_OK);
        release(lease);
        ck_assert_uint_ge(events[LIDO_EVENT_RESET_FAILED], 1);
        admin_run(admin, "select pg_terminate_backend(%d)", pid);
}
END_TEST

START_TEST(a_borrower_who_ends_the_connection_itself_costs_one_connection)
{
        open_pool();
        lido_lease lease = acquire();
        PQfinish(lido_pg_conn(lease));
        ck_assert_ptr_null(lido_pg_conn(lease));
        release(lease);
        lease = acquire();
        run(lease, "select 1", PGRES_TUPLES_OK);
        release(lease);
}
END_TEST

/* ---- errors ---------------------------------------------------------------------------------------------- */

static int evict_divisions(const char *sqlstate, const PGresult *result, void *context)
{
        (void)result;
        ++*(unsigned *)context;
        return strcmp(sqlstate, "22012") == 0 ? LIDO_PG_FATE_EVICT : LIDO_PG_FATE_DEFAULT;
}

START_TEST(the_embedder_may_judge_errors_otherwise)
{
        /* given */ unsigned calls = 0;
        pg.adjudicate = evict_divisions;
        pg.adjudicate_context = &calls;
        options.max = 1;
        open_pool();
        lido_lease lease = acquire();
        int pid = pid_of(lease);
        run(lease, "select no_such_column", PGRES_FATAL_ERROR);
        release(lease);
        lease = acquire();
        ck_assert_int_eq(pid_of(lease), pid);
        /* when  */ run(lease, "select 1/0", PGRES_FATAL_ERROR);
        release(lease);
        /* then  */ lease = acquire();
        ck_assert_int_ne(pid_of(lease), pid);
        ck_assert_uint_eq(calls, 2);
        release(lease);
}
END_TEST

START_TEST(one_sign_of_a_server_going_down_has_all_sessions_checked)
{
        /* given */ options.min = options.max = 3;
        options.start = LIDO_START_WARM;
        open_pool();
        uint64_t before = stats_of().checked;
        lido_lease lease = acquire();
        terminate(pid_of(lease));
        run(lease, "select 1", PGRES_FATAL_ERROR);
        /* when  */ release(lease);
        /* then  */ for (int turn = 0; stats_of().checked < before + 2; turn++) {
                ck_assert_int_lt(turn, 20000);
                nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
        }
}
END_TEST

START_TEST(a_server_that_has_become_read_only_loses_its_sessions)
{
        /* given */ struct own_server server;
        own_server_start(&server, "");
        snprintf(text, sizeof text, "%s target_session_attrs=read-write", server.conninfo);
        pg.conninfo = text;
        options.min = options.max = 2;
        options.start = LIDO_START_WARM;
        open_pool();
        PGconn *beside = admin_connect(server.conninfo);
        admin_run(beside, "alter system set default_transaction_read_only = on");
        admin_run(beside, "select pg_reload_conf()");
        /* when  */ lido_lease lease = acquire();
        for (int turn = 0; admin_number(lido_pg_conn(lease), "select (current_setting('default_transaction_read_only') = "
                                                              "'on')::int") == 0;
             turn++) /* until the backend has read it */
                ck_assert_int_lt(turn, 100000);
        PQfinish(admin_connect(server.conninfo)); /* the postmaster is at it again, so it has told every backend */
        run(lease, "create table t (v int)", PGRES_FATAL_ERROR);
        release(lease);
        /* then  */ ck_assert_int_eq(lido_acquire(pool, 500, &lease), LIDO_ETIMEDOUT);
        ck_assert_uint_eq(stats_of().idle, 0);
        PQfinish(beside);
        tear_down();
        own_server_remove(&server);
        pool = NULL;
        set_up();
}
END_TEST

/* ---- opening fails --------------------------------------------------------------------------------------- */

static void wrong_password(struct fakepg *server, int fd, unsigned nth)
{
        (void)nth;
        if (fakepg_take_startup(server, fd))
                fakepg_send_error(fd, "FATAL", "28P01", "password authentication failed");
}

START_TEST(a_wrong_password_fails_waiters_at_once_and_is_not_tried_again_soon)
{
        /* given */ struct fakepg server;
        lido_lease lease;
        fakepg_start(&server, wrong_password);
        pg.conninfo = fakepg_conninfo(&server, "password=hunter2", text, sizeof text);
        open_pool();
        /* when  */ uint64_t start = clock_now_ns();
        int rc = lido_acquire(pool, 20000, &lease);
        uint64_t took = clock_now_ns() - start;
        /* then  */ ck_assert_int_eq(rc, LIDO_EPERMANENT);
        ck_assert_uint_lt(took, 2 * NS_PER_S);
        struct lido_blame blame = LIDO_BLAME_INIT;
        ck_assert_int_eq(lido_pool_blame(pool, &blame), LIDO_OK);
        ck_assert_int_eq(blame.last_error_is_set, 1);
        ck_assert_str_eq(blame.last_error.sqlstate, "28P01");
        ck_assert_ptr_nonnull(strstr(blame.last_error.text, "password authentication failed"));
        while (clock_now_ns() - start < 2 * NS_PER_S) /* many borrowers, for two seconds */
                if (lido_acquire(pool, 50, &lease) == LIDO_EPERMANENT)
                        nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
        ck_assert_uint_le(server.startups, 2);
        tear_down();
        fakepg_stop(&server);
        pool = NULL;
        set_up();
}
END_TEST

static void too_many(struct fakepg *server, int fd, unsigned nth)
{
        (void)nth;
        if (fakepg_take_startup(server, fd))
                fakepg_send_error(fd, "FATAL", "53300", "sorry, too many clients already");
}

START_TEST(a_full_server_is_not_hammered)
{
        /* given */ struct fakepg server;
        lido_lease lease;
        fakepg_start(&server, too_many);
        pg.conninfo = fakepg_conninfo(&server, "", text, sizeof text);
        open_pool();
        /* when  */ int rc = lido_acquire(pool, 2000, &lease);
        /* then  */ ck_assert_int_eq(rc, LIDO_ETIMEDOUT);
        ck_assert_uint_ge(server.startups, 1);
        ck_assert_uint_le(server.startups, 20);
        tear_down();
        fakepg_stop(&server);
        pool = NULL;
        set_up();
}
END_TEST

START_TEST(a_server_that_is_down_times_a_borrower_out_and_says_why)
{
        /* given */ lido_lease lease;
        struct lido_blame blame = LIDO_BLAME_INIT;
        pg.conninfo = "host=/nonexistent port=1";
        open_pool();
        /* when  */ int rc = lido_acquire(pool, 300, &lease);
        /* then  */ ck_assert_int_eq(rc, LIDO_ETIMEDOUT);
        ck_assert_int_eq(lido_pool_blame(pool, &blame), LIDO_OK);
        ck_assert_int_eq(blame.cause, LIDO_CAUSE_DOWN);
        ck_assert_int_eq(blame.last_error.failure, LIDO_FAILURE_NETWORK);
        ck_assert_ptr_nonnull(strstr(blame.last_error.text, "/nonexistent"));
}
END_TEST

START_TEST(an_open_that_hangs_is_given_up_at_its_deadline)
{
        /* given */ struct fakepg server;
        fakepg_start(&server, fakepg_silent);
        pg.conninfo = fakepg_conninfo(&server, "", text, sizeof text);
        options.open_timeout_ms = 200;
        open_pool();
        lido_lease lease;
        /* when  */ ck_assert_int_eq(lido_acquire(pool, 1000, &lease), LIDO_ETIMEDOUT);
        wait_for_events(LIDO_EVENT_OPEN_FAILED, 1);
        /* then  */ ck_assert_int_eq(last_error[LIDO_EVENT_OPEN_FAILED].failure, LIDO_FAILURE_NETWORK);
        tear_down();
        fakepg_stop(&server);
        pool = NULL;
        set_up();
}
END_TEST

START_TEST(closing_the_pool_does_not_wait_for_an_open_that_hangs)
{
        /* given */ struct fakepg server;
        lido_lease lease;
        fakepg_start(&server, fakepg_silent);
        pg.conninfo = fakepg_conninfo(&server, "", text, sizeof text);
        pg.attempt_timeout_ms = 60000;
        options.open_timeout_ms = 60000;
        open_pool();
        ck_assert_int_eq(lido_acquire(pool, 100, &lease), LIDO_ETIMEDOUT);
        /* when  */ uint64_t start = clock_now_ns();
        tear_down();
        /* then  */ ck_assert_uint_lt(clock_now_ns() - start, 5 * NS_PER_S);
        fakepg_stop(&server);
        pool = NULL;
        set_up();
}
END_TEST

START_TEST(a_conninfo_that_cannot_be_parsed_opens_no_pool)
{
        struct lido_error error;

        pg.conninfo = "colour=blue";
        pg.error = &error;
        ck_assert_int_eq(lido_pg_pool_open(&pool, service, &pg, &options), LIDO_EINVAL);
        ck_assert_ptr_nonnull(strstr(error.text, "colour"));
        ck_assert_ptr_null(pool);
}
END_TEST

START_TEST(options_of_the_pool_that_are_refused_leak_nothing)
{
        options.max = 1;
        options.min = 2;
        ck_assert_int_eq(lido_pg_pool_open(&pool, service, &pg, &options), LIDO_EINVAL);
        ck_assert_uint_eq(open_descriptors(), descriptors);
}
END_TEST

START_TEST(failing_fast_tells_that_it_can_only_fail)
{
        snprintf(text, sizeof text, "%s dbname=nowhere", server_conninfo());
        pg.conninfo = text;
        options.min = 1;
        options.start = LIDO_START_FAIL_FAST;
        ck_assert_int_eq(lido_pg_pool_open(&pool, service, &pg, &options), LIDO_EPERMANENT);
}
END_TEST

/* ---- the service goes ------------------------------------------------------------------------------------ */

START_TEST(a_lease_outlives_its_service)
{
        open_pool();
        lido_lease lease = acquire();
        ck_assert_int_eq(lido_service_stop(service, 0), LIDO_ETIMEDOUT);
        release(lease);
        lido_pool_free(pool);
        pool = NULL;
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
        ck_assert_uint_eq(open_descriptors(), descriptors);
}
END_TEST

START_TEST(a_child_touches_nothing_of_its_parent)
{
        /* given */ options.max = 1;
        open_pool();
        lido_lease lease = acquire();
        int pid = pid_of(lease), status;
        /* when  */ pid_t child = fork();
        if (child == 0) {
                lido_lease mine;
                bool is_fine = lido_acquire(pool, 0, &mine) == LIDO_EFORKED && lido_release(lease) == LIDO_EFORKED;

                lido_pool_free(pool);
                _exit(is_fine ? 0 : 1);
        }
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        /* then  */ ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        run(lease, "select 1", PGRES_TUPLES_OK);
        release(lease);
        lease = acquire();
        ck_assert_int_eq(pid_of(lease), pid);
        run(lease, "select 1", PGRES_TUPLES_OK);
        release(lease);
        terminate(pid); /* and events still arrive */
        wait_for_events(LIDO_EVENT_BROKEN, 1);
}
END_TEST

/* ---- TLS and SCRAM --------------------------------------------------------------------------------------- */

START_TEST(tls_and_scram_sessions_are_watched_checked_and_reset_alike)
{
        /* given */ struct own_server server;
        own_server_start(&server, "--tls --scram");
        pg.conninfo = server.tcp_conninfo;
        options.max = 1;
        options.check_after_ms = 1;
        options.rest_after_ms = 1;
        open_pool();
        PGconn *beside = admin_connect(server.conninfo);
        lido_lease lease = acquire();
        int pid = pid_of(lease);
        ck_assert_int_eq(PQsslInUse(lido_pg_conn(lease)), 1);
        /* when  */ run(lease, "begin", PGRES_COMMAND_OK);
        ck_assert_int_eq(PQsendQuery(lido_pg_conn(lease), "select repeat('x', 100000)"), 1);
        release(lease);
        lease = acquire();
        /* then  */ ck_assert_int_eq(pid_of(lease), pid);
        run(lease, "select 1", PGRES_TUPLES_OK);
        release(lease);
        nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL); /* it has to age, and be checked */
        lease = acquire();
        ck_assert_int_eq(pid_of(lease), pid);
        release(lease);
        admin_run(beside, "select pg_terminate_backend(%d)", pid);
        wait_for_events(LIDO_EVENT_BROKEN, 1);
        lease = acquire();
        run(lease, "select 1", PGRES_TUPLES_OK);
        release(lease);
        PQfinish(beside);
        lido_pool_close(pool, 0);
        ck_assert_int_eq(lido_pool_drain(pool, 20000), LIDO_OK);
        own_server_remove(&server);
}
END_TEST

int main(void)
{
        return suite_run_with("pg/pool",
                              (const TTest *[]){
                                      a_borrower_gets_a_connection_that_works,
                                      a_connection_is_used_again,
                                      the_pools_name_shows_in_pg_stat_activity,
                                      a_pool_that_is_closed_leaves_no_backend_no_thread_and_no_descriptor,
                                      a_detached_connection_lives_on_without_the_pool,
                                      a_detached_connection_has_libpqs_own_notice_hooks,
                                      an_error_is_told_with_its_sqlstate,
                                      connections_killed_while_idle_are_never_lent,
                                      the_watch_tells_why_an_idle_connection_ended,
                                      a_connection_killed_while_lent_is_closed_when_it_returns,
                                      a_session_that_timed_out_while_idle_is_not_lent,
                                      a_backend_that_does_not_answer_its_check_is_replaced,
                                      a_fatal_that_waits_to_be_read_is_a_death_though_the_socket_is_open,
                                      a_pending_notification_does_not_cost_the_connection,
                                      a_flood_of_notifications_to_idle_connections_starves_neither_the_loop_nor_borrowers,
                                      a_server_that_restarts_at_once_is_used_again,
                                      connections_closed_right_after_they_were_opened_upset_no_loop,
                                      an_open_transaction_is_undone_and_the_backend_kept,
                                      a_failed_transaction_is_undone_and_the_backend_kept,
                                      unread_results_never_reach_the_next_borrower,
                                      copy_left_in_the_middle_is_undone_quickly_and_without_spinning,
                                      a_query_still_running_at_release_is_given_up_after_the_reset_deadline,
                                      a_borrower_who_ends_the_connection_itself_costs_one_connection,
                                      the_embedder_may_judge_errors_otherwise,
                                      one_sign_of_a_server_going_down_has_all_sessions_checked,
                                      a_server_that_has_become_read_only_loses_its_sessions,
                                      a_wrong_password_fails_waiters_at_once_and_is_not_tried_again_soon,
                                      a_full_server_is_not_hammered,
                                      a_server_that_is_down_times_a_borrower_out_and_says_why,
                                      an_open_that_hangs_is_given_up_at_its_deadline,
                                      closing_the_pool_does_not_wait_for_an_open_that_hangs,
                                      a_conninfo_that_cannot_be_parsed_opens_no_pool,
                                      options_of_the_pool_that_are_refused_leak_nothing,
                                      failing_fast_tells_that_it_can_only_fail,
                                      a_lease_outlives_its_service,
                                      a_child_touches_nothing_of_its_parent,
                                      tls_and_scram_sessions_are_watched_checked_and_reset_alike,
                                      NULL,
                              },
                              set_up, tear_down);
}
