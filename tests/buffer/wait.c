/* At the cap: waiting in line by thread and by loop, its outcomes, the reserve. Races of all of these are in
 * storm.c. */
#include <pthread.h>
#include <uv.h>

#include "base/clock.h"
#include "base/thread.h"
#include "buffer/support.h"

/* Spin until a condition of another thread's making holds. */
#define until(condition)     \
        while (!(condition)) \
        thread_yield()

struct taker {
        pthread_t thread;
        struct lido_buffer_pool *pool;
        size_t bytes;
        int64_t timeout_ms;
        int rc;
        void *buffer;
        _Atomic int done;
        _Atomic int *order; /* counted up when served */
        int place;
};

static void *take(void *context)
{
        struct taker *t = context;

        t->rc = lido_buffer_timed_acquire(t->pool, t->bytes, t->timeout_ms, &t->buffer);
        if (t->order)
                t->place = atomic_fetch_add(t->order, 1);
        atomic_store(&t->done, 1);
        return NULL;
}

static void start_taker(struct taker *t, struct lido_buffer_pool *pool, size_t bytes, int64_t timeout_ms)
{
        uint32_t waiting = stats_of(pool).waiting;

        t->pool = pool;
        t->bytes = bytes;
        t->timeout_ms = timeout_ms;
        ck_assert_int_eq(pthread_create(&t->thread, NULL, take, t), 0);
        until(stats_of(pool).waiting > waiting || atomic_load(&t->done));
}

START_TEST(a_fixed_pool_gives_exactly_what_its_cap_allows)
{
        struct lido_buffer_pool *pool = fixed_pool(1000, 37); /* 1008 each */
        void *lent[40];
        int n = 0;

        while (lido_buffer_try_acquire(pool, 1000, &lent[n]) == LIDO_OK)
                n++;
        ck_assert_int_eq(n, 36);
        while (n > 0)
                must_release(lent[--n]);
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(a_try_at_the_cap_is_refused_at_once)
{
        struct lido_buffer_pool *pool = fixed_pool(4096, 1);
        void *buffer = must_acquire(pool, 1), *other = NULL;

        ck_assert_int_eq(lido_buffer_try_acquire(pool, 1, &other), LIDO_EEXHAUSTED);
        ck_assert_int_eq(lido_buffer_timed_acquire(pool, 1, 0, &other), LIDO_EEXHAUSTED);
        ck_assert_ptr_null(other);
        must_release(buffer);
        ck_assert_ptr_eq(must_acquire(pool, 1), buffer);
        must_release(buffer);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(what_the_pool_can_never_give_is_an_invalid_wish)
{
        struct lido_buffer_options options = plain_options();
        struct lido_buffer_pool *pool;
        void *buffer;

        options.max_bytes = 100000;
        pool = pool_with(&options);
        ck_assert_int_eq(lido_buffer_acquire(pool, 200000, &buffer), LIDO_EINVAL);
        ck_assert_int_eq(lido_buffer_acquire(pool, 0, &buffer), LIDO_EINVAL);
        ck_assert_int_eq(lido_buffer_acquire(pool, SIZE_MAX, &buffer), LIDO_EINVAL);
        ck_assert_int_eq(lido_buffer_acquire(pool, (size_t)2 << 20, &buffer), LIDO_EINVAL);
        ck_assert_int_eq(lido_buffer_timed_acquire(pool, 1, -3, &buffer), LIDO_EINVAL);
        lido_buffer_pool_free(pool);
        pool = fixed_pool(4096, 0);
        ck_assert_int_eq(lido_buffer_acquire(pool, 4097, &buffer), LIDO_EINVAL);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(a_deadline_is_kept_and_never_early)
{
        struct lido_buffer_pool *pool = fixed_pool(4096, 1);
        void *buffer = must_acquire(pool, 1), *other;

        for (int ms = 1; ms <= 30; ms += 7) {
                uint64_t before = clock_now_ns();

                ck_assert_int_eq(lido_buffer_timed_acquire(pool, 1, ms, &other), LIDO_ETIMEDOUT);
                ck_assert_uint_ge(clock_now_ns() - before, (uint64_t)ms * NS_PER_MS);
        }
        ck_assert_uint_eq(stats_of(pool).waiting, 0);
        ck_assert_uint_eq(load_relaxed(&pool->attention), 0);
        must_release(buffer);
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(released_buffers_go_to_waiters_in_their_order)
{
        struct lido_buffer_pool *pool = fixed_pool(4096, 3);
        struct taker takers[6] = {0};
        _Atomic int order = 0;
        void *lent[3];

        for (int i = 0; i < 3; i++)
                lent[i] = must_acquire(pool, 1);
        for (int i = 0; i < 6; i++) {
                takers[i].order = &order;
                start_taker(&takers[i], pool, 1, LIDO_NEVER);
        }
        for (int i = 0; i < 6; i++) {
                must_release(i < 3 ? lent[i] : takers[i - 3].buffer);
                pthread_join(takers[i].thread, NULL);
                ck_assert_int_eq(takers[i].rc, LIDO_OK);
                ck_assert_int_eq(takers[i].place, i);
        }
        for (int i = 3; i < 6; i++)
                must_release(takers[i].buffer);
        ck_assert_uint_eq(stats_of(pool).waited, 6);
        ck_assert_uint_eq(stats_of(pool).acquired, 9); /* what was handed over is lent, too */
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(a_newcomer_does_not_overtake_the_line)
{
        struct lido_buffer_options options = plain_options();
        struct lido_buffer_pool *pool;
        struct taker large = {0};
        void *a, *b, *c;

        options.max_bytes = 1 << 20;
        pool = pool_with(&options);
        a = must_acquire(pool, 400000);
        b = must_acquire(pool, 400000);
        start_taker(&large, pool, 800000, LIDO_NEVER);
        ck_assert_int_eq(lido_buffer_try_acquire(pool, 16, &c), LIDO_EEXHAUSTED);
        must_release(a);
        ck_assert_int_eq(lido_buffer_try_acquire(pool, 16, &c), LIDO_EEXHAUSTED);
        ck_assert_int_eq(atomic_load(&large.done), 0);
        must_release(b);
        pthread_join(large.thread, NULL);
        ck_assert_int_eq(large.rc, LIDO_OK);
        c = must_acquire(pool, 16);
        must_release(c);
        must_release(large.buffer);
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(what_other_classes_keep_makes_room_at_the_cap)
{
        struct lido_buffer_options options = plain_options();
        struct lido_buffer_pool *pool;
        void *lent[16];

        options.max_bytes = 1 << 20;
        pool = pool_with(&options);
        for (int i = 0; i < 16; i++)
                lent[i] = must_acquire(pool, 60000);
        for (int i = 0; i < 16; i++)
                must_release(lent[i]);
        lent[0] = must_acquire(pool, 1000000);
        ck_assert_uint_le(stats_of(pool).mapped_bytes, 1 << 20);
        must_release(lent[0]);
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

static void *warm_and_hold(void *context)
{
        struct taker *t = context;

        must_release(must_acquire(t->pool, 1)); /* on this thread's rack, where it stays */
        atomic_store(&t->done, 1);
        until(atomic_load(&t->done) == 2);
        return NULL;
}

START_TEST(a_waiter_finds_what_an_idle_thread_has_in_its_cache)
{
        struct lido_buffer_pool *pool = fixed_pool(4096, 1);
        struct taker idle = {.pool = pool};
        void *buffer;

        pthread_create(&idle.thread, NULL, warm_and_hold, &idle);
        until(atomic_load(&idle.done) == 1);
        ck_assert_int_eq(lido_buffer_timed_acquire(pool, 1, 10000, &buffer), LIDO_OK);
        must_release(buffer);
        atomic_store(&idle.done, 2);
        pthread_join(idle.thread, NULL);
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(a_full_queue_refuses)
{
        struct lido_buffer_options options = plain_options();
        struct lido_buffer_pool *pool;
        struct taker first = {0};
        void *buffer, *other;

        options.buffer_bytes = options.max_bytes = 4096;
        options.queue_limit = 1;
        pool = pool_with(&options);
        buffer = must_acquire(pool, 1);
        start_taker(&first, pool, 1, LIDO_NEVER);
        ck_assert_int_eq(lido_buffer_timed_acquire(pool, 1, 1000, &other), LIDO_EQUEUEFULL);
        must_release(buffer);
        pthread_join(first.thread, NULL);
        must_release(first.buffer);
        ck_assert_uint_eq(stats_of(pool).refused, 1);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(closing_fails_those_who_wait)
{
        struct lido_buffer_pool *pool = fixed_pool(4096, 1);
        struct taker t = {0};
        void *buffer = must_acquire(pool, 1);

        start_taker(&t, pool, 1, LIDO_NEVER);
        lido_buffer_pool_close(pool);
        pthread_join(t.thread, NULL);
        ck_assert_int_eq(t.rc, LIDO_ECLOSED);
        must_release(buffer);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(the_caches_work_again_once_nobody_waits)
{
        struct lido_buffer_pool *pool = fixed_pool(4096, 2);
        void *a = must_acquire(pool, 1), *b = must_acquire(pool, 1), *c;
        uint64_t contended;

        ck_assert_int_eq(lido_buffer_timed_acquire(pool, 1, 1, &c), LIDO_ETIMEDOUT);
        must_release(a);
        must_release(b);
        must_release(must_acquire(pool, 1));
        contended = stats_of(pool).contended;
        for (int i = 0; i < 100; i++)
                must_release(must_acquire(pool, 1));
        ck_assert_uint_eq(stats_of(pool).contended, contended);
        lido_buffer_pool_free(pool);
}
END_TEST

/* ---- reserve ---- */

struct fickle {
        _Atomic int broken; /* map refuses */
        _Atomic int maps, unmaps;
};

static void *fickle_map(size_t bytes, size_t alignment, void *context)
{
        struct fickle *f = context;

        if (atomic_load(&f->broken))
                return NULL;
        atomic_fetch_add(&f->maps, 1);
        return lido_buffer_source_mmap.map(bytes, alignment, NULL);
}

static void fickle_unmap(void *memory, size_t bytes, void *context)
{
        struct fickle *f = context;

        atomic_fetch_add(&f->unmaps, 1);
        lido_buffer_source_mmap.unmap(memory, bytes, NULL);
}

static struct lido_buffer_pool *reserve_pool(struct fickle *f, int mode, uint32_t reserve)
{
        struct lido_buffer_options options = plain_options();
        struct lido_buffer_source source = LIDO_BUFFER_SOURCE_INIT;

        source.map = fickle_map;
        source.unmap = fickle_unmap;
        source.context = f;
        options.source = &source;
        options.buffer_bytes = 8192;
        options.mode = mode;
        options.reserve = reserve;
        return pool_with(&options);
}

START_TEST(a_reserve_is_for_when_memory_fails_and_a_release_fills_it_first)
{
        struct fickle f = {0};
        struct lido_buffer_pool *pool = reserve_pool(&f, LIDO_BUFFER_MODE_RESERVE, 2);
        void *a, *b, *c, *d;
        int unmaps;

        a = must_acquire(pool, 8192);
        ck_assert_uint_eq(stats_of(pool).reserve_left, 2);
        atomic_store(&f.broken, 1);
        b = must_acquire(pool, 8192);
        c = must_acquire(pool, 8192);
        ck_assert_uint_eq(stats_of(pool).reserve_left, 0);
        ck_assert_int_eq(lido_buffer_try_acquire(pool, 8192, &d), LIDO_ENOMEM);
        unmaps = atomic_load(&f.unmaps);
        must_release(a);
        must_release(b);
        ck_assert_uint_eq(stats_of(pool).reserve_left, 2);
        ck_assert_int_eq(atomic_load(&f.unmaps), unmaps);
        must_release(c);
        ck_assert_int_eq(atomic_load(&f.unmaps), unmaps + 1);
        ck_assert_uint_eq(stats_of(pool).from_reserve, 2);
        buffers_check(pool);
        lido_buffer_pool_free(pool);
        ck_assert_int_eq(atomic_load(&f.maps), atomic_load(&f.unmaps));
}
END_TEST

START_TEST(a_caching_pool_may_have_a_reserve_as_well)
{
        struct fickle f = {0};
        struct lido_buffer_pool *pool = reserve_pool(&f, LIDO_BUFFER_MODE_CACHE, 1);
        void *lent[64], *more;
        int n = 0;

        lent[n++] = must_acquire(pool, 1);
        atomic_store(&f.broken, 1);
        while (stats_of(pool).from_reserve == 0)
                lent[n++] = must_acquire(pool, 1);
        ck_assert_int_eq(lido_buffer_try_acquire(pool, 1, &more), LIDO_ENOMEM);
        must_release(lent[--n]);
        ck_assert_uint_eq(stats_of(pool).reserve_left, 1);
        while (n > 0)
                must_release(lent[--n]);
        ck_assert_uint_eq(load_relaxed(&pool->attention), 0);
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

/* ---- on a loop ---- */

struct asked {
        struct lido_buffer_request request;
        int calls, status;
        void *buffer;
};

static void answered(struct lido_buffer_request *request, int status, void *buffer)
{
        struct asked *asked = request->data;

        asked->calls++;
        asked->status = status;
        asked->buffer = buffer;
}

struct looped {
        uv_loop_t uv;
        struct lido_loop *loop;
        struct lido_buffer_pool *pool;
};

static void looped_open(struct looped *l, uint32_t max)
{
        ck_assert_int_eq(uv_loop_init(&l->uv), 0);
        ck_assert_int_eq(lido_loop_open(&l->loop, &l->uv), LIDO_OK);
        l->pool = fixed_pool(4096, max);
}

static void looped_close(struct looped *l)
{
        buffers_check(l->pool);
        lido_buffer_pool_free(l->pool);
        lido_loop_close(l->loop, NULL, NULL);
        uv_run(&l->uv, UV_RUN_DEFAULT);
        ck_assert_int_eq(uv_loop_close(&l->uv), 0);
}

static void ask(struct looped *l, struct asked *asked, int64_t timeout_ms)
{
        asked->request.data = asked;
        asked->request.loop = l->loop;
        asked->request.timeout_ms = timeout_ms;
        ck_assert_int_eq(lido_buffer_acquire_async(l->pool, &asked->request, 1, answered), LIDO_OK);
        ck_assert_int_eq(asked->calls, 0);
        ck_assert_int_eq(lido_buffer_acquire_async(l->pool, &asked->request, 1, answered), LIDO_EBUSY);
}

START_TEST(a_request_is_answered_on_its_loop_and_never_before_it_returns)
{
        struct asked asked = {0};
        struct looped l;

        looped_open(&l, 1);
        ask(&l, &asked, 1000);
        uv_run(&l.uv, UV_RUN_DEFAULT);
        ck_assert_int_eq(asked.calls, 1);
        ck_assert_int_eq(asked.status, LIDO_OK);
        must_release(asked.buffer);
        ck_assert_int_eq(lido_buffer_cancel(&asked.request), LIDO_EINVAL);
        looped_close(&l);
}
END_TEST

static void *release_one(void *buffer)
{
        must_release(buffer);
        return NULL;
}

START_TEST(a_request_waits_for_a_release_on_another_thread)
{
        struct asked asked = {0};
        struct looped l;
        pthread_t thread;
        void *buffer;

        looped_open(&l, 1);
        buffer = must_acquire(l.pool, 1);
        ask(&l, &asked, LIDO_NEVER);
        pthread_create(&thread, NULL, release_one, buffer);
        uv_run(&l.uv, UV_RUN_DEFAULT);
        pthread_join(thread, NULL);
        ck_assert_int_eq(asked.calls, 1);
        ck_assert_int_eq(asked.status, LIDO_OK);
        must_release(asked.buffer);
        looped_close(&l);
}
END_TEST

START_TEST(a_request_times_out_or_is_cancelled_or_fails_once)
{
        struct asked late = {0}, cancelled = {0}, failed = {0};
        struct looped l;
        void *buffer;

        looped_open(&l, 1);
        buffer = must_acquire(l.pool, 1);
        ask(&l, &late, 5);
        ask(&l, &cancelled, LIDO_NEVER);
        ck_assert_int_eq(lido_buffer_cancel(&cancelled.request), LIDO_OK);
        ck_assert_int_eq(lido_buffer_cancel(&cancelled.request), LIDO_EBUSY);
        uv_run(&l.uv, UV_RUN_DEFAULT);
        ck_assert_int_eq(late.status, LIDO_ETIMEDOUT);
        ck_assert_int_eq(cancelled.status, LIDO_ECANCELED);
        ask(&l, &failed, LIDO_NEVER);
        lido_buffer_pool_close(l.pool);
        uv_run(&l.uv, UV_RUN_DEFAULT);
        ck_assert_int_eq(failed.status, LIDO_ECLOSED);
        ck_assert_int_eq(late.calls + cancelled.calls + failed.calls, 3);
        ck_assert_ptr_null(late.buffer);
        must_release(buffer);
        looped_close(&l);
}
END_TEST

int main(void)
{
        return suite_run(
                "buffer/wait",
                (const TTest *[]){
                        a_fixed_pool_gives_exactly_what_its_cap_allows, a_try_at_the_cap_is_refused_at_once,
                        what_the_pool_can_never_give_is_an_invalid_wish, a_deadline_is_kept_and_never_early,
                        released_buffers_go_to_waiters_in_their_order, a_newcomer_does_not_overtake_the_line,
                        what_other_classes_keep_makes_room_at_the_cap,
                        a_waiter_finds_what_an_idle_thread_has_in_its_cache, a_full_queue_refuses,
                        closing_fails_those_who_wait, the_caches_work_again_once_nobody_waits,
                        a_reserve_is_for_when_memory_fails_and_a_release_fills_it_first,
                        a_caching_pool_may_have_a_reserve_as_well,
                        a_request_is_answered_on_its_loop_and_never_before_it_returns,
                        a_request_waits_for_a_release_on_another_thread,
                        a_request_times_out_or_is_cancelled_or_fails_once, NULL});
}
