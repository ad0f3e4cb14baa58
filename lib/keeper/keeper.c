#include "keeper/keeper.h"

#include "base/clock.h"
#include "keeper/grow.h"
#include "keeper/lifecycle.h"
#include "keeper/pass.h"
#include "keeper/rotate.h"
#include "keeper/work.h"
#include "pool/doubt.h"
#include "pool/op.h"
#include "pool/waitq.h"

static struct lido_pool *pool_of_due(struct heap_node *node)
{
        return list_entry(node, struct lido_pool, kept.due);
}

static struct lido_pool *pool_of_call(struct letter *letter)
{
        return list_entry(letter, struct lido_pool, call);
}

void keeper_init(struct keeper *keeper, void (*wake)(struct pool_host *),
                 void (*begin_blocking)(struct keeper *, struct lido_slot *))
{
        inbox_init(&keeper->host.slots);
        inbox_init(&keeper->host.called);
        if (keeper->host.wake != wake) /* a late waker may be reading it */
                keeper->host.wake = wake;
        store_relaxed(&keeper->host.thread, 0);
        keeper->host.loop = NULL;
        keeper->host.seed = 0;
        store_relaxed(&keeper->host.seeded, 0);
        keeper->due.root = NULL;
        list_init(&keeper->pools);
        keeper->suspended_ns = clock_suspended_ns();
        keeper->is_closed = false;
        keeper->begin_blocking = begin_blocking;
}

bool keeper_add(struct keeper *keeper, struct lido_pool *pool)
{
        bool is_closed;

        mutex_lock(&keeper->lock);
        is_closed = keeper->is_closed;
        if (!is_closed)
                list_push_back(&keeper->pools, &pool->kept.link);
        mutex_unlock(&keeper->lock);
        if (!is_closed)
                pool_call_keeper(pool);
        return !is_closed;
}

static void forget(struct keeper *keeper, struct lido_pool *pool)
{
        heap_remove(&keeper->due, &pool->kept.due);
        mutex_lock(&keeper->lock);
        list_unlink(&pool->kept.link);
        mutex_unlock(&keeper->lock);
}

/* ---- closing --------------------------------------------------------------------------------------------- */

static void tell_holder(struct lido_pool *pool, struct lido_slot *slot, uint64_t word, uint64_t now)
{
        struct lido_event event = { .type = LIDO_EVENT_HOLDER, .slot = load_relaxed(&slot->index), .site = load_relaxed(&slot->site),
                                    .thread = slot_holder(slot, word) };
        uint64_t since = load_relaxed(&slot->seen_ns);

        event.age_ns = since < now ? now - since : 0;
        trace_emit(pool, slot, word_generation(word), &event);
}

/* The closing deadline has passed: break what is still lent, say who has it, tell hooks at work to hurry. */
static void press(struct lido_pool *pool, uint64_t now)
{
        pool->kept.is_reported = 1;
        slots_for_each (slot, &pool->slots) {
                uint64_t word = load_acquire(&slot->word);

                if (word_state(word) == SLOT_LEASED) {
                        tell_holder(pool, slot, word, now);
                        work_interrupt(pool, slot, word);
                } else if (op_is_at_work(word) && word_state(word) != SLOT_CLOSING && !(word & MARK_OVERDUE)) {
                        work_hurry(pool, slot, word, now);
                }
        }
}

/* Returns: when to look again. */
static uint64_t close_step(struct lido_pool *pool, uint64_t now)
{
        uint64_t due;

        pool_notice_idle(pool, GATE_CLOSED);
        mutex_lock(&pool->waitq.lock);
        due = pool->close_due_ns;
        mutex_unlock(&pool->waitq.lock);
        if (now < due)
                return due;
        if (!pool->kept.is_reported)
                press(pool, now);
        return CLOCK_NEVER;
}

/* ---- turns ----------------------------------------------------------------------------------------------- */

static void tend(struct keeper *keeper, struct lido_pool *pool, uint64_t now)
{
        uint64_t due = CLOCK_NEVER;
        struct pool_owner *owner;

        if (load_seq_cst(&pool->gate) & GATE_CLOSED) {
                due = close_step(pool, now);
                forget(keeper, pool);
                if (pool_end_if_over(pool))
                        return;
                mutex_lock(&keeper->lock);
                list_push_back(&keeper->pools, &pool->kept.link);
                mutex_unlock(&keeper->lock);
        }
        if (keeper->suspended_ns >= load_relaxed(&pool->suspended_ns) + SUSPEND_NS)
                doubt_after_suspend(pool);
        due = clock_min(due, waitq_expire(pool, now));
        due = clock_min(due, grow_limit(pool, now));
        due = clock_min(due, rotate(pool, now));
        due = clock_min(due, grow(keeper, pool, now));
        due = clock_min(due, grow_despair(pool, now));
        if (pool->kept.is_napping && !(load_seq_cst(&pool->gate) & GATE_NAPPING))
                pool->kept.next_pass_ns = clock_min(pool->kept.next_pass_ns, pass_wake(pool, now));
        if (exchange_acq_rel(&pool->look_now, 0) || now >= pool->kept.next_pass_ns || pool->kept.must_pass)
                pool->kept.next_pass_ns = pass(pool, now);
        due = clock_min(due, pool->kept.next_pass_ns);
        owner = load_acquire(&pool->owner);
        if (owner && !(load_seq_cst(&pool->gate) & GATE_CLOSED))
                due = clock_min(due, owner->tended(owner, pool, now));
        if (due == CLOCK_NEVER)
                heap_remove(&keeper->due, &pool->kept.due);
        else
                heap_set(&keeper->due, &pool->kept.due, due);
}

static void receive_slots(struct keeper *keeper, uint64_t now)
{
        struct letter *letter = inbox_take(&keeper->host.slots);

        while (letter) {
                struct lido_slot *slot = list_entry(letter, struct lido_slot, letter);
                struct lido_pool *pool = load_relaxed(&slot->pool);

                letter = letter->next;
                work_receive(keeper, slot, now);
                heap_set(&keeper->due, &pool->kept.due, 0);
        }
}

/* `called` is cleared before the pool is looked at: pairs with pool_call_keeper. */
static void receive_calls(struct keeper *keeper)
{
        struct letter *letter = inbox_take(&keeper->host.called);

        while (letter) {
                struct lido_pool *pool = pool_of_call(letter);

                letter = letter->next;
                store_seq_cst(&pool->called, 0);
                heap_set(&keeper->due, &pool->kept.due, 0);
        }
}

/* Every pool is tended after a suspend, also those that had nothing to do. */
static void notice_suspend(struct keeper *keeper)
{
        uint64_t suspended_ns = clock_suspended_ns();

        if (suspended_ns < keeper->suspended_ns + SUSPEND_NS)
                return;
        keeper->suspended_ns = suspended_ns;
        mutex_lock(&keeper->lock);
        list_for_each (link, &keeper->pools)
                heap_set(&keeper->due, &list_entry(link, struct lido_pool, kept.link)->kept.due, 0);
        mutex_unlock(&keeper->lock);
}

uint64_t keeper_turn(struct keeper *keeper, uint64_t now)
{
        struct heap_node *first;

        store_relaxed(&keeper->host.thread, thread_id());
        notice_suspend(keeper);
        for (;;) {
                receive_slots(keeper, now);
                receive_calls(keeper);
                first = heap_first(&keeper->due);
                if (!first)
                        return CLOCK_NEVER;
                if (first->due_ns > now)
                        break;
                tend(keeper, pool_of_due(first), now);
        }
        return first->due_ns;
}

/* ---- the end of the service ------------------------------------------------------------------------------ */

void keeper_close_all(struct keeper *keeper, uint64_t deadline_ns)
{
        mutex_lock(&keeper->lock);
        keeper->is_closed = true;
        list_for_each (link, &keeper->pools) {
                struct lido_pool *pool = list_entry(link, struct lido_pool, kept.link);

                heap_set(&keeper->due, &pool->kept.due, 0);
        }
        mutex_unlock(&keeper->lock);
        for (struct heap_node *node; (node = heap_first(&keeper->due)) != NULL && node->due_ns == 0;) {
                heap_set(&keeper->due, node, 1);
                pool_close(pool_of_due(node), deadline_ns);
        }
}

bool keeper_is_done(struct keeper *keeper)
{
        bool is_done = true;

        mutex_lock(&keeper->lock);
        list_for_each (link, &keeper->pools)
                if (load_seq_cst(&list_entry(link, struct lido_pool, kept.link)->live) != 0)
                        is_done = false;
        mutex_unlock(&keeper->lock);
        return is_done;
}

bool keeper_is_still(struct keeper *keeper)
{
        bool is_still = true;

        mutex_lock(&keeper->lock);
        list_for_each (link, &keeper->pools)
                slots_for_each (slot, &list_entry(link, struct lido_pool, kept.link)->slots) {
                        enum slot_state state = word_state(load_acquire(&slot->word));

                        if (state != SLOT_VACANT && state != SLOT_LEASED)
                                is_still = false;
                }
        mutex_unlock(&keeper->lock);
        return is_still;
}

/* From the moment the host is taken away under the pool's lock, nobody sends it a letter. */
static void orphan(struct lido_pool *pool)
{
        slots_for_each (slot, &pool->slots)
                work_unwatch(pool, slot);
        mutex_lock(&pool->waitq.lock);
        store_relaxed(&pool->host, NULL);
        or_seq_cst(&pool->gate, GATE_ORPHANED | GATE_CLOSED);
        mutex_unlock(&pool->waitq.lock);
        waitq_fail_all(pool, LIDO_ECLOSED);
        budget_leave(pool);
}

bool keeper_abandon(struct keeper *keeper)
{
        bool had_none = true;
        struct list *front;

        while ((front = list_front(&keeper->pools)) != NULL) {
                struct lido_pool *pool = list_entry(front, struct lido_pool, kept.link);
                struct letter *letter;

                if (load_seq_cst(&pool->live) != 0)
                        had_none = false;
                forget(keeper, pool);
                orphan(pool);
                for (letter = inbox_take(&keeper->host.called); letter;) {
                        struct lido_pool *called = pool_of_call(letter);

                        letter = letter->next;
                        store_seq_cst(&called->called, 0);
                }
                for (letter = inbox_take(&keeper->host.slots); letter;) {
                        struct lido_slot *slot = list_entry(letter, struct lido_slot, letter);

                        letter = letter->next;
                        pool_send(load_relaxed(&slot->pool), slot);
                }
                pool_notice_idle(pool, GATE_CLOSED | GATE_ORPHANED);
                pool_end_if_over(pool);
        }
        return had_none;
}
