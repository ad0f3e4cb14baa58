/* Posts arrive through a mailbox and a bell, times through a heap and one timer handle.
 *
 * The handles keep uv_run going while `holds` is above zero: a pending request, an armed timer, whoever else holds. Posting
 * from another thread is safe as long as the loop is held, so the end (no holds left) can only be seen on the loop's own
 * thread, after the last post has run. A poster may still be ringing the bell when that post runs; `posters` counts those
 * inside, and the end waits for them.
 */
#include "keeper/loop.h"

#include <uv.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/heap.h"
#include "base/inbox.h"
#include "base/mem.h"
#include "base/thread.h"
#include "keeper/bell.h"
#include "lido/clock.h"

struct lido_loop {
        struct inbox posts;
        _Atomic uint32_t posters; /* threads inside lido_loop_post */
        _Atomic uint32_t thread;  /* atomic: constant once its thread runs; any may ask whether it is that one */
        uv_loop_t *uv;            /* constant */

        /* The loop's thread alone: */
        struct bell bell; /* any may ring it */
        uv_timer_t timer;
        struct heap timers;
        struct list pending;
        uint32_t holds;
        uint32_t open_handles;
        bool is_closing, is_shut;
        void (*closed)(void *context);
        void *closed_context;

        struct lido_clock_watch clock_watch; /* constant, but for lido's part */
};

/* What lies in lido_timer.own. */
struct timer_own {
        struct heap_node node;
};
_Static_assert(sizeof(struct timer_own) <= sizeof((struct lido_timer *)0)->own, "a timer has room for its node");
_Static_assert(sizeof(struct letter) == sizeof(struct lido_post *), "a post begins with its letter");

static struct timer_own *own(struct lido_timer *timer)
{
        return (struct timer_own *)(void *)timer->own;
}

static struct lido_timer *timer_of(struct heap_node *node)
{
        return list_entry(node, struct lido_timer, own);
}

static void note_closed(void *loop_pointer)
{
        struct lido_loop *loop = loop_pointer;

        if (--loop->open_handles > 0)
                return;
        if (loop->closed)
                loop->closed(loop->closed_context);
        mem_free(loop);
}

static void on_timer_closed(uv_handle_t *timer)
{
        note_closed(timer->data);
}

static void shut_if_over(struct lido_loop *loop)
{
        if (!loop->is_closing || loop->holds > 0 || loop->is_shut || !inbox_is_empty(&loop->posts))
                return;
        loop->is_shut = true;
        lido_clock_unwatch(&loop->clock_watch);
        while (load_acquire(&loop->posters) > 0)
                thread_yield();
        bell_close(&loop->bell, note_closed);
        uv_close((uv_handle_t *)&loop->timer, on_timer_closed);
}

void lido_loop_hold(struct lido_loop *loop)
{
        if (loop->holds++ == 0)
                bell_ref(&loop->bell);
}

void lido_loop_unhold(struct lido_loop *loop)
{
        if (--loop->holds > 0)
                return;
        if (loop->is_closing)
                bell_ring(&loop->bell); /* perhaps that was the last; on_ring sees to the end */
        else
                bell_unref(&loop->bell);
}

bool loop_add_pending(struct lido_loop *loop, struct loop_pending *pending)
{
        if (loop->is_closing)
                return false;
        list_push_back(&loop->pending, &pending->link);
        lido_loop_hold(loop);
        return true;
}

void loop_end_pending(struct lido_loop *loop, struct loop_pending *pending)
{
        list_unlink(&pending->link);
        lido_loop_unhold(loop);
}

static void run_due(struct lido_loop *loop);

static void on_ring(void *loop_pointer)
{
        struct lido_loop *loop = loop_pointer;
        struct letter *letter = inbox_take(&loop->posts);

        while (letter) {
                struct lido_post *post = (struct lido_post *)(void *)letter;

                letter = letter->next; /* the memory is the poster's again once run is called */
                post->run(post);
        }
        if (clock_is_theirs()) /* perhaps it has moved */
                run_due(loop);
        shut_if_over(loop);
}

static void on_moved(struct lido_clock_watch *watch)
{
        bell_ring(&list_entry(watch, struct lido_loop, clock_watch)->bell);
}

void lido_loop_post(struct lido_loop *loop, struct lido_post *post)
{
        add_acq_rel(&loop->posters, 1);
        if (inbox_send(&loop->posts, (struct letter *)(void *)post))
                bell_ring(&loop->bell);
        sub_acq_rel(&loop->posters, 1);
}

/* ---- timers ---------------------------------------------------------------------------------------------- */

static void set_uv_timer(struct lido_loop *loop);

static void run_due(struct lido_loop *loop)
{
        uint64_t now = clock_now_ns();
        struct heap_node *first;

        while ((first = heap_first(&loop->timers)) != NULL && first->due_ns <= now) {
                struct lido_timer *timer = timer_of(first);

                lido_timer_clear(loop, timer);
                timer->run(timer);
        }
        set_uv_timer(loop);
}

static void on_timer(uv_timer_t *uv_timer)
{
        run_due(uv_timer->data);
        shut_if_over(uv_timer->data);
}

static void set_uv_timer(struct lido_loop *loop)
{
        struct heap_node *first = heap_first(&loop->timers);
        int64_t ms = -1;

        if (loop->is_shut)
                return;
        if (first) {
                uv_update_time(loop->uv); /* the loop's clock stands still while callbacks run */
                ms = clock_timer_ms(first->due_ns);
        }
        if (ms < 0)
                uv_timer_stop(&loop->timer);
        else
                uv_timer_start(&loop->timer, on_timer, (uint64_t)ms, 0);
}

void lido_timer_set(struct lido_loop *loop, struct lido_timer *timer, uint64_t due_ns)
{
        struct heap_node *node = &own(timer)->node;

        if (due_ns == CLOCK_NEVER) {
                lido_timer_clear(loop, timer);
                return;
        }
        if (!node->is_in)
                lido_loop_hold(loop);
        heap_set(&loop->timers, node, due_ns);
        if (heap_first(&loop->timers) == node)
                set_uv_timer(loop);
}

void lido_timer_clear(struct lido_loop *loop, struct lido_timer *timer)
{
        struct heap_node *node = &own(timer)->node;

        if (!node->is_in)
                return;
        heap_remove(&loop->timers, node);
        lido_loop_unhold(loop);
        if (!heap_first(&loop->timers))
                set_uv_timer(loop);
}

/* ---- its life -------------------------------------------------------------------------------------------- */

void loop_settle(struct lido_loop *loop, uint32_t thread)
{
        store_relaxed(&loop->thread, thread);
}

int lido_loop_open(struct lido_loop **ret_loop, struct uv_loop_s *uv)
{
        struct lido_loop *loop;

        if (!ret_loop || !uv)
                return LIDO_EINVAL;
        loop = mem_zalloc(sizeof *loop);
        if (!loop)
                return LIDO_ENOMEM;
        inbox_init(&loop->posts);
        list_init(&loop->pending);
        loop_settle(loop, thread_id());
        loop->uv = uv;
        if (fault_hit() || bell_open(&loop->bell, uv, on_ring, loop) != 0) {
                mem_free(loop);
                return LIDO_ELOOP;
        }
        uv_timer_init(uv, &loop->timer);
        loop->timer.data = loop;
        loop->open_handles = 2;
        loop->clock_watch.moved = on_moved;
        if (clock_is_theirs())
                lido_clock_watch(&loop->clock_watch);
        bell_unref(&loop->bell);
        uv_unref((uv_handle_t *)&loop->timer);
        *ret_loop = loop;
        return LIDO_OK;
}

void lido_loop_close(struct lido_loop *loop, void (*closed)(void *), void *context)
{
        if (!loop || loop->is_closing)
                return;
        loop->is_closing = true;
        loop->closed = closed;
        loop->closed_context = context;
        bell_ref(&loop->bell);
        list_for_each_safe (link, &loop->pending) {
                struct loop_pending *pending = list_entry(link, struct loop_pending, link);

                pending->cancel(pending);
        }
        shut_if_over(loop);
}

struct uv_loop_s *lido_loop_uv(const struct lido_loop *loop)
{
        return loop->uv;
}

int lido_loop_is_self(const struct lido_loop *loop)
{
        return load_relaxed(&loop->thread) == thread_id();
}
