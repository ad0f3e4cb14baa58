/* pg/ask.h - one statement on a session, from its first byte out to its last result in, without ever blocking.
 *
 * One engine for threads, which wait with poll(2) (query.c), and for loops, which wait with a uv_poll (call.c): both
 * call ask_next until it wants the socket, and again, after ask_ready, once the socket is ready.
 *
 *      ask_start(&ask, session, &question);
 *      while ((want = ask_next(&ask, &result)) != ASK_DONE && want != ASK_FAILED)
 *              if (want == ASK_RESULT)
 *                      use(result), PQclear(result);
 *              else
 *                      wait_for(want), ask_ready(&ask);
 *
 * A statement that comes again is prepared; should the server have dropped it or its tables have changed, it is prepared
 * anew and run once more, if it is no part of a transaction: the server says so before it does anything. A deadline that the
 * server is to be told travels with the statement, by pipeline and one Sync, as a setting that ends with the transaction which
 * the two of them are; so there is nothing to take back, whatever happens.
 */
#ifndef LIDO_PG_ASK_H
#define LIDO_PG_ASK_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#include "lido/pg.h"

struct pg_session;
struct statement;

enum ask_want { ASK_READ, ASK_READ_WRITE, ASK_RESULT, ASK_DONE, ASK_FAILED };

/* What is asked. It must live until the first result. */
struct question {
        const char *sql;
        const struct lido_pg_param *params;
        uint32_t count;
        int result_format;
        int prepare;          /* enum lido_pg_prepare */
        bool is_simple;       /* perhaps several statements, without parameters and never prepared */
        bool is_by_row;       /* single-row mode: a result for each row */
        bool tells_server;    /* of the deadline */
        uint64_t deadline_ns;
};

struct ask {
        struct pg_session *session;
        PGconn *conn;
        const struct question *question;
        struct statement *statement; /* it runs as this one; NULL: unprepared */
        int step;
        bool is_unsent;              /* part of it may still be here */
        bool may_read;               /* the socket was ready */
        bool is_over;                /* its results are; the Sync may still come */
        bool is_leading;             /* results are those of what goes before the statement */
        bool is_by_row;              /* as the question says, which may be gone */
        bool tells_server;
        bool may_repeat;
        bool is_stale;               /* the server has the statement no more */
        uint64_t affected;
        struct lido_error error;     /* the first; its code is LIDO_OK while there is none */
};

/* Begin. The session is the caller's until the end; its connection becomes non-blocking. */
void ask_start(struct ask *ask, struct pg_session *session, const struct question *question);

/* The socket is ready. */
void ask_ready(struct ask *ask);

/* Go on as far as it goes. Returns: what to wait for; ASK_RESULT and a result with rows, the caller's to clear; ASK_DONE; ASK_FAILED
 * and ask->error, with the session at rest if that is possible. */
enum ask_want ask_next(struct ask *ask, PGresult **ret_result);

/* Take in a result, or NULL, that the caller has had from PQgetResult. Returns: ASK_RESULT; ASK_FAILED; ASK_READ: call ask_next. */
enum ask_want ask_handle(struct ask *ask, PGresult *result, PGresult **ret_result);

/* Give up, keeping an earlier error. */
enum ask_want ask_fail(struct ask *ask, int code, const char *text);

/* Nothing more is to be sent: what comes in is the rest. */
void ask_stop(struct ask *ask);

/* May the session be asked again: have all results come in? */
bool ask_is_over(const struct ask *ask);

/* It has failed. The server, if it was told of the deadline, may have been faster than we: then that is what it failed of. */
void ask_judge_lateness(struct ask *ask, uint64_t deadline_ns);

#endif
