/* The clock of the embedder, and who is told that it has moved. There is one for the whole process, so this file is in liblido alone:
 * the copy of lib/base in liblido-pg comes here through the public functions.
 *
 * How a wait by such a clock is not slept through. Its time is stored before lido_clock_moved is called, which
 * calls every watch. Each waiter has the same three steps: be watched; look at the clock; sleep. For threads (park.c) the last two
 * are one step to whoever takes the lock of their bucket, as `moved` does; for loops a look follows each wake-up, and `moved` is a
 * wake-up. So whoever has looked too early is woken, and who begins later sees the new time.
 *
 * No lock is held while `moved` is called: a watch is kept in the list by the count of those who are in it, and taken out by
 * lido_clock_unwatch when there is none.
 */
#include "lido/clock.h"

#include <pthread.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "base/fork.h"
#include "base/list.h"
#include "base/mutex.h"
#include "base/sized.h"
#include "base/thread.h"

/* UNUSED -> USED at the first look; from then on `chosen` is constant. */
enum { UNUSED, USED };
static _Atomic uint32_t state;
static struct lido_clock chosen; /* written before anybody has looked, then constant */

/* What lies in lido_clock_watch.own. All of it is guarded by `lock`. */
struct watch_own {
        struct list link;
        uint32_t inside; /* threads that call it */
        uint32_t is_in;
};
_Static_assert(sizeof(struct watch_own) <= sizeof((struct lido_clock_watch *)0)->own, "a watch has room for its link");

static struct mutex lock = MUTEX_INIT;
static struct list watches = { &watches, &watches }; /* guarded by lock */
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static struct watch_own *own(struct lido_clock_watch *watch)
{
        return (struct watch_own *)(void *)watch->own;
}

static struct lido_clock_watch *watch_of(struct list *link)
{
        return list_entry(link, struct lido_clock_watch, own);
}

/* ---- forks ------------------------------------------------------------------------------------------------ */

static void before_fork(void) NO_THREAD_SAFETY
{
        mutex_lock(&lock);
}

static void after_fork(void) NO_THREAD_SAFETY
{
        mutex_unlock(&lock);
}

/* The threads that were inside are not here. A loop of the parent's that is woken from here finds nothing to do. */
static void after_fork_in_child(void) NO_THREAD_SAFETY
{
        list_for_each (link, &watches)
                own(watch_of(link))->inside = 0;
        mutex_unlock(&lock);
}

static void watch_forks(void)
{
        fork_watch(before_fork, after_fork, after_fork_in_child);
}

/* ---- the clock -------------------------------------------------------------------------------------------- */

int lido_set_clock(const struct lido_clock *clock)
{
        struct lido_clock ours;
        int rc = sized_take(&ours, sizeof ours, clock);

        if (rc != LIDO_OK)
                return rc;
        if (clock && !ours.now_ns)
                return LIDO_EINVAL;
        if (load_acquire(&state) == USED)
                return LIDO_EBUSY;
        chosen = ours;
        return LIDO_OK;
}

const struct lido_clock *lido_clock_in_use(void)
{
        if (__builtin_expect(load_relaxed(&state) != USED, 0))
                store_release(&state, USED);
        return chosen.now_ns ? &chosen : NULL;
}

uint64_t lido_now_ns(void)
{
        return clock_now_ns();
}

/* ---- who is told ------------------------------------------------------------------------------------------ */

void lido_clock_moved(void)
{
        struct list *link;

        if (!lido_clock_in_use())
                return;
        mutex_lock(&lock);
        for (link = watches.next; link != &watches; link = link->next) {
                struct lido_clock_watch *watch = watch_of(link);

                own(watch)->inside++;
                mutex_unlock(&lock);
                watch->moved(watch);
                mutex_lock(&lock);
                own(watch)->inside--; /* it may go now, but not before its successor has been read under this lock */
        }
        mutex_unlock(&lock);
}

void lido_clock_watch(struct lido_clock_watch *watch)
{
        pthread_once(&fork_once, watch_forks);
        mutex_lock(&lock);
        if (!own(watch)->is_in) {
                own(watch)->inside = 0;
                own(watch)->is_in = 1;
                list_init(&own(watch)->link);
                list_push_back(&watches, &own(watch)->link);
        }
        mutex_unlock(&lock);
}

void lido_clock_unwatch(struct lido_clock_watch *watch)
{
        mutex_lock(&lock);
        if (own(watch)->is_in) {
                while (own(watch)->inside > 0) {
                        mutex_unlock(&lock);
                        thread_yield();
                        mutex_lock(&lock);
                }
                list_unlink(&own(watch)->link);
                own(watch)->is_in = 0;
        }
        mutex_unlock(&lock);
}
