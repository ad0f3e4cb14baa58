/* keeper/pass.h - one look at every slot: what has rested, what is too old, what is due for a check, what leaks. */
#ifndef LIDO_KEEPER_PASS_H
#define LIDO_KEEPER_PASS_H

#include "keeper/keeper.h"

/* Look. Returns: when to look again; CLOCK_NEVER when nothing will change by itself, and then the pool is napping: the next
 * object that moves wakes the keeper. */
uint64_t pass(struct lido_pool *pool, uint64_t now);

/* A napping pool has been woken. Returns: when to look. */
uint64_t pass_wake(struct lido_pool *pool, uint64_t now);

#endif
