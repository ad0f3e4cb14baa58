/* pg/listen_loop.c - a listener on a libuv loop.
 *
 *      acquire -> LISTEN, one after the other -> watch the socket -> lost, or silent for too long -> pause -> acquire
 *
 * One thing at a time is under way: an acquire, a call (LISTEN, or the check), or the watch on the socket, which is off while a call
 * reads from it. The watch has a descriptor and a heap handle of its own, that go when libuv has closed it. Closed by its owner, a
 * listener calls nobody back any more, and its memory goes when what was under way has ended.
 */
#include "pg/listen.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "pg/session.h"
#include "pg/work.h"

struct listen_watch {
        uv_poll_t poll;
        int fd;
        struct lido_pg_listener *listener; /* NULL once it is on its way out */
        struct lido_loop *loop;
};

static void acquire(struct lido_pg_listener *listener);

static struct lido_pg_listener *listener_of(const void *member, size_t offset)
{
        return (struct lido_pg_listener *)(void *)((char *)(uintptr_t)member - offset);
}

static void let_go(struct lido_pg_listener *listener)
{
        struct lido_loop *loop = listener->loop;

        if (listener->is_acquiring || listener->is_calling || listener->is_busy || !listener->is_closed)
                return;
        listen_give_back(listener);
        listen_free(listener);
        lido_loop_unhold(loop);
}

static void tell(struct lido_pg_listener *listener, const struct lido_pg_notification *notification)
{
        if (!listener->is_closed)
                listener->options.on_notification(listener, notification, listener->options.context);
}

static void tell_kind(struct lido_pg_listener *listener, int kind, int status)
{
        struct lido_pg_notification notification = { .kind = kind, .status = status };

        tell(listener, &notification);
}

/* ---- the watch --------------------------------------------------------------------------------------------- */

static void on_watch_closed(uv_handle_t *handle)
{
        struct listen_watch *watch = handle->data;
        struct lido_loop *loop = watch->loop;

        close(watch->fd);
        mem_free(watch);
        lido_loop_unhold(loop);
}

static void watch_off(struct lido_pg_listener *listener)
{
        if (!listener->watch)
                return;
        listener->watch->listener = NULL;
        uv_close((uv_handle_t *)&listener->watch->poll, on_watch_closed);
        listener->watch = NULL;
}

/* ---- again ------------------------------------------------------------------------------------------------- */

static void on_pause_over(struct lido_timer *timer)
{
        acquire(listener_of(timer, offsetof(struct lido_pg_listener, timer)));
}

static void try_again(struct lido_pg_listener *listener)
{
        watch_off(listener);
        listen_drop(listener);
        listener->timer.run = on_pause_over;
        lido_timer_set(listener->loop, &listener->timer, clock_now_ns() + listen_pause_ns(listener));
}

static void end(struct lido_pg_listener *listener, int status)
{
        listener->is_busy = true; /* the callback may close it */
        tell_kind(listener, LIDO_PG_LISTEN_ENDED, status);
        listener->is_busy = false;
        let_go(listener);
}

/* ---- listening --------------------------------------------------------------------------------------------- */

/* Returns: false when the listener was closed by a callback, or has lost its connection. */
static bool give_notifications(struct lido_pg_listener *listener)
{
        struct pg_session *session;
        PGnotify *notify;

        while ((session = listen_session(listener)) != NULL && (notify = PQnotifies(session->conn)) != NULL) {
                struct lido_pg_notification notification;

                listen_fill(listener, notify, &notification);
                tell(listener, &notification);
                if (listener->is_closed)
                        return false;
        }
        if (!session)
                try_again(listener);
        return session != NULL;
}

static void check(struct lido_pg_listener *listener);

static void on_silence(struct lido_timer *timer)
{
        struct lido_pg_listener *listener = listener_of(timer, offsetof(struct lido_pg_listener, timer));

        if (clock_now_ns() >= clock_after_ms(listener->heard_ns, listener->options.check_ms))
                check(listener);
        else
                lido_timer_set(listener->loop, timer, clock_after_ms(listener->heard_ns, listener->options.check_ms));
}

static void on_event(uv_poll_t *poll, int status, int events)
{
        struct lido_pg_listener *listener = ((struct listen_watch *)poll->data)->listener;
        struct pg_session *session;
        bool is_alive;

        (void)events;
        (void)status;
        if (!listener)
                return;
        listener->is_busy = true; /* a callback may close it */
        do {
                is_alive = listen_read(listener);
                session = listen_session(listener);
                if (is_alive && !give_notifications(listener))
                        break;
                if (!is_alive)
                        try_again(listener);
        } while (is_alive && session && work_has_pending(session->conn));
        listener->is_busy = false;
        let_go(listener);
}

static void watch_on(struct lido_pg_listener *listener)
{
        struct pg_session *session = listen_session(listener);
        struct listen_watch *watch = session ? mem_zalloc(sizeof *watch) : NULL;

        if (!watch) {
                try_again(listener);
                return;
        }
        watch->fd = fcntl(session->line->fd, F_DUPFD_CLOEXEC, 0);
        if (watch->fd < 0 || uv_poll_init(lido_loop_uv(listener->loop), &watch->poll, watch->fd) != 0) {
                if (watch->fd >= 0)
                        close(watch->fd);
                mem_free(watch);
                try_again(listener);
                return;
        }
        watch->poll.data = watch;
        watch->listener = listener;
        watch->loop = listener->loop;
        lido_loop_hold(listener->loop);
        listener->watch = watch;
        listener->heard_ns = clock_now_ns();
        listener->timer.run = on_silence;
        lido_timer_set(listener->loop, &listener->timer, clock_after_ms(listener->heard_ns, listener->options.check_ms));
        uv_poll_start(&watch->poll, UV_READABLE, on_event);
        give_notifications(listener); /* what came with the answers of LISTEN or of the check */
}

/* ---- calls ------------------------------------------------------------------------------------------------- */

static void on_called(struct lido_pg_call *call, int status, PGresult *result);

static void run(struct lido_pg_listener *listener, const char *sql, int64_t timeout_ms)
{
        struct lido_pg_query_options options = LIDO_PG_QUERY_OPTIONS_INIT;

        options.timeout_ms = timeout_ms;
        options.prepare = LIDO_PG_PREPARE_NEVER;
        memset(&listener->call, 0, sizeof listener->call);
        listener->call.data = listener;
        listener->call.loop = listener->loop;
        listener->call.lease = listener->lease;
        listener->call.on_done = on_called;
        listener->is_calling = lido_pg_query_async(NULL, &listener->call, sql, NULL, 0, &options) == LIDO_OK;
        if (!listener->is_calling)
                try_again(listener);
}

static void check(struct lido_pg_listener *listener)
{
        watch_off(listener);
        listener->is_checking = true;
        run(listener, "", CHECK_TIMEOUT_MS);
}

static void listen_next(struct lido_pg_listener *listener)
{
        run(listener, listener->statements[listener->next], CHECK_TIMEOUT_MS);
}

static void begin_to_listen(struct lido_pg_listener *listener)
{
        int kind = listener->has_listened ? LIDO_PG_MISSED : LIDO_PG_LISTENING;

        listener->failures = 0;
        listener->has_listened = true;
        tell_kind(listener, kind, LIDO_OK);
        if (!listener->is_closed)
                watch_on(listener);
}

static void on_called(struct lido_pg_call *call, int status, PGresult *result)
{
        struct lido_pg_listener *listener = call->data;

        PQclear(result);
        if (listener->is_closed) {
                listen_drop(listener);
        } else if (status != LIDO_OK) {
                listener->is_checking = false;
                try_again(listener);
        } else if (listener->is_checking) {
                listener->is_checking = false;
                watch_on(listener);
        } else if (++listener->next < listener->options.channel_count) {
                listen_next(listener);
                return;
        } else {
                begin_to_listen(listener);
        }
        if (listener->call.own == NULL)
                listener->is_calling = false;
        let_go(listener);
}

static void on_acquired(struct lido_request *request, int status, lido_lease lease)
{
        struct lido_pg_listener *listener = request->data;

        listener->is_acquiring = false;
        listener->lease = lease;
        listener->is_leased = status == LIDO_OK;
        listener->next = 0;
        if (listener->is_closed) {
                listen_give_back(listener);
                let_go(listener);
        } else if (listener->is_leased) {
                listen_next(listener);
        } else if (listen_is_final(status)) {
                end(listener, status);
        } else {
                try_again(listener);
        }
}

static int request(struct lido_pg_listener *listener)
{
        int rc;

        listener->request.loop = listener->loop;
        listener->request.data = listener;
        rc = lido_acquire_async_at(listener->pool, &listener->request, LIDO_TIMEOUT_DEFAULT, on_acquired, "lido_pg_listen");
        listener->is_acquiring = rc == LIDO_OK;
        return rc;
}

static void acquire(struct lido_pg_listener *listener)
{
        int rc = request(listener);

        if (rc != LIDO_OK && listen_is_final(rc))
                end(listener, rc);
        else if (rc != LIDO_OK)
                try_again(listener);
}

/* ---- begin and end ----------------------------------------------------------------------------------------- */

int listen_loop_start(struct lido_pg_listener *listener)
{
        int rc = request(listener);

        if (rc == LIDO_OK)
                lido_loop_hold(listener->loop);
        return rc;
}

void listen_loop_close(struct lido_pg_listener *listener)
{
        if (listener->is_closed)
                return;
        listener->is_closed = true;
        lido_timer_clear(listener->loop, &listener->timer);
        watch_off(listener);
        if (listener->is_acquiring)
                lido_cancel(&listener->request);
        else if (listener->is_calling)
                lido_pg_call_cancel(&listener->call);
        let_go(listener);
}
