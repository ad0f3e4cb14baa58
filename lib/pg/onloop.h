/* pg/onloop.h - connections opened on the service's loop, for an embedder who wants no threads of ours.
 *
 * What milliseconds of CPU a log-in costs (SCRAM 4, TLS 2 to 30) are then the loop's, and so are the files that libpq reads; between
 * any two steps of a connect the loop does what else it has to do.
 *
 * libpq closes its descriptor and opens another as it goes, often under the same number, and epoll forgets what was closed: so
 * each step is watched on a dup of its own, by a handle of its own. An error on the descriptor (a refusal comes as UV_EBADF) is no end, for libpq has the reason, and the next address.
 */
#ifndef LIDO_PG_ONLOOP_H
#define LIDO_PG_ONLOOP_H

#include <uv.h>

#include "base/list.h"
#include "pg/connector.h"

/* All of it is the loop thread's. */
struct onloop {
        uv_loop_t *loop;      /* constant; NULL: there are threads */
        struct list connects; /* of struct loop_connect */
};

/* Open a connection and answer with a struct pg_session. */
void onloop_open(struct onloop *onloop, struct pg_connectors *connectors, const struct connect_tools *tools, lido_op op);

/* Forget about it. Harmless if it is answered already. */
void onloop_cancel(struct onloop *onloop, lido_op op);

#endif
