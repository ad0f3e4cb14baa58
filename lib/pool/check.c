/* The invariants of slots, line and counters, asserted. */
#include "base/assert.h"
#include "pool/doubt.h"

/* While somebody waits nothing lies idle but what is doubted, and of that so much is being checked as there are who wait. */
static bool nothing_lies_idle(struct lido_pool *pool, const uint32_t count[SLOT_STATES], uint64_t waiting)
{
        struct slots_doubt doubt = pool_doubt(pool);

        if (count[SLOT_IDLE] > 0)
                return false;
        slots_for_each (slot, &pool->slots) {
                uint64_t word = load_seq_cst(&slot->word);

                if (word_state(word) == SLOT_RESTED && (!slot_is_doubted(slot, word, &doubt) || count[SLOT_CHECKING] < waiting))
                        return false;
        }
        return true;
}

void slots_check(struct lido_pool *pool, bool is_quiet)
{
        uint32_t count[SLOT_STATES], used;
        uint64_t gate = load_seq_cst(&pool->gate);

        slots_count(&pool->slots, count);
        used = load_relaxed(&pool->slots.high) - count[SLOT_VACANT];
        lido_assert(load_relaxed(&pool->slots.high) <= load_relaxed(&pool->slots.capacity));
        if (!is_quiet)
                return;
        lido_assert(load_seq_cst(&pool->live) == used);
        lido_assert(load_seq_cst(&pool->opening) == count[SLOT_OPENING]);
        lido_assert((gate & (GATE_COUNT | GATE_PAUSED)) != (gate & GATE_COUNT) || (gate & GATE_COUNT) == 0 ||
                    nothing_lies_idle(pool, count, gate & GATE_COUNT) || load_relaxed(&pool->has_quotas));
        lido_assert(!(gate & GATE_EXHAUSTED) || count[SLOT_IDLE] + count[SLOT_RESTED] == 0);
        mutex_lock(&pool->waitq.lock);
        used = 0;
        for (int i = 0; i < PRIORITIES; i++)
                list_for_each (link, &pool->waitq.line[i])
                        used++;
        mutex_unlock(&pool->waitq.lock);
        lido_assert(used == (gate & GATE_COUNT));
        slots_for_each (slot, &pool->slots) {
                enum slot_state state = word_state(load_acquire(&slot->word));

                lido_assert(load_relaxed(&slot->pool) == pool);
                if (state == SLOT_VACANT)
                        lido_assert(load_relaxed(&slot->object) == NULL);
        }
}
