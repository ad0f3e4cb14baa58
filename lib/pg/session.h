/* pg/session.h - the pooled object: one PGconn, what is known of it, and the spare descriptor of its socket.
 *
 * The PGconn belongs to whoever owns the slot: the connector that made it, the borrower, the loop. Others touch
 * only the line, a dup() of the socket. It is what the loop watches, because libpq closes its own descriptor
 * when it likes, and what interrupt shuts down; it is closed when both the session and the watch are done with it.
 *
 * Every result is seen and noted here: those of our own statements as they are read, and, from the moment that a borrower
 * is shown the PGconn, all of them by libpq's event hook. (The hook costs 41 ns and four allocations a result, so a session
 * whose borrowers keep to lido_pg_query goes without.) They tell what PQstatus will not: that the server ended the session, or that an error had no SQLSTATE and so was libpq's own. When libpq
 * fails to send, as after an immediate shutdown, it tells not even the hook: PQstatus stays OK and the transaction idle.
 * So on return an error message, whatever its cause, is reason enough to look at the socket.
 */
#ifndef LIDO_PG_SESSION_H
#define LIDO_PG_SESSION_H

#include <libpq-fe.h>
#include <stdbool.h>

#include "base/atomic.h"
#include "base/list.h"
#include "lido/pool.h"
#include "pg/hosts.h"
#include "pg/options.h"
#include "pg/reset.h"
#include "pg/statements.h"
#include "pg/work.h"

struct pg_line {
        int fd;                 /* constant */
        _Atomic uint32_t users; /* atomic: the session, its watch */
};

struct pg_line *line_new(int fd);
void line_unref(struct pg_line *line);

struct pg_watch;

struct pg_session {
        const struct pg_options *options; /* constant; lives as long as the pool */
        struct pg_hosts *hosts;           /* constant: a share; NULL: it does not matter which host */
        unsigned host;                    /* constant: where it is, if that matters */
        struct pg_line *line;             /* constant */
        char label[160];                  /* constant, for describe */
        _Atomic uint32_t users;           /* atomic: the pool or the borrower who detaches, and the watch */

        PGconn *conn;       /* owner of the slot only; NULL once the borrower has ended it */
        bool is_exposed;    /* owner: libpq's event hook is in place */
        bool is_lost;       /* owner of the slot only: the server has ended it, or the borrower has reset it */
        bool is_doubtful;   /* owner: an error without SQLSTATE since the last round trip of ours */
        unsigned dirt;      /* owner: enum reset_dirt, since the last reset */
        bool is_evicted;    /* owner: an error was judged so */
        bool is_alarming;   /* owner: an error tells that all sessions are to be checked */
        bool is_refused_write; /* owner: error 25006 since then; whether that is alarming is judged at rest */
        bool has_conflict;  /* owner: an error asks for the transaction to be run again */
        bool is_fat;        /* owner: a row was larger than fat_bytes */
        struct statements statements; /* owner */
        int last_status;    /* owner: ExecStatusType of the last result seen since the last reset; else 0 */
        unsigned syncs;     /* owner: of pipelines of ours, still to come in */
        char sqlstate[6];   /* owner: with which the server ended it, or "" */

        lido_handle handle;     /* written before it is first lent */
        PGcancel *cancel;       /* constant; freed with the session, not with its connection */
        struct list link;       /* guarded by the lock of cancels */
        _Atomic uint32_t request_count; /* written likewise, slept on: cancel requests under way */
        bool is_put_off;        /* likewise: op waits for them to end */
        _Atomic uint32_t was_cancelled; /* atomic: since the last reset; a cancel for a lease just ended may still set it */

        struct pg_watch *watch; /* loop thread */
        struct reset_plan plan; /* whoever does a check or reset, until its answer: the loop, or a canceller */
        struct work work;       /* likewise */
        lido_op op;             /* likewise */
        bool is_working;        /* loop thread */
};

/* Wrap a connection at rest. Owns: conn is the session's on success. Returns: LIDO_OK; LIDO_ENOMEM; LIDO_EFACTORY when
 * there is no descriptor left. */
int session_new(struct pg_session **ret_session, PGconn *conn, const struct pg_options *options);

/* It is one of this host, where it is counted already; its host may cease to fit, or be cut off. */
void session_set_host(struct pg_session *session, struct pg_hosts *hosts, unsigned host);

/* End the connection, without ever blocking, and drop the pool's share of the session. Returns: is_alarming, after the
 * server's last words have been read. */
bool session_close(struct pg_session *session);

/* Give the connection away, with libpq's own hooks, and drop the pool's share of the session. Returns: the PGconn. */
PGconn *session_release_conn(struct pg_session *session);

/* Drop a share. */
void session_unref(struct pg_session *session);

/* A borrower is going to use the connection directly. */
void session_expose(struct pg_session *session);

/* Note what a result tells, unless libpq's hook has. Threads: the owner. */
void session_see(struct pg_session *session, const PGresult *result);

/* Look at the socket without blocking or reading. */
enum lido_peek session_peek(struct pg_session *session);

/* In what state is it really? Puts libpq's settings back as far as that needs no round trip. */
enum lido_verdict session_verdict(struct pg_session *session);

/* Put libpq's settings back, and drop notifications that nobody has asked for. Not blocking when at rest. */
void session_restore(struct pg_session *session);

/* Has the server another role than the options want (target_session_attrs)? What is known is as old as the last round trip:
 * an idle session is not told of a change. */
bool session_has_wrong_role(const struct pg_session *session);

/* Take note if prepared statements were dropped. */
void session_forget_plans(struct pg_session *session);

/* Begin to carry out session->plan with session->work; when that is over, answer the op. The session may be gone then. */
void session_begin_work(struct pg_session *session);
void session_answer(struct pg_session *session, lido_op op, bool is_done);

/* Shut the socket down. Threads: any. */
void session_interrupt(struct pg_session *session);

#endif
