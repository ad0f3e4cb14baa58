/* pool/doubt.h - idle objects that are not lent before they have been checked, and how few are checked at a time.
 *
 * An object at rest is doubted when it was marked (a suspend, a failed check, lido_pool_suspect) or when it has slept for
 * check_after_ms. Nobody is given a doubted object: whoever claims passes it over, and if nothing else is idle, has one
 * checked and waits for the outcome. So at most as many are under check as there are who want one, however many lie
 * idle, and a quiet night does not end in a storm of checks.
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
        return (struct slots_doubt){ pool->factory.check ? pool_options(pool)->check_after_ms : LIDO_NEVER, 0 };
}

/* Nothing is idle but what is doubted: have as many checked as there are in line, and `more` who are not. No lock held. */
void doubt_check(struct lido_pool *pool, uint32_t more);

/* Mark a slot that the caller owns as doubted and let it rest. No lock held. */
void doubt_rest(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation);

/* Doubt every idle object that was last known to be alive before `since_ns`. No lock held. */
void doubt_idle(struct lido_pool *pool, uint64_t since_ns);

#endif
