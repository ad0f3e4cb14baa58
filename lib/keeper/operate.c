/* What an operator does to a running pool: pause, trim, clear, rotate, suspect, adopt, reconfigure. Any thread. */
#include <stdio.h>

#include "base/clock.h"
#include "base/stack.h"
#include "keeper/keeper.h"
#include "pool/doubt.h"
#include "pool/op.h"
#include "pool/options.h"
#include "pool/waitq.h"

static int check(struct lido_pool *pool)
{
        if (!pool)
                return LIDO_EINVAL;
        return load_seq_cst(&pool->gate) & GATE_FORKED ? LIDO_EFORKED : LIDO_OK;
}

int lido_pool_pause(struct lido_pool *pool, int mode)
{
        int rc = check(pool);

        if (rc != LIDO_OK || (mode != LIDO_PAUSE_HOLD && mode != LIDO_PAUSE_REJECT))
                return rc != LIDO_OK ? rc : LIDO_EINVAL;
        mutex_lock(&pool->waitq.lock);
        or_seq_cst(&pool->gate, mode == LIDO_PAUSE_REJECT ? GATE_PAUSED | GATE_REJECTING : GATE_PAUSED);
        if (mode == LIDO_PAUSE_HOLD)
                and_seq_cst(&pool->gate, ~GATE_REJECTING);
        mutex_unlock(&pool->waitq.lock);
        if (mode == LIDO_PAUSE_REJECT)
                waitq_fail_all(pool, LIDO_EPAUSED);
        return LIDO_OK;
}

int lido_pool_resume(struct lido_pool *pool)
{
        int rc = check(pool);

        if (rc != LIDO_OK)
                return rc;
        and_seq_cst(&pool->gate, ~(GATE_PAUSED | GATE_REJECTING));
        waitq_serve(pool);
        pool_call_keeper(pool);
        return LIDO_OK;
}

int lido_pool_trim(struct lido_pool *pool, uint32_t keep)
{
        int rc = check(pool), closed = 0;
        uint32_t index, left;

        if (rc != LIDO_OK)
                return rc;
        left = load_seq_cst(&pool->live);
        for (index = load_acquire(&pool->slots.high); index > 0 && left > keep; index--) {
                struct lido_slot *slot = slots_at(&pool->slots, index - 1);
                uint64_t generation;

                if (slots_claim_this(slot, load_acquire(&slot->word), &generation)) {
                        op_want_close(pool, slot, generation, LIDO_CLOSE_IDLE);
                        closed++;
                        left--;
                }
        }
        return closed;
}

static void close_rotated(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation)
{
        op_want_close(pool, slot, generation, LIDO_CLOSE_ROTATED);
}

int lido_pool_clear(struct lido_pool *pool)
{
        int rc = check(pool);

        if (rc == LIDO_OK)
                pool_for_all(pool, MARK_RETIRE, close_rotated);
        return rc;
}

int lido_pool_suspect(struct lido_pool *pool)
{
        int rc = check(pool);

        if (rc == LIDO_OK)
                doubt_all(pool);
        return rc;
}

int lido_pool_rotate(struct lido_pool *pool, int64_t over_ms)
{
        int rc = check(pool);

        if (rc != LIDO_OK || over_ms < 0)
                return rc != LIDO_OK ? rc : LIDO_EINVAL;
        if (load_seq_cst(&pool->gate) & GATE_CLOSED)
                return LIDO_ECLOSED;
        store_relaxed(&pool->rotate_asked_ns, clock_now_ns());
        store_seq_cst(&pool->rotate_over_ns, clock_after_ms(1, over_ms));
        pool_call_keeper(pool);
        return LIDO_OK;
}

/* What lido_pool_rotate_if looks for. */
struct choice {
        int (*wants)(void *object, void *context);
        void *context;
        int count;
};

/* The caller has claimed or holds the slot. */
static void choose(struct lido_pool *pool, struct lido_slot *slot, struct choice *choice)
{
        struct thread_self *self = thread_self();
        void *outer = self->in_hook;
        int is_wanted;

        self->in_hook = pool; /* to wait for the pool here is refused */
        is_wanted = choice->wants(load_relaxed(&slot->object), choice->context);
        self->in_hook = outer;
        if (!is_wanted)
                return;
        store_relaxed(&slot->is_chosen, 1);
        choice->count++;
}

/* One that nobody uses is put back as it was, so that it has neither been used nor woken. Returns: false when somebody was faster. */
static bool choose_idle(struct lido_pool *pool, struct lido_slot *slot, uint64_t word, struct choice *choice)
{
        uint64_t generation, gate;

        if (!slots_claim_this(slot, word, &generation))
                return false;
        choose(pool, slot, choice);
        if (!slot_unclaim(slot, word)) {
                pool_decide_marked(pool, slot, generation);
                return true;
        }
        gate = load_seq_cst(&pool->gate); /* law 2: a waiter may have scanned meanwhile */
        if (gate & GATE_NOTICE)
                pool_notice_idle(pool, gate);
        return true;
}

/* Returns: false when the slot has moved on. */
static bool choose_one(struct lido_pool *pool, struct lido_slot *slot, struct choice *choice)
{
        uint64_t word = load_acquire(&slot->word);

        switch (word_state(word)) {
        case SLOT_IDLE:
        case SLOT_RESTED:
                return choose_idle(pool, slot, word, choice);
        case SLOT_LEASED:
        case SLOT_CHECKING:
        case SLOT_RESETTING:
                if (!slot_hold(slot, word_generation(word), word_state(word)))
                        return false;
                choose(pool, slot, choice);
                slot_let_go(slot);
                return true;
        default:
                return true;
        }
}

int lido_pool_rotate_if(struct lido_pool *pool, int64_t over_ms, int (*wants)(void *, void *), void *context)
{
        struct choice choice = { .wants = wants, .context = context };
        int rc = check(pool);

        if (rc != LIDO_OK || over_ms < 0 || !wants)
                return rc != LIDO_OK ? rc : LIDO_EINVAL;
        if (load_seq_cst(&pool->gate) & GATE_CLOSED)
                return LIDO_ECLOSED;
        slots_for_each (slot, &pool->slots)
                while (!choose_one(pool, slot, &choice))
                        continue;
        if (choice.count == 0)
                return 0;
        store_seq_cst(&pool->chosen_over_ns, clock_after_ms(1, over_ms));
        pool_call_keeper(pool);
        return choice.count;
}

int lido_pool_adopt(struct lido_pool *pool, void *object)
{
        struct lido_slot *slot;
        uint64_t ticket;
        lido_op op;
        int rc = check(pool);

        if (rc != LIDO_OK)
                return rc;
        if (load_seq_cst(&pool->gate) & (GATE_CLOSED | GATE_ORPHANED))
                return LIDO_ECLOSED;
        if (!budget_try(pool))
                return LIDO_EEXHAUSTED;
        if (!pool_reserve(pool)) {
                budget_give_back(pool);
                return LIDO_EEXHAUSTED;
        }
        slot = slots_claim_vacant(&pool->slots, &ticket);
        if (!slot) {
                pool_unreserve(pool);
                return LIDO_EEXHAUSTED;
        }
        add_relaxed(&pool->opening, 1);
        store_relaxed(&slot->op_inline, OP_TO_KEEPER);
        store_relaxed(&slot->op_began_ns, clock_now_ns());
        op = (lido_op){ slot, ticket };
        return lido_op_opened(op, object);
}

static void say(struct lido_error *error, int code, const char *text)
{
        if (!error)
                return;
        *error = (struct lido_error){ .code = code };
        snprintf(error->text, sizeof error->text, "%s", text);
}

int lido_pool_reconfigure(struct lido_pool *pool, const struct lido_pool_options *options, struct lido_error *ret_error)
{
        const struct lido_pool_options *old;
        struct lido_pool_options ours;
        int rc = check(pool);

        if (rc != LIDO_OK)
                return rc;
        rc = options_take(&ours, options, ret_error);
        if (rc != LIDO_OK)
                return rc;
        if (load_seq_cst(&pool->gate) & GATE_CLOSED)
                return LIDO_ECLOSED;
        if (ours.backtrace_every > 0)
                stack_prepare();
        mutex_lock(&pool->waitq.lock);
        old = pool_options(pool);
        if (ours.start != old->start || ours.open_inline != old->open_inline || ours.budget != old->budget) {
                say(ret_error, LIDO_EINVAL, "start, open_inline and budget cannot change at run time");
                rc = LIDO_EINVAL;
        } else {
                rc = slots_grow(&pool->slots, pool, ours.max + ours.reserve);
        }
        if (rc == LIDO_OK)
                rc = pool_set_options(pool, &ours);
        if (rc == LIDO_OK)
                pool_set_max(pool, ours.max);
        mutex_unlock(&pool->waitq.lock);
        if (rc == LIDO_OK)
                pool_look_again(pool);
        return rc;
}

int lido_would_wait(struct lido_pool *pool)
{
        uint64_t gate;
        struct slots_doubt doubt;
        bool is_passed_over;

        if (!pool)
                return 0;
        gate = load_seq_cst(&pool->gate);
        if (gate & GATE_PAUSED)
                return 1;
        if ((gate & GATE_COUNT) && pool_options(pool)->overtake_us < 0)
                return 1;
        if (pool_options(pool)->open_inline && load_seq_cst(&pool->live) < load_seq_cst(&pool->limit))
                return 0;
        doubt = pool_doubt(pool);
        slots_for_each (slot, &pool->slots) {
                uint64_t word = load_acquire(&slot->word);

                if (slot_is_claimable(slot, word, &doubt, &is_passed_over))
                        return 0;
        }
        return 1;
}

uint64_t lido_estimated_wait_ns(struct lido_pool *pool)
{
        if (!pool || slots_any_free(&pool->slots))
                return 0;
        return load_relaxed(&pool->waitq.gap_ns) * (waitq_length(pool) + 1);
}
