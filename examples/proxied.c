/* Threads that book entries through whatever stands between them and PostgreSQL: pgbouncer, HAProxy, or nothing.
 *
 *      proxied CONNINFO THREADS ENTRIES session|transaction
 *
 * Behind pgbouncer in transaction mode each transaction may run on another backend. So nothing may be left in a session (no SET,
 * LISTEN or prepared statement), and nothing is to be undone at its return: LIDO_PG_RESET_NONE. In session mode it lets everybody
 * in, and those beyond its pool_size hang in their first statement: `max` must not be above that. HAProxy needs no thought.
 *
 * A booking that fails is tried again until it is known to be there: each entry has its number, so it is there once however
 * often it was tried.
 */
#include <lido.h>
#include <lido/pg.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct lido_pool *pool;
static int entry_count;
static _Atomic int next_entry, failures;

/* Returns: 1 when the server has said that the entry is there. */
static int book(int entry)
{
        lido_lease lease;
        char number[16];
        const char *values[] = { number };
        PGresult *result;
        int is_booked;

        if (lido_acquire(pool, 1000, &lease) != LIDO_OK)
                return 0;
        snprintf(number, sizeof number, "%d", entry);
        result = PQexecParams(lido_pg_conn(lease), "insert into ledger values ($1) on conflict do nothing", 1, NULL, values, NULL,
                              NULL, 0);
        is_booked = PQresultStatus(result) == PGRES_COMMAND_OK;
        PQclear(result);
        lido_release(lease);
        return is_booked;
}

static void *work(void *unused)
{
        int entry;

        while ((entry = atomic_fetch_add(&next_entry, 1)) < entry_count)
                while (!book(entry))
                        atomic_fetch_add(&failures, 1);
        return unused;
}

/* The number that a query gives; -1 when it fails. */
static int ask(const char *sql)
{
        lido_lease lease;
        PGresult *result;
        int number = -1;

        if (lido_acquire(pool, 10000, &lease) != LIDO_OK)
                return -1;
        result = PQexec(lido_pg_conn(lease), sql);
        if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1)
                number = atoi(PQgetvalue(result, 0, 0));
        else
                fprintf(stderr, "%s", PQresultErrorMessage(result));
        PQclear(result);
        lido_release(lease);
        return number;
}

int main(int argc, char **argv)
{
        struct lido_pg_options pg = LIDO_PG_OPTIONS_INIT;
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        struct lido_service *service;
        pthread_t threads[64];
        int thread_count, rc;

        if (argc != 5) {
                fprintf(stderr, "usage: proxied CONNINFO THREADS ENTRIES session|transaction\n");
                return 2;
        }
        pg.conninfo = argv[1];
        thread_count = atoi(argv[2]) < 64 ? atoi(argv[2]) : 64;
        entry_count = atoi(argv[3]);
        if (strcmp(argv[4], "transaction") == 0)
                pg.reset = LIDO_PG_RESET_NONE;
        options.name = "proxied";
        options.max = 8;
        if (lido_service_start(&service, NULL) != LIDO_OK)
                return 1;
        rc = lido_pg_pool_open(&pool, service, &pg, &options);
        if (rc != LIDO_OK) {
                fprintf(stderr, "no pool: %s\n", lido_strerror(rc));
                return 1;
        }
        for (int i = 0; i < thread_count; i++)
                pthread_create(&threads[i], NULL, work, NULL);
        for (int i = 0; i < thread_count; i++)
                pthread_join(threads[i], NULL);
        int found = -1;
        for (int tries = 0; tries < 10 && found < 0; tries++) /* a session may still be one that the proxy is about to cut */
                found = ask("select count(*) from ledger");
        printf("%d entries booked, %d in the ledger, %d failures on the way\n", entry_count, found, atomic_load(&failures));
        lido_pool_free(pool);
        lido_service_stop(service, 5000);
        return found != entry_count;
}
