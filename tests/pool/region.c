/* The address range of all slots, and what it says about leases that name none. A lease that was one: tests/pool/lease.c. */
#include "pool/region.h"

#include "pool/slots.h"
#include "support/crew.h"
#include "support/fixture.h"
#include "support/suite.h"

START_TEST(a_chunk_is_taken_whole_and_its_slots_are_known)
{
        struct lido_slot *chunk = region_take(0);

        ck_assert_ptr_nonnull(chunk);
        for (uint32_t i = 0; i < CHUNK_SLOTS; i++)
                ck_assert(region_has(&chunk[i]));
        region_give(0, chunk);
}
END_TEST

START_TEST(an_address_inside_a_slot_is_no_slot)
{
        struct lido_slot *chunk = region_take(0);

        for (size_t offset = 1; offset < SLOT_SIZE; offset++)
                ck_assert(!region_has((struct lido_slot *)(void *)((char *)chunk + offset)));
        region_give(0, chunk);
}
END_TEST

START_TEST(what_lies_outside_is_no_slot)
{
        struct lido_slot *chunk = region_take(0);
        int on_the_stack;

        ck_assert(!region_has(NULL));
        ck_assert(!region_has((struct lido_slot *)(void *)&on_the_stack));
        ck_assert(!region_has((struct lido_slot *)(void *)(region_base - SLOT_SIZE)));
        ck_assert(!region_has((struct lido_slot *)(void *)(region_base + load_relaxed(&region_in_use))));
        ck_assert(!region_has((struct lido_slot *)(void *)UINTPTR_MAX));
        region_give(0, chunk);
}
END_TEST

START_TEST(a_chunk_given_back_is_the_next_of_its_size)
{
        struct lido_slot *small = region_take(0), *large = region_take(1);

        region_give(0, small);
        region_give(1, large);

        ck_assert_ptr_eq(region_take(1), large);
        ck_assert_ptr_eq(region_take(0), small);
        region_give(0, small);
        region_give(1, large);
}
END_TEST

START_TEST(pools_that_come_and_go_take_no_more_memory)
{
        uintptr_t in_use = 0;

        for (int i = 0; i < 20; i++) {
                struct fixture *f = pool_of(40);

                must_release(must_acquire(f));
                fixture_end(f);
                if (i == 0)
                        in_use = load_relaxed(&region_in_use);
        }

        ck_assert_uint_eq(load_relaxed(&region_in_use), in_use);
}
END_TEST

START_TEST(garbage_for_a_lease_is_refused_unread)
{
        struct fixture *f = pool_of(1);
        lido_lease lease = must_acquire(f), bad = lease;
        void *object;
        static const uintptr_t places[] = { 0, 1, 256, 4096, UINTPTR_MAX, UINTPTR_MAX - 255 };

        for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
                bad.slot = (struct lido_slot *)places[i]; /* NOLINT: that is the point */
                ck_assert_int_eq(lido_release(bad), LIDO_EINVAL);
                ck_assert_int_eq(lido_discard(bad), LIDO_EINVAL);
                ck_assert_int_eq(lido_detach(bad, &object), LIDO_EINVAL);
                ck_assert_ptr_null(lido_object(bad));
                ck_assert_ptr_null((lido_object)(bad)); /* the function that the macro hides */
                ck_assert_ptr_null(lido_lease_pool(bad));
        }
        bad.slot = (struct lido_slot *)(void *)((char *)lease.slot + 8);
        ck_assert_int_eq(lido_release(bad), LIDO_EINVAL);

        ck_assert_ptr_nonnull(lido_object(lease));
        must_release(lease);
        fixture_end(f);
}
END_TEST

static void take_and_give(void *context, unsigned number)
{
        _Atomic uint32_t *twice = context;

        for (int i = 0; i < 3000; i++) {
                struct lido_slot *chunk = region_take(number % 2);

                if (atomic_exchange(&chunk->holder, number + 1) != 0)
                        atomic_fetch_add(twice, 1);
                atomic_store(&chunk->holder, 0);
                region_give(number % 2, chunk);
        }
}

START_TEST(nobody_has_a_chunk_twice)
{
        _Atomic uint32_t twice = 0;

        crew_run(4, take_and_give, &twice);

        ck_assert_uint_eq(atomic_load(&twice), 0);
}
END_TEST

int main(void)
{
        return suite_run("pool/region", (const TTest *[]){
                                                a_chunk_is_taken_whole_and_its_slots_are_known,
                                                an_address_inside_a_slot_is_no_slot,
                                                what_lies_outside_is_no_slot,
                                                a_chunk_given_back_is_the_next_of_its_size,
                                                pools_that_come_and_go_take_no_more_memory,
                                                garbage_for_a_lease_is_refused_unread,
                                                nobody_has_a_chunk_twice,
                                                NULL,
                                        });
}
