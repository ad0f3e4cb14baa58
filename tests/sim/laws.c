/* The laws that are held against the whole, beside those that an operation checks of itself (borrow.c, factory.c, face.c). */
#include "sim/face.h"

#include "sim/borrower.h"

/* ---- nothing is left undone ---------------------------------------------------------------------------------- */

static bool may_be_served(const struct lido_pool *pool, const struct pool_waiter *w)
{
        const struct quota *quota = &pool->quota[w->quota];

        return w->quota == 0 || SIM_PEEK(&quota->used) < SIM_PEEK(&quota->limit);
}

/* Is there one whose quota would let him have an object? */
static bool is_any_wanted(struct lido_pool *pool)
{
        for (int i = 0; i < PRIORITIES; i++)
                list_for_each(link, &pool->waitq.line[i])
                {
                        if (may_be_served(pool, list_entry(link, struct pool_waiter, waiter.link)))
                                return true;
                }
        return false;
}

static unsigned fresh_objects(struct lido_pool *pool)
{
        uint32_t count[SLOT_STATES];

        slots_count(&pool->slots, count);
        return count[SLOT_IDLE];
}

static unsigned idle_objects(struct lido_pool *pool)
{
        uint32_t count[SLOT_STATES];

        slots_count(&pool->slots, count);
        return count[SLOT_IDLE] + count[SLOT_RESTED];
}

/* May a permit be had: is one free, or could a pool spare an object that is idle? */
static bool is_permit_to_be_had(void)
{
        struct lido_budget_stats stats = LIDO_BUDGET_STATS_INIT;

        if (!world.budget)
                return true;
        lido_budget_stats(world.budget, &stats);
        if (stats.used < stats.total)
                return true;
        for (uint32_t i = 0; i < world.program->pools; i++)
                if (idle_objects(world.pool[i]) > 0 && SIM_PEEK(&world.pool[i]->live) > world.program->min)
                        return true;
        return false;
}

static void nobody_waits_in_vain(struct lido_pool *pool)
{
        if ((SIM_PEEK(&pool->gate) & (GATE_PAUSED | GATE_CLOSED)) || !is_any_wanted(pool))
                return;
        if (SIM_PEEK(&pool->has_quotas) && fresh_objects(pool) > 0) /* without quotas slots_check says so */
                sim_fail("somebody waits who may have what is idle");
        if (SIM_PEEK(&pool->live) < SIM_PEEK(&pool->max) && SIM_PEEK(&pool->opening) == 0 &&
            world.service.due_ns == CLOCK_NEVER && is_permit_to_be_had())
                sim_fail("somebody waits, there is room, and the keeper sleeps for ever");
}

void law_quiet(void *context)
{
        (void)context;
        if (world.has_ended)
                return;
        for (uint32_t i = 0; i < world.program->pools; i++)
                if (world.factory[i].ended)
                        return;
        for (uint32_t i = 0; i < world.program->pools; i++) {
                slots_check(world.pool[i], true);
                nobody_waits_in_vain(world.pool[i]);
        }
        if (world.budget)
                budget_check(world.budget);
        law_limits();
        world.books.looks++;
}

/* ---- the order of the line ----------------------------------------------------------------------------------- */

static bool sleeps_in_line(const struct pool_waiter *w)
{
        return !w->waiter.notify &&
               SIM_PEEK(&((struct pool_waiter *)(uintptr_t)w)->waiter.state) < WAITER_GIVEN &&
               sim_is_asleep((int)w->thread - 1);
}

static unsigned call_of(const struct pool_waiter *w)
{
        for (uint32_t i = 0; i < world.program->threads; i++)
                if (world.borrower[i].coroutine == (int)w->thread - 1)
                        return world.borrower[i].calls;
        return 0;
}

void law_look_at_line(struct lido_pool *pool, struct line *ret_line)
{
        ret_line->pool = pool;
        ret_line->now_ns = sim_now();
        ret_line->count = 0;
        for (int i = 0; i < PRIORITIES; i++)
                list_for_each(link, &pool->waitq.line[i])
                {
                        struct pool_waiter *w = list_entry(link, struct pool_waiter, waiter.link);

                        /* one for several leases stands in line several times in one call, and one with a quota may be
                         * passed over */
                        if (ret_line->count < 8 && sleeps_in_line(w) && w->quota == 0 && !w->is_many) {
                                ret_line->waiter[ret_line->count] = w;
                                ret_line->call[ret_line->count] = call_of(w);
                                ret_line->thread[ret_line->count++] = w->thread;
                        }
                }
}

/* How far behind the highest class that ages. */
static unsigned classes_behind(int priority)
{
        return priority == LIDO_PRIORITY_HIGH ? 0 : priority == LIDO_PRIORITY_NORMAL ? 1 : 2;
}

/* Was it the turn of one who waits, and not of one who came at `came_ns`? */
static bool was_first(const struct pool_waiter *w, int priority, uint64_t came_ns)
{
        uint64_t ageing_ns = world.program->ageing_ms * NS_PER_MS;

        if (w->priority == (uint8_t)priority || w->priority == LIDO_PRIORITY_CRITICAL)
                return true;
        if (priority == LIDO_PRIORITY_CRITICAL)
                return false;
        return w->began_ns + classes_behind(w->priority) * ageing_ns < came_ns + classes_behind(priority) * ageing_ns;
}

static bool is_still(const struct line *before, const struct pool_waiter *w)
{
        for (unsigned i = 0; i < before->count; i++)
                if (before->waiter[i] == w && before->thread[i] == w->thread && before->call[i] == call_of(w))
                        return true;
        return false;
}

/* One that was given a dead object had its turn. */
void law_nobody_was_overtaken(const struct line *before, const struct borrower *by)
{
        for (int i = 0; i < PRIORITIES; i++)
                list_for_each(link, &before->pool->waitq.line[i])
                {
                        struct pool_waiter *w = list_entry(link, struct pool_waiter, waiter.link);

                        if (!w->is_front && is_still(before, w) && sleeps_in_line(w) &&
                            was_first(w, by->priority, before->now_ns))
                                sim_fail("%s has overtaken %s", sim_name(by->coroutine), sim_name((int)w->thread - 1));
                }
}

bool law_is_deadlock(unsigned pool)
{
        const struct factory *factory = &world.factory[pool];

        for (unsigned i = 0; i < factory->objects; i++) {
                const struct object *object = &factory->object[i];

                if (object->state != OBJECT_OPEN || object->holder < 0)
                        continue;
                for (uint32_t k = 0; k < world.program->threads; k++)
                        if (world.borrower[k].coroutine == object->holder && !world.borrower[k].is_acquiring)
                                return false;
        }
        return true;
}

/* ---- limits -------------------------------------------------------------------------------------------------- */

void law_limits(void)
{
        uint32_t alive = 0;

        for (uint32_t pool = 0; pool < world.program->pools; pool++) {
                uint32_t tagged = 0;

                alive += world.factory[pool].alive;
                for (uint32_t i = 0; i < world.program->threads; i++) {
                        const struct borrower *b = &world.borrower[i];

                        for (unsigned k = 0; k < b->holds; k++)
                                tagged += b->held[k].is_tagged && b->held[k].factory == &world.factory[pool] &&
                                          !borrow_is_shared(&b->held[k]);
                }
                if (world.most_quota && tagged > world.most_quota)
                        sim_fail("%u leases where the quota is %u", tagged, world.most_quota);
        }
        if (world.budget && alive > world.most_budget)
                sim_fail("%u objects where the budget is %u", alive, world.most_budget);
}

/* ---- the end ------------------------------------------------------------------------------------------------- */

void law_all_is_back(void)
{
        for (uint32_t pool = 0; pool < world.program->pools; pool++)
                for (int i = 1; i < QUOTAS; i++)
                        if (SIM_PEEK(&world.pool[pool]->quota[i].used) != 0)
                                sim_fail("all leases are back, and %u of a quota are still in use",
                                         SIM_PEEK(&world.pool[pool]->quota[i].used));
}

static void check_factory(const struct factory *factory)
{
        unsigned open = 0;

        if (!factory->ended)
                sim_fail("the pool has ended, the factory has not");
        for (unsigned i = 0; i < factory->objects; i++) {
                const struct object *object = &factory->object[i];

                open += object->state == OBJECT_OPEN || object->state == OBJECT_CLOSING;
                if (object->is_watched)
                        sim_fail("object %d is still watched at the end", object->number);
        }
        if (open || factory->alive)
                sim_fail("%u objects were never closed", open);
}

void law_books(void)
{
        for (uint32_t i = 0; i < world.program->pools; i++)
                check_factory(&world.factory[i]);
        if (world.is_shared && world.shared_returns > 1)
                sim_fail("a lease was released %u times", world.shared_returns);
        if (world.budget) {
                struct lido_budget_stats stats = LIDO_BUDGET_STATS_INIT;

                lido_budget_stats(world.budget, &stats);
                if (stats.used || stats.pools || stats.waiting)
                        sim_fail("all pools are gone, and %u permits are taken by %u", stats.used, stats.pools);
        }
}
