/* Connections to PostgreSQL, put through the suite in contract.c: opened by threads, and on the loop. Each test has a database and a
 * name of its own, by which the server knows the connections of its pool. They are detached by lido_pg_detach: tests/pg/pool.c. */
#include "contract/contract.h"

#include <check.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lido/pg.h"
#include "pg/session.h"
#include "support/patience.h"
#include "support/pgfixture.h"

struct connections {
        int connect_on_loop;
        struct lido_service *service;
        PGconn *admin;
        char database[32];
};

static struct lido_pool *open_pg(struct contract *contract, struct lido_pool_options *options)
{
        struct lido_pg_options pg = LIDO_PG_OPTIONS_INIT;
        struct connections *c = contract->data;
        struct lido_pool *pool = NULL;
        char conninfo[512];

        c->admin = admin_connect(server_conninfo());
        snprintf(c->database, sizeof c->database, "contract_%d", (int)getpid());
        admin_run(c->admin, "create database %s", c->database);
        snprintf(conninfo, sizeof conninfo, "%s dbname=%s", server_conninfo(), c->database);
        pg.conninfo = conninfo;
        pg.connect_on_loop = c->connect_on_loop;
        must(lido_service_start(&c->service, NULL) == LIDO_OK);
        must(lido_pg_pool_open(&pool, c->service, &pg, options) == LIDO_OK);
        return pool;
}

static void end_pg(struct contract *contract)
{
        struct connections *c = contract->data;

        must(lido_service_stop(c->service, PATIENCE_MS) == LIDO_OK);
        admin_wait_for(c->admin, 0, "select count(*) from pg_stat_activity where datname = '%s'", c->database);
        admin_run(c->admin, "drop database %s", c->database);
        PQfinish(c->admin);
}

/* What a pool of these lends is a session; lido_pg_conn shows the connection in it, and the object is all that there is here. */
static PGconn *conn_of(void *object)
{
        session_expose(object);
        return ((struct pg_session *)object)->conn;
}

static void use(void *object)
{
        PGresult *result = PQexec(conn_of(object), "select 6 * 7");

        must(PQresultStatus(result) == PGRES_TUPLES_OK && strcmp(PQgetvalue(result, 0, 0), "42") == 0);
        PQclear(result);
}

static void soil(void *object)
{
        admin_run(conn_of(object), "set search_path = nowhere; create temp table left_behind (v int); begin");
}

static bool is_clean(void *object)
{
        return PQtransactionStatus(conn_of(object)) == PQTRANS_IDLE &&
               admin_number(conn_of(object), "select count(*) from pg_class where relname = 'left_behind'") == 0 &&
               admin_number(conn_of(object), "select count(*) from pg_settings where name = 'search_path' and setting = 'nowhere'") == 0;
}

static void kill_it(void *object)
{
        PGconn *killer = admin_connect(server_conninfo());
        int pid = PQbackendPID(((struct pg_session *)object)->conn);

        admin_run(killer, "select pg_terminate_backend(%d)", pid);
        admin_wait_for(killer, 0, "select count(*) from pg_stat_activity where pid = %d", pid);
        PQfinish(killer);
}

/* The server is there, and lets nobody in. */
static void refuse(struct contract *contract, bool refuses)
{
        struct connections *c = contract->data;

        admin_run(c->admin, "alter database %s allow_connections %s", c->database, refuses ? "false" : "true");
}

static uint32_t alive(struct contract *contract)
{
        struct connections *c = contract->data;

        return (uint32_t)admin_number(c->admin, "select count(*) from pg_stat_activity where datname = '%s'", c->database);
}

#define CONNECTIONS(title, on_loop)                                                                                         \
        {                                                                                                                    \
                .name = title, .most = 8, .data = &(struct connections){ .connect_on_loop = on_loop }, .open = open_pg,         \
                .end = end_pg, .use = use, .soil = soil, .is_clean = is_clean, .kill = kill_it, .refuse = refuse, .alive = alive   \
        }

static struct contract by_threads = CONNECTIONS("connected by threads", 0);
static struct contract on_the_loop = CONNECTIONS("connected on the loop", 1);

int main(void)
{
        return contract_run("contract/pg", (struct contract *const[]){ &by_threads, &on_the_loop, NULL });
}
