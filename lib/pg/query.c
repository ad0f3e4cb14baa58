/* pg/query.c - one statement from a thread: a lease of its own, and its rows as an iterator.
 *
 * The connection is put into single-row mode, so libpq holds one row at a time and an unread rest stays with the server,
 * which TCP makes wait. A statement that comes again is prepared; should the server have dropped it or its tables have changed,
 * it is prepared anew and run once more, which is safe because the server says so before it does anything and because a
 * statement here is a transaction of its own. Whoever stops early leaves the rest to the pool's reset, which drops it or gives the connection up.
 */
#include "lido/pg.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/sized.h"
#include "pg/failure.h"
#include "pg/pool.h"
#include "pg/session.h"
#include "pg/work.h"

#define PARAMS_MOST 65535 /* of the protocol */
#define PARAMS_ON_STACK 16
#define PREPARE_AT_USE 3 /* a statement seen so often will be seen again */

struct lido_pg_rows {
        lido_lease lease;
        struct pg_session *session;
        PGconn *conn; /* NULL once the lease has been given back */
        uint64_t deadline_ns;
        PGresult *result;         /* the row handed out last, or to be handed out next */
        bool is_row_ready;        /* it is still to be handed out */
        int code;                 /* LIDO_OK until it has failed */
        uint64_t affected;
        bool is_prepared;         /* it runs as a prepared statement: the server may not have it any more */
        bool is_stale;            /* and so it was */
        struct lido_error *error; /* the caller's, or NULL */
};

/* ---- parameters ------------------------------------------------------------------------------------------ */

static struct lido_pg_param number_of(uint64_t bits, int length, Oid type)
{
        struct lido_pg_param param = { .length = length, .format = 1, .type = type };
        unsigned char bytes[sizeof param.own] = { 0 };

        for (int i = 0; i < length; i++)
                bytes[i] = (unsigned char)(bits >> (8 * (length - 1 - i)));
        memcpy(&param.own, bytes, sizeof bytes);
        return param;
}

struct lido_pg_param lido_pg_int4(int32_t number)
{
        return number_of((uint32_t)number, 4, 23);
}

struct lido_pg_param lido_pg_int8(int64_t number)
{
        return number_of((uint64_t)number, 8, 20);
}

struct lido_pg_param lido_pg_float8(double number)
{
        uint64_t bits;

        memcpy(&bits, &number, sizeof bits);
        return number_of(bits, 8, 701);
}

struct lido_pg_param lido_pg_bool(int is_true)
{
        return number_of(is_true != 0, 1, 16);
}

static const char *value_of(const struct lido_pg_param *param)
{
        return param->value || param->length <= 0 ? param->value : (const char *)&param->own;
}

/* What is asked. */
struct question {
        const char *sql;
        const struct lido_pg_param *params;
        uint32_t count;
        int result_format;
        int prepare;
};

/* libpq wants four arrays. `statement` may be NULL. Returns: what libpq's function does; -1 when there is no memory. */
static int send_query(PGconn *conn, const struct question *question, const struct statement *statement)
{
        const struct lido_pg_param *params = question->params;
        uint32_t count = question->count;
        struct arrays {
                const char *value;
                Oid type;
                int length, format;
        };
        size_t bytes = count * sizeof(struct arrays);
        union {
                const char *aligned;
                char bytes[PARAMS_ON_STACK * sizeof(struct arrays)];
        } small;
        char *memory = count <= PARAMS_ON_STACK ? small.bytes : mem_zalloc(bytes);
        int sent;

        if (!memory)
                return -1;

        const char **values = (const char **)(void *)memory;
        Oid *types = (Oid *)(void *)(values + count);
        int *lengths = (int *)(void *)(types + count), *formats = lengths + count;

        for (uint32_t i = 0; i < count; i++) {
                values[i] = value_of(&params[i]);
                types[i] = params[i].type;
                lengths[i] = params[i].length;
                formats[i] = params[i].format;
        }
        if (statement)
                sent = PQsendQueryPrepared(conn, statement->name, (int)count, values, lengths, formats, question->result_format);
        else
                sent = PQsendQueryParams(conn, question->sql, (int)count, types, values, lengths, formats,
                                         question->result_format);
        if (memory != small.bytes)
                mem_free(memory);
        return sent;
}

/* ---- reading --------------------------------------------------------------------------------------------- */

static void tell(struct lido_error *to, const struct lido_error *error)
{
        if (to)
                *to = *error;
}

/* The lease goes back as soon as the statement is over. */
static void give_back(struct lido_pg_rows *rows)
{
        if (rows->conn)
                lido_release_at(rows->lease, "lido_pg_query");
        rows->conn = NULL;
}

static int fail(struct lido_pg_rows *rows, int code, const char *text)
{
        struct lido_error error;

        failure_set(&error, code, LIDO_FAILURE_TRANSIENT, text);
        tell(rows->error, &error);
        rows->code = code;
        give_back(rows);
        return code;
}

static int fail_by_result(struct lido_pg_rows *rows, const PGresult *result)
{
        struct lido_error error;

        if (rows->code == LIDO_OK) { /* after a FATAL, libpq adds an error of its own */
                failure_from_result(&error, result);
                tell(rows->error, &error);
                rows->code = LIDO_EFACTORY;
        }
        return rows->code;
}

/* Returns: LIDO_OK when the socket is ready; LIDO_EDEADLINE. */
static int wait_ready(struct lido_pg_rows *rows, short events)
{
        for (;;) {
                struct pollfd fd = { .fd = PQsocket(rows->conn), .events = events };
                uint64_t now = clock_now_ns();
                int ms = -1, ready;

                if (rows->deadline_ns != CLOCK_NEVER) {
                        uint64_t left = rows->deadline_ns > now ? rows->deadline_ns - now : 0;

                        ms = left / NS_PER_MS >= 3600000 ? 3600000 : (int)((left + NS_PER_MS - 1) / NS_PER_MS);
                }
                ready = poll(&fd, 1, ms);
                if (ready > 0)
                        return LIDO_OK;
                if (ready == 0 && clock_now_ns() >= rows->deadline_ns)
                        return LIDO_EDEADLINE;
                if (ready < 0 && errno != EINTR)
                        return LIDO_EFACTORY;
        }
}

/* Wait until PQgetResult does not block. */
static int wait_for_result(struct lido_pg_rows *rows)
{
        for (;;) {
                int unsent = PQflush(rows->conn), rc;

                if (!PQisBusy(rows->conn) && unsent != 1)
                        return LIDO_OK;
                rc = wait_ready(rows, unsent == 1 ? POLLIN | POLLOUT : POLLIN);
                if (rc == LIDO_EDEADLINE)
                        lido_pg_cancel(rows->lease, 0); /* so that the server need not go on, nor the pool wait for it */
                if (rc == LIDO_EDEADLINE)
                        return fail(rows, rc, "the statement was not done by its deadline");
                if (rc != LIDO_OK || (!work_consume(rows->conn) && PQisBusy(rows->conn)))
                        return fail(rows, LIDO_EFACTORY, PQerrorMessage(rows->conn));
        }
}

static void note_affected(struct lido_pg_rows *rows, PGresult *result)
{
        const char *digits = PQcmdTuples(result);

        rows->affected = 0;
        for (; *digits >= '0' && *digits <= '9'; digits++)
                rows->affected = 10 * rows->affected + (uint64_t)(*digits - '0');
}

/* The server has forgotten the statement, or its result has another shape now: either is said before anything is done. */
static bool is_outdated(const PGresult *result)
{
        const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
        const char *function = PQresultErrorField(result, PG_DIAG_SOURCE_FUNCTION);

        if (!state || !function)
                return false;
        return (strcmp(state, "26000") == 0 && strcmp(function, "FetchPreparedStatement") == 0) ||
               (strcmp(state, "0A000") == 0 && strcmp(function, "RevalidateCachedQuery") == 0);
}

/* Take in one result. Returns: true when it is a row. */
static bool take(struct lido_pg_rows *rows, PGresult *result)
{
        switch (PQresultStatus(result)) {
        case PGRES_SINGLE_TUPLE:
                rows->result = result;
                rows->affected++;
                return true;
        case PGRES_COMMAND_OK:
        case PGRES_TUPLES_OK:
                note_affected(rows, result);
                break;
        case PGRES_EMPTY_QUERY:
                break;
        case PGRES_COPY_IN:
        case PGRES_COPY_OUT:
        case PGRES_COPY_BOTH:
                fail(rows, LIDO_EINVAL, "COPY needs a lease of its own");
                break;
        default:
                if (rows->is_prepared && is_outdated(result))
                        rows->is_stale = true;
                else
                        fail_by_result(rows, result);
        }
        PQclear(result);
        return false;
}

/* Read on until there is a row or the end; a stale statement keeps its lease. */
static int fetch(struct lido_pg_rows *rows)
{
        PQclear(rows->result);
        rows->result = NULL;
        while (rows->conn) {
                PGresult *result;
                int rc = wait_for_result(rows);

                if (rc != LIDO_OK)
                        return rc;
                result = PQgetResult(rows->conn);
                if (!result && rows->is_stale)
                        return LIDO_OK;
                if (!result)
                        give_back(rows);
                else if (take(rows, result))
                        return LIDO_OK;
        }
        return rows->code;
}

/* ---- the face -------------------------------------------------------------------------------------------- */

static int acquire(struct lido_pool *pool, const struct lido_pg_query_options *options, struct lido_pg_rows *rows)
{
        struct lido_acquire_options acquire = LIDO_ACQUIRE_OPTIONS_INIT;
        int rc;

        acquire.timeout_ms = options->timeout_ms ? options->timeout_ms : LIDO_TIMEOUT_DEFAULT;
        acquire.tag = options->tag;
        acquire.site = "lido_pg_query";
        rc = lido_acquire_with(pool, &acquire, &rows->lease);
        if (rc == LIDO_OK)
                rows->conn = lido_pg_conn(rows->lease);
        return rc;
}

/* Run a statement that gives no rows to anybody: PREPARE, DEALLOCATE. */
static int run_aside(struct lido_pg_rows *rows, int sent)
{
        PGresult *result;
        int rc;

        if (!sent)
                return fail(rows, LIDO_EFACTORY, PQerrorMessage(rows->conn));
        while ((rc = wait_for_result(rows)) == LIDO_OK && (result = PQgetResult(rows->conn)) != NULL) {
                if (PQresultStatus(result) == PGRES_FATAL_ERROR)
                        fail_by_result(rows, result);
                PQclear(result);
        }
        if (rows->code != LIDO_OK)
                give_back(rows);
        return rows->code;
}

/* Make room in the cache. */
static int drop_surplus(struct lido_pg_rows *rows)
{
        struct pg_session *session = rows->session;
        struct statement *victim;
        int rc = LIDO_OK;

        while (rc == LIDO_OK &&
               (victim = statements_take_surplus(&session->statements, session->options->given.statement_cache)) != NULL) {
                char sql[64];

                snprintf(sql, sizeof sql, "DEALLOCATE %s", victim->name);
                if (victim->is_prepared)
                        rc = run_aside(rows, PQsendQuery(rows->conn, sql));
                mem_free(victim);
        }
        session->dirt &= ~(unsigned)DIRT_PLANS; /* that was us */
        return rc;
}

static bool is_worth_preparing(const struct statement *statement, const struct question *question)
{
        return question->prepare == LIDO_PG_PREPARE_AT_ONCE || statement->uses >= PREPARE_AT_USE;
}

/* Find or make the prepared statement. *ret_statement is NULL when it is to run without. */
static int prepare(struct lido_pg_rows *rows, const struct question *question, struct statement **ret_statement)
{
        struct pg_session *session = rows->session;
        struct statement *statement;
        int rc;

        *ret_statement = NULL;
        if (question->prepare == LIDO_PG_PREPARE_NEVER || session->options->given.reset >= LIDO_PG_RESET_FULL)
                return LIDO_OK;
        session_forget_plans(session);
        statement = statements_use(&session->statements, question->sql, question->params, question->count);
        rc = drop_surplus(rows);
        if (rc != LIDO_OK || !statement || !is_worth_preparing(statement, question))
                return rc;
        if (!statement->is_prepared) {
                statements_name(&session->statements, statement);
                rc = run_aside(rows, PQsendPrepare(rows->conn, statement->name, statement->sql, (int)statement->type_count,
                                                   statement->types));
                statement->is_prepared = rc == LIDO_OK;
        }
        *ret_statement = statement;
        return rc;
}

static int start_once(struct lido_pg_rows *rows, const struct question *question)
{
        struct statement *statement;
        int rc = prepare(rows, question, &statement), sent;

        if (rc != LIDO_OK)
                return rc;
        rows->is_prepared = statement != NULL;
        sent = send_query(rows->conn, question, statement);
        if (sent < 0)
                return fail(rows, LIDO_ENOMEM, "out of memory");
        if (sent == 0 || !PQsetSingleRowMode(rows->conn))
                return fail(rows, LIDO_EFACTORY, PQerrorMessage(rows->conn));
        return fetch(rows);
}

static int start(struct lido_pg_rows *rows, const struct question *question)
{
        int rc;

        rows->session = lido_object(rows->lease);
        if (!rows->conn || PQsetnonblocking(rows->conn, 1) != 0) /* put back by the pool */
                return fail(rows, LIDO_EFACTORY, "the connection is lost");
        rc = start_once(rows, question);
        if (rc == LIDO_OK && rows->is_stale) { /* nothing was done, and there is no transaction: once more, prepared anew */
                statements_forget(&rows->session->statements);
                rows->is_stale = false;
                rc = start_once(rows, question);
        }
        if (rc == LIDO_OK && rows->is_stale)
                rc = fail(rows, LIDO_EFACTORY, "the prepared statement was dropped again and again");
        return rc;
}

int lido_pg_query(struct lido_pool *pool, const char *sql, const struct lido_pg_param *params, uint32_t param_count,
                  const struct lido_pg_query_options *options, struct lido_pg_rows **ret_rows)
{
        struct lido_pg_query_options ours;
        struct question question = { .sql = sql, .params = params, .count = param_count };
        struct lido_pg_rows *rows;
        int rc = sized_take(&ours, sizeof ours, options);

        if (rc != LIDO_OK)
                return rc;
        question.result_format = ours.result_format;
        question.prepare = ours.prepare;
        if (!pool || !sql || !ret_rows || param_count > PARAMS_MOST || (param_count > 0 && !params) ||
            ours.timeout_ms < LIDO_NEVER || ours.result_format < 0 || ours.result_format > 1 ||
            ours.prepare < LIDO_PG_PREPARE_DEFAULT || ours.prepare > LIDO_PG_PREPARE_AT_ONCE)
                return LIDO_EINVAL;
        if (!pool_is_pg(pool))
                return LIDO_EFOREIGN;
        rows = mem_zalloc(sizeof *rows);
        if (!rows)
                return LIDO_ENOMEM;
        rows->error = ours.error;
        rows->deadline_ns = ours.timeout_ms ? clock_after_ms(clock_now_ns(), ours.timeout_ms) : CLOCK_NEVER;
        rc = acquire(pool, &ours, rows);
        if (rc == LIDO_OK)
                rc = start(rows, &question);
        else if (rows->error)
                failure_set(rows->error, rc, LIDO_FAILURE_TRANSIENT, lido_strerror(rc));
        if (rc != LIDO_OK) {
                lido_pg_rows_close(rows);
                return rc;
        }
        rows->is_row_ready = rows->result != NULL;
        *ret_rows = rows;
        return LIDO_OK;
}

int lido_pg_next_row(struct lido_pg_rows *rows, struct lido_pg_row *ret_row)
{
        if (!rows || !ret_row)
                return LIDO_EINVAL;
        if (!rows->is_row_ready && fetch(rows) != LIDO_OK)
                return rows->code;
        rows->is_row_ready = false;
        if (!rows->result)
                return rows->code;
        ret_row->result = rows->result;
        ret_row->index = 0;
        return 1;
}

uint64_t lido_pg_affected(const struct lido_pg_rows *rows)
{
        return rows ? rows->affected : 0;
}

void lido_pg_rows_close(struct lido_pg_rows *rows)
{
        if (!rows)
                return;
        give_back(rows);
        PQclear(rows->result);
        mem_free(rows);
}
