/* pool/doubt.h - idle objects that are not lent before they have been checked, and how few are checked at a time.
 *
 * An object at rest is doubted when it was marked (a failed check, lido_pool_suspect), when it has slept for check_after_ms, or
 * when the machine has been suspended, which ends most connections without a word. Nobody is given a doubted object: whoever claims passes it over, and if nothing else is idle, has one
 * checked and waits for the outcome. So at most as many are under check as there are who want one, however many lie
 * idle, and a quiet night does not end in a storm of checks.
 *
 * A suspend is noticed by the keeper at its next turn and by whoever looks at an object at rest. A pool in use has a turn
 * within rest_after_ms; until then, what was used less than rest_after_ms before the suspend may be lent without a look, for
 * the hot path reads no clock.
 *
 * Whoever counts the checks under way may count one that is just failing. So a failed check serves the line after it has
 * left CHECKING: one of the two sees the other (law 2, waitq.h).
 */
#ifndef LIDO_POOL_DOUBT_H
#define LIDO_POOL_DOUBT_H

#include "pool/pool.h"

/* Which objects of a pool are doubted now. The clock is not read before one has been found at rest. */
static inline struct slots_doubt pool_doubt(const struct lido_pool *pool)
{
        return (struct slots_doubt){ .by_clock = pool->factory.check != NULL,
                                     .after_ms = pool_options(pool)->check_after_ms,
                                     .suspended_ns = load_acquire(&pool->suspended_ns) };
}

/* Nothing is idle but what is doubted: have as many checked as there are in line, and `more` who are not. No lock held. */
void doubt_check(struct lido_pool *pool, uint32_t more);

/* Mark a slot that the caller owns as doubted and let it rest. No lock held. */
void doubt_rest(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation);

/* Doubt every object: those that are idle as doubt_rest does, those in use when they come back. No lock held. */
void doubt_all(struct lido_pool *pool);

/* If the machine has been suspended since the pool looked last, doubt every object and tell. No lock held. */
void doubt_after_suspend(struct lido_pool *pool);

/* Doubt every idle object that was last known to be alive before `since_ns`. No lock held. */
void doubt_idle(struct lido_pool *pool, uint64_t since_ns);

#endif
