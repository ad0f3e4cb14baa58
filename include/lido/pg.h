/* lido/pg.h - PostgreSQL connections in a pool: liblido-pg, which needs libpq.
 *
 * A pool opened here lends PGconn. Connections are opened by connector threads of the pool, never by a borrower
 * and never on an event loop; one that dies in its sleep is noticed and replaced before anybody gets it; what
 * a borrower leaves behind (an open transaction, unread rows, COPY, settings of libpq) is undone after the
 * release, or the connection is closed.
 *
 *      struct lido_pg_options pg = LIDO_PG_OPTIONS_INIT;
 *      pg.conninfo = "host=db1,db2 dbname=shop target_session_attrs=read-write";
 *      lido_pg_pool_open(&pool, service, &pg, NULL);
 *
 *      if (lido_acquire(pool, 1000, &lease) == LIDO_OK) {
 *              PGresult *result = PQexec(lido_pg_conn(lease), "select now()");
 *              ...
 *              PQclear(result);
 *              lido_release(lease);
 *      }
 *
 * Everything else about the pool is lido/pool.h. While a lease lasts, all of libpq may be used on its PGconn but
 * PQfinish and PQreset (a connection that was ended or reset so is closed on return). libpq's own settings,
 * such as the non-blocking flag, the notice hooks or PQtrace, are put back on return.
 */
#ifndef LIDO_PG_H
#define LIDO_PG_H

#include <libpq-fe.h>

#include "lido/pool.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What is undone before a returned connection is lent again; always after the release, on the service's loop. Each level
 * does what the one before it does, and more. libpq's own settings, unread results and an open transaction are undone
 * on every level but NONE. Append only.
 *
 * No level undoes what the server keeps out of DISCARD ALL's reach: libraries loaded, connections of dblink, temporary
 * replication slots, variables of procedural languages. STRICT closes a connection that is seen to use them. What is
 * seen are command tags and, of functions, the few that matter (set_config, setseed, advisory locks, dblink, slots)
 * under the column name that PostgreSQL gives them: a function behind an alias or inside another is not seen. */
enum lido_pg_reset {
        LIDO_PG_RESET_DEFAULT = 0,  /* AUTO */
        LIDO_PG_RESET_NONE = 1,     /* nothing is sent; a connection that is not at rest is closed */
        LIDO_PG_RESET_ROLLBACK = 2, /* settings, temporary tables, LISTEN, locks and prepared statements stay */
        LIDO_PG_RESET_AUTO = 3,     /* what the borrower was seen to change, and nothing sent if that is nothing: settings
                                     * and role, LISTEN, cursors, temporary tables, advisory locks, sequences. Prepared
                                     * statements stay. What is not seen stays */
        LIDO_PG_RESET_FULL = 4,     /* DISCARD ALL after every lease: nothing depends on what is seen */
        LIDO_PG_RESET_STRICT = 5    /* and a new random seed; a connection seen to have gone beyond is closed */
};

/* What an error of the server means for the connection. Append only. */
enum lido_pg_fate {
        LIDO_PG_FATE_DEFAULT = 0, /* as lido judges: keep, but for the SQLSTATEs below */
        LIDO_PG_FATE_KEEP = 1,    /* the statement's own fault */
        LIDO_PG_FATE_EVICT = 2,   /* close it when it returns: FATAL and PANIC, class 08 (connection), XX001 and XX002 (data
                                   * corrupted) */
        LIDO_PG_FATE_SUSPECT = 3, /* check it and every other one of the pool before it is lent again: 57P01 to 57P03 (the
                                   * server is going down), 25006 (it has become read-only; not when it says that it has not,
                                   * for then it was the borrower's own transaction) */
};

/* To which of several hosts the next connection goes, of those that fit (see LIDO_PG_... below). How leases spread over
 * connections is the pool's `order`: with LIDO_ORDER_FIFO idle ones are lent in turn. Append only. */
enum lido_pg_balance {
        LIDO_PG_BALANCE_DEFAULT = 0,     /* ORDER */
        LIDO_PG_BALANCE_ORDER = 1,       /* the first in the list; the next only when it fails */
        LIDO_PG_BALANCE_ROUND_ROBIN = 2, /* each in turn */
        LIDO_PG_BALANCE_LEAST = 3,       /* the one that has the fewest connections of this pool */
        LIDO_PG_BALANCE_NEAREST = 4      /* the one that has answered soonest, of late */
};

struct lido_pg_ask;

/* How connections are made and kept. Zero means the default in every field. Append only. */
struct lido_pg_options {
        size_t size;
        const char *conninfo;         /* as libpq takes it, keywords or URI, several hosts allowed; copied; NULL: what
                                       * the environment says (PGHOST and so on) */
        const char *application_name; /* overrides conninfo's; copied; default: the pool's name, as fallback. Of it, %n is the
                                       * pool's name, %c the number of the connection, %p the process, %h the machine */
        const char *setup;            /* SQL that each new connection runs, and runs again after a reset that undoes it;
                                       * copied; default: none */
        int64_t attempt_timeout_ms;   /* to connect to one address; the pool's open_timeout_ms bounds them all
                                       * together; default: connect_timeout of conninfo, or else 5 s */
        uint32_t connectors;          /* connector threads at most, started when there is work; default 4 */
        int reset;                    /* enum lido_pg_reset */
        uint32_t drain_bytes;         /* so much of unread results is read for the sake of a connection, then it is
                                       * closed; default 1 MiB */
        uint32_t statement_cache;     /* statements that lido_pg_query keeps prepared on each connection; default 100;
                                       * none with a reset of FULL or STRICT, which drops them after every lease */
        uint32_t fat_bytes;           /* libpq never gives back what it needed for the largest row: a connection that
                                       * has seen one of so many bytes is closed on return; default 8 MiB */

        /* Called for each notice or warning of the server, but those that a borrower takes by hooks of their own.
         * On the thread that uses the connection then: a borrower's, a connector's or the loop's. NULL: dropped. */
        void (*on_notice)(const PGresult *notice, void *notice_context);
        void *notice_context;

        /* Judge an error that a borrower got: the answer is of enum lido_pg_fate. It is called inside libpq, on the borrower's
         * thread, and must not use the connection. A FATAL is not to be argued with. NULL: as lido judges. */
        int (*adjudicate)(const char *sqlstate, const PGresult *result, void *adjudicate_context);
        void *adjudicate_context;

        struct lido_error *error; /* lido_pg_pool_open says here what is wrong with the options; may be NULL */

        /* Several hosts: see below. */
        int balance;              /* enum lido_pg_balance */
        uint64_t lag_limit_bytes; /* a standby that has so much of the primary's log still to replay, as far as is known, is
                                   * not lent; default: no limit */
        int64_t host_check_ms;    /* each host is asked for its role so often, over a connection kept for that; default 1 s;
                                   * LIDO_NEVER: roles are learnt from the pool's own connections alone */
        int64_t dns_ttl_ms;       /* the addresses of a name are looked up again after so long; default 15 s */

        /* Asked for name and password before a connect, when none that count are at hand. It must not block: it answers by
         * lido_pg_answer or lido_pg_refuse, at once or later, from any thread, exactly once. On a connector thread, or the
         * service's loop. NULL: what conninfo, the environment and the passfile say. */
        void (*credentials)(struct lido_pg_ask *ask, void *credentials_context);
        void *credentials_context;

        /* 1: connections are opened on the service's loop, step by step, and no thread of ours is used, but for lido_pg_cancel:
         * names are looked up by uv_getaddrinfo, and host_check_ms is LIDO_NEVER. What CPU a log-in costs (SCRAM 4 ms), and
         * libpq's reading of files, is then the loop's. 0: on threads. */
        uint32_t connect_on_loop;
};
#define LIDO_PG_OPTIONS_INIT LIDO_SIZED(lido_pg_options)

/* Open a pool of PostgreSQL connections. NULL options are the defaults.
 * Threads, Blocks: as lido_pool_open. Owns: the pool is the caller's, to be given to lido_pool_free; the options are
 * copied. Returns: as lido_pool_open; LIDO_EINVAL also for a conninfo that libpq cannot parse. */
LIDO_API int lido_pg_pool_open(struct lido_pool **ret_pool, struct lido_service *service,
                               const struct lido_pg_options *pg_options, const struct lido_pool_options *options);

/* Several hosts. conninfo lists them, and target_session_attrs says which of them fit: any, read-write, read-only, primary,
 * standby, prefer-standby. Where that or `balance` or `lag_limit_bytes` is given, the pool keeps an eye on all of them, by a thread
 * and one connection more to each:
 *
 *   - Its connections are to those that fit, and one that fits no more is not lent again, once that is known: after host_check_ms
 *     at most, or by the first error 25006. After a promotion the new primary is found by the next check or attempt, within half
 *     a second of either.
 *   - A server of another cluster is refused (by its system identifier), and so is a primary with an older timeline than another
 *     primary has shown: an old one that returns after a promotion. What the pool has open there is cut off at once, lent
 *     or not, so that nothing is written there any more.
 *   - prefer-standby takes the primary while there is no standby, and moves back over ten seconds when one comes.
 *   - A pool has one role. Who writes here and reads there opens two, perhaps under one budget (lido/budget.h).
 */

/* Take a primary that was refused because it had been replaced: somebody has decided to go back to it. Also after all hosts
 * have become another cluster, one by one.
 * Threads: any. Blocks: no. Owns: nobody. Returns: LIDO_OK; LIDO_EFOREIGN for a pool that is not one of connections;
 * LIDO_EINVAL. */
LIDO_API int lido_pg_forget_past(struct lido_pool *pool);

/* What a pool knows of one of its hosts. */
struct lido_pg_host {
        size_t size;
        const char *host, *port; /* as conninfo lists it, or NULL; valid as long as the pool */
        uint32_t is_known;       /* 1: it has said who it is */
        uint32_t is_down;        /* 1: it did not answer when last asked */
        uint32_t is_standby;
        uint32_t is_read_only;   /* default_transaction_read_only is on */
        uint32_t is_refused;     /* 1: of another cluster, or a primary that was replaced */
        uint32_t fits;           /* 1: its connections may be lent, as far as is known */
        uint32_t connections;    /* of this pool, those being opened too */
        uint32_t timeline;       /* of a primary; 0: not known */
        uint64_t system_id;      /* 0: not known */
        uint64_t lag_bytes;      /* of a standby, behind what the primary is known to have written */
        uint64_t round_trip_ns;  /* smoothed; 0: not measured */
};
#define LIDO_PG_HOST_INIT LIDO_SIZED(lido_pg_host)

/* Read what is known of the host at `index` of the list.
 * Threads: any. Blocks: no. Owns: the struct is the caller's. Returns: LIDO_OK; LIDO_EINVAL when there is no such host, or the
 * pool does not keep an eye on its hosts; LIDO_EFOREIGN; LIDO_E2NEW. */
LIDO_API int lido_pg_host(struct lido_pool *pool, uint32_t index, struct lido_pg_host *host);

/* ---- credentials ----------------------------------------------------------------------------------------- */

/* A question for name and password, the provider's until he answers it. */
struct lido_pg_credentials {
        size_t size;
        const char *user;     /* NULL: conninfo's; copied */
        const char *password; /* NULL: conninfo's; copied, and wiped when it counts no more */
        int64_t valid_ms;     /* so long it counts for further connects; 0: for those that wait for it now; LIDO_NEVER: until
                               * the server refuses it */
};
#define LIDO_PG_CREDENTIALS_INIT LIDO_SIZED(lido_pg_credentials)

/* 1: the server has refused what was given last, or the name. If the answer is refused too, the connect has failed for good.
 * Threads: any, before the answer. Blocks: no. */
LIDO_API int lido_pg_ask_was_refused(const struct lido_pg_ask *ask);

/* Answer. Threads: any, also after the pool is gone. Blocks: no. Owns: the question is lido's again, except on LIDO_EINVAL and
 * LIDO_E2NEW; credentials are copied. Returns: LIDO_OK; LIDO_EINVAL; LIDO_E2NEW; LIDO_ENOMEM. */
LIDO_API int lido_pg_answer(struct lido_pg_ask *ask, const struct lido_pg_credentials *credentials);

/* There is no answer: connects that wait for it fail, with `reason` (copied, a line without secrets; may be NULL), and are tried
 * again as the pool's back-off says.
 * Threads, Blocks, Owns: as lido_pg_answer. Returns: LIDO_OK; LIDO_EINVAL. */
LIDO_API int lido_pg_refuse(struct lido_pg_ask *ask, const char *reason);

/* The credentials have changed: those kept count no more, and every connection is replaced over `over_ms` (LIDO_NEVER: none is)
 * by one with new ones.
 * Threads: any. Blocks: no. Owns: nobody. Returns: as lido_pool_rotate; LIDO_EFOREIGN. */
LIDO_API int lido_pg_credentials_changed(struct lido_pool *pool, int64_t over_ms);

/* The connection of a lease from a pool that lido_pg_pool_open has opened. From the first time on, its results are looked at by
 * a hook of libpq's, so that what the borrower does to the session is known.
 * Threads: the one that uses the connection. Blocks: no. Owns: the borrower may use it until release, from one thread at a time.
 * Returns: the connection; NULL when the lease has ended, or after the borrower has ended the connection itself. */
LIDO_API PGconn *lido_pg_conn(lido_lease lease);

/* End a lease and keep its connection, with libpq's own notice hooks. To be used instead of lido_detach, which would
 * give what wraps it.
 * Threads: any. Blocks: no. Owns: the connection is the caller's, who ends it with PQfinish.
 * Returns: as lido_detach. *ret_conn is written on LIDO_OK only. */
#define lido_pg_detach(lease, ret_conn) lido_pg_detach_at(lease, ret_conn, LIDO_HERE)
LIDO_API int lido_pg_detach_at(lido_lease lease, PGconn **ret_conn, const char *site);

/* Ask the server to cancel what the connection of a lease is doing: the borrower gets an error with SQLSTATE 57014, unless the
 * statement was done before. The request keeps the connection from being lent until the server has taken it, so that it
 * can hit no other borrower, however late it is. With libpq before 17 it travels in clear, also beside a TLS session.
 * Threads: any, beside the borrower; the pool must not be freed meanwhile. Blocks: until the server has taken the request, or for
 * timeout_ms: the request goes on all the same, so 0 asks and does not wait.
 * Owns: nobody. Returns: LIDO_OK when the server has taken it; LIDO_EDEADLINE when not yet; LIDO_EFACTORY when it could not be
 * sent; LIDO_ESTALE when the lease has ended; LIDO_EBUSY while 8 requests are under way; LIDO_EFOREIGN; LIDO_EINVAL;
 * LIDO_ENOMEM; LIDO_ETHREAD. */
LIDO_API int lido_pg_cancel(lido_lease lease, int64_t timeout_ms);

/* Say what went wrong: from a result if there is one, else from the connection (both may be NULL). The text is one
 * line; sqlstate is "" when the failure is libpq's own, such as a connection lost.
 * Threads: the one that uses the connection. Blocks: no. Owns: *ret_error is the caller's.
 * Returns: nothing; code is LIDO_OK when nothing went wrong. */
LIDO_API void lido_pg_error(const PGresult *result, const PGconn *conn, struct lido_error *ret_error);

/* ---- one statement from a thread ------------------------------------------------------------------------- */

/* A parameter, $1 and so on. The functions below make one of a C value; binary values are converted as they are sent. */
struct lido_pg_param {
        const void *value; /* NULL: NULL. Text ends in a NUL; it must live until lido_pg_query returns */
        int length;        /* of a binary value */
        int format;        /* 0 text, 1 binary */
        Oid type;          /* 0: the server infers it */
        uint64_t own;      /* the number, in the server's byte order, where value is NULL and length is not 0 */
};

static inline struct lido_pg_param lido_pg_null(void)
{
        struct lido_pg_param param = { NULL, 0, 0, 0, 0 };
        return param;
}

/* Text, of whatever type the server infers. */
static inline struct lido_pg_param lido_pg_text(const char *text)
{
        struct lido_pg_param param = { NULL, 0, 0, 0, 0 };
        param.value = text;
        return param;
}

static inline struct lido_pg_param lido_pg_bytea(const void *bytes, int length)
{
        struct lido_pg_param param = { NULL, 0, 1, 17, 0 };
        param.value = bytes;
        param.length = length;
        return param;
}

LIDO_API struct lido_pg_param lido_pg_int4(int32_t number);
LIDO_API struct lido_pg_param lido_pg_int8(int64_t number);
LIDO_API struct lido_pg_param lido_pg_float8(double number);
LIDO_API struct lido_pg_param lido_pg_bool(int is_true);

/* The answer to one statement, row by row, in constant memory however many there are. It holds a lease until the last row has
 * been read, or it is closed. */
struct lido_pg_rows;

/* One row. It is valid until the next call on the same rows. */
struct lido_pg_row {
        const PGresult *result; /* for PQgetvalue and its kin */
        int index;              /* of the row in it */
};

/* When a statement is prepared, so that the server need not parse and plan it again. Append only. */
enum lido_pg_prepare {
        LIDO_PG_PREPARE_DEFAULT = 0, /* at its third use on a connection */
        LIDO_PG_PREPARE_NEVER = 1,   /* for one whose plan must fit its parameters, or behind a proxy that cannot */
        LIDO_PG_PREPARE_AT_ONCE = 2
};

/* How one statement is run. Zero means the default in every field. */
struct lido_pg_query_options {
        size_t size;
        int64_t timeout_ms;       /* for all of it: to wait for a connection, and until the last row; default: the pool's
                                   * acquire_timeout_ms to wait, and no limit from then on */
        int result_format;        /* 0 text, 1 binary */
        int prepare;              /* enum lido_pg_prepare */
        const char *tag;          /* as in lido_acquire_options */
        struct lido_error *error; /* what went wrong, with its SQLSTATE; may be NULL; must live until the rows are closed */
        int server_timeout;       /* 1: the server is told of the deadline (statement_timeout), in the same flight, so that it
                                   * ends the statement even if nobody reaches it then. Holds for this statement alone, or, in a
                                   * transaction, until its end; not for what cannot run in one (VACUUM). Default 0 */
};
#define LIDO_PG_QUERY_OPTIONS_INIT LIDO_SIZED(lido_pg_query_options)

/* Lease a connection, run one statement on it, and give its rows one by one. NULL options are the defaults.
 *
 *      struct lido_pg_param params[] = { lido_pg_int4(42) };
 *      if (lido_pg_query(pool, "select name from users where id = $1", params, 1, NULL, &rows) == LIDO_OK) {
 *              while ((rc = lido_pg_next_row(rows, &row)) == 1)
 *                      puts(PQgetvalue(row.result, row.index, 0));
 *              lido_pg_rows_close(rows);
 *      }
 *
 * Threads: any that may wait, so not the service's loop. Blocks: until the server answers or the deadline.
 * Owns: the rows are the caller's, on LIDO_OK only, to be given to lido_pg_rows_close; sql and params may go.
 * Returns: LIDO_OK once the statement has begun to answer; as lido_acquire; LIDO_EFACTORY when the statement failed or the
 * connection was lost: sqlstate in the error; LIDO_EDEADLINE; LIDO_EINVAL; LIDO_ENOMEM; LIDO_EFOREIGN for a pool that is not
 * one of connections. */
LIDO_API int lido_pg_query(struct lido_pool *pool, const char *sql, const struct lido_pg_param *params, uint32_t param_count,
                           const struct lido_pg_query_options *options, struct lido_pg_rows **ret_rows);

/* As lido_pg_query, on a lease of the caller's, who goes on with it once the rows have ended or are closed: so it may be part of a
 * transaction. A row that is not read is read off by lido_pg_rows_close, or, if it does not come at once, the statement is cancelled,
 * which fails its transaction.
 * Threads: the one that uses the connection. Blocks: until the server answers or the deadline. Owns: as lido_pg_query; the lease stays the
 * caller's. Returns: as lido_pg_query; LIDO_EBUSY while the rows of another statement are not closed; LIDO_ESTALE when the lease
 * has ended. */
LIDO_API int lido_pg_query_on(lido_lease lease, const char *sql, const struct lido_pg_param *params, uint32_t param_count,
                              const struct lido_pg_query_options *options, struct lido_pg_rows **ret_rows);

/* The next row.
 * Threads: one at a time. Blocks: until a row has come, or the deadline. Owns: the row is the rows'.
 * Returns: 1 and a row; 0 at the end; LIDO_EFACTORY, LIDO_EDEADLINE as above, for ever from then on. */
LIDO_API int lido_pg_next_row(struct lido_pg_rows *rows, struct lido_pg_row *ret_row);

/* How many rows an INSERT, UPDATE or DELETE has changed, or a SELECT has given so far; known at the end.
 * Threads: one at a time. Blocks: no. Owns: nobody. */
LIDO_API uint64_t lido_pg_affected(const struct lido_pg_rows *rows);

/* Done, perhaps before the last row: what is left is cancelled or dropped after the release, never here.
 * Threads: one at a time. Blocks: no; on a lease of the caller's until the rest is read off or cancelled, some seconds at most: a
 * connection whose statement does not end by then is closed on return.
 * Owns: rows and their last row are gone. Returns: nothing; NULL is allowed. */
LIDO_API void lido_pg_rows_close(struct lido_pg_rows *rows);

/* ---- one statement from a loop ----------------------------------------------------------------------------- */

struct pg_call;

#define LIDO_PG_PAUSE 1 /* what on_row may answer */

/* A statement under way on a libuv loop. The caller provides the memory, clear before its first use, sets the fields before `error`, and
 * leaves it alone until on_done. */
struct lido_pg_call {
        void *data;             /* the caller's */
        struct lido_loop *loop; /* where the callbacks are called (lido/loop.h) */
        lido_lease lease;       /* run it on this one, which is for nothing else meanwhile; all zero: on one of its own, given back before
                                 * on_done is called */

        /* A row has come, valid until this returns. 0: go on. LIDO_PG_PAUSE: no more for now, until lido_pg_call_resume; the server
         * is held back meanwhile. Negative: no more at all, on_done says LIDO_ECANCELED. NULL: on_done gets them all together. */
        int (*on_row)(struct lido_pg_call *call, const struct lido_pg_row *row);

        /* It is over, in exactly one way. The struct is the caller's again, to be used anew or freed. The result, which is given only
         * with LIDO_OK and without on_row, is the caller's, to be given to PQclear. */
        void (*on_done)(struct lido_pg_call *call, int status, PGresult *result);

        struct lido_error error; /* lido's: what went wrong, when status is not LIDO_OK */
        uint64_t affected;       /* lido's: as lido_pg_affected */
        struct pg_call *own;     /* lido's */
};

/* As lido_pg_query or lido_pg_query_on, from a loop, which never waits: not for a connection, not for the server, not for a cancel request.
 * options->error is not used. A timeout, a cancel or a stop by on_row ends a call at once; what the server still sends is dropped by
 * the pool after the lease. A lease of the caller's can do no more then, and is to be released.
 * Threads: the loop's. Blocks: no. Owns: the call is lido's until on_done; sql and params may go. `pool` is not looked at when
 * call->lease is set.
 * Returns: LIDO_OK, and on_done will be called, never before this has returned, with what lido_pg_query returns, LIDO_ECANCELED, or
 * LIDO_ELOOP; LIDO_EBUSY when the call is under way already; LIDO_EINVAL when call->loop is not a loop of this thread; LIDO_ENOMEM;
 * LIDO_EFOREIGN; LIDO_ESTALE; as lido_acquire_async. On an error no callback is called. */
LIDO_API int lido_pg_query_async(struct lido_pool *pool, struct lido_pg_call *call, const char *sql,
                                 const struct lido_pg_param *params, uint32_t param_count,
                                 const struct lido_pg_query_options *options);

/* Go on after a pause. Threads: the loop's. Blocks: no. Owns: nobody. Returns: LIDO_OK, and rows come again once this has returned;
 * LIDO_EINVAL when the call is not paused. */
LIDO_API int lido_pg_call_resume(struct lido_pg_call *call);

/* Cancel a call, at the server too.
 * Threads: the loop's. Blocks: no. Owns: the call is lido's until on_done. Returns: LIDO_OK, and on_done will say LIDO_ECANCELED once
 * this has returned; LIDO_EINVAL when it is not under way. */
LIDO_API int lido_pg_call_cancel(struct lido_pg_call *call);

/* ---- LISTEN ------------------------------------------------------------------------------------------------ */

/* A connection of a pool that listens for notifications for as long as the listener lives; the pool's max is to count it. When the
 * connection is lost, another one takes its place and listens to the same channels. */
struct lido_pg_listener;

enum lido_pg_notification_kind {
        LIDO_PG_NOTIFIED = 0,    /* somebody has called NOTIFY */
        LIDO_PG_LISTENING = 1,   /* from here on nothing is missed (on a loop; in a thread, lido_pg_listen has returned then) */
        LIDO_PG_MISSED = 2,      /* the connection was lost, and it listens again: notifications in between are lost, so look at
                                  * the database itself */
        LIDO_PG_LISTEN_ENDED = 3 /* on a loop: `status` says why there will be no more, LIDO_ECLOSED say */
};

struct lido_pg_notification {
        int kind;            /* enum lido_pg_notification_kind */
        int status;          /* of LISTEN_ENDED */
        const char *channel; /* of NOTIFIED, as payload; valid until the next notification */
        const char *payload; /* "" when there is none */
        int backend_pid;     /* who has notified */
};

/* To what and how to listen. Zero means the default in every field. Append only. */
struct lido_pg_listen_options {
        size_t size;
        const char *const *channels; /* as they are, case and all; copied */
        uint32_t channel_count;
        int64_t timeout_ms;          /* in a thread, for the first connection; default: no limit */
        int64_t check_ms;            /* after so much silence the server is asked for a sign of life; default 30 s; LIDO_NEVER */
        const char *tag;             /* as in lido_acquire_options; constant */
        struct lido_error *error;    /* in a thread, why lido_pg_listen has failed; may be NULL */

        /* On a loop: every notification comes by callback, which may close the listener. NULL: in a thread, by
         * lido_pg_next_notification. */
        struct lido_loop *loop;
        void (*on_notification)(struct lido_pg_listener *listener, const struct lido_pg_notification *notification, void *context);
        void *context;
};
#define LIDO_PG_LISTEN_OPTIONS_INIT LIDO_SIZED(lido_pg_listen_options)

/* Begin to listen, on a connection of the pool's.
 * Threads: any that may wait; with options->loop, the loop's. Blocks: until it listens, or the deadline; on a loop: no.
 * Owns: the listener is the caller's, on LIDO_OK only, to be given to lido_pg_listener_close before the pool is freed; it keeps
 * uv_run going. Returns: LIDO_OK; as lido_acquire; LIDO_EFACTORY when the server refuses; LIDO_EDEADLINE; LIDO_EINVAL; LIDO_EFOREIGN;
 * LIDO_ENOMEM. */
LIDO_API int lido_pg_listen(struct lido_pool *pool, const struct lido_pg_listen_options *options,
                            struct lido_pg_listener **ret_listener);

/* Wait for the next notification, of a listener without a loop.
 * Threads: one at a time, and one that may wait. Blocks: until there is one, or the deadline; 0: what has come already.
 * Owns: the texts are the listener's. Returns: LIDO_OK and a notification, NOTIFIED or MISSED; LIDO_ETIMEDOUT; LIDO_EUNAVAIL when the
 * connection is lost and there was none in time; LIDO_ECLOSED and its kin when there will be none; LIDO_EINVAL. */
LIDO_API int lido_pg_next_notification(struct lido_pg_listener *listener, int64_t timeout_ms,
                                       struct lido_pg_notification *ret_notification);

/* Listen no more. On a loop no callback is called any more.
 * Threads: one at a time; with a loop, the loop's. Blocks: no. Owns: the listener is gone, and its connection is the pool's again.
 * Returns: nothing; NULL is allowed. */
LIDO_API void lido_pg_listener_close(struct lido_pg_listener *listener);

/* ---- batches --------------------------------------------------------------------------------------------- */

/* One of many: parameters in, an answer out. */
struct lido_pg_item {
        const struct lido_pg_param *params;
        PGresult *result; /* rows, or the error; the caller's, to be given to PQclear or lido_pg_items_clear; NULL: no answer came */
        int status;       /* LIDO_OK; LIDO_EFACTORY: it failed; LIDO_ECANCELED: it was not done; LIDO_EUNKNOWN: it was sent, and the
                           * connection was lost or the time was up before an answer came */
};

/* Zero means the default in every field. Append only. */
struct lido_pg_batch_options {
        size_t size;
        int64_t timeout_ms;       /* for all of it; default: no limit */
        int result_format;        /* 0 text, 1 binary */
        int atomic;               /* 1: all or nothing; default: each item is a transaction of its own */
        struct lido_error *error; /* the first that went wrong; may be NULL */
};
#define LIDO_PG_BATCH_OPTIONS_INIT LIDO_SIZED(lido_pg_batch_options)

/* Run one statement once for each item, on a lease, without waiting for one answer before the next is sent: a thousand INSERTs cost
 * one round trip and not a thousand. In a transaction that is open already an item that fails fails those after it.
 * A parameter has one type in all items, or none.
 * Threads: the one that uses the connection. Blocks: until all are answered, or the deadline.
 * Owns: the items are the caller's, and the results in them too, whatever is returned.
 * Returns: LIDO_OK when all were done; LIDO_EFACTORY when one failed, which each item tells for itself, or the connection was lost;
 * LIDO_EDEADLINE, after which the lease can do no more and is to be released; LIDO_EBUSY when it has rows
 * unread; LIDO_EINVAL; LIDO_ESTALE; LIDO_EFOREIGN; LIDO_ENOMEM. */
LIDO_API int lido_pg_batch(lido_lease lease, const char *sql, uint32_t param_count, struct lido_pg_item *items,
                           uint32_t item_count, const struct lido_pg_batch_options *options);

/* PQclear every result.
 * Threads: one at a time. Blocks: no. Owns: the results are gone. */
LIDO_API void lido_pg_items_clear(struct lido_pg_item *items, uint32_t item_count);

/* ---- COPY ------------------------------------------------------------------------------------------------ */

/* A COPY under way on a lease: rows go in, or come out, in the format that the statement names. */
struct lido_pg_copy;

/* Begin a COPY ... FROM STDIN, or TO STDOUT, on a lease, whose connection can do nothing else until the copy is closed.
 *
 *      if (lido_pg_copy_in(lease, "copy users from stdin", NULL, &copy) == LIDO_OK) {
 *              while (next_line(&line) && (rc = lido_pg_copy_write(copy, line.text, line.length)) == LIDO_OK)
 *                      continue;
 *              if (rc == LIDO_OK)
 *                      rc = lido_pg_copy_end(copy, &rows);
 *              lido_pg_copy_close(copy);
 *      }
 *
 * Of the options only timeout_ms, for all of it, and error count.
 * Threads: the one that uses the connection. Blocks: until the server is ready for rows, or the deadline.
 * Owns: the copy is the caller's, on LIDO_OK only, to be given to lido_pg_copy_close before the lease is released.
 * Returns: LIDO_OK; LIDO_EFACTORY when the statement failed or the connection was lost; LIDO_EDEADLINE; LIDO_EBUSY when the connection
 * has rows unread; LIDO_EINVAL also for a statement that is no such COPY; LIDO_ENOTSUP for server_timeout; LIDO_ESTALE;
 * LIDO_EFOREIGN; LIDO_ENOMEM. */
LIDO_API int lido_pg_copy_in(lido_lease lease, const char *sql, const struct lido_pg_query_options *options,
                             struct lido_pg_copy **ret_copy);
LIDO_API int lido_pg_copy_out(lido_lease lease, const char *sql, const struct lido_pg_query_options *options,
                              struct lido_pg_copy **ret_copy);

/* Write bytes, rows or parts of rows. No more than 64 KiB are kept here beyond what the socket has taken: a server that does not read
 * holds the writer back.
 * Threads: one at a time. Blocks: until they are sent, or the deadline. Owns: the bytes may go.
 * Returns: LIDO_OK, also while the server has refused a row already: it says so at the end; LIDO_EFACTORY; LIDO_EDEADLINE; LIDO_EINVAL;
 * LIDO_ESTALE; after an error the same for ever. */
LIDO_API int lido_pg_copy_write(struct lido_pg_copy *copy, const void *bytes, size_t size);

/* All is written.
 * Threads: one at a time. Blocks: until the server has taken it all, or the deadline. Owns: nobody.
 * Returns: LIDO_OK, and how many rows it was (ret_rows may be NULL): outside a transaction they are committed; LIDO_EFACTORY, and
 * nothing has been copied; as lido_pg_copy_write. */
LIDO_API int lido_pg_copy_end(struct lido_pg_copy *copy, uint64_t *ret_rows);

/* Read the next row, as the server sends it: a line of text, or a piece of binary.
 * Threads: one at a time. Blocks: until a row has come, or the deadline. Owns: the bytes are the copy's, until the next call.
 * Returns: 1 and a row; 0 at the end; as lido_pg_copy_write. */
LIDO_API int lido_pg_copy_read(struct lido_pg_copy *copy, const char **ret_bytes, size_t *ret_size);

/* Done. A COPY in that was not ended is undone by the server. Rows that were not read are read off, or, if they are many or slow, the
 * COPY is cancelled; either fails a transaction that it is part of. A connection that does not come to rest is closed on return.
 * Threads: one at a time. Blocks: until it is at rest, some seconds at most. Owns: the copy is gone. Returns: nothing; NULL is
 * allowed. */
LIDO_API void lido_pg_copy_close(struct lido_pg_copy *copy);

/* ---- transactions ---------------------------------------------------------------------------------------- */

enum lido_pg_isolation {
        LIDO_PG_ISOLATION_DEFAULT = 0, /* the server's default_transaction_isolation */
        LIDO_PG_READ_COMMITTED = 1,
        LIDO_PG_REPEATABLE_READ = 2,
        LIDO_PG_SERIALIZABLE = 3
};

/* What kind of transaction. Zero means the default in every field. Append only. */
struct lido_pg_transaction_options {
        size_t size;
        int isolation;            /* enum lido_pg_isolation */
        int read_only;            /* 1: nothing is written */
        int deferrable;           /* 1: with SERIALIZABLE and read_only, wait for a snapshot that cannot conflict */
        int server_timeout;       /* 1: no statement of it goes on past the deadline, even if nobody reaches the server then */
        int64_t timeout_ms;       /* for all of it, every attempt and pause; the function keeps its own time inside; default: the
                                   * pool's acquire_timeout_ms to wait for a connection, and no limit from then on */
        uint32_t attempts;        /* of lido_pg_transaction at most; default 10; 1: never again */
        int64_t backoff_min_ms;   /* pause before another attempt, at random up to this, doubled each time; default 2 */
        int64_t backoff_max_ms;   /* and what it grows to; default 250 */
        const char *tag;          /* as in lido_acquire_options */
        struct lido_error *error; /* what went wrong, but for what the function has found itself; may be NULL */
};
#define LIDO_PG_TRANSACTION_OPTIONS_INIT LIDO_SIZED(lido_pg_transaction_options)

/* What is done in a transaction, by lido_pg_query_on or by libpq's own functions on lido_pg_conn(lease). It may be called several
 * times, so what it does outside the database must bear that. It keeps the lease. LIDO_OK: to be committed. Anything else is
 * what lido_pg_transaction returns, after everything has been undone. */
typedef int lido_pg_transaction_fn(lido_lease lease, void *context);

/* Lease a connection, begin a transaction, call the function, commit. When the server says that it conflicts with others
 * (SQLSTATE 40001, serialization failure, or 40P01, deadlock), be it in the function or at the commit, it is undone and the function
 * called again after a pause, whatever it has returned but LIDO_ECANCELED.
 * Threads: any that may wait, so not the service's loop. Blocks: until it is done, or the deadline.
 * Owns: the lease is given back here. Returns: LIDO_OK when it is committed, or the function has ended the transaction itself;
 * LIDO_EUNKNOWN when COMMIT was sent and no answer came: it may be committed or not, and is not tried again; else nothing has happened:
 * what the function has returned; LIDO_EFACTORY with the SQLSTATE, also when the last attempt has met a conflict and when the function
 * returned LIDO_OK though a statement had failed; LIDO_EBUSY when it left rows unread; as lido_acquire; LIDO_EDEADLINE; LIDO_EINVAL;
 * LIDO_EFOREIGN. */
LIDO_API int lido_pg_transaction(struct lido_pool *pool, const struct lido_pg_transaction_options *options,
                                 lido_pg_transaction_fn *fn, void *context);

/* Begin a transaction on a lease. attempts and back-off have no effect here. A lease that is released with its transaction open has it
 * rolled back by the pool.
 * Threads: the one that uses the connection. Blocks: until the server answers or the deadline. Owns: the lease stays the caller's.
 * Returns: LIDO_OK; LIDO_EBUSY when one is open already, or rows are; LIDO_EFACTORY; LIDO_EDEADLINE; LIDO_ESTALE; LIDO_EFOREIGN;
 * LIDO_EINVAL. */
LIDO_API int lido_pg_begin(lido_lease lease, const struct lido_pg_transaction_options *options);

/* Commit, or roll back, what is open on a lease. timeout_ms 0: no limit. ret_error may be NULL.
 * Threads, Blocks, Owns: as lido_pg_begin.
 * Returns: LIDO_OK when it is done; of commit LIDO_EUNKNOWN when it was sent and no answer came, and LIDO_EFACTORY when it was refused
 * or the transaction had failed before: then nothing is committed; LIDO_EINVAL also without a transaction. */
LIDO_API int lido_pg_commit(lido_lease lease, int64_t timeout_ms, struct lido_error *ret_error);
LIDO_API int lido_pg_rollback(lido_lease lease, int64_t timeout_ms, struct lido_error *ret_error);

#ifdef __cplusplus
}
#endif
#endif
