#include "keeper/work.h"

#include "base/clock.h"
#include "keeper/grow.h"
#include "keeper/rotate.h"
#include "pool/op.h"

/* Hooks run with the pool noted as the thread's, so that waiting for it there is refused. */
static void *enter_hook(struct lido_pool *pool)
{
        struct thread_self *self = thread_self();
        void *outer = self->in_hook;

        self->in_hook = pool;
        return outer;
}

static void leave_hook(void *outer)
{
        thread_self()->in_hook = outer;
}

void work_unwatch(struct lido_pool *pool, struct lido_slot *slot)
{
        void *outer;

        if (!slot->is_watched)
                return;
        slot->is_watched = 0;
        outer = enter_hook(pool);
        if (pool->factory.unwatch)
                pool->factory.unwatch(load_relaxed(&slot->object), pool->factory.context);
        leave_hook(outer);
}

/* The object is whole, and nobody knows it yet. */
static void watch(struct lido_pool *pool, struct lido_slot *slot, uint64_t ticket)
{
        lido_handle handle = { slot, ticket };
        void *outer;

        store_relaxed(&slot->life, ticket);
        if (!pool->factory.watch)
                return;
        slot->is_watched = 1;
        outer = enter_hook(pool);
        pool->factory.watch(handle, load_relaxed(&slot->object), load_relaxed(&pool->host)->loop,
                            pool->factory.context);
        leave_hook(outer);
}

void work_begin(struct keeper *keeper, struct lido_pool *pool, struct lido_slot *slot)
{
        uint64_t ticket = word_generation(load_relaxed(&slot->word));

        if (word_state(load_relaxed(&slot->word)) == SLOT_CLOSING)
                work_unwatch(pool, slot);
        pool->kept.must_pass = 1; /* it has a deadline */
        if (op_is_blocking(pool, slot)) {
                /* Until a helper takes it up it has no deadline of its own: the wait is ours, not the hook's. */
                store_relaxed(&slot->op_due_ns, CLOCK_NEVER);
                keeper->begin_blocking(keeper, slot);
        } else {
                op_begin(pool, slot, ticket);
        }
}

static void receive_opened(struct lido_pool *pool, struct lido_slot *slot, uint64_t ticket, uint64_t now)
{
        int status = slot->status, failure = slot->failure;

        slot->failure = LIDO_FAILURE_TRANSIENT;
        if (status == LIDO_OK) {
                slot->is_aged = 0;
                watch(pool, slot, ticket);
        }
        op_finish(pool, slot);
        grow_note(pool, status, failure, now);
        if (status == LIDO_OK)
                rotate_note_opened(pool);
        pool_changed(pool);
}

void work_receive(struct keeper *keeper, struct lido_slot *slot, uint64_t now)
{
        struct lido_pool *pool = load_relaxed(&slot->pool);
        uint64_t word = load_acquire(&slot->word);

        pool->kept.must_pass = 1; /* what it has become is to be seen, and its age to count from now */
        if (!(word & MARK_ANSWERED)) {
                work_begin(keeper, pool, slot);
        } else if (word_state(word) == SLOT_OPENING) {
                receive_opened(pool, slot, word_generation(word), now);
        } else {
                op_finish(pool, slot);
                pool_changed(pool);
        }
}

void work_interrupt(struct lido_pool *pool, struct lido_slot *slot, uint64_t word)
{
        void *outer;

        if (!pool->factory.interrupt || !slot_hold(slot, word_generation(word), SLOT_LEASED))
                return;
        outer = enter_hook(pool);
        pool->factory.interrupt(load_relaxed(&slot->object), pool->factory.context);
        leave_hook(outer);
        slot_let_go(slot);
}

void work_hurry(struct lido_pool *pool, struct lido_slot *slot, uint64_t word, uint64_t now)
{
        struct lido_event event = { .type = LIDO_EVENT_OVERDUE, .slot = load_relaxed(&slot->index) };
        lido_op op = { slot, word_generation(word) };
        void *outer;

        if (!slot_mark(slot, word_generation(word), word_state(word), MARK_OVERDUE))
                return;
        outer = enter_hook(pool);
        if (pool->factory.cancel)
                pool->factory.cancel(op, pool->factory.context);
        /* A hook of ours may be at work on the object, but only this thread ever begins to close it. */
        if (pool->factory.interrupt && (word_state(word) == SLOT_CHECKING || word_state(word) == SLOT_RESETTING))
                pool->factory.interrupt(load_relaxed(&slot->object), pool->factory.context);
        leave_hook(outer);
        event.code = (int)word_state(word);
        event.age_ns = now - load_relaxed(&slot->op_began_ns);
        event.reason = "a hook has not answered in time";
        pool_emit(pool, &event);
}
