/* The service: its loop thread or the embedder's loop, and its end. The pools on it: tests/keeper/lifecycle.c. */
#include "lido/service.h"

#include <dirent.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "pool/slots.h"
#include "support/crew.h"
#include "support/fixture.h"
#include "support/suite.h"

/* It survives no thread that is started after such a fork, and puts signals off while a thread sleeps on a futex. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_THREAD_SANITIZER 1
#endif
#endif

static unsigned count_entries(const char *path)
{
        DIR *folder = opendir(path);
        unsigned count = 0;

        ck_assert_ptr_nonnull(folder);
        while (readdir(folder))
                count++;
        closedir(folder);
        return count;
}

START_TEST(a_service_starts_and_stops_and_leaves_nothing_behind)
{
        struct lido_service *service;
        unsigned files, threads;

        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK); /* libuv keeps something for ever at its first use */
        ck_assert_int_eq(lido_service_stop(service, 0), LIDO_OK);
        files = count_entries("/proc/self/fd");
        threads = count_entries("/proc/self/task");
        for (int i = 0; i < 20; i++) {
                ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
                ck_assert_int_eq(lido_service_stop(service, 0), LIDO_OK);
        }

        ck_assert_uint_eq(count_entries("/proc/self/fd"), files);
        ck_assert_uint_eq(count_entries("/proc/self/task"), threads);
}
END_TEST

START_TEST(options_out_of_range_are_refused)
{
        struct lido_service_options options = LIDO_SERVICE_OPTIONS_INIT;
        struct lido_service *service = NULL;

        options.helpers = 1000;
        ck_assert_int_eq(lido_service_start(&service, &options), LIDO_EINVAL);
        options.helpers = 1;
        options.reserved = 1;
        ck_assert_int_eq(lido_service_start(&service, &options), LIDO_EINVAL);
        ck_assert_int_eq(lido_service_start(NULL, NULL), LIDO_EINVAL);
        ck_assert_int_eq(lido_service_attach(&service, NULL, NULL), LIDO_EINVAL);
        ck_assert_int_eq(lido_service_stop(NULL, 0), LIDO_EINVAL);
        ck_assert_ptr_null(service);
}
END_TEST

/* Lifetimes, less their jitter, of the objects of a pool on a service with this seed. */
static void draw_lifetimes(uint64_t seed, uint64_t life_ns[8])
{
        struct fixture *f = fixture_new();
        lido_lease lease[8];

        f->service_options.seed = seed;
        f->options.open_limit = 1;
        f->options.max = 8;
        fixture_open(f);
        for (int i = 0; i < 8; i++)
                lease[i] = must_acquire(f);
        for (int i = 0; i < 8; i++) {
                life_ns[i] = lease[i].slot->expires_ns - load_relaxed(&lease[i].slot->born_ns);
                must_release(lease[i]);
        }
        fixture_end(f);
}

START_TEST(a_seed_makes_the_jitter_of_a_run_repeatable)
{
        uint64_t once[8], again[8], other[8];

        draw_lifetimes(42, once);
        draw_lifetimes(42, again);
        draw_lifetimes(43, other);

        ck_assert_mem_eq(once, again, sizeof once);
        ck_assert_mem_ne(once, other, sizeof once);
}
END_TEST

START_TEST(a_stop_with_a_timeout_that_is_none_is_refused)
{
        struct fixture *f = pool_of(1);

        ck_assert_int_eq(lido_service_stop(f->service, -5), LIDO_EINVAL);

        must_release(must_acquire(f));
        fixture_end(f);
}
END_TEST

START_TEST(stopping_closes_the_pools_and_fails_those_who_wait)
{
        struct fixture *f = pool_of(1);
        lido_lease lease = must_acquire(f);
        struct borrower b = { .rc = 0 };

        borrower_queue(&b, f->pool, PATIENCE_MS);
        must_release(lease);
        ck_assert_int_eq(borrower_join(&b), LIDO_OK);
        must_release(b.lease);
        ck_assert_int_eq(lido_service_stop(f->service, PATIENCE_MS), LIDO_OK);
        f->service = NULL;

        ck_assert_int_eq(lido_try_acquire(f->pool, &lease), LIDO_ECLOSED);
        ck_assert_int_eq(lido_acquire(f->pool, 1000, &lease), LIDO_ECLOSED);
        ck_assert_uint_eq(atomic_load(&f->fake.alive), 0);
        fixture_end(f);
}
END_TEST

START_TEST(a_lease_that_outlives_the_service_ends_its_object_itself)
{
        struct fixture *f = pool_of(2);
        lido_lease lease = must_acquire(f), second = must_acquire(f);

        ck_assert_int_eq(lido_service_stop(f->service, 10), LIDO_ETIMEDOUT);
        f->service = NULL;
        ck_assert_uint_eq(heard(f, LIDO_EVENT_HOLDER), 2);
        ck_assert_uint_eq(atomic_load(&f->fake.interrupts), 2);
        ck_assert_ptr_nonnull(lido_object(lease));
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        ck_assert_uint_eq(atomic_load(&f->fake.alive), 1);
        ck_assert_int_ne(lido_release(lease), LIDO_OK);
        ck_assert_int_eq(lido_discard(second), LIDO_OK);

        ck_assert_uint_eq(atomic_load(&f->fake.alive), 0);
        ck_assert_uint_eq(atomic_load(&f->fake.ends), 1);
        fixture_end(f);
}
END_TEST

START_TEST(a_lease_that_outlives_service_and_pool_may_be_detached)
{
        struct fixture *f = pool_of(1);
        lido_lease lease = must_acquire(f);
        void *object = NULL;

        lido_pool_free(f->pool);
        f->pool = NULL;
        ck_assert_int_eq(lido_service_stop(f->service, 0), LIDO_ETIMEDOUT);
        f->service = NULL;
        fake_forget(&f->fake);
        ck_assert_int_eq(lido_detach(lease, &object), LIDO_OK);

        ck_assert_uint_eq(atomic_load(&f->fake.ends), 1);
        fake_drop(object);
        fixture_end(f);
}
END_TEST

START_TEST(a_service_outlives_its_pools)
{
        struct fixture *f = pool_of(1);
        struct lido_pool *pool = NULL;
        lido_lease lease = must_acquire(f);
        struct fake other;

        fake_init(&other);
        lido_pool_close(f->pool, LIDO_NEVER);
        must_release(lease);
        ck_assert_int_eq(lido_pool_drain(f->pool, PATIENCE_MS), LIDO_OK);
        ck_assert_int_eq(lido_pool_open(&pool, f->service, &other.factory, NULL), LIDO_OK);
        lido_pool_free(pool);
        ck_eventually(atomic_load(&other.ends) == 1);
        fake_fini(&other);
        fixture_end(f);
}
END_TEST

struct rush {
        struct fixture *f;
        _Atomic bool is_over;
        _Atomic uint64_t ok, closed;
        _Atomic unsigned here; /* a bit for each thread that has begun */
};

static void borrow_until_closed(void *context, unsigned number)
{
        struct rush *rush = context;

        (void)number;
        while (!atomic_load(&rush->is_over)) {
                lido_lease lease;
                int rc = lido_acquire(rush->f->pool, PATIENCE_MS, &lease);

                if (rc == LIDO_OK) {
                        must_release(lease);
                        atomic_fetch_add(&rush->ok, 1);
                } else {
                        must(rc == LIDO_ECLOSED);
                        atomic_fetch_add(&rush->closed, 1);
                }
        }
}

START_TEST(stopping_under_load_loses_nothing)
{
        for (int i = 0; i < 30; i++) {
                struct fixture *f = pool_of(3);
                struct rush rush = { .f = f };
                struct crew crew;

                if (i % 2)
                        fake_always(&f->fake, FAKE_CLOSE, (struct fake_step){ .way = FAKE_THREAD });
                crew_start(&crew, 4, borrow_until_closed, &rush);
                ck_eventually(atomic_load(&rush.ok) > 50);
                ck_assert_int_eq(lido_service_stop(f->service, PATIENCE_MS), LIDO_OK);
                f->service = NULL;
                ck_eventually(atomic_load(&rush.closed) > 4);
                atomic_store(&rush.is_over, true);
                crew_join(&crew);
                fixture_end(f);
        }
}
END_TEST

/* ---- on the embedder's loop ----------------------------------------------------------------------------------------- */

struct guest {
        uv_loop_t loop;
        uv_timer_t work; /* what the embedder's loop is there for */
        struct fixture *f;
        int detached;
};

static void on_detached(int status, void *context)
{
        struct guest *guest = context;

        guest->detached = status;
}

static void do_something(uv_timer_t *work)
{
        (void)work;
}

static void begin_work(struct guest *guest)
{
        uv_timer_init(&guest->loop, &guest->work);
        uv_timer_start(&guest->work, do_something, 1, 1);
}

static void end_work(struct guest *guest)
{
        uv_close((uv_handle_t *)&guest->work, NULL);
}

static void attach(struct guest *guest, uint32_t max)
{
        guest->detached = 1;
        guest->f = fixture_new();
        guest->f->options.max = max;
        ck_assert_int_eq(uv_loop_init(&guest->loop), 0);
        ck_assert_int_eq(lido_service_attach(&guest->f->service, &guest->loop, NULL), LIDO_OK);
        fixture_open(guest->f);
}

static bool run_once(struct guest *guest)
{
        uv_run(&guest->loop, UV_RUN_NOWAIT);
        return true;
}

static void detach(struct guest *guest, int64_t timeout_ms, int status)
{
        ck_assert_int_eq(lido_service_detach(guest->f->service, timeout_ms, on_detached, guest), LIDO_OK);
        ck_assert_int_eq(lido_service_detach(guest->f->service, timeout_ms, on_detached, guest), LIDO_EBUSY);
        ck_assert_int_eq(uv_run(&guest->loop, UV_RUN_DEFAULT), 0);
        ck_assert_int_eq(guest->detached, status);
        guest->f->service = NULL;
        ck_assert_int_eq(uv_loop_close(&guest->loop), 0);
}

START_TEST(an_attached_service_works_while_the_embedder_runs_its_loop)
{
        struct guest guest;
        lido_lease lease;

        attach(&guest, 1);
        begin_work(&guest);
        ck_assert_int_eq(lido_acquire(guest.f->pool, 1000, &lease), LIDO_EDEADLK); /* this is the loop's thread */
        ck_eventually(run_once(&guest) && lido_try_acquire(guest.f->pool, &lease) == LIDO_OK);
        must_release(lease);
        ck_assert_int_eq(lido_service_stop(guest.f->service, 0), LIDO_EINVAL);
        end_work(&guest);
        detach(&guest, PATIENCE_MS, LIDO_OK);
        fixture_end(guest.f);
}
END_TEST

START_TEST(an_attached_service_does_not_keep_the_loop_going)
{
        struct guest guest;

        attach(&guest, 1);
        ck_assert_int_eq(uv_run(&guest.loop, UV_RUN_DEFAULT), 0); /* returns: nothing else is on the loop */

        detach(&guest, 0, LIDO_OK);
        fixture_end(guest.f);
}
END_TEST

START_TEST(a_detached_service_leaves_its_leases_to_their_holders)
{
        struct guest guest;
        lido_lease lease;

        attach(&guest, 1);
        begin_work(&guest);
        ck_eventually(run_once(&guest) && lido_try_acquire(guest.f->pool, &lease) == LIDO_OK);
        end_work(&guest);
        detach(&guest, 5, LIDO_ETIMEDOUT);
        ck_assert_int_eq(lido_release(lease), LIDO_OK);

        ck_assert_uint_eq(atomic_load(&guest.f->fake.alive), 0);
        fixture_end(guest.f);
}
END_TEST

/* ---- process life ------------------------------------------------------------------------------------------------------ */

#if !defined(UNDER_THREAD_SANITIZER)
static _Atomic int signals;

static void count_signal(int number)
{
        (void)number;
        atomic_fetch_add(&signals, 1);
}

START_TEST(signals_interrupt_no_wait)
{
        struct fixture *f = pool_of(1);
        struct sigaction action = { .sa_handler = count_signal }; /* no SA_RESTART: EINTR wherever it can be */
        lido_lease lease = must_acquire(f);
        struct borrower b = { .rc = 0 };

        sigaction(SIGUSR1, &action, NULL);
        borrower_queue(&b, f->pool, PATIENCE_MS);
        for (int i = 0; i < 200; i++) {
                ck_assert_int_eq(pthread_kill(b.thread, SIGUSR1), 0);
                ck_eventually(atomic_load(&signals) > i);
        }
        ck_assert(!atomic_load(&b.is_done));
        must_release(lease);

        ck_assert_int_eq(borrower_join(&b), LIDO_OK);
        must_release(b.lease);
        fixture_end(f);
}
END_TEST
#endif

/* What the child must find out without harming anything of the parent's. */
static int live_as_child(struct fixture *f, lido_lease lease)
{
        struct lido_stats stats = LIDO_STATS_INIT;
        struct lido_pool *pool;
        lido_lease mine;
        void *object;

        if (lido_acquire(f->pool, 1000, &mine) != LIDO_EFORKED || lido_try_acquire(f->pool, &mine) != LIDO_EFORKED)
                return 1;
        if (lido_release(lease) != LIDO_EFORKED)
                return 2;
        if (lido_discard(lease) == LIDO_OK || lido_detach(lease, &object) == LIDO_OK)
                return 3;
        if (lido_pool_close(f->pool, 0) != LIDO_EFORKED || lido_pool_resize(f->pool, 3) != LIDO_EFORKED)
                return 4;
        if (lido_service_stop(f->service, 0) != LIDO_EFORKED)
                return 5;
        if (lido_pool_open(&pool, f->service, &f->fake.factory, NULL) != LIDO_EFORKED)
                return 6;
        lido_pool_stats(f->pool, &stats);
        lido_pool_free(f->pool);
        return atomic_load(&f->fake.closed) == 0 && atomic_load(&f->fake.ends) == 0 ? 0 : 7;
}

START_TEST(a_child_is_told_that_the_pool_is_its_parents_and_harms_nothing)
{
        struct fixture *f = pool_of(2);
        lido_lease lease = must_acquire(f);
        int status;
        pid_t pid = fork();

        if (pid == 0)
                _exit(live_as_child(f, lease));
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert_int_eq(status, 0);

        ck_assert_ptr_nonnull(lido_object(lease));
        must_release(lease);
        must_release(must_acquire(f));
        ck_assert_uint_eq(atomic_load(&f->fake.closed), 0);
        fixture_end(f);
}
END_TEST

#if !defined(UNDER_THREAD_SANITIZER)
static int start_over(void)
{
        struct lido_service *service;
        struct lido_pool *pool;
        struct fake fake;
        lido_lease lease;

        fake_init(&fake);
        if (lido_service_start(&service, NULL) != LIDO_OK || lido_pool_open(&pool, service, &fake.factory, NULL) != LIDO_OK)
                return 1;
        if (lido_acquire(pool, PATIENCE_MS, &lease) != LIDO_OK || lido_release(lease) != LIDO_OK)
                return 2;
        lido_pool_free(pool);
        if (lido_service_stop(service, PATIENCE_MS) != LIDO_OK)
                return 3;
        return atomic_load(&fake.alive) == 0 ? 0 : 4;
}

static uint32_t live_of(struct lido_pool *pool)
{
        struct lido_stats stats = LIDO_STATS_INIT;

        must(lido_pool_stats(pool, &stats) == LIDO_OK);
        return stats.live;
}

static void borrow_a_while(void *context, unsigned number)
{
        struct rush *rush = context;

        atomic_fetch_or(&rush->here, 1u << number);
        while (!atomic_load(&rush->is_over)) {
                must_release(must_acquire(rush->f));
                atomic_fetch_add(&rush->ok, 1);
        }
}

START_TEST(a_child_may_start_a_service_of_its_own_whatever_its_parent_was_doing)
{
        struct fixture *f = pool_of(2);
        struct rush rush = { .f = f };
        struct crew crew;

        crew_start(&crew, 3, borrow_a_while, &rush);
        /* Whoever allocates holds a lock of the address sanitizer's allocator, which a child would wait for: let the threads be started, and
         * the objects open. From then on to borrow allocates nothing. */
        ck_eventually(atomic_load(&rush.here) == 7 && atomic_load(&rush.ok) > 10000 && live_of(f->pool) == 2);
        for (int i = 0; i < 20; i++) {
                int status;
                pid_t pid = fork();

                if (pid == 0)
                        _exit(start_over());
                ck_assert_int_eq(waitpid(pid, &status, 0), pid);
                ck_assert_int_eq(status, 0);
        }
        atomic_store(&rush.is_over, true);
        crew_join(&crew);
        fixture_end(f);
}
END_TEST
#endif

int main(void)
{
        return suite_run("keeper/service",
                         (const TTest *[]){
                                 a_service_starts_and_stops_and_leaves_nothing_behind,
                                 options_out_of_range_are_refused,
                                 a_seed_makes_the_jitter_of_a_run_repeatable,
                                 a_stop_with_a_timeout_that_is_none_is_refused,
                                 stopping_closes_the_pools_and_fails_those_who_wait,
                                 a_lease_that_outlives_the_service_ends_its_object_itself,
                                 a_lease_that_outlives_service_and_pool_may_be_detached,
                                 a_service_outlives_its_pools,
                                 stopping_under_load_loses_nothing,
                                 an_attached_service_works_while_the_embedder_runs_its_loop,
                                 an_attached_service_does_not_keep_the_loop_going,
                                 a_detached_service_leaves_its_leases_to_their_holders,
#if !defined(UNDER_THREAD_SANITIZER)
                                 signals_interrupt_no_wait,
#endif
                                 a_child_is_told_that_the_pool_is_its_parents_and_harms_nothing,
#if !defined(UNDER_THREAD_SANITIZER)
                                 a_child_may_start_a_service_of_its_own_whatever_its_parent_was_doing,
#endif
                                 NULL,
                         });
}
