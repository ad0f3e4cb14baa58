/* bench/pg/lido.c - lido for the "pg" harness, whose clients are threads: the contract is its bench.h.
 *
 *      mode=         a lease and raw libpq on it, statements prepared once for each connection, as the textbook pool has it
 *      mode=query    lido_pg_query, with lido's own cache of prepared statements
 *      mode=muxN     the multiplexer, over N connections at most (0: as many as it likes)
 *
 * A stream in mode "rows" is read with lido_pg_next_row, the other modes as the harness reads them over raw libpq.
 */
#include "pqutil.h"

#include <lido.h>
#include <lido/pg_mux.h>

static const bench_cfg *config;
static struct lido_service *service;
static struct lido_pool *pool;
static struct lido_pg_mux *mux;
static int by_query, by_mux;

struct client {
        char text[256];
};

static int fail(struct client *client, int code, const char *text)
{
        snprintf(client->text, sizeof client->text, "%s", text);
        return code;
}

static int64_t patience(void)
{
        return config->acquire_ms > 0 ? config->acquire_ms : LIDO_NEVER;
}

/* ---- the pool -------------------------------------------------------------------------------------------- */

static const char *setup_of(const bench_cfg *cfg, char *text, size_t size)
{
        if (!cfg->prepared || strcmp(cfg->workload, "cold") == 0 || by_query || (by_mux && strcmp(cfg->workload, "txn") != 0))
                return NULL;
        snprintf(text, size, "PREPARE pt(int) AS %s; PREPARE up(int, int) AS %s; PREPARE ins(int, int) AS %s", SQL_POINT,
                 SQL_UPD, SQL_INS);
        return text;
}

static int open_pool(const bench_cfg *cfg)
{
        struct lido_pg_options pg = LIDO_PG_OPTIONS_INIT;
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        char setup[1024];
        int rc;

        config = cfg;
        by_query = strcmp(cfg->mode, "query") == 0;
        by_mux = strncmp(cfg->mode, "mux", 3) == 0;
        pg.conninfo = cfg->conninfo;
        pg.setup = setup_of(cfg, setup, sizeof setup);
        options.max = options.min = (uint32_t)cfg->pool;
        options.start = LIDO_START_FAIL_FAST;
        rc = lido_service_start(&service, NULL);
        if (rc == LIDO_OK)
                rc = lido_pg_pool_open(&pool, service, &pg, &options);
        if (rc == LIDO_OK && by_mux) {
                struct lido_pg_mux_options how = LIDO_PG_MUX_OPTIONS_INIT;

                how.connections = (uint32_t)atoi(cfg->mode + 3);
                rc = lido_pg_mux_open(&mux, pool, NULL, &how);
        }
        if (rc != LIDO_OK)
                fprintf(stderr, "lido: %s\n", lido_strerror(rc));
        return rc;
}

static void close_pool(void)
{
        lido_pg_mux_close(mux, NULL, NULL);
        lido_pool_free(pool);
        (void)lido_service_stop(service, 1000);
}

static void *client_new(const bench_cfg *cfg, int index)
{
        (void)cfg;
        (void)index;
        return calloc(1, sizeof(struct client));
}

static const char *client_text(void *client)
{
        return ((struct client *)client)->text;
}

/* ---- the workloads --------------------------------------------------------------------------------------- */

static int point_by_query(struct client *client, int aid, int *ret_balance, uint64_t *ret_acquired)
{
        struct lido_pg_query_options options = LIDO_PG_QUERY_OPTIONS_INIT;
        struct lido_pg_param param = lido_pg_int4(aid);
        struct lido_error error = {0};
        struct lido_pg_rows *rows;
        struct lido_pg_row row;
        int rc, found = 0;

        options.timeout_ms = patience();
        options.result_format = 1;
        options.error = &error;
        rc = lido_pg_query(pool, SQL_POINT, &param, 1, &options, &rows);
        *ret_acquired = bench_now();
        if (rc != LIDO_OK)
                return fail(client, rc == LIDO_ETIMEDOUT ? OP_EACQ : OP_EQUERY, error.text);
        while ((rc = lido_pg_next_row(rows, &row)) == 1) {
                *ret_balance = pq_int4(row.result);
                found++;
        }
        lido_pg_rows_close(rows);
        return rc == 0 && found == 1 ? OP_OK : fail(client, OP_EQUERY, error.text);
}

static int point_by_mux(struct client *client, int aid, int *ret_balance, uint64_t *ret_acquired)
{
        struct lido_pg_exec_options options = LIDO_PG_EXEC_OPTIONS_INIT;
        struct lido_pg_param param = lido_pg_int4(aid);
        struct lido_error error = {0};
        PGresult *result;
        int rc;

        options.timeout_ms = patience();
        options.result_format = 1;
        options.error = &error;
        *ret_acquired = bench_now(); /* there is no acquire of its own */
        rc = lido_pg_mux_exec(mux, SQL_POINT, &param, 1, &options, &result);
        if (rc != LIDO_OK)
                return fail(client, rc == LIDO_ETIMEDOUT ? OP_EACQ : OP_EQUERY, error.text);
        if (PQntuples(result) == 1)
                *ret_balance = pq_int4(result);
        PQclear(result);
        return OP_OK;
}

static int acquire(struct client *client, lido_lease *ret_lease, uint64_t *ret_acquired)
{
        int rc = lido_acquire(pool, patience(), ret_lease);

        *ret_acquired = bench_now();
        return rc == LIDO_OK ? OP_OK : fail(client, OP_EACQ, lido_strerror(rc));
}

static int point(void *memory, int aid, int *ret_balance, uint64_t *ret_acquired)
{
        struct client *client = memory;
        lido_lease lease;
        int rc;

        if (by_query)
                return point_by_query(client, aid, ret_balance, ret_acquired);
        if (by_mux)
                return point_by_mux(client, aid, ret_balance, ret_acquired);
        rc = acquire(client, &lease, ret_acquired);
        if (rc != OP_OK)
                return rc;
        if (pq_point(lido_pg_conn(lease), config->prepared, aid, ret_balance) != 0)
                rc = fail(client, OP_EQUERY, PQerrorMessage(lido_pg_conn(lease)));
        lido_release(lease);
        return rc;
}

static int transaction(void *memory, int aid, int delta, uint64_t *ret_acquired)
{
        struct client *client = memory;
        lido_lease lease;
        int rc = acquire(client, &lease, ret_acquired);

        if (rc != OP_OK)
                return rc;
        if (pq_txn(lido_pg_conn(lease), config->prepared && !by_query, aid, delta) != 0)
                rc = fail(client, OP_EQUERY, PQerrorMessage(lido_pg_conn(lease)));
        lido_release(lease);
        return rc;
}

static long stream_rows(struct client *client, uint64_t *ret_bytes)
{
        struct lido_error error = {0};
        struct lido_pg_query_options options = LIDO_PG_QUERY_OPTIONS_INIT;
        struct lido_pg_rows *rows;
        struct lido_pg_row row;
        long count = 0;
        int rc;

        options.error = &error;
        rc = lido_pg_query(pool, SQL_STREAM, NULL, 0, &options, &rows);
        if (rc != LIDO_OK)
                return fail(client, -1, error.text);
        while ((rc = lido_pg_next_row(rows, &row)) == 1) {
                for (int column = 0; column < 4; column++)
                        *ret_bytes += (uint64_t)PQgetlength(row.result, row.index, column);
                count++;
        }
        lido_pg_rows_close(rows);
        return rc == 0 ? count : fail(client, -1, error.text);
}

static long stream(void *memory, const char *mode, uint64_t *ret_bytes)
{
        uint64_t acquired;
        lido_lease lease;
        long count;

        if (strcmp(mode, "rows") == 0)
                return stream_rows(memory, ret_bytes);
        if (acquire(memory, &lease, &acquired) != OP_OK)
                return -1;
        count = pq_stream(lido_pg_conn(lease), mode, ret_bytes);
        lido_release(lease);
        return count;
}

const bench_adapter ADAPTER = {"lido", open_pool, client_new, point, transaction, stream, client_text, free, close_pool, NULL};
