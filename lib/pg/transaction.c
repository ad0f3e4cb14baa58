/* pg/transaction.c - transactions: on a lease, or as a function that is called again when the server asks for that.
 *
 * Two errors mean "once more": 40001, serialization failure, and 40P01, deadlock detected. They are known of the session, whoever
 * sees them, so the function may also talk to libpq itself. Nothing is rolled back here: the lease is given back with its
 * transaction open, and the pool's reset undoes it off this thread.
 *
 * A COMMIT whose answer does not come has an outcome that nobody knows. That is said by a code of its own, and never
 * tried again. It is the one thing about which it matters whether the connection was lost before something was sent, so that
 * is looked for first.
 */
#include "lido/pg.h"

#include <stdio.h>
#include <string.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "base/park.h"
#include "base/random.h"
#include "base/sized.h"
#include "pg/failure.h"
#include "pg/lease.h"
#include "pg/pool.h"
#include "pg/session.h"
#include "pg/work.h"

#define ATTEMPTS 10
#define BACKOFF_MIN_MS 2
#define BACKOFF_MAX_MS 250

typedef struct lido_pg_transaction_options options_of;

static int tell(struct lido_error *to, int code, const char *sqlstate, const char *text)
{
        if (to) {
                failure_set(to, code, LIDO_FAILURE_TRANSIENT, text);
                snprintf(to->sqlstate, sizeof to->sqlstate, "%s", sqlstate);
        }
        return code;
}

static int take_in(options_of *ours, const options_of *theirs)
{
        int rc = sized_take(ours, sizeof *ours, theirs);

        if (rc != LIDO_OK)
                return rc;
        if (ours->isolation < LIDO_PG_ISOLATION_DEFAULT || ours->isolation > LIDO_PG_SERIALIZABLE || ours->read_only > 1 ||
            ours->deferrable > 1 || ours->server_timeout > 1 || ours->timeout_ms < LIDO_NEVER || ours->backoff_min_ms < 0 ||
            ours->backoff_max_ms < 0)
                return LIDO_EINVAL;
        if (ours->attempts == 0)
                ours->attempts = ATTEMPTS;
        if (ours->backoff_min_ms == 0)
                ours->backoff_min_ms = BACKOFF_MIN_MS;
        if (ours->backoff_max_ms == 0)
                ours->backoff_max_ms = BACKOFF_MAX_MS;
        return ours->backoff_max_ms >= ours->backoff_min_ms ? LIDO_OK : LIDO_EINVAL;
}

/* ---- begin, commit, roll back ------------------------------------------------------------------------------ */

static void write_begin(char *sql, size_t size, const options_of *options, uint64_t deadline_ns)
{
        static const char *const levels[] = { "", " ISOLATION LEVEL READ COMMITTED", " ISOLATION LEVEL REPEATABLE READ",
                                              " ISOLATION LEVEL SERIALIZABLE" };
        int used = snprintf(sql, size, "BEGIN%s%s%s", levels[options->isolation], options->read_only ? " READ ONLY" : "",
                            options->deferrable ? " DEFERRABLE" : "");

        if (options->server_timeout && deadline_ns != CLOCK_NEVER) {
                int64_t left = clock_timeout_ms(deadline_ns);

                snprintf(sql + used, size - (size_t)used, ";SET LOCAL statement_timeout=%d",
                         left < INT32_MAX ? (int)left : INT32_MAX);
        }
}

static int begin(lido_lease lease, const options_of *options, uint64_t deadline_ns)
{
        struct pg_session *session = lido_object(lease);
        struct lido_error error;
        unsigned dirt;
        char sql[160];
        int rc;

        if (!session || !session->conn)
                return tell(options->error, session ? LIDO_EFACTORY : LIDO_ESTALE, "", "the connection is lost");
        if (PQtransactionStatus(session->conn) == PQTRANS_INTRANS || PQtransactionStatus(session->conn) == PQTRANS_INERROR)
                return tell(options->error, LIDO_EBUSY, "25001", "a transaction is open already");
        dirt = session->dirt;
        session->has_conflict = false;
        write_begin(sql, sizeof sql, options, deadline_ns);
        rc = lease_run(lease, sql, deadline_ns, &error);
        if (lido_object(lease) == session)
                session->dirt = dirt; /* SET LOCAL ends with the transaction */
        if (rc != LIDO_OK && options->error)
                *options->error = error;
        return rc;
}

int lido_pg_begin(lido_lease lease, const struct lido_pg_transaction_options *options)
{
        options_of ours;
        int rc = take_in(&ours, options);

        if (rc == LIDO_OK)
                rc = lease_check(lease);
        return rc == LIDO_OK ? begin(lease, &ours, clock_deadline(ours.timeout_ms)) : rc;
}

/* Has the server hung up already? Then nothing that is sent now is ever done. */
static bool is_gone(struct pg_session *session)
{
        enum lido_peek peek = session_peek(session);

        if (peek == LIDO_PEEK_CHECK && work_consume(session->conn))
                PQisBusy(session->conn); /* takes in what has been read */
        return peek == LIDO_PEEK_DEAD || session->is_lost || PQstatus(session->conn) != CONNECTION_OK;
}

/* An error that the server reports of a COMMIT means that nothing was committed; but not one with which it hangs up. */
static bool is_outcome_known(const struct pg_session *session, const struct lido_error *error)
{
        return error->sqlstate[0] != '\0' && error->code == LIDO_EFACTORY && session->conn && !session->is_lost &&
               PQstatus(session->conn) == CONNECTION_OK;
}

static int send_commit(lido_lease lease, struct pg_session *session, uint64_t deadline_ns, struct lido_error *ret_error)
{
        struct question question = { .sql = "COMMIT", .is_simple = true, .deadline_ns = deadline_ns };
        bool is_committed = false;
        PGresult *result;
        struct ask ask;
        enum ask_want want;

        ask_start(&ask, session, &question);
        ask.tells_server = true; /* nobody is to cancel it */
        while ((want = lease_await(lease, &ask, deadline_ns, &result)) == ASK_RESULT) {
                is_committed = strcmp(PQcmdStatus(result), "COMMIT") == 0;
                PQclear(result);
        }
        if (want == ASK_FAILED && ask.error.code == LIDO_EBUSY)
                return tell(ret_error, LIDO_EBUSY, "", ask.error.text);
        if (want == ASK_FAILED && !is_outcome_known(session, &ask.error))
                return tell(ret_error, LIDO_EUNKNOWN, ask.error.sqlstate, ask.error.text);
        lease_leave(lease, &ask);
        if (want == ASK_FAILED && ret_error)
                *ret_error = ask.error;
        if (want == ASK_FAILED)
                return LIDO_EFACTORY;
        return is_committed ? LIDO_OK : tell(ret_error, LIDO_EFACTORY, "25P02", "a statement of the transaction has failed");
}

static int commit(lido_lease lease, uint64_t deadline_ns, struct lido_error *ret_error)
{
        struct pg_session *session = lido_object(lease);

        if (!session)
                return tell(ret_error, LIDO_ESTALE, "", lido_strerror(LIDO_ESTALE));
        if (!session->conn || is_gone(session))
                return tell(ret_error, LIDO_EFACTORY, session->sqlstate, "the connection was lost before the end of the transaction");
        if (PQtransactionStatus(session->conn) == PQTRANS_IDLE)
                return tell(ret_error, LIDO_EINVAL, "25P01", "there is no transaction to commit");
        return send_commit(lease, session, deadline_ns, ret_error);
}

int lido_pg_commit(lido_lease lease, int64_t timeout_ms, struct lido_error *ret_error)
{
        int rc = timeout_ms < LIDO_NEVER ? LIDO_EINVAL : lease_check(lease);

        return rc == LIDO_OK ? commit(lease, clock_deadline(timeout_ms), ret_error) : rc;
}

int lido_pg_rollback(lido_lease lease, int64_t timeout_ms, struct lido_error *ret_error)
{
        struct lido_error error;
        int rc = timeout_ms < LIDO_NEVER ? LIDO_EINVAL : lease_check(lease);

        if (rc != LIDO_OK)
                return rc;
        rc = lease_run(lease, "ROLLBACK", clock_deadline(timeout_ms), &error);
        if (rc != LIDO_OK && ret_error)
                *ret_error = error;
        return rc;
}

/* ---- a function, once or more ------------------------------------------------------------------------------ */

/* What the function has left: commit it if it can be. *ret_must_repeat: the server asks for another attempt. */
static int conclude(lido_lease lease, int rc, const options_of *options, uint64_t deadline_ns, bool *ret_must_repeat)
{
        struct pg_session *session = lido_object(lease);
        PGTransactionStatusType state = session && session->conn ? PQtransactionStatus(session->conn) : PQTRANS_UNKNOWN;

        if (rc == LIDO_OK && session && state == PQTRANS_IDLE)
                return LIDO_OK; /* the function has ended it */
        if (state == PQTRANS_INERROR && session->has_conflict && rc != LIDO_ECANCELED) {
                *ret_must_repeat = true;
                return tell(options->error, LIDO_EFACTORY, "40001", "the transaction conflicts with others again and again");
        }
        if (rc != LIDO_OK)
                return rc;
        if (state == PQTRANS_INERROR)
                return tell(options->error, LIDO_EFACTORY, "25P02", "a statement of the transaction has failed");
        rc = commit(lease, deadline_ns, options->error);
        *ret_must_repeat = rc == LIDO_EFACTORY && session && !session->is_lost && session->has_conflict;
        return rc;
}

static int attempt(struct lido_pool *pool, const options_of *options, uint64_t deadline_ns, lido_pg_transaction_fn *fn,
                   void *context, bool *ret_must_repeat)
{
        struct lido_acquire_options acquire = LIDO_ACQUIRE_OPTIONS_INIT;
        lido_lease lease;
        int rc;

        acquire.timeout_ms = options->timeout_ms ? clock_timeout_ms(deadline_ns) : LIDO_TIMEOUT_DEFAULT;
        acquire.tag = options->tag;
        acquire.site = "lido_pg_transaction";
        rc = lido_acquire_with(pool, &acquire, &lease);
        if (rc != LIDO_OK)
                return tell(options->error, rc, "", lido_strerror(rc));
        rc = begin(lease, options, deadline_ns);
        if (rc == LIDO_OK)
                rc = conclude(lease, fn(lease, context), options, deadline_ns, ret_must_repeat);
        lido_release_at(lease, "lido_pg_transaction");
        return rc;
}

/* A pause with jitter, so that those who have met do not meet again. Returns: false when there is no time left for it. */
static bool back_off(const options_of *options, uint32_t attempts, uint64_t deadline_ns, struct random *random)
{
        uint32_t doublings = attempts - 1 < 32 ? attempts - 1 : 32;
        uint64_t most = (uint64_t)options->backoff_min_ms << doublings, until_ns;
        _Atomic uint32_t never = 0;

        if (most > (uint64_t)options->backoff_max_ms)
                most = (uint64_t)options->backoff_max_ms;
        until_ns = clock_now_ns() + random_below(random, most * NS_PER_MS);
        if (until_ns >= deadline_ns)
                return false;
        while (park_wait(&never, 0, until_ns))
                continue;
        return true;
}

int lido_pg_transaction(struct lido_pool *pool, const struct lido_pg_transaction_options *options, lido_pg_transaction_fn *fn,
                        void *context)
{
        struct random random = { random_seed() };
        options_of ours;
        uint64_t deadline_ns;
        int rc = take_in(&ours, options);

        if (rc != LIDO_OK || !pool || !fn)
                return rc != LIDO_OK ? rc : LIDO_EINVAL;
        if (!pool_is_pg(pool))
                return LIDO_EFOREIGN;
        deadline_ns = clock_deadline(ours.timeout_ms);
        for (uint32_t attempts = 1;; attempts++) {
                bool must_repeat = false;

                rc = attempt(pool, &ours, deadline_ns, fn, context, &must_repeat);
                if (!must_repeat || attempts >= ours.attempts || !back_off(&ours, attempts, deadline_ns, &random))
                        return rc;
        }
}
