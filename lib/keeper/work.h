/* keeper/work.h - a slot on the keeper's desk: begin its op, or take the answer. */
#ifndef LIDO_KEEPER_WORK_H
#define LIDO_KEEPER_WORK_H

#include "keeper/keeper.h"

/* Begin the op of a slot that the keeper owns: here, or where it may block. */
void work_begin(struct keeper *keeper, struct lido_pool *pool, struct lido_slot *slot);

/* A slot has come in: with an answer, or with something to be done. */
void work_receive(struct keeper *keeper, struct lido_slot *slot, uint64_t now);

/* An op has not been answered in time: tell its hook to hurry, once. `word` is the slot's. */
void work_hurry(struct lido_pool *pool, struct lido_slot *slot, uint64_t word, uint64_t now);

/* Call the interrupt hook on a lent object, with its holder kept from freeing it meanwhile. */
void work_interrupt(struct lido_pool *pool, struct lido_slot *slot, uint64_t word);

/* No event of the loop is to reach this object any more. */
void work_unwatch(struct lido_pool *pool, struct lido_slot *slot);

#endif
