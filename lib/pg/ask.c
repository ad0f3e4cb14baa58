#include "pg/ask.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "pg/failure.h"
#include "pg/params.h"
#include "pg/session.h"
#include "pg/work.h"

enum step { STEP_FIND, STEP_MAKE_ROOM, STEP_PREPARE, STEP_RUN, STEP_END };

enum ask_want ask_fail(struct ask *ask, int code, const char *text)
{
        if (ask->error.code == LIDO_OK)
                failure_set(&ask->error, code, LIDO_FAILURE_TRANSIENT, text);
        return ASK_FAILED;
}

static enum ask_want fail_by_libpq(struct ask *ask)
{
        return ask_fail(ask, LIDO_EFACTORY, PQerrorMessage(ask->conn));
}

void ask_start(struct ask *ask, struct pg_session *session, const struct question *question)
{
        memset(ask, 0, sizeof *ask);
        ask->session = session;
        ask->conn = session ? session->conn : NULL;
        ask->question = question;
        ask->is_by_row = question->is_by_row;
        ask->tells_server = question->tells_server && question->deadline_ns != CLOCK_NEVER;
        ask->step = STEP_FIND;
        ask->is_over = true;
        if (!session)
                ask_fail(ask, LIDO_ESTALE, lido_strerror(LIDO_ESTALE));
        else if (!ask->conn)
                ask_fail(ask, LIDO_EFACTORY, "the connection is lost");
        else if (PQtransactionStatus(ask->conn) == PQTRANS_ACTIVE)
                ask_fail(ask, LIDO_EBUSY, "the connection has results of another statement to give");
        else if (PQpipelineStatus(ask->conn) != PQ_PIPELINE_OFF)
                ask_fail(ask, LIDO_EBUSY, "the connection is in pipeline mode");
        else if (PQsetnonblocking(ask->conn, 1) != 0)
                fail_by_libpq(ask);
        else
                ask->may_repeat = PQtransactionStatus(ask->conn) == PQTRANS_IDLE;
}

void ask_ready(struct ask *ask)
{
        ask->may_read = true;
}

void ask_stop(struct ask *ask)
{
        if (ask->error.code == LIDO_OK)
                ask->error.code = LIDO_ECANCELED;
}

void ask_judge_lateness(struct ask *ask, uint64_t deadline_ns)
{
        if (ask->tells_server && strcmp(ask->error.sqlstate, "57014") == 0 && clock_now_ns() >= deadline_ns)
                ask->error.code = LIDO_EDEADLINE;
}

bool ask_is_over(const struct ask *ask)
{
        return ask->is_over;
}

/* ---- sending --------------------------------------------------------------------------------------------- */

/* Which prepared statement is it, or will it be? */
static void find_statement(struct ask *ask)
{
        const struct question *question = ask->question;
        struct pg_session *session = ask->session;

        ask->statement = NULL;
        if (question->is_simple || question->prepare == LIDO_PG_PREPARE_NEVER || session->options->given.reset >= LIDO_PG_RESET_FULL)
                return;
        session_forget_plans(session);
        ask->statement = statements_use(&session->statements, question->sql, question->params, question->count);
}

/* Returns: 1 when a DEALLOCATE was sent, 0 when that failed, -1 when there is room. */
static int make_room(struct ask *ask)
{
        struct pg_session *session = ask->session;
        struct statement *victim;
        int sent = -1;

        while (sent < 0 &&
               (victim = statements_take_surplus(&session->statements, session->options->given.statement_cache)) != NULL) {
                char sql[64];

                snprintf(sql, sizeof sql, "DEALLOCATE %s", victim->name);
                if (victim->is_prepared)
                        sent = PQsendQuery(ask->conn, sql);
                if (victim == ask->statement)
                        ask->statement = NULL;
                mem_free(victim);
        }
        return sent;
}

static int send_prepare(struct ask *ask)
{
        struct statement *statement = ask->statement;

        statements_name(&ask->session->statements, statement);
        return PQsendPrepare(ask->conn, statement->name, statement->sql, (int)statement->type_count, statement->types);
}

static int send_statement(struct ask *ask)
{
        const struct question *question = ask->question;
        struct params_statement statement = {
                .name = ask->statement ? ask->statement->name : NULL,
                .sql = question->sql,
                .params = question->params,
                .count = question->count,
                .result_format = question->result_format,
        };

        return params_send(ask->conn, &statement);
}

/* The column has a name of its own, so that it does not count as a set_config of the borrower's. */
static int send_timeout(struct ask *ask)
{
        int64_t left = clock_timeout_ms(ask->question->deadline_ns);
        struct lido_pg_param param = { 0 };
        struct params_statement statement = {
                .sql = "select pg_catalog.set_config('statement_timeout', $1, true) as lido",
                .params = &param,
                .count = 1,
        };
        char digits[16];

        snprintf(digits, sizeof digits, "%d", left < INT32_MAX ? (int)left : INT32_MAX);
        param.value = digits;
        return params_send(ask->conn, &statement);
}

static int send_with_timeout(struct ask *ask)
{
        int sent = PQenterPipelineMode(ask->conn);

        if (sent == 1)
                sent = send_timeout(ask);
        if (sent == 1)
                sent = send_statement(ask);
        if (sent == 1)
                sent = PQpipelineSync(ask->conn);
        if (sent == 1)
                ask->session->syncs = 1;
        ask->is_leading = sent == 1;
        return sent;
}

static int run(struct ask *ask)
{
        int sent;

        if (ask->question->is_simple)
                return PQsendQuery(ask->conn, ask->question->sql);
        if (ask->tells_server)
                return send_with_timeout(ask);
        sent = send_statement(ask);
        if (sent == 1 && ask->is_by_row)
                sent = PQsetSingleRowMode(ask->conn);
        return sent;
}

/* Send what is next. Returns: 1 when something was sent; 0 or -1 as params_send. */
static int send_next(struct ask *ask)
{
        int sent = -1;

        switch (ask->step) {
        case STEP_FIND:
                find_statement(ask);
                ask->step = STEP_MAKE_ROOM;
                /* fall through */
        case STEP_MAKE_ROOM:
                sent = make_room(ask);
                if (sent >= 0)
                        return sent;
                ask->step = STEP_PREPARE;
                /* fall through */
        case STEP_PREPARE:
                if (ask->statement && !statements_is_worth_preparing(ask->statement, ask->question->prepare))
                        ask->statement = NULL;
                if (ask->statement && !ask->statement->is_prepared)
                        return send_prepare(ask);
                ask->step = STEP_RUN;
                /* fall through */
        case STEP_RUN:
                sent = run(ask);
                break;
        case STEP_END:
                break;
        }
        return sent;
}

/* ---- reading --------------------------------------------------------------------------------------------- */

static void take_error(struct ask *ask, const PGresult *result)
{
        if (ask->step == STEP_RUN && ask->statement && ask->may_repeat && failure_is_outdated(result))
                ask->is_stale = true;
        else if (ask->error.code == LIDO_OK) /* after a FATAL, libpq adds an error of its own */
                failure_from_result(&ask->error, result);
}

/* One row after the other tells nothing but its size. */
static void see(struct ask *ask, const PGresult *result, ExecStatusType status)
{
        struct pg_session *session = ask->session;

        if (status == PGRES_SINGLE_TUPLE && session->last_status == PGRES_SINGLE_TUPLE &&
            PQresultMemorySize(result) < session->options->given.fat_bytes)
                return;
        session_see(session, result);
}

/* Take in one result. Returns: true when it is for the caller. */
static bool take(struct ask *ask, PGresult *result)
{
        ExecStatusType status = PQresultStatus(result);

        see(ask, result, status);
        switch (status) {
        case PGRES_SINGLE_TUPLE:
                if (ask->is_leading) /* libpq forgets the mode of the statement before only when it is in no pipeline */
                        break;
                ask->affected++;
                return true;
        case PGRES_COMMAND_OK:
        case PGRES_TUPLES_OK:
                if (ask->step != STEP_RUN || ask->is_leading)
                        break;
                ask->affected = work_affected(result);
                return !ask->is_by_row || PQntuples(result) > 0;
        case PGRES_EMPTY_QUERY:
        case PGRES_PIPELINE_ABORTED:
                break;
        case PGRES_COPY_IN:
        case PGRES_COPY_OUT:
        case PGRES_COPY_BOTH:
                ask_fail(ask, LIDO_EINVAL, "COPY is done by lido_pg_copy_in and lido_pg_copy_out");
                break;
        default:
                take_error(ask, result);
        }
        return false;
}

/* The results of one message are over. */
static enum ask_want end_step(struct ask *ask)
{
        ask->is_over = true;
        if (PQpipelineStatus(ask->conn) != PQ_PIPELINE_OFF && !PQexitPipelineMode(ask->conn))
                return fail_by_libpq(ask);
        if (ask->error.code != LIDO_OK)
                return ASK_FAILED;
        if (ask->step == STEP_MAKE_ROOM)
                ask->session->dirt &= ~(unsigned)DIRT_PLANS; /* that was us */
        if (ask->step == STEP_PREPARE)
                ask->statement->is_prepared = true;
        if (ask->step == STEP_RUN && !ask->is_stale)
                ask->step = STEP_END;
        if (ask->is_stale) { /* nothing was done: once more, prepared anew */
                statements_forget(&ask->session->statements);
                ask->is_stale = ask->may_repeat = false;
                ask->step = STEP_FIND;
        }
        return ASK_READ;
}

/* NULL ends the results of a statement; of a pipeline there may be more to come. */
static enum ask_want end_results(struct ask *ask)
{
        if (PQpipelineStatus(ask->conn) == PQ_PIPELINE_OFF)
                return end_step(ask);
        if (PQstatus(ask->conn) != CONNECTION_OK) /* the Sync will never come */
                return fail_by_libpq(ask);
        if (ask->is_leading && ask->is_by_row) /* the statement itself is current now */
                PQsetSingleRowMode(ask->conn);
        ask->is_leading = false;
        return ASK_READ;
}

enum ask_want ask_handle(struct ask *ask, PGresult *result, PGresult **ret_result)
{
        bool is_sync = result && PQresultStatus(result) == PGRES_PIPELINE_SYNC;
        enum ask_want want = ASK_READ;

        if (result && !is_sync && take(ask, result)) {
                *ret_result = result;
                return ASK_RESULT;
        }
        if (is_sync)
                session_see(ask->session, result);
        if (is_sync)
                want = end_step(ask);
        else if (!result)
                want = end_results(ask);
        PQclear(result);
        return ask->error.code == LIDO_EINVAL ? ASK_FAILED : want; /* COPY, which goes on for ever */
}

/* Read what libpq has. Returns: ASK_READ when it is time to send or to read from the socket. */
static enum ask_want read_results(struct ask *ask, PGresult **ret_result)
{
        enum ask_want want = ASK_READ;

        while (want == ASK_READ && !ask->is_over && !PQisBusy(ask->conn))
                want = ask_handle(ask, PQgetResult(ask->conn), ret_result);
        return want;
}

/* Returns: false when the connection is lost and has told all it had to say. */
static bool read_socket(struct ask *ask)
{
        ask->may_read = false;
        return work_consume(ask->conn) || !PQisBusy(ask->conn);
}

enum ask_want ask_next(struct ask *ask, PGresult **ret_result)
{
        if (ask->is_over && ask->error.code != LIDO_OK)
                return ASK_FAILED;
        for (;;) {
                enum ask_want want;

                if (ask->is_unsent)
                        ask->is_unsent = PQflush(ask->conn) == 1; /* that it fails is told by what is read */
                want = read_results(ask, ret_result);
                if (want != ASK_READ)
                        return want;
                if (ask->is_over && ask->step == STEP_END)
                        return ASK_DONE;
                if (ask->is_over) {
                        int sent = send_next(ask);

                        if (sent < 0)
                                return ask_fail(ask, LIDO_ENOMEM, "out of memory");
                        if (sent == 0)
                                return fail_by_libpq(ask);
                        ask->is_over = false;
                        ask->is_unsent = true;
                        continue;
                }
                if (!ask->may_read && !work_has_pending(ask->conn))
                        return ask->is_unsent ? ASK_READ_WRITE : ASK_READ;
                if (!read_socket(ask))
                        return fail_by_libpq(ask);
        }
}
