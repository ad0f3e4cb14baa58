#include "buffer/line.h"

#include <stddef.h>

#include "base/assert.h"
#include "buffer/acquire.h"
#include "buffer/cache.h"
#include "buffer/depot.h"
#include "buffer/decay.h"
#include "buffer/pool.h"

void attention_raise(struct lido_buffer_pool *pool)
{
        if (cache_attention(pool, +1) == 0)
                cache_collect_all(pool);
}

void attention_drop(struct lido_buffer_pool *pool)
{
        cache_attention(pool, -1);
}

static struct wait *front_locked(struct lido_buffer_pool *pool) REQUIRES(pool->wait_lock)
{
        struct list *link = list_front(&pool->waiters);

        return link ? list_entry(link, struct wait, waiter.link) : NULL;
}

static void unlink_locked(struct lido_buffer_pool *pool, struct wait *w) REQUIRES(pool->wait_lock)
{
        if (list_is_linked(&w->waiter.link)) {
                list_unlink(&w->waiter.link);
                pool->waiter_count--;
        }
}

bool line_exists(struct lido_buffer_pool *pool)
{
        bool line;

        if (load_relaxed(&pool->attention) == 0)
                return false;
        mutex_lock(&pool->wait_lock);
        line = pool->waiter_count > 0;
        mutex_unlock(&pool->wait_lock);
        return line;
}

/* Wake whoever was settled. A thread's waiter may be gone by now; its word's address is all that is used. */
static void wake(struct waiter *waiter, void (*notify)(struct waiter *))
{
        if (notify)
                notify(waiter);
        else
                park_wake(&waiter->state, 1);
}

/* Settle the oldest, if its wish is this one. Returns: 1 given, 0 nobody has this wish at the head, -1 nobody
 * waits. */
static int give(struct lido_buffer_pool *pool, uint32_t class_index, size_t bytes, const struct entry *entry)
{
        void (*notify)(struct waiter *);
        struct wait *w;

        for (;;) {
                mutex_lock(&pool->wait_lock);
                w = front_locked(pool);
                if (!w || w->class_index != class_index || (class_index == CLASS_HUGE && w->bytes != bytes)) {
                        mutex_unlock(&pool->wait_lock);
                        return w ? 0 : -1;
                }
                unlink_locked(pool, w);
                w->gift = *entry;
                notify = w->waiter.notify;
                if (waiter_settle(&w->waiter, WAITER_GIVEN)) {
                        mutex_unlock(&pool->wait_lock);
                        add_relaxed(&pool->acquired_directly, 1);
                        if (class_index == CLASS_HUGE)
                                add_relaxed(&pool->huge_acquired, 1);
                        wake(&w->waiter, notify);
                        return 1;
                }
                mutex_unlock(&pool->wait_lock);
        }
}

static bool next_wish(struct lido_buffer_pool *pool, uint32_t *ret_class, size_t *ret_bytes)
{
        struct wait *w;

        mutex_lock(&pool->wait_lock);
        w = front_locked(pool);
        if (w) {
                *ret_class = w->class_index;
                *ret_bytes = w->bytes;
        }
        mutex_unlock(&pool->wait_lock);
        return w != NULL;
}

void line_serve(struct lido_buffer_pool *pool)
{
        uint32_t class_index;
        struct entry entry;
        size_t bytes;

        while (next_wish(pool, &class_index, &bytes)) {
                if (acquire_supply(pool, class_index, bytes, &entry, 1) < 1)
                        return;
                if (give(pool, class_index, bytes, &entry) < 1)
                        depot_return(pool, class_index, &entry);
        }
}

void line_fail_all(struct lido_buffer_pool *pool, int code)
{
        for (;;) {
                void (*notify)(struct waiter *);
                struct wait *w;
                bool settled;

                mutex_lock(&pool->wait_lock);
                w = front_locked(pool);
                if (!w) {
                        mutex_unlock(&pool->wait_lock);
                        return;
                }
                unlink_locked(pool, w);
                w->waiter.code = code;
                notify = w->waiter.notify;
                settled = waiter_settle(&w->waiter, WAITER_FAILED);
                mutex_unlock(&pool->wait_lock);
                if (settled)
                        wake(&w->waiter, notify);
        }
}

/* Returns: LIDO_OK; LIDO_EQUEUEFULL; LIDO_ECLOSED. */
static int line_up(struct lido_buffer_pool *pool, struct wait *w)
{
        int rc = LIDO_OK;

        mutex_lock(&pool->wait_lock);
        if (load_relaxed(&pool->closed)) {
                rc = LIDO_ECLOSED;
        } else if (pool->waiter_count >= pool->options.queue_limit) {
                rc = LIDO_EQUEUEFULL;
        } else {
                list_push_back(&pool->waiters, &w->waiter.link);
                pool->waiter_count++;
        }
        mutex_unlock(&pool->wait_lock);
        if (rc != LIDO_OK) {
                add_relaxed(&pool->refused, 1);
                return rc;
        }
        add_relaxed(&pool->waited, 1);
        attention_raise(pool);
        line_serve(pool);
        return LIDO_OK;
}

/* Leave the line without a gift, unless an outcome was first. */
static bool leave(struct lido_buffer_pool *pool, struct wait *w, enum waiter_state outcome)
{
        bool left;

        mutex_lock(&pool->wait_lock);
        left = waiter_settle(&w->waiter, outcome);
        if (left)
                unlink_locked(pool, w);
        mutex_unlock(&pool->wait_lock);
        return left;
}

static int outcome_of(struct lido_buffer_pool *pool, struct wait *w)
{
        switch ((enum waiter_state)load_acquire(&w->waiter.state)) {
        case WAITER_GIVEN:
                return LIDO_OK;
        case WAITER_TIMED_OUT:
                add_relaxed(&pool->timed_out, 1);
                return LIDO_ETIMEDOUT;
        case WAITER_CANCELED:
                return LIDO_ECANCELED;
        default:
                return w->waiter.code;
        }
}

int line_wait(struct lido_buffer_pool *pool, uint32_t class_index, size_t bytes, uint64_t deadline_ns,
              struct entry *ret_entry)
{
        struct wait w = {.class_index = class_index, .bytes = bytes};
        int rc;

        if (pool->loop && lido_loop_is_self(pool->loop))
                return LIDO_EDEADLK;
        waiter_init(&w.waiter, NULL);
        rc = line_up(pool, &w);
        if (rc != LIDO_OK)
                return rc;
        if (waiter_sleep(&w.waiter, deadline_ns) == WAITER_WAITING)
                leave(pool, &w, WAITER_TIMED_OUT);
        attention_drop(pool);
        line_look_again(pool);
        rc = outcome_of(pool, &w);
        *ret_entry = w.gift;
        return rc;
}

/* ---- requests on a loop: the same line ---- */

struct async {
        struct wait wait;
        struct lido_timer timer; /* loop thread */
        struct lido_post post;
        struct lido_buffer_pool *pool;
        lido_buffer_acquired_cb callback;
        _Atomic uint32_t pending; /* from acquire_async to the callback */
        uint32_t in_line;         /* attention was raised for it; loop thread */
};

_Static_assert(sizeof(struct async) <= sizeof(((struct lido_buffer_request *)0)->own),
               "a request has no room");

static struct async *async_of(struct lido_buffer_request *request)
{
        return (struct async *)(void *)request->own;
}

static struct lido_buffer_request *request_of(struct async *a)
{
        return (struct lido_buffer_request *)(void *)((char *)a - offsetof(struct lido_buffer_request, own));
}

/* On the loop's thread, once: the outcome is settled. */
static void deliver(struct async *a)
{
        struct lido_buffer_request *request = request_of(a);
        struct lido_buffer_pool *pool = a->pool;
        lido_buffer_acquired_cb callback = a->callback;
        void *buffer = NULL;
        int rc;

        lido_timer_clear(request->loop, &a->timer);
        if (a->in_line) {
                attention_drop(pool);
                line_look_again(pool);
        }
        rc = outcome_of(pool, &a->wait);
        if (rc == LIDO_OK)
                buffer = acquire_finish(pool, &a->wait.gift, a->wait.bytes, "async");
        lido_loop_unhold(request->loop);
        store_release(&a->pending, 0);
        pool_unref(pool);
        callback(request, rc, buffer);
}

static void on_post(struct lido_post *post)
{
        deliver(list_entry(post, struct async, post));
}

static void on_settled(struct waiter *waiter)
{
        struct async *a = list_entry(waiter, struct async, wait.waiter);

        lido_loop_post(request_of(a)->loop, &a->post);
}

static void on_timer(struct lido_timer *timer)
{
        struct async *a = list_entry(timer, struct async, timer);

        if (leave(a->pool, &a->wait, WAITER_TIMED_OUT))
                deliver(a);
}

/* The outcome is known at once, but the callback comes from the loop. */
static void settle_now(struct async *a, int rc)
{
        a->wait.waiter.code = rc;
        waiter_settle(&a->wait.waiter, rc == LIDO_OK ? WAITER_GIVEN : WAITER_FAILED);
        on_settled(&a->wait.waiter);
}

int lido_buffer_acquire_async(struct lido_buffer_pool *pool, struct lido_buffer_request *request,
                              size_t bytes, lido_buffer_acquired_cb callback)
{
        struct async *a;
        int64_t timeout;
        int rc;

        if (!pool || !request || !callback || !request->loop || request->timeout_ms < LIDO_TIMEOUT_DEFAULT)
                return LIDO_EINVAL;
        if (pool->epoch != fork_epoch)
                return LIDO_EFORKED;
        a = async_of(request);
        if (load_acquire(&a->pending))
                return LIDO_EBUSY;
        timeout = request->timeout_ms == 0 || request->timeout_ms == LIDO_TIMEOUT_DEFAULT
                          ? pool->options.acquire_timeout_ms
                          : request->timeout_ms;
        waiter_init(&a->wait.waiter, on_settled);
        a->wait.class_index = acquire_class(pool, bytes);
        a->wait.bytes = bytes;
        a->timer = (struct lido_timer){.run = on_timer};
        a->post.run = on_post;
        a->pool = pool;
        a->callback = callback;
        a->in_line = 0;
        store_relaxed(&a->pending, 1);
        add_relaxed(&pool->refs, 1);
        lido_loop_hold(request->loop);
        rc = acquire_entry(pool, a->wait.class_index, bytes, &a->wait.gift);
        if (rc != LIDO_EEXHAUSTED) {
                settle_now(a, rc);
                return LIDO_OK;
        }
        a->in_line = 1;
        if (timeout != LIDO_NEVER)
                lido_timer_set(request->loop, &a->timer, clock_after_ms(clock_now_ns(), timeout));
        rc = line_up(pool, &a->wait);
        if (rc != LIDO_OK) {
                a->in_line = 0;
                settle_now(a, rc);
        }
        return LIDO_OK;
}

int lido_buffer_cancel(struct lido_buffer_request *request)
{
        struct async *a;

        if (!request)
                return LIDO_EINVAL;
        a = async_of(request);
        if (!load_acquire(&a->pending))
                return LIDO_EINVAL;
        if (!leave(a->pool, &a->wait, WAITER_CANCELED))
                return LIDO_EBUSY;
        on_settled(&a->wait.waiter);
        return LIDO_OK;
}
