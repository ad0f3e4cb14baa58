#include "keeper/bell.h"

#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Silenced first: a ring from here on is for the next call. */
static void on_event(uv_poll_t *poll, int status, int events)
{
        struct bell *bell = poll->data;
        uint64_t count;

        (void)status;
        (void)events;
        if (read(bell->fd, &count, sizeof count) < 0)
                return; /* no ring after all */
        bell->on_ring(bell->context);
}

int bell_open(struct bell *bell, uv_loop_t *loop, void (*on_ring)(void *context), void *context)
{
        int rc;

        bell->on_ring = on_ring;
        bell->context = context;
        bell->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (bell->fd < 0)
                return UV_EMFILE;
        rc = uv_poll_init(loop, &bell->poll, bell->fd);
        if (rc != 0) {
                close(bell->fd);
                return rc;
        }
        bell->poll.data = bell;
        uv_poll_start(&bell->poll, UV_READABLE, on_event);
        return 0;
}

void bell_ring(struct bell *bell)
{
        const uint64_t once = 1;

        if (write(bell->fd, &once, sizeof once) < 0)
                return; /* it has been rung already, very often */
}

static void on_poll_closed(uv_handle_t *handle)
{
        struct bell *bell = handle->data;

        close(bell->fd); /* not before libuv is done with it */
        bell->on_closed(bell->context);
}

void bell_close(struct bell *bell, void (*on_closed)(void *context))
{
        bell->on_closed = on_closed;
        uv_close((uv_handle_t *)&bell->poll, on_poll_closed);
}

void bell_ref(struct bell *bell)
{
        uv_ref((uv_handle_t *)&bell->poll);
}

void bell_unref(struct bell *bell)
{
        uv_unref((uv_handle_t *)&bell->poll);
}
