#include "keeper/rotate.h"

#include "base/clock.h"
#include "pool/op.h"
#include "pool/waitq.h"

/* May this one be replaced: whole, not on its way out, born before the rotation, chosen, or near the end of its life? */
static bool is_old(struct lido_pool *pool, struct lido_slot *slot, uint64_t word)
{
        switch (word_state(word)) {
        case SLOT_IDLE:
        case SLOT_RESTED:
        case SLOT_LEASED:
        case SLOT_CHECKING:
        case SLOT_RESETTING:
                break;
        default:
                return false;
        }
        if (word & (MARK_RETIRE | MARK_REVOKED))
                return false;
        return slot->is_aged || load_relaxed(&slot->is_chosen) || load_relaxed(&slot->born_ns) < pool->kept.rotate_before_ns;
}

static uint32_t count_old(struct lido_pool *pool)
{
        uint32_t old = 0;

        slots_for_each (slot, &pool->slots)
                if (is_old(pool, slot, load_acquire(&slot->word)))
                        old++;
        return old;
}

/* Send away the object that is oldest, an idle one rather than one that is lent or worked on. Returns: false when there is none. */
static bool retire_oldest(struct lido_pool *pool)
{
        struct lido_slot *oldest = NULL;
        uint64_t oldest_word = 0, generation;
        bool oldest_is_idle = false;

        slots_for_each (slot, &pool->slots) {
                uint64_t word = load_acquire(&slot->word);
                bool is_idle = word_state(word) == SLOT_IDLE || word_state(word) == SLOT_RESTED;

                if (!is_old(pool, slot, word) || (oldest_is_idle && !is_idle))
                        continue;
                if (!oldest || is_idle != oldest_is_idle || load_relaxed(&slot->born_ns) < load_relaxed(&oldest->born_ns)) {
                        oldest = slot;
                        oldest_word = word;
                        oldest_is_idle = is_idle;
                }
        }
        if (!oldest)
                return false;
        store_relaxed(&oldest->retire_reason, oldest->is_aged ? LIDO_CLOSE_LIFETIME : LIDO_CLOSE_ROTATED);
        if (oldest_is_idle && slots_claim_this(oldest, oldest_word, &generation)) {
                op_want_close(pool, oldest, generation, (enum lido_close_reason)load_relaxed(&oldest->retire_reason));
                return true;
        }
        return slot_mark(oldest, word_generation(oldest_word), oldest_is_idle ? SLOT_LEASED : word_state(oldest_word),
                         MARK_RETIRE);
}

static bool has_room(struct lido_pool *pool)
{
        return load_seq_cst(&pool->live) < load_seq_cst(&pool->limit);
}

static void replace_one(struct lido_pool *pool)
{
        if (has_room(pool))
                pool->kept.replacing++;
        else
                retire_oldest(pool); /* `strength` has it reopened */
}

void rotate_note_opened(struct lido_pool *pool)
{
        if (pool->kept.replacing == 0)
                return;
        pool->kept.replacing--;
        retire_oldest(pool);
}

static bool is_in_demand(struct lido_pool *pool)
{
        uint32_t idle = pool->kept.low_water[0];

        for (int i = 1; i < IDLE_PERIODS; i++)
                idle = pool->kept.low_water[i] < idle ? pool->kept.low_water[i] : idle;
        return waitq_length(pool) > 0 || idle == 0 || load_relaxed(&pool->live) <= pool_options(pool)->min;
}

void rotate_replace_aged(struct lido_pool *pool, struct lido_slot *slot)
{
        if (slot->is_aged)
                return;
        slot->is_aged = 1;
        if (is_in_demand(pool) && has_room(pool)) {
                pool->kept.replacing++;
                pool_call_keeper(pool);
        }
}

/* How many old ones may be left at this time. */
static uint32_t allowed(struct lido_pool *pool, uint64_t now)
{
        uint64_t whole = pool->kept.rotate_ends_ns - pool->kept.rotate_began_ns;

        if (now >= pool->kept.rotate_ends_ns || whole == 0)
                return 0;
        return (uint32_t)((pool->kept.rotate_ends_ns - now) * pool->kept.rotate_total / whole);
}

/* Take up what lido_pool_rotate has asked for. It concerns what was open when it was called: `now` may be older than that, and
 * than objects that this very turn has opened. */
static void begin_all(struct lido_pool *pool, uint64_t over_ns)
{
        uint64_t asked_ns = load_relaxed(&pool->rotate_asked_ns);

        pool->kept.rotate_before_ns = pool->kept.rotate_began_ns = asked_ns;
        pool->kept.rotate_ends_ns = asked_ns + clock_min(over_ns, CLOCK_NEVER - 1 - asked_ns);
}

/* What lido_pool_rotate_if has chosen joins what is left of a rotation under way. */
static void begin_chosen(struct lido_pool *pool, uint64_t over_ns, uint64_t now)
{
        uint64_t ends_ns = now + clock_min(over_ns, CLOCK_NEVER - 1 - now);

        pool->kept.rotate_began_ns = now;
        if (pool->kept.rotate_ends_ns < ends_ns)
                pool->kept.rotate_ends_ns = ends_ns;
}

static void begin(struct lido_pool *pool, uint64_t now)
{
        uint64_t over_ns = exchange_acq_rel(&pool->rotate_over_ns, 0);
        uint64_t chosen_over_ns = exchange_acq_rel(&pool->chosen_over_ns, 0);
        uint32_t live = load_seq_cst(&pool->live);

        if (over_ns == 0 && chosen_over_ns == 0)
                return;
        if (over_ns != 0)
                begin_all(pool, over_ns);
        if (chosen_over_ns != 0)
                begin_chosen(pool, chosen_over_ns, now);
        pool->kept.rotate_total = count_old(pool);
        if (pool->kept.strength < live)
                pool->kept.strength = live;
}

uint64_t rotate(struct lido_pool *pool, uint64_t now)
{
        uint32_t old;
        uint64_t step;

        begin(pool, now);
        if (pool->kept.rotate_ends_ns == 0)
                return CLOCK_NEVER;
        old = count_old(pool);
        if (old == 0 && pool->kept.replacing == 0) {
                pool->kept.rotate_ends_ns = 0;
                pool->kept.strength = 0;
                return CLOCK_NEVER;
        }
        if (old > allowed(pool, now) + pool->kept.replacing && !load_relaxed(&pool->is_failing))
                replace_one(pool);
        step = (pool->kept.rotate_ends_ns - pool->kept.rotate_began_ns) / (pool->kept.rotate_total + 1);
        step = step < NS_PER_MS ? NS_PER_MS : step;
        return now + clock_min(step, 100 * NS_PER_MS);
}
