/* keeper/loop.h - a uv loop that borrows; the public half is lido/loop.h. */
#ifndef LIDO_KEEPER_LOOP_H
#define LIDO_KEEPER_LOOP_H

#include "base/list.h"
#include "lido/loop.h"

/* This thread is the loop's, from now on, or none (0): a loop that is opened before its thread is started is nobody's until
 * then, and must not be taken for its opener's. */
void loop_settle(struct lido_loop *loop, uint32_t thread);

/* Something pending on a loop, which lido_loop_close cancels. Loop's thread. */
struct loop_pending {
        struct list link;
        void (*cancel)(struct loop_pending *pending);
};

/* Loop's thread. Returns: false when the loop is closing. */
bool loop_add_pending(struct lido_loop *loop, struct loop_pending *pending);
void loop_end_pending(struct lido_loop *loop, struct loop_pending *pending);

#endif
