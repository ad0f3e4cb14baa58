/* bench/pg/lido_loop.c - lido for the "pg" harness, whose clients are tasks on one event loop.
 *
 *      mode=         statements share at most as many connections as the multiplexer takes by itself, or mux=N
 */
#include "pqutil.h"

#include <lido.h>
#include <lido/pg_mux.h>
#include <uv.h>

static struct lido_service *service;
static struct lido_pool *pool;
static struct lido_pg_mux *mux;
static struct lido_loop *loop;
static uv_loop_t uv;
static int running;

struct task {
        int number;
        uint64_t begun;
};

static int open_pool(const bench_cfg *cfg)
{
        struct lido_pg_options pg = LIDO_PG_OPTIONS_INIT;
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        int rc;

        pg.conninfo = cfg->conninfo;
        options.max = options.min = (uint32_t)cfg->pool;
        options.start = LIDO_START_FAIL_FAST;
        rc = lido_service_start(&service, NULL);
        if (rc == LIDO_OK)
                rc = lido_pg_pool_open(&pool, service, &pg, &options);
        if (rc != LIDO_OK)
                fprintf(stderr, "lido: %s\n", lido_strerror(rc));
        return rc;
}

static void close_pool(void)
{
        lido_pool_free(pool);
        (void)lido_service_stop(service, 1000);
}

static void ask(struct task *task);

static void answered(int status, PGresult *result, const struct lido_error *error, void *context)
{
        struct task *task = context;
        int balance = status == LIDO_OK && PQntuples(result) == 1 ? pq_int4(result) : 0;

        (void)balance;
        PQclear(result);
        bench_done(task->number, task->begun, 0, status == LIDO_OK ? OP_OK : status == LIDO_ETIMEDOUT ? OP_EACQ : OP_EQUERY,
                   status == LIDO_OK ? NULL : error->text);
        if (bench_phase() == PH_STOP)
                running--;
        else
                ask(task);
}

static void ask(struct task *task)
{
        struct lido_pg_exec_options options = LIDO_PG_EXEC_OPTIONS_INIT;
        struct lido_pg_param param = lido_pg_int4(bench_aid(task->number));

        options.result_format = 1;
        task->begun = bench_now();
        if (lido_pg_mux_exec_async(mux, SQL_POINT, &param, 1, &options, answered, task) != LIDO_OK)
                abort();
}

static int drive(const bench_cfg *cfg)
{
        struct lido_pg_mux_options options = LIDO_PG_MUX_OPTIONS_INIT;
        struct task *tasks = calloc((size_t)cfg->clients, sizeof *tasks);

        if (strncmp(cfg->mode, "mux", 3) == 0)
                options.connections = (uint32_t)atoi(cfg->mode + 3);
        if (!tasks || uv_loop_init(&uv) != 0 || lido_loop_open(&loop, &uv) != LIDO_OK ||
            lido_pg_mux_open(&mux, pool, loop, &options) != LIDO_OK)
                return -1;
        running = cfg->clients;
        for (int i = 0; i < cfg->clients; i++) {
                tasks[i].number = i;
                ask(&tasks[i]);
        }
        while (running > 0)
                uv_run(&uv, UV_RUN_ONCE);
        return 0;
}

const bench_adapter ADAPTER = {"lido-loop", open_pool, NULL, NULL, NULL, NULL, NULL, NULL, close_pool, drive};
