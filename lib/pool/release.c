/* How a lease ends: released, discarded, detached.
 *
 * A release compares the word with the lease; one compare-and-swap; a look at the gate. Everything else is in the _slow
 * halves.
 *
 * Misuse is exact: the compare-and-swap of a release succeeds for one caller only, from whichever threads. The slow
 * release first takes the lease back (LEASED -> LEASED with a new generation that nobody else knows), and then has all the
 * time in the world for hooks and for the line.
 */
#include "pool/lease.h"

#include "base/clock.h"
#include "pool/blame.h"
#include "pool/doubt.h"
#include "pool/op.h"

/* A hold from which on handing over beats overtaking: waking a thread costs about as much. */
#define LONG_HOLD_NS (30 * NS_PER_US)

static int misuse(lido_lease lease, const char *site)
{
        struct lido_slot *slot = lease.slot;
        uint64_t now = word_generation(load_acquire(&slot->word));
        uint64_t first = load_relaxed(&slot->first_generation);
        struct lido_pool *pool = load_acquire(&slot->pool); /* perhaps not the one that the lease was of */
        struct lido_event event = { .type = LIDO_EVENT_MISUSE, .site = site, .thread = thread_id(),
                                    .other_site = load_relaxed(&slot->released_site) };

        if (lease.generation != word_generation(lease.generation) || lease.generation - first > now - first)
                event.code = lease.generation < first ? LIDO_ESTALE : LIDO_EFOREIGN;
        else
                event.code = now - lease.generation <= 2 * GENERATION_ONE ? LIDO_EDOUBLE : LIDO_ESTALE;
        event.reason = lido_strerror(event.code);
        pool_emit_late(pool, slot, lease.generation, &event);
        return event.code;
}

/* Somebody may have been waiting for the quota, with idle objects before his eyes. */
static void free_quota(struct lido_pool *pool, struct lido_slot *slot)
{
        if (slot->quota == 0)
                return;
        quota_put(pool, slot->quota);
        slot->quota = 0;
        if (load_seq_cst(&pool->gate) & GATE_COUNT)
                waitq_serve(pool);
}

/* End the lease, so that the slot is the caller's under a generation that nobody else knows. */
static int take_back(lido_lease lease, const char *site, uint64_t *ret_marks)
{
        uint64_t seen = load_acquire(&lease.slot->word);

        for (;;) {
                if (!lease_is_whole(lease) || (seen & ~MARKS) != word_make(lease.generation, SLOT_LEASED))
                        return misuse(lease, site);
                if (seen & MARK_INTERRUPTING) { /* the hook is at work on the object, and does not block */
                        thread_yield();
                        seen = load_acquire(&lease.slot->word);
                        continue;
                }
                store_relaxed(&lease.slot->released_site, site);
                if (slot_move(lease.slot, &seen, word_next(seen, SLOT_LEASED)))
                        break;
        }
        *ret_marks = seen & MARKS;
        free_quota(load_relaxed(&lease.slot->pool), lease.slot);
        return LIDO_OK;
}

static void tell_leak_ended(struct lido_pool *pool, struct lido_slot *slot)
{
        struct lido_event event = { .type = LIDO_EVENT_LEAK_ENDED, .slot = load_relaxed(&slot->index),
                                    .site = load_relaxed(&slot->site), .thread = (uint32_t)load_relaxed(&slot->holder),
                                    .other_site = load_relaxed(&slot->released_site) };

        event.age_ns = clock_now_ns() - load_relaxed(&slot->seen_ns);
        pool_emit(pool, &event);
}

static enum lido_verdict verdict_on(struct lido_pool *pool, struct lido_slot *slot)
{
        struct thread_self *self = thread_self();
        void *outer = self->in_hook;
        enum lido_verdict verdict;

        if (!pool->factory.verdict)
                return LIDO_VERDICT_CLEAN;
        self->in_hook = pool;
        verdict = pool->factory.verdict(load_relaxed(&slot->object), pool->factory.context);
        self->in_hook = outer;
        return verdict;
}

/* Somebody waits: does the slot go from hand to hand, or may newcomers race for it? */
static bool should_hand_over(struct lido_pool *pool, struct lido_slot *slot)
{
        int64_t overtake_us = pool_options(pool)->overtake_us;
        uint64_t now, held;

        if (overtake_us < 0)
                return true;
        now = clock_now_ns();
        held = now - slot->contended_ns;
        slot->contended_ns = now;
        if (load_relaxed(&pool->waitq.long_holds) != (held >= LONG_HOLD_NS))
                store_relaxed(&pool->waitq.long_holds, held >= LONG_HOLD_NS);
        if (held < LONG_HOLD_NS && now < load_relaxed(&pool->waitq.overtake_until_ns))
                return false;
        store_relaxed(&pool->waitq.overtake_until_ns, now + (uint64_t)overtake_us * NS_PER_US);
        return true;
}

/* The object is as good as new: to the oldest waiter, or idle. */
static void give_back(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation)
{
        uint64_t gate = load_relaxed(&pool->gate);
        uint64_t seen = word_make(generation, SLOT_LEASED);

        if ((gate & GATE_COVETED) && budget_claims(pool, slot, generation))
                return;
        if ((gate & GATE_COUNT) && should_hand_over(pool, slot)) {
                pool_offer(pool, slot, generation);
                return;
        }
        pool_note_order(pool, slot);
        if (!slot_move(slot, &seen, word_next(seen, SLOT_IDLE))) {
                pool_decide_marked(pool, slot, generation);
                return;
        }
        gate = load_seq_cst(&pool->gate); /* law 2: pairs with waitq_join and mark_exhausted */
        if (gate & GATE_NOTICE)
                pool_notice_idle(pool, gate);
}

/* Look at what comes back, in the slow half. One that is doubted is checked besides, if it has deserved it. */
static void judge(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation, uint64_t marks)
{
        uint32_t max_uses = pool_options(pool)->max_uses;

        switch (verdict_on(pool, slot)) {
        case LIDO_VERDICT_CLEAN:
                if (max_uses != LIDO_UNLIMITED && (uint32_t)load_relaxed(&slot->leases) - slot->leases_at_birth >= max_uses)
                        op_want_close(pool, slot, generation, LIDO_CLOSE_USES);
                else if (marks & MARK_SUSPECT)
                        op_want(pool, slot, generation, SLOT_CHECKING);
                else
                        give_back(pool, slot, generation);
                return;
        case LIDO_VERDICT_RESET:
                op_want(pool, slot, generation, SLOT_RESETTING);
                return;
        default:
                op_want_close(pool, slot, generation, LIDO_CLOSE_BROKEN);
        }
}

static __attribute__((noinline)) int release_slow(lido_lease lease, const char *site)
{
        struct lido_pool *pool;
        uint64_t marks, gate;
        int rc = take_back(lease, site, &marks);

        if (rc != LIDO_OK)
                return rc;
        pool = load_relaxed(&lease.slot->pool);
        gate = load_relaxed(&pool->gate);
        if (gate & GATE_FORKED)
                return LIDO_EFORKED;
        if (marks & MARK_LEAKED)
                tell_leak_ended(pool, lease.slot);
        if ((marks & ~(MARK_LEAKED | MARK_SUSPECT)) || (gate & (GATE_CLOSED | GATE_ORPHANED)))
                pool_decide(pool, lease.slot, lease.generation + GENERATION_ONE, marks);
        else
                judge(pool, lease.slot, lease.generation + GENERATION_ONE, marks);
        return marks & MARK_REVOKED ? LIDO_EREVOKED : LIDO_OK;
}

/* hot: measured by tests/bench. The site is written after the lease has ended: were it before, a release that is refused
 * would overwrite the one that it is to be compared with. */
HOT int lido_release_at(lido_lease lease, const char *site)
{
        uint64_t seen = word_make(lease.generation, SLOT_LEASED), gate;
        struct lido_pool *pool;

        if (!region_has(lease.slot))
                return LIDO_EINVAL;
        pool = load_acquire(&lease.slot->pool); /* one that is gone is still a pool to look at: pool.h */
        if (!lease_is_whole(lease) || (load_relaxed(&pool->gate) & GATE_RELEASE_SLOW))
                return release_slow(lease, site);
        if (!slot_move(lease.slot, &seen, word_next(seen, SLOT_IDLE)))
                return release_slow(lease, site);
        store_relaxed(&lease.slot->released_site, site);
        gate = load_seq_cst(&pool->gate); /* law 2: pairs with waitq_join and mark_exhausted */
        if (__builtin_expect((gate & GATE_NOTICE) != 0, 0))
                pool_notice_idle(pool, gate);
        return LIDO_OK;
}

/* The lease has ended, and the object is about to be closed. */
static void tell_discard(struct lido_pool *pool, lido_lease lease, const char *reason, const char *site)
{
        struct discard discard = { .site = site };
        struct lido_event event = { .type = LIDO_EVENT_DISCARDED, .slot = load_relaxed(&lease.slot->index),
                                    .site = load_relaxed(&lease.slot->site), .other_site = site, .thread = thread_id() };

        if (reason && reason[0] != '\0') {
                tell_copy(discard.reason, sizeof discard.reason, reason);
                event.reason = discard.reason;
                discard.at_ns = clock_now_ns();
                mutex_lock(&pool->waitq.lock);
                pool->last_discard = discard;
                mutex_unlock(&pool->waitq.lock);
        }
        pool_emit(pool, &event);
}

/* End the lease of an object that does not go back. */
static int take_out(lido_lease lease, const char *site, struct lido_pool **ret_pool, uint64_t *ret_marks)
{
        int rc;

        if (!region_has(lease.slot))
                return LIDO_EINVAL;
        rc = take_back(lease, site, ret_marks);
        if (rc != LIDO_OK)
                return rc;
        *ret_pool = load_relaxed(&lease.slot->pool);
        return load_relaxed(&(*ret_pool)->gate) & GATE_FORKED ? LIDO_EFORKED : LIDO_OK;
}

int lido_discard_at(lido_lease lease, const char *site)
{
        return lido_discard_because_at(lease, NULL, site);
}

int lido_discard_because_at(lido_lease lease, const char *reason, const char *site)
{
        struct lido_pool *pool;
        uint64_t marks;
        int rc = take_out(lease, site, &pool, &marks);

        if (rc != LIDO_OK)
                return rc;
        if (marks & MARK_LEAKED)
                tell_leak_ended(pool, lease.slot);
        tell_discard(pool, lease, reason, site);
        op_want_close(pool, lease.slot, lease.generation + GENERATION_ONE, LIDO_CLOSE_DISCARDED);
        return marks & MARK_REVOKED ? LIDO_EREVOKED : LIDO_OK;
}

int lido_detach_at(lido_lease lease, void **ret_object, const char *site)
{
        struct lido_pool *pool;
        uint64_t marks;
        int rc;

        if (!ret_object)
                return LIDO_EINVAL;
        rc = take_out(lease, site, &pool, &marks);
        if (rc != LIDO_OK)
                return rc;
        if (marks & MARK_REVOKED) {
                op_want_close(pool, lease.slot, lease.generation + GENERATION_ONE, LIDO_CLOSE_DISCARDED);
                return LIDO_EREVOKED;
        }
        *ret_object = load_relaxed(&lease.slot->object);
        lease.slot->is_detached = 1;
        op_want_close(pool, lease.slot, lease.generation + GENERATION_ONE, LIDO_CLOSE_DETACHED);
        return LIDO_OK;
}
