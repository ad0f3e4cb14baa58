/* pool/budget.h - permits that several pools share; the public half is lido/budget.h.
 *
 * A permit is FREE, or TAKEN by one slot that is not VACANT. A pool stands OUT of the line or IN it, and as a giver it is RANKED
 * or BARE:
 *
 *      permit   FREE  -> TAKEN    budget_take (keeper, in the line's order), budget_try (borrower, when nobody is in line)
 *               TAKEN -> FREE     budget_give: from pool_vacate, after VACANT is stored
 *      line     OUT   -> IN       budget_take, refused
 *               IN    -> OUT      budget_take, when it has all that it wants; budget_leave; budget_detach; or another pool, when
 *                                 it has been called and its keeper has not come for PATIENCE_NS
 *      giver    RANKED -> BARE    a search has found that it can spare nothing: GATE_COVETED is set
 *               BARE  -> RANKED   something has fallen idle, or a pass has seen it: GATE_COVETED is cleared
 *
 * What holds under the lock: used <= total but for a lowered total; used == the live objects of the members plus those under
 * way between `live` and here; coming == the stolen slots that are not yet VACANT; `wanted` is the sum over the line.
 *
 * Free permits belong to the first in line, who is called and comes to fetch them; nothing is handed over, so a pool that has lost
 * interest meanwhile (waiters gone, backing off, closed) leaves nothing to be returned: it leaves the line, and the next is called.
 * Whoever changes the line or frees a permit calls the first in line.
 *
 * Interleavings:
 *   - A slot falls idle while a search passes its pool by. The search sets GATE_COVETED, then looks once more; the releaser stores
 *     IDLE, then reads the gate (law 2): one of them sees the other.
 *   - A releaser clears GATE_COVETED and has not got the lock when the next search comes by: the pool is not ranked and is not
 *     found, but the releaser searches itself when it has the lock.
 *   - A pool with waiters hands its objects from borrower to borrower, and none ever falls idle. So while it is coveted, what comes
 *     back is first offered to the budget (budget_claims), which takes it for a line whose head has waited longer.
 *   - A search passes by a pool with an idle object that is on its way to a waiter, and the waiter leaves without it. Nothing falls
 *     idle after that; so a pool is tended when a waiter has left it, and what is idle then is noticed (budget_reconsider).
 *   - Two pools of the same age, or without any, come to the line, and each finds the other first: of equals, whoever comes takes.
 *   - A late looker clears the mark of a pool that has got a new life, and ranks it: it is a member of that budget, or of none.
 *     Hence budgets keep their type for ever, and pool->budget is compared again under the lock.
 *   - A pool ends while it is about to be called: its memory keeps its type, and calling a pool in vain is harmless.
 *   - The last permit comes back after pool and owner have let go: permits, members and the owner each keep the budget.
 *
 * Locks: `lock` is taken with no other held, and nothing is locked, woken or called under it.
 */
#ifndef LIDO_POOL_BUDGET_H
#define LIDO_POOL_BUDGET_H

#include "base/heap.h"
#include "base/list.h"
#include "base/mutex.h"
#include "lido/budget.h"
#include "pool/turnstile.h"

/* Since when the oldest waiter of a pool has waited, where it wants objects though nobody waits: behind all others. */
#define BUDGET_NO_WAITER (UINT64_MAX - 1)

/* A pool as its budget knows it; guarded by the budget's lock. */
struct budget_member {
        struct list link;       /* among the members */
        struct heap_node place; /* in the line, by its oldest waiter */
        struct heap_node rank;  /* among those that may have something to spare, by their last use */
        uint32_t wants;         /* permits, for waiters; counted while in line */
        uint64_t called_ns;     /* since when it has been called to the head of the line; 0: it has come */
        uint64_t seen_leases;   /* of the pool, when it was looked at last */
};

/* What a pool wants: so many permits, for somebody who has waited since then. */
struct budget_want {
        uint32_t count;
        uint64_t since_ns;
        bool is_try; /* for somebody who did not wait: as old as the first time it was asked for */
};

/* A new pool draws on this budget (or NULL). Before anybody else knows the pool. */
void budget_attach(struct lido_budget *budget, struct lido_pool *pool);

/* The pool has no object left and opens none. Keeper's thread; without a service, any. */
void budget_detach(struct lido_pool *pool);

/* Take a permit, or stand in line; true where there is no budget. *ret_due_ns: when to try again, even if not called.
 * Keeper's thread. */
bool budget_take(struct lido_pool *pool, const struct budget_want *want, uint64_t now, uint64_t *ret_due_ns);

/* Take a permit if nobody stands in line for it. Threads: any. */
bool budget_try(struct lido_pool *pool);

/* It wants none now. Keeper's thread. */
void budget_leave(struct lido_pool *pool);

/* Give back a permit that was taken and not used. Threads: any that keep the pool alive. */
void budget_give_back(struct lido_pool *pool);

/* A slot has come back to a coveted pool, and the caller owns it as a lease of `generation`: if somebody in line has waited longer
 * than the pool's own waiters, it is closed, and true is returned. No lock held. */
bool budget_claims(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation);

/* Something has fallen idle in a pool that was coveted, and its mark is cleared. Threads: any, no lock held. */
void budget_notice_idle(struct lido_pool *pool);

/* Close an idle slot of the pool, unless that would leave it with fewer than min. Serialized with what the budget takes away.
 * Keeper's thread. */
bool budget_evict(struct lido_pool *pool, struct lido_slot *slot, uint64_t word);

/* The pool is tended, perhaps because a waiter has left: what he was looking at may be to spare now. Keeper's thread. */
void budget_reconsider(struct lido_pool *pool);

/* The keeper passes over the pool: note whether it was used. */
void budget_look(struct lido_pool *pool, uint64_t now);

/* The permit of a slot that has fallen vacant. */
void budget_give(struct lido_budget *budget, bool was_stolen);

/* For those who acquire several leases at once, of its pools. */
struct turnstile *budget_turnstile(struct lido_budget *budget);

/* Assert what holds when nobody is at work: every permit is a live object. */
void budget_check(struct lido_budget *budget);

#endif
