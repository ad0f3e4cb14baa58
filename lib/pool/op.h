/* pool/op.h - the work of a factory's hook on one slot, from its beginning to its answer.
 *
 * An op owns its slot in OPENING, CHECKING, RESETTING or CLOSING. Its ticket is the slot's generation, so an answer that
 * comes twice, or after the slot has gone on to something else, is recognised by the compare-and-swap that sets
 * MARK_ANSWERED, like a lease that is released twice. Whoever wins that writes the outcome into the slot and sends it to the
 * keeper, who finishes the op; nobody else moves a slot out of these states. The detail of a failure is told to the
 * embedder at once, and kept for those who time out.
 */
#ifndef LIDO_POOL_OP_H
#define LIDO_POOL_OP_H

#include "pool/pool.h"

/* Is a hook at work on a slot with this word? */
static inline bool op_is_at_work(uint64_t word)
{
        switch (word_state(word)) {
        case SLOT_OPENING:
        case SLOT_CHECKING:
        case SLOT_RESETTING:
        case SLOT_CLOSING:
                return !(word & MARK_ANSWERED);
        default:
                return false;
        }
}

/* Begin the op that belongs to the slot's state, by calling its hook. The caller owns the slot, which has generation
 * `ticket`. The hook may answer before this returns, and then the slot is somebody else's. */
void op_begin(struct lido_pool *pool, struct lido_slot *slot, uint64_t ticket);

/* May its hook block, so that it is to be called on a helper thread? */
bool op_is_blocking(const struct lido_pool *pool, const struct lido_slot *slot);

/* How long the op that belongs to a state may take. */
int64_t op_timeout_ms(const struct lido_pool *pool, enum slot_state state);

/* The op has been answered: move the slot on. An opened, checked or reset object is offered to the line; one that failed
 * begins to close; a closed one leaves its slot vacant. Loop thread; without a service, the thread that answered. */
void op_finish(struct lido_pool *pool, struct lido_slot *slot);

/* As op_finish, for an open that is answered, but the slot stays the caller's, as a lease of *ret_generation.
 * Returns: false when it failed, and the slot is vacant. */
bool op_finish_open(struct lido_pool *pool, struct lido_slot *slot, uint64_t *ret_generation, uint64_t *ret_marks);

/* Move a slot that the caller owns as a lease of `generation` to CLOSING, CHECKING or RESETTING, and send it on its way. */
void op_want(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation, enum slot_state state);

/* As op_want for CLOSING, with its reason. */
void op_want_close(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation, enum lido_close_reason reason);

#endif
