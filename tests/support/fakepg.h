/* fakepg.h - a PostgreSQL server made of a function: for what a real one will not do when asked.
 *
 * It listens on a loopback port. Each connection is served by a thread that calls the behaviour with the socket; when
 * that returns the connection is closed. The helpers speak the protocol, version 3, in clear text.
 *
 *      static void starting_up(struct fakepg *server, int fd, unsigned nth)
 *      {
 *              if (fakepg_take_startup(server, fd))
 *                      fakepg_send_error(fd, "FATAL", "57P03", "the database system is starting up");
 *      }
 *      fakepg_start(&server, starting_up);
 */
#ifndef LIDO_TESTS_FAKEPG_H
#define LIDO_TESTS_FAKEPG_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

struct fakepg;
typedef void fakepg_behaviour(struct fakepg *server, int fd, unsigned nth); /* nth connection, from 0 */

#define FAKEPG_CONNECTIONS 256

struct fakepg {
        fakepg_behaviour *behave;
        int port, listen_fd;
        pthread_t acceptor;
        _Atomic unsigned accepted; /* connections */
        _Atomic unsigned startups; /* startup packets: attempts to log in */
        _Atomic unsigned asked;    /* query messages answered by fakepg_serve */
        _Atomic bool flag;         /* the test's */
        struct fakepg_connection {
                struct fakepg *server;
                unsigned nth;
                int fd;
                pthread_t thread;
        } connections[FAKEPG_CONNECTIONS];
};

/* Start. Fails the test if it cannot. */
void fakepg_start(struct fakepg *server, fakepg_behaviour *behave);

/* Hang up on everybody and join every thread. */
void fakepg_stop(struct fakepg *server);

/* "host=127.0.0.1 port=N dbname=fake user=fake sslmode=disable" and what `more` adds. */
const char *fakepg_conninfo(const struct fakepg *server, const char *more, char *text, size_t size);

/* ---- for behaviours; a false result means that the client is gone ----------------------------------------- */

bool fakepg_take_startup(struct fakepg *server, int fd); /* refuses TLS first, if asked for it */
bool fakepg_let_in(int fd);                              /* authentication ok, parameters, ready */
char fakepg_take_message(int fd);                        /* its type, its body dropped; 0: gone */
bool fakepg_send(int fd, char type, const void *body, size_t size);
bool fakepg_send_error(int fd, const char *severity, const char *sqlstate, const char *message);
bool fakepg_send_notice(int fd, const char *severity, const char *sqlstate, const char *message);
bool fakepg_send_notification(int fd, const char *channel, const char *payload);
bool fakepg_send_complete(int fd, const char *tag); /* CommandComplete and ReadyForQuery */
bool fakepg_wait_for_end(int fd);                   /* read and drop until the client hangs up; always false */

/* Let in, then answer every query with an empty response, or tag ROLLBACK. */
void fakepg_serve(struct fakepg *server, int fd, unsigned nth);

/* Accept and never say a word. */
void fakepg_silent(struct fakepg *server, int fd, unsigned nth);

#endif
