/* What a borrower can ask of, or say about, a lease: transfer, deadline, revoke, data, labels. */
#include <string.h>

#include "pool/slots.h"
#include "support/desk.h"
#include "support/suite.h"

static struct desk *desk_of(uint32_t max)
{
        struct desk *desk = desk_new();

        desk->f.options.max = max;
        desk_open(desk);
        desk_warm_up(desk, max);
        return desk;
}

static void *take_over(void *argument)
{
        lido_lease *lease = argument;

        must(lido_transfer_at(*lease, "taker.c:9") == LIDO_OK);
        return NULL;
}

START_TEST(a_transferred_lease_is_blamed_on_the_thread_that_took_it_over)
{
        struct desk *desk = desk_of(1);
        struct lido_blame blame = LIDO_BLAME_INIT;
        lido_lease lease = desk_acquire(desk);
        pthread_t thread;

        ck_assert_int_eq(pthread_create(&thread, NULL, take_over, &lease), 0);
        pthread_join(thread, NULL);
        lido_pool_blame(desk->pool, &blame);

        ck_assert_uint_eq(blame.holders, 1);
        ck_assert_uint_ne(blame.holder[0].thread, thread_id());
        ck_assert_str_eq(blame.holder[0].site, "taker.c:9");
        must_release(lease);
        ck_assert_int_eq(lido_transfer(lease), LIDO_ESTALE);
        desk_end(desk);
}
END_TEST

START_TEST(a_revoked_lease_shows_nothing_and_its_object_is_closed_when_it_returns)
{
        struct desk *desk = desk_of(1);
        lido_lease lease = desk_acquire(desk);

        ck_assert_int_eq(lido_revoke(lease), LIDO_OK);
        desk_turn(desk);
        ck_assert_ptr_null(lido_object(lease));
        ck_assert_ptr_null(lido_lease_pool(lease));
        ck_assert_uint_eq(atomic_load(&desk->f.fake.interrupts), 1);
        ck_assert_uint_eq(heard(&desk->f, LIDO_EVENT_REVOKED), 1);
        desk_pass_time(desk, 3600 * NS_PER_S);
        ck_assert_uint_eq(atomic_load(&desk->f.fake.closed), 0); /* never under the holder's feet */
        ck_assert_int_eq(lido_revoke(lease), LIDO_EREVOKED);
        ck_assert_int_eq(lido_release(lease), LIDO_EREVOKED);
        desk_turn(desk);

        ck_assert_uint_eq(stats_of(desk->pool).closed[LIDO_CLOSE_REVOKED], 1);
        ck_assert_int_ne(lido_release(lease), LIDO_OK);
        desk_end(desk);
}
END_TEST

START_TEST(a_revoked_object_cannot_be_detached)
{
        struct desk *desk = desk_of(1);
        lido_lease lease = desk_acquire(desk);
        void *object = NULL;

        lido_revoke(lease);
        ck_assert_int_eq(lido_detach(lease, &object), LIDO_EREVOKED);
        desk_turn(desk);

        ck_assert_ptr_null(object);
        ck_assert_uint_eq(stats_of(desk->pool).live, 0);
        desk_end(desk);
}
END_TEST

START_TEST(a_lease_past_its_deadline_is_revoked_then_and_not_before)
{
        struct desk *desk = desk_of(1);
        lido_lease lease = desk_acquire(desk);

        ck_assert_int_eq(lido_lease_set_deadline(lease, 300), LIDO_OK);
        desk_pass_time(desk, 299 * NS_PER_MS);
        ck_assert_ptr_nonnull(lido_object(lease));
        desk_pass_time(desk, 2 * NS_PER_MS);

        ck_assert_ptr_null(lido_object(lease));
        ck_assert_int_eq(lido_release(lease), LIDO_EREVOKED);
        desk_end(desk);
}
END_TEST

START_TEST(a_deadline_is_the_leases_own_and_not_the_next_ones)
{
        struct desk *desk = desk_of(1);
        lido_lease lease = desk_acquire(desk), next;

        ck_assert_int_eq(lido_lease_set_deadline(lease, -2), LIDO_EINVAL);
        ck_assert_int_eq(lido_lease_set_deadline(lease, 300), LIDO_OK);
        must_release(lease);
        next = desk_acquire(desk);
        desk_pass_time(desk, NS_PER_S);

        ck_assert_ptr_nonnull(lido_object(next));
        ck_assert_int_eq(lido_lease_set_deadline(lease, 300), LIDO_ESTALE);
        must_release(next);
        desk_end(desk);
}
END_TEST

START_TEST(data_of_an_object_stays_with_it_and_data_of_a_lease_ends_with_it)
{
        struct desk *desk = desk_of(1);
        lido_lease lease = desk_acquire(desk);
        int mine, ours;

        ck_assert_ptr_null(lido_object_data(lease));
        ck_assert_ptr_null(lido_lease_data(lease));
        ck_assert_int_eq(lido_set_object_data(lease, &ours), LIDO_OK);
        ck_assert_int_eq(lido_set_lease_data(lease, &mine), LIDO_OK);
        ck_assert_ptr_eq(lido_lease_data(lease), &mine);
        must_release(lease);
        ck_assert_ptr_null(lido_object_data(lease));
        ck_assert_int_eq(lido_set_object_data(lease, &mine), LIDO_ESTALE);
        lease = desk_acquire(desk);
        ck_assert_ptr_eq(lido_object_data(lease), &ours);
        ck_assert_ptr_null(lido_lease_data(lease));
        lido_discard(lease);
        desk_turn(desk);
        desk_warm_up(desk, 1);
        lease = desk_acquire(desk);

        ck_assert_ptr_null(lido_object_data(lease)); /* another object */
        must_release(lease);
        desk_end(desk);
}
END_TEST

static int acquire_labelled(struct desk *desk, uint64_t label, lido_lease *lease)
{
        struct lido_acquire_options options = LIDO_ACQUIRE_OPTIONS_INIT;

        options.want_label = label;
        return lido_acquire_with(desk->pool, &options, lease);
}

START_TEST(a_borrower_gets_the_label_he_wants_if_one_is_idle_and_another_if_not)
{
        struct desk *desk = desk_of(3);
        lido_lease lease[3], again;

        for (uint64_t i = 0; i < 3; i++) {
                lease[i] = desk_acquire(desk);
                ck_assert_uint_eq(lido_label(lease[i]), 0);
                ck_assert_int_eq(lido_set_label(lease[i], i + 1), LIDO_OK);
        }
        for (int i = 0; i < 3; i++)
                must_release(lease[i]);
        ck_assert_int_eq(acquire_labelled(desk, 3, &again), LIDO_OK);
        ck_assert_uint_eq(lido_label(again), 3);
        ck_assert_int_eq(acquire_labelled(desk, 3, &lease[0]), LIDO_OK);

        ck_assert_uint_ne(lido_label(lease[0]), 3);
        must_release(again);
        must_release(lease[0]);
        ck_assert_uint_eq(lido_label(again), 0);
        desk_end(desk);
}
END_TEST

int main(void)
{
        return suite_run("pool/borrowed", (const TTest *[]){
                                                  a_transferred_lease_is_blamed_on_the_thread_that_took_it_over,
                                                  a_revoked_lease_shows_nothing_and_its_object_is_closed_when_it_returns,
                                                  a_revoked_object_cannot_be_detached,
                                                  a_lease_past_its_deadline_is_revoked_then_and_not_before,
                                                  a_deadline_is_the_leases_own_and_not_the_next_ones,
                                                  data_of_an_object_stays_with_it_and_data_of_a_lease_ends_with_it,
                                                  a_borrower_gets_the_label_he_wants_if_one_is_idle_and_another_if_not,
                                                  NULL,
                                          });
}
