/* Cancelling a statement, and that a late request never reaches the next borrower. LIDO_CANCELS is how many pairs of cancel and
 * next statement are tried (default 200; CI says 1000). */
#include "lido/pg.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/park.h"
#include "lido/service.h"
#include "support/pgfixture.h"
#include "support/suite.h"

static struct lido_service *service;
static struct lido_pool *pool;

static void open_pool(const char *conninfo)
{
        struct lido_pg_options pg = LIDO_PG_OPTIONS_INIT;
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;

        pg.conninfo = conninfo;
        options.max = 1;
        ck_assert_int_eq(lido_pg_pool_open(&pool, service, &pg, &options), LIDO_OK);
}

static void set_up(void)
{
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
}

static void tear_down(void)
{
        lido_pool_free(pool);
        ck_assert_int_eq(lido_service_stop(service, 20000), LIDO_OK);
}

static lido_lease acquire(void)
{
        lido_lease lease;
        int rc = lido_acquire(pool, 20000, &lease);

        ck_assert_msg(rc == LIDO_OK, "%s", lido_err_name(rc));
        return lease;
}

/* The SQLSTATE that a statement ends with, "" if it is none. */
static const char *run(lido_lease lease, const char *sql)
{
        static char state[6];
        PGresult *result = PQexec(lido_pg_conn(lease), sql);
        const char *found = PQresultErrorField(result, PG_DIAG_SQLSTATE);

        snprintf(state, sizeof state, "%s", found ? found : PQresultStatus(result) == PGRES_FATAL_ERROR ? "?????" : "");
        PQclear(result);
        return state;
}

static void *cancel_when_it_sleeps(void *lease_pointer)
{
        PGconn *admin = admin_connect(server_conninfo());

        admin_wait_for(admin, 1, "select count(*) from pg_stat_activity where query = 'select pg_sleep(300)' "
                                 "and state = 'active'");
        ck_assert_int_eq(lido_pg_cancel(*(lido_lease *)lease_pointer, 20000), LIDO_OK);
        PQfinish(admin);
        return NULL;
}

START_TEST(a_running_statement_is_cancelled_and_its_connection_kept)
{
        /* given */ pthread_t thread;
        open_pool(server_conninfo());
        lido_lease lease = acquire();
        int pid = PQbackendPID(lido_pg_conn(lease));
        ck_assert_int_eq(pthread_create(&thread, NULL, cancel_when_it_sleeps, &lease), 0);
        /* when  */ const char *state = run(lease, "select pg_sleep(300)");
        /* then  */ ck_assert_str_eq(state, "57014");
        pthread_join(thread, NULL);
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        lease = acquire();
        ck_assert_int_eq(PQbackendPID(lido_pg_conn(lease)), pid);
        ck_assert_str_eq(run(lease, "select 1"), "");
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
}
END_TEST

START_TEST(a_lease_that_has_ended_cannot_be_cancelled)
{
        open_pool(server_conninfo());
        lido_lease lease = acquire(), none = { NULL, 0 };
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        ck_assert_int_eq(lido_pg_cancel(lease, 1000), LIDO_ESTALE);
        ck_assert_int_eq(lido_pg_cancel(none, 1000), LIDO_ESTALE);
        ck_assert_int_eq(lido_pg_cancel(lease, -5), LIDO_EINVAL);
}
END_TEST

/* ---- strays ---------------------------------------------------------------------------------------------- */

static pthread_mutex_t target_lock = PTHREAD_MUTEX_INITIALIZER;
static lido_lease target;               /* guarded by target_lock; the canceller may be behind, and take a newer one */
static _Atomic uint32_t target_number;  /* atomic; slept on by the canceller */
static unsigned accepted;

static void *cancel_whatever_comes(void *wanted)
{
        uint32_t seen = 0;

        while (seen < *(uint32_t *)wanted) {
                uint32_t now;

                while ((now = atomic_load(&target_number)) == seen)
                        park_wait(&target_number, seen, CLOCK_NEVER);
                seen = now;
                pthread_mutex_lock(&target_lock);
                lido_lease lease = target;
                pthread_mutex_unlock(&target_lock);
                accepted += lido_pg_cancel(lease, seen % 2 ? 0 : 20000) != LIDO_ESTALE;
        }
        return NULL;
}

START_TEST(a_late_cancel_never_reaches_the_next_borrower)
{
        /* given */ const char *value = getenv("LIDO_CANCELS");
        uint32_t pairs = value ? (uint32_t)strtoul(value, NULL, 10) : 200;
        pthread_t thread;
        open_pool(server_conninfo());
        ck_assert_int_eq(pthread_create(&thread, NULL, cancel_whatever_comes, &pairs), 0);
        for (uint32_t i = 1; i <= pairs; i++) {
                /* when  */ lido_lease lease = acquire();
                pthread_mutex_lock(&target_lock);
                target = lease;
                pthread_mutex_unlock(&target_lock);
                atomic_store(&target_number, i);
                park_wake(&target_number, 1);
                for (uint32_t turn = 0; turn < i % 4; turn++)
                        run(lease, "select 1"); /* it may be cancelled: it is this borrower's */
                ck_assert_int_eq(lido_release(lease), LIDO_OK);
                /* then  */ lease = acquire();
                for (int turn = 0; turn < 3; turn++)
                        ck_assert_str_eq(run(lease, "select 2"), "");
                ck_assert_int_eq(lido_release(lease), LIDO_OK);
        }
        pthread_join(thread, NULL);
        ck_assert_uint_gt(accepted, 0);
}
END_TEST

/* ---- a server that does not take requests ---------------------------------------------------------------- */

static int postmaster_of(const struct own_server *server)
{
        char path[128];
        int pid = 0;

        snprintf(path, sizeof path, "%s/data/postmaster.pid", server->dir);
        FILE *file = fopen(path, "r");
        ck_assert_ptr_nonnull(file);
        ck_assert_int_eq(fscanf(file, "%d", &pid), 1);
        fclose(file);
        return pid;
}

START_TEST(a_request_that_is_not_taken_holds_up_nobody_but_its_connection)
{
        /* given */ struct own_server server;
        own_server_start(&server, "");
        open_pool(server.conninfo);
        int postmaster = postmaster_of(&server);
        lido_lease lease = acquire();
        ck_assert_int_eq(kill(postmaster, SIGSTOP), 0);
        /* when  */ uint64_t start = clock_now_ns();
        int rc = lido_pg_cancel(lease, 200);
        uint64_t took = clock_now_ns() - start;
        /* then  */ ck_assert_int_eq(rc, LIDO_EDEADLINE);
        ck_assert_uint_ge(took, 200 * NS_PER_MS);
        ck_assert_uint_lt(took, 5 * NS_PER_S);
        ck_assert_str_eq(run(lease, "select 1"), ""); /* the borrower goes on */
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        ck_assert_int_eq(lido_acquire(pool, 200, &lease), LIDO_ETIMEDOUT); /* not lent meanwhile */
        ck_assert_int_eq(kill(postmaster, SIGCONT), 0);
        lease = acquire();
        ck_assert_str_eq(run(lease, "select 1"), "");
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        lido_pool_close(pool, 0);
        ck_assert_int_eq(lido_pool_drain(pool, 20000), LIDO_OK);
        own_server_remove(&server);
}
END_TEST

START_TEST(a_pool_ends_while_a_request_is_not_taken)
{
        /* given */ struct own_server server;
        own_server_start(&server, "");
        open_pool(server.conninfo);
        int postmaster = postmaster_of(&server);
        lido_lease lease = acquire();
        ck_assert_int_eq(kill(postmaster, SIGSTOP), 0);
        ck_assert_int_eq(lido_pg_cancel(lease, 0), LIDO_EDEADLINE);
        /* when  */ ck_assert_int_eq(lido_release(lease), LIDO_OK);
        lido_pool_close(pool, 0);
        /* then  */ ck_assert_int_eq(lido_pool_drain(pool, 20000), LIDO_OK);
        ck_assert_int_eq(kill(postmaster, SIGCONT), 0);
        own_server_remove(&server);
}
END_TEST

struct waiting {
        PGconn *admin;
        int postmaster;
        _Atomic uint32_t is_over;    /* the query has returned */
        uint32_t was_over;           /* before the request was taken */
};

static void *go_on_when_the_statement_is_done(void *waiting_pointer)
{
        struct waiting *waiting = waiting_pointer;

        admin_wait_for(waiting->admin, 1, "select count(*) from pg_stat_activity where query like '%%pg_sleep(0.3)' and state = 'idle'");
        waiting->was_over = atomic_load(&waiting->is_over);
        kill(waiting->postmaster, SIGCONT);
        return NULL;
}

/* The server signals twice for a request, so that one taken in the middle hits two statements. */
START_TEST(whoever_goes_on_with_the_lease_waits_until_the_request_is_taken)
{
        /* given */ struct lido_pg_query_options options = LIDO_PG_QUERY_OPTIONS_INIT;
        struct own_server server;
        struct lido_pg_rows *rows;
        pthread_t thread;
        own_server_start(&server, "");
        open_pool(server.conninfo);
        struct waiting waiting = { .admin = admin_connect(server.conninfo), .postmaster = postmaster_of(&server) };
        lido_lease lease = acquire();
        int pid = PQbackendPID(lido_pg_conn(lease));
        ck_assert_int_eq(kill(waiting.postmaster, SIGSTOP), 0);
        ck_assert_int_eq(pthread_create(&thread, NULL, go_on_when_the_statement_is_done, &waiting), 0);
        options.timeout_ms = 50;
        /* when  */ ck_assert_int_eq(lido_pg_query_on(lease, "select pg_sleep(0.3)", NULL, 0, &options, &rows), LIDO_EDEADLINE);
        atomic_store(&waiting.is_over, 1);
        /* then  */ ck_assert_str_eq(run(lease, "select pg_sleep(0.2)"), "");
        pthread_join(thread, NULL);
        ck_assert_uint_eq(waiting.was_over, 0);
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        lease = acquire();
        ck_assert_int_eq(PQbackendPID(lido_pg_conn(lease)), pid);
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        PQfinish(waiting.admin);
        lido_pool_close(pool, 0);
        ck_assert_int_eq(lido_pool_drain(pool, 20000), LIDO_OK);
        own_server_remove(&server);
}
END_TEST

START_TEST(a_query_past_its_deadline_is_cancelled_at_the_server)
{
        /* given */ struct lido_pg_query_options options = LIDO_PG_QUERY_OPTIONS_INIT;
        struct lido_pg_rows *rows;
        PGconn *admin = admin_connect(server_conninfo());
        open_pool(server_conninfo());
        lido_lease lease = acquire();
        int pid = PQbackendPID(lido_pg_conn(lease));
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        options.timeout_ms = 200;
        /* when  */ ck_assert_int_eq(lido_pg_query(pool, "select pg_sleep(301)", NULL, 0, &options, &rows), LIDO_EDEADLINE);
        /* then  */ lease = acquire();
        ck_assert_int_eq(PQbackendPID(lido_pg_conn(lease)), pid);
        admin_wait_for(admin, 0, "select count(*) from pg_stat_activity where query = 'select pg_sleep(301)' "
                                 "and state = 'active'");
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        PQfinish(admin);
}
END_TEST

int main(void)
{
        return suite_run_with("pg/cancel",
                              (const TTest *[]){
                                      a_running_statement_is_cancelled_and_its_connection_kept,
                                      a_lease_that_has_ended_cannot_be_cancelled,
                                      a_late_cancel_never_reaches_the_next_borrower,
                                      a_request_that_is_not_taken_holds_up_nobody_but_its_connection,
                                      a_pool_ends_while_a_request_is_not_taken,
                                      whoever_goes_on_with_the_lease_waits_until_the_request_is_taken,
                                      a_query_past_its_deadline_is_cancelled_at_the_server,
                                      NULL,
                              },
                              set_up, tear_down);
}
