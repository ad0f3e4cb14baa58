/* lido/budget.h - one limit that several pools draw on: so many objects in all, whoever has them.
 *
 *      struct lido_budget *budget;
 *
 *      lido_budget_new(&budget, 100);
 *      options.budget = budget;
 *      lido_pool_open(&reads, service, &replicas, &options);
 *      lido_pool_open(&writes, service, &primary, &options);
 *
 * Each object takes one permit, from before it is opened until it is closed. Where a pool has waiters and no permit is left:
 *   - an idle object of another pool is closed for it, of the pool that was used least recently and has more than its min;
 *   - an object that comes back to a pool whose own waiters came later is closed for it;
 *   - and a freed permit goes to the pool whose oldest waiter has waited longest. So no pool starves beside a busy one.
 * The use of a pool is noticed by its keeper about once in rest_after_ms, by keyed pools at each acquire.
 */
#ifndef LIDO_BUDGET_H
#define LIDO_BUDGET_H

#include "lido/pool.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Make a budget of so many permits. Hand it to pools in their options; they may be of different services.
 * Threads: any. Blocks: no. Owns: the budget is the caller's, to be given to lido_budget_free.
 * Returns: LIDO_OK; LIDO_EINVAL for a total of 0; LIDO_ENOMEM. */
LIDO_API int lido_budget_new(struct lido_budget **ret_budget, uint32_t total);

/* Give the budget back. The pools that draw on it go on as before, and its memory goes with the last of them.
 * Threads: any. Blocks: no. Owns: the budget is lido's again. Returns: nothing; NULL is allowed. */
LIDO_API void lido_budget_free(struct lido_budget *budget);

/* Set the total. A raised one is used at once; for a lowered one idle objects beyond it are closed, and lent ones as they come
 * back, but of no pool more than leaves it its min.
 * Threads: any. Blocks: no. Owns: nobody. Returns: LIDO_OK; LIDO_EINVAL; LIDO_EFORKED. */
LIDO_API int lido_budget_resize(struct lido_budget *budget, uint32_t total);

struct lido_budget_stats {
        size_t size;
        uint32_t total;
        uint32_t used;    /* permits taken: objects open, being opened or being closed */
        uint32_t pools;   /* that draw on it */
        uint32_t waiting; /* of these, those that stand in line for a permit */
        uint64_t stolen;  /* objects closed so far because another pool needed the permit */
};
#define LIDO_BUDGET_STATS_INIT LIDO_SIZED(lido_budget_stats)

/* Read the stats, all of one moment.
 * Threads: any. Blocks: no. Owns: the struct is the caller's. Returns: LIDO_OK; LIDO_EINVAL; LIDO_EFORKED. */
LIDO_API int lido_budget_stats(struct lido_budget *budget, struct lido_budget_stats *stats);

#ifdef __cplusplus
}
#endif
#endif
