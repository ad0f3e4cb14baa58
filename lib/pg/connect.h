/* pg/connect.h - open one connection: hosts in order, one PGconn to one address at a time, each with a deadline.
 *
 * It blocks, in poll(2) and in the resolver, so it belongs to a connector thread. Whoever wants it to stop makes
 * stop->abort_fd readable. What ends the search at once is what libpq itself takes for final, a refusal that the next
 * address would repeat (wrong password, no such database); after anything else comes the next address, the next
 * host. The failure reported is the most telling one: one with an SQLSTATE before one without, the earlier
 * before the later.
 */
#ifndef LIDO_PG_CONNECT_H
#define LIDO_PG_CONNECT_H

#include <stdint.h>

#include "pg/options.h"

struct connect_stop {
        uint64_t deadline_ns;
        int abort_fd;                       /* readable: give up */
        void (*before_lookup)(void *owner); /* the resolver, which cannot be aborted, is about to be asked; or NULL */
        void (*after_lookup)(void *owner);
        void *owner;
};

/* Returns: LIDO_OK and *ret_conn, at rest, its set-up statements run; else a LIDO_E... code with *error filled in:
 * LIDO_EPERMANENT, LIDO_EDEADLINE, LIDO_ECANCELED, LIDO_ENOMEM, LIDO_EFACTORY. */
int connect_open(const struct pg_options *options, const struct connect_stop *stop, PGconn **ret_conn,
                 struct lido_error *error);

/* libpq's own notice receiver, known once a connection was opened: it prints to stderr. */
PQnoticeReceiver connect_libpq_receiver(void);

#endif
