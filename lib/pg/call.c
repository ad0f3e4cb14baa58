/* pg/call.c - one statement from a libuv loop: its connection, its rows and its end come by callback, and nothing waits.
 *
 * The engine is that of the threads (ask.h); here a uv_poll tells it when the socket is ready. It watches a descriptor of its own, a
 * dup of the session's line: libuv takes a descriptor only once in a loop, and the pool's watch may be on the same one. A call's
 * memory goes when libuv has closed that handle; the caller's struct is his again when on_done is called.
 *
 * What has been read already, by libpq or inside OpenSSL, never makes the socket readable again. So whoever goes on after a pause
 * reads first and waits then.
 */
#include "lido/pg.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/sized.h"
#include "lido/loop.h"
#include "pg/ask.h"
#include "pg/failure.h"
#include "pg/lease.h"
#include "pg/params.h"
#include "pg/pool.h"
#include "pg/session.h"

/* loop thread, all of it */
struct pg_call {
        struct lido_pg_call *call; /* NULL once it is over */
        struct lido_loop *loop;
        struct lido_request request;
        struct lido_timer timer;
        struct lido_post post;
        bool is_posted;
        bool is_acquiring;
        bool is_owned;             /* the lease is the call's */
        bool is_leased;
        bool is_paused;
        bool is_cancelled;
        bool has_poll;
        int events;                /* that the poll waits for; 0: it does not */
        int fd;                    /* the poll's */
        uv_poll_t poll;
        lido_lease lease;
        struct pg_session *session;
        struct question question;
        struct lido_pg_param *params; /* with everything that they point to */
        struct ask ask;
        PGresult *result;          /* the whole, where the caller does not take row by row */
};

static void free_own(struct pg_call *own)
{
        struct lido_loop *loop = own->loop;

        PQclear(own->result);
        mem_free(own->params);
        mem_free(own);
        lido_loop_unhold(loop);
}

static void on_closed(uv_handle_t *handle)
{
        struct pg_call *own = handle->data;

        close(own->fd);
        free_own(own);
}

/* A posted one goes when its post has run. */
static void let_go(struct pg_call *own)
{
        if (own->has_poll)
                uv_close((uv_handle_t *)&own->poll, on_closed);
        else
                free_own(own);
}

/* Back to the pool, or to the caller, whose next call is possible if this one's answer is all in. */
static void give_back(struct pg_call *own)
{
        if (!own->is_leased)
                return;
        own->is_leased = false;
        if (own->is_owned)
                lido_release_at(own->lease, "lido_pg_query_async");
        else if (own->session && lido_object(own->lease) == own->session && own->session->conn && ask_is_over(&own->ask) &&
                 own->ask.error.code != LIDO_EBUSY) /* the connection is another statement's */
                PQsetnonblocking(own->session->conn, 0);
}

static void finish(struct pg_call *own, int status)
{
        struct lido_pg_call *call = own->call;
        PGresult *result = status == LIDO_OK ? own->result : NULL;

        if (!call)
                return;
        lido_timer_clear(own->loop, &own->timer);
        give_back(own);
        if (result)
                own->result = NULL;
        call->affected = own->ask.affected;
        call->own = NULL;
        own->call = NULL;
        if (!own->is_posted)
                let_go(own);
        call->on_done(call, status, result);
}

static void finish_with(struct pg_call *own, int status, const char *text)
{
        if (own->call)
                failure_set(&own->call->error, status, LIDO_FAILURE_TRANSIENT, text);
        finish(own, status);
}

static void finish_by_ask(struct pg_call *own)
{
        ask_judge_lateness(&own->ask, own->question.deadline_ns);
        own->call->error = own->ask.error;
        finish(own, own->ask.error.code);
}

/* ---- going on ---------------------------------------------------------------------------------------------- */

static void go_on(struct pg_call *own);

static void on_event(uv_poll_t *poll, int status, int events)
{
        struct pg_call *own = poll->data;

        (void)events;
        if (!own->call || own->is_paused || own->is_cancelled)
                return;
        if (status < 0) /* libuv has stopped it; what is wrong is told by what is read */
                own->events = 0;
        ask_ready(&own->ask);
        go_on(own);
}

static void wait_for(struct pg_call *own, int events)
{
        if (own->events == events)
                return;
        own->events = events;
        if (uv_poll_start(&own->poll, events, on_event) != 0)
                finish_with(own, LIDO_ELOOP, lido_strerror(LIDO_ELOOP));
}

static void pause_reading(struct pg_call *own)
{
        own->is_paused = true;
        own->events = 0;
        uv_poll_stop(&own->poll);
}

/* Returns: true to go on. */
static bool give_rows(struct pg_call *own, PGresult *result)
{
        struct lido_pg_call *call = own->call;
        int wish = 0;

        for (int index = 0; index < PQntuples(result) && wish == 0; index++) {
                struct lido_pg_row row = { result, index };

                wish = call->on_row(call, &row);
        }
        PQclear(result);
        if (own->is_cancelled)
                return false; /* what was posted ends it */
        if (wish < 0) {
                lido_pg_cancel(own->lease, 0);
                finish_with(own, LIDO_ECANCELED, lido_strerror(LIDO_ECANCELED));
                return false;
        }
        if (wish > 0)
                pause_reading(own);
        return wish == 0;
}

static bool take(struct pg_call *own, PGresult *result)
{
        if (own->call->on_row)
                return give_rows(own, result);
        PQclear(own->result);
        own->result = result;
        return true;
}

/* The lease may have been taken back by the pool, or ended by the caller. */
static bool is_valid(const struct pg_call *own)
{
        return lido_object(own->lease) == own->session && own->session->conn;
}

static void go_on(struct pg_call *own)
{
        if (!is_valid(own)) {
                finish_with(own, LIDO_ESTALE, lido_strerror(LIDO_ESTALE));
                return;
        }
        for (;;) {
                PGresult *result;

                switch (ask_next(&own->ask, &result)) {
                case ASK_RESULT:
                        if (!take(own, result))
                                return;
                        break;
                case ASK_READ:
                        wait_for(own, UV_READABLE);
                        return;
                case ASK_READ_WRITE:
                        wait_for(own, UV_READABLE | UV_WRITABLE);
                        return;
                case ASK_DONE:
                        finish(own, LIDO_OK);
                        return;
                case ASK_FAILED:
                        finish_by_ask(own);
                        return;
                }
        }
}

static void on_deadline(struct lido_timer *timer)
{
        struct pg_call *own = (struct pg_call *)(void *)((char *)timer - offsetof(struct pg_call, timer));

        if (!own->ask.tells_server && is_valid(own))
                lido_pg_cancel(own->lease, 0);
        finish_with(own, LIDO_EDEADLINE, "the statement was not done by its deadline");
}

static void begin(struct pg_call *own)
{
        own->session = lido_object(own->lease);
        if (!own->session) { /* taken back on the way here */
                finish_with(own, LIDO_ESTALE, lido_strerror(LIDO_ESTALE));
                return;
        }
        if (!own->session->conn) {
                finish_with(own, LIDO_EFACTORY, "the connection is lost");
                return;
        }
        own->fd = fcntl(own->session->line->fd, F_DUPFD_CLOEXEC, 0);
        if (own->fd < 0 || uv_poll_init(lido_loop_uv(own->loop), &own->poll, own->fd) != 0) {
                if (own->fd >= 0)
                        close(own->fd);
                finish_with(own, LIDO_ELOOP, lido_strerror(LIDO_ELOOP));
                return;
        }
        own->poll.data = own;
        own->has_poll = true;
        own->timer.run = on_deadline;
        lido_timer_set(own->loop, &own->timer, own->question.deadline_ns);
        ask_start(&own->ask, own->session, &own->question);
        go_on(own);
}

static void on_acquired(struct lido_request *request, int status, lido_lease lease)
{
        struct pg_call *own = request->data;

        own->is_acquiring = false;
        own->lease = lease;
        own->is_leased = status == LIDO_OK;
        if (own->is_leased && own->is_cancelled) /* it was on its way here */
                status = LIDO_ECANCELED;
        if (status == LIDO_OK)
                begin(own);
        else
                finish_with(own, status, lido_strerror(status));
}

static void on_post(struct lido_post *post)
{
        struct pg_call *own = (struct pg_call *)(void *)((char *)post - offsetof(struct pg_call, post));

        own->is_posted = false;
        if (!own->call) {
                let_go(own);
        } else if (own->is_cancelled) {
                finish_with(own, LIDO_ECANCELED, lido_strerror(LIDO_ECANCELED));
        } else if (!own->has_poll) {
                begin(own);
        } else if (!own->is_paused) {
                ask_ready(&own->ask);
                go_on(own);
        }
}

static void post(struct pg_call *own)
{
        if (own->is_posted)
                return;
        own->is_posted = true;
        own->post.run = on_post;
        lido_loop_post(own->loop, &own->post);
}

/* ---- the face ---------------------------------------------------------------------------------------------- */

static int check(const struct lido_pool *pool, const struct lido_pg_call *call, bool has_lease)
{
        if (!call || !call->loop || !lido_loop_is_self(call->loop) || !call->on_done)
                return LIDO_EINVAL;
        if (call->own)
                return LIDO_EBUSY;
        if (has_lease)
                return lease_check(call->lease);
        if (!pool)
                return LIDO_EINVAL;
        return pool_is_pg(pool) ? LIDO_OK : LIDO_EFOREIGN;
}

static int start(struct pg_call *own, struct lido_pool *pool, const struct lido_pg_query_options *options)
{
        if (own->is_leased) {
                post(own);
                return LIDO_OK;
        }
        own->is_owned = own->is_acquiring = true;
        own->request.loop = own->loop;
        own->request.data = own;
        return lido_acquire_async_at(pool, &own->request, options->timeout_ms ? options->timeout_ms : LIDO_TIMEOUT_DEFAULT,
                                     on_acquired, "lido_pg_query_async");
}

int lido_pg_query_async(struct lido_pool *pool, struct lido_pg_call *call, const char *sql, const struct lido_pg_param *params,
                        uint32_t param_count, const struct lido_pg_query_options *options)
{
        struct lido_pg_query_options ours;
        bool has_lease = call && call->lease.slot;
        struct pg_call *own;
        int rc = sized_take(&ours, sizeof ours, options);

        if (rc == LIDO_OK)
                rc = check(pool, call, has_lease);
        if (rc == LIDO_OK && (!sql || !params_are_valid(params, param_count) || !lease_options_are_valid(&ours)))
                rc = LIDO_EINVAL;
        if (rc != LIDO_OK)
                return rc;
        own = mem_zalloc(sizeof *own);
        if (!own)
                return LIDO_ENOMEM;
        own->params = params_copy(params, param_count, sql, &own->question.sql);
        if (!own->params) {
                mem_free(own);
                return LIDO_ENOMEM;
        }
        own->question.params = own->params;
        own->question.count = param_count;
        own->question.result_format = ours.result_format;
        own->question.prepare = ours.prepare;
        own->question.is_by_row = call->on_row != NULL;
        own->question.tells_server = ours.server_timeout == 1;
        own->question.deadline_ns = clock_deadline(ours.timeout_ms);
        own->loop = call->loop;
        own->lease = call->lease;
        own->is_leased = has_lease;
        lido_loop_hold(own->loop);
        rc = start(own, pool, &ours);
        if (rc != LIDO_OK) {
                free_own(own);
                return rc;
        }
        memset(&call->error, 0, sizeof call->error);
        call->affected = 0;
        own->call = call;
        call->own = own;
        return LIDO_OK;
}

int lido_pg_call_resume(struct lido_pg_call *call)
{
        struct pg_call *own = call ? call->own : NULL;

        if (!own || !own->is_paused)
                return LIDO_EINVAL;
        own->is_paused = false;
        post(own);
        return LIDO_OK;
}

int lido_pg_call_cancel(struct lido_pg_call *call)
{
        struct pg_call *own = call ? call->own : NULL;

        if (!own || own->is_cancelled)
                return LIDO_EINVAL;
        own->is_cancelled = true;
        if (own->is_acquiring) {
                lido_cancel(&own->request);
                return LIDO_OK;
        }
        if (own->has_poll && is_valid(own))
                lido_pg_cancel(own->lease, 0);
        post(own);
        return LIDO_OK;
}
