/* The budget that pools share: fairness, stealing, and that no permit is lost. How keyed pools use it is tests/keyed. */
#include "support/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "pool/budget.h"
#include "pool/pool.h"
#include "pool/waitq.h"
#include "support/toys.h"

static struct lido_service *service;
static struct lido_budget *budget;

static void set_up(void)
{
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
}

static void tear_down(void)
{
        ck_assert_int_eq(lido_service_stop(service, 1000), LIDO_OK);
        lido_budget_free(budget);
        budget = NULL;
}

static void budget_of(uint32_t total)
{
        ck_assert_int_eq(lido_budget_new(&budget, total), LIDO_OK);
}

static struct lido_pool *pool_with(struct toys *toys, uint32_t max, uint32_t min)
{
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        struct lido_factory factory = toys_factory(toys);
        struct lido_pool *pool;

        options.max = max;
        options.min = min;
        options.budget = budget;
        options.rest_after_ms = 1;
        options.backoff_min_ms = 1;
        options.backoff_max_ms = 2;
        ck_assert_int_eq(lido_pool_open(&pool, service, &factory, &options), LIDO_OK);
        return pool;
}

static lido_lease must_acquire(struct lido_pool *pool)
{
        lido_lease lease = { NULL, 0 };

        ck_assert_int_eq(lido_acquire(pool, 20000, &lease), LIDO_OK);
        return lease;
}

static uint32_t used(void)
{
        struct lido_budget_stats stats = LIDO_BUDGET_STATS_INIT;

        ck_assert_int_eq(lido_budget_stats(budget, &stats), LIDO_OK);
        return stats.used;
}

static uint32_t in_line(void)
{
        struct lido_budget_stats stats = LIDO_BUDGET_STATS_INIT;

        ck_assert_int_eq(lido_budget_stats(budget, &stats), LIDO_OK);
        return stats.waiting;
}

static uint32_t waiting(struct lido_pool *pool)
{
        return waitq_length(pool);
}

static uint32_t idle(struct lido_pool *pool)
{
        uint32_t count[SLOT_STATES];

        slots_count(&pool->slots, count);
        return count[SLOT_IDLE] + count[SLOT_RESTED];
}

/* ---- somebody who waits for a lease on a thread of his own ------------------------------------------------- */

static _Atomic unsigned order;

struct waiting {
        pthread_t thread;
        struct lido_pool *pool;
        lido_lease lease;
        _Atomic int status; /* 1: not yet known */
        unsigned place;     /* in the order in which all were served */
};

static void *wait_for_lease(void *argument)
{
        struct waiting *w = argument;
        int rc = lido_acquire(w->pool, 20000, &w->lease);

        w->place = atomic_fetch_add(&order, 1);
        atomic_store(&w->status, rc);
        return NULL;
}

/* Begin to wait, and be in line when this returns. */
static void begin_to_wait(struct waiting *w, struct lido_pool *pool)
{
        uint32_t before = waiting(pool);

        w->pool = pool;
        atomic_store(&w->status, 1);
        ck_assert_int_eq(pthread_create(&w->thread, NULL, wait_for_lease, w), 0);
        until(waiting(pool) > before);
}

static void must_be_served(struct waiting *w)
{
        pthread_join(w->thread, NULL);
        ck_assert_msg(atomic_load(&w->status) == LIDO_OK, "%s: %s, in line %u, used %u", lido_pool_name(w->pool),
                      lido_err_name(atomic_load(&w->status)), in_line(), used());
}

/* ---- limits ------------------------------------------------------------------------------------------------ */

START_TEST(two_pools_never_have_more_than_the_total)
{
        static struct toys a, b;
        lido_lease lease;

        budget_of(3);
        struct lido_pool *first = pool_with(&a, 3, 0), *second = pool_with(&b, 3, 0);
        lido_lease held[] = { must_acquire(first), must_acquire(first), must_acquire(second) };
        ck_assert_int_eq(lido_acquire(first, 20, &lease), LIDO_ETIMEDOUT);
        ck_assert_int_eq(lido_acquire(second, 20, &lease), LIDO_ETIMEDOUT);

        ck_assert_uint_eq(atomic_load(&a.opened), 2);
        ck_assert_uint_eq(atomic_load(&b.opened), 1);
        ck_assert_uint_eq(used(), 3);
        budget_check(budget);
        lido_pool_free(first);
        lido_pool_free(second);
        lido_service_stop(service, 0); /* the leases stay out */
        ck_assert_uint_eq(used(), 3);
        for (int i = 0; i < 3; i++)
                lido_release(held[i]);
        ck_assert_uint_eq(used(), 0);
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
}
END_TEST

START_TEST(a_budget_of_none_is_refused)
{
        struct lido_budget *none = NULL;

        ck_assert_int_eq(lido_budget_new(&none, 0), LIDO_EINVAL);
        ck_assert_int_eq(lido_budget_new(NULL, 1), LIDO_EINVAL);
        ck_assert_ptr_null(none);
        lido_budget_free(NULL);
}
END_TEST

START_TEST(a_raised_total_is_used_at_once)
{
        static struct toys a;
        struct waiting w;

        budget_of(1);
        struct lido_pool *pool = pool_with(&a, 3, 0);
        lido_lease lease = must_acquire(pool);
        begin_to_wait(&w, pool);
        ck_assert_int_eq(lido_budget_resize(budget, 2), LIDO_OK);
        must_be_served(&w);

        lido_release(lease);
        lido_release(w.lease);
        ck_assert_int_eq(lido_budget_resize(budget, 0), LIDO_EINVAL);
        lido_pool_free(pool);
}
END_TEST

START_TEST(a_lowered_total_closes_what_is_idle_and_what_comes_back_down_to_min)
{
        static struct toys a;

        budget_of(4);
        struct lido_pool *pool = pool_with(&a, 4, 1);
        lido_lease lease[4];
        for (int i = 0; i < 4; i++)
                lease[i] = must_acquire(pool);
        lido_release(lease[0]);
        lido_release(lease[1]);
        ck_assert_int_eq(lido_budget_resize(budget, 1), LIDO_OK);
        until(atomic_load(&a.closed) == 2);
        lido_release(lease[2]);
        until(atomic_load(&a.closed) == 3);
        lido_release(lease[3]);
        until(idle(pool) == 1);
        until(used() == 1); /* a permit comes back a moment after its object has gone */

        ck_assert_uint_eq(atomic_load(&a.closed), 3);
        lido_pool_free(pool);
}
END_TEST

/* ---- stealing ---------------------------------------------------------------------------------------------- */

START_TEST(an_idle_object_of_another_pool_is_closed_for_a_waiter)
{
        static struct toys a, b;
        struct lido_stats stats = LIDO_STATS_INIT;

        budget_of(2);
        struct lido_pool *rich = pool_with(&a, 2, 0), *poor = pool_with(&b, 2, 0);
        lido_lease one = must_acquire(rich), two = must_acquire(rich);
        lido_release(one);
        lido_release(two);
        lido_lease mine = must_acquire(poor);

        ck_assert_int_eq(lido_pool_stats(rich, &stats), LIDO_OK);
        ck_assert_uint_eq(stats.closed[LIDO_CLOSE_STOLEN], 1);
        ck_assert_uint_eq(atomic_load(&a.closed), 1);
        lido_release(mine);
        budget_check(budget);
        lido_pool_free(rich);
        lido_pool_free(poor);
}
END_TEST

START_TEST(no_more_is_stolen_than_there_are_waiters)
{
        static struct toys a, b;

        budget_of(8);
        struct lido_pool *rich = pool_with(&a, 8, 0), *poor = pool_with(&b, 8, 0);
        lido_lease lease[8], mine;
        for (int i = 0; i < 8; i++)
                lease[i] = must_acquire(rich);
        for (int i = 0; i < 8; i++)
                lido_release(lease[i]);
        for (int i = 0; i < 4; i++) {
                mine = must_acquire(poor);
                lido_release(mine);
        }

        ck_assert_uint_eq(atomic_load(&a.closed), 1);
        ck_assert_uint_eq(atomic_load(&b.opened), 1);
        lido_pool_free(rich);
        lido_pool_free(poor);
}
END_TEST

START_TEST(a_pool_is_never_robbed_below_its_min)
{
        static struct toys a, b;
        lido_lease lease;

        budget_of(3);
        struct lido_pool *rich = pool_with(&a, 3, 2);
        until(idle(rich) == 2);
        struct lido_pool *poor = pool_with(&b, 3, 0);
        lido_lease mine = must_acquire(poor);
        ck_assert_int_eq(lido_acquire(poor, 30, &lease), LIDO_ETIMEDOUT);

        ck_assert_uint_eq(idle(rich), 2);
        ck_assert_uint_eq(atomic_load(&a.closed), 0);
        lido_release(mine);
        lido_pool_free(rich);
        lido_pool_free(poor);
}
END_TEST

START_TEST(the_pool_used_least_recently_is_robbed_first)
{
        static struct toys toys[3], t;
        struct lido_pool *pool[3];
        const int use[] = { 1, 2, 0 };

        budget_of(3);
        for (int i = 0; i < 3; i++)
                pool[i] = pool_with(&toys[i], 1, 0);
        for (int i = 0; i < 3; i++) {
                uint64_t before = load_relaxed(&pool[use[i]]->used_ns);
                lido_lease lease = must_acquire(pool[use[i]]);

                lido_release(lease);
                until(load_relaxed(&pool[use[i]]->used_ns) > before); /* a pass has noticed */
        }
        struct lido_pool *poor = pool_with(&t, 3, 0);
        lido_lease mine[3];
        for (int i = 0; i < 3; i++) {
                mine[i] = must_acquire(poor);
                ck_assert_uint_eq(atomic_load(&toys[use[i]].closed), 1);
                for (int k = i + 1; k < 3; k++)
                        ck_assert_uint_eq(atomic_load(&toys[use[k]].closed), 0);
        }

        for (int i = 0; i < 3; i++)
                lido_release(mine[i]);
        for (int i = 0; i < 3; i++)
                lido_pool_free(pool[i]);
        lido_pool_free(poor);
}
END_TEST

START_TEST(an_object_that_falls_idle_later_is_closed_for_one_who_waits_already)
{
        static struct toys a, b;
        struct waiting w;

        budget_of(1);
        struct lido_pool *rich = pool_with(&a, 1, 0), *poor = pool_with(&b, 1, 0);
        lido_lease lease = must_acquire(rich);
        begin_to_wait(&w, poor);
        until(in_line() == 1);
        lido_release(lease);
        must_be_served(&w);

        ck_assert_uint_eq(atomic_load(&a.closed), 1);
        lido_release(w.lease);
        lido_pool_free(rich);
        lido_pool_free(poor);
}
END_TEST

/* ---- fairness ---------------------------------------------------------------------------------------------- */

START_TEST(a_freed_permit_goes_to_the_pool_that_has_waited_longest)
{
        static struct toys toys[4];
        struct lido_pool *pool[4];
        struct waiting w[3];
        const int wait[] = { 2, 0, 1 };

        budget_of(1);
        atomic_store(&order, 0);
        for (int i = 0; i < 4; i++)
                pool[i] = pool_with(&toys[i], 1, 0);
        lido_lease lease = must_acquire(pool[3]);
        for (int i = 0; i < 3; i++) {
                begin_to_wait(&w[i], pool[wait[i]]);
                until(in_line() == (uint32_t)i + 1);
        }
        lido_release(lease);
        for (int i = 0; i < 3; i++) {
                must_be_served(&w[i]);
                ck_assert_uint_eq(w[i].place, i);
                lido_release(w[i].lease);
        }
        for (int i = 0; i < 4; i++)
                lido_pool_free(pool[i]);
}
END_TEST

START_TEST(a_busy_pool_does_not_starve_one_that_has_waited_longer)
{
        static struct toys a, b;
        struct waiting old, young;

        budget_of(1);
        atomic_store(&order, 0);
        struct lido_pool *busy = pool_with(&a, 1, 0), *poor = pool_with(&b, 1, 0);
        lido_lease lease = must_acquire(busy);
        begin_to_wait(&old, poor);
        until(in_line() == 1);
        begin_to_wait(&young, busy);
        lido_release(lease);
        must_be_served(&old);
        ck_assert_int_eq(atomic_load(&young.status), 1);
        lido_release(old.lease);
        must_be_served(&young);

        lido_release(young.lease);
        lido_pool_free(busy);
        lido_pool_free(poor);
}
END_TEST

START_TEST(a_pool_keeps_what_comes_back_for_its_own_waiter_if_he_came_first)
{
        static struct toys a, b;
        struct waiting old, young;

        budget_of(1);
        struct lido_pool *busy = pool_with(&a, 1, 0), *poor = pool_with(&b, 1, 0);
        lido_lease lease = must_acquire(busy);
        begin_to_wait(&old, busy);
        begin_to_wait(&young, poor);
        until(in_line() == 1);
        lido_release(lease);
        must_be_served(&old);
        ck_assert_uint_eq(atomic_load(&a.closed), 0);
        ck_assert_int_eq(atomic_load(&young.status), 1);
        lido_release(old.lease);
        must_be_served(&young);

        lido_release(young.lease);
        lido_pool_free(busy);
        lido_pool_free(poor);
}
END_TEST

START_TEST(one_who_has_given_up_leaves_the_line_to_the_next)
{
        static struct toys a, b, c;
        struct waiting w;
        lido_lease lease, none;

        budget_of(1);
        struct lido_pool *rich = pool_with(&a, 1, 0), *gone = pool_with(&b, 1, 0), *poor = pool_with(&c, 1, 0);
        lease = must_acquire(rich);
        ck_assert_int_eq(lido_acquire(gone, 10, &none), LIDO_ETIMEDOUT);
        begin_to_wait(&w, poor);
        until(in_line() == 1);
        lido_release(lease);
        must_be_served(&w);

        ck_assert_uint_eq(atomic_load(&b.opened), 0);
        lido_release(w.lease);
        lido_pool_free(rich);
        lido_pool_free(gone);
        lido_pool_free(poor);
}
END_TEST

static void never(uv_timer_t *timer)
{
        (void)timer;
}

static void note_detached(int status, void *context)
{
        *(int *)context = status + 1;
}

START_TEST(a_pool_whose_loop_stands_still_is_passed_over)
{
        static struct toys a, b, c;
        struct waiting stuck, next;
        struct lido_service *own = service, *attached;
        uv_loop_t loop;
        uv_timer_t keeps_going;
        int detached = 0;

        budget_of(1);
        uv_loop_init(&loop);
        uv_timer_init(&loop, &keeps_going);
        uv_timer_start(&keeps_going, never, 3600000, 0);
        ck_assert_int_eq(lido_service_attach(&attached, &loop, NULL), LIDO_OK);
        struct lido_pool *rich = pool_with(&a, 1, 0), *poor = pool_with(&b, 1, 0);
        service = attached;
        struct lido_pool *first = pool_with(&c, 1, 0);
        service = own;

        /* given one who has joined the line, and whose loop then stands still */
        lido_lease lease = must_acquire(rich);
        begin_to_wait(&stuck, first);
        until(uv_run(&loop, UV_RUN_NOWAIT) >= 0 && in_line() == 1);
        begin_to_wait(&next, poor);
        until(in_line() == 2);
        /* when a permit is freed */
        lido_discard(lease);
        /* then the next has it, and the one passed over has not lost his place for good */
        must_be_served(&next);
        lido_release(next.lease);
        until(uv_run(&loop, UV_RUN_NOWAIT) >= 0 && atomic_load(&stuck.status) != 1);
        must_be_served(&stuck);
        lido_release(stuck.lease);

        lido_pool_free(rich);
        lido_pool_free(poor);
        lido_pool_free(first);
        ck_assert_int_eq(lido_service_detach(attached, 1000, note_detached, &detached), LIDO_OK);
        uv_close((uv_handle_t *)&keeps_going, NULL);
        uv_run(&loop, UV_RUN_DEFAULT);
        ck_assert_int_eq(detached, 1);
        ck_assert_int_eq(uv_loop_close(&loop), 0);
}
END_TEST

START_TEST(pools_that_want_no_more_than_their_min_are_served_too)
{
        static struct toys toys[4];
        struct lido_pool *pool[4];

        /* given several of the same age, or rather of none, in line */
        budget_of(1);
        for (int i = 0; i < 4; i++)
                pool[i] = pool_with(&toys[i], 2, 1);
        until(in_line() == 3);
        /* when there is enough for all */
        ck_assert_int_eq(lido_budget_resize(budget, 4), LIDO_OK);
        for (int i = 0; i < 4; i++)
                until(idle(pool[i]) == 1);
        ck_assert_uint_eq(in_line(), 0);
        for (int i = 0; i < 4; i++)
                lido_pool_free(pool[i]);
}
END_TEST

START_TEST(those_who_tried_in_vain_do_not_call_each_other_for_ever)
{
        static struct toys toys[4];
        struct lido_pool *pool[4];
        lido_lease lease, none;

        budget_of(1);
        for (int i = 0; i < 4; i++)
                pool[i] = pool_with(&toys[i], 2, 0);
        lease = must_acquire(pool[0]);
        for (int i = 1; i < 4; i++) {
                ck_assert_int_eq(lido_try_acquire(pool[i], &none), LIDO_EEXHAUSTED);
                until(in_line() == (uint32_t)i);
        }
        ck_assert_int_eq(lido_budget_resize(budget, 4), LIDO_OK);
        for (int i = 1; i < 4; i++)
                until(idle(pool[i]) == 1);
        lido_release(lease);
        for (int i = 0; i < 4; i++)
                lido_pool_free(pool[i]);
}
END_TEST

struct tagged {
        struct lido_pool *pool;
        int rc;
};

static void *wait_for_quota(void *argument)
{
        struct lido_acquire_options options = LIDO_ACQUIRE_OPTIONS_INIT;
        struct tagged *tagged = argument;
        lido_lease lease;

        options.tag = "tag";
        options.timeout_ms = 100;
        tagged->rc = lido_acquire_with(tagged->pool, &options, &lease);
        return NULL;
}

START_TEST(what_a_waiter_leaves_behind_is_found)
{
        struct lido_acquire_options options = LIDO_ACQUIRE_OPTIONS_INIT;
        struct lido_pool_options never_rest = LIDO_POOL_OPTIONS_INIT;
        static struct toys a, b;
        struct lido_factory factory = toys_factory(&a);
        struct lido_pool *rich;
        struct tagged tagged;
        struct waiting w;
        pthread_t thread;
        lido_lease one, two;

        /* given an idle object before the eyes of one who may not take it, his quota being used up */
        budget_of(2);
        never_rest.max = 2;
        never_rest.budget = budget;
        never_rest.rest_after_ms = LIDO_NEVER;
        ck_assert_int_eq(lido_pool_open(&rich, service, &factory, &never_rest), LIDO_OK);
        ck_assert_int_eq(lido_pool_set_quota(rich, "tag", 1), LIDO_OK);
        options.tag = "tag";
        ck_assert_int_eq(lido_acquire_with(rich, &options, &one), LIDO_OK);
        two = must_acquire(rich);
        tagged.pool = rich;
        pthread_create(&thread, NULL, wait_for_quota, &tagged);
        until(waiting(rich) == 1);
        lido_release(two);
        /* when somebody else needs the permit, and the first one gives up */
        struct lido_pool *poor = pool_with(&b, 1, 0);
        begin_to_wait(&w, poor);
        pthread_join(thread, NULL);
        ck_assert_int_eq(tagged.rc, LIDO_ETIMEDOUT);
        must_be_served(&w);

        lido_release(one);
        lido_release(w.lease);
        lido_pool_free(rich);
        lido_pool_free(poor);
}
END_TEST

/* ---- no permit is lost ------------------------------------------------------------------------------------- */

START_TEST(a_failed_open_gives_its_permit_back)
{
        static struct toys a, b;

        budget_of(1);
        struct lido_pool *bad = pool_with(&a, 1, 0), *good = pool_with(&b, 1, 0);
        lido_lease lease;
        atomic_store(&a.fails, 1000000);
        ck_assert_int_eq(lido_acquire(bad, 0, &lease), LIDO_EEXHAUSTED);
        until(atomic_load(&a.asked) > 0);
        lease = must_acquire(good);

        lido_release(lease);
        ck_assert_uint_eq(used(), 1);
        lido_pool_free(bad);
        lido_pool_free(good);
}
END_TEST

START_TEST(detach_discard_and_close_give_permits_back)
{
        static struct toys a;
        void *object;

        budget_of(3);
        struct lido_pool *pool = pool_with(&a, 3, 0);
        lido_lease one = must_acquire(pool), two = must_acquire(pool), three = must_acquire(pool);
        ck_assert_int_eq(lido_detach(one, &object), LIDO_OK);
        free(object);
        until(used() == 2);
        lido_discard(two);
        until(used() == 1);
        lido_release(three);
        lido_pool_free(pool);
        until(used() == 0);
}
END_TEST

START_TEST(a_lease_that_outlives_pool_service_and_budget_gives_its_permit_back)
{
        static struct toys a;

        budget_of(1);
        struct lido_pool *pool = pool_with(&a, 1, 0);
        lido_lease lease = must_acquire(pool);
        lido_pool_free(pool);
        ck_assert_int_eq(lido_service_stop(service, 0), LIDO_ETIMEDOUT);
        ck_assert_uint_eq(used(), 1);
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        ck_assert_uint_eq(used(), 0);
        ck_assert_uint_eq(atomic_load(&a.ended), 1);
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
}
END_TEST

START_TEST(a_budget_freed_before_its_pools_goes_on_to_count)
{
        static struct toys a, b;
        lido_lease lease, none;

        budget_of(1);
        struct lido_pool *one = pool_with(&a, 1, 0), *two = pool_with(&b, 1, 0);
        lido_budget_free(budget);
        budget = NULL;
        lease = must_acquire(one);
        ck_assert_int_eq(lido_acquire(two, 20, &none), LIDO_ETIMEDOUT);
        lido_release(lease);
        lease = must_acquire(two);
        lido_release(lease);
        lido_pool_free(one);
        lido_pool_free(two);
}
END_TEST

START_TEST(a_child_is_told_that_the_budget_is_its_parents)
{
        struct lido_budget_stats stats = LIDO_BUDGET_STATS_INIT;
        int status;

        budget_of(1);
        pid_t child = fork();
        if (child == 0)
                _exit(lido_budget_stats(budget, &stats) == LIDO_EFORKED && lido_budget_resize(budget, 2) == LIDO_EFORKED ? 7 : 1);
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}
END_TEST

/* ---- storm ------------------------------------------------------------------------------------------------- */

#define STORM_POOLS 5
#define STORM_THREADS 6

static struct lido_pool *storm_pool[STORM_POOLS];
static _Atomic unsigned storm_served;

static void storm_failed(int rc)
{
        fprintf(stderr, "%s\n", lido_err_name(rc));
        abort();
}

static void *storm(void *argument)
{
        unsigned seed = (unsigned)(uintptr_t)argument * 7919u + 1;

        for (int i = 0; i < 400; i++) {
                struct lido_pool *pool = storm_pool[rand_r(&seed) % STORM_POOLS];
                int64_t timeout_ms = (int64_t[]){ 0, 1, 20000 }[rand_r(&seed) % 3];
                lido_lease lease;
                void *object;
                int rc = lido_acquire(pool, timeout_ms, &lease);

                if (rc != LIDO_OK) {
                        if (timeout_ms == 20000)
                                storm_failed(rc); /* nobody waits so long when all holds are short */
                        continue;
                }
                atomic_fetch_add(&storm_served, 1);
                switch (rand_r(&seed) % 12) {
                case 0:
                        lido_discard(lease);
                        break;
                case 1:
                        if (lido_detach(lease, &object) == LIDO_OK) {
                                atomic_fetch_sub(&((struct toys *)lido_pool_context(pool))->live, 1);
                                free(object);
                        }
                        break;
                case 2:
                        toys_yield();
                        /* fall through */
                default:
                        lido_release(lease);
                }
        }
        return NULL;
}

START_TEST(in_a_storm_no_permit_is_lost_and_nobody_is_forgotten)
{
        static struct toys toys[STORM_POOLS];
        pthread_t thread[STORM_THREADS];
        struct lido_service *own = service, *other;

        budget_of(3);
        ck_assert_int_eq(lido_service_start(&other, NULL), LIDO_OK);
        for (int i = 0; i < STORM_POOLS; i++) {
                service = i % 2 ? other : own;
                storm_pool[i] = pool_with(&toys[i], 2, i == 0);
                atomic_store(&toys[i].fails, 5);
        }
        service = own;
        for (uintptr_t i = 0; i < STORM_THREADS; i++)
                pthread_create(&thread[i], NULL, storm, (void *)i);
        for (int i = 0; i < STORM_THREADS; i++)
                pthread_join(thread[i], NULL);
        ck_assert_uint_gt(atomic_load(&storm_served), 100);
        for (int i = 0; i < STORM_POOLS; i++)
                lido_pool_free(storm_pool[i]);
        until(used() == 0);
        ck_assert_int_eq(lido_service_stop(other, 1000), LIDO_OK);
}
END_TEST

int main(void)
{
        return suite_run_with("pool/budget",
                              (const TTest *[]){
                                      two_pools_never_have_more_than_the_total,
                                      a_budget_of_none_is_refused,
                                      a_raised_total_is_used_at_once,
                                      a_lowered_total_closes_what_is_idle_and_what_comes_back_down_to_min,
                                      an_idle_object_of_another_pool_is_closed_for_a_waiter,
                                      no_more_is_stolen_than_there_are_waiters,
                                      a_pool_is_never_robbed_below_its_min,
                                      the_pool_used_least_recently_is_robbed_first,
                                      an_object_that_falls_idle_later_is_closed_for_one_who_waits_already,
                                      a_freed_permit_goes_to_the_pool_that_has_waited_longest,
                                      a_busy_pool_does_not_starve_one_that_has_waited_longer,
                                      a_pool_keeps_what_comes_back_for_its_own_waiter_if_he_came_first,
                                      one_who_has_given_up_leaves_the_line_to_the_next,
                                      a_pool_whose_loop_stands_still_is_passed_over,
                                      pools_that_want_no_more_than_their_min_are_served_too,
                                      those_who_tried_in_vain_do_not_call_each_other_for_ever,
                                      what_a_waiter_leaves_behind_is_found,
                                      a_failed_open_gives_its_permit_back,
                                      detach_discard_and_close_give_permits_back,
                                      a_lease_that_outlives_pool_service_and_budget_gives_its_permit_back,
                                      a_budget_freed_before_its_pools_goes_on_to_count,
                                      a_child_is_told_that_the_budget_is_its_parents,
                                      in_a_storm_no_permit_is_lost_and_nobody_is_forgotten,
                                      NULL,
                              },
                              set_up, tear_down);
}
