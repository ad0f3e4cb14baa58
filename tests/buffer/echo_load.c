/* echo_load - puts load on examples/buffer_echo from outside: CLIENTS threads, each with a connection, send
 * REQUESTS lines and compare what comes back.
 *
 *      echo_load PORT CLIENTS REQUESTS     prints "ok N"; exits with 1 on the first byte that is wrong
 */
#include <ctype.h>
#include <pthread.h>
#include <string.h>

#include "base/random.h"
#include "support/peer.h"

enum { LONGEST = 12000 };

struct client {
        pthread_t thread;
        int port, requests, bad;
        uint64_t seed;
};

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
        int fd = peer_connect(c->port);

        for (int i = 0; i < c->requests && !c->bad; i++) {
                size_t length = 1 + (size_t)random_below(&r, random_below(&r, 10) ? 500 : LONGEST);

                fill(&r, sent, length);
                if (peer_send(fd, sent, length) != 0 || peer_receive(fd, back, length) != 0)
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
