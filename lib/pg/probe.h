/* pg/probe.h - ask a server who it is: which cluster, which timeline, primary or standby, and how far.
 *
 * What PQparameterStatus says of the role is as old as the last round trip, and says nothing of identity. One query tells
 * all: the system identifier, which a cluster keeps for life and its standbys share; the timeline, which each promotion
 * raises; and the position in the write-ahead log, written by a primary, replayed by a standby. All of it is open to
 * any role; what a server will not tell stays unknown, and is no failure.
 *
 *      if (probe_send(conn, &probe))
 *              while ((rc = probe_read(conn, &probe)) == 0)
 *                      wait_until_readable();
 */
#ifndef LIDO_PG_PROBE_H
#define LIDO_PG_PROBE_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

struct probe {
        bool is_standby, is_read_only; /* in_hot_standby, default_transaction_read_only */
        uint64_t system_id;            /* 0: not known */
        uint32_t timeline;             /* that a primary writes; 0: not known, as of a standby */
        uint64_t position;             /* in the log; 0: not known */
        bool has_role;                 /* the first two are known */
        bool is_told;                  /* by the server's answer, and not only by PQparameterStatus */
};

/* Send the question, on a connection at rest. Returns: false when it is lost. */
bool probe_send(PGconn *conn, struct probe *probe);

/* Read what has come. Returns: 1 when the answer is there; 0 when there is more to wait for; -1 when the connection is lost. */
int probe_read(PGconn *conn, struct probe *probe);

/* What is known without a question: the role, of a server of version 14 or later. */
void probe_from_status(const PGconn *conn, struct probe *ret_probe);

#endif
