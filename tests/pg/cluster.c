/* A primary and its standbys, for real: promoted, killed, rejoined. What follows from what is known, by itself: pg/hosts.c. */
#include "lido/pg.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "lido/events.h"
#include "lido/service.h"
#include "lido/stats.h"
#include "support/pgfixture.h"
#include "support/suite.h"

enum { FIRST, SECOND, THIRD, SERVERS };

static struct own_server server[SERVERS];
static unsigned server_count;
static struct lido_service *service;
static struct lido_pool *pool;
static struct lido_pg_options pg;
static struct lido_pool_options options;
static _Atomic unsigned failures; /* opens that failed */

/* ---- fixture --------------------------------------------------------------------------------------------- */

static void on_event(const struct lido_event *event, void *context)
{
        (void)context;
        if (event->type == LIDO_EVENT_OPEN_FAILED)
                atomic_fetch_add(&failures, 1);
}

static void set_up(void)
{
        pg = (struct lido_pg_options)LIDO_PG_OPTIONS_INIT;
        options = (struct lido_pool_options)LIDO_POOL_OPTIONS_INIT;
        options.max = 4;
        options.on_event = on_event;
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
}

static void close_pool(void)
{
        lido_pool_close(pool, 0);
        ck_assert_int_eq(lido_pool_drain(pool, 20000), LIDO_OK);
        lido_pool_free(pool);
        pool = NULL;
}

static void tear_down(void)
{
        if (pool)
                close_pool();
        ck_assert_int_eq(lido_service_stop(service, 20000), LIDO_OK);
        while (server_count > 0)
                own_server_remove(&server[--server_count]);
}

/* A primary and count - 1 standbys, which follow it. */
static void start_servers(unsigned count)
{
        own_server_start(&server[FIRST], "--replicas");
        for (server_count = 1; server_count < count; server_count++)
                own_server_standby(&server[server_count], &server[FIRST]);
}

static const char *port_of(unsigned which)
{
        static char port[SERVERS][16];

        ck_assert_int_eq(sscanf(strstr(server[which].conninfo, "port="), "port=%15s", port[which]), 1);
        return port[which];
}

static void open_pool(const char *attrs)
{
        static char conninfo[1024];
        char hosts[256] = "", ports[64] = "";

        for (unsigned i = 0; i < server_count; i++) {
                snprintf(hosts + strlen(hosts), sizeof hosts - strlen(hosts), "%s%s", i ? "," : "", server[i].dir);
                snprintf(ports + strlen(ports), sizeof ports - strlen(ports), "%s%s", i ? "," : "", port_of(i));
        }
        snprintf(conninfo, sizeof conninfo, "host=%s port=%s user=postgres dbname=postgres target_session_attrs=%s", hosts, ports,
                 attrs);
        pg.conninfo = conninfo;
        ck_assert_int_eq(lido_pg_pool_open(&pool, service, &pg, &options), LIDO_OK);
}

static lido_lease acquire(void)
{
        lido_lease lease;
        int rc = lido_acquire(pool, 30000, &lease);

        ck_assert_msg(rc == LIDO_OK, "%s", lido_err_name(rc));
        return lease;
}

static bool is_at(lido_lease lease, unsigned which)
{
        return strcmp(PQport(lido_pg_conn(lease)), port_of(which)) == 0;
}

/* Run a statement. Returns: its SQLSTATE, "" when it worked, "lost" when the connection is. */
static const char *run(lido_lease lease, const char *sql)
{
        static char state[8];
        PGresult *result = PQexec(lido_pg_conn(lease), sql);
        const char *found = PQresultErrorField(result, PG_DIAG_SQLSTATE);
        bool is_fine = PQresultStatus(result) == PGRES_COMMAND_OK || PQresultStatus(result) == PGRES_TUPLES_OK;

        snprintf(state, sizeof state, "%s", is_fine ? "" : found ? found : "lost");
        PQclear(result);
        return state;
}

static struct lido_pg_host host_of(unsigned which)
{
        struct lido_pg_host host = LIDO_PG_HOST_INIT;

        ck_assert_int_eq(lido_pg_host(pool, which, &host), LIDO_OK);
        return host;
}

static void pause_a_moment(void)
{
        nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
}

#define wait_until(condition)                                                                                  \
        do {                                                                                                   \
                unsigned turns_ = 0;                                                                           \
                while (!(condition)) {                                                                         \
                        ck_assert_msg(turns_++ < 8000, "never: %s", #condition);                               \
                        pause_a_moment();                                                                      \
                }                                                                                              \
        } while (0)

static void admin_do(unsigned which, const char *sql)
{
        PGconn *admin = admin_connect(server[which].conninfo);

        admin_run(admin, "%s", sql);
        PQfinish(admin);
}

static void admin_expect(unsigned which, long number, const char *sql)
{
        PGconn *admin = admin_connect(server[which].conninfo);

        admin_wait_for(admin, number, "%s", sql);
        PQfinish(admin);
}

/* ---- roles ----------------------------------------------------------------------------------------------- */

START_TEST(writers_go_to_the_primary_and_readers_in_turn_to_the_standbys)
{
        /* given */ lido_lease leases[4];
        unsigned at[SERVERS] = { 0 };
        start_servers(3);
        /* when  */ open_pool("read-write");
        for (unsigned i = 0; i < 4; i++)
                leases[i] = acquire();
        /* then  */ for (unsigned i = 0; i < 4; i++) {
                ck_assert(is_at(leases[i], FIRST));
                lido_release(leases[i]);
        }
        wait_until(host_of(FIRST).is_known && host_of(SECOND).is_standby && host_of(THIRD).is_standby);
        ck_assert_uint_eq(host_of(FIRST).connections, 4);
        ck_assert_uint_eq(host_of(FIRST).timeline, 1);
        ck_assert_uint_ne(host_of(FIRST).system_id, 0);
        ck_assert_uint_eq(host_of(FIRST).system_id, host_of(SECOND).system_id);
        ck_assert_uint_gt(host_of(SECOND).round_trip_ns, 0);
        close_pool();

        /* when  */ pg.balance = LIDO_PG_BALANCE_LEAST;
        open_pool("standby");
        for (unsigned i = 0; i < 4; i++)
                leases[i] = acquire();
        /* then  */ for (unsigned i = 0; i < 4; i++) {
                at[SECOND] += is_at(leases[i], SECOND);
                at[THIRD] += is_at(leases[i], THIRD);
                lido_release(leases[i]);
        }
        ck_assert_uint_eq(at[SECOND], 2);
        ck_assert_uint_eq(at[THIRD], 2);
}
END_TEST

START_TEST(a_standby_that_is_too_far_behind_is_not_lent_until_it_has_caught_up)
{
        /* given */ start_servers(3);
        pg.balance = LIDO_PG_BALANCE_ROUND_ROBIN;
        pg.lag_limit_bytes = 1 << 20;
        pg.host_check_ms = 100;
        open_pool("standby");
        lido_release(acquire());
        admin_do(SECOND, "select pg_wal_replay_pause()");
        /* when  */ admin_do(FIRST, "create table heap as select generate_series(1, 100000) as i");
        wait_until(host_of(SECOND).is_known && !host_of(SECOND).fits && host_of(THIRD).fits);
        /* then  */ ck_assert_uint_gt(host_of(SECOND).lag_bytes, 1u << 20);
        lido_lease leases[4];
        for (unsigned i = 0; i < 4; i++) {
                leases[i] = acquire();
                ck_assert(is_at(leases[i], THIRD));
        }
        for (unsigned i = 0; i < 4; i++)
                lido_release(leases[i]);
        admin_do(SECOND, "select pg_wal_replay_resume()");
        wait_until(host_of(SECOND).fits);
}
END_TEST

/* ---- failover -------------------------------------------------------------------------------------------- */

START_TEST(after_a_promotion_writers_are_served_by_the_new_primary_at_the_next_attempt)
{
        /* given */ lido_lease lease;
        start_servers(3);
        open_pool("read-write");
        lease = acquire();
        ck_assert_str_eq(run(lease, "create table ledger (entry int)"), "");
        lido_release(lease);
        admin_expect(SECOND, 1, "select count(*) from pg_class where relname = 'ledger'");
        own_server_command(&server[FIRST], "stop", "immediate");
        while (lido_acquire(pool, 200, &lease) == LIDO_OK)
                lido_discard(lease);
        wait_until((lido_acquire(pool, 50, &lease), atomic_load(&failures) >= 8)); /* the pauses are as long as they get */
        /* when  */ own_server_command(&server[SECOND], "promote", "");
        unsigned before = atomic_load(&failures);
        uint64_t start = clock_now_ns();
        lease = acquire();
        /* then  */ uint64_t took = clock_now_ns() - start;
        ck_assert(is_at(lease, SECOND));
        ck_assert_str_eq(run(lease, "insert into ledger values (1)"), "");
        lido_release(lease);
        /* one that was under way, and one more; a pause is 400 ms at most */
        ck_assert_uint_le(atomic_load(&failures) - before, 2);
        fprintf(stderr, "served %.0f ms after the promotion\n", (double)took / 1e6);
}
END_TEST

START_TEST(a_session_at_a_primary_that_was_replaced_is_cut_off_and_the_old_one_refused)
{
        /* given */ lido_lease lease;
        struct lido_blame blame = LIDO_BLAME_INIT;
        start_servers(2);
        pg.host_check_ms = 100;
        open_pool("read-write");
        lido_lease held = acquire();
        ck_assert_str_eq(run(held, "create table ledger (entry int)"), "");
        lido_release(acquire()); /* another one, idle */
        /* when  */ own_server_command(&server[SECOND], "promote", ""); /* and nobody has told the first */
        wait_until(host_of(FIRST).is_refused);
        /* then  */ wait_until(strcmp(run(held, "insert into ledger values (1)"), "") != 0);
        lido_release(held);
        for (unsigned i = 0; i < 20; i++) {
                lease = acquire();
                ck_assert(is_at(lease, SECOND));
                lido_release(lease);
        }

        /* when  */ own_server_command(&server[FIRST], "restart", "fast");
        own_server_command(&server[SECOND], "stop", "immediate");
        /* then  */ unsigned before = atomic_load(&failures);
        wait_until((lido_acquire(pool, 50, &lease) != LIDO_OK || (lido_discard(lease), false)) &&
                   atomic_load(&failures) > before + 3);
        ck_assert_int_eq(lido_pool_blame(pool, &blame), LIDO_OK);
        ck_assert_int_eq(lido_acquire(pool, 300, &lease), LIDO_ETIMEDOUT);

        /* when  */ ck_assert_int_eq(lido_pg_forget_past(pool), LIDO_OK);
        /* then  */ lease = acquire();
        ck_assert(is_at(lease, FIRST));
        lido_release(lease);
}
END_TEST

START_TEST(nothing_goes_on_writing_to_a_primary_that_has_become_read_only)
{
        /* given */ lido_lease leases[4], lease;
        start_servers(2);
        pg.host_check_ms = LIDO_NEVER; /* nobody but the sessions themselves can tell */
        open_pool("read-write");
        for (unsigned i = 0; i < 4; i++)
                leases[i] = acquire();
        ck_assert_str_eq(run(leases[0], "create table ledger (entry int)"), "");
        admin_expect(SECOND, 1, "select count(*) from pg_class where relname = 'ledger'");
        for (unsigned i = 1; i < 4; i++)
                lido_release(leases[i]);
        /* when  */ admin_do(FIRST, "alter system set default_transaction_read_only = on");
        admin_do(FIRST, "select pg_reload_conf()");
        wait_until(strcmp(run(leases[0], "insert into ledger values (1)"), "25006") == 0);
        lido_release(leases[0]);
        /* then  */ wait_until(!host_of(FIRST).fits);
        ck_assert_int_ne(lido_acquire(pool, 300, &lease), LIDO_OK);
        own_server_command(&server[SECOND], "promote", "");
        lease = acquire();
        ck_assert(is_at(lease, SECOND));
        ck_assert_str_eq(run(lease, "set default_transaction_read_only = off; insert into ledger values (1)"), "");
        lido_release(lease);
}
END_TEST

START_TEST(readers_who_prefer_a_standby_do_with_the_primary_and_move_when_one_is_back)
{
        /* given */ lido_lease lease;
        start_servers(2);
        pg.host_check_ms = 100;
        own_server_command(&server[FIRST], "stop", "fast");
        own_server_command(&server[SECOND], "promote", "");
        open_pool("prefer-standby");
        lease = acquire();
        ck_assert(is_at(lease, SECOND));
        lido_release(lease);
        wait_until(host_of(FIRST).is_down);
        /* when  */ own_server_command(&server[FIRST], "rejoin", server[SECOND].dir);
        /* then  */ bool has_moved = false;
        wait_until((lease = acquire(), has_moved = is_at(lease, FIRST), lido_release(lease), has_moved));
        ck_assert_str_eq(run(lease = acquire(), "select 1"), "");
        lido_release(lease);
        ck_assert_uint_eq(host_of(FIRST).is_standby, 1);
        ck_assert_uint_eq(host_of(SECOND).timeline, 2);
}
END_TEST

START_TEST(a_server_of_another_cluster_in_the_list_is_never_written_to)
{
        /* given */ lido_lease lease;
        start_servers(1);
        own_server_start(&server[SECOND], "");
        server_count = 2;
        pg.host_check_ms = 100;
        open_pool("read-write");
        lease = acquire();
        ck_assert(is_at(lease, FIRST));
        lido_release(lease);
        wait_until(host_of(SECOND).is_refused);
        /* when  */ own_server_command(&server[FIRST], "stop", "immediate");
        unsigned before = atomic_load(&failures);
        wait_until(lido_acquire(pool, 50, &lease) != LIDO_OK || (lido_discard(lease), false));
        wait_until((lido_acquire(pool, 50, &lease) != LIDO_OK) && atomic_load(&failures) > before + 3);
        own_server_command(&server[FIRST], "restart", "");
        /* then  */ lease = acquire();
        ck_assert(is_at(lease, FIRST));
        lido_release(lease);
}
END_TEST

int main(void)
{
        return suite_run_with("pg/cluster",
                              (const TTest *[]){
                                      writers_go_to_the_primary_and_readers_in_turn_to_the_standbys,
                                      a_standby_that_is_too_far_behind_is_not_lent_until_it_has_caught_up,
                                      after_a_promotion_writers_are_served_by_the_new_primary_at_the_next_attempt,
                                      a_session_at_a_primary_that_was_replaced_is_cut_off_and_the_old_one_refused,
                                      nothing_goes_on_writing_to_a_primary_that_has_become_read_only,
                                      readers_who_prefer_a_standby_do_with_the_primary_and_move_when_one_is_back,
                                      a_server_of_another_cluster_in_the_list_is_never_written_to,
                                      NULL,
                              },
                              set_up, tear_down);
}
