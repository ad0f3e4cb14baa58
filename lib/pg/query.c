/* pg/query.c - one statement from a thread: on a lease of its own or on one of the caller's, and its rows as an iterator.
 *
 * The connection is put into single-row mode, so libpq holds one row at a time and an unread rest stays with the server,
 * which TCP makes wait. Whoever stops early on a lease of the statement's own leaves the rest to the pool's reset, which drops it or
 * gives the connection up; on the caller's lease the next statement is his, so the rest is read off or cancelled at once.
 */
#include "lido/pg.h"

#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/sized.h"
#include "pg/ask.h"
#include "pg/failure.h"
#include "pg/lease.h"
#include "pg/params.h"
#include "pg/pool.h"
#include "pg/session.h"
#include "pg/wait.h"

#define SMALL_BYTES (64u * 1024)

struct lido_pg_rows {
        struct ask ask;
        lido_lease lease;
        bool is_leased;           /* it has not been given back */
        bool is_owned;            /* the lease is the statement's */
        bool is_over;
        bool is_streaming;        /* one small row is followed by another */
        bool is_watched;          /* before each of them there is something to ask */
        size_t small_bytes;       /* of a row that counts as small */
        int code;                 /* LIDO_OK until it has failed */
        int index;                /* of the row handed out last */
        PGresult *result;         /* that it is in, and perhaps some after it */
        uint64_t deadline_ns;
        struct lido_error *error; /* the caller's, or NULL */
};

/* The lease goes back as soon as the statement is over. */
static void give_back(struct lido_pg_rows *rows)
{
        rows->is_over = true;
        if (!rows->is_leased)
                return;
        rows->is_leased = false;
        if (rows->is_owned)
                lido_release_at(rows->lease, "lido_pg_query");
        else
                lease_leave(rows->lease, &rows->ask);
}

static void fail(struct lido_pg_rows *rows)
{
        rows->code = rows->ask.error.code;
        if (rows->error)
                *rows->error = rows->ask.error;
        give_back(rows);
}

static bool is_stale(const struct lido_pg_rows *rows)
{
        return !rows->is_owned && lido_object(rows->lease) != rows->ask.session;
}

/* The lease is the caller's, who may have ended it. Between rows that do not stop coming, the deadline counts too. */
static enum ask_want await(struct lido_pg_rows *rows, bool is_between)
{
        if (is_stale(rows))
                return ask_fail(&rows->ask, LIDO_ESTALE, lido_strerror(LIDO_ESTALE));
        if (is_between && rows->deadline_ns != CLOCK_NEVER && PQisBusy(rows->ask.conn) && clock_now_ns() >= rows->deadline_ns)
                return lease_be_late(rows->lease, &rows->ask);
        return lease_await(rows->lease, &rows->ask, rows->deadline_ns, &rows->result);
}

/* A large row is fetched when the one before it is gone, and looked at. */
static bool is_streaming(const struct lido_pg_rows *rows)
{
        return rows->result && PQresultStatus(rows->result) == PGRES_SINGLE_TUPLE && !rows->ask.is_unsent &&
               PQresultMemorySize(rows->result) < rows->small_bytes;
}

/* Returns: the next result with rows, which is in rows->result, too; NULL at the end, or when rows->code says why. */
static PGresult *fetch(struct lido_pg_rows *rows)
{
        bool is_between = rows->result != NULL;

        PQclear(rows->result);
        rows->result = NULL;
        rows->index = 0;
        rows->is_streaming = false;
        if (rows->is_over)
                return NULL;
        switch (await(rows, is_between)) {
        case ASK_RESULT:
                rows->is_streaming = is_streaming(rows);
                break;
        case ASK_DONE:
                give_back(rows);
                break;
        default:
                fail(rows);
        }
        return rows->result;
}

/* Is the next row to be had without a wait, or may the wait be left to libpq? */
static bool may_go_on(const struct lido_pg_rows *rows)
{
        return !is_stale(rows) && (rows->deadline_ns == CLOCK_NEVER || !PQisBusy(rows->ask.conn));
}

/* Not a small row, or the end of them. */
static PGresult *stop_streaming(struct lido_pg_rows *rows)
{
        PGresult *result = rows->result;

        rows->result = NULL;
        rows->is_streaming = false;
        return ask_handle(&rows->ask, result, &rows->result) == ASK_RESULT ? rows->result : fetch(rows);
}

/* hot: measured against PQgetResult and PQclear in a loop. Where there is no deadline, libpq waits: to ask before each row whether it
 * would is another call, which parses anew. A row is freed when the next has come, for malloc to find the place of the one before it
 * as it was; freed first, it would be merged with what lies beside it, and cut out again.
 * Returns: as fetch. */
static inline PGresult *stream(struct lido_pg_rows *rows)
{
        PGresult *previous = rows->result, *result;

        if (rows->is_watched && !may_go_on(rows))
                return fetch(rows);
        result = PQgetResult(rows->ask.conn);
        rows->result = result;
        PQclear(previous);
        if (!result || PQresultStatus(result) != PGRES_SINGLE_TUPLE || PQresultMemorySize(result) >= rows->small_bytes)
                return stop_streaming(rows);
        rows->ask.affected++;
        return result;
}

/* ---- the face -------------------------------------------------------------------------------------------- */

static int acquire(struct lido_pool *pool, const struct lido_pg_query_options *options, lido_lease *ret_lease)
{
        struct lido_acquire_options acquire = LIDO_ACQUIRE_OPTIONS_INIT;
        int rc;

        acquire.timeout_ms = options->timeout_ms ? options->timeout_ms : LIDO_TIMEOUT_DEFAULT;
        acquire.tag = options->tag;
        acquire.site = "lido_pg_query";
        rc = lido_acquire_with(pool, &acquire, ret_lease);
        if (rc != LIDO_OK && options->error)
                failure_set(options->error, rc, LIDO_FAILURE_TRANSIENT, lido_strerror(rc));
        return rc;
}

/* What is to be asked, if it makes sense. */
static int take_in(struct question *question, struct lido_pg_query_options *ours, const struct lido_pg_query_options *theirs)
{
        int rc = sized_take(ours, sizeof *ours, theirs);

        if (rc != LIDO_OK)
                return rc;
        if (!question->sql || !params_are_valid(question->params, question->count) || !lease_options_are_valid(ours))
                return LIDO_EINVAL;
        question->result_format = ours->result_format;
        question->prepare = ours->prepare;
        question->is_by_row = true;
        question->tells_server = ours->server_timeout == 1;
        question->deadline_ns = clock_deadline(ours->timeout_ms);
        return LIDO_OK;
}

static int start(const struct question *question, const struct lido_pg_query_options *options, lido_lease lease,
                 struct lido_pg_rows *rows)
{
        rows->is_leased = true;
        rows->lease = lease;
        rows->error = options->error;
        rows->deadline_ns = question->deadline_ns;
        ask_start(&rows->ask, lido_object(lease), question);
        rows->is_watched = !rows->is_owned || rows->deadline_ns != CLOCK_NEVER;
        rows->small_bytes = SMALL_BYTES;
        if (rows->ask.session && rows->ask.session->options->given.fat_bytes < SMALL_BYTES)
                rows->small_bytes = rows->ask.session->options->given.fat_bytes;
        if (!fetch(rows) && rows->code != LIDO_OK) {
                int rc = rows->code;

                lido_pg_rows_close(rows);
                return rc;
        }
        rows->is_streaming = false;
        rows->index = -1; /* the first row is still to be handed out */
        return LIDO_OK;
}

int lido_pg_query(struct lido_pool *pool, const char *sql, const struct lido_pg_param *params, uint32_t param_count,
                  const struct lido_pg_query_options *options, struct lido_pg_rows **ret_rows)
{
        struct lido_pg_query_options ours;
        struct question question = { .sql = sql, .params = params, .count = param_count };
        struct lido_pg_rows *rows;
        lido_lease lease;
        int rc = take_in(&question, &ours, options);

        if (rc != LIDO_OK || !pool || !ret_rows)
                return rc != LIDO_OK ? rc : LIDO_EINVAL;
        if (!pool_is_pg(pool))
                return LIDO_EFOREIGN;
        rows = mem_zalloc(sizeof *rows);
        if (!rows)
                return LIDO_ENOMEM;
        rc = acquire(pool, &ours, &lease);
        if (rc != LIDO_OK) {
                mem_free(rows);
                return rc;
        }
        rows->is_owned = true;
        rc = start(&question, &ours, lease, rows);
        if (rc == LIDO_OK)
                *ret_rows = rows;
        return rc;
}

int lido_pg_query_on(lido_lease lease, const char *sql, const struct lido_pg_param *params, uint32_t param_count,
                     const struct lido_pg_query_options *options, struct lido_pg_rows **ret_rows)
{
        struct lido_pg_query_options ours;
        struct question question = { .sql = sql, .params = params, .count = param_count };
        struct lido_pg_rows *rows;
        int rc = take_in(&question, &ours, options);

        if (rc == LIDO_OK)
                rc = ret_rows ? lease_check(lease) : LIDO_EINVAL;
        if (rc != LIDO_OK)
                return rc;
        rows = mem_zalloc(sizeof *rows);
        if (!rows)
                return LIDO_ENOMEM;
        rc = start(&question, &ours, lease, rows);
        if (rc == LIDO_OK)
                *ret_rows = rows;
        return rc;
}

static PGresult *next_of_result(struct lido_pg_rows *rows)
{
        if (rows->index < 0 && rows->result) { /* it came with the call */
                rows->is_streaming = is_streaming(rows);
                rows->index = 0;
                return rows->result;
        }
        return rows->result && ++rows->index < PQntuples(rows->result) ? rows->result : fetch(rows);
}

/* hot */
int lido_pg_next_row(struct lido_pg_rows *rows, struct lido_pg_row *ret_row)
{
        PGresult *result;

        if (!rows || !ret_row)
                return LIDO_EINVAL;
        result = rows->is_streaming ? stream(rows) : next_of_result(rows);
        if (!result)
                return rows->code;
        ret_row->result = result;
        ret_row->index = rows->index;
        return 1;
}

uint64_t lido_pg_affected(const struct lido_pg_rows *rows)
{
        return rows ? rows->ask.affected : 0;
}

void lido_pg_rows_close(struct lido_pg_rows *rows)
{
        if (!rows)
                return;
        give_back(rows);
        PQclear(rows->result);
        mem_free(rows);
}
