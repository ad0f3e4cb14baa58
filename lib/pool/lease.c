/* The hot path: an acquire reads the gate, claims the slot that this thread had last by one compare-and-swap, and writes down
 * who and where. Nothing shared is written, no clock is read, nothing is allocated. Everything else is in the _slow halves.
 * How a lease ends: release.c.
 */
#include "pool/lease.h"

#include "base/clock.h"
#include "base/sized.h"
#include "pool/blame.h"
#include "pool/doubt.h"
#include "pool/op.h"

/* Look again so often before standing in line, when holds are short. */
#define SPINS 8
#define PAUSES_A_SPIN 8
#define YIELDS 2

static inline void write_down(struct lido_slot *slot, uint64_t generation, const char *site, const char *tag,
                              uint32_t thread, lido_lease *ret_lease)
{
        store_relaxed(&slot->site, site);
        store_relaxed(&slot->tag, tag);
        store_release(&slot->holder, holder_make(generation, thread)); /* pairs with slot_holder, for acquired_ns */
        store_relaxed(&slot->leases, load_relaxed(&slot->leases) + 1);
        ret_lease->slot = slot;
        ret_lease->generation = generation;
}

/* Make the hint of this pool, if there is one, the latest. */
static struct thread_hint *turn_to(struct lido_pool *pool, struct thread_self *self)
{
        if (self->latest.owner != pool) {
                if (self->latest.owner)
                        self->hint[self->latest.index] = self->latest;
                self->latest = self->hint[pool->hint_index];
        }
        return &self->latest;
}

/* The slot that this thread had last, if it is still as it was left: then it is still this pool's too, for a slot that has
 * served another pool meanwhile has moved on to other generations. */
static inline bool claim_hinted(struct lido_pool *pool, struct thread_self *self, const char *site,
                                lido_lease *ret_lease)
{
        struct thread_hint *hint = &self->latest;
        struct lido_slot *slot = hint->slot;
        uint64_t word = hint->word, seen = word;

        if (hint->owner != pool || !slot_claim(slot, &seen, word + (SLOT_LEASED - SLOT_IDLE)))
                return false;
        hint->word = word + GENERATION_ONE; /* what an undisturbed release will leave */
        write_down(slot, word_generation(word), site, NULL, self->id, ret_lease);
        return true;
}

static bool passes_peek(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation)
{
        struct thread_self *self = thread_self();
        void *outer = self->in_hook;
        enum lido_peek peek;

        self->in_hook = pool;
        peek = pool->factory.peek(load_relaxed(&slot->object), pool->factory.context);
        self->in_hook = outer;
        if (peek == LIDO_PEEK_OK)
                return true;
        if (peek == LIDO_PEEK_CHECK)
                op_want(pool, slot, generation, SLOT_CHECKING);
        else
                op_want_close(pool, slot, generation, LIDO_CLOSE_BROKEN);
        return false;
}

/* Returns: false when the object has been sent away. */
static bool is_fit(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation, enum origin origin)
{
        bool peeks = origin == FROM_REST || (origin == FROM_IDLE && (pool->factory.flags & LIDO_FACTORY_PEEK_ALWAYS));
        uint64_t marks = load_relaxed(&slot->word) & (MARK_RETIRE | MARK_SUSPECT);

        if (marks) {
                pool_decide_marked(pool, slot, generation);
                return false;
        }
        return !pool->factory.peek || !peeks || passes_peek(pool, slot, generation);
}

/* Returns: false when the object was not to be made ready, and has been sent away. */
static bool is_activated(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation, const struct want *want)
{
        struct thread_self *self = thread_self();
        void *outer = self->in_hook;
        int rc;

        if (!pool->factory.activate)
                return true;
        self->in_hook = pool;
        rc = pool->factory.activate(load_relaxed(&slot->object), want->tag, pool->factory.context);
        self->in_hook = outer;
        if (rc != LIDO_OK)
                op_want_close(pool, slot, generation, LIDO_CLOSE_BROKEN);
        return rc == LIDO_OK;
}

/* What a slow lease has besides. */
static void note_slowly(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation, const struct want *want)
{
        slot->quota = want->quota;
        if (!want->is_elsewhere)
                trace_note(pool, slot, generation);
        if (pool->factory.flags & LIDO_FACTORY_TIMED)
                store_relaxed(&slot->acquired_ns, clock_now_ns());
}

bool lease_begin(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation, enum origin origin,
                 const struct want *want, lido_lease *ret_lease)
{
        struct thread_self *self = thread_self();

        if (!is_fit(pool, slot, generation, origin) || !is_activated(pool, slot, generation, want)) {
                quota_put(pool, want->quota);
                return false;
        }
        note_slowly(pool, slot, generation, want);
        *turn_to(pool, self) = (struct thread_hint){ pool, slot, word_make(generation + GENERATION_ONE, SLOT_IDLE),
                                                     pool->hint_index };
        write_down(slot, generation, want->site, want->tag, thread_id(), ret_lease);
        return true;
}

static int refusal(uint64_t gate)
{
        if (gate & GATE_FORKED)
                return LIDO_EFORKED;
        if (gate & (GATE_CLOSED | GATE_ORPHANED))
                return LIDO_ECLOSED;
        return gate & GATE_PAUSED ? LIDO_EPAUSED : LIDO_OK;
}

/* Claim an idle object that has the label. */
static struct lido_slot *claim_labelled(struct lido_pool *pool, uint64_t label, uint64_t *ret_generation,
                                        bool *ret_had_rested)
{
        struct slots_doubt doubt = pool_doubt(pool);
        bool is_passed_over;

        slots_for_each (slot, &pool->slots) {
                uint64_t word = load_seq_cst(&slot->word);

                if (load_relaxed(&slot->label) == label && slot_is_claimable(slot, word, &doubt, &is_passed_over) &&
                    slots_claim_this(slot, word, ret_generation)) {
                        *ret_had_rested = word_state(word) == SLOT_RESTED;
                        return slot;
                }
        }
        return NULL;
}

static struct lido_slot *claim_wanted(struct lido_pool *pool, const struct want *want, uint64_t *ret_generation,
                                      bool *ret_had_rested)
{
        struct lido_slot *slot = NULL;

        if (want->label != 0)
                slot = claim_labelled(pool, want->label, ret_generation, ret_had_rested);
        return slot ? slot : pool_claim(pool, ret_generation, ret_had_rested);
}

/* Put back a quota that was of no use. Somebody in line may have been passed over for it meanwhile. */
static void put_quota_back(struct lido_pool *pool, uint8_t quota)
{
        quota_put(pool, quota);
        if (quota != 0 && (load_seq_cst(&pool->gate) & GATE_COUNT))
                waitq_serve(pool);
}

/* Claim what is idle, for as long as it turns out to be dead. */
static bool claim_idle(struct lido_pool *pool, const struct want *want, lido_lease *ret_lease)
{
        struct lido_slot *slot;
        uint64_t generation;
        bool had_rested;

        while (quota_take(pool, want->quota)) {
                bool is_begun;

                slot = claim_wanted(pool, want, &generation, &had_rested);
                if (!slot) {
                        put_quota_back(pool, want->quota);
                        if (had_rested)
                                doubt_check(pool, 1);
                        return false;
                }
                is_begun = lease_begin(pool, slot, generation, had_rested ? FROM_REST : FROM_IDLE, want, ret_lease);

                if (had_rested && (load_relaxed(&pool->gate) & GATE_NAPPING))
                        pool_notice_idle(pool, GATE_NAPPING);
                if (is_begun)
                        return true;
        }
        return false;
}

/* Open an object here and now, where the embedder has said that this is cheap and cannot block. */
static int open_inline(struct lido_pool *pool, const struct want *want, lido_lease *ret_lease)
{
        uint64_t generation, marks;
        struct lido_slot *slot;
        int status;

        if (!pool_options(pool)->open_inline || !budget_try(pool))
                return LIDO_EEXHAUSTED;
        if (!pool_reserve(pool)) {
                budget_give_back(pool);
                return LIDO_EEXHAUSTED;
        }
        slot = slots_claim_vacant(&pool->slots, &generation);
        if (!slot) {
                pool_unreserve(pool);
                return LIDO_EEXHAUSTED;
        }
        add_relaxed(&pool->opening, 1);
        store_relaxed(&slot->op_inline, OP_TO_BORROWER);
        op_begin(pool, slot, generation);
        if (exchange_acq_rel(&slot->op_inline, OP_TO_KEEPER) != OP_TAKEN_INLINE)
                return LIDO_EEXHAUSTED; /* the hook broke its promise; its answer will go to the keeper */
        status = slot->status;
        if (!op_finish_open(pool, slot, &generation, &marks)) {
                if (load_seq_cst(&pool->gate) & GATE_COUNT) /* law 2: somebody may have found no room because of this one */
                        pool_ask_for_more(pool);
                return status;
        }
        if (!is_activated(pool, slot, generation, want))
                return LIDO_EFACTORY;
        note_slowly(pool, slot, generation, want);
        write_down(slot, generation, want->site, want->tag, thread_id(), ret_lease);
        return LIDO_OK;
}

/* After a scan in vain: let later tries know, unless something falls idle meanwhile. SCANNING is taken away by whoever
 * makes a slot idle after it was set; so EXHAUSTED is set only if all were taken at one moment and none came back. */
static void mark_exhausted(struct lido_pool *pool)
{
        uint64_t seen = or_seq_cst(&pool->gate, GATE_SCANNING) | GATE_SCANNING; /* law 2, as a waiter */

        if (slots_any_free(&pool->slots)) {
                and_seq_cst(&pool->gate, ~GATE_SCANNING);
                return;
        }
        while ((seen & GATE_SCANNING) && !cas_seq_cst(&pool->gate, &seen, (seen & ~GATE_SCANNING) | GATE_EXHAUSTED))
                ;
}

int lease_claim(struct lido_pool *pool, const struct want *want, lido_lease *ret_lease)
{
        uint64_t gate = load_acquire(&pool->gate);
        int rc = refusal(gate);

        if (rc != LIDO_OK)
                return rc;
        if ((gate & GATE_COUNT) && pool_options(pool)->overtake_us < 0) /* what is idle now is on its way to the line */
                return LIDO_EEXHAUSTED;
        if (claim_idle(pool, want, ret_lease))
                return LIDO_OK;
        if (!quota_take(pool, want->quota))
                return LIDO_EQUOTA;
        rc = open_inline(pool, want, ret_lease);
        if (rc != LIDO_OK)
                put_quota_back(pool, want->quota);
        return rc;
}

static bool claim_by_spinning(struct lido_pool *pool, const struct want *want, lido_lease *ret_lease)
{
        if (load_relaxed(&pool->waitq.long_holds) || pool_options(pool)->overtake_us < 0)
                return false;
        if (!(load_relaxed(&pool->gate) & GATE_COUNT))
                for (int i = 0; i < SPINS; i++) {
                        for (int k = 0; k < PAUSES_A_SPIN; k++)
                                cpu_relax();
                        if (claim_idle(pool, want, ret_lease))
                                return true;
                }
        for (int i = 0; i < YIELDS; i++) {
                thread_yield();
                if (claim_idle(pool, want, ret_lease))
                        return true;
        }
        return false;
}

static void count_wait(struct lido_pool *pool, uint64_t waited_ns)
{
        pool_record(&pool->wait_time.sum_ns, &pool->wait_time.max_ns, pool->wait_time.bucket, waited_ns);
}

void lease_count_wait(struct lido_pool *pool, uint64_t waited_ns)
{
        add_relaxed(&pool->waited, 1);
        count_wait(pool, waited_ns);
}

void lease_count_failure(struct lido_pool *pool, int code, uint64_t waited_ns)
{
        struct lido_event event = { .type = LIDO_EVENT_TIMED_OUT, .code = code, .slot = LIDO_UNLIMITED,
                                    .thread = thread_id(), .age_ns = waited_ns };

        if (code == LIDO_ETIMEDOUT) {
                add_relaxed(&pool->timed_out, 1);
                count_wait(pool, waited_ns);
                pool_emit(pool, &event);
        } else if (code == LIDO_ECANCELED) {
                add_relaxed(&pool->canceled, 1);
        } else {
                add_relaxed(&pool->refused, 1);
        }
}

/* A thread that waits for what it holds itself is on the way to a deadlock. Looked at only here, where it waits anyway. */
static int look_for_nesting(struct lido_pool *pool, struct pool_waiter *w)
{
        struct lido_event event = { .type = LIDO_EVENT_NESTED, .slot = LIDO_UNLIMITED, .site = w->site,
                                    .thread = w->thread };

        w->is_nested = false;
        slots_for_each (slot, &pool->slots) {
                uint64_t word = load_acquire(&slot->word);

                if (word_state(word) == SLOT_LEASED && slot_holder(slot, word) == w->thread) {
                        w->is_nested = true;
                        event.other_site = load_relaxed(&slot->site);
                }
        }
        if (!w->is_nested || w->is_many)
                return LIDO_OK;
        if (pool_options(pool)->nested == LIDO_NESTED_STRICT)
                return LIDO_EDEADLK;
        if (pool_options(pool)->nested == LIDO_NESTED_WARN && !w->is_front)
                pool_emit(pool, &event);
        return LIDO_OK;
}

static void tell_deadlock(struct lido_pool *pool, const struct pool_waiter *w)
{
        struct lido_event event = { .type = LIDO_EVENT_DEADLOCK, .code = LIDO_EDEADLK, .slot = LIDO_UNLIMITED,
                                    .site = w->site, .thread = w->thread };

        pool_emit(pool, &event);
}

/* Stand in line until an outcome. Returns: LIDO_OK and the gift in `w`; or why not. */
static int wait_in_line(struct lido_pool *pool, struct pool_waiter *w, uint64_t deadline_ns)
{
        int rc;

        waiter_init(&w->waiter, NULL);
        rc = look_for_nesting(pool, w);
        if (rc != LIDO_OK)
                return rc;
        rc = waitq_join(pool, w);
        if (rc == LIDO_EDEADLK)
                tell_deadlock(pool, w);
        if (rc != LIDO_OK)
                return rc;
        pool_ask_for_more(pool);
        waitq_serve(pool);
        for (;;) {
                switch (waiter_sleep(&w->waiter, deadline_ns)) {
                case WAITER_GIVEN:
                        return LIDO_OK;
                case WAITER_POKED:
                        waitq_look(pool, w);
                        break;
                case WAITER_WAITING: /* the deadline */
                        if (waiter_settle(&w->waiter, WAITER_TIMED_OUT)) {
                                waitq_leave(pool, w);
                                return LIDO_ETIMEDOUT;
                        }
                        break;
                default:
                        return w->waiter.code;
                }
        }
}

static int wait_as_guest(struct lido_pool *pool, const struct want *want, lido_lease *ret_lease)
{
        struct pool_waiter w = { .pool = pool, .site = want->site, .tag = want->tag, .thread = thread_id(),
                                 .began_ns = clock_now_ns(), .keeper_due_ns = CLOCK_NEVER,
                                 .priority = want->priority, .quota = want->quota,
                                 .is_many = want->is_many };

        for (;;) {
                int rc = wait_in_line(pool, &w, want->deadline_ns);

                if (rc != LIDO_OK) {
                        lease_count_failure(pool, rc, clock_now_ns() - w.began_ns);
                        return rc;
                }
                if (lease_begin(pool, w.slot, w.generation, w.origin, want, ret_lease))
                        break;
                w.is_front = true;
        }
        lease_count_wait(pool, clock_now_ns() - w.began_ns);
        return LIDO_OK;
}

static int acquire_waiting(struct lido_pool *pool, const struct want *want, lido_lease *ret_lease,
                           struct lido_blame *blame)
{
        int rc;

        pool_enter(pool);
        rc = wait_as_guest(pool, want, ret_lease);
        if (rc != LIDO_OK && blame)
                blame_fill(pool, rc, blame);
        pool_leave(pool);
        return rc;
}

static int acquire_slow(struct lido_pool *pool, struct want *want, lido_lease *ret_lease, struct lido_blame *blame)
{
        int rc;

        if (want->timeout_ms == LIDO_TIMEOUT_DEFAULT)
                want->timeout_ms = pool_options(pool)->acquire_timeout_ms;
        if (want->timeout_ms < LIDO_NEVER)
                return LIDO_EINVAL;
        rc = lease_claim(pool, want, ret_lease);
        if (rc == LIDO_EEXHAUSTED && want->timeout_ms == 0 && !pool_options(pool)->open_inline)
                mark_exhausted(pool);
        if ((rc == LIDO_EEXHAUSTED || rc == LIDO_EPAUSED || rc == LIDO_EQUOTA) && want->timeout_ms != 0) {
                if (!pool_must_not_wait(pool)) {
                        if (!want->is_many)
                                want->deadline_ns = clock_after_ms(clock_now_ns(), want->timeout_ms);
                        if (rc == LIDO_EEXHAUSTED && claim_by_spinning(pool, want, ret_lease))
                                return LIDO_OK;
                        return acquire_waiting(pool, want, ret_lease, blame);
                }
                rc = LIDO_EDEADLK;
        }
        if (rc == LIDO_EEXHAUSTED)
                pool_tried_in_vain(pool);
        if (rc != LIDO_OK && blame)
                blame_fill(pool, rc, blame);
        return rc;
}

int lease_acquire(struct lido_pool *pool, struct want *want, lido_lease *ret_lease)
{
        return acquire_slow(pool, want, ret_lease, NULL);
}

static __attribute__((noinline)) int acquire_plainly(struct lido_pool *pool, int64_t timeout_ms, lido_lease *ret_lease,
                                                     const char *site)
{
        struct want want = { .timeout_ms = timeout_ms, .site = site };
        struct thread_self *self = thread_self();

        if (self->latest.owner != pool && !(load_relaxed(&pool->gate) & GATE_ACQUIRE)) {
                turn_to(pool, self);
                if (claim_hinted(pool, self, site, ret_lease))
                        return LIDO_OK;
        }
        return acquire_slow(pool, &want, ret_lease, NULL);
}

/* hot: measured by tests/bench */
HOT int lido_acquire_at(struct lido_pool *pool, int64_t timeout_ms, lido_lease *ret_lease, const char *site)
{
        if (!pool || !ret_lease)
                return LIDO_EINVAL;
        if (!(load_relaxed(&pool->gate) & GATE_ACQUIRE) && claim_hinted(pool, thread_self(), site, ret_lease))
                return LIDO_OK;
        return acquire_plainly(pool, timeout_ms, ret_lease, site);
}

_Static_assert(offsetof(struct lido_pool, gate) == offsetof(struct lido_pool_face, gate), "lido_try_acquire_here");
_Static_assert(LIDO_GATE_EXHAUSTED == GATE_EXHAUSTED && LIDO_GATE_SAYS == (GATE_EXHAUSTED | GATE_ACQUIRE), "lido_try_acquire_here");

/* hot: measured by tests/bench */
HOT int lido_try_acquire_at(struct lido_pool *pool, lido_lease *ret_lease, const char *site)
{
        uint64_t gate;

        if (!pool || !ret_lease)
                return LIDO_EINVAL;
        gate = load_relaxed(&pool->gate);
        if ((gate & (GATE_EXHAUSTED | GATE_ACQUIRE)) == GATE_EXHAUSTED)
                return LIDO_EEXHAUSTED;
        if (!(gate & GATE_ACQUIRE) && claim_hinted(pool, thread_self(), site, ret_lease))
                return LIDO_OK;
        return acquire_plainly(pool, 0, ret_lease, site);
}

int lido_acquire_with(struct lido_pool *pool, const struct lido_acquire_options *options, lido_lease *ret_lease)
{
        struct lido_acquire_options ours;
        struct want want = { 0 };
        int rc;

        if (!pool || !ret_lease)
                return LIDO_EINVAL;
        rc = sized_take(&ours, sizeof ours, options);
        if (rc != LIDO_OK)
                return rc;
        want.timeout_ms = ours.timeout_ms == 0 ? LIDO_TIMEOUT_DEFAULT : ours.timeout_ms;
        want.site = ours.site ? ours.site : "?";
        want.tag = ours.tag;
        want.label = ours.want_label;
        if (ours.priority < 0 || ours.priority >= PRIORITIES || ours.reserved != 0)
                return LIDO_EINVAL;
        want.priority = (uint8_t)ours.priority;
        want.quota = quota_find(pool, ours.tag);
        return acquire_slow(pool, &want, ret_lease, ours.blame);
}
