#include "pool/slots.h"

#include "base/clock.h"
#include "base/random.h"
#include "base/thread.h"

#define TO(state) (1u << SLOT_##state)

static const unsigned arrows[SLOT_STATES] = {
        [SLOT_VACANT] = TO(OPENING),
        [SLOT_OPENING] = TO(LEASED) | TO(VACANT) | TO(OPENING),
        [SLOT_IDLE] = TO(LEASED) | TO(RESTED) | TO(IDLE),
        [SLOT_RESTED] = TO(LEASED) | TO(RESTED),
        [SLOT_LEASED] = TO(IDLE) | TO(RESTED) | TO(LEASED) | TO(CHECKING) | TO(RESETTING) | TO(CLOSING),
        [SLOT_CHECKING] = TO(LEASED) | TO(CLOSING) | TO(CHECKING),
        [SLOT_RESETTING] = TO(LEASED) | TO(CLOSING) | TO(RESETTING),
        [SLOT_CLOSING] = TO(VACANT) | TO(CLOSING),
};

bool slot_may_move(enum slot_state from, enum slot_state to)
{
        return from < SLOT_STATES && to < SLOT_STATES && (arrows[from] & (1u << to));
}

uint64_t slot_pass_on(struct lido_slot *slot, uint64_t generation, enum slot_state to)
{
        uint64_t seen = load_relaxed(&slot->word);

        do {
                while (seen & MARK_INTERRUPTING) { /* the hook is at work on the object, and does not block */
                        thread_yield();
                        seen = load_acquire(&slot->word);
                }
                debug_assert(word_generation(seen) == generation);
        } while (!slot_move(slot, &seen, word_make(generation + GENERATION_ONE, to)));
        return seen & MARKS;
}

bool slot_mark(struct lido_slot *slot, uint64_t generation, enum slot_state state, uint64_t marks)
{
        uint64_t seen = load_acquire(&slot->word);

        while (word_generation(seen) == generation && word_state(seen) == state) {
                if ((seen & marks) == marks)
                        return true;
                if (slot_move(slot, &seen, seen | marks))
                        return true;
        }
        return false;
}

bool slot_hold(struct lido_slot *slot, uint64_t generation, enum slot_state state)
{
        uint64_t seen = load_acquire(&slot->word);

        while (word_generation(seen) == generation && word_state(seen) == state) {
                if (seen & MARK_INTERRUPTING) {
                        thread_yield();
                        seen = load_acquire(&slot->word);
                } else if (slot_move(slot, &seen, seen | MARK_INTERRUPTING)) {
                        return true;
                }
        }
        return false;
}

void slot_let_go(struct lido_slot *slot)
{
        uint64_t seen = load_acquire(&slot->word);

        while (!slot_move(slot, &seen, seen & ~MARK_INTERRUPTING))
                ;
}

/* The first index of chunk k. */
static uint32_t chunk_start(unsigned k)
{
        return CHUNK_SLOTS * ((1u << k) - 1);
}

/* A slot joins a pool: its word comes last, so that whoever sees it sees the pool too. The generation begins at random,
 * so that a lease made up of two is never valid by chance. */
static void slot_join(struct lido_slot *slot, struct lido_pool *pool, uint32_t index, uint64_t random)
{
        uint64_t word = load_relaxed(&slot->word);
        uint64_t next = word == 0 ? word_make((random >> 24) << GENERATION_SHIFT, SLOT_VACANT) : word_next(word, SLOT_VACANT);

        store_release(&slot->pool, pool); /* pairs with those who follow it from a lease that may have ended */
        store_relaxed(&slot->index, index);
        store_relaxed(&slot->first_generation, word_generation(next));
        store_relaxed(&slot->seen_word, 0);
        store_relaxed(&slot->object, NULL);
        store_relaxed(&slot->site, NULL);
        store_relaxed(&slot->released_site, NULL);
        store_relaxed(&slot->tag, NULL);
        store_relaxed(&slot->leases, 0);
        store_relaxed(&slot->op_due_ns, CLOCK_NEVER);
        store_release(&slot->word, next);
}

int slots_grow(struct slots *slots, struct lido_pool *pool, uint32_t count)
{
        struct random random = { random_seed() };

        while (load_relaxed(&slots->capacity) < count) {
                uint32_t place;
                unsigned k = slots_chunk_of(load_relaxed(&slots->capacity), &place);
                struct lido_slot *chunk = k < CHUNKS ? region_take(k) : NULL;

                if (!chunk)
                        return LIDO_ENOMEM;
                for (uint32_t i = 0; i < CHUNK_SLOTS << k; i++)
                        slot_join(&chunk[i], pool, chunk_start(k) + i, random_next(&random));
                store_release(&slots->chunk[k], chunk);
                store_release(&slots->capacity, chunk_start(k) + (CHUNK_SLOTS << k));
        }
        return LIDO_OK;
}

void slots_fini(struct slots *slots)
{
        for (unsigned k = 0; k < CHUNKS; k++) {
                struct lido_slot *chunk = load_relaxed(&slots->chunk[k]);

                if (!chunk)
                        break;
                for (uint32_t i = 0; i < CHUNK_SLOTS << k; i++)
                        lido_assert(word_state(load_relaxed(&chunk[i].word)) == SLOT_VACANT);
                store_relaxed(&slots->chunk[k], NULL);
                region_give(k, chunk);
        }
        store_relaxed(&slots->capacity, 0);
        store_relaxed(&slots->high, 0);
}

struct lido_slot *slots_at(const struct slots *slots, uint32_t index)
{
        uint32_t place;
        unsigned k = slots_chunk_of(index, &place);

        return load_acquire(&slots->chunk[k]) + place;
}

bool slots_has(const struct slots *slots, const struct lido_slot *slot)
{
        uint32_t place;
        unsigned k = slots_chunk_of(load_relaxed(&slot->index), &place);
        struct lido_slot *chunk = k < CHUNKS ? load_acquire(&slots->chunk[k]) : NULL;

        return chunk && chunk + place == slot;
}

static bool claim_as_lease(struct lido_slot *slot, uint64_t word, uint64_t *ret_generation)
{
        if (!slot_claim(slot, &word, word_make(word_generation(word), SLOT_LEASED) | (word & MARKS)))
                return false;
        *ret_generation = word_generation(word);
        return true;
}

bool slot_is_doubted(const struct lido_slot *slot, uint64_t word, struct slots_doubt *doubt)
{
        if (word & MARK_SUSPECT)
                return true;
        if (!doubt->by_clock)
                return false;
        if (doubt->now_ns == 0) {
                doubt->is_suspended = clock_suspended_ns() >= doubt->suspended_ns + SUSPEND_NS;
                doubt->now_ns = clock_now_ns();
        }
        return doubt->is_suspended || doubt->now_ns >= clock_after_ms(load_relaxed(&slot->seen_ns), doubt->after_ms);
}

bool slot_is_claimable(const struct lido_slot *slot, uint64_t word, struct slots_doubt *doubt, bool *ret_is_passed_over)
{
        if (word_state(word) == SLOT_IDLE)
                return true;
        if (word_state(word) != SLOT_RESTED)
                return false;
        if (doubt && slot_is_doubted(slot, word, doubt)) {
                *ret_is_passed_over = true;
                return false;
        }
        return true;
}

static struct lido_slot *claim_rested(struct slots *slots, struct slots_doubt *doubt, uint64_t *ret_generation,
                                      bool *ret_had_rested)
{
        bool is_passed_over = false;

        slots_for_each (slot, slots) {
                uint64_t word = load_seq_cst(&slot->word); /* law 2: pairs with lido_release_at */

                if (slot_is_claimable(slot, word, doubt, &is_passed_over) && claim_as_lease(slot, word, ret_generation)) {
                        *ret_had_rested = word_state(word) == SLOT_RESTED;
                        return slot;
                }
        }
        *ret_had_rested = is_passed_over;
        return NULL;
}

/* A claim that fails may have lost to the keeper, who has put the slot to rest: it is idle still. */
struct lido_slot *slots_claim(struct slots *slots, struct slots_doubt *doubt, uint64_t *ret_generation, bool *ret_had_rested)
{
        bool any_rested = false;

        *ret_had_rested = false;
        slots_for_each (slot, slots) {
                uint64_t word = load_seq_cst(&slot->word); /* law 2: pairs with lido_release_at */

                if (word_state(word) == SLOT_RESTED) {
                        any_rested = true;
                } else if (word_state(word) == SLOT_IDLE) {
                        if (claim_as_lease(slot, word, ret_generation))
                                return slot;
                        any_rested = any_rested || word_state(load_relaxed(&slot->word)) == SLOT_RESTED;
                }
        }
        return any_rested ? claim_rested(slots, doubt, ret_generation, ret_had_rested) : NULL;
}

struct lido_slot *slots_claim_oldest(struct slots *slots, struct slots_doubt *doubt, uint64_t *ret_generation,
                                     bool *ret_had_rested)
{
        for (;;) {
                struct lido_slot *oldest = NULL;
                uint64_t oldest_word = 0, oldest_order = UINT64_MAX;
                bool is_passed_over = false;

                slots_for_each (slot, slots) {
                        uint64_t word = load_seq_cst(&slot->word); /* law 2: pairs with lido_release_at */

                        if (slot_is_claimable(slot, word, doubt, &is_passed_over) && load_relaxed(&slot->order) < oldest_order) {
                                oldest = slot;
                                oldest_word = word;
                                oldest_order = load_relaxed(&slot->order);
                        }
                }
                *ret_had_rested = oldest ? word_state(oldest_word) == SLOT_RESTED : is_passed_over;
                if (!oldest)
                        return NULL;
                if (claim_as_lease(oldest, oldest_word, ret_generation))
                        return oldest;
        }
}

bool slots_claim_this(struct lido_slot *slot, uint64_t word, uint64_t *ret_generation)
{
        return (word_state(word) == SLOT_IDLE || word_state(word) == SLOT_RESTED) &&
               claim_as_lease(slot, word, ret_generation);
}

bool slot_unclaim(struct lido_slot *slot, uint64_t word)
{
        uint64_t seen = word_make(word_generation(word), SLOT_LEASED) | (word & MARKS);

        return slot_move(slot, &seen, word);
}

/* Scans look below `high`: raise it before the slot can hold anything. */
static void raise_high(struct slots *slots, uint32_t high)
{
        uint32_t seen = load_relaxed(&slots->high);

        while (seen < high && !cas_seq_cst(&slots->high, &seen, high))
                ;
}

struct lido_slot *slots_claim_vacant(struct slots *slots, uint64_t *ret_ticket)
{
        uint32_t capacity = load_acquire(&slots->capacity);

        for (uint32_t index = 0; index < capacity; index++) {
                struct lido_slot *slot = slots_at(slots, index);
                uint64_t word = load_relaxed(&slot->word);

                if (word_state(word) != SLOT_VACANT)
                        continue;
                raise_high(slots, index + 1);
                if (slot_claim(slot, &word, word_next(word, SLOT_OPENING))) {
                        *ret_ticket = word_generation(word) + GENERATION_ONE;
                        return slot;
                }
        }
        return NULL;
}

bool slots_any_free(const struct slots *slots)
{
        slots_for_each (slot, slots) {
                enum slot_state state = word_state(load_seq_cst(&slot->word));

                if (state == SLOT_IDLE || state == SLOT_RESTED)
                        return true;
        }
        return false;
}

void slots_count(const struct slots *slots, uint32_t count[SLOT_STATES])
{
        for (int state = 0; state < SLOT_STATES; state++)
                count[state] = 0;
        slots_for_each (slot, slots)
                count[word_state(load_seq_cst(&slot->word))]++; /* law 2: steal_one counts after it has set COVETED */
}
