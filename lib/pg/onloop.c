#include "pg/onloop.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "pg/connect.h"
#include "pg/failure.h"
#include "pg/session.h"

/* A watch on one step's descriptor, or the timer. Each goes by itself, in the callback of its uv_close. */
struct eye {
        uv_poll_t poll;
        int fd; /* a dup */
        struct loop_connect *owner;
};

struct loop_connect {
        struct list link;
        uv_timer_t timer;
        struct eye *eye; /* NULL: none */
        struct pg_connectors *connectors;
        lido_op op;
        struct connect connect;
};

static void go_on(struct loop_connect *self, bool is_ready);

static void on_eye_closed(uv_handle_t *handle)
{
        struct eye *eye = handle->data;

        close(eye->fd); /* not before libuv is done with it */
        mem_free(eye);
}

static void close_eye(struct loop_connect *self)
{
        if (self->eye)
                uv_close((uv_handle_t *)&self->eye->poll, on_eye_closed);
        self->eye = NULL;
}

static void on_event(uv_poll_t *poll, int status, int events)
{
        struct eye *eye = poll->data;

        (void)status;
        (void)events;
        go_on(eye->owner, true);
}

static void on_due(uv_timer_t *timer)
{
        go_on(timer->data, false);
}

/* Returns: false when the loop cannot watch it. */
static bool open_eye(struct loop_connect *self, enum connect_want want)
{
        static const int events[] = {
                [CONNECT_READ] = UV_READABLE,
                [CONNECT_WRITE] = UV_WRITABLE,
                [CONNECT_READ_WRITE] = UV_READABLE | UV_WRITABLE,
        };
        struct eye *eye = mem_zalloc(sizeof *eye);

        if (!eye)
                return false;
        eye->fd = fcntl(connect_fd(&self->connect), F_DUPFD_CLOEXEC, 0);
        if (eye->fd < 0 || uv_poll_init(self->timer.loop, &eye->poll, eye->fd) != 0) {
                if (eye->fd >= 0)
                        close(eye->fd);
                mem_free(eye);
                return false;
        }
        uv_unref((uv_handle_t *)&eye->poll);
        eye->poll.data = eye;
        eye->owner = self;
        self->eye = eye;
        return uv_poll_start(&eye->poll, events[want], on_event) == 0;
}

/* A loop that was busy has an old idea of the time, and would find a timer due at once. */
static void set_timer(struct loop_connect *self)
{
        uint64_t due_ns = connect_due_ns(&self->connect);

        uv_timer_stop(&self->timer);
        if (due_ns == CLOCK_NEVER)
                return;
        uv_update_time(self->timer.loop);
        uv_timer_start(&self->timer, on_due, (uint64_t)clock_poll_ms(due_ns), 0);
}

static void on_closed(uv_handle_t *timer)
{
        mem_free(timer->data);
}

static void finish(struct loop_connect *self, enum connect_want outcome)
{
        struct pg_session *session = NULL;
        struct lido_error error = *connect_error(&self->connect);
        int rc = outcome == CONNECT_DONE ? connectors_wrap(self->connectors, &self->connect, &session, &error) : error.code;
        lido_op op = self->op;

        list_unlink(&self->link);
        connect_fini(&self->connect);
        uv_close((uv_handle_t *)&self->timer, on_closed);
        if (rc == LIDO_OK)
                connectors_answer(self->connectors, op, session);
        else
                lido_op_failed(op, &error);
}

static void go_on(struct loop_connect *self, bool is_ready)
{
        enum connect_want want;

        close_eye(self); /* before libpq closes what it watches */
        want = connect_advance(&self->connect, is_ready);
        if (want < CONNECT_DONE && open_eye(self, want)) {
                set_timer(self);
                return;
        }
        close_eye(self);
        if (want < CONNECT_DONE) {
                connect_give_up(&self->connect, LIDO_EFACTORY, "the loop cannot watch the connection: no memory, or no descriptors left");
                want = CONNECT_FAILED;
        }
        finish(self, want);
}

void onloop_open(struct onloop *onloop, struct pg_connectors *connectors, const struct connect_tools *tools, lido_op op)
{
        struct loop_connect *self = mem_zalloc(sizeof *self);

        if (!self || uv_timer_init(onloop->loop, &self->timer) != 0) {
                struct lido_error error;

                failure_set(&error, LIDO_ENOMEM, LIDO_FAILURE_TRANSIENT, "out of memory");
                mem_free(self);
                lido_op_failed(op, &error);
                return;
        }
        uv_unref((uv_handle_t *)&self->timer);
        self->timer.data = self;
        self->connectors = connectors;
        self->op = op;
        list_push_back(&onloop->connects, &self->link);
        connect_begin(&self->connect, tools, op);
        uv_timer_start(&self->timer, on_due, 0, 0); /* one step a turn, the first one too */
}

void onloop_cancel(struct onloop *onloop, lido_op op)
{
        list_for_each(it, &onloop->connects) {
                struct loop_connect *self = list_entry(it, struct loop_connect, link);

                if (self->op.slot != op.slot || self->op.ticket != op.ticket)
                        continue;
                close_eye(self);
                connect_abort(&self->connect);
                finish(self, CONNECT_FAILED);
                return;
        }
}
