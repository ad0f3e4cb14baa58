/* The line: order, hand-over and poke, leaving it. Waiters here are mostly bare structs that the test settles itself, on a keeper
 * that the test drives (support/desk.h), so that every interleaving is made by hand. Deadlines in real time: tests/pool/lease.c.
 * Requests on a uv loop: tests/keeper/request.c. All of it at random: tests/storm.c.
 */
#include "pool/waitq.h"

#include <stdlib.h>

#include "pool/lease.h"
#include <string.h>

#include "support/crew.h"
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

/* A thread that would be asleep now. */
static struct pool_waiter *join(struct desk *desk, struct pool_waiter *w)
{
        struct pool_waiter new = { .pool = desk->pool, .began_ns = clock_now_ns(), .keeper_due_ns = CLOCK_NEVER };

        *w = new;
        waiter_init(&w->waiter, NULL);
        ck_assert_int_eq(waitq_join(desk->pool, w), LIDO_OK);
        return w;
}

static enum waiter_state state_of(struct pool_waiter *w)
{
        return (enum waiter_state)load_relaxed(&w->waiter.state);
}

/* A waiter was given something: take it as a lease. */
static lido_lease gift_of(struct pool_waiter *w)
{
        struct want want = { .site = "gift" };
        lido_lease lease = { NULL, 0 };

        ck_assert_int_eq(state_of(w), WAITER_GIVEN);
        ck_assert(lease_begin(w->pool, w->slot, w->generation, w->origin, &want, &lease));
        return lease;
}

/* Give a lease back after so short a hold that it is not handed over: the last contended release was just now. */
static void release_shortly(struct desk *desk, lido_lease lease)
{
        lease.slot->contended_ns = clock_now_ns();
        store_relaxed(&desk->pool->waitq.overtake_until_ns, clock_now_ns() + NS_PER_MS);
        must_release(lease);
}

START_TEST(a_slot_held_for_long_goes_from_hand_to_hand_to_the_oldest)
{
        struct desk *desk = desk_of(1);
        lido_lease lease = desk_acquire(desk), newcomer;
        struct pool_waiter a, b;

        join(desk, &a);
        join(desk, &b);
        clock_advance(NS_PER_S);
        must_release(lease);

        ck_assert_int_eq(state_of(&b), WAITER_WAITING);
        ck_assert_int_eq(lido_try_acquire(desk->pool, &newcomer), LIDO_EEXHAUSTED);
        ck_assert_ptr_null(lido_object(lease));
        lease = gift_of(&a);
        clock_advance(NS_PER_S);
        must_release(lease);
        must_release(gift_of(&b));
        desk_end(desk);
}
END_TEST

START_TEST(a_slot_held_shortly_falls_idle_and_the_oldest_is_asked_to_look)
{
        struct desk *desk = desk_of(1);
        lido_lease lease = desk_acquire(desk);
        struct pool_waiter a, b;

        join(desk, &a);
        join(desk, &b);
        release_shortly(desk, lease);

        ck_assert_int_eq(state_of(&a), WAITER_POKED);
        ck_assert_int_eq(state_of(&b), WAITER_WAITING);
        waitq_look(desk->pool, &a);
        must_release(gift_of(&a));
        waitq_look(desk->pool, &b);
        must_release(gift_of(&b));
        desk_end(desk);
}
END_TEST

START_TEST(at_most_one_poke_is_under_way)
{
        struct desk *desk = desk_of(2);
        lido_lease one = desk_acquire(desk), two = desk_acquire(desk);
        struct pool_waiter a, b;

        join(desk, &a);
        join(desk, &b);
        release_shortly(desk, one);
        release_shortly(desk, two);

        ck_assert_int_eq(state_of(&a), WAITER_POKED);
        ck_assert_int_eq(state_of(&b), WAITER_WAITING);
        waitq_look(desk->pool, &a); /* serving goes on until slots or waiters run out */
        must_release(gift_of(&a));
        must_release(gift_of(&b));
        desk_end(desk);
}
END_TEST

START_TEST(a_poke_taken_along_by_one_who_leaves_is_made_good)
{
        struct desk *desk = desk_of(1);
        lido_lease lease = desk_acquire(desk);
        struct pool_waiter a, b;

        join(desk, &a);
        join(desk, &b);
        release_shortly(desk, lease);
        ck_assert_int_eq(state_of(&a), WAITER_POKED);
        ck_assert(waiter_settle(&a.waiter, WAITER_TIMED_OUT));
        waitq_leave(desk->pool, &a);

        ck_assert_uint_eq(load_relaxed(&desk->pool->waitq.poke_sent), 0);
        must_release(gift_of(&b));
        desk_end(desk);
}
END_TEST

START_TEST(after_a_while_of_overtaking_the_next_release_hands_over)
{
        struct desk *desk = desk_of(1);
        lido_lease lease = desk_acquire(desk);
        struct pool_waiter a;
        unsigned overtaken = 0;

        join(desk, &a);
        lease.slot->contended_ns = clock_now_ns();
        store_relaxed(&desk->pool->waitq.overtake_until_ns, clock_now_ns() + 500 * NS_PER_US);
        while (state_of(&a) != WAITER_GIVEN) {
                ck_assert_uint_lt(overtaken, 100);
                clock_advance(10 * NS_PER_US);
                must_release(lease);
                if (state_of(&a) != WAITER_GIVEN)
                        lease = desk_acquire(desk);
                overtaken++;
        }

        ck_assert_uint_eq(overtaken, 50);
        must_release(gift_of(&a));
        desk_end(desk);
}
END_TEST

START_TEST(nobody_overtakes_where_that_is_forbidden)
{
        struct desk *desk = desk_new();
        struct pool_waiter a;
        lido_lease lease;

        desk->f.options.max = 1;
        desk->f.options.overtake_us = LIDO_NEVER;
        desk_open(desk);
        desk_warm_up(desk, 1);
        lease = desk_acquire(desk);
        join(desk, &a);
        release_shortly(desk, lease);

        must_release(gift_of(&a));
        desk_end(desk);
}
END_TEST

START_TEST(a_request_is_handed_to_even_after_a_short_hold)
{
        struct desk *desk = desk_of(1);
        lido_lease lease = desk_acquire(desk);
        struct waiting w = { .calls = 0 };

        ck_assert_int_eq(desk_wait(desk, &w, LIDO_NEVER), LIDO_OK);
        release_shortly(desk, lease);

        ck_assert_uint_eq(w.calls, 1);
        ck_assert_int_eq(w.status, LIDO_OK);
        must_release(w.lease);
        desk_end(desk);
}
END_TEST

START_TEST(threads_and_requests_stand_in_one_line)
{
        struct desk *desk = desk_of(1);
        lido_lease lease = desk_acquire(desk);
        struct waiting first = { .calls = 0 }, third = { .calls = 0 };
        struct pool_waiter second;

        desk_wait(desk, &first, LIDO_NEVER);
        join(desk, &second);
        desk_wait(desk, &third, LIDO_NEVER);

        clock_advance(NS_PER_S);
        must_release(lease);
        ck_assert_uint_eq(first.calls, 1);
        ck_assert_int_eq(state_of(&second), WAITER_WAITING);
        clock_advance(NS_PER_S);
        must_release(first.lease);
        ck_assert_uint_eq(third.calls, 0);
        lease = gift_of(&second);
        clock_advance(NS_PER_S);
        must_release(lease);
        ck_assert_uint_eq(third.calls, 1);
        must_release(third.lease);
        desk_end(desk);
}
END_TEST

START_TEST(a_gift_refused_by_one_who_has_just_timed_out_goes_to_the_next)
{
        struct desk *desk = desk_of(1);
        lido_lease lease = desk_acquire(desk);
        struct pool_waiter a, b;

        join(desk, &a);
        join(desk, &b);
        ck_assert(waiter_settle(&a.waiter, WAITER_TIMED_OUT)); /* it has not left the line yet */
        clock_advance(NS_PER_S);
        must_release(lease);

        must_release(gift_of(&b));
        waitq_leave(desk->pool, &a);
        ck_assert_uint_eq(waitq_length(desk->pool), 0);
        desk_end(desk);
}
END_TEST

START_TEST(a_gift_that_nobody_takes_falls_idle)
{
        struct desk *desk = desk_of(1);
        lido_lease lease = desk_acquire(desk);
        struct pool_waiter a;

        join(desk, &a);
        ck_assert(waiter_settle(&a.waiter, WAITER_CANCELED));
        clock_advance(NS_PER_S);
        must_release(lease);

        ck_assert_uint_eq(stats_of(desk->pool).idle, 1);
        waitq_leave(desk->pool, &a);
        must_release(desk_acquire(desk));
        desk_end(desk);
}
END_TEST

/* The server claims the idle slot, a try finds nothing and marks the pool exhausted, the waiter has just left: the slot falls
 * idle again, and the mark must go. */
START_TEST(a_served_slot_that_nobody_takes_is_seen_by_the_next_try)
{
        struct desk *desk = desk_of(1);
        struct pool_waiter a;
        lido_lease lease;

        join(desk, &a);
        ck_assert(waiter_settle(&a.waiter, WAITER_TIMED_OUT));
        or_seq_cst(&desk->pool->gate, GATE_EXHAUSTED);
        waitq_serve(desk->pool);
        waitq_leave(desk->pool, &a);

        ck_assert_int_eq(lido_try_acquire(desk->pool, &lease), LIDO_OK);
        must_release(lease);
        desk_end(desk);
}
END_TEST

/* As above, with the object at rest and the keeper asleep: it must come to rest again, or it will never be peeked. */
START_TEST(a_rested_slot_that_nobody_takes_comes_to_rest_again)
{
        struct desk *desk = desk_of(1);
        struct pool_waiter a;

        desk_pass_time(desk, 10 * NS_PER_S);
        ck_assert_int_eq(word_state(load_relaxed(&slots_at(&desk->pool->slots, 0)->word)), SLOT_RESTED);
        join(desk, &a);
        ck_assert(waiter_settle(&a.waiter, WAITER_TIMED_OUT));
        waitq_serve(desk->pool);
        waitq_leave(desk->pool, &a);
        ck_assert_int_eq(word_state(load_relaxed(&slots_at(&desk->pool->slots, 0)->word)), SLOT_IDLE);
        desk_pass_time(desk, 10 * NS_PER_S);

        ck_assert_int_eq(word_state(load_relaxed(&slots_at(&desk->pool->slots, 0)->word)), SLOT_RESTED);
        desk_end(desk);
}
END_TEST

START_TEST(serving_goes_on_until_slots_or_waiters_run_out)
{
        struct desk *desk = desk_of(40);
        struct pool_waiter w[50];
        unsigned given = 0;

        for (int i = 0; i < 50; i++)
                join(desk, &w[i]);
        waitq_serve(desk->pool);

        for (int i = 0; i < 50; i++) {
                if (state_of(&w[i]) == WAITER_GIVEN)
                        given++;
                ck_assert_int_eq(state_of(&w[i]), i < 40 ? WAITER_GIVEN : WAITER_WAITING);
        }
        ck_assert_uint_eq(given, 40);
        ck_assert_uint_eq(waitq_length(desk->pool), 10);
        for (int i = 0; i < 50; i++)
                must_release(gift_of(&w[i]));
        desk_end(desk);
}
END_TEST

START_TEST(one_who_leaves_is_out_wherever_he_stood)
{
        struct desk *desk = desk_of(1);
        lido_lease lease = desk_acquire(desk);
        struct pool_waiter w[5];

        for (int i = 0; i < 5; i++)
                join(desk, &w[i]);
        for (int i = 1; i < 5; i += 2) {
                ck_assert(waiter_settle(&w[i].waiter, WAITER_TIMED_OUT));
                waitq_leave(desk->pool, &w[i]);
                waitq_leave(desk->pool, &w[i]); /* once is enough, twice is harmless */
        }
        ck_assert_uint_eq(waitq_length(desk->pool), 3);

        for (int i = 0; i < 5; i += 2) {
                clock_advance(NS_PER_S);
                must_release(lease);
                lease = gift_of(&w[i]);
        }
        must_release(lease);
        desk_end(desk);
}
END_TEST

START_TEST(a_full_line_takes_nobody)
{
        struct desk *desk = desk_new();
        struct waiting w[3] = { { .calls = 0 } };
        lido_lease lease;

        desk->f.options.max = 1;
        desk->f.options.queue_limit = 2;
        desk_open(desk);
        desk_warm_up(desk, 1);
        lease = desk_acquire(desk);
        desk_wait(desk, &w[0], LIDO_NEVER);
        desk_wait(desk, &w[1], LIDO_NEVER);
        desk_wait(desk, &w[2], LIDO_NEVER);

        ck_assert_uint_eq(w[2].calls, 1);
        ck_assert_int_eq(w[2].status, LIDO_EQUEUEFULL);
        ck_assert_uint_eq(stats_of(desk->pool).waiting, 2);
        ck_assert_uint_eq(stats_of(desk->pool).refused, 1);
        must_release(lease);
        must_release(w[0].lease);
        must_release(w[1].lease);
        desk_end(desk);
}
END_TEST

/* A pool of one, which is lent to `holder`, with room for two in line. */
static struct desk *full_line(int policy, struct waiting *holder)
{
        struct desk *desk = desk_new();

        desk->f.options.max = 1;
        desk->f.options.queue_limit = 2;
        desk->f.options.queue_policy = policy;
        desk_open(desk);
        desk_warm_up(desk, 1);
        desk_wait(desk, holder, LIDO_NEVER);
        ck_assert_int_eq(holder->status, LIDO_OK);
        return desk;
}

START_TEST(a_full_line_may_drop_who_has_waited_longest)
{
        struct waiting holder = { .calls = 0 }, w[3] = { { .calls = 0 } };
        struct desk *desk = full_line(LIDO_LINE_DROP_OLDEST, &holder);

        for (int i = 0; i < 3; i++)
                desk_wait(desk, &w[i], LIDO_NEVER);
        ck_assert_int_eq(w[0].status, LIDO_ESHED);
        ck_assert_uint_eq(stats_of(desk->pool).shed, 1);
        ck_assert_uint_eq(stats_of(desk->pool).waiting, 2);
        must_release(holder.lease);
        must_release(w[1].lease);
        must_release(w[2].lease);
        desk_end(desk);
}
END_TEST

/* A waiter of a class, as a thread would be one. */
static void join_line(struct desk *desk, struct pool_waiter *w, int priority, int expected)
{
        memset(w, 0, sizeof *w);
        waiter_init(&w->waiter, NULL);
        w->pool = desk->pool;
        w->priority = (uint8_t)priority;
        w->began_ns = clock_now_ns();
        w->keeper_due_ns = CLOCK_NEVER;
        ck_assert_int_eq(waitq_join(desk->pool, w), expected);
}

static uint32_t outcome_of(struct pool_waiter *w)
{
        return load_relaxed(&w->waiter.state);
}

START_TEST(a_full_line_may_drop_the_lowest_class_for_a_higher_one_and_none_for_its_equal)
{
        struct waiting holder = { .calls = 0 };
        struct desk *desk = full_line(LIDO_LINE_DROP_LOWEST, &holder);
        struct pool_waiter normal, low, high, late, critical;

        join_line(desk, &normal, LIDO_PRIORITY_NORMAL, LIDO_OK);
        join_line(desk, &low, LIDO_PRIORITY_LOW, LIDO_OK);
        join_line(desk, &late, LIDO_PRIORITY_LOW, LIDO_EQUEUEFULL);
        join_line(desk, &high, LIDO_PRIORITY_HIGH, LIDO_OK);
        ck_assert_uint_eq(outcome_of(&low), WAITER_FAILED);
        ck_assert_int_eq(low.waiter.code, LIDO_ESHED);
        join_line(desk, &late, LIDO_PRIORITY_NORMAL, LIDO_EQUEUEFULL);
        join_line(desk, &critical, LIDO_PRIORITY_CRITICAL, LIDO_OK);
        ck_assert_uint_eq(outcome_of(&normal), WAITER_FAILED);

        waitq_fail_all(desk->pool, LIDO_ECANCELED);
        must_release(holder.lease);
        desk_end(desk);
}
END_TEST

START_TEST(nobody_of_a_higher_class_and_no_critical_one_is_dropped_for_another)
{
        struct waiting holder = { .calls = 0 };
        struct desk *desk = full_line(LIDO_LINE_DROP_OLDEST, &holder);
        struct pool_waiter high, critical, late;

        join_line(desk, &high, LIDO_PRIORITY_HIGH, LIDO_OK);
        join_line(desk, &critical, LIDO_PRIORITY_CRITICAL, LIDO_OK);
        join_line(desk, &late, LIDO_PRIORITY_NORMAL, LIDO_EQUEUEFULL);
        join_line(desk, &late, LIDO_PRIORITY_CRITICAL, LIDO_OK);
        ck_assert_uint_eq(outcome_of(&high), WAITER_FAILED);
        join_line(desk, &high, LIDO_PRIORITY_CRITICAL, LIDO_EQUEUEFULL);

        waitq_fail_all(desk->pool, LIDO_ECANCELED);
        must_release(holder.lease);
        desk_end(desk);
}
END_TEST

START_TEST(one_who_was_served_a_dead_object_keeps_his_place_in_a_full_line)
{
        struct desk *desk = desk_new();
        struct pool_waiter first, newcomer, again;
        lido_lease lease;

        desk->f.options.max = 1;
        desk->f.options.queue_limit = 1;
        desk_open(desk);
        desk_warm_up(desk, 1);
        lease = desk_acquire(desk);
        join(desk, &first);
        clock_advance(NS_PER_S);
        must_release(lease);
        lease = gift_of(&first);
        join(desk, &newcomer);
        struct pool_waiter front = { .pool = desk->pool, .keeper_due_ns = CLOCK_NEVER, .is_front = true };
        again = front;
        waiter_init(&again.waiter, NULL);

        ck_assert_int_eq(waitq_join(desk->pool, &again), LIDO_OK);
        clock_advance(NS_PER_S);
        must_release(lease);
        lease = gift_of(&again);
        clock_advance(NS_PER_S);
        must_release(lease);
        must_release(gift_of(&newcomer));
        desk_end(desk);
}
END_TEST

START_TEST(the_keeper_times_out_those_whose_deadline_it_keeps_exactly_then)
{
        struct desk *desk = desk_of(1);
        lido_lease lease = desk_acquire(desk);
        struct waiting w[3] = { { .calls = 0 } };
        uint64_t now = clock_now_ns();

        desk_wait(desk, &w[0], 300);
        desk_wait(desk, &w[1], 100);
        desk_wait(desk, &w[2], LIDO_NEVER);
        desk_pass_time(desk, 10 * NS_PER_S);

        ck_assert_int_eq(w[0].status, LIDO_ETIMEDOUT);
        ck_assert_int_eq(w[1].status, LIDO_ETIMEDOUT);
        ck_assert_uint_eq(w[0].called_ns, now + 300 * NS_PER_MS);
        ck_assert_uint_eq(w[1].called_ns, now + 100 * NS_PER_MS);
        ck_assert_uint_eq(w[2].calls, 0);
        ck_assert_uint_eq(stats_of(desk->pool).timed_out, 2);
        must_release(lease);
        must_release(w[2].lease);
        desk_end(desk);
}
END_TEST

START_TEST(a_cancelled_request_is_called_back_once_and_cannot_be_cancelled_again)
{
        struct desk *desk = desk_of(1);
        lido_lease lease = desk_acquire(desk);
        struct waiting w = { .calls = 0 };

        desk_wait(desk, &w, 100);
        ck_assert_int_eq(lido_cancel(&w.request), LIDO_OK);
        ck_assert_int_eq(lido_cancel(&w.request), LIDO_EINVAL);
        must_release(lease);
        desk_pass_time(desk, NS_PER_S);

        ck_assert_uint_eq(w.calls, 1);
        ck_assert_int_eq(w.status, LIDO_ECANCELED);
        ck_assert_uint_eq(stats_of(desk->pool).canceled, 1);
        ck_assert_uint_eq(stats_of(desk->pool).idle, 1);
        desk_end(desk);
}
END_TEST

START_TEST(closing_fails_all_who_wait)
{
        struct desk *desk = desk_of(1);
        lido_lease lease = desk_acquire(desk);
        struct waiting w[40] = { { .calls = 0 } };

        for (int i = 0; i < 40; i++)
                desk_wait(desk, &w[i], LIDO_NEVER);
        ck_assert_int_eq(lido_pool_close(desk->pool, LIDO_NEVER), LIDO_OK);

        for (int i = 0; i < 40; i++) {
                ck_assert_uint_eq(w[i].calls, 1);
                ck_assert_int_eq(w[i].status, LIDO_ECLOSED);
        }
        must_release(lease);
        desk_end(desk);
}
END_TEST

START_TEST(the_longest_line_there_was_is_remembered)
{
        struct desk *desk = desk_of(1);
        lido_lease lease = desk_acquire(desk);
        struct waiting w[3] = { { .calls = 0 } };

        for (int i = 0; i < 3; i++)
                desk_wait(desk, &w[i], LIDO_NEVER);
        for (int i = 0; i < 3; i++)
                lido_cancel(&w[i].request);

        ck_assert_uint_eq(stats_of(desk->pool).waiting, 0);
        ck_assert_uint_eq(stats_of(desk->pool).waiting_peak, 3);
        must_release(lease);
        desk_end(desk);
}
END_TEST

/* ---- many ------------------------------------------------------------------------------------------------ */

/* Nanoseconds for each of `count` cancels, last come first cancelled: the worst for whoever searches from the front. */
static uint64_t cost_of_a_cancel(struct desk *desk, struct waiting *w, unsigned count, int64_t timeout_ms)
{
        uint64_t began;

        for (unsigned i = 0; i < count; i++) {
                w[i].calls = 0;
                desk_wait(desk, &w[i], timeout_ms);
        }
        began = real_now_ns();
        for (unsigned i = count; i-- > 0;)
                lido_cancel(&w[i].request);
        return (real_now_ns() - began) / count;
}

static uint64_t least_cost(struct desk *desk, struct waiting *w, unsigned count, int64_t timeout_ms)
{
        uint64_t least = UINT64_MAX;

        for (int i = 0; i < 5; i++) {
                uint64_t cost = cost_of_a_cancel(desk, w, count, timeout_ms);

                least = cost < least ? cost : least;
        }
        return least;
}

/* Ten times as many may cost each of them some more (caches), but not ten times as much. */
START_TEST(each_of_ten_thousand_cancels_costs_no_more_than_each_of_a_thousand)
{
        struct desk *desk = desk_of(1);
        lido_lease lease = desk_acquire(desk);
        struct waiting *w = calloc(10000, sizeof *w);

        for (int64_t timeout_ms = LIDO_NEVER; timeout_ms < 1000; timeout_ms += 1000) {
                uint64_t few = least_cost(desk, w, 1000, timeout_ms), many = least_cost(desk, w, 10000, timeout_ms);

                ck_assert_msg(many < 6 * few + 200, "%lu ns each, %lu ns each of ten times as many", few, many);
        }
        ck_assert_uint_eq(stats_of(desk->pool).waiting, 0);
        ck_assert_uint_eq(stats_of(desk->pool).waiting_peak, 10000);
        ck_assert_uint_eq(stats_of(desk->pool).canceled, 2 * 5 * 11000);
        must_release(lease);
        free(w);
        desk_end(desk);
}
END_TEST

static void release_at_once(struct lido_request *request, int status, lido_lease lease)
{
        struct waiting *w = (struct waiting *)(void *)request;

        w->calls++;
        w->status = status;
        if (status == LIDO_OK)
                must_release(lease);
}

/* A callback that releases serves the next, whose callback releases: the stack must not grow with the line. */
START_TEST(a_hundred_thousand_callbacks_that_release_do_not_nest)
{
        struct desk *desk = desk_of(1);
        lido_lease lease = desk_acquire(desk);
        struct waiting *w = calloc(100000, sizeof *w);

        for (int i = 0; i < 100000; i++)
                ck_assert_int_eq(lido_acquire_notify(desk->pool, &w[i].request, LIDO_NEVER, release_at_once), LIDO_OK);
        must_release(lease);

        for (int i = 0; i < 100000; i++) {
                ck_assert_uint_eq(w[i].calls, 1);
                ck_assert_int_eq(w[i].status, LIDO_OK);
        }
        free(w);
        desk_end(desk);
}
END_TEST

/* ---- real threads ---------------------------------------------------------------------------------------- */

#define CROWD 20

START_TEST(sleeping_threads_are_served_in_the_order_in_which_they_came)
{
        struct fixture *f = pool_of(1);
        lido_lease lease = must_acquire(f);
        struct borrower b[CROWD] = { { .rc = 0 } };
        _Atomic uint32_t turn = 0;

        for (int i = 0; i < CROWD; i++) {
                b[i].turn = &turn;
                b[i].releases = true;
                borrower_queue(&b[i], f->pool, LIDO_NEVER);
        }
        must_release(lease);

        for (uint32_t i = 0; i < CROWD; i++) {
                ck_assert_int_eq(borrower_join(&b[i]), LIDO_OK);
                ck_assert_uint_eq(b[i].place, i);
        }
        check_quiet(f->pool);
        fixture_end(f);
}
END_TEST

struct crowd {
        struct fixture *f;
        _Atomic bool goes_home;
};

static void keep_busy(void *context, unsigned number)
{
        struct crowd *crowd = context;
        lido_lease lease;

        (void)number;
        while (!atomic_load(&crowd->goes_home))
                if (lido_try_acquire(crowd->f->pool, &lease) == LIDO_OK)
                        must_release(lease);
}

START_TEST(a_crowd_of_newcomers_cannot_starve_a_waiter)
{
        struct fixture *f = pool_of(1);
        struct crowd crowd = { .f = f };
        struct crew crew;
        lido_lease lease = must_acquire(f);
        struct borrower b = { .releases = true };

        borrower_queue(&b, f->pool, LIDO_NEVER);
        crew_start(&crew, 3, keep_busy, &crowd);
        must_release(lease);
        for (int i = 0; i < 50; i++) {
                ck_assert_int_eq(borrower_join(&b), LIDO_OK);
                borrower_start(&b, f->pool, PATIENCE_MS);
        }
        ck_assert_int_eq(borrower_join(&b), LIDO_OK);

        atomic_store(&crowd.goes_home, true);
        crew_join(&crew);
        fixture_end(f);
}
END_TEST

int main(void)
{
        return suite_run("pool/waitq", (const TTest *[]){
                                               a_slot_held_for_long_goes_from_hand_to_hand_to_the_oldest,
                                               a_slot_held_shortly_falls_idle_and_the_oldest_is_asked_to_look,
                                               at_most_one_poke_is_under_way,
                                               a_poke_taken_along_by_one_who_leaves_is_made_good,
                                               after_a_while_of_overtaking_the_next_release_hands_over,
                                               nobody_overtakes_where_that_is_forbidden,
                                               a_request_is_handed_to_even_after_a_short_hold,
                                               threads_and_requests_stand_in_one_line,
                                               a_gift_refused_by_one_who_has_just_timed_out_goes_to_the_next,
                                               a_gift_that_nobody_takes_falls_idle,
                                               a_served_slot_that_nobody_takes_is_seen_by_the_next_try,
                                               a_rested_slot_that_nobody_takes_comes_to_rest_again,
                                               serving_goes_on_until_slots_or_waiters_run_out,
                                               one_who_leaves_is_out_wherever_he_stood,
                                               a_full_line_takes_nobody,
                                               a_full_line_may_drop_who_has_waited_longest,
                                               a_full_line_may_drop_the_lowest_class_for_a_higher_one_and_none_for_its_equal,
                                               nobody_of_a_higher_class_and_no_critical_one_is_dropped_for_another,
                                               one_who_was_served_a_dead_object_keeps_his_place_in_a_full_line,
                                               the_keeper_times_out_those_whose_deadline_it_keeps_exactly_then,
                                               a_cancelled_request_is_called_back_once_and_cannot_be_cancelled_again,
                                               closing_fails_all_who_wait,
                                               the_longest_line_there_was_is_remembered,
                                               each_of_ten_thousand_cancels_costs_no_more_than_each_of_a_thousand,
                                               a_hundred_thousand_callbacks_that_release_do_not_nest,
                                               sleeping_threads_are_served_in_the_order_in_which_they_came,
                                               a_crowd_of_newcomers_cannot_starve_a_waiter,
                                               NULL,
                                       });
}
