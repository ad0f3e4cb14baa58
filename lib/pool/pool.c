#include "pool/pool.h"

#include <string.h>

#include "base/clock.h"
#include "base/fork.h"
#include "base/mem.h"
#include "base/shelf.h"
#include "pool/doubt.h"
#include "pool/op.h"
#include "pool/waitq.h"

static struct shelf shelf = SHELF_INIT(struct lido_pool, shelf_link);
static struct shelf options_shelf = SHELF_INIT(struct options_version, older);
static _Atomic uint32_t next_hint;
static _Atomic(struct lido_pool *) newest;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

/* ---- fork ------------------------------------------------------------------------------------------------- */
/* The child gets every pool of the parent marked as not its own, and shelves that it can use for new ones. */

static void before_fork(void) NO_THREAD_SAFETY
{
        mutex_lock(&shelf.lock);
        mutex_lock(&options_shelf.lock);
        region_lock();
}

static void after_fork(void) NO_THREAD_SAFETY
{
        region_unlock();
        mutex_unlock(&options_shelf.lock);
        mutex_unlock(&shelf.lock);
}

static void after_fork_in_child(void)
{
        after_fork();
        for (struct lido_pool *pool = load_acquire(&newest); pool; pool = pool->older)
                or_seq_cst(&pool->gate, GATE_FORKED);
}

static void watch_forks(void)
{
        fork_watch(before_fork, after_fork, after_fork_in_child);
}

static void join_all_pools(struct lido_pool *pool)
{
        pool->older = load_relaxed(&newest);
        while (!cas_release(&newest, &pool->older, pool))
                ;
}

/* ---- its life --------------------------------------------------------------------------------------------- */

static void clear_counters(struct lido_pool *pool)
{
        _Atomic uint64_t *const counter[] = { &pool->waited,      &pool->timed_out, &pool->canceled,  &pool->refused,
                                              &pool->opened,      &pool->checked,   &pool->was_reset, &pool->misused,
                                              &pool->open_failed, &pool->leaked,    &pool->shed };

        for (size_t i = 0; i < sizeof counter / sizeof counter[0]; i++)
                store_relaxed(counter[i], 0);
        for (int i = 0; i < LIDO_CLOSE_REASONS; i++)
                store_relaxed(&pool->closed[i], 0);
        for (int i = 0; i < LIDO_HISTOGRAM_BUCKETS; i++) {
                store_relaxed(&pool->wait_time.bucket[i], 0);
                store_relaxed(&pool->open_time.bucket[i], 0);
        }
        store_relaxed(&pool->wait_time.sum_ns, 0);
        store_relaxed(&pool->wait_time.max_ns, 0);
        store_relaxed(&pool->open_time.sum_ns, 0);
        store_relaxed(&pool->open_time.max_ns, 0);
        store_relaxed(&pool->waiting_peak, 0);
}

static uint64_t first_gate(const struct lido_factory *factory, const struct lido_pool_options *options)
{
        uint64_t gate = 0;

        if ((factory->flags & (LIDO_FACTORY_PEEK_ALWAYS | LIDO_FACTORY_TIMED)) || factory->activate || options->order != LIDO_ORDER_LIFO ||
            options->overtake_us < 0)
                gate |= GATE_CAREFUL_ACQUIRE;
        if (options->backtrace_every > 0)
                gate |= GATE_CAREFUL_ACQUIRE;
        if (factory->verdict || options->order != LIDO_ORDER_LIFO || options->max_uses != LIDO_UNLIMITED)
                gate |= GATE_CAREFUL_RELEASE;
        return gate;
}

/* What the gate says about each acquire and release follows from factory and options. */
int pool_set_options(struct lido_pool *pool, const struct lido_pool_options *options)
{
        uint64_t careful;
        int is_new;
        struct options_version *version;

        if (traces_grow(pool, options->backtrace_every) != LIDO_OK)
                return LIDO_ENOMEM;
        version = shelf_take(&options_shelf, &is_new);
        if (!version)
                return LIDO_ENOMEM;
        version->options = *options;
        version->options.name = pool->name;
        version->older = load_relaxed(&pool->options);
        store_release(&pool->options, version);
        careful = first_gate(&pool->factory, options);
        if (load_relaxed(&pool->has_quotas))
                careful |= GATE_CAREFUL_RELEASE;
        or_seq_cst(&pool->gate, careful);
        and_seq_cst(&pool->gate, careful | ~(GATE_CAREFUL_ACQUIRE | GATE_CAREFUL_RELEASE));
        return LIDO_OK;
}

static void drop_options(struct lido_pool *pool)
{
        struct options_version *version = load_relaxed(&pool->options);

        while (version) {
                struct options_version *older = version->older;

                shelf_give(&options_shelf, version);
                version = older;
        }
        store_relaxed(&pool->options, NULL);
}

static void set_name(struct lido_pool *pool, const char *name)
{
        strncpy(pool->name, name ? name : "pool", sizeof pool->name - 1);
        pool->name[sizeof pool->name - 1] = '\0';
}

/* Everything but what a late looker may be at: the gate, which says "closed" until the end, the lock, and the host. */
static void set_up(struct lido_pool *pool, const struct lido_factory *factory,
                   const struct lido_pool_options *options, uint64_t seed)
{
        pool->seed = seed;
        pool->hint_index = add_relaxed(&next_hint, 1) % THREAD_HINTS;
        pool->factory = *factory;
        set_name(pool, options->name ? options->name : factory->kind);
        store_relaxed(&pool->max, options->max);
        store_relaxed(&pool->limit, options->max);
        store_relaxed(&pool->suspended_ns, clock_suspended_ns());
        store_relaxed(&pool->has_quotas, 0);
        for (int i = 0; i < QUOTAS; i++) {
                store_relaxed(&pool->quota[i].tag, NULL);
                store_relaxed(&pool->quota[i].used, 0);
        }
        memset(&pool->waitq.codel, 0, sizeof pool->waitq.codel);
        pool->waitq.served_ns = 0;
        store_relaxed(&pool->waitq.gap_ns, 0);
        store_relaxed(&pool->live, 0);
        store_relaxed(&pool->opening, 0);
        store_relaxed(&pool->called, 0);
        store_relaxed(&pool->tried, 0);
        store_relaxed(&pool->look_now, 0);
        store_relaxed(&pool->rotate_over_ns, 0);
        store_relaxed(&pool->rotate_asked_ns, 0);
        store_relaxed(&pool->release_order, 0);
        store_relaxed(&pool->is_failing, 0);
        store_relaxed(&pool->waitq.poke_sent, 0);
        store_relaxed(&pool->waitq.long_holds, 0);
        store_relaxed(&pool->waitq.overtake_until_ns, 0);
        store_relaxed(&pool->budget, NULL);
        memset(&pool->budgeted, 0, sizeof pool->budgeted);
        store_relaxed(&pool->owner, NULL);
        memset(&pool->last_error, 0, sizeof pool->last_error);
        pool->last_error_ns = 0;
        pool->close_due_ns = CLOCK_NEVER;
        pool->is_freed = 0;
        store_seq_cst(&pool->stage, POOL_ENDED); /* to late lookers, until all else is in place */
        memset(&pool->kept, 0, sizeof pool->kept);
        list_init(&pool->kept.link);
        pool->kept.random.state = pool->seed;
        pool->kept.next_pass_ns = CLOCK_NEVER;
        pool->kept.is_napping = 1;
        clear_counters(pool);
}

/* With a given seed each pool has one of its own, by the order in which they are opened. */
static uint64_t seed_of(struct pool_host *host)
{
        struct random random = { host->seed };

        if (host->seed == 0)
                return random_seed();
        random = random_after(random, add_relaxed(&host->seeded, 1));
        return random_next(&random);
}

struct lido_pool *pool_new(const struct lido_factory *factory, const struct lido_pool_options *options,
                           struct pool_host *host)
{
        int is_new;
        struct lido_pool *pool = shelf_take(&shelf, &is_new);
        uint64_t seed = seed_of(host);

        if (!pool)
                return NULL;
        pthread_once(&fork_once, watch_forks);
        if (is_new) {
                join_all_pools(pool);
                mutex_init(&pool->waitq.lock);
                turnstile_init(&pool->turnstile);
                for (int i = 0; i < PRIORITIES; i++)
                        list_init(&pool->waitq.line[i]);
                pool->waitq.timed.root = NULL;
                store_relaxed(&pool->gate, GATE_CLOSED);
        }
        mutex_lock(&pool->waitq.lock);
        set_up(pool, factory, options, seed);
        if (slots_grow(&pool->slots, pool, options->max + options->reserve) != LIDO_OK || pool_set_options(pool, options) != LIDO_OK) {
                mutex_unlock(&pool->waitq.lock);
                traces_fini(pool);
                slots_fini(&pool->slots);
                shelf_give(&shelf, pool);
                return NULL;
        }
        store_relaxed(&pool->host, host);
        store_seq_cst(&pool->gate, first_gate(factory, options) | GATE_NAPPING);
        store_seq_cst(&pool->stage, POOL_RUNNING); /* last: pairs with pool_emit_late */
        mutex_unlock(&pool->waitq.lock);
        return pool;
}

/* A pool is ended by its keeper, who may be in the middle of it, and only without one by whoever comes last. A guest of a former
 * pool in the same memory may have seen no host a moment ago. */
static bool may_end(struct lido_pool *pool, bool is_keeper) REQUIRES(pool->waitq.lock)
{
        return is_keeper || !load_relaxed(&pool->host);
}

/* Nobody is to be told anything any more. A guest counts itself in and then looks at the stage; the stage is set here and
 * then the guests are counted: one of the two sees the other. Returns: true when the caller is to call the end hook. */
static bool begin_to_end(struct lido_pool *pool, bool is_keeper)
{
        bool is_over;

        mutex_lock(&pool->waitq.lock);
        is_over = may_end(pool, is_keeper) && load_relaxed(&pool->stage) == POOL_RUNNING && (load_seq_cst(&pool->gate) & GATE_CLOSED) &&
                  load_seq_cst(&pool->live) == 0;
        if (is_over) {
                store_seq_cst(&pool->stage, POOL_ENDING);
                if (load_seq_cst(&pool->guests) > 0) {
                        store_seq_cst(&pool->stage, POOL_RUNNING); /* the last guest calls again */
                        is_over = false;
                }
        }
        mutex_unlock(&pool->waitq.lock);
        return is_over;
}

static bool end_if_over(struct lido_pool *pool, bool is_keeper)
{
        struct pool_owner *owner;
        bool is_gone;

        if (begin_to_end(pool, is_keeper)) {
                if (pool->factory.end)
                        pool->factory.end(pool->factory.context);
                store_seq_cst(&pool->stage, POOL_ENDED);
                pool_changed(pool);
        }
        mutex_lock(&pool->waitq.lock);
        is_gone = may_end(pool, is_keeper) && load_relaxed(&pool->stage) == POOL_ENDED && pool->is_freed == 1 && !load_seq_cst(&pool->called) &&
                  load_seq_cst(&pool->guests) == 0;
        if (is_gone) {
                pool->is_freed = 2; /* by this caller, and nobody else */
                store_relaxed(&pool->host, NULL);
        }
        mutex_unlock(&pool->waitq.lock);
        if (is_gone) {
                budget_detach(pool);
                traces_fini(pool);
                slots_fini(&pool->slots);
                drop_options(pool);
                owner = load_relaxed(&pool->owner);
                if (owner)
                        owner->gone(owner, pool);
                shelf_give(&shelf, pool);
        }
        return is_gone;
}

bool pool_end_if_over(struct lido_pool *pool)
{
        return end_if_over(pool, true);
}

void pool_end_orphan(struct lido_pool *pool)
{
        end_if_over(pool, false);
}

void pool_enter(struct lido_pool *pool)
{
        add_seq_cst(&pool->guests, 1);
}

/* After the count has gone down the pool may be gone, and only what a late looker may look at is looked at. The gate is read
 * after it: pairs with begin_to_end, which the guest may just have made give up. */
void pool_leave(struct lido_pool *pool)
{
        if (sub_seq_cst(&pool->guests, 1) > 1 || !(load_seq_cst(&pool->gate) & (GATE_CLOSED | GATE_ORPHANED)))
                return;
        if (load_relaxed(&pool->host))
                pool_call_keeper(pool);
        else
                pool_end_orphan(pool);
}

/* ---- the keeper ------------------------------------------------------------------------------------------- */

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

void pool_emit_late(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation, struct lido_event *event)
{
        pool_enter(pool);
        if (load_seq_cst(&pool->stage) == POOL_RUNNING && slots_has(&pool->slots, slot) &&
            generation >= load_relaxed(&slot->first_generation)) {
                event->slot = load_relaxed(&slot->index);
                if (event->type == LIDO_EVENT_MISUSE)
                        add_relaxed(&pool->misused, 1);
                pool_emit(pool, event);
        }
        pool_leave(pool);
}

void pool_emit(struct lido_pool *pool, struct lido_event *event)
{
        if (!pool_options(pool)->on_event || !(pool_options(pool)->event_mask >> event->type & 1))
                return;
        event->size = sizeof *event;
        event->pool = pool;
        event->pool_name = pool->name;
        pool_options(pool)->on_event(event, pool_options(pool)->event_context);
}

/* Bucket 4 * e + q holds [2^e * (1 + q/4), 2^e * (1 + (q+1)/4)); below 4 ns they are as good as 0. */
static unsigned bucket_of(uint64_t ns)
{
        unsigned exponent, bucket;

        if (ns < 4)
                return (unsigned)ns;
        exponent = 63u - (unsigned)__builtin_clzll(ns);
        bucket = 4 * (exponent - 1) + (unsigned)(ns >> (exponent - 2) & 3);
        return bucket < LIDO_HISTOGRAM_BUCKETS ? bucket : LIDO_HISTOGRAM_BUCKETS - 1;
}

void pool_record(_Atomic uint64_t *sum_ns, _Atomic uint64_t *max_ns, _Atomic uint64_t *bucket, uint64_t ns)
{
        uint64_t seen = load_relaxed(max_ns);

        add_relaxed(sum_ns, ns);
        add_relaxed(&bucket[bucket_of(ns)], 1);
        while (seen < ns && !cas_relaxed(max_ns, &seen, ns))
                ;
}

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
