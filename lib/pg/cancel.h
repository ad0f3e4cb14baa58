/* pg/cancel.h - cancel requests, and the quarantine that keeps a late one from hitting the next borrower.
 *
 * A cancel request names a session, not a statement: sent a moment too late, it ends whatever the session does then. So a session
 * with a request under way is not lent, and who goes on with its lease waits too. (The server signals its process twice, and between
 * the two the statement can end and the next begin; only when it hangs up are both sent.) Who cancels first counts the request on the session, then has the pool doubt
 * the session, and then looks whether the lease is still valid: if it is, the doubt is on that very lease, and when it ends the
 * session goes to its check or reset first. That work is put off here until the last request has been taken by the
 * server, is done by the thread that sent it, and forgives an error 57014 once.
 *
 * A request goes by a connection of its own, in a thread of its own, for PQcancel blocks; it may outlive the pool.
 */
#ifndef LIDO_PG_CANCEL_H
#define LIDO_PG_CANCEL_H

#include <stdbool.h>

#include "lido/pool.h"

struct cancels; /* of one pool */
struct pg_session;

struct cancels *cancels_new(void);
struct cancels *cancels_ref(struct cancels *cancels);
void cancels_unref(struct cancels *cancels);

/* A session can be cancelled from now on; no more. */
void cancels_add(struct cancels *cancels, struct pg_session *session);
void cancels_remove(struct cancels *cancels, struct pg_session *session);

/* Interrupt every session whose host is cut off, lent or not. Threads: any. Blocks: no. */
void cancels_cut(struct cancels *cancels);

/* Returns: true when a request is under way: op will be answered when session->plan has been carried out. Loop thread. */
bool cancels_put_off(struct cancels *cancels, struct pg_session *session, lido_op op);

/* Answer an op that was put off, if it still is, with a failure. */
void cancels_give_up(struct cancels *cancels, lido_op op);

/* Wait until no request is under way for the session of a lease that is the caller's, whose next statement a late one would hit.
 * Returns: false when one still is at the deadline. Blocks. */
bool cancels_settle(struct pg_session *session, uint64_t deadline_ns);

/* Send a request for the session of the lease, and wait until the server has taken it or the deadline.
 * Returns: as lido_pg_cancel. */
int cancels_request(struct cancels *cancels, lido_lease lease, int64_t timeout_ms);

#endif
