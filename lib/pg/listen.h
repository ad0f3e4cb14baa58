/* pg/listen.h - what both forms of a listener share: its channels, its lease, how it waits before it tries again.
 *
 * A listener holds a lease of its pool for as long as it lives, so hosts, credentials, TLS and roles are the pool's. When the connection
 * is lost it gives that one up, acquires another and listens again. What was notified in between is lost, and the listener says so,
 * after it listens again: whoever looks at the database then misses nothing.
 */
#ifndef LIDO_PG_LISTEN_H
#define LIDO_PG_LISTEN_H

#include <stdbool.h>
#include <uv.h>

#include "base/random.h"
#include "lido/loop.h"
#include "lido/pg.h"

#define CHECK_TIMEOUT_MS 5000 /* for the server to answer a sign of life, or LISTEN */

struct listen_watch;
struct pg_session;

struct lido_pg_listener {
        struct lido_pool *pool;
        struct lido_pg_listen_options options; /* without its pointers to the caller's memory */
        char **statements;                     /* LISTEN for each channel; in one piece of memory */
        struct random random;
        uint32_t failures;                     /* in a row */
        lido_lease lease;
        bool is_leased;
        bool has_listened;                     /* once: from now on it may miss something */
        PGnotify *notify;                      /* handed out last */
        uint64_t heard_ns;                     /* when the server last gave a sign of life */

        /* the loop form; loop thread */
        struct lido_loop *loop;
        struct lido_request request;
        struct lido_timer timer;
        struct lido_pg_call call;
        struct listen_watch *watch;
        uint32_t next;                         /* statement to be run */
        bool is_acquiring, is_calling, is_checking;
        bool is_busy;                          /* a frame below still looks at it */
        bool is_closed;
};

/* The session, while the lease is good. */
struct pg_session *listen_session(const struct lido_pg_listener *listener);

/* The lease goes: broken, or to be used by others. */
void listen_drop(struct lido_pg_listener *listener);
void listen_give_back(struct lido_pg_listener *listener);

/* A pause before the next attempt, with jitter, longer each time. */
uint64_t listen_pause_ns(struct lido_pg_listener *listener);

/* Is it of no use to try again? */
bool listen_is_final(int code);

/* Fill a notification. */
void listen_fill(struct lido_pg_listener *listener, PGnotify *notify, struct lido_pg_notification *ret_notification);

/* Read what has come. Returns: false when the connection is lost. */
bool listen_read(struct lido_pg_listener *listener);

void listen_free(struct lido_pg_listener *listener);

/* The loop form: begin, and end. */
int listen_loop_start(struct lido_pg_listener *listener);
void listen_loop_close(struct lido_pg_listener *listener);

#endif
