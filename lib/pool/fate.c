/* What becomes of a slot that somebody has in hand, and who is told: the keeper, the line, the budget. */
#include "pool/pool.h"

#include "base/clock.h"
#include "pool/doubt.h"
#include "pool/op.h"
#include "pool/waitq.h"

void pool_call_keeper(struct lido_pool *pool)
{
        struct pool_host *host;
        bool must_wake = false;

        if (load_seq_cst(&pool->called)) /* pairs with keeper_turn, which clears it before it looks */
                return;
        mutex_lock(&pool->waitq.lock);
        host = load_relaxed(&pool->host);
        if (host && !exchange_acq_rel(&pool->called, 1))
                must_wake = inbox_send(&host->called, &pool->call);
        mutex_unlock(&pool->waitq.lock);
        if (must_wake)
                host->wake(host);
}

void pool_ask_for_more(struct lido_pool *pool)
{
        const struct lido_pool_options *options = pool_options(pool);

        if (load_seq_cst(&pool->live) < load_seq_cst(&pool->limit) || options->reserve > 0 || options->codel_target_ms >= 0)
                pool_call_keeper(pool);
}

void pool_tried_in_vain(struct lido_pool *pool)
{
        if (load_relaxed(&pool->live) >= load_relaxed(&pool->limit))
                return;
        store_relaxed(&pool->tried, 1);
        pool_call_keeper(pool);
}

void pool_look_again(struct lido_pool *pool)
{
        store_seq_cst(&pool->look_now, 1);
        pool_call_keeper(pool);
}

/* The service is gone: whoever brings a slot deals with it. */
static void run_orphan(struct lido_pool *pool, struct lido_slot *slot)
{
        uint64_t word = load_acquire(&slot->word);

        if (word & MARK_ANSWERED) {
                op_finish(pool, slot);
                pool_end_orphan(pool);
                return;
        }
        if (word_state(word) != SLOT_CLOSING) {
                slot_pass_on(slot, word_generation(word), SLOT_CLOSING);
                slot->reason = LIDO_CLOSE_SHUTDOWN;
                word = load_relaxed(&slot->word);
        }
        op_begin(pool, slot, word_generation(word));
}

void pool_send(struct lido_pool *pool, struct lido_slot *slot)
{
        struct pool_host *host;
        bool must_wake = false;

        mutex_lock(&pool->waitq.lock);
        host = load_relaxed(&pool->host);
        if (host)
                must_wake = inbox_send(&host->slots, &slot->letter);
        mutex_unlock(&pool->waitq.lock);
        if (!host)
                run_orphan(pool, slot);
        else if (must_wake)
                host->wake(host);
}

struct lido_slot *pool_claim(struct lido_pool *pool, uint64_t *ret_generation, bool *ret_had_rested)
{
        struct slots_doubt doubt = pool_doubt(pool);

        if (pool_options(pool)->order == LIDO_ORDER_FIFO)
                return slots_claim_oldest(&pool->slots, &doubt, ret_generation, ret_had_rested);
        return slots_claim(&pool->slots, &doubt, ret_generation, ret_had_rested);
}

void pool_note_order(struct lido_pool *pool, struct lido_slot *slot)
{
        if (pool_options(pool)->order == LIDO_ORDER_FIFO)
                store_relaxed(&slot->order, add_relaxed(&pool->release_order, 1));
}

void pool_decide(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation, uint64_t marks)
{
        if (load_seq_cst(&pool->gate) & (GATE_CLOSED | GATE_ORPHANED))
                op_want_close(pool, slot, generation, LIDO_CLOSE_SHUTDOWN);
        else if (marks & MARK_REVOKED)
                op_want_close(pool, slot, generation, LIDO_CLOSE_REVOKED);
        else if (marks & MARK_RETIRE)
                op_want_close(pool, slot, generation, (enum lido_close_reason)load_relaxed(&slot->retire_reason));
        else if (marks & MARK_SUSPECT)
                op_want(pool, slot, generation, SLOT_CHECKING);
        else if (!(load_relaxed(&pool->gate) & GATE_COVETED) || !budget_claims(pool, slot, generation))
                pool_offer(pool, slot, generation);
}

void pool_decide_marked(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation)
{
        uint64_t marks = slot_pass_on(slot, generation, SLOT_LEASED);

        pool_decide(pool, slot, generation + GENERATION_ONE, marks);
}

void pool_for_all(struct lido_pool *pool, uint64_t mark, void (*act)(struct lido_pool *, struct lido_slot *, uint64_t))
{
        slots_for_each (slot, &pool->slots)
                for (;;) {
                        uint64_t word = load_acquire(&slot->word), generation;
                        enum slot_state state = word_state(word);

                        if (state == SLOT_IDLE || state == SLOT_RESTED) {
                                if (!slots_claim_this(slot, word, &generation))
                                        continue;
                                act(pool, slot, generation);
                        } else if (state == SLOT_LEASED || state == SLOT_CHECKING || state == SLOT_RESETTING) {
                                if (mark == MARK_RETIRE)
                                        store_relaxed(&slot->retire_reason, LIDO_CLOSE_ROTATED);
                                if (!slot_mark(slot, word_generation(word), state, mark))
                                        continue;
                        }
                        break;
                }
}

/* Whatever changes so that a try may look again. */
static void forget_exhaustion(struct lido_pool *pool)
{
        if (load_seq_cst(&pool->gate) & (GATE_EXHAUSTED | GATE_SCANNING))
                and_seq_cst(&pool->gate, ~(GATE_EXHAUSTED | GATE_SCANNING));
}

void pool_set_max(struct lido_pool *pool, uint32_t max)
{
        store_seq_cst(&pool->max, max);
        store_seq_cst(&pool->limit, max);
        forget_exhaustion(pool);
}

bool pool_reserve(struct lido_pool *pool)
{
        uint32_t live = load_relaxed(&pool->live);

        do
                if (live >= load_seq_cst(&pool->limit))
                        return false;
        while (!cas_seq_cst(&pool->live, &live, live + 1));
        return true;
}

void pool_unreserve(struct lido_pool *pool)
{
        sub_seq_cst(&pool->live, 1);
        budget_give_back(pool);
}

/* The pool is closing and a slot fell idle behind the closer's back. Claimed, it keeps the pool from ending; so only now
 * is it certain that the gate read before was this pool's, and not a former one's in the same memory. */
static void reap(struct lido_pool *pool)
{
        struct lido_slot *slot;
        uint64_t generation;
        bool had_rested;

        while ((load_seq_cst(&pool->gate) & (GATE_CLOSED | GATE_ORPHANED)) &&
               (slot = slots_claim(&pool->slots, NULL, &generation, &had_rested)) != NULL)
                pool_decide_marked(pool, slot, generation);
}

void pool_notice_idle(struct lido_pool *pool, uint64_t gate)
{
        if (gate & (GATE_EXHAUSTED | GATE_SCANNING))
                forget_exhaustion(pool);
        if ((gate & GATE_NAPPING) && (and_seq_cst(&pool->gate, ~GATE_NAPPING) & GATE_NAPPING))
                pool_call_keeper(pool);
        if ((gate & GATE_COVETED) && (and_seq_cst(&pool->gate, ~GATE_COVETED) & GATE_COVETED))
                budget_notice_idle(pool);
        if (gate & (GATE_CLOSED | GATE_ORPHANED))
                reap(pool);
        if (gate & GATE_COUNT)
                waitq_poke(pool);
}

void pool_changed(struct lido_pool *pool)
{
        add_seq_cst(&pool->changes, 1);
        park_wake(&pool->changes, INT32_MAX);
}

bool pool_must_not_wait(struct lido_pool *pool)
{
        struct pool_host *host = load_relaxed(&pool->host);

        return thread_self()->in_hook == pool || (host && load_relaxed(&host->thread) == thread_id());
}

void pool_vacate(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation)
{
        struct lido_budget *budget = load_relaxed(&pool->budget);
        bool was_stolen = slot->is_stolen;

        store_relaxed(&slot->object, NULL);
        store_relaxed(&slot->life, 0);
        store_relaxed(&slot->is_chosen, 0);
        store_relaxed(&slot->data, NULL);
        store_relaxed(&slot->label, 0);
        store_relaxed(&slot->op_due_ns, CLOCK_NEVER);
        slot->is_detached = 0;
        slot->is_stolen = 0;
        slot_pass_on(slot, generation, SLOT_VACANT);
        sub_seq_cst(&pool->live, 1); /* from here on the pool may end; the permit keeps the budget */
        forget_exhaustion(pool); /* there is room: a try may ask for an object */
        if (budget)
                budget_give(budget, was_stolen);
}
