/* Backtraces of acquires: which leases have one, and where they are shown. The walk itself: tests/base/stack.c. */
#include "pool/trace.h"

#include <string.h>
#include <uv.h>

#include "base/stack.h"
#include "support/crew.h"
#include "support/desk.h"
#include "support/suite.h"

static struct desk *traced(uint32_t max, uint32_t every)
{
        struct desk *desk = desk_new();

        desk->f.options.max = max;
        desk->f.options.backtrace_every = every;
        desk->f.options.leak_after_ms = 5000;
        desk_open(desk);
        desk_warm_up(desk, max);
        return desk;
}

static __attribute__((noinline)) lido_lease borrow_here(struct desk *desk)
{
        lido_lease lease = desk_acquire(desk);

        __asm__ volatile("" ::: "memory"); /* no tail call */
        return lease;
}

static bool is_in_borrow_here(void *const *frame, uint32_t count)
{
        for (uint32_t i = 0; i < count; i++)
                if ((uintptr_t)frame[i] > (uintptr_t)borrow_here && (uintptr_t)frame[i] < (uintptr_t)borrow_here + 1000)
                        return true;
        return false;
}

static uint32_t frames_of(struct desk *desk, lido_lease lease)
{
        void *frame[TRACE_FRAMES];

        return trace_read(desk->pool, lease.slot, lease.generation, frame, TRACE_FRAMES);
}

#ifdef HAVE_BACKTRACE
START_TEST(the_blame_report_shows_where_a_holder_was_when_it_acquired)
{
        struct desk *desk = traced(1, 1);
        struct lido_blame blame = LIDO_BLAME_INIT;
        lido_lease lease = borrow_here(desk);
        char text[4000];

        ck_assert_int_eq(lido_pool_blame(desk->pool, &blame), LIDO_OK);
        ck_assert_uint_eq(blame.holders, 1);
        ck_assert(is_in_borrow_here(blame.holder[0].frame, blame.holder[0].frame_count));
        lido_blame_text(&blame, text, sizeof text);
        ck_assert_ptr_nonnull(strstr(text, " < "));
        must_release(lease);
        desk_end(desk);
}
END_TEST

static _Atomic uint32_t shown;

static void look(struct fixture *f, const struct lido_event *event)
{
        (void)f;
        if (event->type == LIDO_EVENT_LEAK)
                shown += is_in_borrow_here(event->frames, event->frame_count);
}

START_TEST(the_report_of_a_leak_shows_it_too)
{
        struct desk *desk = traced(1, 1);
        lido_lease lease;

        desk->f.on_event = look;
        lease = borrow_here(desk);
        desk_pass_time(desk, 10 * NS_PER_S);

        ck_assert_uint_eq(shown, 1);
        must_release(lease);
        desk_end(desk);
}
END_TEST

START_TEST(one_lease_in_so_many_has_a_trace)
{
        struct desk *desk = traced(1, 4);
        uint32_t traces = 0;

        for (int i = 0; i < 40; i++) {
                lido_lease lease = borrow_here(desk);

                traces += frames_of(desk, lease) > 0;
                must_release(lease);
        }

        ck_assert_uint_eq(traces, 10);
        desk_end(desk);
}
END_TEST

START_TEST(it_can_be_switched_on_and_off_and_a_pool_can_grow_with_it)
{
        struct desk *desk = traced(1, 0);
        struct lido_pool_options options = desk->f.options;
        lido_lease lease[40];

        lease[0] = borrow_here(desk);
        ck_assert_uint_eq(frames_of(desk, lease[0]), 0);
        must_release(lease[0]);
        options.backtrace_every = 1;
        ck_assert_int_eq(lido_pool_reconfigure(desk->pool, &options, NULL), LIDO_OK);
        ck_assert_int_eq(lido_pool_resize(desk->pool, 40), LIDO_OK);
        desk_turn(desk);
        desk_warm_up(desk, 40);
        for (int i = 0; i < 40; i++) {
                lease[i] = borrow_here(desk);
                ck_assert_uint_gt(frames_of(desk, lease[i]), 0);
        }
        for (int i = 0; i < 40; i++)
                must_release(lease[i]);

        options.max = 40;
        options.backtrace_every = 0;
        ck_assert_int_eq(lido_pool_reconfigure(desk->pool, &options, NULL), LIDO_OK);
        lease[0] = borrow_here(desk);
        ck_assert_uint_eq(frames_of(desk, lease[0]), 0);
        must_release(lease[0]);
        desk_end(desk);
}
END_TEST
#endif

START_TEST(off_it_costs_the_hot_path_nothing)
{
        struct desk *desk = traced(1, 0);

        ck_assert_uint_eq(load_relaxed(&desk->pool->gate) & GATE_CAREFUL_ACQUIRE, 0);
        ck_assert_ptr_null(load_relaxed(&desk->pool->traces.chunk[0]));
        desk_end(desk);
}
END_TEST

START_TEST(frames_have_names_and_a_text_that_is_cut_says_how_long_it_is)
{
        void *frame[2] = { (char *)(uintptr_t)uv_version + 1, (void *)32 };
        char text[300], part[8];
        size_t length = lido_frames_text(frame, 2, text, sizeof text);

        ck_assert_uint_eq(length, strlen(text));
        ck_assert_ptr_nonnull(strstr(text, " < 0x20"));
        ck_assert_uint_eq(lido_frames_text(frame, 2, part, sizeof part), length);
        ck_assert_uint_eq(strlen(part), 7);
        ck_assert_uint_eq(lido_frames_text(frame, 0, text, sizeof text), 0);
        ck_assert_str_eq(text, "");
}
END_TEST

/* ---- read beside those who write ------------------------------------------------------------------------------------------ */

struct stage {
        struct fixture *f;
        _Atomic uint32_t done;
};

static void borrow_or_read(void *context, unsigned number)
{
        struct stage *stage = context;
        struct lido_blame blame = LIDO_BLAME_INIT;

        if (number > 0) {
                for (int i = 0; i < 2000; i++)
                        must_release(must_acquire(stage->f));
                atomic_fetch_add(&stage->done, 1);
                return;
        }
        while (atomic_load(&stage->done) < 3) {
                must(lido_pool_blame(stage->f->pool, &blame) == LIDO_OK);
                for (uint32_t i = 0; i < blame.holders; i++)
                        for (uint32_t k = 0; k < blame.holder[i].frame_count; k++)
                                must(blame.holder[i].frame[k] != NULL);
        }
}

START_TEST(a_report_beside_borrowers_shows_whole_traces_or_none)
{
        struct stage stage = { .f = fixture_new() };

        stage.f->options.max = 2;
        stage.f->options.backtrace_every = 2;
        fixture_open(stage.f);
        crew_run(4, borrow_or_read, &stage);
        fixture_end(stage.f);
}
END_TEST

int main(void)
{
        return suite_run("pool/trace", (const TTest *[]){
#ifdef HAVE_BACKTRACE
                                               the_blame_report_shows_where_a_holder_was_when_it_acquired,
                                               the_report_of_a_leak_shows_it_too,
                                               one_lease_in_so_many_has_a_trace,
                                               it_can_be_switched_on_and_off_and_a_pool_can_grow_with_it,
#endif
                                               off_it_costs_the_hot_path_nothing,
                                               frames_have_names_and_a_text_that_is_cut_says_how_long_it_is,
                                               a_report_beside_borrowers_shows_whole_traces_or_none,
                                               NULL,
                                       });
}
