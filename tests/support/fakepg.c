#include "support/fakepg.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/patience.h"

#define SSL_REQUEST 80877103
#define GSS_REQUEST 80877104
#define BODY_MAX 65536

/* ---- bytes ----------------------------------------------------------------------------------------------- */

static bool read_all(int fd, void *bytes, size_t size)
{
        char *at = bytes;

        while (size > 0) {
                ssize_t got = recv(fd, at, size, 0);

                if (got <= 0)
                        return false;
                at += got;
                size -= (size_t)got;
        }
        return true;
}

static bool write_all(int fd, const void *bytes, size_t size)
{
        const char *at = bytes;

        while (size > 0) {
                ssize_t put = send(fd, at, size, MSG_NOSIGNAL);

                if (put <= 0)
                        return false;
                at += put;
                size -= (size_t)put;
        }
        return true;
}

/* The length includes its own four bytes. */
static bool read_length(int fd, uint32_t *ret_length)
{
        uint32_t length;

        if (!read_all(fd, &length, sizeof length))
                return false;
        *ret_length = ntohl(length) - 4;
        return *ret_length <= BODY_MAX;
}

bool fakepg_take_startup(struct fakepg *server, int fd)
{
        char body[BODY_MAX];
        uint32_t length, code;

        for (;;) {
                if (!read_length(fd, &length) || length < 4 || !read_all(fd, body, length))
                        return false;
                memcpy(&code, body, sizeof code);
                code = ntohl(code);
                if (code != SSL_REQUEST && code != GSS_REQUEST)
                        break;
                if (!write_all(fd, "N", 1))
                        return false;
        }
        atomic_fetch_add(&server->startups, 1);
        return true;
}

char fakepg_take_message(int fd)
{
        char type, body[BODY_MAX];
        uint32_t length;

        if (!read_all(fd, &type, 1) || !read_length(fd, &length) || !read_all(fd, body, length))
                return 0;
        return type;
}

bool fakepg_send(int fd, char type, const void *body, size_t size)
{
        char message[BODY_MAX];
        uint32_t length = htonl((uint32_t)size + 4);

        must(size <= sizeof message - 5);
        message[0] = type;
        memcpy(message + 1, &length, sizeof length);
        if (size > 0)
                memcpy(message + 5, body, size);
        return write_all(fd, message, size + 5);
}

static bool send_report(int fd, char type, const char *severity, const char *sqlstate, const char *message)
{
        char body[512];
        int size = snprintf(body, sizeof body, "S%s%cV%s%cC%s%cM%s%c", severity, 0, severity, 0, sqlstate, 0, message, 0);

        return fakepg_send(fd, type, body, (size_t)size + 1); /* the last NUL ends the list */
}

bool fakepg_send_error(int fd, const char *severity, const char *sqlstate, const char *message)
{
        return send_report(fd, 'E', severity, sqlstate, message);
}

bool fakepg_send_notice(int fd, const char *severity, const char *sqlstate, const char *message)
{
        return send_report(fd, 'N', severity, sqlstate, message);
}

bool fakepg_send_notification(int fd, const char *channel, const char *payload)
{
        char body[512] = {0, 0, 0, 7}; /* the process that notifies */
        int size = snprintf(body + 4, sizeof body - 4, "%s%c%s", channel, 0, payload);

        return fakepg_send(fd, 'A', body, 4 + (size_t)size + 1);
}

static bool send_ready(int fd)
{
        return fakepg_send(fd, 'Z', "I", 1);
}

bool fakepg_send_complete(int fd, const char *tag)
{
        return fakepg_send(fd, 'C', tag, strlen(tag) + 1) && send_ready(fd);
}

bool fakepg_let_in(int fd)
{
        static const char version[] = "server_version\0"
                                      "15.0";
        static const char encoding[] = "client_encoding\0"
                                       "UTF8";
        static const char key[8] = {0, 0, 0, 1, 0, 0, 0, 2};

        return fakepg_send(fd, 'R', "\0\0\0\0", 4) && fakepg_send(fd, 'S', version, sizeof version) &&
               fakepg_send(fd, 'S', encoding, sizeof encoding) && fakepg_send(fd, 'K', key, sizeof key) && send_ready(fd);
}

bool fakepg_wait_for_end(int fd)
{
        char bytes[4096];

        while (recv(fd, bytes, sizeof bytes, 0) > 0)
                continue;
        return false;
}

void fakepg_serve(struct fakepg *server, int fd, unsigned nth)
{
        char type;

        (void)nth;
        if (!fakepg_take_startup(server, fd) || !fakepg_let_in(fd))
                return;
        while ((type = fakepg_take_message(fd)) != 0 && type != 'X') {
                atomic_fetch_add(&server->asked, 1);
                if (!fakepg_send(fd, 'I', NULL, 0) || !send_ready(fd))
                        return;
        }
}

void fakepg_silent(struct fakepg *server, int fd, unsigned nth)
{
        (void)server;
        (void)nth;
        fakepg_wait_for_end(fd);
}

/* ---- the server ------------------------------------------------------------------------------------------ */

static void *serve(void *connection_pointer)
{
        struct fakepg_connection *connection = connection_pointer;

        connection->server->behave(connection->server, connection->fd, connection->nth);
        shutdown(connection->fd, SHUT_RDWR); /* closed in fakepg_stop: the number must not be taken meanwhile */
        return NULL;
}

static void *accept_all(void *server_pointer)
{
        struct fakepg *server = server_pointer;
        int fd;

        while ((fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
                unsigned nth = atomic_load(&server->accepted);
                struct fakepg_connection *connection = &server->connections[nth];

                must(nth < FAKEPG_CONNECTIONS);
                connection->server = server;
                connection->nth = nth;
                connection->fd = fd;
                must(pthread_create(&connection->thread, NULL, serve, connection) == 0);
                atomic_store(&server->accepted, nth + 1);
        }
        return NULL;
}

void fakepg_start(struct fakepg *server, fakepg_behaviour *behave)
{
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t length = sizeof address;

        memset(server, 0, sizeof *server);
        server->behave = behave;
        server->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        must(server->listen_fd >= 0);
        must(bind(server->listen_fd, (struct sockaddr *)&address, sizeof address) == 0);
        must(listen(server->listen_fd, 64) == 0);
        must(getsockname(server->listen_fd, (struct sockaddr *)&address, &length) == 0);
        server->port = ntohs(address.sin_port);
        must(pthread_create(&server->acceptor, NULL, accept_all, server) == 0);
}

void fakepg_stop(struct fakepg *server)
{
        shutdown(server->listen_fd, SHUT_RDWR);
        pthread_join(server->acceptor, NULL);
        close(server->listen_fd);
        for (unsigned i = 0; i < atomic_load(&server->accepted); i++) {
                shutdown(server->connections[i].fd, SHUT_RDWR);
                pthread_join(server->connections[i].thread, NULL);
                close(server->connections[i].fd);
        }
}

const char *fakepg_conninfo(const struct fakepg *server, const char *more, char *text, size_t size)
{
        snprintf(text, size, "host=127.0.0.1 port=%d dbname=fake user=fake sslmode=disable %s", server->port, more);
        return text;
}
