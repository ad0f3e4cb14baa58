/* pg/copy.c - COPY on a lease: rows in by a writer that is held back, rows out as an iterator; and what is left when either stops.
 *
 * libpq takes whatever it is given and keeps it until the socket does: PQputCopyData says 1 however much that is. So no more is
 * handed to it before the last piece has gone. What waits for the socket waits for both directions, because a server that
 * wants to be rid of its notices stops reading.
 *
 * While a COPY in goes on, libpq looks at no error: the server's comes out at the end.
 */
#include "lido/pg.h"

#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/sized.h"
#include "pg/cancel.h"
#include "pg/failure.h"
#include "pg/lease.h"
#include "pg/session.h"
#include "pg/wait.h"
#include "pg/work.h"

#define PIECE (64u << 10) /* handed to libpq at once */
#define LEAVE_MS 5000     /* so long the end of a COPY that is given up may take */
#define READ_OFF_MS 500   /* and so long the rest of one out, before it is cancelled */

enum stage { STARTING, WRITING, READING, ENDING, OVER };

struct lido_pg_copy {
        lido_lease lease;
        struct pg_session *session;
        PGconn *conn;
        int stage;                /* enum stage */
        int wanted;               /* WRITING or READING */
        int code;                 /* LIDO_OK until it has failed */
        uint64_t deadline_ns;
        uint64_t rows;
        char *row;                /* libpq's memory, read last */
        struct lido_error *error; /* the caller's, or NULL */
};

static int fail(struct lido_pg_copy *copy, int code, const char *text)
{
        if (copy->code == LIDO_OK) {
                copy->code = code;
                if (copy->error)
                        failure_set(copy->error, code, LIDO_FAILURE_TRANSIENT, text);
        }
        return copy->code;
}

static int fail_by_result(struct lido_pg_copy *copy, const PGresult *result)
{
        if (copy->code == LIDO_OK) {
                copy->code = LIDO_EFACTORY;
                if (copy->error)
                        failure_from_result(copy->error, result);
        }
        return copy->code;
}

/* Returns: LIDO_OK when something has come or gone; LIDO_EDEADLINE; LIDO_EFACTORY. */
static int wait_and_read(struct lido_pg_copy *copy, bool or_writable, uint64_t until_ns)
{
        int rc = wait_for_socket(copy->conn, or_writable, until_ns);

        if (rc == LIDO_OK && !work_consume(copy->conn) && PQstatus(copy->conn) != CONNECTION_OK && PQisBusy(copy->conn))
                rc = LIDO_EFACTORY;
        return rc;
}

/* Wait until libpq holds nothing unsent. */
static int flush(struct lido_pg_copy *copy, uint64_t until_ns)
{
        int flushed;

        while ((flushed = PQflush(copy->conn)) == 1) {
                int rc = wait_and_read(copy, true, until_ns);

                if (rc != LIDO_OK)
                        return rc;
        }
        return flushed == 0 ? LIDO_OK : LIDO_EFACTORY;
}

static void take(struct lido_pg_copy *copy, PGresult *result)
{
        session_see(copy->session, result);
        switch (PQresultStatus(result)) {
        case PGRES_COPY_IN:
                copy->stage = WRITING;
                break;
        case PGRES_COPY_OUT:
                copy->stage = READING;
                break;
        case PGRES_COMMAND_OK:
                copy->rows = work_affected(result);
                break;
        case PGRES_FATAL_ERROR:
                fail_by_result(copy, result);
                break;
        default:
                fail(copy, LIDO_EINVAL, "the statement is no COPY");
        }
}

/* Read results until COPY begins, or all has ended. Returns: LIDO_OK; LIDO_EDEADLINE; LIDO_EFACTORY. */
static int read_results(struct lido_pg_copy *copy, uint64_t until_ns)
{
        int stage = copy->stage;

        while (copy->stage == stage) {
                PGresult *result;

                if (PQisBusy(copy->conn)) {
                        int rc = wait_and_read(copy, false, until_ns);

                        if (rc != LIDO_OK)
                                return rc;
                        continue;
                }
                result = PQgetResult(copy->conn);
                if (!result)
                        copy->stage = OVER;
                else
                        take(copy, result);
                PQclear(result);
        }
        return LIDO_OK;
}

/* ---- giving up --------------------------------------------------------------------------------------------- */

/* Tell the server that no more comes. */
static void stop_writing(struct lido_pg_copy *copy, uint64_t until_ns)
{
        while (copy->stage == WRITING) {
                int put = PQputCopyEnd(copy->conn, "given up by the client");

                if (put != 0)
                        copy->stage = ENDING;
                if (put > 0 && flush(copy, until_ns) == LIDO_EDEADLINE) /* any other failure is told by what is read */
                        return;
                if (put == 0 && wait_and_read(copy, true, until_ns) != LIDO_OK)
                        return;
        }
        read_results(copy, until_ns);
}

/* What is wrong when a function of libpq says no: the server's words if there are any, for it may have hung up. */
static int fail_by_libpq(struct lido_pg_copy *copy, int rc)
{
        if (rc == LIDO_EDEADLINE)
                return fail(copy, rc, "the COPY was not done by its deadline");
        if (copy->stage == WRITING)
                stop_writing(copy, clock_after_ms(clock_now_ns(), READ_OFF_MS));
        else
                read_results(copy, clock_after_ms(clock_now_ns(), READ_OFF_MS));
        return fail(copy, LIDO_EFACTORY, PQerrorMessage(copy->conn));
}

/* Read what is left, up to a budget. Returns: true when that was all. */
static bool read_off(struct lido_pg_copy *copy, size_t budget, uint64_t until_ns)
{
        while (copy->stage == READING) {
                char *row;
                int length = PQgetCopyData(copy->conn, &row, 1);

                if (length > 0)
                        PQfreemem(row);
                if (length < 0)
                        copy->stage = ENDING;
                if (length > 0 && (size_t)length > budget)
                        return false;
                if (length > 0)
                        budget -= (size_t)length;
                if (length == 0 && !work_has_pending(copy->conn) && wait_for_socket(copy->conn, false, until_ns) != LIDO_OK)
                        return false;
                if (length == 0 && !PQconsumeInput(copy->conn))
                        copy->stage = ENDING;
        }
        return read_results(copy, until_ns) == LIDO_OK;
}

static void stop_reading(struct lido_pg_copy *copy)
{
        size_t budget = copy->session->options->given.drain_bytes;

        if (!read_off(copy, budget, clock_after_ms(clock_now_ns(), READ_OFF_MS)) &&
            lido_pg_cancel(copy->lease, LEAVE_MS) == LIDO_OK)
                read_off(copy, SIZE_MAX, clock_after_ms(clock_now_ns(), LEAVE_MS));
}

static bool is_mine(const struct lido_pg_copy *copy)
{
        return copy->session && lido_object(copy->lease) == copy->session && copy->session->conn;
}

/* The lease is the caller's again, with a connection that can be used, or that is closed on return. */
static void leave(struct lido_pg_copy *copy)
{
        uint64_t until_ns = clock_after_ms(clock_now_ns(), LEAVE_MS);

        if (!is_mine(copy))
                return;
        if (copy->stage == STARTING || copy->stage == ENDING)
                read_results(copy, until_ns); /* a COPY that was too late may still begin */
        if (copy->stage == WRITING)
                stop_writing(copy, until_ns);
        else if (copy->stage == READING)
                stop_reading(copy);
        if (copy->stage != OVER || PQsetnonblocking(copy->conn, 0) != 0 ||
            !cancels_settle(copy->session, clock_after_ms(clock_now_ns(), LEAVE_MS)))
                lease_give_up(copy->lease);
        copy->stage = OVER;
}

/* ---- the face ---------------------------------------------------------------------------------------------- */

static int start(struct lido_pg_copy *copy, const char *sql)
{
        int rc;

        copy->stage = OVER;
        if (!copy->conn)
                return fail(copy, LIDO_EFACTORY, "the connection is lost");
        if (PQtransactionStatus(copy->conn) == PQTRANS_ACTIVE || PQpipelineStatus(copy->conn) != PQ_PIPELINE_OFF)
                return fail(copy, LIDO_EBUSY, "the connection has results of another statement to give");
        if (PQsetnonblocking(copy->conn, 1) != 0 || !PQsendQuery(copy->conn, sql))
                return fail(copy, LIDO_EFACTORY, PQerrorMessage(copy->conn));
        copy->stage = STARTING;
        rc = flush(copy, copy->deadline_ns);
        if (rc == LIDO_OK)
                rc = read_results(copy, copy->deadline_ns);
        if (rc == LIDO_EDEADLINE)
                lido_pg_cancel(copy->lease, 0);
        if (rc != LIDO_OK)
                return fail_by_libpq(copy, rc);
        return copy->stage == copy->wanted ? copy->code : fail(copy, LIDO_EINVAL, "the statement is no such COPY");
}

static int open_copy(lido_lease lease, const char *sql, const struct lido_pg_query_options *options, int wanted,
                     struct lido_pg_copy **ret_copy)
{
        struct lido_pg_query_options ours;
        struct lido_pg_copy *copy;
        int rc = sized_take(&ours, sizeof ours, options);

        if (rc != LIDO_OK)
                return rc;
        if (!sql || !ret_copy || !lease_options_are_valid(&ours))
                return LIDO_EINVAL;
        if (ours.server_timeout)
                return LIDO_ENOTSUP;
        rc = lease_check(lease);
        if (rc != LIDO_OK)
                return rc;
        copy = mem_zalloc(sizeof *copy);
        if (!copy)
                return LIDO_ENOMEM;
        copy->lease = lease;
        copy->session = lido_object(lease);
        copy->conn = copy->session ? copy->session->conn : NULL;
        copy->wanted = wanted;
        copy->error = ours.error;
        copy->deadline_ns = clock_deadline(ours.timeout_ms);
        rc = start(copy, sql);
        if (rc == LIDO_OK)
                *ret_copy = copy;
        else
                lido_pg_copy_close(copy);
        return rc;
}

int lido_pg_copy_in(lido_lease lease, const char *sql, const struct lido_pg_query_options *options,
                    struct lido_pg_copy **ret_copy)
{
        return open_copy(lease, sql, options, WRITING, ret_copy);
}

int lido_pg_copy_out(lido_lease lease, const char *sql, const struct lido_pg_query_options *options,
                     struct lido_pg_copy **ret_copy)
{
        return open_copy(lease, sql, options, READING, ret_copy);
}

/* Is the copy one that can go on like this? */
static int check(struct lido_pg_copy *copy, int stage)
{
        if (!copy || copy->wanted != stage)
                return LIDO_EINVAL;
        if (copy->code == LIDO_OK && !is_mine(copy))
                return fail(copy, LIDO_ESTALE, lido_strerror(LIDO_ESTALE));
        return copy->code;
}

int lido_pg_copy_write(struct lido_pg_copy *copy, const void *bytes, size_t size)
{
        int rc = check(copy, WRITING);

        if (rc == LIDO_OK && (copy->stage != WRITING || (!bytes && size > 0)))
                rc = LIDO_EINVAL;
        if (rc != LIDO_OK)
                return rc;
        for (const char *at = bytes; size > 0;) {
                size_t piece = size < PIECE ? size : PIECE;
                int put = PQputCopyData(copy->conn, at, (int)piece);

                rc = put < 0 ? LIDO_EFACTORY : flush(copy, copy->deadline_ns);
                if (rc != LIDO_OK)
                        return fail_by_libpq(copy, rc);
                if (put == 1) {
                        at += piece;
                        size -= piece;
                }
        }
        return LIDO_OK;
}

int lido_pg_copy_end(struct lido_pg_copy *copy, uint64_t *ret_rows)
{
        int rc = check(copy, WRITING), put;

        if (rc == LIDO_OK && copy->stage != WRITING)
                rc = LIDO_EINVAL;
        if (rc != LIDO_OK)
                return rc;
        do {
                put = PQputCopyEnd(copy->conn, NULL);
                rc = put < 0 ? LIDO_EFACTORY : flush(copy, copy->deadline_ns);
                if (rc != LIDO_OK)
                        return fail_by_libpq(copy, rc);
        } while (put == 0);
        copy->stage = ENDING;
        rc = read_results(copy, copy->deadline_ns);
        if (rc == LIDO_EDEADLINE)
                lido_pg_cancel(copy->lease, 0);
        if (rc != LIDO_OK)
                return fail_by_libpq(copy, rc);
        if (copy->code == LIDO_OK && ret_rows)
                *ret_rows = copy->rows;
        return copy->code;
}

int lido_pg_copy_read(struct lido_pg_copy *copy, const char **ret_bytes, size_t *ret_size)
{
        int rc = check(copy, READING), length;

        if (rc != LIDO_OK || copy->stage == OVER)
                return rc;
        if (!ret_bytes || !ret_size)
                return LIDO_EINVAL;
        PQfreemem(copy->row);
        copy->row = NULL;
        while ((length = PQgetCopyData(copy->conn, &copy->row, 1)) == 0) {
                rc = work_has_pending(copy->conn) ? LIDO_OK : wait_for_socket(copy->conn, false, copy->deadline_ns);
                if (rc == LIDO_EDEADLINE)
                        lido_pg_cancel(copy->lease, 0);
                if (rc != LIDO_OK)
                        return fail(copy, rc, "the COPY was not done by its deadline");
                if (!PQconsumeInput(copy->conn)) {
                        copy->stage = ENDING;
                        return fail_by_libpq(copy, LIDO_EFACTORY);
                }
        }
        if (length > 0) {
                *ret_bytes = copy->row;
                *ret_size = (size_t)length;
                return 1;
        }
        copy->stage = ENDING;
        rc = read_results(copy, copy->deadline_ns);
        return rc == LIDO_OK ? copy->code : fail_by_libpq(copy, rc);
}

void lido_pg_copy_close(struct lido_pg_copy *copy)
{
        if (!copy)
                return;
        leave(copy);
        PQfreemem(copy->row);
        mem_free(copy);
}
