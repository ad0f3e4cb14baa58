#include "pool/pool.h"

#include <string.h>

#include "base/clock.h"
#include "base/fork.h"
#include "base/shelf.h"
#include "base/stack.h"
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
        store_relaxed(&pool->chosen_over_ns, 0);
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
        memset(&pool->last_discard, 0, sizeof pool->last_discard);
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
        if (options->backtrace_every > 0)
                stack_prepare();
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
