/* buffer_echo - a libuv echo server that reads straight into lent buffers and writes them back without a
 * copy.
 *
 * A read callback owns its buffer. Lines that begin with '#' are handed to a worker thread, which turns them
 * into capitals and hands the same buffer back to the loop: nothing is copied there either. A write callback
 * releases the buffer, on the loop's thread, wherever it was acquired.
 *
 *      buffer_echo [PORT]        listens on 127.0.0.1; says "listening on PORT", and on SIGTERM or SIGINT how
 * it went
 *
 * To show that a request allocates nothing once things are warm, malloc and its kin are counted: SIGUSR1 marks
 * half-time, which is answered by "half-time at request N", and the last line says how many allocations were made since.
 */
#include <ctype.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include <lido/buffer.h>

#include "allocations.h"

#define READ_BYTES 16384

/* ---- a message: one buffer on its way through the server -------------------------------------------------
 */

struct server;

struct connection {
        struct lido_buffer_uv from; /* first, for lido_buffer_uv_alloc */
        uv_tcp_t tcp;
        struct server *server;
        unsigned pending; /* messages of this connection under way */
        int is_closing;
};

/* It lies at the end of the buffer that it describes, so that a request needs no memory but its buffer. */
struct message {
        uv_write_t write;
        struct connection *connection;
        struct message *next;
        char *base;
        size_t length;
};

struct server {
        uv_loop_t loop;
        uv_tcp_t listener;
        uv_signal_t on_int, on_term;
        uv_async_t done_async;
        struct lido_loop *lido_loop;
        struct lido_buffer_pool *buffers;     /* read into */
        struct lido_buffer_pool *connections; /* struct connection, one size */

        pthread_t worker;
        pthread_mutex_t lock;
        pthread_cond_t work;
        struct message *to_do, **to_do_end; /* guarded by lock */
        struct message *done;               /* guarded by lock */
        int stopping;                       /* guarded by lock */

        unsigned long requests, half_requests, half_allocations;
};

static struct message *message_in(char *base)
{
        size_t bytes = lido_buffer_bytes(base);

        return (struct message *)(void *)(base + ((bytes - sizeof(struct message)) &
                                                  ~(_Alignof(struct message) - 1)));
}

/* ---- connections -----------------------------------------------------------------------------------------
 */

static void connection_end(struct connection *connection)
{
        if (connection->is_closing == 2 && connection->pending == 0)
                lido_buffer_release(connection);
}

static void on_closed(uv_handle_t *handle)
{
        struct connection *connection = handle->data;

        connection->is_closing = 2;
        connection_end(connection);
}

static void connection_close(struct connection *connection)
{
        if (connection->is_closing)
                return;
        connection->is_closing = 1;
        uv_close((uv_handle_t *)&connection->tcp, on_closed);
}

static void message_end(struct message *message)
{
        struct connection *connection = message->connection;

        lido_buffer_release(message->base);
        connection->pending--;
        connection_end(connection);
}

static void on_written(uv_write_t *write, int status)
{
        struct message *message = (struct message *)(void *)((char *)write - offsetof(struct message, write));

        if (status != 0)
                connection_close(message->connection);
        message_end(message);
}

static void message_send(struct message *message)
{
        struct connection *connection = message->connection;
        uv_buf_t buf = uv_buf_init(message->base, (unsigned)message->length);

        if (connection->is_closing ||
            uv_write(&message->write, (uv_stream_t *)&connection->tcp, &buf, 1, on_written) != 0)
                message_end(message);
}

/* ---- the worker ------------------------------------------------------------------------------------------
 */

static void *work(void *context)
{
        struct server *server = context;

        for (;;) {
                struct message *message;

                pthread_mutex_lock(&server->lock);
                while (!server->to_do && !server->stopping)
                        pthread_cond_wait(&server->work, &server->lock);
                message = server->to_do;
                if (message) {
                        server->to_do = message->next;
                        if (!server->to_do)
                                server->to_do_end = &server->to_do;
                }
                pthread_mutex_unlock(&server->lock);
                if (!message)
                        return NULL;
                for (size_t i = 0; i < message->length; i++)
                        message->base[i] = (char)toupper((unsigned char)message->base[i]);
                pthread_mutex_lock(&server->lock);
                message->next = server->done;
                server->done = message;
                pthread_mutex_unlock(&server->lock);
                uv_async_send(&server->done_async);
        }
}

static void on_done(uv_async_t *async)
{
        struct server *server = async->data;
        struct message *message, *oldest = NULL;

        pthread_mutex_lock(&server->lock);
        message = server->done;
        server->done = NULL;
        pthread_mutex_unlock(&server->lock);
        while (message) {
                struct message *next = message->next;

                message->next = oldest;
                oldest = message;
                message = next;
        }
        while (oldest) {
                struct message *next = oldest->next;

                message_send(oldest);
                oldest = next;
        }
}

static void hand_over(struct server *server, struct message *message)
{
        message->next = NULL;
        pthread_mutex_lock(&server->lock);
        *server->to_do_end = message;
        server->to_do_end = &message->next;
        pthread_cond_signal(&server->work);
        pthread_mutex_unlock(&server->lock);
}

/* ---- reading ---------------------------------------------------------------------------------------------
 */

/* Leave room for the message behind what is read. */
static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
        lido_buffer_uv_alloc(handle, suggested, buf);
        if (buf->base)
                buf->len = (size_t)((char *)message_in(buf->base) - buf->base);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
        struct connection *connection = stream->data;
        struct server *server = connection->server;
        struct message *message;

        if (n <= 0) {
                lido_buffer_uv_release(buf);
                if (n < 0)
                        connection_close(connection);
                return;
        }
        server->requests++;
        message = message_in(buf->base);
        message->connection = connection;
        message->base = buf->base;
        message->length = (size_t)n;
        connection->pending++;
        if (buf->base[0] == '#')
                hand_over(server, message);
        else
                message_send(message);
}

static void on_connection(uv_stream_t *listener, int status)
{
        struct server *server = listener->data;
        struct connection *connection;
        void *buffer;

        if (status != 0 ||
            lido_buffer_try_acquire(server->connections, sizeof *connection, &buffer) != LIDO_OK)
                return;
        connection = memset(buffer, 0, sizeof *connection);
        connection->from.pool = server->buffers;
        connection->from.bytes = READ_BYTES;
        connection->server = server;
        uv_tcp_init(&server->loop, &connection->tcp);
        connection->tcp.data = connection;
        if (uv_accept(listener, (uv_stream_t *)&connection->tcp) != 0 ||
            uv_read_start((uv_stream_t *)&connection->tcp, on_alloc, on_read) != 0)
                connection_close(connection);
}

/* ---- start and stop --------------------------------------------------------------------------------------
 */

static void close_any(uv_handle_t *handle, void *server)
{
        if (uv_is_closing(handle) || handle->type != UV_TCP)
                return;
        if (handle == (uv_handle_t *)&((struct server *)server)->listener)
                uv_close(handle, NULL);
        else
                connection_close(handle->data);
}

/* SIGUSR1's part of a load test: remember where half-time was, and say so, for a signal is handled some time after it
 * was sent. */
static void on_half(uv_signal_t *handle, int number)
{
        struct server *server = handle->data;

        (void)number;
        server->half_requests = server->requests;
        server->half_allocations = atomic_load(&allocations);
        printf("half-time at request %lu\n", server->half_requests);
        fflush(stdout);
}

static void on_stop(uv_signal_t *handle, int number)
{
        struct server *server = handle->data;

        (void)number;
        printf("requests %lu, allocations %lu; since half-time requests %lu, allocations %lu\n",
               server->requests, atomic_load(&allocations), server->requests - server->half_requests,
               atomic_load(&allocations) - server->half_allocations);
        fflush(stdout);
        pthread_mutex_lock(&server->lock);
        server->stopping = 1;
        pthread_cond_signal(&server->work);
        pthread_mutex_unlock(&server->lock);
        pthread_join(server->worker, NULL);
        on_done(&server->done_async);
        uv_walk(&server->loop, close_any, server);
        uv_close((uv_handle_t *)&server->done_async, NULL);
        uv_close((uv_handle_t *)&server->on_int, NULL);
        uv_close((uv_handle_t *)&server->on_term, NULL);
        lido_buffer_pool_close(server->buffers);
        lido_buffer_pool_close(server->connections);
}

static int must(int rc, const char *what)
{
        if (rc != 0) {
                fprintf(stderr, "buffer_echo: %s: %d\n", what, rc);
                exit(1);
        }
        return rc;
}

static void listen_on(struct server *server, int port)
{
        struct sockaddr_in address;
        struct sockaddr_storage bound;
        int length = sizeof bound;

        uv_ip4_addr("127.0.0.1", port, &address);
        must(uv_tcp_init(&server->loop, &server->listener), "socket");
        server->listener.data = server;
        must(uv_tcp_bind(&server->listener, (const struct sockaddr *)&address, 0), "bind");
        must(uv_listen((uv_stream_t *)&server->listener, 128, on_connection), "listen");
        must(uv_tcp_getsockname(&server->listener, (struct sockaddr *)&bound, &length), "name");
        printf("listening on %d\n", ntohs(((struct sockaddr_in *)(void *)&bound)->sin_port));
        fflush(stdout);
}

int main(int argc, char **argv)
{
        static struct server server;
        struct lido_buffer_options options = LIDO_BUFFER_OPTIONS_INIT;
        uv_signal_t half;

        server.to_do_end = &server.to_do;
        pthread_mutex_init(&server.lock, NULL);
        pthread_cond_init(&server.work, NULL);
        must(uv_loop_init(&server.loop), "loop");
        must(lido_loop_open(&server.lido_loop, &server.loop), "lido loop");

        options.name = "reads";
        options.max_bytes = (size_t)64 << 20;
        options.loop = server.lido_loop;
        must(lido_buffer_pool_open(&server.buffers, &options), "buffers");
        options.name = "connections";
        options.buffer_bytes = sizeof(struct connection);
        must(lido_buffer_pool_open(&server.connections, &options), "connections");

        must(uv_async_init(&server.loop, &server.done_async, on_done), "async");
        server.done_async.data = server.on_int.data = server.on_term.data = half.data = &server;
        must(uv_signal_init(&server.loop, &server.on_int), "signal");
        must(uv_signal_init(&server.loop, &server.on_term), "signal");
        must(uv_signal_init(&server.loop, &half), "signal");
        must(uv_signal_start(&server.on_int, on_stop, SIGINT), "signal");
        must(uv_signal_start(&server.on_term, on_stop, SIGTERM), "signal");
        must(uv_signal_start(&half, on_half, SIGUSR1), "signal");
        uv_unref((uv_handle_t *)&half);
        must(pthread_create(&server.worker, NULL, work, &server), "worker");
        listen_on(&server, argc > 1 ? atoi(argv[1]) : 0);

        uv_run(&server.loop, UV_RUN_DEFAULT);

        uv_close((uv_handle_t *)&half, NULL);
        lido_buffer_pool_free(server.buffers);
        lido_buffer_pool_free(server.connections);
        lido_loop_close(server.lido_loop, NULL, NULL);
        uv_run(&server.loop, UV_RUN_DEFAULT);
        return uv_loop_close(&server.loop) == 0 ? 0 : 1;
}
