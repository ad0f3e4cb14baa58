/* pg/connect.h - open one connection: hosts in turn, one PGconn to one address at a time, each with a deadline.
 *
 * One engine for the connector threads and the monitor, which wait with poll(2), and for the loop, which waits with a
 * uv_poll: each calls connect_advance whenever the descriptor is ready for what it asked for, or its time is due. It never
 * blocks, but for the files that libpq reads itself (passfile, certificates).
 *
 *      connect_init(&connect, tools, deadline_ns);
 *      while ((want = connect_advance(&connect, is_ready)) < CONNECT_DONE)
 *              is_ready = wait_for(connect_fd(&connect), want, connect_due_ns(&connect));
 *      if (want == CONNECT_DONE)
 *              conn = connect_take(&connect);
 *      connect_fini(&connect);
 *
 * The descriptor may be another after each advance, though its number be the same: libpq closes it and opens the next. A loop
 * therefore watches a fresh dup each time.
 *
 * In order: which host is next (hosts.h, or as they are listed); its addresses (resolver.h); name and password
 * (credentials.h); log in; who is it (probe.h); set-up. What ends the search at once is what libpq itself takes for final, a
 * refusal that the next address would repeat (wrong password, no such database); after anything else comes the next
 * address, the next host. The failure reported is the most telling one: one with an SQLSTATE before one without, the earlier
 * before the later.
 */
#ifndef LIDO_PG_CONNECT_H
#define LIDO_PG_CONNECT_H

#include <stdint.h>

#include "lido/pool.h"
#include "pg/credentials.h"
#include "pg/hosts.h"
#include "pg/options.h"
#include "pg/resolver.h"
#include "pg/work.h"

/* What connects of one pool share; constant, and lives as long as they. */
struct connect_tools {
        const struct pg_options *options;
        struct resolver *resolver;
        struct credentials *credentials; /* NULL: there is no provider */
        struct pg_hosts *hosts;          /* NULL: as they are listed */
        _Atomic uint32_t *number;        /* counts connections, for %c of application_name; NULL: always 0 */
};

enum connect_want { CONNECT_READ, CONNECT_WRITE, CONNECT_READ_WRITE, CONNECT_DONE, CONNECT_FAILED };
enum connect_step {
        CONNECT_STEP_PASS,
        CONNECT_STEP_REFUSED,
        CONNECT_STEP_HOST,
        CONNECT_STEP_ADDRESSES,
        CONNECT_STEP_SECRET,
        CONNECT_STEP_LOG_IN,
        CONNECT_STEP_IDENTITY,
        CONNECT_STEP_SET_UP,
        CONNECT_STEP_OVER
};

struct connect {
        const struct connect_tools *tools;
        uint64_t deadline_ns; /* of the whole */
        uint64_t attempt_ns;  /* of this step */
        enum connect_step step;
        enum connect_want want; /* for what to wait, while a step is not over */

        unsigned *order; /* hosts in the order of trying */
        unsigned order_count, order_at, pass;
        PQconninfoOption *key;     /* what the key of its pool says; NULL: it has none */
        const char *session_attrs; /* of this pass */
        bool is_probe;             /* to this host alone, whatever its role, without set-up */

        int host;                   /* index of the current one; -1: libpq sees to the hosts */
        struct pg_host place;       /* its name, address and port */
        struct addresses addresses; /* of it */
        unsigned address_at;
        struct secret *secret;
        unsigned refused; /* number of the secret that the server refused; 0: none */

        PGconn *conn;
        char application_name[64];
        struct probe probe;
        const char *setup[2];
        struct work work;
        struct news news;
        struct lido_error error; /* of this attempt */
        struct lido_error best;  /* to be reported */
};

/* Begin. Owns: to be given to connect_fini. Fails, if it must, at the first advance. */
void connect_init(struct connect *connect, const struct connect_tools *tools, uint64_t deadline_ns);

/* Begin what a pool has asked for: until its deadline, and as its key says if it has one. */
void connect_begin(struct connect *connect, const struct connect_tools *tools, lido_op op);

/* Begin, to one host of the list, of whatever role, and without set-up. */
void connect_init_probe(struct connect *connect, const struct connect_tools *tools, unsigned host, uint64_t deadline_ns);

/* Go on as far as it goes. `is_ready`: the descriptor is ready for what was asked for last; false at first, and when
 * time is due. Returns: what to wait for, or the outcome. */
enum connect_want connect_advance(struct connect *connect, bool is_ready);

/* On what to wait, and until when. */
int connect_fd(const struct connect *connect);
uint64_t connect_due_ns(const struct connect *connect);

/* It cannot go on, for a reason that is not its own; or nobody wants it any more. */
void connect_give_up(struct connect *connect, int code, const char *text);
void connect_abort(struct connect *connect);

/* DONE: the connection, at rest, its set-up statements run; connect->host says where. It is the caller's. */
PGconn *connect_take(struct connect *connect);

/* FAILED: why, without secrets. The code is LIDO_EPERMANENT, LIDO_EDEADLINE, LIDO_ECANCELED, LIDO_ENOMEM or LIDO_EFACTORY. */
const struct lido_error *connect_error(const struct connect *connect);

void connect_fini(struct connect *connect);

/* All of it on a thread that may block, in poll(2). It ends early when abort_fd becomes readable.
 * Returns: LIDO_OK, then connect_take; else the code of connect_error. connect_fini in any case. */
int connect_run(struct connect *connect, int abort_fd);

/* Give a connection that was opened here libpq's own notice hooks: they print to stderr. */
void connect_give_back_notices(PGconn *conn);

#endif
