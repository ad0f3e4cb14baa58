#include "pool/waitq.h"

#include "pool/doubt.h"

/* Those to be woken once the lock is given up. A thread's waiter may be gone by then: only the address of its word is
 * kept. A request's is not: notify has not been called. */
#define WAKES 16
struct wakes {
        unsigned count;
        uint64_t shed; /* how many of them were */
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

/* ---- the line --------------------------------------------------------------------------------------------- */

static struct pool_waiter *waiter_at(struct list *link)
{
        return list_entry(link, struct pool_waiter, waiter.link);
}

static uint64_t plus(uint64_t time, uint64_t ns)
{
        return ns > CLOCK_NEVER - time ? CLOCK_NEVER : time + ns;
}

/* Whose turn it is by class: a class is as good as having come `ageing` earlier than the next lower one. */
static uint64_t turn_of(const struct pool_waiter *w, uint64_t ageing_ns)
{
        switch (w->priority) {
        case LIDO_PRIORITY_CRITICAL:
                return 0;
        case LIDO_PRIORITY_HIGH:
                return w->began_ns;
        case LIDO_PRIORITY_NORMAL:
                return plus(w->began_ns, ageing_ns);
        default:
                return plus(plus(w->began_ns, ageing_ns), ageing_ns);
        }
}

/* The first of a class whose quota is not used up. */
static struct pool_waiter *first_of(struct lido_pool *pool, int priority) REQUIRES(pool->waitq.lock)
{
        list_for_each (link, &pool->waitq.line[priority]) {
                struct pool_waiter *w = waiter_at(link);
                struct quota *quota = &pool->quota[w->quota];

                if (w->quota == 0 || load_seq_cst(&quota->used) < load_relaxed(&quota->limit))
                        return w;
        }
        return NULL;
}

/* Whose turn it is; NULL: nobody's. */
static struct pool_waiter *oldest(struct lido_pool *pool) REQUIRES(pool->waitq.lock)
{
        static const int order[PRIORITIES] = { LIDO_PRIORITY_CRITICAL, LIDO_PRIORITY_HIGH, LIDO_PRIORITY_NORMAL,
                                               LIDO_PRIORITY_LOW };
        uint64_t ageing_ns = clock_after_ms(0, pool_options(pool)->ageing_ms);
        struct pool_waiter *best = NULL;

        for (int i = 0; i < PRIORITIES; i++) {
                struct pool_waiter *w = first_of(pool, order[i]);

                if (w && (!best || turn_of(w, ageing_ns) < turn_of(best, ageing_ns)))
                        best = w;
        }
        return best;
}

static bool line_is_empty(struct lido_pool *pool) REQUIRES(pool->waitq.lock)
{
        for (int i = 0; i < PRIORITIES; i++)
                if (!list_is_empty(&pool->waitq.line[i]))
                        return false;
        return true;
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
        if ((sub_seq_cst(&pool->gate, 1) & GATE_COUNT) == 1)
                codel_note_empty(&pool->waitq.codel);
        if (was_poked)
                take_poke_back(pool, w);
        return was_poked;
}

/* ---- shedding --------------------------------------------------------------------------------------------- */

static bool sheds(struct lido_pool *pool)
{
        return pool_options(pool)->codel_target_ms >= 0;
}

/* In a standing queue, whoever has waited for more than twice the target goes: its answer would be useless by now. Only a
 * waiter whose class and quota are not the reason is shed. */
static void shed(struct lido_pool *pool, uint64_t now, struct wakes *wakes) REQUIRES(pool->waitq.lock)
{
        uint64_t limit_ns = clock_after_ms(0, pool_options(pool)->codel_target_ms) * 2;

        if (!pool->waitq.codel.is_slow)
                return;
        for (int priority = 0; priority < LIDO_PRIORITY_CRITICAL; priority++) {
                struct list *front;

                while (!is_full(wakes) && (front = list_front(&pool->waitq.line[priority])) != NULL) {
                        struct pool_waiter *w = waiter_at(front);

                        if (now < plus(w->began_ns, limit_ns))
                                break;
                        unlink_waiter(pool, w);
                        w->waiter.code = LIDO_ESHED;
                        wakes->shed += settle(w, WAITER_FAILED, wakes);
                }
        }
}

static void note_served(struct lido_pool *pool, uint64_t began_ns, uint64_t now) REQUIRES(pool->waitq.lock)
{
        const struct lido_pool_options *options = pool_options(pool);
        uint64_t gap = now - (began_ns > pool->waitq.served_ns ? began_ns : pool->waitq.served_ns);
        uint64_t average = load_relaxed(&pool->waitq.gap_ns);

        store_relaxed(&pool->waitq.gap_ns, average == 0 ? gap : average - average / 8 + gap / 8);
        pool->waitq.served_ns = now;
        if (sheds(pool))
                codel_note(&pool->waitq.codel, now - began_ns, now, clock_after_ms(0, options->codel_target_ms),
                           clock_after_ms(0, options->codel_interval_ms));
}

static void tell_shed(struct lido_pool *pool, struct wakes *wakes)
{
        struct lido_event event = { .type = LIDO_EVENT_SHED, .code = LIDO_ESHED, .slot = LIDO_UNLIMITED };

        if (wakes->shed == 0)
                return;
        add_relaxed(&pool->shed, wakes->shed);
        wakes->shed = 0;
        pool_emit(pool, &event);
}

/* ---- serving ---------------------------------------------------------------------------------------------- */

/* Give a slot that the caller owns to the one whose turn it is. Returns: false when nobody wants it. */
static bool waitq_give(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation, enum origin origin,
                       struct wakes *wakes, bool *ret_serve) REQUIRES(pool->waitq.lock)
{
        struct pool_waiter *w;

        while ((w = oldest(pool)) != NULL) {
                uint64_t began_ns = w->began_ns;
                uint8_t quota = w->quota;

                if (!quota_take(pool, quota))
                        continue; /* used up a moment ago: look for another */
                if (unlink_waiter(pool, w))
                        *ret_serve = true;
                w->slot = slot;
                w->generation = generation;
                w->origin = origin;
                if (settle(w, WAITER_GIVEN, wakes)) {
                        note_served(pool, began_ns, clock_now_ns());
                        return true;
                }
                quota_put(pool, quota);
        }
        return false;
}

/* Let a slot that the caller owns fall idle. Returns: false when it has been marked and is still the caller's. */
static bool fall_idle(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation)
{
        uint64_t seen = word_make(generation, SLOT_LEASED);

        pool_note_order(pool, slot);
        return slot_move(slot, &seen, word_next(seen, SLOT_IDLE));
}

static bool may_serve(struct lido_pool *pool) REQUIRES(pool->waitq.lock)
{
        return oldest(pool) && !(load_seq_cst(&pool->gate) & GATE_PAUSED);
}

/* A slot fell idle under the lock, with nobody in line. */
static void notice_idle(struct lido_pool *pool)
{
        uint64_t gate = load_seq_cst(&pool->gate);

        if (gate & (GATE_EXHAUSTED | GATE_SCANNING | GATE_NAPPING | GATE_CLOSED | GATE_COVETED))
                pool_notice_idle(pool, gate & ~GATE_COUNT);
}

void waitq_serve(struct lido_pool *pool)
{
        struct wakes wakes = { .count = 0 };
        struct lido_slot *marked = NULL;
        uint64_t generation;
        bool is_more, had_rested, fell_idle = false, again = false, is_short = false;

        do {
                is_more = false;
                mutex_lock(&pool->waitq.lock);
                while (!is_more && may_serve(pool)) {
                        struct lido_slot *slot = pool_claim(pool, &generation, &had_rested);

                        if (!slot) {
                                is_short = had_rested;
                                break;
                        }
                        if (!waitq_give(pool, slot, generation, had_rested ? FROM_REST : FROM_IDLE, &wakes, &again)) {
                                if (!fall_idle(pool, slot, generation))
                                        marked = slot;
                                fell_idle = true;
                                break;
                        }
                        is_more = is_full(&wakes);
                }
                mutex_unlock(&pool->waitq.lock);
                wake_all(&wakes);
        } while (is_more);
        if (marked)
                pool_decide_marked(pool, marked, generation);
        else if (fell_idle)
                notice_idle(pool);
        if (is_short)
                doubt_check(pool, 0);
}

void pool_offer(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation)
{
        struct wakes wakes = { .count = 0 };
        bool must_serve = false, is_mine = false;
        uint64_t gate;

        mutex_lock(&pool->waitq.lock);
        gate = load_seq_cst(&pool->gate);
        if (sheds(pool) && (gate & GATE_COUNT))
                shed(pool, clock_now_ns(), &wakes);
        if (is_full(&wakes))
                must_serve = true; /* no room to note one more: serve after these are woken */
        if (gate & (GATE_CLOSED | GATE_ORPHANED))
                is_mine = true;
        else if (((gate & GATE_PAUSED) || is_full(&wakes) ||
                  !waitq_give(pool, slot, generation, FROM_HAND, &wakes, &must_serve)) &&
                 !fall_idle(pool, slot, generation))
                is_mine = true;
        mutex_unlock(&pool->waitq.lock);
        tell_shed(pool, &wakes);
        wake_all(&wakes);
        if (is_mine)
                pool_decide_marked(pool, slot, generation);
        if (must_serve)
                waitq_serve(pool);
        notice_idle(pool);
}

void waitq_poke(struct lido_pool *pool)
{
        _Atomic uint32_t *word = NULL;
        bool must_serve = false;
        struct pool_waiter *w;

        if (load_seq_cst(&pool->waitq.poke_sent)) /* law 2 once more: pairs with take_poke_back */
                return;
        mutex_lock(&pool->waitq.lock);
        w = line_is_empty(pool) ? NULL : oldest(pool);
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

/* ---- joining and leaving ---------------------------------------------------------------------------------- */

static bool holder_waits(struct lido_pool *pool, uint32_t thread) REQUIRES(pool->waitq.lock)
{
        for (int i = 0; i < PRIORITIES; i++)
                list_for_each (link, &pool->waitq.line[i])
                        if (!waiter_at(link)->waiter.notify && waiter_at(link)->thread == thread)
                                return true;
        return false;
}

/* Does every object's holder stand in this very line, with no object on its way from anywhere? Then nobody is ever served: a
 * proof, as long as leases are released by the threads that hold them (lido_transfer says who does). A request on a loop is
 * no proof of a blocked thread. */
static bool is_deadlocked(struct lido_pool *pool) REQUIRES(pool->waitq.lock)
{
        if (load_seq_cst(&pool->live) < load_seq_cst(&pool->limit))
                return false;
        slots_for_each (slot, &pool->slots) {
                uint64_t word = load_seq_cst(&slot->word);
                uint32_t holder = slot_holder(slot, word);

                if (word_state(word) == SLOT_VACANT)
                        continue;
                if (word_state(word) != SLOT_LEASED || holder == 0 || !holder_waits(pool, holder) ||
                    load_seq_cst(&slot->word) != word)
                        return false;
        }
        return true;
}

static int refusal(struct lido_pool *pool, uint64_t gate)
{
        if (gate & (GATE_CLOSED | GATE_ORPHANED))
                return LIDO_ECLOSED;
        if (gate & GATE_REJECTING)
                return LIDO_EPAUSED;
        if (pool_options(pool)->fail_fast && load_relaxed(&pool->is_failing) &&
            load_seq_cst(&pool->live) <= load_seq_cst(&pool->opening))
                return LIDO_EUNAVAIL;
        return LIDO_OK;
}

static const int lowest_first[PRIORITIES] = { LIDO_PRIORITY_LOW, LIDO_PRIORITY_NORMAL, LIDO_PRIORITY_HIGH, LIDO_PRIORITY_CRITICAL };

/* Who goes for a newcomer of this class; NULL: nobody. */
static struct pool_waiter *victim_for(struct lido_pool *pool, int priority) REQUIRES(pool->waitq.lock)
{
        int policy = pool_options(pool)->queue_policy;

        for (int i = 0; policy != LIDO_LINE_REJECT && lowest_first[i] != LIDO_PRIORITY_CRITICAL; i++) {
                struct list *line = &pool->waitq.line[lowest_first[i]];

                if (policy == LIDO_LINE_DROP_LOWEST && lowest_first[i] == priority)
                        return NULL;
                if (!list_is_empty(line))
                        return waiter_at(policy == LIDO_LINE_DROP_OLDEST ? line->next : line->prev);
                if (lowest_first[i] == priority)
                        return NULL;
        }
        return NULL;
}

/* Is there a place in line for the newcomer, or is one made? He serves the line next, so a poke that dies here is made good. */
static bool has_place(struct lido_pool *pool, const struct pool_waiter *w, struct wakes *wakes) REQUIRES(pool->waitq.lock)
{
        struct pool_waiter *victim;

        if (w->is_front || waitq_length(pool) < pool_options(pool)->queue_limit)
                return true;
        victim = victim_for(pool, w->priority);
        if (!victim)
                return false;
        unlink_waiter(pool, victim);
        victim->waiter.code = LIDO_ESHED;
        wakes->shed += settle(victim, WAITER_FAILED, wakes);
        return true;
}

static void link_waiter(struct lido_pool *pool, struct pool_waiter *w) REQUIRES(pool->waitq.lock)
{
        uint32_t length;

        if (w->is_front)
                list_push_front(&pool->waitq.line[w->priority], &w->waiter.link);
        else
                list_push_back(&pool->waitq.line[w->priority], &w->waiter.link);
        if (w->keeper_due_ns != CLOCK_NEVER)
                heap_set(&pool->waitq.timed, &w->timed, w->keeper_due_ns);
        length = (uint32_t)(add_seq_cst(&pool->gate, 1) & GATE_COUNT) + 1; /* law 2: then the caller scans */
        if (length > load_relaxed(&pool->waiting_peak))
                store_relaxed(&pool->waiting_peak, length);
}

int waitq_join(struct lido_pool *pool, struct pool_waiter *w)
{
        struct wakes wakes = { .count = 0 };
        int rc;

        mutex_lock(&pool->waitq.lock);
        rc = w->is_canceled ? LIDO_ECANCELED : refusal(pool, load_seq_cst(&pool->gate));
        if (rc == LIDO_OK && !has_place(pool, w, &wakes))
                rc = LIDO_EQUEUEFULL;
        if (rc == LIDO_OK) {
                link_waiter(pool, w);
                if (w->is_nested && is_deadlocked(pool)) {
                        uint32_t most = load_relaxed(&pool->max) + pool_options(pool)->reserve;

                        if (load_relaxed(&pool->limit) < most) {
                                store_seq_cst(&pool->limit, most); /* the reserve is for this */
                        } else {
                                unlink_waiter(pool, w);
                                rc = LIDO_EDEADLK;
                        }
                }
        }
        mutex_unlock(&pool->waitq.lock);
        tell_shed(pool, &wakes);
        wake_all(&wakes);
        return rc;
}

int waitq_cancel(struct lido_pool *pool, struct pool_waiter *w)
{
        bool must_serve = false, is_settled = false;
        int rc = LIDO_OK;

        mutex_lock(&pool->waitq.lock);
        if (list_is_linked(&w->waiter.link)) {
                is_settled = waiter_settle(&w->waiter, WAITER_CANCELED);
                must_serve = is_settled && unlink_waiter(pool, w);
        }
        if (!is_settled && waiter_is_settled(&w->waiter))
                rc = LIDO_EBUSY;
        else if (!is_settled)
                w->is_canceled = true; /* it is on its way into the line, and will be refused there */
        mutex_unlock(&pool->waitq.lock);
        if (is_settled)
                w->waiter.notify(&w->waiter);
        if (must_serve)
                waitq_serve(pool);
        if (is_settled && load_relaxed(&pool->budget))
                pool_call_keeper(pool); /* as in waitq_leave */
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
        if (load_relaxed(&pool->budget))
                pool_call_keeper(pool); /* it may stand in line for a permit that nobody wants any more */
}

uint64_t waitq_oldest_ns(struct lido_pool *pool)
{
        uint64_t oldest_ns = CLOCK_NEVER;

        mutex_lock(&pool->waitq.lock);
        for (int i = 0; i < PRIORITIES; i++) {
                struct list *front = list_front(&pool->waitq.line[i]);

                if (front)
                        oldest_ns = clock_min(oldest_ns, waiter_at(front)->began_ns);
        }
        mutex_unlock(&pool->waitq.lock);
        return oldest_ns;
}

/* ---- by the clock ----------------------------------------------------------------------------------------- */

/* When the next waiter is to be timed out, or shed although nothing comes back. */
static uint64_t next_due(struct lido_pool *pool, uint64_t now) REQUIRES(pool->waitq.lock)
{
        struct heap_node *first = heap_first(&pool->waitq.timed);
        uint64_t due = first ? first->due_ns : CLOCK_NEVER;

        if (sheds(pool) && !line_is_empty(pool))
                due = clock_min(due, plus(now, clock_after_ms(0, pool_options(pool)->codel_target_ms)));
        return due;
}

static void expire(struct lido_pool *pool, uint64_t now, struct wakes *wakes, bool *ret_serve)
        REQUIRES(pool->waitq.lock)
{
        struct heap_node *first;

        while ((first = heap_first(&pool->waitq.timed)) != NULL && first->due_ns <= now && !is_full(wakes)) {
                struct pool_waiter *w = list_entry(first, struct pool_waiter, timed);

                if (unlink_waiter(pool, w))
                        *ret_serve = true;
                settle(w, WAITER_TIMED_OUT, wakes);
        }
}

/* Nothing comes back: the oldest wait counts as if it ended now, so that a stuck server is a standing queue, too. */
static void note_standing(struct lido_pool *pool, uint64_t now) REQUIRES(pool->waitq.lock)
{
        struct pool_waiter *w = oldest(pool);
        const struct lido_pool_options *options = pool_options(pool);

        if (sheds(pool) && w && now >= pool->waitq.codel.ends_ns)
                codel_note(&pool->waitq.codel, now - clock_min(w->began_ns, now), now,
                           clock_after_ms(0, options->codel_target_ms), clock_after_ms(0, options->codel_interval_ms));
}

uint64_t waitq_expire(struct lido_pool *pool, uint64_t now)
{
        struct wakes wakes = { .count = 0 };
        bool is_more, must_serve = false;
        uint64_t due_ns;

        do {
                mutex_lock(&pool->waitq.lock);
                note_standing(pool, now);
                expire(pool, now, &wakes, &must_serve);
                if (sheds(pool))
                        shed(pool, now, &wakes);
                is_more = is_full(&wakes);
                due_ns = next_due(pool, now);
                mutex_unlock(&pool->waitq.lock);
                tell_shed(pool, &wakes);
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
                mutex_lock(&pool->waitq.lock);
                for (int i = 0; i < PRIORITIES; i++) {
                        struct list *front;

                        while (!is_full(&wakes) && (front = list_front(&pool->waitq.line[i])) != NULL) {
                                struct pool_waiter *w = waiter_at(front);

                                unlink_waiter(pool, w);
                                w->waiter.code = code;
                                settle(w, WAITER_FAILED, &wakes);
                        }
                }
                is_more = is_full(&wakes);
                mutex_unlock(&pool->waitq.lock);
                wake_all(&wakes);
        } while (is_more);
}
