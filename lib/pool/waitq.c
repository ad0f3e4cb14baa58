#include "pool/waitq.h"

/* Those to be woken once the lock is given up. A thread's waiter may be gone by then: only the address of its word is
 * kept. A request's is not: notify has not been called. */
#define WAKES 16
struct wakes {
        unsigned count;
        struct {
                _Atomic uint32_t *word;
                struct waiter *request;
        } of[WAKES];
};

static void wake_all(struct wakes *wakes)
{
        for (unsigned i = 0; i < wakes->count; i++) {
                if (wakes->of[i].request)
                        wakes->of[i].request->notify(wakes->of[i].request);
                else
                        park_wake(wakes->of[i].word, 1);
        }
        wakes->count = 0;
}

static bool is_full(const struct wakes *wakes)
{
        return wakes->count == WAKES;
}

/* Settle, and note whom to wake. The waiter must not be touched once this has returned true. */
static bool settle(struct pool_waiter *w, enum waiter_state outcome, struct wakes *wakes)
{
        _Atomic uint32_t *word = &w->waiter.state;
        struct waiter *request = w->waiter.notify ? &w->waiter : NULL;

        if (!waiter_settle(&w->waiter, outcome))
                return false;
        wakes->of[wakes->count].word = word;
        wakes->of[wakes->count].request = request;
        wakes->count++;
        return true;
}

static struct pool_waiter *oldest(struct lido_pool *pool) REQUIRES(pool->waitq.lock)
{
        struct list *front = list_front(&pool->waitq.line);

        return front ? list_entry(front, struct pool_waiter, waiter.link) : NULL;
}

static void take_poke_back(struct lido_pool *pool, struct pool_waiter *w) REQUIRES(pool->waitq.lock)
{
        w->is_poked = false;
        store_seq_cst(&pool->waitq.poke_sent, 0); /* before the scan that follows: pairs with waitq_poke */
}

/* Returns: true when a poke was taken back, so that the line must be served. */
static bool unlink_waiter(struct lido_pool *pool, struct pool_waiter *w) REQUIRES(pool->waitq.lock)
{
        bool was_poked = w->is_poked;

        list_unlink(&w->waiter.link);
        heap_remove(&pool->waitq.timed, &w->timed);
        sub_seq_cst(&pool->gate, 1);
        if (was_poked)
                take_poke_back(pool, w);
        return was_poked;
}

/* Give a slot that the caller owns to the oldest who still wants one. Returns: false when nobody does. */
static bool waitq_give(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation, bool had_rested,
                       struct wakes *wakes, bool *ret_serve) REQUIRES(pool->waitq.lock)
{
        struct pool_waiter *w;

        while ((w = oldest(pool)) != NULL) {
                if (unlink_waiter(pool, w))
                        *ret_serve = true;
                w->slot = slot;
                w->generation = generation;
                w->had_rested = had_rested;
                if (settle(w, WAITER_GIVEN, wakes))
                        return true;
        }
        return false;
}

/* Let a slot that the caller owns fall idle. Returns: false when it has been marked and is still the caller's. */
static bool fall_idle(struct lido_slot *slot, uint64_t generation)
{
        uint64_t seen = word_make(generation, SLOT_LEASED);

        return slot_move(slot, &seen, word_next(seen, SLOT_IDLE));
}

static bool may_serve(struct lido_pool *pool) REQUIRES(pool->waitq.lock)
{
        return !list_is_empty(&pool->waitq.line) && !(load_seq_cst(&pool->gate) & GATE_PAUSED);
}

void waitq_serve(struct lido_pool *pool)
{
        struct wakes wakes = { .count = 0 };
        struct lido_slot *marked = NULL;
        uint64_t generation;
        bool is_more, had_rested, again = false;

        do {
                is_more = false;
                mutex_lock(&pool->waitq.lock);
                while (!is_more && may_serve(pool)) {
                        struct lido_slot *slot = pool_claim(pool, &generation, &had_rested);

                        if (!slot)
                                break;
                        if (!waitq_give(pool, slot, generation, had_rested, &wakes, &again) &&
                            !fall_idle(slot, generation)) {
                                marked = slot;
                                break;
                        }
                        is_more = is_full(&wakes);
                }
                mutex_unlock(&pool->waitq.lock);
                wake_all(&wakes);
        } while (is_more);
        if (marked)
                pool_decide_marked(pool, marked, generation);
}

void pool_offer(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation)
{
        struct wakes wakes = { .count = 0 };
        bool must_serve = false, is_mine = false;
        uint64_t gate;

        mutex_lock(&pool->waitq.lock);
        gate = load_seq_cst(&pool->gate);
        if (gate & (GATE_CLOSED | GATE_ORPHANED))
                is_mine = true;
        else if (((gate & GATE_PAUSED) || !waitq_give(pool, slot, generation, false, &wakes, &must_serve)) &&
                 !fall_idle(slot, generation))
                is_mine = true;
        mutex_unlock(&pool->waitq.lock);
        wake_all(&wakes);
        if (is_mine)
                pool_decide_marked(pool, slot, generation);
        if (must_serve)
                waitq_serve(pool);
        gate = load_seq_cst(&pool->gate);
        if (gate & (GATE_EXHAUSTED | GATE_SCANNING | GATE_NAPPING))
                pool_notice_idle(pool, gate & ~GATE_COUNT);
}

void waitq_poke(struct lido_pool *pool)
{
        _Atomic uint32_t *word = NULL;
        bool must_serve = false;
        struct pool_waiter *w;

        if (load_seq_cst(&pool->waitq.poke_sent)) /* law 2 once more: pairs with take_poke_back */
                return;
        mutex_lock(&pool->waitq.lock);
        w = oldest(pool);
        if (w && w->waiter.notify) {
                must_serve = true;
        } else if (w && !load_relaxed(&pool->waitq.poke_sent)) {
                word = &w->waiter.state;
                if (waiter_poke(&w->waiter)) {
                        w->is_poked = true;
                        store_seq_cst(&pool->waitq.poke_sent, 1);
                } else {
                        word = NULL;
                        must_serve = true; /* it has just timed out; somebody behind it may not know */
                }
        }
        mutex_unlock(&pool->waitq.lock);
        if (word)
                park_wake(word, 1);
        if (must_serve)
                waitq_serve(pool);
}

static int refusal(struct lido_pool *pool, uint64_t gate)
{
        if (gate & (GATE_CLOSED | GATE_ORPHANED))
                return LIDO_ECLOSED;
        if ((gate & GATE_COUNT) >= pool->options.queue_limit)
                return LIDO_EQUEUEFULL;
        return LIDO_OK;
}

int waitq_join(struct lido_pool *pool, struct pool_waiter *w)
{
        uint32_t length;
        int rc;

        mutex_lock(&pool->waitq.lock);
        rc = refusal(pool, load_seq_cst(&pool->gate));
        if (rc == LIDO_OK) {
                if (w->keeper_due_ns != CLOCK_NEVER)
                        heap_set(&pool->waitq.timed, &w->timed, w->keeper_due_ns);
                if (w->is_front)
                        list_push_front(&pool->waitq.line, &w->waiter.link);
                else
                        list_push_back(&pool->waitq.line, &w->waiter.link);
                length = (uint32_t)(add_seq_cst(&pool->gate, 1) & GATE_COUNT) + 1; /* law 2: then the caller scans */
                if (length > load_relaxed(&pool->waiting_peak))
                        store_relaxed(&pool->waiting_peak, length);
        }
        mutex_unlock(&pool->waitq.lock);
        return rc;
}

void waitq_look(struct lido_pool *pool, struct pool_waiter *w)
{
        mutex_lock(&pool->waitq.lock);
        if (w->is_poked)
                take_poke_back(pool, w);
        mutex_unlock(&pool->waitq.lock);
        waitq_serve(pool);
}

void waitq_leave(struct lido_pool *pool, struct pool_waiter *w)
{
        bool must_serve = false;

        mutex_lock(&pool->waitq.lock);
        if (list_is_linked(&w->waiter.link))
                must_serve = unlink_waiter(pool, w);
        mutex_unlock(&pool->waitq.lock);
        if (must_serve)
                waitq_serve(pool);
}

uint64_t waitq_expire(struct lido_pool *pool, uint64_t now)
{
        struct wakes wakes = { .count = 0 };
        struct heap_node *first;
        bool is_more, must_serve = false;
        uint64_t due_ns;

        do {
                mutex_lock(&pool->waitq.lock);
                while ((first = heap_first(&pool->waitq.timed)) != NULL && first->due_ns <= now && !is_full(&wakes)) {
                        struct pool_waiter *w = list_entry(first, struct pool_waiter, timed);

                        if (unlink_waiter(pool, w))
                                must_serve = true;
                        settle(w, WAITER_TIMED_OUT, &wakes);
                }
                is_more = is_full(&wakes);
                due_ns = first ? first->due_ns : CLOCK_NEVER;
                mutex_unlock(&pool->waitq.lock);
                wake_all(&wakes);
        } while (is_more);
        if (must_serve)
                waitq_serve(pool);
        return due_ns;
}

void waitq_fail_all(struct lido_pool *pool, int code)
{
        struct wakes wakes = { .count = 0 };
        bool is_more;

        do {
                struct pool_waiter *w;

                mutex_lock(&pool->waitq.lock);
                while (!is_full(&wakes) && (w = oldest(pool)) != NULL) {
                        unlink_waiter(pool, w);
                        w->waiter.code = code;
                        settle(w, WAITER_FAILED, &wakes);
                }
                is_more = is_full(&wakes);
                mutex_unlock(&pool->waitq.lock);
                wake_all(&wakes);
        } while (is_more);
}
