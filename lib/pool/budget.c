#include "pool/budget.h"

#include <string.h>

#include "base/clock.h"
#include "base/fork.h"
#include "base/shelf.h"
#include "base/sized.h"
#include "pool/budget_own.h"
#include "pool/waitq.h"

/* The head of the line has been called and has not come for so long: its loop is stuck, and others go first. */
#define PATIENCE_NS (50 * NS_PER_MS)
/* Those in line look again so often, called or not. */
#define LOOK_AGAIN_NS (250 * NS_PER_MS)
static struct shelf shelf = SHELF_INIT(struct lido_budget, shelf_link);
static _Atomic(struct lido_budget *) newest;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void before_fork(void) NO_THREAD_SAFETY
{
        mutex_lock(&shelf.lock);
}

static void after_fork(void) NO_THREAD_SAFETY
{
        mutex_unlock(&shelf.lock);
}

static void after_fork_in_child(void)
{
        after_fork();
        for (struct lido_budget *budget = load_acquire(&newest); budget; budget = budget->older)
                store_relaxed(&budget->is_forked, 1);
}

static void watch_forks(void)
{
        fork_watch(before_fork, after_fork, after_fork_in_child);
}

/* ---- the line --------------------------------------------------------------------------------------------- */

static void leave(struct lido_budget *budget, struct lido_pool *pool) REQUIRES(budget->lock)
{
        if (!pool->budgeted.place.is_in)
                return;
        heap_remove(&budget->line, &pool->budgeted.place);
        budget->wanted -= pool->budgeted.wants;
        pool->budgeted.wants = 0;
}

/* A pool that comes again keeps its place, even where nobody has an age: if it went behind its equals each time, they would call
 * each other for ever. */
static void stand(struct lido_budget *budget, struct lido_pool *pool, const struct budget_want *want)
        REQUIRES(budget->lock)
{
        struct heap_node *place = &pool->budgeted.place;
        uint64_t since_ns = want->since_ns;

        if (place->is_in && want->is_try)
                since_ns = clock_min(since_ns, place->due_ns);
        if (!place->is_in || place->due_ns != since_ns)
                heap_set(&budget->line, place, since_ns);
        budget->wanted -= pool->budgeted.wants;
        pool->budgeted.wants = since_ns < BUDGET_NO_WAITER ? want->count : 0;
        budget->wanted += pool->budgeted.wants;
}

/* Pass over those who were called and do not come. Their keeper stands in line again when it does. `now` may be a little
 * older than the call. */
static void pass_over(struct lido_budget *budget, uint64_t now) REQUIRES(budget->lock)
{
        struct lido_pool *first;

        while ((first = budget_pool_of(heap_first(&budget->line))) != NULL && first->budgeted.called_ns != 0 &&
               now > first->budgeted.called_ns + PATIENCE_NS)
                leave(budget, first);
}

/* ---- permits ---------------------------------------------------------------------------------------------- */

static bool is_over(const struct lido_budget *budget) REQUIRES(budget->lock)
{
        return budget->is_freed && budget->members_count == 0 && budget->used == 0;
}

void budget_attach(struct lido_budget *budget, struct lido_pool *pool)
{
        memset(&pool->budgeted, 0, sizeof pool->budgeted);
        if (budget) {
                store_relaxed(&pool->used_ns, clock_now_ns());
                mutex_lock(&budget->lock);
                store_release(&pool->budget, budget);
                list_push_back(&budget->members, &pool->budgeted.link);
                budget->members_count++;
                budget_rank(budget, pool);
                mutex_unlock(&budget->lock);
        }
}

void budget_detach(struct lido_pool *pool)
{
        struct lido_budget *budget = load_acquire(&pool->budget);
        struct lido_pool *first;
        bool is_last;

        if (!budget)
                return;
        mutex_lock(&budget->lock);
        leave(budget, pool);
        heap_remove(&budget->ranked, &pool->budgeted.rank);
        list_unlink(&pool->budgeted.link);
        store_relaxed(&pool->budget, NULL);
        budget->members_count--;
        is_last = is_over(budget);
        first = budget_to_call(budget, clock_now_ns());
        mutex_unlock(&budget->lock);
        budget_call(first);
        if (is_last)
                shelf_give(&shelf, budget);
}

bool budget_take(struct lido_pool *pool, const struct budget_want *want, uint64_t now, uint64_t *ret_due_ns)
{
        struct lido_budget *budget = load_acquire(&pool->budget);
        struct lido_pool *first;
        bool is_taken, is_short;

        if (!budget)
                return true;
        mutex_lock(&budget->lock);
        pool->budgeted.called_ns = 0;
        stand(budget, pool, want);
        if (budget->used < budget->total)
                pass_over(budget, now);
        is_taken = budget->used < budget->total && heap_first(&budget->line)->due_ns >= pool->budgeted.place.due_ns;
        if (is_taken) {
                budget->used++;
                leave(budget, pool);
        }
        if (!is_taken)
                *ret_due_ns = now + (budget->used < budget->total ? PATIENCE_NS : LOOK_AGAIN_NS);
        first = budget_to_call(budget, now);
        is_short = budget_shortage(budget) > 0;
        mutex_unlock(&budget->lock);
        if (first != pool)
                budget_call(first);
        if (!is_taken && is_short)
                budget_settle(budget);
        return is_taken;
}

bool budget_try(struct lido_pool *pool)
{
        struct lido_budget *budget = load_acquire(&pool->budget);
        bool is_taken;

        if (!budget)
                return true;
        mutex_lock(&budget->lock);
        is_taken = budget->used < budget->total && !heap_first(&budget->line);
        if (is_taken)
                budget->used++;
        mutex_unlock(&budget->lock);
        return is_taken;
}

void budget_leave(struct lido_pool *pool)
{
        struct lido_budget *budget = load_acquire(&pool->budget);
        struct lido_pool *first;

        if (!budget)
                return;
        mutex_lock(&budget->lock);
        leave(budget, pool);
        first = budget_to_call(budget, clock_now_ns());
        mutex_unlock(&budget->lock);
        budget_call(first);
}

void budget_give(struct lido_budget *budget, bool was_stolen)
{
        struct lido_pool *first;
        bool is_last;

        mutex_lock(&budget->lock);
        lido_assert(budget->used > 0);
        budget->used--;
        if (was_stolen)
                budget->coming--;
        is_last = is_over(budget);
        first = budget_to_call(budget, clock_now_ns());
        mutex_unlock(&budget->lock);
        budget_call(first);
        if (is_last)
                shelf_give(&shelf, budget);
}

void budget_give_back(struct lido_pool *pool)
{
        struct lido_budget *budget = load_acquire(&pool->budget);

        if (budget)
                budget_give(budget, false);
}

struct turnstile *budget_turnstile(struct lido_budget *budget)
{
        return &budget->turnstile;
}

void budget_check(struct lido_budget *budget)
{
        uint32_t live = 0, wanted = 0;

        mutex_lock(&budget->lock);
        list_for_each (link, &budget->members) {
                struct lido_pool *pool = list_entry(link, struct lido_pool, budgeted.link);

                live += load_seq_cst(&pool->live);
                wanted += pool->budgeted.wants;
                lido_assert(load_relaxed(&pool->budget) == budget);
                lido_assert(pool->budgeted.rank.is_in || (load_seq_cst(&pool->gate) & GATE_COVETED));
        }
        lido_assert(budget->used == live);
        lido_assert(budget->wanted == wanted);
        lido_assert(budget->coming <= budget->used);
        mutex_unlock(&budget->lock);
}

/* ---- for the embedder ------------------------------------------------------------------------------------- */

static void join_all_budgets(struct lido_budget *budget)
{
        budget->older = load_relaxed(&newest);
        while (!cas_release(&newest, &budget->older, budget))
                ;
}

int lido_budget_new(struct lido_budget **ret_budget, uint32_t total)
{
        struct lido_budget *budget;
        int is_new;

        if (!ret_budget || total == 0)
                return LIDO_EINVAL;
        pthread_once(&fork_once, watch_forks);
        budget = shelf_take(&shelf, &is_new);
        if (!budget)
                return LIDO_ENOMEM;
        if (is_new) {
                mutex_init(&budget->lock);
                turnstile_init(&budget->turnstile);
                join_all_budgets(budget);
        } else if (load_relaxed(&budget->is_forked)) {
                mutex_init(&budget->lock); /* whoever held it is in the parent */
                turnstile_init(&budget->turnstile);
                store_relaxed(&budget->is_forked, 0);
        }
        mutex_lock(&budget->lock);
        budget->total = total;
        budget->used = budget->coming = budget->wanted = budget->members_count = 0;
        budget->stolen = 0;
        list_init(&budget->members);
        budget->line.root = budget->ranked.root = NULL;
        budget->is_freed = false;
        mutex_unlock(&budget->lock);
        *ret_budget = budget;
        return LIDO_OK;
}

void lido_budget_free(struct lido_budget *budget)
{
        bool is_last;

        if (!budget || load_relaxed(&budget->is_forked))
                return;
        mutex_lock(&budget->lock);
        budget->is_freed = true;
        is_last = is_over(budget);
        mutex_unlock(&budget->lock);
        if (is_last)
                shelf_give(&shelf, budget);
}

int lido_budget_resize(struct lido_budget *budget, uint32_t total)
{
        if (!budget || total == 0)
                return LIDO_EINVAL;
        if (load_relaxed(&budget->is_forked))
                return LIDO_EFORKED;
        mutex_lock(&budget->lock);
        budget->total = total;
        mutex_unlock(&budget->lock);
        budget_settle(budget);
        return LIDO_OK;
}

static uint32_t count_waiting(struct lido_budget *budget) REQUIRES(budget->lock)
{
        uint32_t count = 0;

        list_for_each (link, &budget->members)
                count += list_entry(link, struct lido_pool, budgeted.link)->budgeted.place.is_in;
        return count;
}

int lido_budget_stats(struct lido_budget *budget, struct lido_budget_stats *stats)
{
        struct lido_budget_stats ours = LIDO_BUDGET_STATS_INIT;
        size_t room;

        if (!budget || !stats || stats->size < sizeof stats->size)
                return LIDO_EINVAL;
        if (load_relaxed(&budget->is_forked))
                return LIDO_EFORKED;
        room = sized_room(stats->size, sizeof ours);
        mutex_lock(&budget->lock);
        ours.total = budget->total;
        ours.used = budget->used;
        ours.pools = budget->members_count;
        ours.waiting = count_waiting(budget);
        ours.stolen = budget->stolen;
        mutex_unlock(&budget->lock);
        ours.size = room;
        memcpy(stats, &ours, room);
        return LIDO_OK;
}
