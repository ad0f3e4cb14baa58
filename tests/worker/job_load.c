/* job_load - puts load on examples/job_server from outside: CLIENTS threads, each with a connection, ask REQUESTS times how many
 * primes there are below a number, up to DEPTH questions ahead of the answers, and compare.
 *
 *      job_load PORT CLIENTS REQUESTS     prints "ok N"; exits with 1 on the first answer that is wrong
 */
#include <pthread.h>
#include <string.h>

#include "base/random.h"
#include "support/peer.h"

enum { BELOW = 2000, DEPTH = 4 };

static unsigned primes[BELOW + 1]; /* below that number; set before the threads start, then constant */

struct client {
        pthread_t thread;
        int port, requests, bad;
        uint64_t seed;
};

static void count(void)
{
        for (unsigned n = 1; n < BELOW; n++) {
                unsigned d = 2;

                while (d * d <= n && n % d != 0)
                        d++;
                primes[n + 1] = primes[n] + (n >= 2 && d * d > n);
        }
}

/* One answer, byte by byte: they are short. Returns: -1 when the other end has gone. */
static long answer(int fd)
{
        char line[32];

        for (size_t n = 0; n < sizeof line - 1; n++) {
                if (peer_receive(fd, &line[n], 1) != 0)
                        return -1;
                if (line[n] != '\n')
                        continue;
                line[n] = '\0';
                return strspn(line, "0123456789") == n && n > 0 ? atol(line) : -1;
        }
        return -1;
}

static void *run(void *context)
{
        struct client *c = context;
        struct random r = {c->seed};
        int fd = peer_connect(c->port);
        unsigned asked[DEPTH];

        for (int i = 0; i < c->requests && !c->bad; i += DEPTH) {
                char lines[DEPTH * 16];
                int length = 0;

                for (int k = 0; k < DEPTH; k++) {
                        asked[k] = (unsigned)random_below(&r, BELOW + 1);
                        length += snprintf(lines + length, sizeof lines - (size_t)length, "%u\n", asked[k]);
                }
                c->bad = peer_send(fd, lines, (size_t)length) != 0;
                for (int k = 0; k < DEPTH && !c->bad; k++)
                        c->bad = answer(fd) != (long)primes[asked[k]];
        }
        close(fd);
        return NULL;
}

int main(int argc, char **argv)
{
        int clients = argc > 3 ? atoi(argv[2]) : 0, requests = argc > 3 ? atoi(argv[3]) : 0, bad = 0;
        struct client *client = calloc((size_t)clients + 1, sizeof *client);

        count();
        for (int i = 0; i < clients; i++) {
                client[i].port = atoi(argv[1]);
                client[i].requests = requests / DEPTH * DEPTH;
                client[i].seed = random_seed();
                pthread_create(&client[i].thread, NULL, run, &client[i]);
        }
        for (int i = 0; i < clients; i++) {
                pthread_join(client[i].thread, NULL);
                bad |= client[i].bad;
        }
        free(client);
        if (bad || clients == 0)
                return 1;
        printf("ok %d\n", clients * (requests / DEPTH * DEPTH));
        return 0;
}
