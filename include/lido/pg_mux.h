/* lido/pg_mux.h - one-shot statements that share connections when there are more of them than connections.
 *
 * A multiplexer sits on a pool of PostgreSQL connections (lido/pg.h). A statement takes an idle connection when there is one;
 * when there is none, it does not stand in line for one of its own but travels with others over a few connections in
 * libpq's pipeline mode, each with a Sync of its own: each is a transaction of its own and fails alone. Only what can share a
 * connection does: SELECT, INSERT, UPDATE, DELETE, MERGE, VALUES, TABLE, WITH, SHOW. A statement that might leave something
 * behind in the session (CREATE, CALL, SELECT INTO, set_config, advisory locks, ...) gets a lease to itself, by itself; one that
 * makes no sense on its own (BEGIN, SET, LISTEN, COPY, PREPARE, ...) is refused. A function that changes the session
 * from within is not seen: run what calls it with LIDO_PG_ALONE.
 *
 *      lido_pg_mux_open(&mux, pool, NULL, NULL);
 *      if (lido_pg_mux_exec(mux, "select name from users where id = $1", params, 1, NULL, &result) == LIDO_OK) {
 *              puts(PQgetvalue(result, 0, 0));
 *              PQclear(result);
 *      }
 *
 * Behind a slow statement wait those on the same connection; they wait less than in line, but LIDO_PG_ALONE keeps a statement that
 * is known to be slow out of their way. A result is held in memory as a whole; for many rows there is lido_pg_query.
 */
#ifndef LIDO_PG_MUX_H
#define LIDO_PG_MUX_H

#include "lido/pg.h"

#ifdef __cplusplus
extern "C" {
#endif

struct lido_loop;
struct lido_pg_mux;

/* Zero means the default in every field. Append only. */
struct lido_pg_mux_options {
        size_t size;
        uint32_t connections; /* shared at once by a shard, at most; default 2 */
        uint32_t statements;  /* under way on one of them, at most; default 64 */
        uint32_t bytes;       /* of statements under way on one of them, at most, but for a single one; default 256 KiB */
        uint32_t queue_limit; /* statements that wait for room in a shard, then LIDO_EQUEUEFULL; default LIDO_UNLIMITED */
        uint32_t shards;      /* loop threads of its own, where `loop` is NULL; default 1 */
        uint32_t reserved;    /* 0 */
};
#define LIDO_PG_MUX_OPTIONS_INIT LIDO_SIZED(lido_pg_mux_options)

/* Open a multiplexer on a pool that lido_pg_pool_open has opened. A shard lives on `loop`, which then is the only one whose callbacks
 * it calls, and which serves other threads' statements only while it runs (lido_loop_hold); with NULL, on a thread of the multiplexer's own. One server with several loops opens one on each loop. NULL
 * options are the defaults.
 * Threads: any; with a loop, the loop's. Blocks: no. Owns: the multiplexer is the caller's, to be given to
 * lido_pg_mux_close before the loop is closed and the pool freed.
 * Returns: LIDO_OK; LIDO_EINVAL; LIDO_EFOREIGN for a pool that is not one of connections; LIDO_E2NEW; LIDO_ENOMEM;
 * LIDO_ETHREAD; LIDO_ELOOP. */
LIDO_API int lido_pg_mux_open(struct lido_pg_mux **ret_mux, struct lido_pool *pool, struct lido_loop *loop,
                              const struct lido_pg_mux_options *options);

/* Close it: whoever waits for a result gets LIDO_ECLOSED, what was sent may have been done. On a loop, `closed` (may be NULL) is
 * called with `context` when its handles are gone: run the loop until then.
 * Threads: with a loop, the loop's; else any but its own. Calls under way on other threads are answered; no new one may begin.
 * Blocks: without a loop until its threads have ended, which wait for nobody. Owns: lido's again. Returns: nothing; NULL is allowed. */
LIDO_API void lido_pg_mux_close(struct lido_pg_mux *mux, void (*closed)(void *context), void *context);

#define LIDO_PG_ALONE 1u /* on a lease of its own: for what is slow, or changes the session behind a function */

/* How one statement is run. Zero means the default in every field. Append only. */
struct lido_pg_exec_options {
        size_t size;
        int64_t timeout_ms;       /* for all of it; default: the pool's acquire_timeout_ms to get a connection or a share of
                                   * one, and no limit from then on */
        int result_format;        /* 0 text, 1 binary */
        int prepare;              /* enum lido_pg_prepare */
        uint32_t flags;           /* LIDO_PG_ALONE */
        struct lido_error *error; /* what went wrong, with its SQLSTATE; may be NULL; not used by lido_pg_mux_exec_async */
};
#define LIDO_PG_EXEC_OPTIONS_INIT LIDO_SIZED(lido_pg_exec_options)

/* Run one statement and wait for its result. NULL options are the defaults. The deadline detaches the caller: a statement that shares
 * its connection is not cancelled, and disturbs nobody.
 * Threads: any that may wait, so not the loop of a shard or of the pool's service. Blocks: until the result or the deadline.
 * Owns: *ret_result, written on LIDO_OK only, is the caller's, to be given to PQclear; it needs neither multiplexer nor pool.
 * Returns: LIDO_OK; LIDO_ETIMEDOUT when the deadline passed before the statement was sent; LIDO_EDEADLINE when after, and it may
 * be done or yet to be done; LIDO_EFACTORY when it failed (sqlstate in the error) or the connection was lost under it, which
 * leaves open whether it was done; LIDO_EINVAL also for a statement that is refused; LIDO_EQUEUEFULL; LIDO_ECLOSED; LIDO_EDEADLK
 * on the loop of a shard; LIDO_ENOMEM; and what keeps a pool from lending: LIDO_EUNAVAIL, LIDO_EPERMANENT, LIDO_EPAUSED, LIDO_EFORKED. */
LIDO_API int lido_pg_mux_exec(struct lido_pg_mux *mux, const char *sql, const struct lido_pg_param *params,
                              uint32_t param_count, const struct lido_pg_exec_options *options, PGresult **ret_result);

/* `result` is the callback's to clear, with LIDO_OK only; `error` lives as long as the call. */
typedef void (*lido_pg_exec_cb)(int status, PGresult *result, const struct lido_error *error, void *context);

/* Run one statement without blocking. The callback is called exactly once, on the loop, never before this has returned.
 * What the callbacks of one turn of the loop ask for is sent together, at the turn's end.
 * Threads: that of the loop which the multiplexer was opened on. Blocks: no. Owns: sql and params are copied.
 * Returns: LIDO_OK, and then the callback's status is as lido_pg_mux_exec; without a callback LIDO_EINVAL, also where there is no
 * such loop, LIDO_EQUEUEFULL, LIDO_ECLOSED, LIDO_ENOMEM. */
LIDO_API int lido_pg_mux_exec_async(struct lido_pg_mux *mux, const char *sql, const struct lido_pg_param *params,
                                    uint32_t param_count, const struct lido_pg_exec_options *options,
                                    lido_pg_exec_cb callback, void *context);

/* What has happened since it was opened. Append only. */
struct lido_pg_mux_stats {
        size_t size;
        uint64_t direct;    /* statements that took an idle connection */
        uint64_t alone;     /* that needed a lease to themselves */
        uint64_t shared;    /* that travelled with others, or could have */
        uint64_t retried;   /* that were sent once more, because a prepared statement was outdated */
        uint64_t detached;  /* whose caller's deadline passed after they were sent */
        uint64_t converted; /* connections put into pipeline mode for a shard */
        uint64_t returned;  /* given back to the pool */
        uint64_t lost;      /* ended under their statements */
        uint64_t breaches;  /* of these, because a statement had left a transaction open */
};
#define LIDO_PG_MUX_STATS_INIT LIDO_SIZED(lido_pg_mux_stats)

/* Threads: any. Blocks: no. Owns: nobody. Returns: LIDO_OK; LIDO_EINVAL. */
LIDO_API int lido_pg_mux_stats(struct lido_pg_mux *mux, struct lido_pg_mux_stats *stats);

#ifdef __cplusplus
}
#endif
#endif
