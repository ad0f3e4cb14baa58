/* looper.h - a uv loop on the test's own thread, that borrows. */
#ifndef LIDO_TESTS_LOOPER_H
#define LIDO_TESTS_LOOPER_H

#include <stdbool.h>
#include <uv.h>

#include "lido.h"
#include "support/patience.h"

struct looper {
        uv_loop_t uv;
        struct lido_loop *loop;
        bool is_closed;
};

/* A request whose callback notes its outcome. */
struct asked {
        struct lido_request request; /* first: the callback gets it */
        int status;
        lido_lease lease;
        uint32_t calls;
        uint64_t called_ns;      /* in real time */
        uint32_t place;          /* among all that were called back, from 0 */
        uint32_t *turn;          /* counts those; NULL: not wanted */
        bool releases;           /* at once */
};

void looper_init(struct looper *looper);

/* Close the loop, and run it until it is. */
void looper_fini(struct looper *looper);

/* Run what is to be run now. Returns: true, for ck_eventually. */
bool looper_turn(struct looper *looper);

/* Clear a request and acquire by it. */
int looper_ask(struct looper *looper, struct asked *asked, struct lido_pool *pool, int64_t timeout_ms);

/* Run the loop until the callback has been called. Returns: the status. */
int looper_await(struct looper *looper, struct asked *asked);

#endif
