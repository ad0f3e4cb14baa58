/* pg/mux.h - one-shot statements that share connections: the parts of the multiplexer, and how they stay apart.
 *
 * A *call* is one statement and its caller. A *pipe* is a leased connection in pipeline mode and the calls under way on
 * it. A *shard* lives on one loop and owns a queue of calls and a few pipes. A *multiplexer* is its shards, and the door.
 *
 *   caller's thread                          shard's loop                                       server
 *   try to acquire -- idle --> a pipe of its own, driven by poll(2), one call on it  ------------>
 *        | none idle
 *        +--> inbox --(the first wakes the loop)--> queue --> pipe, pipe  ---- one flush a turn -->
 *        wait <------------- settled <-------------------- results, each up to its Sync <---------
 *
 * On a loop there is no difference between a connection of its own and a pipe with one call on it, so calls made there
 * always go by the queue, which the same turn of the loop empties.
 *
 * Once statements share, a newcomer joins them although a connection may be idle, as long as they are many: a statement on a
 * connection of its own costs the processors three times as much as one that travels with others. Should they be stuck behind
 * something slow, the shard takes idle connections beyond its number.
 *
 * A call:
 *
 *      QUEUED --sent (shard)--> SENT --result, failure (shard)--> DONE
 *         |  <--outdated plan--   |
 *         +---failure-------------|--> DONE
 *         +---deadline------------+--> LEFT (caller)
 *
 * Each arrow is one compare-and-swap on call->state, so a result and a deadline may meet, and one of them wins: exactly one
 * outcome. QUEUED to LEFT means "never sent" (LIDO_ETIMEDOUT), SENT to LEFT "sent, so who knows" (LIDO_EDEADLINE). A call that was left
 * stays where it is, because a pipe's results are told apart by their order alone; it goes when its Sync comes. Two own it, the
 * caller and the multiplexer, and the last frees it: it is a copy, so a caller who leaves takes nothing away.
 *
 * A pipe:
 *
 *      OPEN --held long, or its session changed--> LEAVING --empty--> given back to the pool
 *        +------- FATAL, end of file, a transaction left open, COPY ------> LOST: its lease is discarded
 *
 * Invariants. (1) A pipe's calls are in the order in which they were sent, and each was followed by one Sync: so the results
 * up to the first Sync are those of the first call. (2) A PGconn is used by whoever owns its pipe: the shard's loop, or the
 * thread that took it directly; a pipe changes hands only through the shard's inbox. (3) A call is sent again only where the server has
 * said that it did nothing (outdated plan). Once handed to libpq it counts as sent: libpq does not tell what the socket took.
 * (4) While the queue has a call and no pipe has room, a request stands in the pool's line or the shard has its full number
 * of pipes: so no call is forgotten. (5) Nothing is kept from the pool for good: an empty pipe goes back after
 * LINGER, a busy one after HOLD, so that the pool's own checks, limits and its other borrowers come to their right.
 *
 * libpq before 17 sends at each Sync. Where several calls go on a pipe in one turn, the kernel of a TCP socket is told to wait for the
 * last of them (pipe_cork): one packet, and a server that is woken once, a fifth less of processor time for a statement.
 *
 * Waking the loop costs its waker a system call, so nobody does while it is awake: before it sleeps it says so and looks at the
 * inbox once more. Both sides exchange is_asleep, so whoever comes second sees what the first has done: either the loop sees the
 * call, or the caller sees the loop asleep.
 *
 * Interleavings that were nearly missed. A call put into the inbox when the shard has just looked at it for the last time would
 * wait for ever: `submitters` counts those inside, and the shard's end waits for them after it has shut the door (as
 * lib/keeper/loop.c does with its posters). A lease may be granted when the queue is empty again: it becomes a pipe and lingers. A callback
 * may make new calls, or close the multiplexer: callbacks run only where no list is being walked. A statement that leaves a transaction open
 * (its text is judged before, but a judge may err) is known by its command tag before its Sync, and the calls behind it,
 * which ran inside that transaction, are failed as it is, for the connection's end rolls them back.
 */
#ifndef LIDO_PG_MUX_INNER_H
#define LIDO_PG_MUX_INNER_H

#include <stdbool.h>
#include <uv.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "base/inbox.h"
#include "base/list.h"
#include "base/thread.h"
#include "lido/loop.h"
#include "lido/pg_mux.h"

struct pg_session;
struct pipe;
struct shard;

/* ---- calls (mux_call.c) ---------------------------------------------------------------------------------- */

enum call_state { CALL_QUEUED, CALL_SENT, CALL_DONE, CALL_LEFT };

struct call {
        struct letter letter;    /* in the inbox; a letter is a call */
        struct list link;        /* in the queue or in a pipe; shard's loop, or the thread that owns the pipe */
        _Atomic uint32_t state;  /* atomic, enum call_state; slept on by the caller's thread */
        _Atomic uint32_t users;  /* atomic: the caller, the multiplexer */

        /* What is asked. Constant; behind the struct, where it is a copy. */
        const char *sql;
        const struct lido_pg_param *params;
        uint32_t param_count;
        int result_format, prepare;
        int kind;                /* enum sql_kind, of a call made on the loop */
        size_t bytes;            /* about what it takes on the way */
        uint64_t queued_ns;      /* shard's loop */

        /* How far it is. Owner of the pipe. */
        char name[24];           /* of its prepared statement, or "" */
        bool is_preparing;       /* the first result is that of its Parse */
        bool is_outdated;        /* the server says so */
        bool is_second;          /* it is on its way for the second time */
        bool is_aside;           /* our own, with nobody to hear of it */
        struct pipe *adopted;    /* not a statement for the queue, but a pipe for the shard, which this call is under way on */

        /* The outcome: written before DONE, read after. */
        int code;
        PGresult *result;
        struct lido_error error; /* code is LIDO_OK until there is one */

        /* Of a call made on the loop: loop's thread. */
        lido_pg_exec_cb callback;
        void *context;
        struct lido_timer timer;
        struct shard *shard;
};

/* Make a call on memory of the caller's, which borrows what it asks and lives until it is settled. */
void call_borrow(struct call *call, const char *sql, const struct lido_pg_param *params, uint32_t count,
                 const struct lido_pg_exec_options *options);

/* Make one that owns a copy of what it asks, with `users` owners. Returns: NULL when there is no memory. */
struct call *call_new(const char *sql, const struct lido_pg_param *params, uint32_t count,
                      const struct lido_pg_exec_options *options, uint32_t users);

/* Drop a share. */
void call_unref(struct call *call);

/* Take an arrow. Returns: false when the call is not in `from` any more. */
bool call_move(struct call *call, enum call_state from, enum call_state to);

/* Note a failure; the first counts. */
void call_fail(struct call *call, int code, const char *text);

/* The outcome is complete: move to DONE and wake the caller's thread, unless it has left. Drops the multiplexer's share. A call of
 * a loop is not settled here but called back. */
void call_settle(struct call *call);

/* Sleep until DONE or the deadline. Returns: LIDO_OK when it is DONE; LIDO_ETIMEDOUT or LIDO_EDEADLINE when it was left. */
int call_wait(struct call *call, uint64_t deadline_ns);

/* ---- pipes (mux_pipe.c) ---------------------------------------------------------------------------------- */

enum pipe_state { PIPE_OPEN, PIPE_LEAVING, PIPE_LOST };

struct pipe_watch;

/* All of it belongs to the pipe's owner. */
struct pipe {
        struct list link; /* in the shard */
        lido_lease lease;
        struct pg_session *session;
        PGconn *conn;
        enum pipe_state state;
        struct list sent;   /* of struct call, the oldest first */
        uint32_t count;     /* of them */
        size_t bytes;       /* of them */
        struct list done;   /* calls with their outcome, which the owner takes off and settles */
        bool is_unflushed;  /* something was given to libpq since the last flush */
        bool is_corked;     /* the kernel holds back what libpq sends, until the flush */
        bool has_no_cork;   /* the socket knows none, or libpq needs none */
        bool is_breached;   /* it was lost because a statement left a transaction open */
        struct lido_error error; /* why it was lost */
        uint64_t since_ns;  /* when the shard got it */
        uint64_t served;    /* calls sent on it */
        uint64_t served_before; /* at the shard's last look */
        uint64_t moved_ns;  /* when the shard last saw it begin or answer */
        struct pipe_watch *watch; /* of a shard's pipe */
};

/* Put a leased connection into pipeline mode. Returns: false when it turns out to be lost; then discard the lease. */
bool pipe_begin(struct pipe *pipe, lido_lease lease);

/* Send a call, which is SENT already. Returns: LIDO_OK and it is the pipe's; LIDO_ENOMEM and nothing was sent. When the pipe was lost
 * meanwhile it is the pipe's, too. */
int pipe_send(struct pipe *pipe, struct call *call);

/* Many calls come before the next flush: have them travel together. */
void pipe_cork(struct pipe *pipe);

/* Returns: 1 when a part is still unsent, so that the socket is to be watched for writing; 0; -1 when the pipe is lost. */
int pipe_flush(struct pipe *pipe);

/* Take in what the server has sent. Calls whose Sync has come, and all there are when the pipe is lost, are in pipe->done after it. */
void pipe_read(struct pipe *pipe);

/* Take the next call with an outcome off; NULL: none. */
struct call *pipe_take_done(struct pipe *pipe);

/* The pipe is to be given up. What is under way fails with the error. */
void pipe_lose(struct pipe *pipe, const struct lido_error *error);

/* Give the lease back, or discard it when it is lost. The pipe has no calls under way. */
void pipe_end(struct pipe *pipe);

/* ---- shards (mux_shard.c) -------------------------------------------------------------------------------- */

struct counters {
        _Atomic uint64_t direct, alone, shared, retried, detached, converted, returned, lost, breaches; /* atomic */
};

struct mux_limits {
        uint32_t connections, statements, queue_limit;
        size_t bytes;
};

struct shard {
        struct lido_pg_mux *mux;     /* constant */
        struct lido_pool *pool;      /* constant */
        struct lido_loop *loop;      /* constant; gone once the shard is closed */
        uint32_t thread_number;      /* constant: the loop's thread */
        struct mux_limits limits;    /* constant */
        struct inbox inbox;          /* atomic: any thread sends calls, the loop takes them */
        _Atomic uint32_t is_asleep;  /* atomic: the loop looks at the inbox only when the doorbell rings */
        struct lido_post doorbell;   /* posted by whoever finds the inbox empty and the loop asleep */
        _Atomic uint32_t is_rung;    /* atomic: it is on its way */
        _Atomic uint32_t submitters; /* atomic: threads inside shard_submit */
        _Atomic uint32_t load;       /* atomic: calls of threads that wait for their outcome; a hint */
        _Atomic uint32_t is_closing; /* atomic; the loop sets it */

        /* The loop's thread alone: */
        struct list queue;           /* of struct call, QUEUED or LEFT */
        uint32_t queue_length;
        struct list ready;           /* of struct call, with an outcome to be told */
        bool is_telling;
        struct list pipes;
        struct lido_request request; /* for one more lease */
        bool is_asking;
        uint64_t asked_ns;
        struct list alone;           /* of struct call, each of which wants a lease to itself */
        struct lido_request alone_request; /* for the first of them */
        bool is_asking_alone;
        uint64_t asked_alone_ns;
        struct lido_timer tick;      /* set while there are pipes */
        bool is_ticking;
        uv_prepare_t prepare;        /* the end of a turn */
        uv_idle_t idle;              /* so that a turn comes, where something is to be sent */
        bool is_due;
        uint32_t handles;            /* open, those of pipes included */
        void (*closed)(void *context);
        void *closed_context;

        /* Of a shard that has a thread: */
        struct thread thread;
        bool has_thread;             /* set in open, then constant */
        _Atomic uint32_t is_ready;   /* atomic: start_code is known */
        int start_code;
        struct lido_post stop;
};

/* Begin to live on a loop. Loop's thread. Returns: LIDO_OK; LIDO_ELOOP. */
int shard_open(struct shard *shard, struct lido_loop *loop);

/* Fail what waits, give up what is under way, and close the handles; then `closed`. Loop's thread. */
void shard_close(struct shard *shard, void (*closed)(void *context), void *context);

/* Hand a call over. Threads: any. Returns: LIDO_OK; LIDO_ECLOSED. */
int shard_submit(struct shard *shard, struct call *call);

/* Is there so much under way that one more is better off with the others, even when a connection is idle? Threads: any. */
bool shard_is_hot(struct shard *shard);

/* Make a call on the loop's own thread. Returns: LIDO_OK; LIDO_ECLOSED; LIDO_EQUEUEFULL, and the call stays the caller's. */
int shard_call(struct shard *shard, struct call *call, uint64_t deadline_ns);

/* ---- the multiplexer (mux.c) ----------------------------------------------------------------------------- */

struct lido_pg_mux {
        struct lido_pool *pool;       /* constant */
        _Atomic uint32_t users;       /* atomic: its owner, and calls inside */
        _Atomic uint32_t is_closed;   /* atomic */
        struct counters counters;
        uint32_t shard_count;         /* constant */
        void (*closed)(void *context); /* of a multiplexer on a loop: loop's thread */
        void *closed_context;
        struct shard shards[];
};

/* ---- a lease to itself (mux_direct.c) -------------------------------------------------------------------- */

/* Run a borrowed call from a thread, and end the lease; past the deadline the pipe goes on to the shard, which waits for its end.
 * Returns: the call's code; LIDO_ESTALE when the connection was lost before anything was sent. */
int direct_run(struct shard *shard, lido_lease lease, struct call *call, uint64_t deadline_ns);

#endif
