/* A clock of the embedder's: main() sets it before lido is used, and each test moves it. Nothing here waits for real time to pass. */
#include "lido/clock.h"

#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "support/fixture.h"
#include "support/looper.h"
#include "support/suite.h"

static _Atomic uint64_t the_time = 1000 * NS_PER_S;
static _Atomic uint64_t slept;

static uint64_t read_time(void *context)
{
        return atomic_load((_Atomic uint64_t *)context);
}

static uint64_t read_boot(void *context)
{
        return read_time(context) + atomic_load(&slept);
}

static struct lido_clock our_clock(void)
{
        struct lido_clock clock = LIDO_CLOCK_INIT;

        clock.now_ns = read_time;
        clock.boot_ns = read_boot;
        clock.context = &the_time;
        return clock;
}

static void pass_ms(uint64_t ms)
{
        atomic_fetch_add(&the_time, ms * NS_PER_MS);
        lido_clock_moved();
}

/* ---- threads ---------------------------------------------------------------------------------------------- */

struct sleeper {
        struct lido_pool *pool;
        int64_t timeout_ms;
        int rc;
        lido_lease lease;
        uint64_t ended_ns;
        pthread_t thread;
};

static void *sleep_in_line(void *argument)
{
        struct sleeper *s = argument;

        s->rc = lido_acquire(s->pool, s->timeout_ms, &s->lease);
        s->ended_ns = lido_now_ns();
        return NULL;
}

static void sleeper_start(struct sleeper *s, struct lido_pool *pool, int64_t timeout_ms)
{
        s->pool = pool;
        s->timeout_ms = timeout_ms;
        must(pthread_create(&s->thread, NULL, sleep_in_line, s) == 0);
}

static int sleeper_join(struct sleeper *s)
{
        must(pthread_join(s->thread, NULL) == 0);
        return s->rc;
}

START_TEST(threads_asleep_time_out_when_the_clock_has_passed_their_deadline_and_not_before)
{
        struct fixture *f = pool_of(1);
        lido_lease lease = must_acquire(f);
        uint64_t began_ns = lido_now_ns();
        struct sleeper s[3];

        for (int i = 0; i < 3; i++)
                sleeper_start(&s[i], f->pool, 1000 * (i + 1));
        await_waiting(f->pool, 3);
        pass_ms(999);
        lido_clock_moved();
        pass_ms(1);
        ck_assert_int_eq(sleeper_join(&s[0]), LIDO_ETIMEDOUT);
        pass_ms(1000);
        ck_assert_int_eq(sleeper_join(&s[1]), LIDO_ETIMEDOUT);
        pass_ms(5000);
        ck_assert_int_eq(sleeper_join(&s[2]), LIDO_ETIMEDOUT);

        ck_assert_uint_eq(s[0].ended_ns - began_ns, 1000 * NS_PER_MS);
        ck_assert_uint_eq(s[1].ended_ns - began_ns, 2000 * NS_PER_MS);
        ck_assert_uint_eq(s[2].ended_ns - began_ns, 7000 * NS_PER_MS);
        must_release(lease);
        fixture_end(f);
}
END_TEST

START_TEST(a_waiter_is_served_while_the_clock_stands)
{
        struct fixture *f = pool_of(1);
        lido_lease lease = must_acquire(f);
        struct sleeper s;

        sleeper_start(&s, f->pool, 1);
        await_waiting(f->pool, 1);
        must_release(lease);

        ck_assert_int_eq(sleeper_join(&s), LIDO_OK);
        must_release(s.lease);
        fixture_end(f);
}
END_TEST

static struct rush {
        struct lido_pool *pool;
        _Atomic uint32_t left; /* threads at it */
        _Atomic uint32_t served, timed_out;
} rush;

static void *come_and_go(void *number)
{
        for (uint32_t i = 0; i < 200; i++) {
                int64_t timeout_ms = 1 + (i * 7 + *(uint32_t *)number) % 20;
                uint64_t deadline_ns = lido_now_ns() + (uint64_t)timeout_ms * NS_PER_MS;
                lido_lease lease;
                int rc = lido_acquire(rush.pool, timeout_ms, &lease);

                if (rc == LIDO_OK) {
                        atomic_fetch_add(&rush.served, 1);
                        for (int turn = 0; turn < 50; turn++)
                                give_way();
                        must_release(lease);
                } else {
                        must(rc == LIDO_ETIMEDOUT && lido_now_ns() >= deadline_ns);
                        atomic_fetch_add(&rush.timed_out, 1);
                }
        }
        atomic_fetch_sub(&rush.left, 1);
        return NULL;
}

START_TEST(nobody_sleeps_through_his_deadline_however_moves_and_looks_meet)
{
        struct fixture *f = pool_of(1);
        uint32_t number[4] = { 0, 1, 2, 3 };
        pthread_t thread[4];

        rush.pool = f->pool;
        atomic_store(&rush.left, 4);
        for (int i = 0; i < 4; i++)
                must(pthread_create(&thread[i], NULL, come_and_go, &number[i]) == 0);
        while (atomic_load(&rush.left) > 0) {
                pass_ms(1);
                give_way();
        }
        for (int i = 0; i < 4; i++)
                must(pthread_join(thread[i], NULL) == 0);

        ck_assert_uint_eq(atomic_load(&rush.served) + atomic_load(&rush.timed_out), 800);
        fixture_end(f);
}
END_TEST

/* ---- upkeep ----------------------------------------------------------------------------------------------- */

static _Atomic uint64_t told_ns[EVENT_TYPES]; /* the time of the latest event of a type */

static void note_time(struct fixture *f, const struct lido_event *event)
{
        (void)f;
        atomic_store(&told_ns[event->type], lido_now_ns());
}

static struct fixture *prepared(void)
{
        struct fixture *f = fixture_new();

        f->on_event = note_time;
        f->options.max = 1;
        return f;
}

START_TEST(an_idle_object_goes_after_the_idle_timeout_of_that_clock)
{
        struct fixture *f = prepared();
        uint64_t idle_since_ns;

        f->options.idle_timeout_ms = 600000;
        fixture_open(f);
        must_release(must_acquire(f));
        idle_since_ns = lido_now_ns();
        while (stats_of(f->pool).closed[LIDO_CLOSE_IDLE] == 0) {
                pass_ms(10000);
                give_way();
        }

        ck_assert_uint_ge(atomic_load(&told_ns[LIDO_EVENT_CLOSED]) - idle_since_ns, 600 * NS_PER_S);
        fixture_end(f);
}
END_TEST

START_TEST(an_object_lives_to_the_moment_as_long_as_that_clock_says)
{
        struct fixture *f = prepared();
        uint64_t born_ns;

        f->options.lifetime_ms = 1800000;
        f->options.lifetime_jitter = LIDO_NONE;
        f->options.idle_timeout_ms = LIDO_NEVER;
        fixture_open(f);
        must_release(must_acquire(f));
        born_ns = lido_now_ns();
        pass_ms(1799999);
        lido_clock_moved();
        pass_ms(1);
        ck_eventually(stats_of(f->pool).closed[LIDO_CLOSE_LIFETIME] == 1);

        ck_assert_uint_eq(atomic_load(&told_ns[LIDO_EVENT_CLOSED]) - born_ns, 1800 * NS_PER_S);
        fixture_end(f);
}
END_TEST

struct errand {
        struct lido_post post; /* first */
        _Atomic bool is_done;
};

static void do_errand(struct lido_post *post)
{
        atomic_store(&((struct errand *)(void *)post)->is_done, true);
}

/* What the service had to do before this is done after it. */
static void let_service_work(struct fixture *f)
{
        for (int i = 0; i < 3; i++) {
                struct errand errand = { .post = { .run = do_errand } };

                lido_clock_moved();
                lido_loop_post(lido_service_loop(f->service), &errand.post);
                ck_eventually(atomic_load(&errand.is_done));
        }
}

START_TEST(after_a_failure_nothing_is_tried_while_the_clock_stands)
{
        struct fixture *f = prepared();
        struct sleeper s;

        f->options.backoff_min_ms = 1000;
        f->options.backoff_max_ms = 1000;
        fake_once(&f->fake, FAKE_OPEN, (struct fake_step){ .status = LIDO_EFACTORY });
        fixture_open(f);
        sleeper_start(&s, f->pool, 3600000);
        ck_eventually(stats_of(f->pool).open_failed == 1);
        let_service_work(f);
        ck_assert_uint_eq(atomic_load(&f->fake.called[FAKE_OPEN]), 1);
        pass_ms(1000);

        ck_assert_int_eq(sleeper_join(&s), LIDO_OK);
        ck_assert_uint_eq(atomic_load(&f->fake.called[FAKE_OPEN]), 2);
        must_release(s.lease);
        fixture_end(f);
}
END_TEST

START_TEST(a_suspend_is_what_the_other_clock_has_gained)
{
        struct fixture *f = prepared();

        fixture_open(f);
        must_release(must_acquire(f));
        atomic_fetch_add(&slept, 3600 * NS_PER_S);
        lido_clock_moved();
        ck_eventually(heard(f, LIDO_EVENT_SUSPENDED) == 1);

        ck_assert_uint_eq(last_heard(f, LIDO_EVENT_SUSPENDED).age_ns, 3600 * NS_PER_S);
        fixture_end(f);
}
END_TEST

/* ---- loops ------------------------------------------------------------------------------------------------ */

struct alarm {
        struct lido_timer timer; /* first */
        uint64_t rung_ns;
};

static void ring(struct lido_timer *timer)
{
        ((struct alarm *)(void *)timer)->rung_ns = lido_now_ns();
}

START_TEST(a_timer_of_a_loop_runs_when_the_clock_has_been_moved_there)
{
        struct alarm alarm = { .timer = { .run = ring } };
        uint64_t began_ns = lido_now_ns();
        struct looper looper;

        looper_init(&looper);
        lido_timer_set(looper.loop, &alarm.timer, began_ns + 3600 * NS_PER_S);
        pass_ms(3599999);
        for (int i = 0; i < 10; i++)
                looper_turn(&looper);
        ck_assert_uint_eq(alarm.rung_ns, 0);
        pass_ms(1);
        ck_eventually(looper_turn(&looper) && alarm.rung_ns != 0);

        ck_assert_uint_eq(alarm.rung_ns, began_ns + 3600 * NS_PER_S);
        looper_fini(&looper);
}
END_TEST

START_TEST(requests_on_a_loop_and_without_one_time_out_by_that_clock)
{
        struct fixture *f = pool_of(1);
        lido_lease lease = must_acquire(f);
        struct asked asked = { .calls = 0 };
        struct looper looper;

        looper_init(&looper);
        ck_assert_int_eq(looper_ask(&looper, &asked, f->pool, 1000), LIDO_OK);
        pass_ms(999);
        for (int i = 0; i < 10; i++)
                looper_turn(&looper);
        ck_assert_uint_eq(asked.calls, 0);
        pass_ms(1);

        ck_assert_int_eq(looper_await(&looper, &asked), LIDO_ETIMEDOUT);
        must_release(lease);
        looper_fini(&looper);
        fixture_end(f);
}
END_TEST

/* ---- watches, children, and what is refused ---------------------------------------------------------------- */

static struct {
        struct lido_clock_watch watch; /* first */
        struct gate gate;
        _Atomic uint32_t calls;
        _Atomic bool has_left;
} watcher;

static void see(struct lido_clock_watch *watch)
{
        must(watch == &watcher.watch);
        atomic_fetch_add(&watcher.calls, 1);
        gate_wait(&watcher.gate);
        atomic_store(&watcher.has_left, true);
}

static void *move_clock(void *ignored)
{
        pass_ms(1);
        return ignored;
}

static void *unwatch(void *ignored)
{
        lido_clock_unwatch(&watcher.watch);
        must(atomic_load(&watcher.has_left));
        return ignored;
}

START_TEST(a_watch_is_told_of_each_move_and_not_left_before_it_has_returned)
{
        pthread_t mover, leaver;

        gate_init(&watcher.gate, false);
        watcher.watch.moved = see;
        lido_clock_watch(&watcher.watch);
        must(pthread_create(&mover, NULL, move_clock, NULL) == 0);
        gate_await(&watcher.gate, 1);
        must(pthread_create(&leaver, NULL, unwatch, NULL) == 0);
        gate_open(&watcher.gate);
        must(pthread_join(mover, NULL) == 0 && pthread_join(leaver, NULL) == 0);
        pass_ms(1);

        ck_assert_uint_eq(atomic_load(&watcher.calls), 1);
        lido_clock_unwatch(&watcher.watch); /* harmless */
}
END_TEST

static int live_in_child(void)
{
        struct fixture *f = pool_of(1);
        lido_lease lease = must_acquire(f);
        struct sleeper s;

        sleeper_start(&s, f->pool, 1000);
        await_waiting(f->pool, 1);
        pass_ms(1000);
        if (sleeper_join(&s) != LIDO_ETIMEDOUT)
                return 1;
        must_release(lease);
        fixture_end(f);
        return 0;
}

START_TEST(a_child_goes_by_the_same_clock_whoever_slept_in_its_parent)
{
        struct fixture *f = pool_of(1);
        lido_lease lease = must_acquire(f);
        struct sleeper s;
        int status;
        pid_t pid;

        sleeper_start(&s, f->pool, 1000);
        await_waiting(f->pool, 1);
        pid = fork();
        if (pid == 0)
                _exit(live_in_child());
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        pass_ms(1000);

        ck_assert_int_eq(sleeper_join(&s), LIDO_ETIMEDOUT);
        must_release(lease);
        fixture_end(f);
}
END_TEST

START_TEST(once_lido_has_looked_at_it_the_clock_cannot_change)
{
        struct lido_clock clock = our_clock();

        ck_assert_uint_eq(lido_now_ns(), atomic_load(&the_time));
        ck_assert_int_eq(lido_set_clock(&clock), LIDO_EBUSY);
        ck_assert_int_eq(lido_set_clock(NULL), LIDO_EBUSY);
        ck_assert_uint_eq(lido_now_ns(), atomic_load(&the_time));
        ck_assert_ptr_eq(lido_clock_in_use()->context, &the_time);
}
END_TEST

START_TEST(half_a_clock_is_refused)
{
        struct lido_clock clock = our_clock();

        clock.now_ns = NULL;
        ck_assert_int_eq(lido_set_clock(&clock), LIDO_EINVAL);
        clock = our_clock();
        clock.size = 3;
        ck_assert_int_eq(lido_set_clock(&clock), LIDO_EINVAL);
}
END_TEST

int main(void)
{
        struct lido_clock clock = our_clock();

        must(lido_set_clock(&clock) == LIDO_OK && lido_set_clock(NULL) == LIDO_OK); /* one may change one's mind */
        must(lido_set_clock(&clock) == LIDO_OK);
        return suite_run("base/timekeeper",
                         (const TTest *[]){
                                 threads_asleep_time_out_when_the_clock_has_passed_their_deadline_and_not_before,
                                 a_waiter_is_served_while_the_clock_stands,
                                 nobody_sleeps_through_his_deadline_however_moves_and_looks_meet,
                                 an_idle_object_goes_after_the_idle_timeout_of_that_clock,
                                 an_object_lives_to_the_moment_as_long_as_that_clock_says,
                                 after_a_failure_nothing_is_tried_while_the_clock_stands,
                                 a_suspend_is_what_the_other_clock_has_gained,
                                 a_timer_of_a_loop_runs_when_the_clock_has_been_moved_there,
                                 requests_on_a_loop_and_without_one_time_out_by_that_clock,
                                 a_watch_is_told_of_each_move_and_not_left_before_it_has_returned,
                                 a_child_goes_by_the_same_clock_whoever_slept_in_its_parent,
                                 once_lido_has_looked_at_it_the_clock_cannot_change,
                                 half_a_clock_is_refused,
                                 NULL,
                         });
}
