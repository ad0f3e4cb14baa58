/* pg/connector.h - the threads on which connections are opened.
 *
 * Each takes the oldest job, connects with libpq's asynchronous interface and poll(2), and answers the pool. Threads are
 * started when there is a job and none is free, up to a limit, and end after some seconds without work.
 *
 * A job that the pool no longer wants is answered at once while it waits in the queue or in the resolver, which cannot
 * be interrupted; otherwise its thread is rung out of poll by an eventfd and answers. A thread stuck in the
 * resolver is left behind when the pool ends: it holds a share of the memory that it will still touch.
 */
#ifndef LIDO_PG_CONNECTOR_H
#define LIDO_PG_CONNECTOR_H

#include "lido/pool.h"
#include "pg/options.h"

struct cancels;
struct pg_connectors;

/* Owns: the options pass to the connectors on success, who end them when the last thread is gone.
 * Returns: the connectors; NULL when there is no memory. */
struct pg_connectors *connectors_new(struct pg_options *options);

/* The options, constant. */
const struct pg_options *connectors_options(const struct pg_connectors *connectors);

/* The cancel requests of the pool. */
struct cancels *connectors_cancels(struct pg_connectors *connectors);

/* The pool that they work for, once there is one. */
void connectors_set_pool(struct pg_connectors *connectors, struct lido_pool *pool);

/* Have every session of the pool checked, at most once a second. Threads: one that has a lease, so that the pool is there. */
void connectors_alarm(struct pg_connectors *connectors);

/* Open a connection and answer with a struct pg_session. Threads: any. Blocks: no. */
void connectors_open(struct pg_connectors *connectors, lido_op op);

/* Forget about it. Harmless if it is answered already. Threads: any. Blocks: no. */
void connectors_cancel(struct pg_connectors *connectors, lido_op op);

/* All jobs are answered: end the threads. Threads: any, also a connector's own: without a service, the answer to the last
 * op ends the pool. Blocks: until those that are not in the resolver have ended, at once. */
void connectors_free(struct pg_connectors *connectors);

#endif
