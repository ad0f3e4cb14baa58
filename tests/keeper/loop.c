/* A uv loop that borrows: posts and the bell that announces them, timers, and the end. Acquiring on it: tests/keeper/request.c. */
#include "keeper/loop.h"

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "base/thread.h"
#include "support/crew.h"
#include "support/looper.h"
#include "support/suite.h"

#define POSTERS 4u
#define POSTS 5000u

struct numbered {
        struct lido_post post; /* first */
        struct traffic *traffic;
        uint32_t sender, number;
};

struct traffic {
        struct looper looper;
        struct numbered posts[POSTERS][POSTS];
        uint32_t next[POSTERS], run;
};

static void run_post(struct lido_post *post)
{
        struct numbered *numbered = (struct numbered *)(void *)post;
        struct traffic *traffic = numbered->traffic;

        must(lido_loop_is_self(traffic->looper.loop));
        must(numbered->number == traffic->next[numbered->sender]);
        traffic->next[numbered->sender]++;
        traffic->run++;
}

static void send_all(void *context, unsigned number)
{
        struct traffic *traffic = context;

        must(!lido_loop_is_self(traffic->looper.loop));
        for (uint32_t i = 0; i < POSTS; i++) {
                struct numbered *numbered = &traffic->posts[number][i];

                numbered->post.run = run_post;
                numbered->traffic = traffic;
                numbered->sender = number;
                numbered->number = i;
                lido_loop_post(traffic->looper.loop, &numbered->post);
        }
}

START_TEST(posts_from_many_threads_all_run_on_the_loop_each_senders_in_order)
{
        static struct traffic traffic;
        struct crew crew;

        looper_init(&traffic.looper);
        lido_loop_hold(traffic.looper.loop);
        crew_start(&crew, POSTERS, send_all, &traffic);
        ck_eventually(looper_turn(&traffic.looper) && traffic.run == POSTERS * POSTS);
        crew_join(&crew);
        lido_loop_unhold(traffic.looper.loop);

        looper_fini(&traffic.looper);
}
END_TEST

static _Thread_local bool is_stopped_after_write;
static _Atomic uint32_t has_run, has_given_up;

/* For who is to be stopped: the loop has been told, by whatever descriptor, and he stays inside until it has come round. Visible,
 * so that libuv calls it as well. */
__attribute__((visibility("default"))) ssize_t write(int fd, const void *bytes, size_t size)
{
        ssize_t put = syscall(SYS_write, fd, bytes, size);
        uint64_t give_up = real_now_ns() + PATIENCE_MS / 4 * NS_PER_MS;

        while (is_stopped_after_write && !load_acquire(&has_run)) {
                if (real_now_ns() >= give_up) {
                        store_release(&has_given_up, 1);
                        break;
                }
                thread_yield();
        }
        return put;
}

static void note_run(struct lido_post *post)
{
        (void)post;
        store_release(&has_run, 1);
}

static void post_and_be_stopped(void *looper_pointer, unsigned number)
{
        struct looper *looper = looper_pointer;
        static struct lido_post post = { .run = note_run };

        (void)number;
        is_stopped_after_write = true;
        lido_loop_post(looper->loop, &post);
        is_stopped_after_write = false;
}

START_TEST(who_loses_the_processor_inside_a_post_does_not_hold_up_the_loop)
{
        struct looper looper;
        struct crew crew;

        looper_init(&looper);
        lido_loop_hold(looper.loop);
        crew_start(&crew, 1, post_and_be_stopped, &looper);
        ck_eventually(looper_turn(&looper) && load_acquire(&has_run));
        crew_join(&crew);
        ck_assert_uint_eq(load_acquire(&has_given_up), 0);
        lido_loop_unhold(looper.loop);

        looper_fini(&looper);
}
END_TEST

START_TEST(an_unused_loop_does_not_keep_uv_run_going)
{
        struct looper looper;

        looper_init(&looper);
        ck_assert_int_eq(uv_run(&looper.uv, UV_RUN_DEFAULT), 0);
        ck_assert_ptr_eq(lido_loop_uv(looper.loop), &looper.uv);

        looper_fini(&looper);
}
END_TEST

struct ticking {
        struct lido_timer timer; /* first */
        struct looper *looper;
        uint32_t runs;
        uint64_t ran_ns;
        struct ticking *clears, *sets;
        uint64_t sets_ns;
};

static void tick(struct lido_timer *timer)
{
        struct ticking *t = (struct ticking *)(void *)timer;

        t->runs++;
        t->ran_ns = clock_now_ns();
        if (t->clears)
                lido_timer_clear(t->looper->loop, &t->clears->timer);
        if (t->sets)
                lido_timer_set(t->looper->loop, &t->sets->timer, t->sets_ns);
}

static void prepare(struct ticking *t, struct looper *looper)
{
        memset(t, 0, sizeof *t);
        t->timer.run = tick;
        t->looper = looper;
}

START_TEST(timers_run_at_their_time_and_in_its_order)
{
        struct looper looper;
        struct ticking t[5];
        uint64_t now = clock_now_ns();
        static const int order[] = { 3, 0, 4, 1, 2 };

        looper_init(&looper);
        for (int i = 0; i < 5; i++) {
                prepare(&t[i], &looper);
                lido_timer_set(looper.loop, &t[i].timer, now + (uint64_t)(order[i] + 1) * 3 * NS_PER_MS);
        }
        ck_assert_int_eq(uv_run(&looper.uv, UV_RUN_DEFAULT), 0); /* armed timers keep it going, and nothing else does */

        for (int i = 0; i < 5; i++) {
                ck_assert_uint_eq(t[i].runs, 1);
                ck_assert_uint_ge(t[i].ran_ns, now + (uint64_t)(order[i] + 1) * 3 * NS_PER_MS);
                for (int k = 0; k < 5; k++)
                        if (order[i] < order[k])
                                ck_assert_uint_le(t[i].ran_ns, t[k].ran_ns);
        }
        looper_fini(&looper);
}
END_TEST

START_TEST(a_timer_that_is_cleared_or_moved_runs_not_or_later)
{
        struct looper looper;
        struct ticking cleared, moved;
        uint64_t now = clock_now_ns();

        looper_init(&looper);
        prepare(&cleared, &looper);
        prepare(&moved, &looper);
        lido_timer_set(looper.loop, &cleared.timer, now + NS_PER_MS);
        lido_timer_set(looper.loop, &moved.timer, now + NS_PER_MS);
        lido_timer_set(looper.loop, &moved.timer, now + 10 * NS_PER_MS);
        lido_timer_clear(looper.loop, &cleared.timer);
        lido_timer_clear(looper.loop, &cleared.timer);
        uv_run(&looper.uv, UV_RUN_DEFAULT);

        ck_assert_uint_eq(cleared.runs, 0);
        ck_assert_uint_eq(moved.runs, 1);
        ck_assert_uint_ge(moved.ran_ns, now + 10 * NS_PER_MS);
        looper_fini(&looper);
}
END_TEST

START_TEST(a_timer_set_to_never_is_cleared)
{
        struct looper looper;
        struct ticking t;

        looper_init(&looper);
        prepare(&t, &looper);
        lido_timer_set(looper.loop, &t.timer, clock_now_ns() + NS_PER_MS);
        lido_timer_set(looper.loop, &t.timer, CLOCK_NEVER);
        uv_run(&looper.uv, UV_RUN_DEFAULT);

        ck_assert_uint_eq(t.runs, 0);
        looper_fini(&looper);
}
END_TEST

START_TEST(a_timer_may_clear_and_set_others_and_itself)
{
        struct looper looper;
        struct ticking a, b, c;
        uint64_t now = clock_now_ns();

        looper_init(&looper);
        prepare(&a, &looper);
        prepare(&b, &looper);
        prepare(&c, &looper);
        a.clears = &b;
        a.sets = &c;
        a.sets_ns = now + 3 * NS_PER_MS;
        lido_timer_set(looper.loop, &a.timer, now + NS_PER_MS);
        lido_timer_set(looper.loop, &b.timer, now + NS_PER_MS);
        uv_run(&looper.uv, UV_RUN_DEFAULT);

        ck_assert_uint_eq(a.runs, 1);
        ck_assert_uint_le(b.runs, 1); /* of two due together either may be first */
        ck_assert_uint_eq(c.runs, 1);
        looper_fini(&looper);
}
END_TEST

/* ---- the end ------------------------------------------------------------------------------------------------------------------ */

static void note_closed(void *context)
{
        bool *is_closed = context;

        *is_closed = true;
}

static void clear_and_close(uv_timer_t *timer)
{
        struct ticking *t = timer->data;

        if (t->timer.run)
                lido_timer_clear(t->looper->loop, &t->timer);
        else
                lido_loop_unhold(t->looper->loop);
        uv_close((uv_handle_t *)timer, NULL);
}

/* Close a loop that something holds, which is given up in a callback that is none of lido's. */
static void close_held_loop(bool by_timer)
{
        struct looper looper;
        struct ticking t;
        uv_timer_t timer;
        bool is_closed = false;

        looper_init(&looper);
        prepare(&t, &looper);
        if (by_timer) {
                lido_timer_set(looper.loop, &t.timer, clock_now_ns() + 3600 * NS_PER_S);
        } else {
                t.timer.run = NULL;
                lido_loop_hold(looper.loop);
        }
        uv_timer_init(&looper.uv, &timer);
        timer.data = &t;
        uv_timer_start(&timer, clear_and_close, 5, 0);
        lido_loop_close(looper.loop, note_closed, &is_closed);
        lido_loop_close(looper.loop, note_closed, &is_closed); /* twice is harmless */
        uv_run(&looper.uv, UV_RUN_NOWAIT);
        ck_assert(!is_closed);
        ck_assert_int_eq(uv_run(&looper.uv, UV_RUN_DEFAULT), 0); /* or it never returns */

        ck_assert(is_closed);
        ck_assert_uint_eq(t.runs, 0);
        ck_assert_int_eq(uv_loop_close(&looper.uv), 0);
}

START_TEST(a_loop_closes_when_its_last_hold_is_given_up_elsewhere)
{
        close_held_loop(false);
}
END_TEST

START_TEST(a_loop_closes_when_its_last_timer_is_cleared_elsewhere)
{
        close_held_loop(true);
}
END_TEST

START_TEST(what_is_no_loop_is_refused)
{
        struct lido_loop *loop = NULL;
        uv_loop_t uv;

        uv_loop_init(&uv);
        ck_assert_int_eq(lido_loop_open(NULL, &uv), LIDO_EINVAL);
        ck_assert_int_eq(lido_loop_open(&loop, NULL), LIDO_EINVAL);
        ck_assert_ptr_null(loop);
        lido_loop_close(NULL, NULL, NULL);
        ck_assert_int_eq(uv_loop_close(&uv), 0);
}
END_TEST

static void post_until_told(void *context, unsigned number)
{
        struct numbered *numbered = context;

        lido_loop_post(numbered[number].traffic->looper.loop, &numbered[number].post);
}

static void run_and_unhold(struct lido_post *post)
{
        struct numbered *numbered = (struct numbered *)(void *)post;

        numbered->traffic->run++;
        lido_loop_unhold(numbered->traffic->looper.loop);
}

START_TEST(a_loop_may_be_closed_while_others_post_to_it_under_a_hold)
{
        for (int round = 0; round < 200; round++) {
                static struct traffic traffic;
                struct numbered numbered[3];
                struct crew crew;

                memset(&traffic, 0, sizeof traffic);
                looper_init(&traffic.looper);
                for (int i = 0; i < 3; i++) {
                        numbered[i].post.run = run_and_unhold;
                        numbered[i].traffic = &traffic;
                        lido_loop_hold(traffic.looper.loop);
                }
                crew_start(&crew, 3, post_until_told, numbered);
                looper_fini(&traffic.looper);
                crew_join(&crew);
                must(traffic.run == 3);
        }
}
END_TEST

int main(void)
{
        return suite_run("keeper/loop", (const TTest *[]){
                                                posts_from_many_threads_all_run_on_the_loop_each_senders_in_order,
                                                who_loses_the_processor_inside_a_post_does_not_hold_up_the_loop,
                                                an_unused_loop_does_not_keep_uv_run_going,
                                                timers_run_at_their_time_and_in_its_order,
                                                a_timer_that_is_cleared_or_moved_runs_not_or_later,
                                                a_timer_set_to_never_is_cleared,
                                                a_timer_may_clear_and_set_others_and_itself,
                                                a_loop_closes_when_its_last_hold_is_given_up_elsewhere,
                                                a_loop_closes_when_its_last_timer_is_cleared_elsewhere,
                                                what_is_no_loop_is_refused,
                                                a_loop_may_be_closed_while_others_post_to_it_under_a_hold,
                                                NULL,
                                        });
}
