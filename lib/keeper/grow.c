#include "keeper/grow.h"

#include "base/clock.h"
#include "keeper/work.h"
#include "pool/waitq.h"

/* While the server is down or starting, it is asked again at least so often: one connect that is refused costs little,
 * and all wait for it to be back. */
#define NEAR_LIMIT_NS (400 * NS_PER_MS)

static uint32_t below(uint32_t have, uint32_t want)
{
        return have < want ? want - have : 0;
}

static uint32_t more(uint32_t a, uint32_t b)
{
        return a > b ? a : b;
}

/* After the server has said that it takes no more, one more is tried so often. */
#define RAISE_NS NS_PER_S
/* After an error that trying again does not mend, it is tried again no sooner. */
#define PERMANENT_PAUSE_NS (5 * NS_PER_S)

/* How many opens should be under way that are not. */
static uint32_t wanted(struct lido_pool *pool)
{
        uint32_t count[SLOT_STATES];
        uint32_t live = load_seq_cst(&pool->live), opening = load_relaxed(&pool->opening);
        uint32_t demand = waitq_length(pool) + (load_relaxed(&pool->tried) ? 1 : 0), idle = 0;

        if (pool_options(pool)->min_idle > 0) {
                slots_count(&pool->slots, count);
                idle = count[SLOT_IDLE] + count[SLOT_RESTED];
        }
        demand = more(below(opening, demand), below(live, pool_options(pool)->min));
        demand = more(demand, below(idle + opening, pool_options(pool)->min_idle));
        if (pool->kept.rotate_ends_ns != 0)
                demand = more(demand, below(live, pool->kept.strength));
        return more(demand, below(opening, pool->kept.replacing));
}

static bool open_one(struct keeper *keeper, struct lido_pool *pool)
{
        struct lido_slot *slot;
        uint64_t ticket;

        if (!pool_reserve(pool)) {
                budget_give_back(pool);
                return false;
        }
        slot = slots_claim_vacant(&pool->slots, &ticket);
        if (!slot) { /* a hook that is stuck keeps a slot; one will fall vacant */
                pool_unreserve(pool);
                return false;
        }
        add_relaxed(&pool->opening, 1);
        store_relaxed(&slot->op_inline, OP_TO_KEEPER);
        work_begin(keeper, pool, slot);
        return true;
}

/* Nothing can be opened, and nothing is there to wait for: say so at once. */
static void fail_waiters(struct lido_pool *pool)
{
        if (load_seq_cst(&pool->live) == 0)
                waitq_fail_all(pool, LIDO_EPERMANENT);
}

/* What the pool asks of its budget, and on whose behalf: of waiters, of a try that found nothing idle, or of nobody, to be kept
 * at min. Returns: false when it needs nothing after all, for a try may have been followed by a release. */
static bool is_in_want(struct lido_pool *pool, uint32_t room, uint64_t now, struct budget_want *ret_want)
{
        uint32_t people = waitq_length(pool);

        ret_want->is_try = false;
        ret_want->since_ns = waitq_oldest_ns(pool);
        if (people == 0 && load_relaxed(&pool->tried)) {
                if (slots_any_free(&pool->slots))
                        store_relaxed(&pool->tried, 0);
                else
                        people = 1;
                ret_want->since_ns = now;
                ret_want->is_try = people > 0;
        }
        people = below(load_relaxed(&pool->opening), people);
        ret_want->count = people < room ? people : room;
        if (people == 0) {
                ret_want->since_ns = BUDGET_NO_WAITER;
                ret_want->is_try = false;
        }
        return wanted(pool) > 0;
}

/* A permit for one more object. Returns: false when the pool stands in line for it, or wants none; *ret_due_ns tells when to ask
 * again. */
static bool may_open(struct lido_pool *pool, uint32_t room, uint64_t now, uint64_t *ret_due_ns)
{
        struct budget_want want;

        *ret_due_ns = CLOCK_NEVER;
        if (!load_relaxed(&pool->budget))
                return true;
        if (is_in_want(pool, room, now, &want))
                return budget_take(pool, &want, now, ret_due_ns);
        budget_leave(pool);
        return false;
}

static uint64_t open_more(struct keeper *keeper, struct lido_pool *pool, uint64_t now, bool *ret_in_line)
{
        uint32_t limit = load_relaxed(&pool->is_failing) ? 1 : pool_options(pool)->open_limit;
        uint64_t due_ns;

        if (load_relaxed(&pool->is_failing) == LIDO_FAILURE_PERMANENT + 1 && now < pool->kept.retry_ns)
                fail_waiters(pool);
        while (wanted(pool) > 0) {
                if (load_seq_cst(&pool->live) >= load_seq_cst(&pool->limit))
                        break;
                if (now < pool->kept.retry_ns)
                        return pool->kept.retry_ns;
                if (load_relaxed(&pool->opening) >= limit)
                        break;
                if (!may_open(pool, limit - load_relaxed(&pool->opening), now, &due_ns)) {
                        *ret_in_line = true;
                        return due_ns;
                }
                if (!open_one(keeper, pool))
                        break;
                store_relaxed(&pool->tried, 0);
        }
        return CLOCK_NEVER;
}

uint64_t grow(struct keeper *keeper, struct lido_pool *pool, uint64_t now)
{
        uint64_t due_ns = CLOCK_NEVER;
        bool is_in_line = false;

        if (!(load_seq_cst(&pool->gate) & (GATE_CLOSED | GATE_PAUSED)))
                due_ns = open_more(keeper, pool, now, &is_in_line);
        if (!is_in_line)
                budget_leave(pool);
        budget_reconsider(pool);
        return due_ns;
}

static uint64_t ns_of(int64_t ms)
{
        return clock_after_ms(0, ms);
}

/* Decorrelated jitter: somewhere between the least pause and three times the last one, so that a fleet spreads out. */
static uint64_t next_pause(struct lido_pool *pool, int failure)
{
        uint64_t least = ns_of(pool_options(pool)->backoff_min_ms), most = ns_of(pool_options(pool)->backoff_max_ms);
        uint64_t last = pool->kept.backoff_ns > least ? pool->kept.backoff_ns : least;
        uint64_t pause;

        if (failure == LIDO_FAILURE_PERMANENT)
                least = clock_min(least > PERMANENT_PAUSE_NS ? least : PERMANENT_PAUSE_NS, most), last = least;
        if (failure == LIDO_FAILURE_NETWORK || failure == LIDO_FAILURE_NOT_READY)
                most = clock_min(most, least > NEAR_LIMIT_NS ? least : NEAR_LIMIT_NS);
        pause = least + random_below(&pool->kept.random, (last < most ? 3 * last : most) - least + 1);
        return clock_min(pause, most);
}

static void tell(struct lido_pool *pool, int type, uint64_t age_ns)
{
        struct lido_event event = { .type = type, .slot = LIDO_UNLIMITED, .age_ns = age_ns };

        pool_emit(pool, &event);
}

/* The server takes no more: do with what is open, and ask for one more now and then (additive increase, as it was cut down
 * at once). With nothing open at all, one is still asked for. */
static void lower_limit(struct lido_pool *pool, uint64_t now)
{
        uint32_t live = load_seq_cst(&pool->live);

        mutex_lock(&pool->waitq.lock);
        store_seq_cst(&pool->limit, live > 0 ? live : 1);
        mutex_unlock(&pool->waitq.lock);
        pool->kept.raise_ns = now + RAISE_NS;
}

uint64_t grow_limit(struct lido_pool *pool, uint64_t now)
{
        uint32_t max = load_seq_cst(&pool->max), reserve = pool_options(pool)->reserve, limit;
        uint64_t due = CLOCK_NEVER, oldest_ns = CLOCK_NEVER;

        if (reserve > 0)
                oldest_ns = waitq_oldest_ns(pool);
        mutex_lock(&pool->waitq.lock);
        limit = load_relaxed(&pool->limit);
        if (limit < max && now >= pool->kept.raise_ns) {
                limit++;
                pool->kept.raise_ns = now + RAISE_NS;
        }
        if (limit < max)
                due = pool->kept.raise_ns;
        if (limit >= max && limit < max + reserve && oldest_ns != CLOCK_NEVER) {
                uint64_t open_ns = clock_after_ms(oldest_ns, pool_options(pool)->reserve_after_ms);

                if (now >= open_ns)
                        limit = max + reserve;
                else
                        due = clock_min(due, open_ns);
        }
        if (limit > max && waitq_length(pool) == 0) {
                limit = max;
                store_seq_cst(&pool->look_now, 1); /* what is beyond max goes */
        }
        store_seq_cst(&pool->limit, limit);
        mutex_unlock(&pool->waitq.lock);
        return due;
}

uint64_t grow_despair(struct lido_pool *pool, uint64_t now)
{
        uint64_t due;

        if (!load_relaxed(&pool->is_failing) || pool->kept.is_given_up)
                return CLOCK_NEVER;
        due = clock_after_ms(pool->kept.down_since_ns, pool_options(pool)->give_up_after_ms);
        if (now < due)
                return due;
        pool->kept.is_given_up = 1;
        tell(pool, LIDO_EVENT_UNRECOVERABLE, now - pool->kept.down_since_ns);
        return CLOCK_NEVER;
}

void grow_note(struct lido_pool *pool, int status, int failure, uint64_t now)
{
        bool was_failing = load_relaxed(&pool->is_failing) != 0;

        if (status == LIDO_OK) {
                store_relaxed(&pool->is_failing, 0);
                pool->kept.is_given_up = 0;
                pool->kept.backoff_ns = 0;
                pool->kept.retry_ns = 0;
                if (was_failing)
                        tell(pool, LIDO_EVENT_UP, now - pool->kept.down_since_ns);
                return;
        }
        store_relaxed(&pool->is_failing, (uint32_t)failure + 1);
        pool->kept.backoff_ns = next_pause(pool, failure);
        pool->kept.retry_ns = now + pool->kept.backoff_ns;
        if (!was_failing) {
                pool->kept.down_since_ns = now;
                tell(pool, LIDO_EVENT_DOWN, 0);
        }
        if (failure == LIDO_FAILURE_CAPACITY)
                lower_limit(pool, now);
        if (failure == LIDO_FAILURE_PERMANENT)
                fail_waiters(pool);
        else if (pool_options(pool)->fail_fast && load_seq_cst(&pool->live) <= load_seq_cst(&pool->opening))
                waitq_fail_all(pool, LIDO_EUNAVAIL);
}
