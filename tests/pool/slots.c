/* The words of slots and who wins them. What a pool makes of it is tests/pool/lease.c; a slot's memory is tests/pool/region.c. */
#include "pool/slots.h"

#include <string.h>

#include "support/crew.h"
#include "support/patience.h"
#include "support/suite.h"

static struct lido_pool *const nobody = (struct lido_pool *)(void *)&nobody; /* an address is all that slots want of it */

/* Slots of no pool, so many. */
static struct slots slots_of(uint32_t count)
{
        struct slots slots;

        memset(&slots, 0, sizeof slots);
        ck_assert_int_eq(slots_grow(&slots, nobody, count), LIDO_OK);
        return slots;
}

/* Open one, as the keeper does, and lease it to the caller. */
static struct lido_slot *open_one(struct slots *slots, uint64_t *ret_generation)
{
        uint64_t ticket;
        struct lido_slot *slot = slots_claim_vacant(slots, &ticket);

        ck_assert_ptr_nonnull(slot);
        slot_pass_on(slot, ticket, SLOT_LEASED);
        *ret_generation = ticket + GENERATION_ONE;
        return slot;
}

static void fall_idle(struct lido_slot *slot, uint64_t generation)
{
        uint64_t seen = word_make(generation, SLOT_LEASED);

        must(slot_move(slot, &seen, word_next(seen, SLOT_IDLE)));
}

static void fill_with_idle(struct slots *slots, uint32_t count)
{
        uint64_t generation[64];

        for (uint32_t i = 0; i < count; i++)
                open_one(slots, &generation[i]);
        for (uint32_t i = 0; i < count; i++)
                fall_idle(slots_at(slots, i), generation[i]);
}

static void come_to_rest(struct lido_slot *slot)
{
        uint64_t seen = load_relaxed(&slot->word);

        ck_assert(slot_move(slot, &seen, word_make(word_generation(seen), SLOT_RESTED)));
}

/* A lease ends, and the object with it. */
static void vacate(struct lido_slot *slot, uint64_t generation)
{
        slot_pass_on(slot, generation, SLOT_CLOSING);
        slot_pass_on(slot, generation + GENERATION_ONE, SLOT_VACANT);
}

/* Vacate whatever is there, in whatever number of arrows that takes, and give the memory back. */
static void end(struct slots *slots)
{
        slots_for_each (slot, slots) {
                uint64_t word = load_relaxed(&slot->word), generation;

                if (slots_claim_this(slot, word, &generation))
                        word = load_relaxed(&slot->word);
                if (word_state(word) == SLOT_LEASED)
                        vacate(slot, word_generation(word));
        }
        slots_fini(slots);
}

START_TEST(a_slot_moves_along_the_arrows_of_the_picture_and_no_other)
{
        static const char *const arrows[SLOT_STATES] = {
                /* to:           VOIRLCSX: Vacant Opening Idle Rested Leased Checking reSetting closing(X) */
                [SLOT_VACANT] = ".O......", [SLOT_OPENING] = "VO..L...", [SLOT_IDLE] = "..IRL...",
                [SLOT_RESTED] = "...RL...", [SLOT_LEASED] = "..IRLCSX", [SLOT_CHECKING] = "....LC.X",
                [SLOT_RESETTING] = "....L.SX", [SLOT_CLOSING] = "V......X",
        };

        for (int from = 0; from < SLOT_STATES; from++)
                for (int to = 0; to < SLOT_STATES; to++)
                        ck_assert_msg(slot_may_move((enum slot_state)from, (enum slot_state)to) == (arrows[from][to] != '.'),
                                      "from %d to %d", from, to);
        ck_assert(!slot_may_move(SLOT_STATES, SLOT_VACANT));
        ck_assert(!slot_may_move(SLOT_VACANT, SLOT_STATES));
}
END_TEST

START_TEST(a_word_keeps_generation_marks_and_state_apart)
{
        uint64_t word = word_make(UINT64_C(5) << GENERATION_SHIFT, SLOT_LEASED) | MARK_RETIRE | MARK_INTERRUPTING;

        ck_assert_int_eq(word_state(word), SLOT_LEASED);
        ck_assert_uint_eq(word_generation(word), UINT64_C(5) << GENERATION_SHIFT);
        ck_assert_uint_eq(word_next(word, SLOT_IDLE), word_make(UINT64_C(6) << GENERATION_SHIFT, SLOT_IDLE));
}
END_TEST

START_TEST(new_slots_are_vacant_and_numbered)
{
        struct slots slots = slots_of(100);

        ck_assert_uint_ge(load_relaxed(&slots.capacity), 100);
        for (uint32_t i = 0; i < load_relaxed(&slots.capacity); i++) {
                struct lido_slot *slot = slots_at(&slots, i);

                ck_assert_uint_eq(slot->index, i);
                ck_assert_int_eq(word_state(load_relaxed(&slot->word)), SLOT_VACANT);
                ck_assert_ptr_eq(load_relaxed(&slot->pool), nobody);
        }
        end(&slots);
}
END_TEST

START_TEST(growing_moves_no_slot)
{
        struct slots slots = slots_of(1);
        struct lido_slot *first = slots_at(&slots, 0), *last = slots_at(&slots, 15);

        ck_assert_int_eq(slots_grow(&slots, nobody, 5000), LIDO_OK);

        ck_assert_ptr_eq(slots_at(&slots, 0), first);
        ck_assert_ptr_eq(slots_at(&slots, 15), last);
        ck_assert_uint_eq(slots_at(&slots, 4999)->index, 4999);
        end(&slots);
}
END_TEST

START_TEST(more_slots_than_there_can_be_are_refused)
{
        struct slots slots = slots_of(1);

        ck_assert_int_eq(slots_grow(&slots, nobody, UINT32_MAX), LIDO_ENOMEM);

        slots_fini(&slots);
}
END_TEST

START_TEST(the_lowest_vacant_slot_is_opened_first)
{
        struct slots slots = slots_of(40);
        uint64_t generation, ticket;

        for (uint32_t i = 0; i < 20; i++)
                ck_assert_uint_eq(open_one(&slots, &generation)->index, i);
        vacate(slots_at(&slots, 7), word_generation(load_relaxed(&slots_at(&slots, 7)->word)));

        ck_assert_uint_eq(slots_claim_vacant(&slots, &ticket)->index, 7);
        ck_assert_uint_eq(slots_claim_vacant(&slots, &ticket)->index, 20);
        slots_for_each (slot, &slots)
                if (word_state(load_relaxed(&slot->word)) == SLOT_OPENING)
                        slot_pass_on(slot, word_generation(load_relaxed(&slot->word)), SLOT_VACANT);
        end(&slots);
}
END_TEST

START_TEST(with_every_slot_in_use_there_is_no_vacant_one)
{
        struct slots slots = slots_of(16);
        uint64_t generation;

        for (uint32_t i = 0; i < 16; i++)
                open_one(&slots, &generation);

        ck_assert_ptr_null(slots_claim_vacant(&slots, &generation));
        end(&slots);
}
END_TEST

START_TEST(the_lowest_idle_slot_is_claimed_so_that_the_high_ones_fall_idle)
{
        struct slots slots = slots_of(20);
        uint64_t generation;
        bool had_rested;

        fill_with_idle(&slots, 20);

        for (uint32_t i = 0; i < 20; i++)
                ck_assert_uint_eq(slots_claim(&slots, NULL, &generation, &had_rested)->index, i);
        ck_assert_ptr_null(slots_claim(&slots, NULL, &generation, &had_rested));
        end(&slots);
}
END_TEST

START_TEST(a_rested_slot_is_claimed_only_when_no_other_is_idle)
{
        struct slots slots = slots_of(3);
        uint64_t generation;
        bool had_rested;

        fill_with_idle(&slots, 3);
        come_to_rest(slots_at(&slots, 0));

        ck_assert_uint_eq(slots_claim(&slots, NULL, &generation, &had_rested)->index, 1);
        ck_assert(!had_rested);
        ck_assert_uint_eq(slots_claim(&slots, NULL, &generation, &had_rested)->index, 2);
        ck_assert_uint_eq(slots_claim(&slots, NULL, &generation, &had_rested)->index, 0);
        ck_assert(had_rested);
        end(&slots);
}
END_TEST

START_TEST(claimed_by_age_the_one_given_back_longest_ago_is_first)
{
        static const uint64_t order[] = { 30, 10, 20 };
        struct slots slots = slots_of(3);
        uint64_t generation;
        bool had_rested;

        fill_with_idle(&slots, 3);
        for (uint32_t i = 0; i < 3; i++)
                store_relaxed(&slots_at(&slots, i)->order, order[i]);
        come_to_rest(slots_at(&slots, 1));

        ck_assert_uint_eq(slots_claim_oldest(&slots, NULL, &generation, &had_rested)->index, 1);
        ck_assert(had_rested);
        ck_assert_uint_eq(slots_claim_oldest(&slots, NULL, &generation, &had_rested)->index, 2);
        ck_assert_uint_eq(slots_claim_oldest(&slots, NULL, &generation, &had_rested)->index, 0);
        ck_assert(!had_rested);
        ck_assert_ptr_null(slots_claim_oldest(&slots, NULL, &generation, &had_rested));
        end(&slots);
}
END_TEST

START_TEST(a_slot_that_has_moved_on_is_not_claimed_by_an_old_word)
{
        struct slots slots = slots_of(1);
        uint64_t generation, old;
        bool had_rested;

        fill_with_idle(&slots, 1);
        old = load_relaxed(&slots_at(&slots, 0)->word);
        struct lido_slot *slot = slots_claim(&slots, NULL, &generation, &had_rested);
        fall_idle(slot, generation);

        uint64_t now = load_relaxed(&slots_at(&slots, 0)->word);
        ck_assert_uint_ne(now, old);
        ck_assert(!slots_claim_this(slots_at(&slots, 0), old, &generation));
        ck_assert(slots_claim_this(slots_at(&slots, 0), now, &generation));
        ck_assert_uint_eq(generation, word_generation(now));
        end(&slots);
}
END_TEST

START_TEST(a_mark_is_set_on_the_lease_it_was_meant_for_or_not_at_all)
{
        struct slots slots = slots_of(1);
        uint64_t generation;
        struct lido_slot *slot = open_one(&slots, &generation);

        ck_assert(!slot_mark(slot, generation + GENERATION_ONE, SLOT_LEASED, MARK_RETIRE));
        ck_assert(!slot_mark(slot, generation, SLOT_IDLE, MARK_RETIRE));
        ck_assert_uint_eq(load_relaxed(&slot->word) & MARKS, 0);
        ck_assert(slot_mark(slot, generation, SLOT_LEASED, MARK_RETIRE));
        ck_assert(slot_mark(slot, generation, SLOT_LEASED, MARK_RETIRE));
        ck_assert(slot_mark(slot, generation, SLOT_LEASED, MARK_SUSPECT));

        ck_assert_uint_eq(load_relaxed(&slot->word) & MARKS, MARK_RETIRE | MARK_SUSPECT);
        end(&slots);
}
END_TEST

START_TEST(passed_on_a_slot_shows_its_marks_and_loses_them)
{
        struct slots slots = slots_of(1);
        uint64_t generation;
        struct lido_slot *slot = open_one(&slots, &generation);

        slot_mark(slot, generation, SLOT_LEASED, MARK_SUSPECT);
        uint64_t marks = slot_pass_on(slot, generation, SLOT_CHECKING);

        ck_assert_uint_eq(marks, MARK_SUSPECT);
        ck_assert_uint_eq(load_relaxed(&slot->word), word_make(generation + GENERATION_ONE, SLOT_CHECKING));
        slot_pass_on(slot, generation + GENERATION_ONE, SLOT_LEASED);
        end(&slots);
}
END_TEST

START_TEST(a_marked_lease_does_not_fall_idle_unseen)
{
        struct slots slots = slots_of(1);
        uint64_t generation;
        struct lido_slot *slot = open_one(&slots, &generation);
        uint64_t seen = word_make(generation, SLOT_LEASED);

        slot_mark(slot, generation, SLOT_LEASED, MARK_RETIRE);

        ck_assert(!slot_move(slot, &seen, word_next(seen, SLOT_IDLE)));
        ck_assert_uint_eq(seen, word_make(generation, SLOT_LEASED) | MARK_RETIRE);
        end(&slots);
}
END_TEST

static void hold_and_let_go(void *context, unsigned number)
{
        struct lido_slot *slot = context;

        (void)number;
        for (int i = 0; i < 5000; i++) {
                uint64_t word = load_relaxed(&slot->word);

                must(slot_hold(slot, word_generation(word), SLOT_LEASED));
                must(load_relaxed(&slot->data) == NULL);
                store_relaxed(&slot->data, slot);
                store_relaxed(&slot->data, NULL);
                slot_let_go(slot);
        }
}

START_TEST(a_slot_is_held_by_one_at_a_time_and_only_while_its_lease_lasts)
{
        struct slots slots = slots_of(1);
        uint64_t generation;
        struct lido_slot *slot = open_one(&slots, &generation);

        crew_run(4, hold_and_let_go, slot);
        ck_assert_uint_eq(load_relaxed(&slot->word) & MARKS, 0);
        ck_assert(!slot_hold(slot, generation + GENERATION_ONE, SLOT_LEASED));
        ck_assert(!slot_hold(slot, generation, SLOT_CHECKING));
        vacate(slot, generation);
        slots_fini(&slots);
}
END_TEST

START_TEST(a_walk_sees_each_slot_once_in_order_across_chunks)
{
        struct slots slots = slots_of(130);
        uint64_t generation;
        uint32_t next = 0;

        for (uint32_t i = 0; i < 130; i++)
                open_one(&slots, &generation);
        slots_for_each (slot, &slots)
                ck_assert_uint_eq(slot->index, next++);

        ck_assert_uint_eq(next, 130);
        end(&slots);
}
END_TEST

START_TEST(counting_tells_how_many_are_in_each_state)
{
        struct slots slots = slots_of(20);
        uint32_t count[SLOT_STATES];
        uint64_t generation;
        bool had_rested;

        fill_with_idle(&slots, 5);
        come_to_rest(slots_at(&slots, 4));
        ck_assert(slots_any_free(&slots));
        slots_claim(&slots, NULL, &generation, &had_rested);
        slots_count(&slots, count);

        ck_assert_uint_eq(count[SLOT_LEASED], 1);
        ck_assert_uint_eq(count[SLOT_IDLE], 3);
        ck_assert_uint_eq(count[SLOT_RESTED], 1);
        while (slots_claim(&slots, NULL, &generation, &had_rested))
                ;
        ck_assert(!slots_any_free(&slots));
        end(&slots);
}
END_TEST

/* A lease made up of a former pool's generation must never fit a slot of the next. */
START_TEST(a_generation_never_goes_back_whatever_pools_a_slot_serves)
{
        struct slots slots = slots_of(1);
        struct lido_slot *slot = slots_at(&slots, 0);
        uint64_t last = 0;

        for (int pool = 0; pool < 50; pool++) {
                fill_with_idle(&slots, 1);
                uint64_t now = word_generation(load_relaxed(&slot->word));

                if (last != 0)
                        ck_assert_uint_gt(now, last);
                ck_assert_uint_gt(now, slot->first_generation);
                last = now;
                end(&slots);
                slots = slots_of(1);
                ck_assert_ptr_eq(slots_at(&slots, 0), slot);
        }
        end(&slots);
}
END_TEST

START_TEST(generations_begin_at_random)
{
        struct slots slots = slots_of(16);
        uint64_t or = 0, and = UINT64_MAX;

        for (uint32_t i = 0; i < 16; i++) {
                uint64_t generation = word_generation(load_relaxed(&slots_at(&slots, i)->word));

                or |= generation;
                and &= generation;
        }

        ck_assert_int_gt(__builtin_popcountll(or & ~and), 20);
        slots_fini(&slots);
}
END_TEST

struct contest {
        struct slots slots;
        _Atomic uint32_t owners[8];
        _Atomic uint32_t twice;
        _Atomic uint64_t claims;
};

static void claim_and_free(void *context, unsigned number)
{
        struct contest *contest = context;

        (void)number;
        for (int i = 0; i < 5000; i++) {
                uint64_t generation;
                bool had_rested;
                struct lido_slot *slot = i % 2 ? slots_claim(&contest->slots, NULL, &generation, &had_rested)
                                               : slots_claim_oldest(&contest->slots, NULL, &generation, &had_rested);

                if (!slot)
                        continue;
                if (atomic_fetch_add(&contest->owners[slot->index], 1) != 0)
                        atomic_fetch_add(&contest->twice, 1);
                atomic_fetch_add(&contest->claims, 1);
                atomic_fetch_sub(&contest->owners[slot->index], 1);
                fall_idle(slot, generation);
        }
}

START_TEST(nobody_owns_a_slot_twice_however_many_claim)
{
        static struct contest contest;
        uint32_t count[SLOT_STATES];

        contest.slots = slots_of(3);
        fill_with_idle(&contest.slots, 3);
        crew_run(4, claim_and_free, &contest);
        slots_count(&contest.slots, count);

        ck_assert_uint_eq(atomic_load(&contest.twice), 0);
        ck_assert_uint_gt(atomic_load(&contest.claims), 5000);
        ck_assert_uint_eq(count[SLOT_IDLE], 3);
        end(&contest.slots);
}
END_TEST

int main(void)
{
        return suite_run("pool/slots", (const TTest *[]){
                                               a_slot_moves_along_the_arrows_of_the_picture_and_no_other,
                                               a_word_keeps_generation_marks_and_state_apart,
                                               new_slots_are_vacant_and_numbered,
                                               growing_moves_no_slot,
                                               more_slots_than_there_can_be_are_refused,
                                               the_lowest_vacant_slot_is_opened_first,
                                               with_every_slot_in_use_there_is_no_vacant_one,
                                               the_lowest_idle_slot_is_claimed_so_that_the_high_ones_fall_idle,
                                               a_rested_slot_is_claimed_only_when_no_other_is_idle,
                                               claimed_by_age_the_one_given_back_longest_ago_is_first,
                                               a_slot_that_has_moved_on_is_not_claimed_by_an_old_word,
                                               a_mark_is_set_on_the_lease_it_was_meant_for_or_not_at_all,
                                               passed_on_a_slot_shows_its_marks_and_loses_them,
                                               a_marked_lease_does_not_fall_idle_unseen,
                                               a_slot_is_held_by_one_at_a_time_and_only_while_its_lease_lasts,
                                               a_walk_sees_each_slot_once_in_order_across_chunks,
                                               counting_tells_how_many_are_in_each_state,
                                               a_generation_never_goes_back_whatever_pools_a_slot_serves,
                                               generations_begin_at_random,
                                               nobody_owns_a_slot_twice_however_many_claim,
                                               NULL,
                                       });
}
