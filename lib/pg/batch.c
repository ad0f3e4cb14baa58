/* pg/batch.c - one statement with many sets of parameters, on a lease, by pipeline: one round trip for as many as fit.
 *
 * Each set has a Sync of its own, and so a transaction and an error of its own, unless the caller wants all or nothing: then there is
 * one Sync, after the last. In a transaction that is open already, the first that fails fails the rest. The statement is prepared
 * without a name, in the same flight, so there is nothing that could be stale or would have to be dropped.
 *
 * What is under way is bounded, and answers are read while statements are sent; otherwise server and client could each wait for
 * the other to read.
 */
#include "lido/pg.h"

#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/sized.h"
#include "pg/failure.h"
#include "pg/lease.h"
#include "pg/params.h"
#include "pg/session.h"
#include "pg/wait.h"
#include "pg/work.h"

#define UNDER_WAY_MOST 256 /* items sent and not answered */

struct batch {
        lido_lease lease;
        struct pg_session *session;
        PGconn *conn;
        struct params_statement statement;
        struct lido_pg_item *items;
        uint32_t count;
        uint32_t sent, answered; /* items */
        uint32_t syncs;          /* still to come in */
        bool is_atomic;
        bool is_leading;         /* the answer to the Prepare has not come in */
        bool is_unsent;
        bool expects_sync;       /* an error is that of the commit */
        uint64_t deadline_ns;
        int code;                /* LIDO_OK until something has failed */
        struct lido_error error; /* the first */
};

static int fail(struct batch *batch, int code, const char *text)
{
        if (batch->code == LIDO_OK)
                failure_set(&batch->error, code, LIDO_FAILURE_TRANSIENT, text);
        batch->code = code;
        return code;
}

static int fail_by_libpq(struct batch *batch)
{
        return fail(batch, LIDO_EFACTORY, PQerrorMessage(batch->conn));
}

static int read_some(struct batch *batch);

/* What the server said before it hung up says more than that it did. */
static int fail_sending(struct batch *batch)
{
        work_consume(batch->conn);
        (void)read_some(batch);
        return fail_by_libpq(batch); /* unless that was told already */
}

/* ---- sending ----------------------------------------------------------------------------------------------- */

static bool sync(struct batch *batch)
{
        if (!PQpipelineSync(batch->conn))
                return false;
        batch->session->syncs = ++batch->syncs;
        return true;
}

static int send_item(struct batch *batch)
{
        int sent;

        batch->statement.params = batch->items[batch->sent].params;
        sent = params_send(batch->conn, &batch->statement);
        if (sent < 0)
                return fail(batch, LIDO_ENOMEM, "out of memory");
        if (sent == 0)
                return fail_sending(batch);
        batch->sent++;
        if ((!batch->is_atomic || batch->sent == batch->count) && !sync(batch))
                return fail_sending(batch);
        return LIDO_OK;
}

static bool has_room(const struct batch *batch)
{
        return !batch->is_unsent && batch->sent < batch->count && batch->sent - batch->answered < UNDER_WAY_MOST;
}

/* As much as may be under way. */
static int send_some(struct batch *batch)
{
        int rc = LIDO_OK;

        if (batch->is_unsent)
                batch->is_unsent = PQflush(batch->conn) == 1; /* that it fails is told by what is read */
        while (rc == LIDO_OK && has_room(batch)) {
                rc = send_item(batch);
                batch->is_unsent = PQflush(batch->conn) == 1;
        }
        return rc;
}

/* ---- reading ----------------------------------------------------------------------------------------------- */

static void note_error(struct batch *batch, const PGresult *result)
{
        if (batch->code == LIDO_OK)
                failure_from_result(&batch->error, result);
        batch->code = LIDO_EFACTORY;
}

static void take_answer(struct batch *batch, PGresult *result)
{
        struct lido_pg_item *item = &batch->items[batch->answered];

        if (item->result) { /* after a FATAL, libpq adds an error of its own */
                PQclear(result);
                return;
        }
        item->result = result;
        switch (PQresultStatus(result)) {
        case PGRES_COMMAND_OK:
        case PGRES_TUPLES_OK:
        case PGRES_EMPTY_QUERY:
                item->status = LIDO_OK;
                break;
        case PGRES_PIPELINE_ABORTED:
                item->status = LIDO_ECANCELED;
                break;
        default:
                item->status = LIDO_EFACTORY;
                note_error(batch, result);
        }
}

/* An item was done, and then its transaction could not be committed. */
static void take_late_error(struct batch *batch, PGresult *result)
{
        struct lido_pg_item *item = &batch->items[batch->answered - 1];

        PQclear(item->result);
        item->result = result;
        item->status = LIDO_EFACTORY;
        note_error(batch, result);
}

/* NULL ends the results of an item. */
static int take_end(struct batch *batch)
{
        if (PQstatus(batch->conn) != CONNECTION_OK && PQtransactionStatus(batch->conn) == PQTRANS_UNKNOWN)
                return fail_by_libpq(batch); /* the Sync will never come */
        if (batch->is_leading || batch->answered == batch->sent || !batch->items[batch->answered].result)
                return LIDO_OK;
        batch->answered++;
        batch->expects_sync = !batch->is_atomic || batch->answered == batch->count;
        return LIDO_OK;
}

static void take_sync(struct batch *batch)
{
        if (batch->syncs > 0)
                batch->syncs--;
        batch->session->syncs = batch->syncs;
        batch->is_leading = batch->expects_sync = false;
}

static int take(struct batch *batch, PGresult *result)
{
        ExecStatusType status = PQresultStatus(result);

        session_see(batch->session, result);
        if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH) {
                PQclear(result);
                return fail(batch, LIDO_EINVAL, "COPY is done by lido_pg_copy_in and lido_pg_copy_out");
        }
        if (status == PGRES_FATAL_ERROR && batch->expects_sync) {
                take_late_error(batch, result);
                return LIDO_OK;
        }
        if (!batch->is_leading && status != PGRES_PIPELINE_SYNC && batch->answered < batch->sent) {
                take_answer(batch, result);
                return LIDO_OK;
        }
        if (status == PGRES_PIPELINE_SYNC)
                take_sync(batch);
        else if (status == PGRES_FATAL_ERROR)
                note_error(batch, result); /* it could not be prepared: each item will say that it is not */
        PQclear(result);
        return LIDO_OK;
}

static bool is_done(const struct batch *batch)
{
        return batch->answered == batch->count && batch->syncs == 0;
}

/* Returns: LIDO_OK when there is nothing more to read now. */
static int read_some(struct batch *batch)
{
        int rc = LIDO_OK;

        while (rc == LIDO_OK && !is_done(batch) && (batch->answered < batch->sent || batch->syncs > 0) &&
               !PQisBusy(batch->conn)) {
                PGresult *result = PQgetResult(batch->conn);

                rc = result ? take(batch, result) : take_end(batch);
        }
        return rc;
}

/* ---- all of it --------------------------------------------------------------------------------------------- */

static int pump(struct batch *batch)
{
        while (!is_done(batch)) {
                int rc = send_some(batch);

                if (rc == LIDO_OK)
                        rc = read_some(batch);
                if (rc != LIDO_OK)
                        return rc;
                if (is_done(batch) || has_room(batch))
                        continue;
                rc = wait_for_socket(batch->conn, batch->is_unsent, batch->deadline_ns);
                if (rc == LIDO_EDEADLINE)
                        return fail(batch, rc, "the batch was not done by its deadline");
                if (rc != LIDO_OK || (!work_consume(batch->conn) && PQisBusy(batch->conn)))
                        return fail_sending(batch);
        }
        return LIDO_OK;
}

/* The types that the items agree upon. Returns: NULL when there is no memory; *ret_agree. */
static Oid *find_types(const struct batch *batch, bool *ret_agree)
{
        uint32_t count = batch->statement.count;
        Oid *types = mem_zalloc(count > 0 ? count * sizeof *types : 1);

        *ret_agree = true;
        for (uint32_t item = 0; types && item < batch->count; item++)
                for (uint32_t i = 0; i < count; i++) {
                        Oid type = batch->items[item].params[i].type;

                        if (types[i] == 0)
                                types[i] = type;
                        else if (type != 0 && type != types[i])
                                *ret_agree = false;
                }
        return types;
}

static int begin(struct batch *batch)
{
        bool do_agree, is_sent;
        Oid *types = find_types(batch, &do_agree);
        int rc = !types ? fail(batch, LIDO_ENOMEM, "out of memory")
                        : do_agree ? LIDO_OK : fail(batch, LIDO_EINVAL, "the items have parameters of different types");

        if (rc == LIDO_OK) {
                is_sent = PQsetnonblocking(batch->conn, 1) == 0 && PQenterPipelineMode(batch->conn) &&
                          PQsendPrepare(batch->conn, "", batch->statement.sql, (int)batch->statement.count, types) && sync(batch);
                batch->is_unsent = batch->is_leading = true;
                if (!is_sent)
                        rc = fail_by_libpq(batch);
                if (!is_sent)
                        lease_give_up(batch->lease);
        }
        mem_free(types);
        return rc;
}

/* Without an answer, an item that was sent may have been done or not. All or nothing: if one has failed, nothing was done. */
static void settle(struct batch *batch)
{
        for (uint32_t i = 0; i < batch->count; i++) {
                struct lido_pg_item *item = &batch->items[i];

                if (!item->result)
                        item->status = i < batch->sent ? LIDO_EUNKNOWN : LIDO_ECANCELED;
                else if (batch->is_atomic && batch->code != LIDO_OK && item->status == LIDO_OK)
                        item->status = is_done(batch) ? LIDO_ECANCELED : LIDO_EUNKNOWN;
        }
}

static void run(struct batch *batch)
{
        int rc = begin(batch);

        if (rc == LIDO_OK) {
                rc = pump(batch);
                if (rc == LIDO_OK && (!PQexitPipelineMode(batch->conn) || PQsetnonblocking(batch->conn, 0) != 0))
                        rc = fail_by_libpq(batch);
                if (rc == LIDO_EDEADLINE)
                        lido_pg_cancel(batch->lease, 0); /* the pool reads off what is under way */
                else if (rc != LIDO_OK)
                        lease_give_up(batch->lease);
        }
        settle(batch);
}

static int check(const struct batch *batch)
{
        int rc = lease_check(batch->lease);

        if (rc != LIDO_OK)
                return rc;
        if (!batch->statement.sql || (batch->count > 0 && !batch->items) || batch->deadline_ns == 0)
                return LIDO_EINVAL;
        for (uint32_t i = 0; i < batch->count; i++)
                if (!params_are_valid(batch->items[i].params, batch->statement.count))
                        return LIDO_EINVAL;
        return LIDO_OK;
}

static int start(struct batch *batch)
{
        batch->session = lido_object(batch->lease);
        batch->conn = batch->session ? batch->session->conn : NULL;
        if (!batch->conn)
                return fail(batch, LIDO_EFACTORY, "the connection is lost");
        if (PQtransactionStatus(batch->conn) == PQTRANS_ACTIVE || PQpipelineStatus(batch->conn) != PQ_PIPELINE_OFF)
                return fail(batch, LIDO_EBUSY, "the connection has results of another statement to give");
        run(batch);
        return batch->code;
}

int lido_pg_batch(lido_lease lease, const char *sql, uint32_t param_count, struct lido_pg_item *items, uint32_t item_count,
                  const struct lido_pg_batch_options *options)
{
        struct lido_pg_batch_options ours;
        struct batch batch = { .lease = lease, .items = items, .count = item_count };
        int rc = sized_take(&ours, sizeof ours, options);

        if (rc != LIDO_OK)
                return rc;
        if (ours.timeout_ms < LIDO_NEVER || ours.result_format < 0 || ours.result_format > 1 || ours.atomic > 1)
                return LIDO_EINVAL;
        batch.statement = (struct params_statement){ .name = "", .sql = sql, .count = param_count,
                                                     .result_format = ours.result_format };
        batch.is_atomic = ours.atomic == 1;
        batch.deadline_ns = clock_deadline(ours.timeout_ms);
        rc = check(&batch);
        if (rc != LIDO_OK)
                return rc;
        for (uint32_t i = 0; i < item_count; i++) {
                items[i].result = NULL;
                items[i].status = LIDO_ECANCELED;
        }
        rc = item_count > 0 ? start(&batch) : LIDO_OK;
        if (rc != LIDO_OK && ours.error)
                *ours.error = batch.error;
        return rc;
}

void lido_pg_items_clear(struct lido_pg_item *items, uint32_t item_count)
{
        for (uint32_t i = 0; items && i < item_count; i++) {
                PQclear(items[i].result);
                items[i].result = NULL;
        }
}
