/* Quotas of tags, classes of waiters, shedding of a standing queue: who is served when not simply the oldest; on a clock of the
 * test's. The plain line: tests/pool/waitq.c.
 */
#include "pool/quota.h"

#include "pool/codel.h"
#include "pool/lease.h"
#include "support/crew.h"
#include "support/desk.h"
#include "support/suite.h"

static int acquire_tagged(struct desk *desk, const char *tag, lido_lease *lease)
{
        struct lido_acquire_options options = LIDO_ACQUIRE_OPTIONS_INIT;

        options.tag = tag;
        options.timeout_ms = 1000; /* never waited: this is the keeper's thread, and waiting there is refused */
        return lido_acquire_with(desk->pool, &options, lease);
}

static struct desk *desk_of(uint32_t max)
{
        struct desk *desk = desk_new();

        desk->f.options.max = max;
        desk_open(desk);
        desk_warm_up(desk, max);
        return desk;
}

/* ---- quotas --------------------------------------------------------------------------------------------------------- */

START_TEST(no_more_is_lent_on_behalf_of_a_tag_than_its_quota)
{
        struct desk *desk = desk_of(5);
        lido_lease lease[2], other[3], none;

        ck_assert_int_eq(lido_pool_set_quota(desk->pool, "batch", 2), LIDO_OK);
        ck_assert_int_eq(acquire_tagged(desk, "batch", &lease[0]), LIDO_OK);
        ck_assert_int_eq(acquire_tagged(desk, "batch", &lease[1]), LIDO_OK);
        ck_assert_int_eq(acquire_tagged(desk, "batch", &none), LIDO_EDEADLK); /* it would have to wait */
        for (int i = 0; i < 3; i++)
                ck_assert_int_eq(i ? acquire_tagged(desk, "web", &other[i]) : lido_try_acquire(desk->pool, &other[i]), LIDO_OK);
        must_release(lease[0]);

        ck_assert_int_eq(acquire_tagged(desk, "batch", &lease[0]), LIDO_OK);
        for (int i = 0; i < 3; i++)
                must_release(other[i]);
        must_release(lease[0]);
        must_release(lease[1]);
        desk_end(desk);
}
END_TEST

START_TEST(every_end_of_a_lease_gives_its_quota_back)
{
        struct desk *desk = desk_of(4);
        lido_lease lease;
        void *object;

        lido_pool_set_quota(desk->pool, "batch", 1);
        for (int i = 0; i < 12; i++) {
                ck_assert_int_eq(acquire_tagged(desk, "batch", &lease), LIDO_OK);
                ck_assert_uint_eq(load_relaxed(&desk->pool->quota[1].used), 1);
                if (i % 3 == 0) {
                        must_release(lease);
                } else if (i % 3 == 1) {
                        ck_assert_int_eq(lido_discard(lease), LIDO_OK);
                } else {
                        fake_forget(&desk->f.fake);
                        ck_assert_int_eq(lido_detach(lease, &object), LIDO_OK);
                        fake_drop(object);
                }
                ck_assert_uint_eq(load_relaxed(&desk->pool->quota[1].used), 0);
                desk_turn(desk);
                while (lido_try_acquire(desk->pool, &lease) != LIDO_OK)
                        desk_turn(desk);
                must_release(lease);
        }
        desk_end(desk);
}
END_TEST

static void wait_tagged(struct desk *desk, struct pool_waiter *w, const char *tag, int priority)
{
        struct pool_waiter new = { .pool = desk->pool, .began_ns = clock_now_ns(), .keeper_due_ns = CLOCK_NEVER,
                                   .priority = (uint8_t)priority, .quota = quota_find(desk->pool, tag) };

        *w = new;
        waiter_init(&w->waiter, NULL);
        ck_assert_int_eq(waitq_join(desk->pool, w), LIDO_OK);
        waitq_serve(desk->pool);
}

static bool is_served(struct pool_waiter *w)
{
        return load_relaxed(&w->waiter.state) == WAITER_GIVEN;
}

static lido_lease gift_of(struct pool_waiter *w)
{
        struct want want = { .site = "gift", .quota = w->quota };
        lido_lease lease = { NULL, 0 };

        ck_assert(is_served(w));
        ck_assert(lease_begin(w->pool, w->slot, w->generation, w->origin, &want, &lease));
        return lease;
}

START_TEST(whoever_waits_for_a_quota_stands_in_nobodys_way)
{
        struct desk *desk = desk_of(2);
        struct pool_waiter batch, web;
        lido_lease lease, second;

        lido_pool_set_quota(desk->pool, "batch", 1);
        ck_assert_int_eq(acquire_tagged(desk, "batch", &lease), LIDO_OK);
        ck_assert_int_eq(lido_try_acquire(desk->pool, &second), LIDO_OK);
        wait_tagged(desk, &batch, "batch", LIDO_PRIORITY_NORMAL);
        wait_tagged(desk, &web, "web", LIDO_PRIORITY_NORMAL);
        clock_advance(NS_PER_S);
        must_release(second);
        ck_assert(!is_served(&batch));
        second = gift_of(&web);
        clock_advance(NS_PER_S);
        must_release(lease);

        must_release(gift_of(&batch));
        must_release(second);
        desk_end(desk);
}
END_TEST

START_TEST(a_freed_or_raised_quota_serves_one_who_waits_beside_idle_objects)
{
        struct desk *desk = desk_of(3);
        struct pool_waiter first, second;
        lido_lease lease;

        lido_pool_set_quota(desk->pool, "batch", 1);
        ck_assert_int_eq(acquire_tagged(desk, "batch", &lease), LIDO_OK);
        wait_tagged(desk, &first, "batch", LIDO_PRIORITY_NORMAL);
        wait_tagged(desk, &second, "batch", LIDO_PRIORITY_NORMAL);
        ck_assert(!is_served(&first));
        must_release(lease);
        ck_assert(is_served(&first));
        ck_assert(!is_served(&second));
        ck_assert_int_eq(lido_pool_set_quota(desk->pool, "batch", 2), LIDO_OK);

        must_release(gift_of(&second));
        must_release(gift_of(&first));
        desk_end(desk);
}
END_TEST

START_TEST(there_is_room_for_fifteen_quotas)
{
        static const char *const tag[] = { "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p" };
        struct desk *desk = desk_of(1);

        for (int i = 0; i < 15; i++)
                ck_assert_int_eq(lido_pool_set_quota(desk->pool, tag[i], 1), LIDO_OK);
        ck_assert_int_eq(lido_pool_set_quota(desk->pool, tag[15], 1), LIDO_ENOMEM);
        ck_assert_int_eq(lido_pool_set_quota(desk->pool, tag[3], 7), LIDO_OK);
        ck_assert_int_eq(lido_pool_set_quota(desk->pool, tag[3], 0), LIDO_EINVAL);
        ck_assert_int_eq(lido_pool_set_quota(desk->pool, NULL, 1), LIDO_EINVAL);
        ck_assert_int_eq(lido_pool_set_quota(NULL, "a", 1), LIDO_EINVAL);
        desk_end(desk);
}
END_TEST

struct limits {
        struct fixture *f;
        _Atomic uint32_t in_use, most;
};

static void borrow_tagged(void *context, unsigned number)
{
        struct limits *limits = context;
        struct lido_acquire_options options = LIDO_ACQUIRE_OPTIONS_INIT;

        options.tag = number % 3 ? "batch" : "web";
        options.timeout_ms = PATIENCE_MS;
        for (int i = 0; i < 1500; i++) {
                lido_lease lease;

                must(lido_acquire_with(limits->f->pool, &options, &lease) == LIDO_OK);
                if (number % 3) {
                        uint32_t now = atomic_fetch_add(&limits->in_use, 1) + 1, seen = atomic_load(&limits->most);

                        while (seen < now && !atomic_compare_exchange_weak(&limits->most, &seen, now))
                                ;
                        atomic_fetch_sub(&limits->in_use, 1);
                }
                must_release(lease);
        }
}

START_TEST(threads_of_one_tag_never_exceed_its_quota_and_none_is_forgotten)
{
        struct limits limits = { .f = pool_of(4) };

        lido_pool_set_quota(limits.f->pool, "batch", 2);
        crew_run(6, borrow_tagged, &limits);

        ck_assert_uint_le(atomic_load(&limits.most), 2);
        ck_assert_uint_eq(load_relaxed(&limits.f->pool->quota[1].used), 0);
        check_quiet(limits.f->pool);
        fixture_end(limits.f);
}
END_TEST

/* ---- classes ---------------------------------------------------------------------------------------------------------- */

/* Release and take what is given, so often. Returns: the order in which the waiters were served, as digits. */
static int serve_all(lido_lease lease, struct pool_waiter *w, int count)
{
        int order = 0;

        for (int served = 0; served < count; served++) {
                clock_advance(NS_PER_MS);
                must_release(lease);
                for (int i = 0; i < count; i++)
                        if (is_served(&w[i])) {
                                lease = gift_of(&w[i]);
                                store_relaxed(&w[i].waiter.state, WAITER_CANCELED);
                                order = order * 10 + i + 1;
                        }
        }
        must_release(lease);
        return order;
}

START_TEST(a_higher_class_is_served_before_a_lower_one_that_came_a_moment_earlier)
{
        struct desk *desk = desk_of(1);
        struct pool_waiter w[5];
        lido_lease lease = desk_acquire(desk);

        wait_tagged(desk, &w[0], NULL, LIDO_PRIORITY_LOW);
        wait_tagged(desk, &w[1], NULL, LIDO_PRIORITY_NORMAL);
        wait_tagged(desk, &w[2], NULL, LIDO_PRIORITY_HIGH);
        wait_tagged(desk, &w[3], NULL, LIDO_PRIORITY_CRITICAL);
        wait_tagged(desk, &w[4], NULL, LIDO_PRIORITY_NORMAL);

        ck_assert_int_eq(serve_all(lease, w, 5), 43251);
        desk_end(desk);
}
END_TEST

START_TEST(a_lower_class_that_came_much_earlier_goes_first_so_that_nobody_starves)
{
        struct desk *desk = desk_of(1);
        struct pool_waiter w[3];
        lido_lease lease = desk_acquire(desk);

        wait_tagged(desk, &w[0], NULL, LIDO_PRIORITY_NORMAL);
        clock_advance(1100 * NS_PER_MS); /* more than ageing_ms */
        wait_tagged(desk, &w[1], NULL, LIDO_PRIORITY_HIGH);
        wait_tagged(desk, &w[2], NULL, LIDO_PRIORITY_CRITICAL);

        ck_assert_int_eq(serve_all(lease, w, 3), 312);
        desk_end(desk);
}
END_TEST

START_TEST(a_class_that_is_none_is_refused)
{
        struct desk *desk = desk_of(1);
        struct lido_acquire_options options = LIDO_ACQUIRE_OPTIONS_INIT;
        lido_lease lease;

        options.priority = 4;
        ck_assert_int_eq(lido_acquire_with(desk->pool, &options, &lease), LIDO_EINVAL);
        options.priority = -1;
        ck_assert_int_eq(lido_acquire_with(desk->pool, &options, &lease), LIDO_EINVAL);
        desk_end(desk);
}
END_TEST

/* ---- shedding --------------------------------------------------------------------------------------------------------- */

START_TEST(a_burst_that_drains_is_no_standing_queue)
{
        struct codel codel = { 0 };
        uint64_t now = NS_PER_S;

        for (int i = 0; i < 100; i++) {
                now += 50 * NS_PER_MS;
                codel_note(&codel, i % 10 == 0 ? NS_PER_MS : 500 * NS_PER_MS, now, 50 * NS_PER_MS, 2 * NS_PER_S);
                ck_assert(!codel.is_slow);
        }
}
END_TEST

START_TEST(a_queue_whose_shortest_wait_is_long_stands_until_it_drains)
{
        struct codel codel = { 0 };
        uint64_t now = NS_PER_S;

        for (int i = 0; i < 100; i++) {
                now += 50 * NS_PER_MS;
                codel_note(&codel, 60 * NS_PER_MS, now, 50 * NS_PER_MS, 2 * NS_PER_S);
        }
        ck_assert(codel.is_slow);
        codel_note_empty(&codel);
        for (int i = 0; i < 50; i++) {
                now += 50 * NS_PER_MS;
                codel_note(&codel, 60 * NS_PER_MS, now, 50 * NS_PER_MS, 2 * NS_PER_S);
        }

        ck_assert(!codel.is_slow);
}
END_TEST

static struct desk *shedding_desk(int64_t target_ms)
{
        struct desk *desk = desk_new();

        desk->f.options.max = 1;
        desk->f.options.codel_target_ms = target_ms;
        desk->f.options.codel_interval_ms = 1000;
        desk_open(desk);
        desk_warm_up(desk, 1);
        return desk;
}

START_TEST(in_a_standing_queue_who_has_waited_too_long_is_shed_and_the_critical_never)
{
        struct desk *desk = shedding_desk(50);
        struct waiting w[4] = { { .calls = 0 } };
        struct pool_waiter critical;
        lido_lease lease = desk_acquire(desk);

        for (int i = 0; i < 4; i++)
                desk_wait(desk, &w[i], LIDO_NEVER);
        wait_tagged(desk, &critical, NULL, LIDO_PRIORITY_CRITICAL);
        desk_pass_time(desk, 10 * NS_PER_S); /* nothing comes back */

        for (int i = 0; i < 4; i++)
                ck_assert_int_eq(w[i].status, LIDO_ESHED);
        ck_assert_uint_ge(heard(&desk->f, LIDO_EVENT_SHED), 1);
        must_release(lease);
        must_release(gift_of(&critical));
        desk_end(desk);
}
END_TEST

START_TEST(nobody_is_shed_unless_it_is_asked_for)
{
        struct desk *desk = shedding_desk(LIDO_NEVER);
        struct waiting w = { .calls = 0 };
        lido_lease lease = desk_acquire(desk);

        desk_wait(desk, &w, LIDO_NEVER);
        desk_pass_time(desk, 3600 * NS_PER_S);

        ck_assert_uint_eq(w.calls, 0);
        must_release(lease);
        desk_turn(desk);
        must_release(w.lease);
        desk_end(desk);
}
END_TEST

int main(void)
{
        return suite_run("pool/quota", (const TTest *[]){
                                               no_more_is_lent_on_behalf_of_a_tag_than_its_quota,
                                               every_end_of_a_lease_gives_its_quota_back,
                                               whoever_waits_for_a_quota_stands_in_nobodys_way,
                                               a_freed_or_raised_quota_serves_one_who_waits_beside_idle_objects,
                                               there_is_room_for_fifteen_quotas,
                                               threads_of_one_tag_never_exceed_its_quota_and_none_is_forgotten,
                                               a_higher_class_is_served_before_a_lower_one_that_came_a_moment_earlier,
                                               a_lower_class_that_came_much_earlier_goes_first_so_that_nobody_starves,
                                               a_class_that_is_none_is_refused,
                                               a_burst_that_drains_is_no_standing_queue,
                                               a_queue_whose_shortest_wait_is_long_stands_until_it_drains,
                                               in_a_standing_queue_who_has_waited_too_long_is_shed_and_the_critical_never,
                                               nobody_is_shed_unless_it_is_asked_for,
                                               NULL,
                                       });
}
