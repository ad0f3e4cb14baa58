/* pg/connector.h - the threads on which connections are opened.
 *
 * Each takes the oldest job, connects with libpq's asynchronous interface and poll(2), and answers the pool. Threads are
 * started when there is a job and none is free, up to a limit, and end after some seconds without work.
 *
 * A job that the pool no longer wants is answered at once while it waits in the queue; otherwise its thread is rung out of poll
 * by an eventfd and answers. One that is busy when the pool ends, for libpq may look up a name itself where a conninfo names
 * a service, is left behind: it holds a share of the memory that it will still touch.
 *
 * What the connects of the pool share lives here: its resolver, its credentials, what is known of its hosts, and who
 * watches them.
 */
#ifndef LIDO_PG_CONNECTOR_H
#define LIDO_PG_CONNECTOR_H

#include "lido/pool.h"
#include "pg/options.h"

struct cancels;
struct connect_tools;
struct credentials;
struct pg_connectors;
struct pg_hosts;

/* Owns: the options pass to the connectors on success, who end them when the last thread is gone.
 * Returns: the connectors; NULL when there is no memory. */
struct pg_connectors *connectors_new(struct pg_options *options);

/* The options, constant. */
const struct pg_options *connectors_options(const struct pg_connectors *connectors);

/* The cancel requests of the pool. */
struct cancels *connectors_cancels(struct pg_connectors *connectors);

/* What is known of the hosts; NULL when it does not matter. Who provides the passwords; NULL: nobody. */
struct pg_hosts *connectors_hosts(struct pg_connectors *connectors);
struct credentials *connectors_credentials(struct pg_connectors *connectors);

/* Keep an eye on the hosts, if it matters. Returns: LIDO_OK; LIDO_ENOMEM; LIDO_ETHREAD; LIDO_EFACTORY. */
int connectors_watch_hosts(struct pg_connectors *connectors);

/* The pool that they work for, once there is one. */
void connectors_set_pool(struct pg_connectors *connectors, struct lido_pool *pool);

/* Have every session of the pool checked, at most once a second. Threads: one that has a lease, so that the pool is there. */
void connectors_alarm(struct pg_connectors *connectors);

struct connect;
struct pg_session;

/* Make a session of what a connect has made, which is done with then. Returns: LIDO_OK; else a code, with *error filled in. */
int connectors_wrap(struct pg_connectors *connectors, struct connect *connect, struct pg_session **ret_session,
                    struct lido_error *error);

/* Answer an open, with a session that goes if the pool does not take it. */
void connectors_answer(struct pg_connectors *connectors, lido_op op, struct pg_session *session);

/* Open a connection and answer with a struct pg_session. Threads: any. Blocks: no. */
void connectors_open(struct pg_connectors *connectors, lido_op op);

/* Forget about it. Harmless if it is answered already. Threads: any. Blocks: no. */
void connectors_cancel(struct pg_connectors *connectors, lido_op op);

/* All jobs are answered: end the threads. Threads: any, also a connector's own: without a service, the answer to the last
 * op ends the pool. Blocks: until those that are not in the resolver have ended, at once. */
void connectors_free(struct pg_connectors *connectors);

#endif
