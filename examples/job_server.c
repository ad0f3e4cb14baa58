/* A server whose answers cost processor time: the loop reads and writes, the workers compute.
 *
 *      job_server PORT         127.0.0.1; a line with a number is answered by a line with the primes below it; 0 takes a
 *                              free port, and "listening on PORT" says which
 *
 *      $ printf '100\n1000\n' | nc -N 127.0.0.1 PORT
 *      25
 *      168
 *
 * A connection holds all that a request needs, its job among it: once it is open a request allocates nothing. It
 * takes its next line after the last one is answered, and when all workers are busy and the queue is full it says so at
 * once, so that neither memory nor waiting grows without bound. A client that hangs up cancels its job. SIGTERM and
 * SIGINT end the server once what it has accepted is answered. To show that a request allocates nothing malloc is counted:
 * SIGUSR1 marks half-time, which is answered by "half-time at request N", and the last line says what was allocated since.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include <lido.h>

#include "allocations.h"

#define MOST 10000000ul

struct connection {
        struct lido_job job; /* the first member: a job is turned back into its connection by a cast */
        uv_tcp_t tcp;
        uv_write_t write;
        unsigned long below, primes;
        int is_working; /* its job is out */
        int is_busy;    /* that, or its answer is being written */
        int is_closing;
        size_t filled;
        char input[256], output[32];
};

static uv_loop_t *uv;
static struct lido_loop *loop;
static struct lido_workers *workers;
static uv_tcp_t listener;
static uv_signal_t signals[2], half;
static unsigned long requests, half_requests, half_allocations;

static void serve_next(struct connection *connection);

/* ---- on a worker ------------------------------------------------------------------------------------------ */

static void count_primes(struct lido_job *job)
{
        struct connection *connection = (struct connection *)job;
        unsigned long primes = 0;

        for (unsigned long n = 2; n < connection->below && !lido_job_is_cancelled(job); n++) {
                unsigned long d = 2;

                while (d * d <= n && n % d != 0)
                        d++;
                primes += d * d > n;
        }
        connection->primes = primes;
}

/* ---- on the loop ------------------------------------------------------------------------------------------ */

static void on_closed(uv_handle_t *handle)
{
        free(handle->data);
}

/* The memory goes when the handle is closed and no job uses it any more. */
static void hang_up(struct connection *connection)
{
        if (!connection->is_closing) {
                connection->is_closing = 1;
                if (connection->is_working)
                        lido_job_cancel(&connection->job);
        }
        if (!connection->is_working && !uv_is_closing((uv_handle_t *)&connection->tcp))
                uv_close((uv_handle_t *)&connection->tcp, on_closed);
}

static void on_written(uv_write_t *write, int status)
{
        struct connection *connection = write->data;

        connection->is_busy = 0;
        if (status != 0)
                hang_up(connection);
        else if (!connection->is_closing)
                serve_next(connection);
}

static void answer(struct connection *connection)
{
        uv_buf_t buffer = uv_buf_init(connection->output, (unsigned)strlen(connection->output));

        connection->write.data = connection;
        if (uv_write(&connection->write, (uv_stream_t *)&connection->tcp, &buffer, 1, on_written) != 0)
                hang_up(connection);
}

static void on_counted(struct lido_job *job, int status)
{
        struct connection *connection = (struct connection *)job;

        connection->is_working = 0;
        if (connection->is_closing) {
                hang_up(connection);
                return;
        }
        if (status == LIDO_OK)
                snprintf(connection->output, sizeof connection->output, "%lu\n", connection->primes);
        else
                snprintf(connection->output, sizeof connection->output, "%s\n", lido_err_name(status));
        answer(connection);
}

static void begin(struct connection *connection, const char *line)
{
        int rc;

        requests++;
        connection->is_busy = 1;
        connection->below = strtoul(line, NULL, 10);
        if (connection->below > MOST)
                connection->below = MOST;
        connection->job.run = count_primes;
        connection->job.done = on_counted;
        connection->job.loop = loop;
        rc = lido_submit(workers, &connection->job);
        connection->is_working = rc == LIDO_OK;
        if (rc == LIDO_OK)
                return;
        snprintf(connection->output, sizeof connection->output, "%s\n", lido_err_name(rc));
        answer(connection);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_buffer)
{
        struct connection *connection = handle->data;

        (void)suggested;
        *ret_buffer = uv_buf_init(connection->input + connection->filled,
                                  (unsigned)(sizeof connection->input - connection->filled));
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
        struct connection *connection = stream->data;

        (void)buffer;
        if (count < 0) { /* it hung up, or sent a line that is longer than there is room for */
                hang_up(connection);
                return;
        }
        connection->filled += (size_t)count;
        if (!connection->is_busy)
                serve_next(connection);
        else if (connection->filled == sizeof connection->input)
                uv_read_stop(stream); /* until the answer is out */
}

/* Take the next line of the input, if there is a whole one, else read on. */
static void serve_next(struct connection *connection)
{
        char *end = memchr(connection->input, '\n', connection->filled);
        char line[sizeof connection->input];
        size_t length;

        uv_read_start((uv_stream_t *)&connection->tcp, on_alloc, on_read); /* harmless if it reads already */
        if (!end)
                return;
        *end = '\0';
        length = (size_t)(end - connection->input) + 1;
        memcpy(line, connection->input, length);
        connection->filled -= length;
        memmove(connection->input, connection->input + length, connection->filled);
        begin(connection, line);
}

static void on_connection(uv_stream_t *stream, int status)
{
        struct connection *connection;

        if (status != 0 || !(connection = calloc(1, sizeof *connection)))
                return;
        uv_tcp_init(uv, &connection->tcp);
        connection->tcp.data = connection;
        if (uv_accept(stream, (uv_stream_t *)&connection->tcp) != 0) {
                hang_up(connection);
                return;
        }
        uv_tcp_nodelay(&connection->tcp, 1); /* short answers to a client that asks ahead */
        serve_next(connection);
}

/* No new connections; those that are open are closed as their clients hang up, and then the loop has nothing left. */
static void on_signal(uv_signal_t *handle, int number)
{
        (void)handle;
        (void)number;
        if (uv_is_closing((uv_handle_t *)&listener))
                return;
        uv_close((uv_handle_t *)&listener, NULL);
        for (int i = 0; i < 2; i++)
                uv_close((uv_handle_t *)&signals[i], NULL);
}

static void on_half(uv_signal_t *handle, int number)
{
        (void)handle;
        (void)number;
        half_requests = requests;
        half_allocations = atomic_load(&allocations);
        printf("half-time at request %lu\n", half_requests);
        fflush(stdout);
}

static void report(void)
{
        printf("requests %lu, allocations %lu; since half-time requests %lu, allocations %lu\n", requests,
               atomic_load(&allocations), requests - half_requests, atomic_load(&allocations) - half_allocations);
        fflush(stdout);
}

static int listen_on(int port)
{
        struct sockaddr_in address;
        struct sockaddr_storage bound;
        int length = sizeof bound;

        uv_tcp_init(uv, &listener);
        uv_ip4_addr("127.0.0.1", port, &address);
        if (uv_tcp_bind(&listener, (const struct sockaddr *)&address, 0) != 0)
                return -1;
        if (uv_listen((uv_stream_t *)&listener, 128, on_connection) != 0 ||
            uv_tcp_getsockname(&listener, (struct sockaddr *)&bound, &length) != 0)
                return -1;
        printf("listening on %d\n", ntohs(((struct sockaddr_in *)(void *)&bound)->sin_port));
        fflush(stdout);
        return 0;
}

int main(int argc, char **argv)
{
        struct lido_workers_options options = LIDO_WORKERS_OPTIONS_INIT;

        uv = uv_default_loop();
        options.name = "primes";
        options.max = uv_available_parallelism();
        options.queue_limit = 1000;
        options.queue_policy = LIDO_QUEUE_REJECT;
        if (lido_workers_open(&workers, &options) != LIDO_OK || lido_loop_open(&loop, uv) != LIDO_OK)
                return EXIT_FAILURE;
        signal(SIGPIPE, SIG_IGN);
        for (int i = 0; i < 2; i++) {
                uv_signal_init(uv, &signals[i]);
                uv_signal_start(&signals[i], on_signal, i == 0 ? SIGTERM : SIGINT);
        }
        uv_signal_init(uv, &half);
        uv_signal_start(&half, on_half, SIGUSR1);
        uv_unref((uv_handle_t *)&half);
        if (argc != 2 || listen_on(atoi(argv[1])) != 0) {
                fprintf(stderr, "job_server PORT: it must be free\n");
                return EXIT_FAILURE;
        }
        uv_run(uv, UV_RUN_DEFAULT);
        report();
        uv_close((uv_handle_t *)&half, NULL);
        lido_loop_close(loop, NULL, NULL);
        uv_run(uv, UV_RUN_DEFAULT);
        uv_loop_close(uv);
        return lido_workers_shutdown(workers, 5000) == LIDO_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
