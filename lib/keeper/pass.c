#include "keeper/pass.h"

#include "base/clock.h"
#include "keeper/rotate.h"
#include "keeper/work.h"
#include "pool/blame.h"
#include "pool/op.h"
#include "pool/waitq.h"

/* When something cannot be done because the object is in demand. */
#define RETRY_NS (10 * NS_PER_MS)
/* So long before its end an object in demand gets a replacement. */
#define REPLACE_LEAD_NS (2 * NS_PER_S)

/* What one pass is about. */
struct look {
        uint64_t now;
        uint64_t due;      /* when to look again */
        uint32_t restless; /* idle, but not yet known to have rested */
        uint32_t idle;     /* idle or rested */
        uint32_t checking; /* idle but for being checked */
        uint32_t touched;  /* idle, but lent since the last pass */
        uint32_t live;     /* objects that nobody is closing yet */
        uint32_t surplus;  /* idle objects that may go, because nobody needed them for so long */
        uint32_t excess;   /* objects beyond max */
        uint32_t checks;   /* how many more doubtful objects may be checked at once */
        bool may_claim;    /* nobody waits: idle objects may be worked on */
};

static uint64_t option_ns(int64_t ms)
{
        return clock_after_ms(0, ms);
}

static uint64_t plus(uint64_t time, uint64_t ns)
{
        return ns > CLOCK_NEVER - time ? CLOCK_NEVER : time + ns;
}

static void again_at(struct look *look, uint64_t time)
{
        look->due = clock_min(look->due, time);
}

/* Claim an object that nobody uses, and have it closed. */
static bool close_idle(struct lido_pool *pool, struct lido_slot *slot, uint64_t word, enum lido_close_reason reason)
{
        uint64_t generation;

        if (!slots_claim_this(slot, word, &generation))
                return false;
        op_want_close(pool, slot, generation, reason);
        return true;
}

/* As close_idle, when it must go; somebody may be using it, or waiting for it, and then it goes a little later. */
static void retire_idle(struct lido_pool *pool, struct lido_slot *slot, uint64_t word, enum lido_close_reason reason,
                        struct look *look)
{
        if (!look->may_claim || !close_idle(pool, slot, word, reason))
                again_at(look, plus(look->now, RETRY_NS));
}

static bool is_surplus(struct lido_pool *pool, const struct look *look)
{
        return look->surplus > 0 && look->live > pool_options(pool)->min && look->idle > pool_options(pool)->min_idle;
}

/* An object at rest. */
static void look_at_rested(struct lido_pool *pool, struct lido_slot *slot, uint64_t word, struct look *look)
{
        uint64_t interval = option_ns(pool_options(pool)->check_interval_ms), generation;

        if (!pool->factory.check || !look->may_claim)
                return;
        if (look->now < plus(load_relaxed(&slot->checked_ns), interval))
                again_at(look, plus(load_relaxed(&slot->checked_ns), interval));
        else if (slots_claim_this(slot, word, &generation))
                op_want(pool, slot, generation, SLOT_CHECKING);
}

/* Idle with the generation of an earlier pass: it has rested. */
static void rest(struct lido_pool *pool, struct lido_slot *slot, uint64_t word, struct look *look)
{
        uint64_t rested = plus(load_relaxed(&slot->seen_ns), option_ns(pool_options(pool)->rest_after_ms));

        if (look->now < rested) {
                look->restless++;
                again_at(look, rested);
        } else if (slot_move(slot, &word, word_make(word_generation(word), SLOT_RESTED))) {
                look_at_rested(pool, slot, word_make(word_generation(word), SLOT_RESTED), look);
        } else {
                look->restless++;
        }
}

/* Too old soon: if it is in demand, its replacement is opened first. */
static void look_at_age(struct lido_pool *pool, struct lido_slot *slot, struct look *look)
{
        uint64_t lead = clock_min(option_ns(pool_options(pool)->lifetime_ms) / 10, REPLACE_LEAD_NS);

        if (slot->expires_ns == CLOCK_NEVER)
                return;
        if (look->now + lead >= slot->expires_ns) {
                rotate_replace_aged(pool, slot);
                again_at(look, slot->expires_ns);
        } else {
                again_at(look, slot->expires_ns - lead);
        }
}

/* Doubtful ones are checked a few at a time: a server that has just come back is not to be stormed. */
static void look_at_suspect(struct lido_pool *pool, struct lido_slot *slot, uint64_t word, struct look *look)
{
        uint64_t generation;

        if (look->checks == 0 || !slots_claim_this(slot, word, &generation)) {
                again_at(look, plus(look->now, RETRY_NS));
                return;
        }
        look->checks--;
        pool_decide_marked(pool, slot, generation);
}

static void look_at_idle(struct lido_pool *pool, struct lido_slot *slot, uint64_t word, bool is_new,
                         struct look *look)
{
        look->idle++;
        look->touched += slot->seen_leases != (uint32_t)load_relaxed(&slot->leases);
        slot->seen_leases = (uint32_t)load_relaxed(&slot->leases);
        if (word & MARK_SUSPECT) {
                look_at_suspect(pool, slot, word, look);
        } else if (look->excess > 0) {
                look->excess--;
                retire_idle(pool, slot, word, LIDO_CLOSE_SURPLUS, look);
        } else if (look->now >= slot->expires_ns) {
                retire_idle(pool, slot, word, LIDO_CLOSE_LIFETIME, look);
        } else {
                look_at_age(pool, slot, look);
                if (word_state(word) == SLOT_RESTED)
                        look_at_rested(pool, slot, word, look);
                else if (is_new)
                        look->restless++;
                else
                        rest(pool, slot, word, look);
        }
}

static void tell_leak(struct lido_pool *pool, struct lido_slot *slot, uint64_t word, uint64_t age_ns)
{
        struct lido_event event = { .type = LIDO_EVENT_LEAK, .slot = load_relaxed(&slot->index), .age_ns = age_ns,
                                    .site = load_relaxed(&slot->site), .thread = slot_holder(slot, word) };

        add_relaxed(&pool->leaked, 1);
        trace_emit(pool, slot, word_generation(word), &event);
}

static void retire_leased(struct lido_slot *slot, uint64_t word, enum lido_close_reason reason)
{
        store_relaxed(&slot->retire_reason, reason);
        slot_mark(slot, word_generation(word), SLOT_LEASED, MARK_RETIRE);
}

/* The holder's time is up: break the object from outside, and let the holder be told when it comes back. */
static void revoke(struct lido_pool *pool, struct lido_slot *slot, uint64_t word, uint64_t held_ns)
{
        struct lido_event event = { .type = LIDO_EVENT_REVOKED, .slot = load_relaxed(&slot->index), .age_ns = held_ns,
                                    .site = load_relaxed(&slot->site), .thread = slot_holder(slot, word) };

        if (!slot_mark(slot, word_generation(word), SLOT_LEASED, MARK_REVOKED))
                return;
        store_relaxed(&slot->lease_due_of, 0);
        work_interrupt(pool, slot, word);
        trace_emit(pool, slot, word_generation(word), &event);
}

static void look_at_deadline(struct lido_pool *pool, struct lido_slot *slot, uint64_t word, uint64_t held_ns,
                             struct look *look)
{
        uint64_t limit = option_ns(pool_options(pool)->reclaim_after_ms), due = CLOCK_NEVER;

        if (load_acquire(&slot->lease_due_of) == word_generation(word))
                due = load_relaxed(&slot->lease_due_ns);
        if (limit != CLOCK_NEVER && !(word & MARK_REVOKED))
                due = clock_min(due, held_ns >= limit ? look->now : look->now + (limit - held_ns));
        if (due <= look->now)
                revoke(pool, slot, word, held_ns);
        else
                again_at(look, due);
}

static void look_at_leased(struct lido_pool *pool, struct lido_slot *slot, uint64_t word, struct look *look)
{
        uint64_t limit = option_ns(pool_options(pool)->leak_after_ms);
        uint64_t held = blame_held_ns(pool, slot, word, look->now);

        if (look->now >= slot->expires_ns) {
                retire_leased(slot, word, LIDO_CLOSE_LIFETIME);
        } else {
                look_at_age(pool, slot, look);
        }
        look_at_deadline(pool, slot, word, held, look);
        if (limit == CLOCK_NEVER || (word & MARK_LEAKED))
                return;
        if (held < limit)
                again_at(look, look->now + (limit - held));
        else if (slot_mark(slot, word_generation(word), SLOT_LEASED, MARK_LEAKED))
                tell_leak(pool, slot, word, held);
}

static void look_at_op(struct lido_pool *pool, struct lido_slot *slot, uint64_t word, struct look *look)
{
        uint64_t due = load_relaxed(&slot->op_due_ns);

        if (word & (MARK_ANSWERED | MARK_OVERDUE))
                return;
        if (due == CLOCK_NEVER) /* it waits for a helper thread */
                again_at(look, clock_after_ms(look->now, op_timeout_ms(pool, word_state(word))));
        else if (look->now >= due)
                work_hurry(pool, slot, word, look->now);
        else
                again_at(look, due);
}

static void look_at(struct lido_pool *pool, struct lido_slot *slot, struct look *look)
{
        uint64_t word = load_acquire(&slot->word), seen = load_relaxed(&slot->seen_word);
        bool is_rest = word_state(word) == SLOT_RESTED && word_state(seen) == SLOT_IDLE;
        bool is_new = word_generation(word) != word_generation(seen) ||
                      (word_state(word) != word_state(seen) && !is_rest);

        if (is_new) {
                store_relaxed(&slot->seen_word, word);
                store_relaxed(&slot->seen_ns, look->now);
        }
        switch (word_state(word)) {
        case SLOT_IDLE:
        case SLOT_RESTED:
                look_at_idle(pool, slot, word, is_new, look);
                break;
        case SLOT_LEASED:
                look_at_leased(pool, slot, word, look);
                break;
        case SLOT_CHECKING:
                look->checking++;
                /* fall through */
        case SLOT_OPENING:
        case SLOT_RESETTING:
        case SLOT_CLOSING:
                look_at_op(pool, slot, word, look);
                break;
        default:
                break;
        }
}

/* ---- objects that nobody needs --------------------------------------------------------------------------- */

/* The idle timeout is cut into pieces, and of each the fewest objects that were idle are noted. What was idle in all of
 * them was needed by nobody for the whole timeout, whichever objects they were; so many may go. An object that was lent and
 * came back between two passes was needed: its count of leases tells. */
static void note_idle(struct lido_pool *pool, struct look *look)
{
        uint64_t piece = option_ns(pool_options(pool)->idle_timeout_ms) / IDLE_PERIODS;
        uint32_t idle = look->may_claim ? look->idle - look->touched + look->checking : 0, least;

        if (pool_options(pool)->idle_timeout_ms < 0)
                return;
        if (piece == 0)
                piece = 1;
        if (pool->kept.low_water[0] > idle || pool->kept.period_ends_ns == 0)
                pool->kept.low_water[0] = idle;
        if (pool->kept.period_ends_ns == 0)
                pool->kept.period_ends_ns = look->now + piece;
        if (pool->kept.period_ends_ns > plus(look->now, piece))
                pool->kept.period_ends_ns = look->now + piece; /* the timeout was shortened */
        if (look->now >= pool->kept.period_ends_ns) {
                least = pool->kept.low_water[0];
                for (int i = IDLE_PERIODS - 1; i > 0; i--) {
                        pool->kept.low_water[i] = pool->kept.low_water[i - 1];
                        least = pool->kept.low_water[i] < least ? pool->kept.low_water[i] : least;
                }
                pool->kept.low_water[0] = idle;
                pool->kept.period_ends_ns = look->now + piece;
                look->surplus = least;
        }
        if (look->live > pool_options(pool)->min && look->idle + look->checking > pool_options(pool)->min_idle)
                again_at(look, pool->kept.period_ends_ns);
}

/* A budget may be taking objects away at the same time: it sees to it that min is kept. */
static bool evict(struct lido_pool *pool, struct lido_slot *slot, uint64_t word)
{
        if (load_relaxed(&pool->budget))
                return budget_evict(pool, slot, word);
        return close_idle(pool, slot, word, LIDO_CLOSE_IDLE);
}

/* The highest go first: load gathers on the low ones. */
static void close_surplus(struct lido_pool *pool, struct look *look)
{
        uint32_t index = load_relaxed(&pool->slots.high);

        while (index-- > 0 && is_surplus(pool, look)) {
                struct lido_slot *slot = slots_at(&pool->slots, index);

                if (evict(pool, slot, load_acquire(&slot->word))) {
                        look->surplus--;
                        look->idle--;
                        look->live--;
                        for (int i = 0; i < IDLE_PERIODS; i++)
                                pool->kept.low_water[i] -= pool->kept.low_water[i] > 0;
                }
        }
}

/* Nothing idle is restless: be woken instead of looking again soon. NAPPING is set first and the slots are read after it,
 * as whoever makes one idle writes first and reads the gate after (law 2). */
static bool nap(struct lido_pool *pool)
{
        or_seq_cst(&pool->gate, GATE_NAPPING);
        slots_for_each (slot, &pool->slots)
                if (word_state(load_seq_cst(&slot->word)) == SLOT_IDLE) {
                        and_seq_cst(&pool->gate, ~GATE_NAPPING);
                        return false;
                }
        pool->kept.is_napping = 1;
        return true;
}

uint64_t pass_wake(struct lido_pool *pool, uint64_t now)
{
        const struct lido_pool_options *options = pool_options(pool);

        pool->kept.is_napping = 0;
        return plus(now, clock_min(option_ns(options->rest_after_ms), option_ns(options->leak_after_ms)));
}

/* Objects beyond max that nobody is closing yet. */
static uint32_t count_excess(struct lido_pool *pool)
{
        uint32_t live = load_seq_cst(&pool->live), count[SLOT_STATES];
        uint32_t max = load_seq_cst(&pool->max), limit = load_seq_cst(&pool->limit);

        if (limit > max)
                max = limit; /* the reserve is open */
        if (live <= max)
                return 0;
        slots_count(&pool->slots, count);
        return live - max > count[SLOT_CLOSING] ? live - max - count[SLOT_CLOSING] : 0;
}

/* What the idle ones did not make up for goes when it comes back. */
static void retire_excess(struct lido_pool *pool, struct look *look)
{
        uint32_t index = load_relaxed(&pool->slots.high);

        while (index-- > 0 && look->excess > 0) {
                struct lido_slot *slot = slots_at(&pool->slots, index);
                uint64_t word = load_acquire(&slot->word);

                if (word_state(word) == SLOT_LEASED) {
                        retire_leased(slot, word, LIDO_CLOSE_SURPLUS);
                        look->excess--;
                }
        }
}

/* What is on its way already counts in what may be. */
static void count_under_way(struct lido_pool *pool, struct look *look)
{
        uint32_t count[SLOT_STATES], limit = pool_options(pool)->open_limit;

        slots_count(&pool->slots, count);
        look->checks = limit > count[SLOT_CHECKING] ? limit - count[SLOT_CHECKING] : 0;
        look->live = load_seq_cst(&pool->live);
        look->live -= count[SLOT_CLOSING] < look->live ? count[SLOT_CLOSING] : look->live;
}

uint64_t pass(struct lido_pool *pool, uint64_t now)
{
        struct look look = { .now = now, .due = CLOCK_NEVER };

        look.may_claim = waitq_length(pool) == 0;
        budget_look(pool, now);
        look.excess = count_excess(pool);
        count_under_way(pool, &look);
        pool->kept.must_pass = 0;
        slots_for_each (slot, &pool->slots)
                look_at(pool, slot, &look);
        retire_excess(pool, &look);
        note_idle(pool, &look);
        if (look.may_claim)
                close_surplus(pool, &look);
        if (look.restless > 0 || !nap(pool))
                again_at(&look, plus(now, option_ns(pool_options(pool)->rest_after_ms)));
        return look.due;
}
