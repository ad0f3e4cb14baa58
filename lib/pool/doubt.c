#include "pool/doubt.h"

#include "pool/op.h"
#include "pool/waitq.h"

static struct lido_slot *claim_doubted(struct lido_pool *pool, struct slots_doubt *doubt, uint64_t *ret_generation)
{
        slots_for_each (slot, &pool->slots) {
                uint64_t word = load_seq_cst(&slot->word);

                if (word_state(word) == SLOT_RESTED && slot_is_doubted(slot, word, doubt) &&
                    slots_claim_this(slot, word, ret_generation))
                        return slot;
        }
        return NULL;
}

static uint32_t count_checks(struct lido_pool *pool)
{
        uint32_t count = 0;

        slots_for_each (slot, &pool->slots)
                count += word_state(load_seq_cst(&slot->word)) == SLOT_CHECKING; /* law 2: pairs with finish_upkeep */
        return count;
}

static void check_some(struct lido_pool *pool, uint32_t more)
{
        struct slots_doubt doubt = pool_doubt(pool);
        uint64_t gate = load_seq_cst(&pool->gate), generation;

        if (gate & (GATE_CLOSED | GATE_PAUSED))
                return;
        for (uint64_t checks = count_checks(pool); checks < (gate & GATE_COUNT) + more; checks++) {
                struct lido_slot *slot = claim_doubted(pool, &doubt, &generation);

                if (!slot)
                        return;
                if (load_relaxed(&slot->word) & ~MARK_SUSPECT & MARKS)
                        pool_decide_marked(pool, slot, generation);
                else
                        op_want(pool, slot, generation, SLOT_CHECKING);
        }
}

void doubt_check(struct lido_pool *pool, uint32_t more)
{
        doubt_after_suspend(pool);
        check_some(pool, more);
}

/* Back to rest as it is: the mark must be there before anybody can claim it. */
void doubt_rest(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation)
{
        uint64_t seen = word_make(generation, SLOT_LEASED), gate;

        for (;;) {
                if (seen & MARK_RETIRE) {
                        pool_decide_marked(pool, slot, generation);
                        return;
                }
                if (seen & MARK_INTERRUPTING) { /* a hook is at work on the object, and does not block */
                        thread_yield();
                        seen = load_acquire(&slot->word);
                } else if (slot_move(slot, &seen, word_next(seen, SLOT_RESTED) | MARK_SUSPECT)) {
                        break;
                }
        }
        gate = load_seq_cst(&pool->gate); /* law 2: a waiter may have scanned meanwhile */
        if (gate & GATE_NOTICE)
                pool_notice_idle(pool, gate);
}

void doubt_all(struct lido_pool *pool)
{
        pool_for_all(pool, MARK_SUSPECT, doubt_rest);
        pool_look_again(pool);
}

void doubt_after_suspend(struct lido_pool *pool)
{
        struct lido_event event = { .type = LIDO_EVENT_SUSPENDED, .slot = LIDO_UNLIMITED,
                                    .reason = "the machine was suspended" };
        uint64_t known_ns = load_relaxed(&pool->suspended_ns), now_ns = clock_suspended_ns();

        if (now_ns < known_ns + SUSPEND_NS)
                return;
        if (pool->factory.check)
                doubt_all(pool);
        if (!cas_release(&pool->suspended_ns, &known_ns, now_ns)) /* after the marks: pairs with pool_doubt */
                return;                                           /* somebody else tells */
        event.age_ns = now_ns - known_ns;
        pool_emit(pool, &event);
}

void doubt_idle(struct lido_pool *pool, uint64_t since_ns)
{
        slots_for_each (slot, &pool->slots) {
                uint64_t word = load_acquire(&slot->word), generation;

                if ((word & MARK_SUSPECT) || load_relaxed(&slot->checked_ns) >= since_ns)
                        continue;
                if (slots_claim_this(slot, word, &generation))
                        doubt_rest(pool, slot, generation);
        }
}
