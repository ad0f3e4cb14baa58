#include "sim/face.h"

#include "sim/world.h"

#include <stdio.h>
#include <string.h>

#include "base/random.h"
#include "lido/pool.h"
#include "pool/waitq.h"
#include "sim/factory.h"
#include "sim/loop.h"
#include "sim/service.h"

#define HELD 4 /* leases that one thread holds at once at most */
#define REQUESTS 2
#define LONG_MS 100000

struct held {
        lido_lease lease;
        struct object *object;
        bool is_revoked;
};

struct borrower {
        int index;
        int coroutine;
        struct held held[HELD];
        unsigned holds;
        struct held last; /* the lease that ended last */
        bool has_paused;
        bool is_acquiring;
        unsigned calls; /* acquires begun, to tell one wait of a thread from its next */
        struct lido_loop loop;
        struct request {
                struct lido_request request; /* first */
                struct borrower *borrower;
                uint64_t deadline_ns;
                bool is_pending, is_canceled;
        } request[REQUESTS];
};

static struct world {
        const struct program *program;
        struct lido_service service;
        struct lido_pool *pool;
        uint64_t seed;
        bool is_closing, is_paused;
        unsigned pauses, pausing; /* begun so far; on their way */
        unsigned calls;           /* borrowers inside the library */
        /* one lease that several may release */
        bool is_shared, was_shared_returned;
        struct held shared;
        unsigned shared_returns;
        struct factory factory;
        struct borrower borrower[PROGRAM_THREADS];
        struct world_books books;
} world;

/* ---- the laws --------------------------------------------------------------------------------------------
 */

/* Nobody can go on, and time is about to: nothing that could be done may have been left undone. */
static void check_quiet(void *context)
{
        struct lido_pool *pool = world.pool;

        (void)context;
        if (!pool || world.factory.ended)
                return;
        slots_check(pool, true);
        if ((SIM_PEEK(&pool->gate) & GATE_PAUSED) || world.is_closing || waitq_length(pool) == 0)
                return;
        if (SIM_PEEK(&pool->live) < SIM_PEEK(&pool->max) && SIM_PEEK(&pool->opening) == 0 &&
            world.service.due_ns == CLOCK_NEVER)
                sim_fail("somebody waits, there is room, and the keeper sleeps for ever");
}

/* Those who sleep in line now, to be compared with those who still do when somebody else was served. */
struct line {
        unsigned count;
        struct pool_waiter *waiter[8];
        uint32_t thread[8];
        unsigned call[8];
};

static bool sleeps_in_line(const struct pool_waiter *w)
{
        return !w->waiter.notify &&
               SIM_PEEK(&((struct pool_waiter *)(uintptr_t)w)->waiter.state) < WAITER_GIVEN &&
               sim_is_asleep((int)w->thread - 1);
}

static unsigned call_of(const struct pool_waiter *w)
{
        for (uint32_t i = 0; i < world.program->threads; i++)
                if (world.borrower[i].coroutine == (int)w->thread - 1)
                        return world.borrower[i].calls;
        return 0;
}

static void look_at_line(struct line *ret_line)
{
        ret_line->count = 0;
        list_for_each(link, &world.pool->waitq.line[LIDO_PRIORITY_NORMAL])
        {
                struct pool_waiter *w = list_entry(link, struct pool_waiter, waiter.link);

                if (ret_line->count < 8 && sleeps_in_line(w)) {
                        ret_line->waiter[ret_line->count] = w;
                        ret_line->call[ret_line->count] = call_of(w);
                        ret_line->thread[ret_line->count++] = w->thread;
                }
        }
}

static void nobody_was_overtaken(const struct line *before, int by)
{
        list_for_each(link, &world.pool->waitq.line[LIDO_PRIORITY_NORMAL])
        {
                struct pool_waiter *w = list_entry(link, struct pool_waiter, waiter.link);

                for (unsigned i = 0; i < before->count && !w->is_front;
                     i++) /* one that was given a dead object had its turn */
                        if (before->waiter[i] == w && before->thread[i] == w->thread &&
                            before->call[i] == call_of(w) && sleeps_in_line(w))
                                sim_fail("%s has overtaken %s", sim_name(by), sim_name((int)w->thread - 1));
        }
}

/* ---- borrowing -------------------------------------------------------------------------------------------
 */

static void got(struct borrower *b, lido_lease lease)
{
        struct object *object = lido_object(lease);

        if (!object)
                sim_fail("a lease that has just been given is not valid");
        factory_taken(object, b->coroutine);
        sim_note("%s has object %d", sim_name(b->coroutine), object->number);
        b->held[b->holds++] = (struct held){lease, object, false};
        world.books.acquired++;
}

/* Does everybody who holds something wait for something? */
static bool is_deadlock(void)
{
        for (unsigned i = 0; i < world.factory.objects; i++) {
                const struct object *object = &world.factory.object[i];

                if (object->state != OBJECT_OPEN || object->holder < 0)
                        continue;
                for (uint32_t k = 0; k < world.program->threads; k++)
                        if (world.borrower[k].coroutine == object->holder && !world.borrower[k].is_acquiring)
                                return false;
        }
        return true;
}

static bool is_expected(int rc)
{
        switch (rc) {
        case LIDO_EDEADLK:
                return true; /* looked into where it came */
        case LIDO_EPAUSED:
                return world.pauses > 0;
        case LIDO_EUNAVAIL:
        case LIDO_ECLOSED:
                return world.is_closing;
        case LIDO_EQUEUEFULL:
                return world.program->queue_limit != UINT32_MAX;
        case LIDO_EPERMANENT:
                return world.factory.failed > 0;
        default:
                return false;
        }
}

static struct request *some_request(struct borrower *b, bool is_pending)
{
        for (int i = REQUESTS - 1; i >= 0; i--)
                if (b->request[i].is_pending == is_pending)
                        return &b->request[i];
        return NULL;
}

static void acquire(struct borrower *b, uint32_t us)
{
        bool is_strict = world.program->overtake_us < 0 && !world.is_paused && !sim_is_weak();
        uint64_t deadline, earliest, now;
        bool is_paused = world.is_paused;
        unsigned pauses = world.pauses;
        struct line before;
        lido_lease lease;
        int rc;

        if (b->holds == HELD)
                return;
        if (us == 0 && (b->holds > 0 || b->has_paused || some_request(b, true)))
                us = 1000; /* for ever would be for ever */
        b->calls++;
        b->is_acquiring = true;
        look_at_line(&before);
        sim_deadline_in(us ? us * NS_PER_US : CLOCK_NEVER);
        rc = lido_acquire_at(world.pool, us ? (int64_t)(us / 1000) : LIDO_NEVER, &lease, "world");
        deadline = sim_deadline(&earliest);
        sim_deadline_in(CLOCK_NEVER);
        now = sim_now();
        if (rc == LIDO_EDEADLK && !is_deadlock())
                sim_fail("acquire says LIDO_EDEADLK, though somebody could go on");
        b->is_acquiring = false;
        if (rc == LIDO_OK && is_paused && pauses == world.pauses && !sim_is_weak())
                sim_fail("an object is lent while the pool is paused");
        sim_note("%s: acquire says %s", sim_name(b->coroutine), lido_err_name(rc));
        if (deadline != CLOCK_NEVER && now > deadline)
                sim_fail("an acquire returns %llu ns after its deadline",
                         (unsigned long long)(now - deadline));
        if (rc == LIDO_OK) {
                if (is_strict && !world.is_paused)
                        nobody_was_overtaken(&before, b->coroutine);
                got(b, lease);
        } else if (rc == LIDO_ETIMEDOUT) {
                world.books.timed_out++;
                if (now < earliest)
                        sim_fail("an acquire times out %llu ns early", (unsigned long long)(earliest - now));
        } else if (!is_expected(rc)) {
                sim_fail("acquire says %s", lido_err_name(rc));
        }
}

/* Whether a try may find nothing is only certain when nobody was in the middle of something as it began. */

/* Words of slots that are idle, to see whether one was idle all the time. */
static unsigned idle_words(uint64_t *words)
{
        unsigned count = 0;

        for (uint32_t i = 0; i < CHUNK_SLOTS; i++) {
                uint64_t word = SIM_PEEK(&slots_at(&world.pool->slots, i)->word);

                words[i] = word_state(word) == SLOT_IDLE ? word : 0;
                count += words[i] != 0;
        }
        return count;
}

static void try_acquire(struct borrower *b)
{
        uint64_t before[CHUNK_SLOTS], after[CHUNK_SLOTS];
        bool is_exact = !sim_is_weak() && !world.is_paused && world.program->overtake_us >= 0 &&
                        world.calls == 1 && sim_is_asleep(world.service.coroutine) &&
                        sim_is_asleep(world.factory.server);
        bool was_paused = world.is_paused;
        unsigned pauses = world.pauses;
        lido_lease lease;
        int rc;

        if (b->holds == HELD)
                return;
        sim_alone();
        idle_words(before);
        sim_together();
        rc = lido_try_acquire_at(world.pool, &lease, "world");
        sim_note("%s: try says %s", sim_name(b->coroutine), lido_err_name(rc));
        if (rc == LIDO_OK) {
                if (was_paused && pauses == world.pauses && !sim_is_weak())
                        sim_fail("an object is lent while the pool is paused");
                got(b, lease);
                return;
        }
        if (rc == LIDO_EEXHAUSTED && is_exact && !world.is_paused) {
                sim_alone();
                idle_words(after);
                sim_together();
                for (uint32_t i = 0; i < CHUNK_SLOTS; i++)
                        if (before[i] && before[i] == after[i])
                                sim_fail("a try finds nothing, though slot %u was idle all the time", i);
        }
        if (rc != LIDO_EEXHAUSTED && rc != LIDO_EPAUSED && !is_expected(rc))
                sim_fail("try says %s", lido_err_name(rc));
}

static bool is_misuse(int rc)
{
        return rc == LIDO_EDOUBLE || rc == LIDO_ESTALE || rc == LIDO_EREVOKED;
}

static bool is_shared_lease(const struct held *held)
{
        return world.is_shared && held->lease.slot == world.shared.lease.slot &&
               held->lease.generation == world.shared.lease.generation;
}

/* Before a lease ends: afterwards the object may be anybody's. A shared one may have been ended by another.
 */
static void let_go(struct borrower *b, const struct held *held)
{
        if (!is_shared_lease(held))
                factory_returned(held->object, b->coroutine);
        else if (held->object->is_contested)
                held->object->holder = NOBODY;
}

/* The outcome of ending a lease that may have been shared. */
static void ended(struct borrower *b, const struct held *held, int rc)
{
        sim_note("%s: release says %s", sim_name(b->coroutine), lido_err_name(rc));
        b->last = *held;
        if (is_shared_lease(held)) {
                world.shared_returns += rc == LIDO_OK;
                if (rc != LIDO_OK && !is_misuse(rc))
                        sim_fail("release says %s", lido_err_name(rc));
                return;
        }
        if (rc != (held->is_revoked ? LIDO_EREVOKED : LIDO_OK))
                sim_fail("release says %s", lido_err_name(rc));
        if (lido_object(held->lease) != NULL)
                sim_fail("a lease that has ended is still valid");
}

static void end_lease(struct borrower *b, int op)
{
        struct held held;
        void *object;
        int rc;

        if (b->holds == 0)
                return;
        held = b->held[--b->holds];
        if (!is_shared_lease(&held) && !held.is_revoked && lido_object(held.lease) != held.object)
                sim_fail("a lease that is held is not valid");
        let_go(b, &held);
        if (op == OP_DISCARD) {
                rc = lido_discard_at(held.lease, "world");
        } else if (op == OP_DETACH) {
                /* the factory forgets it at once, the pool a little later */
                world.factory.alive--;
                rc = lido_detach_at(held.lease, &object, "world");
                if (rc == LIDO_OK) {
                        if (object != held.object)
                                sim_fail("what is detached is another object");
                        held.object->state = OBJECT_DETACHED;
                } else {
                        world.factory.alive++; /* stolen before, or revoked */
                }
        } else {
                rc = lido_release_at(held.lease, "world");
        }
        ended(b, &held, rc);
}

/* ---- the operations --------------------------------------------------------------------------------------
 */

static void release_stale(struct borrower *b)
{
        int rc;

        if (!b->last.object)
                return;
        rc = lido_release_at(b->last.lease, "again");
        sim_note("%s: second release says %s", sim_name(b->coroutine), lido_err_name(rc));
        if (!is_misuse(rc) && !is_shared_lease(&b->last))
                sim_fail("a second release says %s", lido_err_name(rc));
        if (rc == LIDO_OK)
                world.shared_returns++;
}

static void share(struct borrower *b)
{
        if (world.is_shared || b->holds == 0 || b->held[b->holds - 1].is_revoked)
                return;
        world.is_shared = true;
        world.shared = b->held[b->holds - 1];
        world.shared.object->is_contested = true;
        sim_publish(&world.shared);
}

static void steal(struct borrower *b)
{
        struct held held = world.shared;
        int rc;

        if (!world.is_shared)
                return;
        sim_consult(&world.shared);
        let_go(b, &held);
        rc = lido_release_at(held.lease, "thief");
        sim_note("%s: stealing says %s", sim_name(b->coroutine), lido_err_name(rc));
        if (rc != LIDO_OK && !is_misuse(rc))
                sim_fail("a release by a second thread says %s", lido_err_name(rc));
        world.shared_returns += rc == LIDO_OK;
}

/* ---- borrowing on a loop ---------------------------------------------------------------------------------
 */

static void on_acquired(struct lido_request *request, int status, lido_lease lease)
{
        struct request *r = (struct request *)(void *)request;
        struct borrower *b = r->borrower;

        sim_note("%s: request says %s", sim_name(b->coroutine), lido_err_name(status));
        if (!r->is_pending)
                sim_fail("a request is called back twice");
        if (sim_self() != b->coroutine)
                sim_fail("a request is called back on another thread");
        r->is_pending = false;
        if (status == LIDO_ETIMEDOUT && sim_now() < r->deadline_ns)
                sim_fail("a request times out early");
        if (r->is_canceled && status != LIDO_ECANCELED)
                sim_fail("a request that was cancelled says %s", lido_err_name(status));
        if (status == LIDO_OK && b->holds < HELD)
                got(b, lease);
        else if (status == LIDO_OK)
                lido_release_at(lease, "too many");
        else if (status != LIDO_ETIMEDOUT && !(status == LIDO_ECANCELED && r->is_canceled) &&
                 !is_expected(status))
                sim_fail("a request says %s", lido_err_name(status));
}

static void ask(struct borrower *b, uint32_t us)
{
        struct request *r = some_request(b, false);
        int rc;

        if (!r)
                return;
        if (us == 0)
                us = 100000; /* a request may outlive the lease of the thread that runs its loop */
        us = us < 1000 ? 1000 : us;
        r->borrower = b;
        r->request.loop = &b->loop;
        r->deadline_ns = sim_now() + us * NS_PER_US;
        r->is_pending = true;
        r->is_canceled = false;
        rc = lido_acquire_async_at(world.pool, &r->request, us / 1000, on_acquired, "world");
        if (rc == LIDO_OK)
                return;
        r->is_pending = false;
        if (!is_expected(rc))
                sim_fail("lido_acquire_async says %s", lido_err_name(rc));
}

static void cancel(struct borrower *b)
{
        struct request *r = some_request(b, true);
        int rc;

        if (!r)
                return;
        rc = lido_cancel(&r->request);
        sim_note("%s: cancel says %s", sim_name(b->coroutine), lido_err_name(rc));
        if (rc == LIDO_OK)
                r->is_canceled = true;
        else if (rc != LIDO_EBUSY)
                sim_fail("lido_cancel says %s", lido_err_name(rc));
}

static void await_all(struct borrower *b)
{
        while (loop_turn(&b->loop))
                ;
        if (some_request(b, true))
                sim_fail("a request was never called back");
}

static void find_fault(bool is_dead)
{
        for (unsigned i = 0; i < world.factory.objects; i++) {
                struct object *object = &world.factory.object[i];

                if (object->is_watched) {
                        lido_handle handle = object->handle;

                        sim_consult(object);
                        if (is_dead)
                                lido_handle_broken(handle, "found dead");
                        else
                                lido_handle_suspect(handle, "doubted");
                        return;
                }
        }
}

static void resize(uint32_t max)
{
        int rc;

        if (max < world.program->min)
                return;
        if (max > world.factory.most)
                world.factory.most = max;
        rc = lido_pool_resize(world.pool, max);
        if (rc != LIDO_OK && !(rc == LIDO_ECLOSED && world.is_closing))
                sim_fail("resize says %s", lido_err_name(rc));
}

/* The holder is told when it releases; until then the object is not closed. */
static void revoke(struct held *held)
{
        int rc;

        if (is_shared_lease(held))
                return;
        rc = lido_revoke(held->lease);
        if (rc != (held->is_revoked ? LIDO_EREVOKED : LIDO_OK))
                sim_fail("lido_revoke says %s", lido_err_name(rc));
        if (lido_object(held->lease) != NULL)
                sim_fail("a lease that was revoked is still valid");
        held->is_revoked = true;
}

/* While a pause is on its way neither is certain. */
static void pause_or_resume(struct borrower *b, const struct step *step)
{
        unsigned number = ++world.pauses;
        bool is_alone = world.pausing == 0;
        int rc;

        world.is_paused = false;
        world.pausing++;
        if (step->op == OP_PAUSE)
                rc = lido_pool_pause(world.pool, step->argument ? LIDO_PAUSE_REJECT : LIDO_PAUSE_HOLD);
        else
                rc = lido_pool_resume(world.pool);
        if (rc != LIDO_OK)
                sim_fail("%s says %s", program_op_name(step->op), lido_err_name(rc));
        b->has_paused = step->op == OP_PAUSE;
        world.pausing--;
        world.is_paused = step->op == OP_PAUSE && is_alone && number == world.pauses;
}

static void run_step(struct borrower *b, const struct step *step)
{
        switch (step->op) {
        case OP_ACQUIRE:
                acquire(b, step->argument);
                break;
        case OP_TRY:
                try_acquire(b);
                break;
        case OP_RELEASE:
        case OP_DISCARD:
        case OP_DETACH:
                end_lease(b, step->op);
                break;
        case OP_HOLD:
                world.calls--;
                sim_sleep(sim_now() + step->argument * NS_PER_US);
                world.calls++;
                break;
        case OP_STALE:
                release_stale(b);
                break;
        case OP_SHARE:
                share(b);
                break;
        case OP_STEAL:
                steal(b);
                break;
        case OP_REQUEST:
                ask(b, step->argument);
                break;
        case OP_CANCEL:
                cancel(b);
                break;
        case OP_AWAIT:
                await_all(b);
                break;
        case OP_RESIZE:
                resize(step->argument);
                break;
        case OP_PAUSE:
        case OP_RESUME:
                pause_or_resume(b, step);
                break;
        case OP_TRIM:
                lido_pool_trim(world.pool, step->argument);
                break;
        case OP_CLEAR:
                lido_pool_clear(world.pool);
                break;
        case OP_ROTATE:
                lido_pool_rotate(world.pool, step->argument / 1000);
                break;
        case OP_DOUBT:
                lido_pool_suspect(world.pool);
                break;
        case OP_REVOKE:
                if (b->holds)
                        revoke(&b->held[b->holds - 1]);
                break;
        case OP_BROKEN:
                find_fault(true);
                break;
        case OP_SUSPECT:
                find_fault(false);
                break;
        case OP_CLOSE:
                world.is_closing = true;
                lido_pool_close(world.pool, step->argument / 1000);
                break;
        default:
                break;
        }
}

/* Come and go until the time is up. */
static void roam(struct borrower *b)
{
        struct random random = {(uint64_t)b->index * 77 + world.seed};
        uint64_t end = SIM_START + world.program->roam_s * NS_PER_S;

        while (sim_now() < end) {
                uint64_t pause = random_below(&random, 8)
                                         ? 20000
                                         : 900000; /* ms: now and then nobody comes for long */

                sim_sleep(sim_now() + random_below(&random, pause) * NS_PER_MS);
                acquire(b, 5000000);
                sim_sleep(sim_now() + random_below(&random, 2000) * NS_PER_MS);
                end_lease(b, random_below(&random, 50) ? OP_RELEASE : OP_DISCARD);
        }
}

static void borrow(void *context)
{
        struct borrower *b = context;

        loop_init(&b->loop, b->coroutine);
        if (world.program->roam_s)
                roam(b);
        for (int i = 0; i < PROGRAM_OPS; i++) {
                const struct step *step = &world.program->step[b->index][i];

                if (step->op == OP_NOTHING)
                        continue;
                sim_note("%s: %s %u", sim_name(b->coroutine), program_op_name(step->op), step->argument);
                world.calls++;
                run_step(b, step);
                world.calls--;
        }
        world.calls++;
        if (b->has_paused)
                pause_or_resume(b, &(struct step){OP_RESUME, 0});
        while (b->holds)
                end_lease(b, OP_RELEASE);
        await_all(b);
        while (b->holds)
                end_lease(b, OP_RELEASE);
        world.calls--;
}

/* ---- from beginning to end -------------------------------------------------------------------------------
 */

static int64_t or_never(uint32_t ms)
{
        return ms ? (int64_t)ms : LIDO_NEVER;
}

static struct lido_pool_options options_of(const struct program *p)
{
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;

        options.name = "model";
        options.max = p->max;
        options.min = p->min;
        options.min_idle = p->min_idle;
        options.open_limit = p->open_limit;
        options.overtake_us = p->overtake_us;
        options.order = (int)p->order;
        options.queue_limit = p->queue_limit;
        options.max_uses = p->max_uses;
        options.idle_timeout_ms = or_never(p->idle_ms);
        options.lifetime_ms = or_never(p->lifetime_ms);
        options.rest_after_ms = or_never(p->rest_ms);
        options.check_after_ms = or_never(p->check_after_ms);
        options.check_interval_ms = or_never(p->check_interval_ms);
        options.backoff_min_ms = 1;
        options.backoff_max_ms = 4;
        return options;
}

/* The pool as the program finds it, with `filled` objects idle. Nobody else runs. */
static void set_up(void)
{
        const struct program *program = world.program;
        struct lido_pool_options options = options_of(program);
        lido_lease lease[16];
        int rc;

        service_init(&world.service);
        factory_init(&world.factory, program);
        world.factory.at_once = true;
        rc = lido_pool_open(&world.pool, &world.service, &world.factory.hooks, &options);
        if (rc != LIDO_OK)
                sim_fail("lido_pool_open says %s", lido_err_name(rc));
        for (uint32_t i = 0; i < program->filled; i++)
                while (lido_try_acquire(world.pool, &lease[i]) != LIDO_OK)
                        keeper_turn(&world.service.keeper, sim_now());
        for (uint32_t i = 0; i < program->filled; i++)
                lido_release(lease[i]);
        if (program->filled)
                keeper_turn(&world.service.keeper, sim_now());
        world.factory.at_once = false;
}

static void check_books(void)
{
        unsigned open = 0;

        if (!world.factory.ended)
                sim_fail("the pool has ended, the factory has not");
        for (unsigned i = 0; i < world.factory.objects; i++) {
                const struct object *object = &world.factory.object[i];

                open += object->state == OBJECT_OPEN || object->state == OBJECT_CLOSING;
                if (object->is_watched)
                        sim_fail("object %d is still watched at the end", object->number);
        }
        if (open || world.factory.alive)
                sim_fail("%u objects were never closed", open);
        if (world.is_shared && world.shared_returns > 1)
                sim_fail("a lease was released %u times", world.shared_returns);
}

static void tear_down(void)
{
        int rc;

        world.is_closing = true;
        lido_pool_close(world.pool, LIDO_NEVER);
        rc = lido_pool_drain(world.pool, LONG_MS);
        if (rc != LIDO_OK)
                sim_fail("when all leases are back, drain says %s", lido_err_name(rc));
        lido_pool_free(world.pool);
        world.pool = NULL;
        sim_sleep(sim_now() + NS_PER_MS);
        check_books();
}

static void live(void *context)
{
        static const char *const names[] = {"A", "B", "C", "D", "E", "F"};

        (void)context;
        sim_alone();
        set_up();
        service_spawn(&world.service);
        world.factory.server = sim_spawn("server", factory_serve, &world.factory, true);
        sim_together();
        sim_calm(true);
        sim_sleep(sim_now() + 1); /* until these two sleep as well */
        sim_calm(false);
        sim_alone();
        for (uint32_t i = 0; i < world.program->threads; i++) {
                struct borrower *b = &world.borrower[i];

                memset(b, 0, sizeof *b);
                b->index = (int)i;
                b->coroutine = sim_spawn(names[i], borrow, b, false);
        }
        sim_on_quiet(check_quiet, NULL);
        sim_together();
        for (uint32_t i = 0; i < world.program->threads; i++)
                sim_join(world.borrower[i].coroutine);
        sim_calm(true);
        tear_down();
}

/* The slots and the world, without what no run has touched, and without the counts of what has been. */
static unsigned state_of_world(struct sim_block *list, unsigned most, struct sim_block *ret_reports)
{
        const struct factory *factory = &world.factory;
        unsigned count = 0;

        (void)most;
        list[count++] = (struct sim_block){&world, offsetof(struct world, factory)};
        list[count++] = (struct sim_block){factory, offsetof(struct factory, object)};
        list[count++] = (struct sim_block){factory->object, factory->objects * sizeof factory->object[0]};
        list[count++] = (struct sim_block){factory->answer, factory->answers * sizeof factory->answer[0]};
        list[count++] = (struct sim_block){world.borrower, world.program->threads * sizeof world.borrower[0]};
        if (!world.pool)
                return count;
        list[count++] = (struct sim_block){SIM_PEEK(&world.pool->slots.chunk[0]),
                                              SIM_PEEK(&world.pool->slots.high) * SLOT_SIZE};
        ret_reports->memory = &world.pool->waited;
        ret_reports->size = offsetof(struct lido_pool, kept) - offsetof(struct lido_pool, waited);
        return count;
}

struct sim_result world_run(const struct program *program, const struct sim_strategy *strategy, uint64_t seed)
{
        world.program = program;
        world.seed = seed;
        world.pool = NULL;
        world.is_closing = world.is_paused = world.is_shared = false;
        world.shared_returns = world.calls = world.pauses = world.pausing = 0;
        memset(&world.books, 0, sizeof world.books);
        sim_state_of(state_of_world);
        return sim_run(strategy, seed, live, NULL);
}

struct world_books world_books(void)
{
        world.books.opened = world.factory.opened;
        world.books.open_failed = world.factory.failed;
        world.books.closed = world.factory.closed;
        world.books.upkeep = world.factory.checks;
        world.books.turns = service_turns();
        return world.books;
}
