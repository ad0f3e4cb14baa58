/* pg/lease.h - a thread that works on a lease: waits for its socket, and leaves it so that the next statement can be run. */
#ifndef LIDO_PG_LEASE_H
#define LIDO_PG_LEASE_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#include "lido/pg.h"
#include "pg/ask.h"

/* Is it a lease of a connection, that has not ended? Returns: LIDO_OK; LIDO_ESTALE; LIDO_EFOREIGN. */
int lease_check(lido_lease lease);

/* Are the options of a statement in range? */
bool lease_options_are_valid(const struct lido_pg_query_options *options);

/* Go on until there is a result, or the end. At the deadline the statement is cancelled, unless the server knows of it.
 * Returns: ASK_RESULT; ASK_DONE; ASK_FAILED. */
enum ask_want lease_await(lido_lease lease, struct ask *ask, uint64_t deadline_ns, PGresult **ret_result);

/* It is not done by its deadline: have it cancelled, so that the server need not go on, nor the pool wait for it. Returns: ASK_FAILED. */
enum ask_want lease_be_late(lido_lease lease, struct ask *ask);

/* The caller wants no more of it: read the rest, or cancel it if that is long in coming, and put libpq's settings back. If it will
 * not end the connection is closed when the lease is. Blocks: for some seconds at most. */
void lease_leave(lido_lease lease, struct ask *ask);

/* The connection is in a state that is not understood: it is not to be lent again. */
void lease_give_up(lido_lease lease);

/* Run SQL without parameters, perhaps several statements, and forget its results. Returns: LIDO_OK; LIDO_EFACTORY and its kin, and
 * *ret_error. */
int lease_run(lido_lease lease, const char *sql, uint64_t deadline_ns, struct lido_error *ret_error);

#endif
