/* A borrower's loop under the model scheduler: lido/loop.h without libuv. It belongs to a coroutine, which
 * runs it when it has nothing else to do. */
#include "sim/face.h"

#include "sim/loop.h"

static struct sim_site posting = {"sim", "lido_loop_post", "loop", 0, SIM_OP_WAKE, SIM_RELAXED, 0, 0};
static struct sim_site *const listed __attribute__((section("sim_sites"), used)) = &posting;

struct timer_own {
        struct list link;
        uint64_t due_ns;
};
_Static_assert(sizeof(struct timer_own) <= sizeof((struct lido_timer *)0)->own,
               "a timer has room for its place");

static struct timer_own *timer_own(struct lido_timer *timer)
{
        return (struct timer_own *)(void *)timer->own;
}

void loop_init(struct lido_loop *loop, int coroutine)
{
        loop->coroutine = coroutine;
        loop->first = loop->last = NULL;
        list_init(&loop->timers);
        list_init(&loop->pending);
        loop->is_closing = false;
}

int lido_loop_is_self(const struct lido_loop *loop)
{
        return loop->coroutine == sim_self();
}

bool loop_add_pending(struct lido_loop *loop, struct loop_pending *pending)
{
        if (loop->is_closing)
                return false;
        list_push_back(&loop->pending, &pending->link);
        return true;
}

void loop_end_pending(struct lido_loop *loop, struct loop_pending *pending)
{
        (void)loop;
        list_unlink(&pending->link);
}

/* The poster's last look at the post is before it becomes visible, as with the real one. */
void lido_loop_post(struct lido_loop *loop, struct lido_post *post)
{
        sim_point(&posting, NULL);
        if (sim_locks())
                sim_fail("a loop is posted to with a lock held");
        if (posting.mutation == SIM_DROPPED)
                return;
        post->next = NULL;
        if (loop->last)
                loop->last->next = post;
        else
                loop->first = post;
        loop->last = post;
        sim_hand_over(loop->coroutine);
        sim_wake(loop->coroutine);
}

void lido_timer_set(struct lido_loop *loop, struct lido_timer *timer, uint64_t due_ns)
{
        struct timer_own *own = timer_own(timer);

        if (own->link.next)
                list_unlink(&own->link);
        else
                list_init(&own->link);
        own->due_ns = due_ns;
        if (due_ns != CLOCK_NEVER)
                list_push_back(&loop->timers, &own->link);
}

void lido_timer_clear(struct lido_loop *loop, struct lido_timer *timer)
{
        struct timer_own *own = timer_own(timer);

        (void)loop;
        if (own->link.next)
                list_unlink(&own->link);
}

static struct lido_timer *first_timer(struct lido_loop *loop)
{
        struct timer_own *first = NULL;

        list_for_each(link, &loop->timers)
        {
                struct timer_own *own = list_entry(link, struct timer_own, link);

                if (!first || own->due_ns < first->due_ns)
                        first = own;
        }
        return first ? list_entry(first, struct lido_timer, own) : NULL;
}

bool loop_turn(struct lido_loop *loop)
{
        struct lido_timer *timer = first_timer(loop);
        struct lido_post *post = loop->first;

        if (post) {
                loop->first = post->next;
                if (!loop->first)
                        loop->last = NULL;
                post->run(post);
                return true;
        }
        if (timer && timer_own(timer)->due_ns <= sim_now()) {
                list_unlink(&timer_own(timer)->link);
                timer->run(timer);
                return true;
        }
        if (list_is_empty(&loop->pending))
                return false;
        sim_sleep(timer ? timer_own(timer)->due_ns : CLOCK_NEVER);
        return true;
}
