#include "pg/session.h"

#include <errno.h>
#include <fcntl.h>
#include <libpq-events.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "pg/connect.h"
#include "pg/failure.h"

/* ---- the line -------------------------------------------------------------------------------------------- */

struct pg_line *line_new(int fd)
{
        struct pg_line *line = mem_zalloc(sizeof *line);

        if (!line)
                return NULL;
        store_relaxed(&line->users, 1);
        line->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (line->fd < 0) {
                mem_free(line);
                return NULL;
        }
        return line;
}

void line_unref(struct pg_line *line)
{
        if (sub_acq_rel(&line->users, 1) != 1)
                return;
        close(line->fd);
        mem_free(line);
}

/* ---- what libpq tells as it happens ---------------------------------------------------------------------- */

static void note_end(struct pg_session *session, const PGresult *result)
{
        const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);

        session->is_lost = true;
        if (state && failure_fate(state) == LIDO_PG_FATE_SUSPECT)
                session->is_alarming = true;
        if (state && session->sqlstate[0] == '\0')
                snprintf(session->sqlstate, sizeof session->sqlstate, "%s", state);
}

static void adjudicate(struct pg_session *session, const PGresult *result, const char *state)
{
        const struct lido_pg_options *given = &session->options->given;
        int fate = given->adjudicate ? given->adjudicate(state, result, given->adjudicate_context) : LIDO_PG_FATE_DEFAULT;

        if (fate == LIDO_PG_FATE_DEFAULT && strcmp(state, "25006") == 0) {
                session->is_refused_write = true;
                return;
        }
        if (fate == LIDO_PG_FATE_DEFAULT)
                fate = failure_fate(state);
        if (fate == LIDO_PG_FATE_EVICT)
                session->is_evicted = true;
        else if (fate == LIDO_PG_FATE_SUSPECT)
                session->is_alarming = true;
}

static void note_error(struct pg_session *session, const PGresult *result)
{
        const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);

        if (!state) {
                session->is_doubtful = true;
                return;
        }
        if (strcmp(state, "40001") == 0 || strcmp(state, "40P01") == 0)
                session->has_conflict = true;
        if (failure_is_end(result))
                note_end(session, result);
        adjudicate(session, result, state);
}

/* libpq's input buffer holds one row and never shrinks, so only the largest row counts. A result smaller than the
 * limit cannot have one; a larger one is looked through, which costs little beside fetching it. */
static void note_size(struct pg_session *session, const PGresult *result)
{
        size_t limit = session->options->given.fat_bytes;
        int columns = PQnfields(result), rows = PQntuples(result);

        if (PQresultMemorySize(result) < limit)
                return;
        for (int row = 0; row < rows && !session->is_fat; row++) {
                size_t size = 0;

                for (int column = 0; column < columns; column++)
                        size += (size_t)PQgetlength(result, row, column);
                session->is_fat = size >= limit;
        }
}

static void note_result(struct pg_session *session, const PGresult *result)
{
        ExecStatusType status = PQresultStatus(result);

        if (status != PGRES_SINGLE_TUPLE || session->last_status != PGRES_SINGLE_TUPLE) /* rows share their names */
                session->dirt |= reset_dirt_of(result);
        session->last_status = (int)status;
        switch (status) {
        case PGRES_FATAL_ERROR:
                note_error(session, result);
                break;
        case PGRES_PIPELINE_SYNC:
                if (session->syncs > 0)
                        session->syncs--;
                break;
        case PGRES_COPY_IN:
        case PGRES_COPY_OUT:
        case PGRES_COPY_BOTH:
                break;
        default:
                note_size(session, result);
        }
}

/* The results outlive the session, so what belongs to it is reached through the connection alone. */
static int on_libpq_event(PGEventId id, void *info, void *unused)
{
        struct pg_session *session;

        (void)unused;
        switch (id) {
        case PGEVT_RESULTCREATE: {
                PGEventResultCreate *create = info;

                session = create->conn ? PQinstanceData(create->conn, on_libpq_event) : NULL;
                if (session)
                        note_result(session, create->result);
                break;
        }
        case PGEVT_CONNRESET: /* another socket, which the line knows nothing of */
                session = PQinstanceData(((PGEventConnReset *)info)->conn, on_libpq_event);
                if (session)
                        session->is_lost = true;
                break;
        case PGEVT_CONNDESTROY:
                session = PQinstanceData(((PGEventConnDestroy *)info)->conn, on_libpq_event);
                if (session)
                        session->conn = NULL;
                break;
        default:
                break;
        }
        return 1;
}

/* Without memory for the hook, what a borrower does is not known, and so the connection is not lent again. */
void session_expose(struct pg_session *session)
{
        if (session->is_exposed)
                return;
        session->is_exposed = PQregisterEventProc(session->conn, on_libpq_event, "lido", NULL) &&
                              PQsetInstanceData(session->conn, on_libpq_event, session);
        if (!session->is_exposed)
                session->is_evicted = true;
}

void session_see(struct pg_session *session, const PGresult *result)
{
        if (!session->is_exposed)
                note_result(session, result);
}

/* What arrives on an idle connection comes this way, a FATAL too. */
static void on_notice(void *session_pointer, const PGresult *notice)
{
        struct pg_session *session = session_pointer;

        if (failure_is_end(notice))
                note_end(session, notice);
        if (session->options->given.on_notice)
                session->options->given.on_notice(notice, session->options->given.notice_context);
}

/* The processor is what the default receiver calls; a borrower may have set either. */
static void no_processor(void *unused, const char *message)
{
        (void)unused;
        (void)message;
}

/* ---- life ------------------------------------------------------------------------------------------------ */

static void write_label(struct pg_session *session)
{
        const char *host = PQhost(session->conn), *port = PQport(session->conn), *database = PQdb(session->conn);

        snprintf(session->label, sizeof session->label, "backend %d of %.60s at %.60s:%.10s", PQbackendPID(session->conn),
                 database ? database : "", host ? host : "", port ? port : "");
}

int session_new(struct pg_session **ret_session, PGconn *conn, const struct pg_options *options)
{
        struct pg_session *session = mem_zalloc(sizeof *session);
        int rc = LIDO_ENOMEM;

        if (!session)
                return LIDO_ENOMEM;
        session->conn = conn;
        session->options = options;
        list_init(&session->link);
        statements_init(&session->statements);
        store_relaxed(&session->users, 1);
        errno = ENOMEM;
        session->line = line_new(PQsocket(conn));
        if (!session->line) {
                rc = errno == ENOMEM ? LIDO_ENOMEM : LIDO_EFACTORY;
                goto free_session;
        }
        session->cancel = PQgetCancel(conn);
        if (!session->cancel)
                goto unref_line;
        write_label(session);
        session_restore(session);
        *ret_session = session;
        return LIDO_OK;
unref_line:
        line_unref(session->line);
free_session:
        mem_free(session);
        return rc;
}

void session_set_host(struct pg_session *session, struct pg_hosts *hosts, unsigned host)
{
        session->hosts = hosts_ref(hosts);
        session->host = host;
}

/* The pool has one session less. */
static void leave_host(struct pg_session *session)
{
        if (session->hosts)
                hosts_count(session->hosts, session->host, -1);
}

static bool is_misplaced(const struct pg_session *session)
{
        return session->hosts && !hosts_fits(session->hosts, session->host);
}

void session_unref(struct pg_session *session)
{
        if (sub_acq_rel(&session->users, 1) != 1)
                return;
        hosts_unref(session->hosts);
        statements_fini(&session->statements);
        PQfreeCancel(session->cancel);
        line_unref(session->line);
        mem_free(session);
}

/* Read what came last, so that the reason of the end is known. Not blocking. */
static void read_last_words(struct pg_session *session)
{
        PGnotify *notify;

        if (PQstatus(session->conn) == CONNECTION_OK && session_peek(session) == LIDO_PEEK_CHECK &&
            PQconsumeInput(session->conn))
                while ((notify = PQnotifies(session->conn)) != NULL) /* parses */
                        PQfreemem(notify);
}

bool session_close(struct pg_session *session)
{
        PGconn *conn = session->conn;
        bool is_alarming;

        if (conn) {
                bool is_at_rest = PQtransactionStatus(conn) == PQTRANS_IDLE;

                PQsetNoticeReceiver(conn, on_notice, session);
                if (is_at_rest)
                        read_last_words(session);
                /* PQfinish sends a goodbye, and waits until it is sent unless the connection is non-blocking. Becoming
                 * non-blocking flushes what is unsent, which waits too, but there is nothing unsent at rest. */
                if (!is_at_rest || session->is_lost || PQsetnonblocking(conn, 1) != 0)
                        session_interrupt(session);
                PQsetInstanceData(conn, on_libpq_event, NULL);
                session->conn = NULL;
                PQfinish(conn);
        }
        is_alarming = session->is_alarming || session->is_refused_write;
        leave_host(session);
        session_unref(session);
        return is_alarming;
}

PGconn *session_release_conn(struct pg_session *session)
{
        PGconn *conn = session->conn;

        if (conn) {
                PQsetInstanceData(conn, on_libpq_event, NULL);
                connect_give_back_notices(conn);
                session->conn = NULL;
        }
        leave_host(session);
        session_unref(session);
        return conn;
}

void session_interrupt(struct pg_session *session)
{
        shutdown(session->line->fd, SHUT_RDWR);
}

static bool is_on(const PGconn *conn, const char *parameter)
{
        const char *value = PQparameterStatus(conn, parameter);

        return value && strcmp(value, "on") == 0;
}

static bool is_off(const PGconn *conn, const char *parameter)
{
        const char *value = PQparameterStatus(conn, parameter);

        return value && strcmp(value, "off") == 0;
}

/* A server before version 14 reports neither, and is believed. */
bool session_has_wrong_role(const struct pg_session *session)
{
        const char *wanted = session->options->session_attrs;
        const PGconn *conn = session->conn;

        if (!wanted)
                return false;
        if (strcmp(wanted, "primary") == 0)
                return is_on(conn, "in_hot_standby");
        if (strcmp(wanted, "read-write") == 0)
                return is_on(conn, "in_hot_standby") || is_on(conn, "default_transaction_read_only");
        if (strcmp(wanted, "standby") == 0)
                return is_off(conn, "in_hot_standby");
        if (strcmp(wanted, "read-only") == 0)
                return is_off(conn, "in_hot_standby") && is_off(conn, "default_transaction_read_only");
        return false;
}

/* ---- peek and verdict ------------------------------------------------------------------------------------ */

enum lido_peek session_peek(struct pg_session *session)
{
        char byte;
        ssize_t got;

        if (!session->conn || session->is_lost || is_misplaced(session))
                return LIDO_PEEK_DEAD;
        do
                got = recv(session->line->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        while (got < 0 && errno == EINTR);
        if (got > 0) /* a notice or a notification, or the server's last words */
                return LIDO_PEEK_CHECK;
        return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? LIDO_PEEK_OK : LIDO_PEEK_DEAD;
}

void session_restore(struct pg_session *session)
{
        PGnotify *notify;

        PQsetNoticeReceiver(session->conn, on_notice, session);
        PQsetNoticeProcessor(session->conn, no_processor, NULL);
        PQsetErrorVerbosity(session->conn, PQERRORS_DEFAULT);
        PQsetErrorContextVisibility(session->conn, PQSHOW_CONTEXT_ERRORS);
        PQuntrace(session->conn);
        while ((notify = PQnotifies(session->conn)) != NULL)
                PQfreemem(notify);
}

static enum lido_verdict verdict_by_dirt(const struct pg_session *session)
{
        int level = session->options->given.reset;

        if (level >= LIDO_PG_RESET_FULL)
                return LIDO_VERDICT_RESET;
        return level == LIDO_PG_RESET_AUTO && (session->dirt & DIRT_ALL) ? LIDO_VERDICT_RESET : LIDO_VERDICT_CLEAN;
}

/* Something failed lately. When libpq could not send, it says so in words alone: no event, PQstatus OK, at rest. */
static enum lido_verdict verdict_after_error(struct pg_session *session)
{
        switch (session_peek(session)) {
        case LIDO_PEEK_DEAD:
                return LIDO_VERDICT_DEAD;
        case LIDO_PEEK_CHECK:
                return LIDO_VERDICT_RESET;
        default:
                return session->is_doubtful || session->is_alarming ? LIDO_VERDICT_RESET : verdict_by_dirt(session);
        }
}

/* At rest. */
static enum lido_verdict verdict_of_idle(struct pg_session *session)
{
        PGconn *conn = session->conn;

        if (PQpipelineStatus(conn) != PQ_PIPELINE_OFF && !PQexitPipelineMode(conn))
                return LIDO_VERDICT_DEAD;
        if (PQisnonblocking(conn) && PQsetnonblocking(conn, 0) != 0)
                return LIDO_VERDICT_DEAD;
        session_restore(session);
        if (session->is_lost) /* notifications were read, and with them the end */
                return LIDO_VERDICT_DEAD;
        if (PQerrorMessage(conn)[0] != '\0')
                return verdict_after_error(session);
        return session->is_doubtful || session->is_alarming ? LIDO_VERDICT_RESET : verdict_by_dirt(session);
}

/* Results are outstanding. Two things are not worth their undoing: a COPY IN, part of which may be unsent in blocking mode,
 * where sending it could block the loop; and a result of unknown size that libpq has begun to collect as a whole. */
static enum lido_verdict verdict_of_active(const struct pg_session *session)
{
        PGconn *conn = session->conn;

        if (session->last_status == PGRES_COPY_IN || session->last_status == PGRES_COPY_BOTH)
                return LIDO_VERDICT_DEAD;
        if (PQpipelineStatus(conn) != PQ_PIPELINE_OFF) /* ours is known to end */
                return session->syncs > 0 ? LIDO_VERDICT_RESET : LIDO_VERDICT_DEAD;
        if (session->last_status == PGRES_SINGLE_TUPLE || PQsetSingleRowMode(conn) || !PQisBusy(conn))
                return LIDO_VERDICT_RESET;
        return LIDO_VERDICT_DEAD;
}

/* A write was refused. By a server that writes elsewhere, the transaction was made read-only by its borrower. What the server is,
 * it says behind the error and before it is ready again. */
static void judge_refused_write(struct pg_session *session)
{
        PGconn *conn = session->conn;

        if (!session->is_refused_write)
                return;
        session->is_refused_write = false;
        if (!conn || PQtransactionStatus(conn) == PQTRANS_ACTIVE || !is_off(conn, "in_hot_standby") ||
            !is_off(conn, "default_transaction_read_only"))
                session->is_alarming = true;
}

enum lido_verdict session_verdict(struct pg_session *session)
{
        bool may_reset = session->options->given.reset != LIDO_PG_RESET_NONE;
        enum lido_verdict verdict = LIDO_VERDICT_DEAD;

        judge_refused_write(session);
        if (!session->conn || session->is_lost || session->is_evicted || session->is_fat || is_misplaced(session) ||
            PQstatus(session->conn) != CONNECTION_OK)
                return LIDO_VERDICT_DEAD;
        if (session->options->given.reset >= LIDO_PG_RESET_STRICT && (session->dirt & DIRT_OPAQUE))
                return LIDO_VERDICT_DEAD;
        switch (PQtransactionStatus(session->conn)) {
        case PQTRANS_IDLE:
                verdict = verdict_of_idle(session);
                break;
        case PQTRANS_INTRANS:
        case PQTRANS_INERROR:
                if (PQpipelineStatus(session->conn) == PQ_PIPELINE_OFF)
                        verdict = LIDO_VERDICT_RESET;
                break;
        case PQTRANS_ACTIVE:
                verdict = verdict_of_active(session);
                break;
        case PQTRANS_UNKNOWN:
                break;
        }
        return verdict == LIDO_VERDICT_RESET && !may_reset ? LIDO_VERDICT_DEAD : verdict;
}

/* ---- check and reset ------------------------------------------------------------------------------------- */

static void see_work(void *session, const PGresult *result)
{
        session_see(session, result);
}

void session_begin_work(struct pg_session *session)
{
        work_start(&session->work, session->conn, session->plan.steps, session->options->given.drain_bytes);
        session->work.forgives_cancel = load_relaxed(&session->was_cancelled);
        session->work.syncs = session->syncs;
        session->work.see = see_work;
        session->work.see_context = session;
}

void session_forget_plans(struct pg_session *session)
{
        if (session->dirt & DIRT_PLANS)
                statements_forget(&session->statements);
        session->dirt &= ~(unsigned)DIRT_PLANS;
}

/* What is known of the session is known anew. Returns: what is wrong with it still, or NULL. */
static const char *start_afresh(struct pg_session *session)
{
        session_restore(session);
        session->is_doubtful = session->is_alarming = session->is_refused_write = false;
        store_relaxed(&session->was_cancelled, 0);
        session->last_status = 0;
        session->syncs = 0;
        session_forget_plans(session);
        session->dirt = 0;
        if (session->is_lost || PQtransactionStatus(session->conn) != PQTRANS_IDLE)
                return "the session is not at rest";
        if (session->is_evicted || session->is_fat)
                return "the session is not to be lent again";
        if (session->hosts) {
                struct probe probe;

                probe_from_status(session->conn, &probe);
                hosts_learn(session->hosts, session->host, &probe, 0);
                if (is_misplaced(session))
                        return "the server is no longer one that fits";
        }
        return session_has_wrong_role(session) ? "the server has changed its role" : NULL;
}

void session_answer(struct pg_session *session, lido_op op, bool is_done)
{
        const char *complaint = is_done ? start_afresh(session) : NULL;
        struct lido_error error = session->work.error;

        if (is_done && !complaint) {
                lido_op_done(op, LIDO_OK);
                return;
        }
        if (complaint)
                failure_set(&error, LIDO_EFACTORY, LIDO_FAILURE_NOT_READY, complaint);
        options_redact(session->options, &error);
        lido_op_failed(op, &error);
}
