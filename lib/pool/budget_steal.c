/* Whom a budget takes objects away from when the line needs more permits than are free, and how. */
#include "pool/budget_own.h"

#include "base/clock.h"
#include "pool/op.h"
#include "pool/waitq.h"

/* So many are taken away before the lock is given up and they are sent on their way. */
#define SPOILS 8

/* Slots taken away under the lock, to be sent to their keepers after it. */
struct spoils {
        unsigned count;
        struct lido_slot *slot[SPOILS];
};

static struct lido_pool *pool_of_rank(struct heap_node *node)
{
        return list_entry(node, struct lido_pool, budgeted.rank);
}

/* Does the pool have more than its min, opens under way not counted? */
static bool is_above_min(struct lido_pool *pool, uint32_t *ret_idle)
{
        uint32_t count[SLOT_STATES];

        slots_count(&pool->slots, count);
        *ret_idle = count[SLOT_IDLE] + count[SLOT_RESTED];
        return *ret_idle + count[SLOT_LEASED] + count[SLOT_CHECKING] + count[SLOT_RESETTING] > pool_options(pool)->min;
}

/* The slot is the caller's, and is going to be closed for somebody else. */
static void mark_stolen(struct lido_budget *budget, struct lido_slot *slot) REQUIRES(budget->lock)
{
        slot->is_stolen = 1;
        slot->reason = LIDO_CLOSE_STOLEN;
        budget->coming++;
        budget->stolen++;
}

/* Take an idle object that the pool can spare, the highest, for load gathers on the low ones. While somebody waits there, what has
 * just fallen idle is on its way to him, and only what has rested nevertheless is to spare. NULL: it has none. */
static struct lido_slot *take_spare(struct lido_budget *budget, struct lido_pool *pool) REQUIRES(budget->lock)
{
        uint32_t index = load_acquire(&pool->slots.high), idle;
        uint64_t gate = load_seq_cst(&pool->gate), generation;
        bool may_take_idle = !(gate & GATE_COUNT) || (gate & GATE_PAUSED);

        if (!is_above_min(pool, &idle) || idle == 0)
                return NULL;
        while (index-- > 0) {
                struct lido_slot *slot = slots_at(&pool->slots, index);
                uint64_t word = load_seq_cst(&slot->word);

                if (word_state(word) == SLOT_IDLE && !may_take_idle)
                        continue;
                if (!slots_claim_this(slot, word, &generation))
                        continue;
                mark_stolen(budget, slot);
                slot_pass_on(slot, generation, SLOT_CLOSING);
                return slot;
        }
        return NULL;
}

/* When was it used last, as far as is known? Who acquires by key writes it down. */
static uint64_t last_use(struct lido_pool *pool, uint64_t now)
{
        uint64_t leases = 0;

        if (pool->owner)
                return load_relaxed(&pool->used_ns);
        slots_for_each (slot, &pool->slots)
                leases += load_relaxed(&slot->leases);
        if (leases != pool->budgeted.seen_leases)
                store_relaxed(&pool->used_ns, now);
        pool->budgeted.seen_leases = leases;
        return load_relaxed(&pool->used_ns);
}

/* Find an object to take away, of the pool that was used least recently. A pool that was used since it was ranked is ranked anew;
 * one with nothing to spare is marked, so that it is not looked at again before something falls idle in it. */
static struct lido_slot *steal_one(struct lido_budget *budget, uint64_t now) REQUIRES(budget->lock)
{
        struct heap_node *node;

        for (uint32_t looks = 2 * budget->members_count + 1; looks > 0 && (node = heap_first(&budget->ranked)); looks--) {
                struct lido_pool *pool = pool_of_rank(node);
                uint64_t used_ns = last_use(pool, now);
                struct lido_slot *slot;

                if (used_ns > node->due_ns) {
                        heap_set(&budget->ranked, node, used_ns);
                        continue;
                }
                slot = take_spare(budget, pool);
                if (slot)
                        return slot;
                or_seq_cst(&pool->gate, GATE_COVETED); /* law 2: pairs with whoever makes a slot idle */
                slot = take_spare(budget, pool);
                if (slot) {
                        and_seq_cst(&pool->gate, ~GATE_COVETED);
                        return slot;
                }
                heap_remove(&budget->ranked, node);
        }
        return NULL;
}

static void steal(struct lido_budget *budget, struct spoils *spoils, uint64_t now) REQUIRES(budget->lock)
{
        struct lido_slot *slot;

        while (spoils->count < SPOILS && budget_shortage(budget) > 0 && (slot = steal_one(budget, now)) != NULL)
                spoils->slot[spoils->count++] = slot;
}

/* Returns: true when there may be more to take. */
static bool send_away(struct spoils *spoils)
{
        bool was_full = spoils->count == SPOILS;

        while (spoils->count > 0) {
                struct lido_slot *slot = spoils->slot[--spoils->count];

                pool_send(load_relaxed(&slot->pool), slot);
        }
        return was_full;
}

void budget_settle(struct lido_budget *budget)
{
        struct spoils spoils = { .count = 0 };
        struct lido_pool *first;
        uint64_t now = clock_now_ns();

        do {
                mutex_lock(&budget->lock);
                steal(budget, &spoils, now);
                first = budget_to_call(budget, now);
                mutex_unlock(&budget->lock);
                budget_call(first);
        } while (send_away(&spoils));
}

void budget_rank(struct lido_budget *budget, struct lido_pool *pool) REQUIRES(budget->lock)
{
        if (!pool->budgeted.rank.is_in)
                heap_set(&budget->ranked, &pool->budgeted.rank, load_relaxed(&pool->used_ns));
}

void budget_notice_idle(struct lido_pool *pool)
{
        struct lido_budget *budget = load_acquire(&pool->budget);
        bool is_member, is_short = false;

        if (!budget)
                return;
        mutex_lock(&budget->lock);
        is_member = load_relaxed(&pool->budget) == budget;
        if (is_member) {
                budget_rank(budget, pool);
                is_short = budget_shortage(budget) > 0;
        }
        mutex_unlock(&budget->lock);
        if (is_short)
                budget_settle(budget);
}

bool budget_claims(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation)
{
        struct lido_budget *budget = load_acquire(&pool->budget);
        uint64_t own_ns = waitq_oldest_ns(pool);
        struct lido_pool *first;
        bool is_claimed = false;
        uint32_t idle;

        if (!budget)
                return false;
        mutex_lock(&budget->lock);
        first = budget_pool_of(heap_first(&budget->line));
        if (budget_shortage(budget) == 0) {
                and_seq_cst(&pool->gate, ~GATE_COVETED);
                budget_rank(budget, pool);
        } else if (is_above_min(pool, &idle) && (budget->used > budget->total || (first && first != pool &&
                                                                        first->budgeted.place.due_ns < own_ns))) {
                mark_stolen(budget, slot);
                slot_pass_on(slot, generation, SLOT_CLOSING);
                is_claimed = true;
        }
        mutex_unlock(&budget->lock);
        if (is_claimed)
                pool_send(pool, slot);
        return is_claimed;
}

bool budget_evict(struct lido_pool *pool, struct lido_slot *slot, uint64_t word)
{
        struct lido_budget *budget = load_acquire(&pool->budget);
        uint64_t generation;
        uint32_t idle;
        bool is_going;

        mutex_lock(&budget->lock);
        is_going = is_above_min(pool, &idle) && slots_claim_this(slot, word, &generation);
        if (is_going) {
                slot->reason = LIDO_CLOSE_IDLE;
                slot_pass_on(slot, generation, SLOT_CLOSING);
        }
        mutex_unlock(&budget->lock);
        if (is_going)
                pool_send(pool, slot);
        return is_going;
}

void budget_reconsider(struct lido_pool *pool)
{
        if ((load_seq_cst(&pool->gate) & (GATE_COVETED | GATE_COUNT)) == GATE_COVETED && slots_any_free(&pool->slots))
                pool_notice_idle(pool, GATE_COVETED);
}

void budget_look(struct lido_pool *pool, uint64_t now)
{
        struct lido_budget *budget = load_acquire(&pool->budget);

        if (!budget)
                return;
        mutex_lock(&budget->lock);
        last_use(pool, now);
        mutex_unlock(&budget->lock);
        if (load_relaxed(&pool->gate) & GATE_COVETED)
                pool_notice_idle(pool, GATE_COVETED);
}
