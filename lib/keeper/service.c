/* Where the keeper meets libuv: a bell wakes it, one timer is set to its next due time.
 *
 * Waking. Pools wake the keeper from any thread, at times when the service may be about to end: the memory of a service
 * keeps its type for ever (base/shelf.h), and a waker enters (`wakers`) before it looks whether the bell is still there.
 * The end closes the door first, then waits until nobody is inside, and only then takes the bell away.
 *
 * The end. Pools are closed and leases awaited until the deadline. Then what is left is abandoned: no watch, no host, no
 * letters; borrowers who return later deal with their object themselves (fate.c, run_orphan). Helper threads are joined
 * before that, so hooks at work are waited for.
 */
#include "keeper/service.h"

#include <string.h>
#include <uv.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/fork.h"
#include "base/park.h"
#include "base/shelf.h"
#include "base/sized.h"
#include "keeper/bell.h"
#include "keeper/helpers.h"
#include "keeper/keeper.h"
#include "keeper/loop.h"
#include "lido/clock.h"
#include "pool/op.h"

struct lido_service {
        struct keeper keeper; /* first: host and keeper lead back to the service */
        struct helpers helpers;
        _Atomic uint32_t is_awake; /* a wake-up is on its way */
        _Atomic uint32_t wakers;   /* threads inside wake() */
        _Atomic uint32_t is_shut;  /* the bell is not to be rung */

        uv_loop_t *loop;   /* constant while it runs */
        uv_loop_t own_loop;
        struct bell bell;  /* loop thread, but for bell_ring */
        uv_timer_t timer;  /* loop thread */
        struct lido_loop *borrower; /* constant while it runs: the same loop, for others to post to */
        struct thread thread;
        bool is_attached;  /* constant */
        char name[16];     /* constant */

        struct mutex lock;        /* guards what follows */
        bool is_stopping;
        uint64_t stop_due_ns;
        int stop_status;          /* loop thread writes before its end; read after */
        uint32_t open_handles;    /* loop thread */
        /* loop thread: pools are being closed; helpers are gone, what is left to be closed is closed here; all is over */
        bool has_begun_to_stop, is_ending, has_abandoned;
        void (*detached)(int status, void *context);
        void *detached_context;
        struct lido_clock_watch clock_watch; /* constant, but for lido's part */
        _Atomic uint32_t is_forked;  /* the parent's, seen in a child */
        struct lido_service *older;  /* every service that ever was; set when its memory is new, then constant */
        void *shelf_link;
};

static struct shelf shelf = SHELF_INIT(struct lido_service, shelf_link);
static _Atomic(struct lido_service *) newest;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

/* In a child the parent's services have no thread, and their loop is the parent's. */
static void before_fork(void) NO_THREAD_SAFETY
{
        mutex_lock(&shelf.lock);
}

static void after_fork(void) NO_THREAD_SAFETY
{
        mutex_unlock(&shelf.lock);
}

static void after_fork_in_child(void)
{
        after_fork();
        for (struct lido_service *service = load_acquire(&newest); service; service = service->older)
                store_relaxed(&service->is_forked, 1);
}

static void watch_forks(void)
{
        fork_watch(before_fork, after_fork, after_fork_in_child);
}

static struct lido_service *service_of(struct pool_host *host)
{
        return (struct lido_service *)(void *)host;
}

struct pool_host *service_host(struct lido_service *service)
{
        return &service->keeper.host;
}

bool service_is_forked(struct lido_service *service)
{
        return load_relaxed(&service->is_forked);
}

bool service_is_self(struct lido_service *service)
{
        return load_relaxed(&service->keeper.host.thread) == thread_id();
}

bool service_add(struct lido_service *service, struct lido_pool *pool)
{
        return keeper_add(&service->keeper, pool);
}

static void wake(struct pool_host *host)
{
        struct lido_service *service = service_of(host);

        if (exchange_acq_rel(&service->is_awake, 1))
                return;
        add_seq_cst(&service->wakers, 1); /* pairs with shut_door */
        if (!load_seq_cst(&service->is_shut))
                bell_ring(&service->bell);
        sub_seq_cst(&service->wakers, 1);
}

static void on_moved(struct lido_clock_watch *watch)
{
        wake(&list_entry(watch, struct lido_service, clock_watch)->keeper.host);
}

static void shut_door(struct lido_service *service)
{
        lido_clock_unwatch(&service->clock_watch);
        store_seq_cst(&service->is_shut, 1);
        while (load_seq_cst(&service->wakers) > 0)
                thread_yield();
}

static void begin_blocking(struct keeper *keeper, struct lido_slot *slot)
{
        struct lido_service *service = (struct lido_service *)(void *)keeper;
        lido_op op = { slot, word_generation(load_relaxed(&slot->word)) };

        if (service->is_ending)
                op_begin(load_relaxed(&slot->pool), slot, op.ticket);
        else if (helpers_submit(&service->helpers, slot) != LIDO_OK)
                lido_op_done(op, LIDO_ETHREAD);
}

/* ---- on the loop ----------------------------------------------------------------------------------------- */

static void turn(struct lido_service *service);

static void on_timer(uv_timer_t *timer)
{
        turn(timer->data);
}

static void on_ring(void *service)
{
        turn(service);
}

static void set_timer(struct lido_service *service, uint64_t due_ns)
{
        int64_t ms;

        uv_update_time(service->loop); /* the loop's clock stands still while callbacks run */
        ms = clock_timer_ms(due_ns);
        if (ms < 0)
                uv_timer_stop(&service->timer);
        else
                uv_timer_start(&service->timer, on_timer, (uint64_t)ms, 0);
}

static void note_closed(void *context)
{
        struct lido_service *service = context;

        if (--service->open_handles > 0 || !service->is_attached)
                return;
        {
                void (*detached)(int, void *) = service->detached;
                void *context = service->detached_context;
                int status = service->stop_status;

                shelf_give(&shelf, service);
                if (detached)
                        detached(status, context);
        }
}

static void on_timer_closed(uv_handle_t *timer)
{
        note_closed(timer->data);
}

static void close_handles(struct lido_service *service)
{
        bell_close(&service->bell, note_closed);
        uv_close((uv_handle_t *)&service->timer, on_timer_closed);
        lido_loop_close(service->borrower, note_closed, service);
}

static void end(struct lido_service *service)
{
        helpers_stop(&service->helpers);
        service->is_ending = true;
        keeper_turn(&service->keeper, clock_now_ns());
        service->stop_status = keeper_abandon(&service->keeper) ? LIDO_OK : LIDO_ETIMEDOUT;
        service->has_abandoned = true;
        shut_door(service);
        store_relaxed(&service->keeper.host.thread, 0);
        close_handles(service);
}

/* Returns: true when the service has come to its end. */
static bool stop_step(struct lido_service *service, uint64_t *due_ns)
{
        uint64_t stop_due_ns;
        bool is_stopping;

        mutex_lock(&service->lock);
        is_stopping = service->is_stopping;
        stop_due_ns = service->stop_due_ns;
        mutex_unlock(&service->lock);
        if (!is_stopping)
                return false;
        if (!service->has_begun_to_stop) {
                service->has_begun_to_stop = true;
                keeper_close_all(&service->keeper, stop_due_ns);
                *due_ns = keeper_turn(&service->keeper, clock_now_ns());
        }
        if (!keeper_is_done(&service->keeper)) {
                if (clock_now_ns() < stop_due_ns) {
                        *due_ns = clock_min(*due_ns, stop_due_ns);
                        return false;
                }
                if (!keeper_is_still(&service->keeper))
                        return false; /* the answers of the hooks at work bring us back */
        }
        end(service);
        return true;
}

static void turn(struct lido_service *service)
{
        uint64_t due_ns;

        if (service->has_abandoned)
                return;
        store_seq_cst(&service->is_awake, 0); /* before looking: a wake-up from now on comes again */
        due_ns = keeper_turn(&service->keeper, clock_now_ns());
        if (!stop_step(service, &due_ns))
                set_timer(service, due_ns);
}

static void run(void *argument)
{
        struct lido_service *service = argument;

        store_relaxed(&service->keeper.host.thread, thread_id());
        loop_settle(service->borrower, thread_id());
        uv_run(service->loop, UV_RUN_DEFAULT);
}

/* ---- its life -------------------------------------------------------------------------------------------- */

static int take_options(struct lido_service_options *ours, const struct lido_service_options *theirs)
{
        int rc = sized_take(ours, sizeof *ours, theirs);

        if (rc != LIDO_OK)
                return rc;
        if (ours->helpers == 0)
                ours->helpers = 4;
        if (ours->helpers > HELPERS_MOST || ours->reserved != 0)
                return LIDO_EINVAL;
        return LIDO_OK;
}

static struct lido_service *service_new(const struct lido_service_options *options)
{
        int is_new;
        struct lido_service *service = shelf_take(&shelf, &is_new);

        if (!service)
                return NULL;
        pthread_once(&fork_once, watch_forks);
        if (is_new) {
                service->older = load_relaxed(&newest);
                while (!cas_release(&newest, &service->older, service))
                        ;
                mutex_init(&service->lock);
                mutex_init(&service->keeper.lock);
                mutex_init(&service->helpers.lock);
                store_relaxed(&service->is_shut, 1);
        }
        keeper_init(&service->keeper, wake, begin_blocking);
        service->keeper.host.seed = options->seed;
        strncpy(service->name, options->name ? options->name : "lido", sizeof service->name - 1);
        helpers_init(&service->helpers, options->helpers, service->name);
        service->is_stopping = service->has_begun_to_stop = service->is_ending = service->has_abandoned = false;
        service->stop_status = LIDO_OK;
        service->open_handles = 0;
        service->detached = NULL;
        return service;
}

/* Two handles on the loop, which keep an own loop going and an embedder's not, and two more for the borrower. */
static int open_handles(struct lido_service *service, uv_loop_t *loop, bool is_attached)
{
        int rc;

        service->loop = service->keeper.host.loop = loop;
        service->is_attached = is_attached;
        rc = lido_loop_open(&service->borrower, loop);
        if (rc != LIDO_OK)
                return rc;
        if (fault_hit() || bell_open(&service->bell, loop, on_ring, service) != 0) {
                lido_loop_close(service->borrower, NULL, NULL);
                return LIDO_ELOOP;
        }
        service->timer.data = service;
        uv_timer_init(loop, &service->timer);
        service->open_handles = 3; /* the borrower counts as one */
        if (is_attached) {
                bell_unref(&service->bell);
                uv_unref((uv_handle_t *)&service->timer);
        }
        store_seq_cst(&service->is_awake, 0);
        store_seq_cst(&service->is_shut, 0);
        service->clock_watch.moved = on_moved;
        if (clock_is_theirs())
                lido_clock_watch(&service->clock_watch);
        return LIDO_OK;
}

int lido_service_start(struct lido_service **ret_service, const struct lido_service_options *options)
{
        struct lido_service_options ours;
        struct lido_service *service;
        int rc;

        if (!ret_service)
                return LIDO_EINVAL;
        rc = take_options(&ours, options);
        if (rc != LIDO_OK)
                return rc;
        service = service_new(&ours);
        if (!service)
                return LIDO_ENOMEM;
        rc = LIDO_ELOOP;
        if (fault_hit() || uv_loop_init(&service->own_loop) != 0)
                goto give;
        rc = open_handles(service, &service->own_loop, false);
        if (rc != LIDO_OK)
                goto close_loop;
        loop_settle(service->borrower, 0);
        rc = thread_start(&service->thread, service->name, 0, run, service);
        if (rc != LIDO_OK)
                goto close_handles;
        *ret_service = service;
        return LIDO_OK;

close_handles:
        shut_door(service);
        close_handles(service);
close_loop:
        uv_run(&service->own_loop, UV_RUN_DEFAULT);
        uv_loop_close(&service->own_loop);
give:
        shelf_give(&shelf, service);
        return rc;
}

int lido_service_attach(struct lido_service **ret_service, struct uv_loop_s *loop,
                        const struct lido_service_options *options)
{
        struct lido_service_options ours;
        struct lido_service *service;
        int rc;

        if (!ret_service || !loop)
                return LIDO_EINVAL;
        rc = take_options(&ours, options);
        if (rc != LIDO_OK)
                return rc;
        service = service_new(&ours);
        if (!service)
                return LIDO_ENOMEM;
        rc = open_handles(service, loop, true);
        if (rc != LIDO_OK) {
                shelf_give(&shelf, service);
                return rc;
        }
        store_relaxed(&service->keeper.host.thread, thread_id());
        *ret_service = service;
        return LIDO_OK;
}

struct lido_loop *lido_service_loop(struct lido_service *service)
{
        return service && !service_is_forked(service) ? service->borrower : NULL;
}

/* Returns: false when it is stopping already. */
static bool begin_stop(struct lido_service *service, int64_t timeout_ms)
{
        bool is_first;

        mutex_lock(&service->lock);
        is_first = !service->is_stopping;
        service->is_stopping = true;
        if (is_first)
                service->stop_due_ns = clock_after_ms(clock_now_ns(), timeout_ms);
        mutex_unlock(&service->lock);
        return is_first;
}

int lido_service_stop(struct lido_service *service, int64_t timeout_ms)
{
        int status;

        if (!service || timeout_ms < LIDO_NEVER || service->is_attached)
                return LIDO_EINVAL;
        if (service_is_forked(service))
                return LIDO_EFORKED;
        if (service_is_self(service) || helpers_has_self(&service->helpers))
                return LIDO_EDEADLK;
        begin_stop(service, timeout_ms);
        wake(&service->keeper.host);
        thread_join(&service->thread);
        uv_loop_close(&service->own_loop);
        status = service->stop_status;
        shelf_give(&shelf, service);
        return status;
}

int lido_service_detach(struct lido_service *service, int64_t timeout_ms, void (*detached)(int, void *), void *context)
{
        if (!service || timeout_ms < LIDO_NEVER || !service->is_attached)
                return LIDO_EINVAL;
        if (service_is_forked(service))
                return LIDO_EFORKED;
        if (!begin_stop(service, timeout_ms))
                return LIDO_EBUSY;
        service->detached = detached;
        service->detached_context = context;
        bell_ref(&service->bell);
        uv_ref((uv_handle_t *)&service->timer);
        wake(&service->keeper.host);
        return LIDO_OK;
}
