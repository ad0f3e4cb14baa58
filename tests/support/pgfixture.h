/* pgfixture.h - a real server for tests: the one that with-server.sh provides, or one of the test's own. */
#ifndef LIDO_TESTS_PGFIXTURE_H
#define LIDO_TESTS_PGFIXTURE_H

#include <libpq-fe.h>
#include <stddef.h>

/* The provided server by its Unix socket, and by TCP. */
const char *server_conninfo(void);
const char *server_tcp_conninfo(void);

/* A plain connection beside the pool, for looking and for mischief. */
PGconn *admin_connect(const char *conninfo);

/* Run SQL, printf-style; fails the test if it does not work. */
void admin_run(PGconn *admin, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The single number that a query gives. */
long admin_number(PGconn *admin, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Wait until a query gives the number; fails the test after 20 s. */
void admin_wait_for(PGconn *admin, long number, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* A server of the test's own. It goes when the test does, even if that is killed: a guard waits for its end. */
struct own_server {
        char dir[64];
        char conninfo[256];     /* by the socket */
        char tcp_conninfo[512]; /* by TCP, with its password and certificate */
        int guard;              /* process id */
        int guard_fd;           /* open as long as the test lives */
};
void own_server_start(struct own_server *server, const char *options); /* options of pgserver.sh */
void own_server_standby(struct own_server *server, const struct own_server *primary); /* that has --replicas */
void own_server_command(const struct own_server *server, const char *command, const char *mode);
void own_server_remove(struct own_server *server);

/* How many lines of the server's log hold the text. */
unsigned own_server_log_count(const struct own_server *server, const char *text);

/* How many descriptors are open. */
unsigned open_descriptors(void);

#endif
