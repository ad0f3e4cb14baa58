#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/mem.h"
#include "pg/failure.h"
#include "pg/mux.h"
#include "pg/params.h"
#include "pg/session.h"

/* What a session that is shared must not carry. Sequences are the exception: every INSERT may draw from one. */
#define DIRT_CHANGED ((DIRT_ALL & ~DIRT_SEQUENCES) | DIRT_OPAQUE)

/* libpq 17 adds a Sync without flushing; before, each Sync is a system call. */
int PQsendPipelineSync(PGconn *conn) __attribute__((weak));

bool pipe_begin(struct pipe *pipe, lido_lease lease)
{
        memset(pipe, 0, sizeof *pipe);
        pipe->lease = lease;
        list_init(&pipe->link);
        list_init(&pipe->sent);
        list_init(&pipe->done);
        pipe->session = lido_object(lease);
        pipe->conn = pipe->session ? pipe->session->conn : NULL;
        if (!pipe->conn || PQsetnonblocking(pipe->conn, 1) != 0 || !PQenterPipelineMode(pipe->conn))
                return false;
        session_forget_plans(pipe->session);
        return true;
}

/* ---- sending --------------------------------------------------------------------------------------------- */

static int send_query(PGconn *conn, const struct call *call)
{
        struct params_statement statement = { .name = call->name[0] ? call->name : NULL,
                                              .sql = call->sql,
                                              .params = call->params,
                                              .count = call->param_count,
                                              .result_format = call->result_format };

        return params_send(conn, &statement);
}

static int send_sync(PGconn *conn)
{
        return PQsendPipelineSync ? PQsendPipelineSync(conn) : PQpipelineSync(conn);
}

static void append(struct pipe *pipe, struct call *call)
{
        list_push_back(&pipe->sent, &call->link);
        pipe->count++;
        pipe->served++;
        pipe->bytes += call->bytes;
        pipe->is_unflushed = true;
}

static void lose_by_libpq(struct pipe *pipe)
{
        struct lido_error error;

        failure_from_text(&error, PQerrorMessage(pipe->conn));
        error.code = LIDO_EFACTORY;
        error.native = 0;
        pipe_lose(pipe, &error);
}

/* Make room in the cache: one statement goes, with a Sync of its own. */
static void drop_surplus(struct pipe *pipe)
{
        static const struct lido_pg_exec_options none = LIDO_PG_EXEC_OPTIONS_INIT;
        struct pg_session *session = pipe->session;
        struct statement *victim = statements_take_surplus(&session->statements, session->options->given.statement_cache);
        char sql[64];
        struct call *call;

        if (!victim)
                return;
        snprintf(sql, sizeof sql, "DEALLOCATE %s", victim->name);
        call = victim->is_prepared ? call_new(sql, NULL, 0, &none, 1) : NULL;
        mem_free(victim); /* without memory for the call, the server keeps one statement too many */
        if (!call)
                return;
        call->is_aside = true;
        store_relaxed(&call->state, CALL_SENT);
        append(pipe, call);
        if (send_query(pipe->conn, call) != 1 || !send_sync(pipe->conn))
                lose_by_libpq(pipe);
}

/* Find or make the prepared statement: call->name is "" when it is to run without. Returns: false when libpq fails. */
static bool prepare(struct pipe *pipe, struct call *call)
{
        struct pg_session *session = pipe->session;
        struct statement *statement;

        call->name[0] = '\0';
        call->is_preparing = false;
        if (call->prepare == LIDO_PG_PREPARE_NEVER || session->options->given.reset >= LIDO_PG_RESET_FULL)
                return true;
        statement = statements_use(&session->statements, call->sql, call->params, call->param_count);
        if (!statement || !statements_is_worth_preparing(statement, call->prepare))
                return true;
        if (!statement->is_prepared) {
                statements_name(&session->statements, statement);
                if (!PQsendPrepare(pipe->conn, statement->name, statement->sql, (int)statement->type_count, statement->types))
                        return false;
                statement->is_prepared = true; /* taken back should it fail */
                call->is_preparing = true;
        }
        memcpy(call->name, statement->name, sizeof call->name);
        return true;
}

/* hot: measured by tests/bench/pg */
int pipe_send(struct pipe *pipe, struct call *call)
{
        bool is_fine;
        int sent;

        drop_surplus(pipe);
        if (pipe->state == PIPE_LOST) { /* it was handed to a pipe that is no more: nothing of it was sent, but it cannot know */
                append(pipe, call);
                pipe_lose(pipe, &pipe->error);
                return LIDO_OK;
        }
        is_fine = prepare(pipe, call);
        sent = is_fine ? send_query(pipe->conn, call) : 0;
        if (sent < 0 && !call->is_preparing)
                return LIDO_ENOMEM;
        append(pipe, call);
        if (sent < 1 || !send_sync(pipe->conn))
                lose_by_libpq(pipe);
        return LIDO_OK;
}

static bool set_cork(struct pipe *pipe, int is_on)
{
#ifdef TCP_CORK
        return setsockopt(PQsocket(pipe->conn), IPPROTO_TCP, TCP_CORK, &is_on, sizeof is_on) == 0;
#else
        (void)pipe;
        return !is_on;
#endif
}

/* Before libpq 17 each Sync is a system call, and then a packet that wakes the server for one statement. The kernel of a TCP socket
 * can be told to wait. */
void pipe_cork(struct pipe *pipe)
{
        if (pipe->is_corked || pipe->has_no_cork)
                return;
        pipe->has_no_cork = PQsendPipelineSync || !set_cork(pipe, 1);
        pipe->is_corked = !pipe->has_no_cork;
}

static void uncork(struct pipe *pipe)
{
        if (pipe->is_corked)
                set_cork(pipe, 0);
        pipe->is_corked = false;
}

int pipe_flush(struct pipe *pipe)
{
        int flushed;

        if (pipe->state == PIPE_LOST)
                return -1;
        if (!pipe->is_unflushed)
                return 0;
        flushed = PQflush(pipe->conn);
        uncork(pipe);
        if (flushed < 0)
                lose_by_libpq(pipe);
        pipe->is_unflushed = flushed == 1;
        return flushed;
}

/* ---- reading --------------------------------------------------------------------------------------------- */

static void forget_plan(struct pipe *pipe, const char *name)
{
        list_for_each(it, &pipe->session->statements.used) {
                struct statement *statement = list_entry(it, struct statement, link);

                if (strcmp(statement->name, name) == 0)
                        statement->is_prepared = false;
        }
}

static void take_error(struct pipe *pipe, struct call *call, const PGresult *result)
{
        if (failure_is_end(result)) {
                if (pipe->error.code == LIDO_OK)
                        failure_from_result(&pipe->error, result);
                return;
        }
        if (call->name[0] && (call->is_preparing || failure_is_outdated(result)))
                forget_plan(pipe, call->name);
        if (!call->is_preparing && !call->is_second && failure_is_outdated(result)) {
                call->is_outdated = true;
        } else if (call->code == LIDO_OK) {
                failure_from_result(&call->error, result);
                call->code = LIDO_EFACTORY;
        }
}

/* These end in a state in which the next statement is not on its own. CREATE and the like come by with a lease to themselves. */
static bool opens_transaction(const PGresult *result)
{
        static const char *const tags[] = { "BEGIN", "START TRANSACTION", "SAVEPOINT", "COMMIT", "ROLLBACK", "RELEASE", NULL };
        const char *tag = PQcmdStatus((PGresult *)result);

        for (const char *const *known = tags; *known; known++)
                if (strcmp(tag, *known) == 0)
                        return true;
        return false;
}

static void breach(struct pipe *pipe, struct call *call, const char *text)
{
        failure_set(&pipe->error, LIDO_EFACTORY, LIDO_FAILURE_TRANSIENT, text);
        call->code = LIDO_OK;
        call_fail(call, LIDO_EINVAL, text);
        pipe->is_breached = true;
}

/* One result of the pipe's first call. Owns: the result. */
static void take(struct pipe *pipe, struct call *call, PGresult *result)
{
        switch (PQresultStatus(result)) {
        case PGRES_COMMAND_OK:
                if (opens_transaction(result)) {
                        breach(pipe, call, "the statement leaves a transaction open, so it needs a lease of its own");
                        break;
                }
                /* fall through */
        case PGRES_TUPLES_OK:
        case PGRES_EMPTY_QUERY:
                if (call->is_preparing) {
                        call->is_preparing = false;
                        break;
                }
                PQclear(call->result);
                call->result = result;
                return;
        case PGRES_FATAL_ERROR:
                take_error(pipe, call, result);
                break;
        case PGRES_PIPELINE_ABORTED: /* its Parse has failed, which was told */
                break;
        default:
                breach(pipe, call, "COPY needs a lease of its own");
        }
        PQclear(result);
}

static void move_to_done(struct pipe *pipe, struct call *call)
{
        list_unlink(&call->link);
        pipe->count--;
        pipe->bytes -= call->bytes;
        list_push_back(&pipe->done, &call->link);
}

/* Its Sync has come. The transaction's status is visible to libpq's callers only when nothing is under way behind it. */
static void finish(struct pipe *pipe, struct call *call)
{
        struct pg_session *session = pipe->session;
        PGTransactionStatusType status = PQtransactionStatus(pipe->conn);

        session->dirt &= ~(unsigned)DIRT_PLANS; /* that was us */
        if (status == PQTRANS_INTRANS || status == PQTRANS_INERROR)
                breach(pipe, call, "the statement leaves a transaction open, so it needs a lease of its own");
        else if ((session->dirt & DIRT_CHANGED) || session->is_evicted || session->is_alarming || session->is_refused_write ||
                 session->is_doubtful || session->is_fat)
                pipe->state = PIPE_LEAVING;
        move_to_done(pipe, call);
}

void pipe_lose(struct pipe *pipe, const struct lido_error *error)
{
        struct list *front;

        if (&pipe->error != error)
                pipe->error = *error;
        pipe->state = PIPE_LOST;
        while ((front = list_front(&pipe->sent)) != NULL) {
                struct call *call = list_entry(front, struct call, link);

                if (call->code == LIDO_OK) {
                        call->code = pipe->error.code;
                        call->error = pipe->error;
                }
                move_to_done(pipe, call);
        }
}

/* hot: measured by tests/bench/pg */
static void read_results(struct pipe *pipe)
{
        unsigned nulls = 0;
        struct list *front;

        while ((front = list_front(&pipe->sent)) != NULL && pipe->error.code == LIDO_OK && !PQisBusy(pipe->conn)) {
                struct call *call = list_entry(front, struct call, link);
                PGresult *result = PQgetResult(pipe->conn);

                if (!result) { /* between two; twice in a row: there is no more */
                        if (PQstatus(pipe->conn) != CONNECTION_OK || ++nulls > 1)
                                return;
                        continue;
                }
                nulls = 0;
                session_see(pipe->session, result);
                if (PQresultStatus(result) == PGRES_PIPELINE_SYNC) {
                        PQclear(result);
                        finish(pipe, call);
                } else {
                        take(pipe, call, result);
                }
        }
}

void pipe_read(struct pipe *pipe)
{
        bool is_read;

        if (pipe->state == PIPE_LOST)
                return;
        do {
                is_read = work_consume(pipe->conn);
                read_results(pipe); /* a FATAL first, then the loss of the connection */
        } while (is_read && pipe->count > 0 && PQstatus(pipe->conn) == CONNECTION_OK && work_has_pending(pipe->conn));
        if (pipe->error.code != LIDO_OK)
                pipe_lose(pipe, &pipe->error);
        else if (!is_read || PQstatus(pipe->conn) != CONNECTION_OK || pipe->session->is_lost)
                lose_by_libpq(pipe);
}

struct call *pipe_take_done(struct pipe *pipe)
{
        struct list *front = list_front(&pipe->done);

        if (!front)
                return NULL;
        list_unlink(front);
        return list_entry(front, struct call, link);
}

void pipe_end(struct pipe *pipe)
{
        /* A suspect lease gets no verdict, and so nobody else who would take it out of pipeline mode. */
        if (pipe->state == PIPE_LOST || !PQexitPipelineMode(pipe->conn))
                lido_discard_at(pipe->lease, "lido_pg_mux");
        else
                lido_release_at(pipe->lease, "lido_pg_mux");
        pipe->conn = NULL;
}
