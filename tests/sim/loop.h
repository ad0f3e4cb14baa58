/* sim/loop.h - a borrower's loop under the model scheduler. */
#ifndef LIDO_SIM_LOOP_H
#define LIDO_SIM_LOOP_H

#include "keeper/loop.h"
#include "sim/sim.h"

struct lido_loop {
        int coroutine;
        struct lido_post *first, *last;
        struct list timers;
        struct list pending;
        bool is_closing;
};

void loop_init(struct lido_loop *loop, int coroutine);

/* Run one post or timer, or sleep until there is one. Returns: false when nothing is pending. Its coroutine
 * only. */
bool loop_turn(struct lido_loop *loop);

#endif
