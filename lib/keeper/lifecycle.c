#include "keeper/lifecycle.h"

#include "base/clock.h"
#include "base/park.h"
#include "base/sized.h"
#include "keeper/keeper.h"
#include "keeper/service.h"
#include "pool/options.h"
#include "pool/waitq.h"

static int take_factory(struct lido_factory *ours, const struct lido_factory *theirs)
{
        int rc = theirs ? sized_take(ours, sizeof *ours, theirs) : LIDO_EINVAL;

        if (rc != LIDO_OK)
                return rc;
        return ours->open && ours->close ? LIDO_OK : LIDO_EINVAL;
}

/* How many objects are open, opens under way not counted. */
static uint32_t ready_now(struct lido_pool *pool)
{
        uint32_t count[SLOT_STATES];

        slots_count(&pool->slots, count);
        return count[SLOT_IDLE] + count[SLOT_RESTED] + count[SLOT_LEASED] + count[SLOT_CHECKING] + count[SLOT_RESETTING];
}

int lido_pool_wait_ready(struct lido_pool *pool, uint32_t count, int64_t timeout_ms)
{
        uint64_t deadline_ns;

        if (!pool || timeout_ms < LIDO_NEVER || count > load_relaxed(&pool->max))
                return LIDO_EINVAL;
        if (pool_must_not_wait(pool))
                return LIDO_EDEADLK;
        deadline_ns = clock_after_ms(clock_now_ns(), timeout_ms);
        for (;;) {
                uint32_t changes = load_seq_cst(&pool->changes); /* before the look: pairs with pool_changed */
                uint64_t gate = load_seq_cst(&pool->gate);

                if (gate & GATE_FORKED)
                        return LIDO_EFORKED;
                if (gate & (GATE_CLOSED | GATE_ORPHANED))
                        return LIDO_ECLOSED;
                if (ready_now(pool) >= count)
                        return LIDO_OK;
                if (load_relaxed(&pool->is_failing) == LIDO_FAILURE_PERMANENT + 1)
                        return LIDO_EPERMANENT;
                if (!park_wait(&pool->changes, changes, deadline_ns))
                        return LIDO_ETIMEDOUT;
        }
}

/* FAIL_FAST: the first failure of an open is the answer. */
static int wait_for_start(struct lido_pool *pool, bool fails_fast)
{
        uint64_t deadline_ns = clock_after_ms(clock_now_ns(), pool_options(pool)->start_timeout_ms);

        for (;;) {
                uint32_t changes = load_seq_cst(&pool->changes);
                uint32_t failing = load_seq_cst(&pool->is_failing);

                if (ready_now(pool) >= pool_options(pool)->min)
                        return LIDO_OK;
                if (failing && fails_fast)
                        return failing == LIDO_FAILURE_PERMANENT + 1 ? LIDO_EPERMANENT : LIDO_EUNAVAIL;
                if (!park_wait(&pool->changes, changes, deadline_ns))
                        return LIDO_ETIMEDOUT;
        }
}

/* The service is stopping and has not taken it in: nobody is going to tend it. */
static void give_up(struct lido_pool *pool)
{
        mutex_lock(&pool->waitq.lock);
        store_relaxed(&pool->host, NULL);
        mutex_unlock(&pool->waitq.lock);
        lido_pool_free(pool);
}

int lifecycle_open(struct lido_pool **ret_pool, struct lido_service *service, const struct pool_plan *plan)
{
        struct lido_factory our_factory;
        struct lido_pool_options ours;
        struct lido_pool *pool;
        int rc;

        if (!ret_pool || !service)
                return LIDO_EINVAL;
        if (service_is_forked(service))
                return LIDO_EFORKED;
        if ((rc = take_factory(&our_factory, plan->factory)) != LIDO_OK || (rc = options_take(&ours, plan->options, NULL)) != LIDO_OK)
                return rc;
        if (ours.open_inline && (our_factory.watch || (our_factory.flags & LIDO_FACTORY_BLOCKING)))
                return LIDO_EINVAL;
        if (ours.start != LIDO_START_LAZY && service_is_self(service))
                return LIDO_EDEADLK;
        pool = pool_new(&our_factory, &ours, service_host(service));
        if (!pool)
                return LIDO_ENOMEM;
        store_release(&pool->owner, plan->owner); /* a late guest may have called the keeper to it already */
        budget_attach(ours.budget, pool);
        if (!service_add(service, pool)) {
                give_up(pool);
                return LIDO_ECLOSED;
        }
        if (ours.start != LIDO_START_LAZY) {
                rc = wait_for_start(pool, ours.start == LIDO_START_FAIL_FAST);
                if (rc != LIDO_OK && ours.start == LIDO_START_FAIL_FAST) {
                        lido_pool_free(pool);
                        return rc;
                }
        }
        *ret_pool = pool;
        return LIDO_OK;
}

int lido_pool_open(struct lido_pool **ret_pool, struct lido_service *service, const struct lido_factory *factory,
                   const struct lido_pool_options *options)
{
        struct pool_plan plan = { factory, options, NULL };

        return lifecycle_open(ret_pool, service, &plan);
}

void pool_close(struct lido_pool *pool, uint64_t deadline_ns)
{
        mutex_lock(&pool->waitq.lock);
        pool->close_due_ns = clock_min(pool->close_due_ns, deadline_ns);
        or_seq_cst(&pool->gate, GATE_CLOSED);
        mutex_unlock(&pool->waitq.lock);
        waitq_fail_all(pool, LIDO_ECLOSED);
        pool_call_keeper(pool);
        pool_changed(pool);
}

int lido_pool_close(struct lido_pool *pool, int64_t timeout_ms)
{
        if (!pool || timeout_ms < LIDO_NEVER)
                return LIDO_EINVAL;
        if (load_seq_cst(&pool->gate) & GATE_FORKED)
                return LIDO_EFORKED;
        pool_close(pool, clock_after_ms(clock_now_ns(), timeout_ms));
        return LIDO_OK;
}

int lido_pool_drain(struct lido_pool *pool, int64_t timeout_ms)
{
        uint64_t deadline_ns;

        if (!pool || timeout_ms < LIDO_NEVER || !(load_seq_cst(&pool->gate) & GATE_CLOSED))
                return LIDO_EINVAL;
        if (load_seq_cst(&pool->gate) & GATE_FORKED)
                return LIDO_EFORKED;
        if (pool_must_not_wait(pool))
                return LIDO_EDEADLK;
        deadline_ns = clock_after_ms(clock_now_ns(), timeout_ms);
        for (;;) {
                uint32_t changes = load_seq_cst(&pool->changes);

                if (load_seq_cst(&pool->stage) == POOL_ENDED)
                        return LIDO_OK;
                if (!park_wait(&pool->changes, changes, deadline_ns))
                        return LIDO_ETIMEDOUT;
        }
}

void lido_pool_free(struct lido_pool *pool)
{
        bool has_host;

        if (!pool || (load_seq_cst(&pool->gate) & GATE_FORKED))
                return;
        pool_close(pool, 0);
        mutex_lock(&pool->waitq.lock);
        pool->is_freed = 1;
        has_host = load_relaxed(&pool->host) != NULL;
        mutex_unlock(&pool->waitq.lock);
        if (has_host)
                pool_call_keeper(pool);
        else
                pool_end_orphan(pool);
}

int lido_pool_resize(struct lido_pool *pool, uint32_t max)
{
        int rc;

        if (!pool || max == 0 || max < pool_options(pool)->min)
                return LIDO_EINVAL;
        if (load_seq_cst(&pool->gate) & (GATE_FORKED | GATE_CLOSED))
                return load_seq_cst(&pool->gate) & GATE_FORKED ? LIDO_EFORKED : LIDO_ECLOSED;
        mutex_lock(&pool->waitq.lock);
        rc = slots_grow(&pool->slots, pool, max + pool_options(pool)->reserve);
        if (rc == LIDO_OK)
                rc = traces_grow(pool, pool_options(pool)->backtrace_every);
        if (rc == LIDO_OK)
                pool_set_max(pool, max);
        mutex_unlock(&pool->waitq.lock);
        if (rc == LIDO_OK)
                pool_look_again(pool);
        return rc;
}

const char *lido_pool_name(const struct lido_pool *pool)
{
        return pool ? pool->name : "";
}

const char *lido_pool_kind(const struct lido_pool *pool)
{
        return pool ? pool->factory.kind : NULL;
}

void *lido_pool_context(const struct lido_pool *pool)
{
        return pool ? pool->factory.context : NULL;
}
