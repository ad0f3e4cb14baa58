#include "pg/wait.h"

#include <errno.h>
#include <poll.h>

#include "base/clock.h"
#include "lido/error.h"

int wait_for_socket(PGconn *conn, bool or_writable, uint64_t deadline_ns)
{
        struct pollfd fd = { .fd = PQsocket(conn), .events = or_writable ? POLLIN | POLLOUT : POLLIN };

        if (fd.fd < 0)
                return LIDO_EFACTORY;
        for (;;) {
                int ready = poll(&fd, 1, clock_poll_ms(deadline_ns));

                if (ready > 0)
                        return LIDO_OK;
                if (ready == 0 && clock_now_ns() >= deadline_ns)
                        return LIDO_EDEADLINE;
                if (ready < 0 && errno != EINTR)
                        return LIDO_EFACTORY;
        }
}
