#include "pg/lease.h"

#include <string.h>

#include "base/clock.h"
#include "pg/cancel.h"
#include "pg/failure.h"
#include "pg/pool.h"
#include "pg/session.h"
#include "pg/wait.h"
#include "pg/work.h"

#define READ_OFF_MS 500 /* so long the rest of a statement may take to come */
#define CANCEL_MS 5000  /* and so long the end of one that has been cancelled */

int lease_check(lido_lease lease)
{
        struct lido_pool *pool = lido_lease_pool(lease);

        if (!pool)
                return LIDO_ESTALE;
        return pool_is_pg(pool) ? LIDO_OK : LIDO_EFOREIGN;
}

bool lease_options_are_valid(const struct lido_pg_query_options *options)
{
        return options->timeout_ms >= LIDO_NEVER && options->result_format >= 0 && options->result_format <= 1 &&
               options->prepare >= LIDO_PG_PREPARE_DEFAULT && options->prepare <= LIDO_PG_PREPARE_AT_ONCE &&
               options->server_timeout <= 1;
}

enum ask_want lease_be_late(lido_lease lease, struct ask *ask)
{
        if (!ask->tells_server)
                lido_pg_cancel(lease, 0);
        return ask_fail(ask, LIDO_EDEADLINE, "the statement was not done by its deadline");
}

enum ask_want lease_await(lido_lease lease, struct ask *ask, uint64_t deadline_ns, PGresult **ret_result)
{
        for (;;) {
                enum ask_want want = ask_next(ask, ret_result);
                int rc;

                if (want == ASK_FAILED)
                        ask_judge_lateness(ask, deadline_ns);
                if (want != ASK_READ && want != ASK_READ_WRITE)
                        return want;
                rc = wait_for_socket(ask->conn, want == ASK_READ_WRITE, deadline_ns);
                if (rc == LIDO_EDEADLINE)
                        return lease_be_late(lease, ask);
                if (rc != LIDO_OK)
                        return ask_fail(ask, rc, "the connection is lost");
                ask_ready(ask);
        }
}

/* Returns: true when all results have come in. */
static bool read_off(struct ask *ask, size_t budget, int64_t timeout_ms)
{
        uint64_t until_ns = clock_after_ms(clock_now_ns(), timeout_ms);

        while (!ask_is_over(ask)) {
                PGresult *result;
                enum ask_want want = ask_next(ask, &result);
                size_t size = 0;

                if (want == ASK_RESULT) {
                        size = PQresultMemorySize(result);
                        PQclear(result);
                } else if (want == ASK_READ || want == ASK_READ_WRITE) {
                        if (wait_for_socket(ask->conn, want == ASK_READ_WRITE, until_ns) != LIDO_OK)
                                return false;
                        ask_ready(ask);
                } else {
                        break;
                }
                if (size > budget)
                        return false;
                budget -= size;
        }
        return ask_is_over(ask);
}

void lease_give_up(lido_lease lease)
{
        struct pg_session *session = lido_object(lease);

        if (session)
                session->is_evicted = true;
}

void lease_leave(lido_lease lease, struct ask *ask)
{
        struct pg_session *session = ask->session;
        bool is_cancelled = ask->error.code == LIDO_EDEADLINE;

        if (!session || lido_object(lease) != session || !session->conn || /* taken back by the pool */
            ask->error.code == LIDO_EBUSY)                                 /* the connection is another statement's */
                return;
        ask_stop(ask);
        if (!is_cancelled && !read_off(ask, session->options->given.drain_bytes, READ_OFF_MS))
                is_cancelled = lido_pg_cancel(lease, CANCEL_MS) == LIDO_OK;
        if (!ask_is_over(ask) && is_cancelled)
                read_off(ask, SIZE_MAX, CANCEL_MS);
        if (!ask_is_over(ask) || PQsetnonblocking(session->conn, 0) != 0 ||
            !cancels_settle(session, clock_after_ms(clock_now_ns(), CANCEL_MS)))
                lease_give_up(lease);
}

int lease_run(lido_lease lease, const char *sql, uint64_t deadline_ns, struct lido_error *ret_error)
{
        struct question question = { .sql = sql, .is_simple = true, .deadline_ns = deadline_ns };
        PGresult *result;
        struct ask ask;
        enum ask_want want;

        ask_start(&ask, lido_object(lease), &question);
        while ((want = lease_await(lease, &ask, deadline_ns, &result)) == ASK_RESULT)
                PQclear(result);
        if (want == ASK_FAILED)
                *ret_error = ask.error;
        lease_leave(lease, &ask);
        return want == ASK_DONE ? LIDO_OK : ask.error.code;
}
