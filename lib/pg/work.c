#include "pg/work.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "base/atomic.h"
#include "pg/failure.h"

typedef int pending_function(const void *ssl);

/* OpenSSL's own count of bytes that it holds decrypted. libpq does not tell, and we do not link OpenSSL. */
static pending_function *find_ssl_pending(void)
{
        static _Atomic(pending_function *) known;
        pending_function *found = load_relaxed(&known);

        if (!found) {
                *(void **)&found = dlsym(RTLD_DEFAULT, "SSL_pending");
                store_relaxed(&known, found);
        }
        return found;
}

bool work_has_pending(PGconn *conn)
{
        void *ssl = PQsslStruct(conn, "OpenSSL");
        pending_function *pending = ssl ? find_ssl_pending() : NULL;

        return pending && pending(ssl) > 0;
}

uint64_t work_affected(PGresult *result)
{
        return strtoull(PQcmdTuples(result), NULL, 10);
}

/* Read what there is. libpq before 15.20 may leave TLS records beyond 8 KiB inside OpenSSL, where poll cannot see them. */
bool work_consume(PGconn *conn)
{
        void *ssl = PQsslStruct(conn, "OpenSSL");
        pending_function *pending = ssl ? find_ssl_pending() : NULL;

        do
                if (!PQconsumeInput(conn))
                        return false;
        while (pending && PQisBusy(conn) && PQsslStruct(conn, "OpenSSL") == ssl && pending(ssl) > 0);
        return true;
}

void work_start(struct work *work, PGconn *conn, const char *const *steps, size_t drain_bytes)
{
        memset(work, 0, sizeof *work);
        work->conn = conn;
        work->steps = steps;
        work->budget = drain_bytes;
        work->is_draining = PQtransactionStatus(conn) == PQTRANS_ACTIVE;
        work->is_asked = work->is_draining;
        if (!PQisnonblocking(conn) && PQsetnonblocking(conn, 1) != 0)
                work->is_failed = true;
}

/* A failure for good; keeps an earlier error. */
static enum work_want fail(struct work *work, const char *text)
{
        work->is_failed = true;
        if (work->error.code == LIDO_OK) {
                failure_from_text(&work->error, text);
                work->error.code = LIDO_EFACTORY;
        }
        return WORK_FAILED;
}

static bool spend(struct work *work, size_t bytes)
{
        if (bytes > work->budget)
                return false;
        work->budget -= bytes;
        return true;
}

/* Errors in what the borrower left are no failure of ours, but the end of the session is. */
static void note_error(struct work *work, const PGresult *result)
{
        const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);

        if (work->error.code != LIDO_OK || (work->is_draining && !failure_is_end(result)))
                return;
        if (work->forgives_cancel && state && strcmp(state, "57014") == 0) { /* a cancel request that came late */
                work->forgives_cancel = false;
                work->must_repeat = true;
                return;
        }
        failure_from_result(&work->error, result);
        if (failure_is_end(result))
                work->is_failed = true;
}

static size_t row_size(const PGresult *result)
{
        int columns = PQnfields(result);
        size_t size = (size_t)columns;

        for (int column = 0; column < columns; column++)
                size += (size_t)PQgetlength(result, 0, column);
        return size;
}

/* Returns: true when all of the COPY's rows are read. */
static bool read_copy(struct work *work, enum work_want *ret_want)
{
        char *row;
        int length;

        while ((length = PQgetCopyData(work->conn, &row, 1)) > 0 ||
               (length == 0 && work_has_pending(work->conn) && PQconsumeInput(work->conn))) {
                if (length > 0)
                        PQfreemem(row);
                if (!spend(work, (size_t)length)) {
                        *ret_want = fail(work, "the borrower left more of a COPY unread than is worth reading");
                        return false;
                }
        }
        if (length == 0) {
                *ret_want = WORK_READ;
                return false;
        }
        if (length == -2) {
                *ret_want = fail(work, PQerrorMessage(work->conn));
                return false;
        }
        work->is_copy_out = false;
        return true;
}

/* Take in one result. Returns: false when the work has failed. */
static bool take(struct work *work, PGresult *result)
{
        bool is_fine = true;

        if (work->see)
                work->see(work->see_context, result);
        switch (PQresultStatus(result)) {
        case PGRES_COPY_OUT:
                work->is_copy_out = true;
                break;
        case PGRES_COPY_IN:
        case PGRES_COPY_BOTH:
        case PGRES_PIPELINE_SYNC:
                if (work->syncs > 0) {
                        work->syncs--;
                        break;
                }
                /* fall through */
        case PGRES_PIPELINE_ABORTED:
                if (work->syncs > 0)
                        break;
                fail(work, "the session was left in a state that cannot be undone");
                is_fine = false;
                break;
        case PGRES_FATAL_ERROR:
                note_error(work, result);
                break;
        case PGRES_SINGLE_TUPLE:
                if (work->is_draining && !spend(work, row_size(result))) {
                        fail(work, "the borrower left more unread rows than is worth reading");
                        is_fine = false;
                }
                break;
        default:
                break;
        }
        PQclear(result);
        return is_fine;
}

/* Read results until the statement's end. Returns: WORK_DONE at its end. */
static enum work_want read_results(struct work *work)
{
        enum work_want want = WORK_DONE;
        PGresult *result;

        for (;;) {
                if (work->is_copy_out && !read_copy(work, &want))
                        return want;
                if (work->is_draining) /* row by row, for libpq would keep all there are; refused where it is so already */
                        PQsetSingleRowMode(work->conn);
                if (PQisBusy(work->conn))
                        return WORK_READ;
                if (PQpipelineStatus(work->conn) != PQ_PIPELINE_OFF && work->syncs == 0)
                        return PQexitPipelineMode(work->conn) ? WORK_DONE : fail(work, PQerrorMessage(work->conn));
                result = PQgetResult(work->conn);
                if (!result && work->syncs == 0)
                        return WORK_DONE;
                if (!result && (work->nulls++ > 0 || PQstatus(work->conn) != CONNECTION_OK))
                        return fail(work, "a pipeline ended before its Sync");
                if (result)
                        work->nulls = 0;
                if (result && !take(work, result))
                        return WORK_FAILED;
        }
}

static enum work_want finish(struct work *work)
{
        if (work->is_failed || work->error.code != LIDO_OK)
                return fail(work, PQerrorMessage(work->conn));
        if (PQsetnonblocking(work->conn, 0) != 0)
                return fail(work, PQerrorMessage(work->conn));
        return WORK_DONE;
}

enum work_want work_advance(struct work *work)
{
        if (work->is_failed)
                return fail(work, PQerrorMessage(work->conn));
        for (;;) {
                if (work->is_asked) {
                        int flushed = PQflush(work->conn);
                        bool is_read = work_consume(work->conn);
                        enum work_want want = read_results(work); /* a FATAL first, then the loss of the connection */

                        if (want == WORK_FAILED)
                                return want;
                        if (want != WORK_DONE && !is_read)
                                return fail(work, PQerrorMessage(work->conn));
                        if (want != WORK_DONE)
                                return flushed == 1 ? WORK_READ_WRITE : want;
                        work->is_asked = work->is_draining = false;
                        if (work->error.code != LIDO_OK)
                                return finish(work);
                        if (work->must_repeat)
                                work->steps--;
                        work->must_repeat = false;
                }
                if (!*work->steps)
                        return finish(work);
                if (!PQsendQuery(work->conn, *work->steps++))
                        return fail(work, PQerrorMessage(work->conn));
                work->is_asked = true;
        }
}
