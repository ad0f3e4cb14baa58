/* An acquire that does not block: the same waiter in the same line, told by a post on its loop instead of a wake-up.
 *
 *      FREE --lido_acquire_async--> PENDING --outcome settled, post under way--> the callback --> FREE
 *
 * The outcome is settled in the waiter by one compare-and-swap, as for threads: given, failed, or cancelled from any
 * thread, timed out on the loop's own. Whoever settles it, posts; only the timeout, being on the loop already, calls
 * back at once. The callback is the request's last use: its memory may be reused or freed inside it.
 *
 * A request without a loop (lido_acquire_notify) is the same, called back by whoever settles it, and timed out by the
 * keeper.
 *
 * What is given may have died in its sleep: it is peeked on the loop's thread, and a dead one sends the request back to
 * the front of the line with the deadline that it had.
 */
#include <string.h>

#include "base/clock.h"
#include "keeper/loop.h"
#include "pool/lease.h"
#include "pool/waitq.h"

struct own {
        struct pool_waiter w;
        struct lido_post post;
        struct lido_timer timer;
        struct loop_pending pending;
        lido_acquired_cb callback;
        bool is_guest;          /* it stands in line, or did */
        lido_lease lease;       /* taken at once, before there was a wait */
        uint64_t deadline_ns;
        _Atomic uint32_t state; /* loop's thread writes; lido_cancel reads */
};
enum { FREE, PENDING };

_Static_assert(sizeof(struct own) <= sizeof((struct lido_request *)0)->own, "a request has room for its waiter");

static struct own *own(struct lido_request *request)
{
        return (struct own *)(void *)request->own;
}

static struct lido_request *request_of(struct own *own)
{
        return list_entry(own, struct lido_request, own);
}

static void call_back(struct own *o, int status, lido_lease lease)
{
        struct lido_request *request = request_of(o);
        lido_acquired_cb callback = o->callback;

        if (request->loop) {
                lido_timer_clear(request->loop, &o->timer);
                loop_end_pending(request->loop, &o->pending);
        }
        store_relaxed(&o->state, FREE);
        if (o->is_guest)
                pool_leave(o->w.pool);
        callback(request, status, lease);
}

static void fail(struct own *o, int code)
{
        lido_lease none = { NULL, 0 };

        lease_count_failure(o->w.pool, code, clock_now_ns() - o->w.began_ns);
        call_back(o, code, none);
}

static void stand_in_line(struct own *o);

static void take_gift(struct own *o)
{
        struct want want = { .site = o->w.site, .tag = o->w.tag, .is_elsewhere = true };
        struct lido_pool *pool = o->w.pool;
        lido_lease lease;

        if (!lease_begin(pool, o->w.slot, o->w.generation, o->w.origin, &want, &lease)) {
                o->w.is_front = true;
                stand_in_line(o);
                return;
        }
        lease_count_wait(pool, clock_now_ns() - o->w.began_ns);
        call_back(o, LIDO_OK, lease);
}

/* The outcome was settled: on the loop, or without one where it was. */
static void conclude(struct own *o)
{
        switch (load_acquire(&o->w.waiter.state)) {
        case WAITER_GIVEN:
                take_gift(o);
                break;
        case WAITER_CANCELED:
                fail(o, LIDO_ECANCELED);
                break;
        case WAITER_TIMED_OUT:
                fail(o, LIDO_ETIMEDOUT);
                break;
        default:
                fail(o, o->w.waiter.code);
        }
}

static void on_post(struct lido_post *post)
{
        struct own *o = list_entry(post, struct own, post);

        if (o->lease.slot)
                call_back(o, LIDO_OK, o->lease);
        else
                conclude(o);
}

static void on_timer(struct lido_timer *timer)
{
        struct own *o = list_entry(timer, struct own, timer);

        if (!waiter_settle(&o->w.waiter, WAITER_TIMED_OUT))
                return; /* another outcome was first, and its post is on its way */
        waitq_leave(o->w.pool, &o->w);
        fail(o, LIDO_ETIMEDOUT);
}

/* A callback may release what it got, which gives it to the next, whose callback ... : one that comes while another runs on
 * this thread waits until that one is done, so that the stack does not grow with the line. */
static void conclude_in_turn(struct own *o)
{
        struct thread_self *self = thread_self();
        struct lido_post *post = &o->post;

        post->next = NULL;
        if (self->last_notice) {
                ((struct lido_post *)self->last_notice)->next = post;
                self->last_notice = post;
                return;
        }
        for (self->last_notice = post; post;) {
                struct own *due = list_entry(post, struct own, post);
                struct lido_post mark = { .next = post->next };

                /* Its memory goes with its callback: a mark takes its place at the head of the queue meanwhile. */
                if (self->last_notice == post)
                        self->last_notice = &mark;
                conclude(due);
                post = mark.next;
                if (!post)
                        self->last_notice = NULL;
        }
}

static void notify(struct waiter *waiter)
{
        struct own *o = list_entry(waiter, struct own, w.waiter);

        if (request_of(o)->loop)
                lido_loop_post(request_of(o)->loop, &o->post);
        else
                conclude_in_turn(o);
}

static void stand_in_line(struct own *o)
{
        struct lido_loop *loop = request_of(o)->loop;
        struct lido_pool *pool = o->w.pool;
        int rc;

        /* Perhaps for a second time: a cancel may be looking at its link, so nothing else is made new. */
        store_relaxed(&o->w.waiter.state, WAITER_WAITING);
        rc = waitq_join(pool, &o->w);
        if (rc != LIDO_OK) {
                o->w.waiter.code = rc;
                waiter_settle(&o->w.waiter, WAITER_FAILED);
                notify(&o->w.waiter);
                return;
        }
        if (loop)
                lido_timer_set(loop, &o->timer, o->deadline_ns);
        else
                pool_call_keeper(pool); /* it has a deadline to keep */
        /* From here on a request without a loop may have been called back, and be gone. */
        pool_ask_for_more(pool);
        waitq_serve(pool);
}

static void become_guest(struct own *o)
{
        o->is_guest = true;
        pool_enter(o->w.pool);
        stand_in_line(o);
}

static void cancel_pending(struct loop_pending *pending)
{
        struct own *o = list_entry(pending, struct own, pending);

        if (!o->lease.slot)
                waitq_cancel(o->w.pool, &o->w);
}

static int begin(struct lido_request *request, struct lido_pool *pool, int64_t timeout_ms, const char *site)
{
        struct own *o = own(request);
        struct want want = { .timeout_ms = timeout_ms, .site = site };
        int rc;

        memset(o, 0, sizeof *o);
        waiter_init(&o->w.waiter, notify);
        o->w.pool = pool;
        o->w.site = site;
        o->w.thread = thread_id();
        o->w.began_ns = clock_now_ns();
        o->deadline_ns = clock_after_ms(o->w.began_ns, timeout_ms);
        o->w.keeper_due_ns = request->loop ? CLOCK_NEVER : o->deadline_ns;
        o->post.run = on_post;
        o->timer.run = on_timer;
        o->pending.cancel = cancel_pending;
        rc = lease_claim(pool, &want, &o->lease);
        if (rc == LIDO_EPAUSED || rc == LIDO_EEXHAUSTED)
                return timeout_ms == 0 ? rc : LIDO_OK;
        return rc;
}

/* What both kinds of request begin with. Returns: LIDO_OK and o->lease.slot is set if one was idle. */
static int prepare(struct lido_pool *pool, struct lido_request *request, int64_t timeout_ms, const char *site)
{
        if (timeout_ms == LIDO_TIMEOUT_DEFAULT)
                timeout_ms = pool_options(pool)->acquire_timeout_ms;
        if (timeout_ms < LIDO_NEVER)
                return LIDO_EINVAL;
        if (load_relaxed(&own(request)->state) == PENDING)
                return LIDO_EBUSY;
        return begin(request, pool, timeout_ms, site);
}

int lido_acquire_async_at(struct lido_pool *pool, struct lido_request *request, int64_t timeout_ms,
                          lido_acquired_cb callback, const char *site)
{
        struct own *o;
        int rc;

        if (!pool || !request || !request->loop || !callback || !lido_loop_is_self(request->loop))
                return LIDO_EINVAL;
        o = own(request);
        rc = prepare(pool, request, timeout_ms, site);
        if (rc != LIDO_OK)
                return rc;
        if (!loop_add_pending(request->loop, &o->pending)) {
                if (o->lease.slot)
                        lido_release_at(o->lease, site);
                return LIDO_ECLOSED;
        }
        o->callback = callback;
        store_release(&o->state, PENDING);
        if (o->lease.slot)
                lido_loop_post(request->loop, &o->post);
        else
                become_guest(o);
        return LIDO_OK;
}

int lido_acquire_notify_at(struct lido_pool *pool, struct lido_request *request, int64_t timeout_ms,
                           lido_acquired_cb callback, const char *site)
{
        struct own *o;
        int rc;

        if (!pool || !request || request->loop || !callback)
                return LIDO_EINVAL;
        o = own(request);
        rc = prepare(pool, request, timeout_ms, site);
        if (rc != LIDO_OK)
                return rc;
        o->callback = callback;
        if (o->lease.slot) {
                call_back(o, LIDO_OK, o->lease);
                return LIDO_OK;
        }
        store_release(&o->state, PENDING);
        become_guest(o);
        return LIDO_OK;
}

int lido_cancel(struct lido_request *request)
{
        if (!request || load_acquire(&own(request)->state) != PENDING)
                return LIDO_EINVAL;
        if (own(request)->lease.slot)
                return LIDO_EBUSY;
        return waitq_cancel(own(request)->w.pool, &own(request)->w);
}
