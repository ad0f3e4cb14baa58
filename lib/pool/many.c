/* Several leases at once, all or nothing.
 *
 * Two who fill their hands from the same places could each hold what the other waits for. So each place is passed in one order, and
 * in a place only one at a time fills his hands: the place is a pool, or, where pools share a budget, the budget, for there a lease
 * of one pool may stand in the way of an object of another. Places are passed by address, pools within a budget likewise; the
 * turnstile of a place is left as soon as all that is wanted from it is held. Whoever waits there waits for borrowers of single
 * leases, or for those who have got all they want from it; none of these waits for him, unless it holds one lease while it asks for
 * more by itself.
 */
#include "base/clock.h"
#include "pool/lease.h"

#define MANY_MOST 256u

/* Where this item is taken from; its address is its rank. */
static const void *place_of(const struct lido_many *item)
{
        const void *budget = load_acquire(&item->pool->budget);

        return budget ? budget : (const void *)item->pool;
}

static struct turnstile *turnstile_of(struct lido_pool *pool)
{
        struct lido_budget *budget = load_acquire(&pool->budget);

        return budget ? budget_turnstile(budget) : &pool->turnstile;
}

/* Does a come before b? */
static bool is_before(const struct lido_many *a, const struct lido_many *b)
{
        uintptr_t place_a = (uintptr_t)place_of(a), place_b = (uintptr_t)place_of(b);

        return place_a != place_b ? place_a < place_b : (uintptr_t)a->pool < (uintptr_t)b->pool;
}

/* The first, in order, of those that have no lease yet; NULL: all have. */
static struct lido_many *next_of(struct lido_many *many, uint32_t count)
{
        struct lido_many *next = NULL;

        for (uint32_t i = 0; i < count; i++)
                if (!many[i].lease.slot && (!next || is_before(&many[i], next)))
                        next = &many[i];
        return next;
}

static int go_in(struct lido_pool *pool, const struct want *want)
{
        struct turnstile *turnstile = turnstile_of(pool);

        if (turnstile_try(turnstile))
                return LIDO_OK;
        if (want->timeout_ms == 0)
                return LIDO_EEXHAUSTED;
        if (pool_must_not_wait(pool))
                return LIDO_EDEADLK;
        return turnstile_enter(turnstile, want->deadline_ns) ? LIDO_OK : LIDO_ETIMEDOUT;
}

/* Take all that is wanted from the place of `next`, and the next place's first item. */
static int fill_from_place(struct lido_many *many, uint32_t count, struct lido_many **next, struct want *want)
{
        const void *place = place_of(*next);
        struct lido_pool *first = (*next)->pool;
        int rc = go_in(first, want);

        if (rc != LIDO_OK)
                return rc;
        while (rc == LIDO_OK && *next && place_of(*next) == place) {
                rc = lease_acquire((*next)->pool, want, &(*next)->lease);
                if (rc == LIDO_OK)
                        *next = next_of(many, count);
        }
        turnstile_leave(turnstile_of(first));
        return rc;
}

static void put_back(struct lido_many *many, uint32_t count, const char *site)
{
        for (uint32_t i = 0; i < count; i++) {
                if (many[i].lease.slot)
                        lido_release_at(many[i].lease, site);
                many[i].lease = (lido_lease){ NULL, 0 };
        }
}

/* Can it be had at all? */
static bool is_possible(const struct lido_many *many, uint32_t count)
{
        for (uint32_t i = 0; i < count; i++) {
                uint32_t same = 0;

                if (!many[i].pool)
                        return false;
                for (uint32_t k = 0; k < count; k++)
                        same += many[k].pool == many[i].pool;
                if (same > load_relaxed(&many[i].pool->max))
                        return false;
        }
        return true;
}

int lido_acquire_many_at(struct lido_many *many, uint32_t count, int64_t timeout_ms, const char *site)
{
        struct want want = { .timeout_ms = timeout_ms, .site = site, .is_many = true };
        struct lido_many *next;
        int rc = LIDO_OK;

        if (!many || count == 0 || count > MANY_MOST || timeout_ms < LIDO_TIMEOUT_DEFAULT || !is_possible(many, count))
                return LIDO_EINVAL;
        for (uint32_t i = 0; i < count; i++) {
                many[i].lease = (lido_lease){ NULL, 0 };
                pool_enter(many[i].pool);
        }
        if (timeout_ms == LIDO_TIMEOUT_DEFAULT)
                want.timeout_ms = pool_options(many[0].pool)->acquire_timeout_ms;
        want.deadline_ns = clock_after_ms(clock_now_ns(), want.timeout_ms);
        for (uint32_t i = 0; i < count && rc == LIDO_OK; i++)
                if (load_seq_cst(&many[i].pool->gate) & (GATE_FORKED | GATE_CLOSED | GATE_ORPHANED))
                        rc = load_seq_cst(&many[i].pool->gate) & GATE_FORKED ? LIDO_EFORKED : LIDO_ECLOSED;
        next = rc == LIDO_OK ? next_of(many, count) : NULL;
        while (rc == LIDO_OK && next)
                rc = fill_from_place(many, count, &next, &want);
        if (rc != LIDO_OK)
                put_back(many, count, site);
        for (uint32_t i = 0; i < count; i++)
                pool_leave(many[i].pool);
        return rc;
}
