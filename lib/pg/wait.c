#include "pg/wait.h"

#include <errno.h>
#include <poll.h>

#include "base/clock.h"
#include "lido/error.h"

#define MS_MOST 3600000 /* of one poll; then it looks again */

int wait_for_socket(PGconn *conn, bool or_writable, uint64_t deadline_ns)
{
        struct pollfd fd = { .fd = PQsocket(conn), .events = or_writable ? POLLIN | POLLOUT : POLLIN };

        if (fd.fd < 0)
                return LIDO_EFACTORY;
        for (;;) {
                int ms = -1, ready;

                if (deadline_ns != CLOCK_NEVER) {
                        uint64_t now = clock_now_ns();
                        uint64_t left = deadline_ns > now ? deadline_ns - now : 0;

                        ms = left / NS_PER_MS >= MS_MOST ? MS_MOST : (int)((left + NS_PER_MS - 1) / NS_PER_MS);
                }
                ready = poll(&fd, 1, ms);
                if (ready > 0)
                        return LIDO_OK;
                if (ready == 0 && clock_now_ns() >= deadline_ns)
                        return LIDO_EDEADLINE;
                if (ready < 0 && errno != EINTR)
                        return LIDO_EFACTORY;
        }
}
