/* pool/budget_own.h - the inside of a budget, for budget.c (line and permits) and budget_steal.c (taking away) alone. */
#ifndef LIDO_POOL_BUDGET_OWN_H
#define LIDO_POOL_BUDGET_OWN_H

#include "pool/pool.h"

struct lido_budget {
        struct mutex lock; /* guards all but what is said to be constant */
        uint32_t total;
        uint32_t used;     /* permits taken */
        uint32_t coming;   /* of these, those of stolen slots, which are about to be freed */
        uint32_t wanted;   /* sum of `wants` over the line */
        uint32_t members_count;
        uint64_t stolen;
        struct list members;
        struct heap line;
        struct heap ranked;
        bool is_freed;     /* the owner has let go of it */
        _Atomic uint32_t is_forked;  /* the parent's, seen in a child */
        struct lido_budget *older;   /* every budget that ever was; set when its memory is new, then constant */
        struct turnstile turnstile;  /* has a lock of its own */
        void *shelf_link;
};

static inline struct lido_pool *budget_pool_of(struct heap_node *node)
{
        return node ? list_entry(node, struct lido_pool, budgeted.place) : NULL;
}

/* Who is to be called once the lock is given up: the first in line, if there is a permit for it. */
static inline struct lido_pool *budget_to_call(struct lido_budget *budget, uint64_t now) REQUIRES(budget->lock)
{
        struct lido_pool *first = budget_pool_of(heap_first(&budget->line));

        if (!first || budget->used >= budget->total)
                return NULL;
        if (first->budgeted.called_ns == 0)
                first->budgeted.called_ns = now;
        return first;
}

static inline void budget_call(struct lido_pool *pool)
{
        if (pool)
                pool_call_keeper(pool);
}

/* How many objects have to go that are not going yet. */
static inline uint32_t budget_shortage(const struct lido_budget *budget) REQUIRES(budget->lock)
{
        uint64_t have = (uint64_t)budget->total + budget->coming, need = (uint64_t)budget->wanted + budget->used;

        return need > have ? (uint32_t)(need - have) : 0;
}

/* Take away what is needed, and can be, and call whom there is a permit for. No lock held. */
void budget_settle(struct lido_budget *budget);

/* The pool may have something to spare. */
void budget_rank(struct lido_budget *budget, struct lido_pool *pool) REQUIRES(budget->lock);

#endif
