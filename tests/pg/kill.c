/* Kills at random: idle backends are terminated and connections borrowed in random order, and no borrower ever gets a dead one.
 * LIDO_KILLS is how many (default 300; CI says 10000), LIDO_SEED the seed to repeat a run with. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/random.h"
#include "lido/pg.h"
#include "lido/service.h"
#include "lido/stats.h"
#include "support/pgfixture.h"
#include "support/suite.h"

#define CONNECTIONS 8
#define HELD_MOST 4

static struct lido_pool *pool;
static PGconn *admin;
static struct random random_numbers;

static lido_lease held[HELD_MOST];
static unsigned held_count;
static int idle_pids[CONNECTIONS * 2]; /* of backends that were returned and may be idle */
static unsigned idle_count;
static unsigned long acquires, kills;

static uint64_t number_from(const char *name, uint64_t otherwise)
{
        const char *value = getenv(name);

        return value && *value ? strtoull(value, NULL, 10) : otherwise;
}

static int pid_of(lido_lease lease)
{
        return PQbackendPID(lido_pg_conn(lease));
}

static void forget_pid(int pid)
{
        for (unsigned i = 0; i < idle_count; i++)
                if (idle_pids[i] == pid)
                        idle_pids[i--] = idle_pids[--idle_count];
}

static void borrow(void)
{
        lido_lease lease;
        int rc = lido_acquire(pool, 20000, &lease);

        ck_assert_msg(rc == LIDO_OK, "%s", lido_err_name(rc));
        PGresult *result = PQexec(lido_pg_conn(lease), "select 1");
        ck_assert_msg(PQresultStatus(result) == PGRES_TUPLES_OK, "after %lu kills and %lu acquires a borrower got a dead one: %s",
                      kills, acquires, PQerrorMessage(lido_pg_conn(lease)));
        PQclear(result);
        forget_pid(pid_of(lease));
        held[held_count++] = lease;
        acquires++;
}

static void give_back(void)
{
        unsigned chosen = (unsigned)random_below(&random_numbers, held_count);
        lido_lease lease = held[chosen];

        held[chosen] = held[--held_count];
        if (idle_count < CONNECTIONS * 2)
                idle_pids[idle_count++] = pid_of(lease);
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
}

/* A signal is only a request: the backend is dead when its process is gone. */
static void kill_one(void)
{
        const struct timespec pause = { .tv_nsec = 50000 };
        int pid = idle_pids[random_below(&random_numbers, idle_count)];

        forget_pid(pid);
        admin_run(admin, "select pg_terminate_backend(%d)", pid);
        for (int turn = 0; kill(pid, 0) == 0 || errno == EPERM; turn++) {
                ck_assert_int_lt(turn, 400000);
                nanosleep(&pause, NULL);
        }
        kills++;
}

static void move(void)
{
        uint64_t die = random_below(&random_numbers, 3);

        if (die == 0 && held_count < HELD_MOST)
                borrow();
        else if (die == 1 && held_count > 0)
                give_back();
        else if (die == 2 && idle_count > 0)
                kill_one();
}

START_TEST(a_killed_idle_connection_is_never_lent)
{
        /* given */ struct lido_service *service;
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        struct lido_pg_options pg = LIDO_PG_OPTIONS_INIT;
        uint64_t wanted = number_from("LIDO_KILLS", 300);
        random_numbers.state = number_from("LIDO_SEED", random_seed());
        printf("seed %llu\n", (unsigned long long)random_numbers.state);
        fflush(stdout);
        admin = admin_connect(server_conninfo());
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
        options.max = options.min = CONNECTIONS;
        pg.conninfo = server_conninfo();
        ck_assert_int_eq(lido_pg_pool_open(&pool, service, &pg, &options), LIDO_OK);

        /* when  */ while (kills < wanted || acquires < wanted)
                move();
        while (held_count > 0)
                give_back();

        /* then  */ struct lido_stats stats = LIDO_STATS_INIT;
        ck_assert_int_eq(lido_pool_stats(pool, &stats), LIDO_OK);
        ck_assert_uint_eq(stats.leased, 0);
        ck_assert_uint_ge(stats.acquired, acquires);
        ck_assert_uint_ge(stats.opened + CONNECTIONS, kills); /* each was replaced, or is about to be */
        lido_pool_free(pool);
        ck_assert_int_eq(lido_service_stop(service, 20000), LIDO_OK);
        PQfinish(admin);
}
END_TEST

int main(void)
{
        return suite_run("pg/kill", (const TTest *[]){ a_killed_idle_connection_is_never_lent, NULL });
}
