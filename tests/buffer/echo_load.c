/* echo_load - puts load on examples/buffer_echo from outside: CLIENTS threads, each with a connection, send
 * REQUESTS lines and compare what comes back.
 *
 *      echo_load PORT CLIENTS REQUESTS     prints "ok N"; exits with 1 on the first byte that is wrong
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/random.h"

enum { LONGEST = 12000 };

struct client {
        pthread_t thread;
        int port, requests, bad;
        uint64_t seed;
};

static int connect_to(int port)
{
        struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
                perror("connect");
                exit(1);
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        return fd;
}

static int write_all(int fd, const char *bytes, size_t length)
{
        while (length > 0) {
                ssize_t n = write(fd, bytes, length);

                if (n <= 0)
                        return -1;
                bytes += n;
                length -= (size_t)n;
        }
        return 0;
}

static int read_all(int fd, char *bytes, size_t length)
{
        while (length > 0) {
                ssize_t n = read(fd, bytes, length);

                if (n <= 0)
                        return -1;
                bytes += n;
                length -= (size_t)n;
        }
        return 0;
}

/* A line that comes in one read is answered as a whole; only its first byte decides, so large ones begin with
 * a letter. */
static void fill(struct random *r, char *line, size_t length)
{
        for (size_t i = 0; i < length; i++)
                line[i] = (char)('a' + random_below(r, 26));
        if (length < 1000 && random_below(r, 2))
                line[0] = '#';
}

static void *run(void *context)
{
        struct client *c = context;
        struct random r = {c->seed};
        char sent[LONGEST], back[LONGEST];
        int fd = connect_to(c->port);

        for (int i = 0; i < c->requests && !c->bad; i++) {
                size_t length = 1 + (size_t)random_below(&r, random_below(&r, 10) ? 500 : LONGEST);

                fill(&r, sent, length);
                if (write_all(fd, sent, length) != 0 || read_all(fd, back, length) != 0)
                        c->bad = 1;
                if (sent[0] == '#')
                        for (size_t k = 0; k < length; k++)
                                sent[k] = (char)toupper((unsigned char)sent[k]);
                if (!c->bad && memcmp(sent, back, length) != 0)
                        c->bad = 1;
        }
        close(fd);
        return NULL;
}

int main(int argc, char **argv)
{
        int count = argc > 2 ? atoi(argv[2]) : 0, bad = 0, requests = argc > 3 ? atoi(argv[3]) : 0;
        struct client *clients = calloc((size_t)count + 1, sizeof *clients);

        for (int i = 0; i < count; i++) {
                clients[i].port = atoi(argv[1]);
                clients[i].requests = requests;
                clients[i].seed = random_seed();
                pthread_create(&clients[i].thread, NULL, run, &clients[i]);
        }
        for (int i = 0; i < count; i++) {
                pthread_join(clients[i].thread, NULL);
                bad |= clients[i].bad;
        }
        free(clients);
        if (bad)
                return 1;
        printf("ok %d\n", count * requests);
        return 0;
}
