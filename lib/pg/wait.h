/* pg/wait.h - a thread waits for a connection's socket, with a deadline. */
#ifndef LIDO_PG_WAIT_H
#define LIDO_PG_WAIT_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

/* Wait until something can be read, or also until something can be written: then whichever comes first, for a server that is
 * not read from stops reading. Returns: LIDO_OK; LIDO_EDEADLINE; LIDO_EFACTORY when the socket is none. */
int wait_for_socket(PGconn *conn, bool or_writable, uint64_t deadline_ns);

#endif
