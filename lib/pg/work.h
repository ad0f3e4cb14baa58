/* pg/work.h - read off what a session still has to say, then run statements on it, without ever blocking.
 *
 * One engine for the connector threads, which wait with poll(2), and for the loop, which waits with a uv_poll: both
 * call work_advance whenever the socket is ready for what it asked for last.
 *
 *      work_start(&work, conn, (const char *const[]){"ROLLBACK", NULL}, drain_bytes);
 *      while ((want = work_advance(&work)) != WORK_DONE && want != WORK_FAILED)
 *              wait_for(want);
 *
 * A session comes in any state but COPY IN, COPY BOTH, or a pipeline whose Sync has not been sent: unread rows and COPY OUT are read and dropped,
 * up to drain_bytes, one row at a time unless libpq has begun to collect a whole result. It leaves at rest and in blocking mode. No statement begins while another's results are
 * unread, and each is a query message of its own, because ROLLBACK and DISCARD ALL do not go together in one.
 * The first error that the server reports is kept: after a FATAL, libpq adds one of its own that has no SQLSTATE.
 */
#ifndef LIDO_PG_WORK_H
#define LIDO_PG_WORK_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>

#include "lido/error.h"

enum work_want { WORK_READ, WORK_READ_WRITE, WORK_DONE, WORK_FAILED };

struct work {
        PGconn *conn;
        const char *const *steps; /* the statements left, ended by NULL */
        size_t budget;            /* bytes that may still be dropped */
        bool is_asked;            /* results of a statement are outstanding */
        bool is_draining;         /* they are of what the borrower left */
        bool is_copy_out;
        unsigned syncs;           /* of a pipeline that the borrower left; 0: he left none */
        unsigned nulls;           /* in a row: two are the end of a pipeline, with its Sync or without */
        bool forgives_cancel;     /* a statement that ends with 57014, once, is run again */
        bool must_repeat;
        bool is_failed;
        void (*see)(void *see_context, const PGresult *result); /* gets each result; NULL: nobody */
        void *see_context;
        struct lido_error error;  /* the first; code is LIDO_OK while there is none */
};

/* `steps` must live as long as the work. An empty statement, "", is the cheapest sign of life. */
void work_start(struct work *work, PGconn *conn, const char *const *steps, size_t drain_bytes);

/* Read what has arrived, also inside OpenSSL. Returns: false when the connection is lost. */
bool work_consume(PGconn *conn);

/* How many rows a statement has affected, of its result; 0 where it does not say. */
uint64_t work_affected(PGresult *result);

/* Does OpenSSL hold bytes that poll cannot see? */
bool work_has_pending(PGconn *conn);

/* Go on as far as it goes. Returns: what to wait for, or the outcome. */
enum work_want work_advance(struct work *work);

#endif
