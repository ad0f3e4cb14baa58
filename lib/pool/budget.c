#include "pool/budget.h"

#include <string.h>

#include "base/clock.h"
#include "base/fork.h"
#include "base/shelf.h"
#include "base/sized.h"
#include "pool/op.h"
#include "pool/waitq.h"

/* The head of the line has been called and has not come for so long: its loop is stuck, and others go first. */
#define PATIENCE_NS (50 * NS_PER_MS)
/* Those in line look again so often, called or not. */
#define LOOK_AGAIN_NS (250 * NS_PER_MS)
/* So many are taken away before the lock is given up and they are sent on their way. */
#define SPOILS 8

struct lido_budget {
        struct mutex lock; /* guards all but what is said to be constant */
        uint32_t total;
        uint32_t used;     /* permits taken */
        uint32_t coming;   /* of these, those of stolen slots, which are about to be freed */
        uint32_t wanted;   /* sum of `wants` over the line */
        uint32_t members_count;
        uint64_t stolen;
        struct list members;
        struct heap line;
        struct heap ranked;
        bool is_freed;     /* the owner has let go of it */
        _Atomic uint32_t is_forked;  /* the parent's, seen in a child */
        struct lido_budget *older;   /* every budget that ever was; set when its memory is new, then constant */
        struct turnstile turnstile;  /* has a lock of its own */
        void *shelf_link;
};

/* Slots taken away under the lock, to be sent to their keepers after it. */
struct spoils {
        unsigned count;
        struct lido_slot *slot[SPOILS];
};

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

static struct lido_pool *pool_of_place(struct heap_node *node)
{
        return node ? list_entry(node, struct lido_pool, budgeted.place) : NULL;
}

static struct lido_pool *pool_of_rank(struct heap_node *node)
{
        return list_entry(node, struct lido_pool, budgeted.rank);
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

/* Who is to be called once the lock is given up: the first in line, if there is a permit for it. */
static struct lido_pool *to_call(struct lido_budget *budget, uint64_t now) REQUIRES(budget->lock)
{
        struct lido_pool *first = pool_of_place(heap_first(&budget->line));

        if (!first || budget->used >= budget->total)
                return NULL;
        if (first->budgeted.called_ns == 0)
                first->budgeted.called_ns = now;
        return first;
}

static void call(struct lido_pool *pool)
{
        if (pool)
                pool_call_keeper(pool);
}

/* Pass over those who were called and do not come. Their keeper stands in line again when it does. `now` may be a little
 * older than the call. */
static void pass_over(struct lido_budget *budget, uint64_t now) REQUIRES(budget->lock)
{
        struct lido_pool *first;

        while ((first = pool_of_place(heap_first(&budget->line))) != NULL && first->budgeted.called_ns != 0 &&
               now > first->budgeted.called_ns + PATIENCE_NS)
                leave(budget, first);
}

/* ---- taking away ------------------------------------------------------------------------------------------ */

/* How many objects have to go that are not going yet. */
static uint32_t shortage(const struct lido_budget *budget) REQUIRES(budget->lock)
{
        uint64_t have = (uint64_t)budget->total + budget->coming, need = (uint64_t)budget->wanted + budget->used;

        return need > have ? (uint32_t)(need - have) : 0;
}

/* Does the pool have more than its min, opens under way not counted? */
static bool is_above_min(struct lido_pool *pool, uint32_t *ret_idle)
{
        uint32_t count[SLOT_STATES];

        slots_count(&pool->slots, count);
        *ret_idle = count[SLOT_IDLE] + count[SLOT_RESTED];
        return *ret_idle + count[SLOT_LEASED] + count[SLOT_CHECKING] + count[SLOT_RESETTING] > pool_options(pool)->min;
}

/* The slot is the caller's, and is going to be closed for somebody else. */
static void mark_stolen(struct lido_budget *budget, struct lido_slot *slot) REQUIRES(budget->lock)
{
        slot->is_stolen = 1;
        slot->reason = LIDO_CLOSE_STOLEN;
        budget->coming++;
        budget->stolen++;
}

/* Take an idle object that the pool can spare, the highest, for load gathers on the low ones. While somebody waits there, what has
 * just fallen idle is on its way to him, and only what has rested nevertheless is to spare. NULL: it has none. */
static struct lido_slot *take_spare(struct lido_budget *budget, struct lido_pool *pool) REQUIRES(budget->lock)
{
        uint32_t index = load_acquire(&pool->slots.high), idle;
        uint64_t gate = load_seq_cst(&pool->gate), generation;
        bool may_take_idle = !(gate & GATE_COUNT) || (gate & GATE_PAUSED);

        if (!is_above_min(pool, &idle) || idle == 0)
                return NULL;
        while (index-- > 0) {
                struct lido_slot *slot = slots_at(&pool->slots, index);
                uint64_t word = load_seq_cst(&slot->word);

                if (word_state(word) == SLOT_IDLE && !may_take_idle)
                        continue;
                if (!slots_claim_this(slot, word, &generation))
                        continue;
                mark_stolen(budget, slot);
                slot_pass_on(slot, generation, SLOT_CLOSING);
                return slot;
        }
        return NULL;
}

/* When was it used last, as far as is known? Who acquires by key writes it down. */
static uint64_t last_use(struct lido_pool *pool, uint64_t now)
{
        uint64_t leases = 0;

        if (pool->owner)
                return load_relaxed(&pool->used_ns);
        slots_for_each (slot, &pool->slots)
                leases += load_relaxed(&slot->leases);
        if (leases != pool->budgeted.seen_leases)
                store_relaxed(&pool->used_ns, now);
        pool->budgeted.seen_leases = leases;
        return load_relaxed(&pool->used_ns);
}

/* Find an object to take away, of the pool that was used least recently. A pool that was used since it was ranked is ranked anew;
 * one with nothing to spare is marked, so that it is not looked at again before something falls idle in it. */
static struct lido_slot *steal_one(struct lido_budget *budget, uint64_t now) REQUIRES(budget->lock)
{
        struct heap_node *node;

        for (uint32_t looks = 2 * budget->members_count + 1; looks > 0 && (node = heap_first(&budget->ranked)); looks--) {
                struct lido_pool *pool = pool_of_rank(node);
                uint64_t used_ns = last_use(pool, now);
                struct lido_slot *slot;

                if (used_ns > node->due_ns) {
                        heap_set(&budget->ranked, node, used_ns);
                        continue;
                }
                slot = take_spare(budget, pool);
                if (slot)
                        return slot;
                or_seq_cst(&pool->gate, GATE_COVETED); /* law 2: pairs with whoever makes a slot idle */
                slot = take_spare(budget, pool);
                if (slot) {
                        and_seq_cst(&pool->gate, ~GATE_COVETED);
                        return slot;
                }
                heap_remove(&budget->ranked, node);
        }
        return NULL;
}

static void steal(struct lido_budget *budget, struct spoils *spoils, uint64_t now) REQUIRES(budget->lock)
{
        struct lido_slot *slot;

        while (spoils->count < SPOILS && shortage(budget) > 0 && (slot = steal_one(budget, now)) != NULL)
                spoils->slot[spoils->count++] = slot;
}

/* Returns: true when there may be more to take. */
static bool send_away(struct spoils *spoils)
{
        bool was_full = spoils->count == SPOILS;

        while (spoils->count > 0) {
                struct lido_slot *slot = spoils->slot[--spoils->count];

                pool_send(load_relaxed(&slot->pool), slot);
        }
        return was_full;
}

/* Take away what is needed, and can be, and call whom there is a permit for. */
static void settle(struct lido_budget *budget)
{
        struct spoils spoils = { .count = 0 };
        struct lido_pool *first;
        uint64_t now = clock_now_ns();

        do {
                mutex_lock(&budget->lock);
                steal(budget, &spoils, now);
                first = to_call(budget, now);
                mutex_unlock(&budget->lock);
                call(first);
        } while (send_away(&spoils));
}

static void rank(struct lido_budget *budget, struct lido_pool *pool) REQUIRES(budget->lock)
{
        if (!pool->budgeted.rank.is_in)
                heap_set(&budget->ranked, &pool->budgeted.rank, load_relaxed(&pool->used_ns));
}

void budget_notice_idle(struct lido_pool *pool)
{
        struct lido_budget *budget = load_acquire(&pool->budget);
        bool is_member, is_short = false;

        if (!budget)
                return;
        mutex_lock(&budget->lock);
        is_member = load_relaxed(&pool->budget) == budget;
        if (is_member) {
                rank(budget, pool);
                is_short = shortage(budget) > 0;
        }
        mutex_unlock(&budget->lock);
        if (is_short)
                settle(budget);
}

bool budget_claims(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation)
{
        struct lido_budget *budget = load_acquire(&pool->budget);
        uint64_t own_ns = waitq_oldest_ns(pool);
        struct lido_pool *first;
        bool is_claimed = false;
        uint32_t idle;

        if (!budget)
                return false;
        mutex_lock(&budget->lock);
        first = pool_of_place(heap_first(&budget->line));
        if (shortage(budget) == 0) {
                and_seq_cst(&pool->gate, ~GATE_COVETED);
                rank(budget, pool);
        } else if (is_above_min(pool, &idle) && (budget->used > budget->total || (first && first != pool &&
                                                                        first->budgeted.place.due_ns < own_ns))) {
                mark_stolen(budget, slot);
                slot_pass_on(slot, generation, SLOT_CLOSING);
                is_claimed = true;
        }
        mutex_unlock(&budget->lock);
        if (is_claimed)
                pool_send(pool, slot);
        return is_claimed;
}

bool budget_evict(struct lido_pool *pool, struct lido_slot *slot, uint64_t word)
{
        struct lido_budget *budget = load_acquire(&pool->budget);
        uint64_t generation;
        uint32_t idle;
        bool is_going;

        mutex_lock(&budget->lock);
        is_going = is_above_min(pool, &idle) && slots_claim_this(slot, word, &generation);
        if (is_going) {
                slot->reason = LIDO_CLOSE_IDLE;
                slot_pass_on(slot, generation, SLOT_CLOSING);
        }
        mutex_unlock(&budget->lock);
        if (is_going)
                pool_send(pool, slot);
        return is_going;
}

void budget_reconsider(struct lido_pool *pool)
{
        if ((load_seq_cst(&pool->gate) & (GATE_COVETED | GATE_COUNT)) == GATE_COVETED && slots_any_free(&pool->slots))
                pool_notice_idle(pool, GATE_COVETED);
}

void budget_look(struct lido_pool *pool, uint64_t now)
{
        struct lido_budget *budget = load_acquire(&pool->budget);

        if (!budget)
                return;
        mutex_lock(&budget->lock);
        last_use(pool, now);
        mutex_unlock(&budget->lock);
        if (load_relaxed(&pool->gate) & GATE_COVETED)
                pool_notice_idle(pool, GATE_COVETED);
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
                rank(budget, pool);
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
        first = to_call(budget, clock_now_ns());
        mutex_unlock(&budget->lock);
        call(first);
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
        first = to_call(budget, now);
        is_short = shortage(budget) > 0;
        mutex_unlock(&budget->lock);
        if (first != pool)
                call(first);
        if (!is_taken && is_short)
                settle(budget);
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
        first = to_call(budget, clock_now_ns());
        mutex_unlock(&budget->lock);
        call(first);
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
        first = to_call(budget, clock_now_ns());
        mutex_unlock(&budget->lock);
        call(first);
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
        settle(budget);
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
