#include "pg/watch.h"

#include <string.h>
#include <sys/socket.h>

#include "base/mem.h"
#include "pg/cancel.h"
#include "pg/failure.h"

struct pg_watch {
        uv_poll_t poll;
        struct pg_line *line;
        struct pg_session *session; /* NULL once stopped: the handle is on its way out */
        lido_handle handle;
};

/* ---- why a server hung up -------------------------------------------------------------------------------- */

static const struct {
        const char *sqlstate, *reason;
} reasons[] = {
        {"57P01", "the server ended the session: admin_shutdown (57P01)"},
        {"57P02", "the server ended the session: crash_shutdown (57P02)"},
        {"57P04", "the server ended the session: database_dropped (57P04)"},
        {"57P05", "the server ended the session: idle_session_timeout (57P05)"},
        {"25P03", "the server ended the session: idle_in_transaction_session_timeout (25P03)"},
};

/* Find the reason in the bytes that wait to be read, in clear text: an error or notice message ('E' or 'N', four bytes
 * of length) made of fields, one of which is 'C' and the SQLSTATE. The connection belongs to somebody else, so only
 * the line is looked at, without taking anything off it. */
static const char *find_reason(int fd)
{
        char bytes[512] = "";
        ssize_t got = recv(fd, bytes, sizeof bytes - 1, MSG_PEEK | MSG_DONTWAIT);

        if (got < 6 || (bytes[0] != 'E' && bytes[0] != 'N'))
                return "the server closed the connection";
        for (char *field = bytes + 5; field < bytes + got && *field; field += strlen(field) + 1)
                for (size_t i = 0; *field == 'C' && i < sizeof reasons / sizeof *reasons; i++)
                        if (strcmp(field + 1, reasons[i].sqlstate) == 0)
                                return reasons[i].reason;
        return "the server ended the session";
}

/* ---- check and reset ------------------------------------------------------------------------------------- */

static void on_event(uv_poll_t *poll, int status, int events);

static void answer(struct pg_session *session, enum work_want outcome)
{
        session->is_working = false;
        if (outcome == WORK_DONE)
                uv_poll_start(&session->watch->poll, UV_DISCONNECT, on_event);
        else
                uv_poll_stop(&session->watch->poll);
        session_answer(session, session->op, outcome == WORK_DONE);
}

static void go_on(struct pg_session *session)
{
        enum work_want want = work_advance(&session->work);

        if (want == WORK_READ)
                uv_poll_start(&session->watch->poll, UV_READABLE | UV_DISCONNECT, on_event);
        else if (want == WORK_READ_WRITE)
                uv_poll_start(&session->watch->poll, UV_READABLE | UV_WRITABLE | UV_DISCONNECT, on_event);
        else
                answer(session, want);
}

static void work_on(struct pg_session *session, struct cancels *cancels, lido_op op)
{
        if (!session->watch || !session->conn || session->is_lost) {
                struct lido_error error;

                failure_set(&error, session->watch ? LIDO_EFACTORY : LIDO_ELOOP, LIDO_FAILURE_TRANSIENT,
                            session->watch ? "the connection is lost" : "the loop could not watch the connection");
                lido_op_failed(op, &error);
                return;
        }
        if (cancels_put_off(cancels, session, op))
                return;
        session->op = op;
        session->is_working = true;
        session_begin_work(session);
        go_on(session);
}

static void begin(struct pg_session *session, struct cancels *cancels, lido_op op, int level)
{
        PGTransactionStatusType state = session->conn ? PQtransactionStatus(session->conn) : PQTRANS_UNKNOWN;

        reset_make_plan(&session->plan, level, session->dirt, state, session->options->given.setup);
        work_on(session, cancels, op);
}

/* What is checked is clean, unless its borrower's statement was being cancelled; so it undoes what there is. */
void watch_check(struct pg_session *session, struct cancels *cancels, lido_op op)
{
        int level = session->options->given.reset;

        begin(session, cancels, op, level < LIDO_PG_RESET_AUTO ? level : LIDO_PG_RESET_AUTO);
}

void watch_reset(struct pg_session *session, struct cancels *cancels, lido_op op)
{
        begin(session, cancels, op, session->options->given.reset);
}

/* ---- the watch ------------------------------------------------------------------------------------------- */

static void on_event(uv_poll_t *poll, int status, int events)
{
        struct pg_watch *watch = poll->data;

        (void)status;
        (void)events;
        if (!watch->session)
                return;
        if (watch->session->is_working) {
                go_on(watch->session);
                return;
        }
        uv_poll_stop(poll); /* the disconnect would be told again at each turn */
        lido_handle_broken(watch->handle, find_reason(watch->line->fd));
}

void watch_start(struct pg_session *session, lido_handle handle, uv_loop_t *loop)
{
        struct pg_watch *watch = mem_zalloc(sizeof *watch);

        session->handle = handle; /* a cancel request needs it, watched or not */
        if (!watch || uv_poll_init(loop, &watch->poll, session->line->fd) != 0) {
                mem_free(watch);
                return; /* peek is left, and a check fails */
        }
        uv_unref((uv_handle_t *)&watch->poll);
        watch->poll.data = watch;
        watch->session = session;
        watch->handle = handle;
        watch->line = session->line;
        add_relaxed(&watch->line->users, 1);
        add_relaxed(&session->users, 1);
        session->watch = watch;
        uv_poll_start(&watch->poll, UV_DISCONNECT, on_event);
}

static void on_closed(uv_handle_t *handle)
{
        struct pg_watch *watch = handle->data;

        line_unref(watch->line);
        mem_free(watch);
}

/* The service stops with a check or reset unanswered: there will be no event to end it. */
static void give_up(struct pg_session *session)
{
        failure_set(&session->work.error, LIDO_ECANCELED, LIDO_FAILURE_TRANSIENT, "the loop is going");
        answer(session, WORK_FAILED);
}

void watch_stop(struct pg_session *session, struct cancels *cancels)
{
        struct pg_watch *watch = session->watch;

        if (!watch)
                return;
        cancels_give_up(cancels, session->op);
        if (session->is_working)
                give_up(session);
        session->watch = NULL;
        watch->session = NULL;
        uv_close((uv_handle_t *)&watch->poll, on_closed);
        session_unref(session);
}
