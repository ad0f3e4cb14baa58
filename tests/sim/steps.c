/* The steps of a program, one after the other: those that borrow are in borrow.c, here are the ones on a loop and those that an
 * operator takes. */
#include "sim/face.h"

#include "base/random.h"
#include "sim/borrower.h"

static struct request *some_request(struct borrower *b, bool is_pending)
{
        for (int i = REQUESTS - 1; i >= 0; i--)
                if (b->request[i].is_pending == is_pending)
                        return &b->request[i];
        return NULL;
}

/* A request asks on nobody's behalf. */
static void got_on_loop(struct borrower *b, unsigned pool, lido_lease lease)
{
        bool was_tagged = b->is_tagged;

        b->is_tagged = false;
        borrow_got(b, pool, lease);
        b->is_tagged = was_tagged;
}

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
                got_on_loop(b, r->pool, lease);
        else if (status == LIDO_OK)
                lido_release_at(lease, "too many");
        else if (status != LIDO_ETIMEDOUT && !(status == LIDO_ECANCELED && r->is_canceled) &&
                 !borrow_is_expected(status))
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
        r->pool = b->pool;
        r->request.loop = &b->loop;
        r->deadline_ns = sim_now() + us * NS_PER_US;
        r->is_pending = true;
        r->is_canceled = false;
        rc = lido_acquire_async_at(pool_of(b), &r->request, us / 1000, on_acquired, "world");
        if (rc == LIDO_OK)
                return;
        r->is_pending = false;
        if (!borrow_is_expected(rc))
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

static void find_fault(struct factory *factory, bool is_dead)
{
        for (unsigned i = 0; i < factory->objects; i++) {
                struct object *object = &factory->object[i];

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

static void resize(struct borrower *b, uint32_t max)
{
        int rc;

        if (max < world.program->min)
                return;
        if (max > world.factory[b->pool].most)
                world.factory[b->pool].most = max;
        world.has_resized = true;
        rc = lido_pool_resize(pool_of(b), max);
        if (rc != LIDO_OK && !(rc == LIDO_ECLOSED && world.is_closing))
                sim_fail("resize says %s", lido_err_name(rc));
}

/* The holder is told when it releases; until then the object is not closed. */
static void revoke(struct held *held)
{
        int rc;

        if (borrow_is_shared(held))
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
                rc = lido_pool_pause(world.pool[0], step->argument ? LIDO_PAUSE_REJECT : LIDO_PAUSE_HOLD);
        else
                rc = lido_pool_resume(world.pool[0]);
        if (rc != LIDO_OK)
                sim_fail("%s says %s", program_op_name(step->op), lido_err_name(rc));
        b->has_paused = step->op == OP_PAUSE;
        world.pausing--;
        world.is_paused = step->op == OP_PAUSE && is_alone && number == world.pauses;
}

/* A lower limit holds for those who come. */
static void set_quota(struct borrower *b, uint32_t limit)
{
        if (!world.program->quota)
                return;
        if (limit > world.most_quota)
                world.most_quota = limit;
        if (lido_pool_set_quota(pool_of(b), TAG, limit) != LIDO_OK)
                sim_fail("a quota cannot be set");
}

static void set_budget(uint32_t total)
{
        if (!world.budget)
                return;
        if (total > world.most_budget)
                world.most_budget = total;
        if (lido_budget_resize(world.budget, total) != LIDO_OK)
                sim_fail("a budget cannot be resized");
}

/* Who looks at an object must find it whole until he has seen enough. */
static int is_to_go(void *memory, void *context)
{
        struct object *object = memory;
        int number = object->number;

        (void)context;
        for (int i = 0; i < 2; i++) {
                if (object->number != number || object->state != OBJECT_OPEN)
                        sim_fail("object %d is looked at when it is not open", number);
                thread_yield();
        }
        return number % 2;
}

static void run_step(struct borrower *b, const struct step *step)
{
        switch (step->op) {
        case OP_ACQUIRE:
                borrow_acquire(b, step->argument);
                break;
        case OP_TRY:
                borrow_try(b);
                break;
        case OP_RELEASE:
        case OP_DISCARD:
        case OP_DETACH:
                borrow_end(b, step->op);
                break;
        case OP_HOLD:
                world.calls--;
                sim_sleep(sim_now() + step->argument * NS_PER_US);
                world.calls++;
                break;
        case OP_STALE:
                borrow_release_stale(b);
                break;
        case OP_SHARE:
                borrow_share(b);
                break;
        case OP_STEAL:
                borrow_steal(b);
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
                resize(b, step->argument);
                break;
        case OP_PAUSE:
        case OP_RESUME:
                pause_or_resume(b, step);
                break;
        case OP_TRIM:
                lido_pool_trim(pool_of(b), step->argument);
                break;
        case OP_CLEAR:
                lido_pool_clear(pool_of(b));
                break;
        case OP_ROTATE:
                lido_pool_rotate(pool_of(b), step->argument / 1000);
                break;
        case OP_ROTATE_SOME:
                lido_pool_rotate_if(pool_of(b), step->argument / 1000, is_to_go, NULL);
                break;
        case OP_DOUBT:
                lido_pool_suspect(pool_of(b));
                break;
        case OP_REVOKE:
                if (b->holds)
                        revoke(&b->held[b->holds - 1]);
                break;
        case OP_BROKEN:
                find_fault(&world.factory[b->pool], true);
                break;
        case OP_SUSPECT:
                find_fault(&world.factory[b->pool], false);
                break;
        case OP_OTHER:
                b->pool = step->argument % world.program->pools;
                break;
        case OP_CLASS:
                b->priority = (int)step->argument;
                break;
        case OP_TAG:
                b->is_tagged = step->argument != 0;
                break;
        case OP_MANY:
                borrow_many(b, step->argument);
                break;
        case OP_QUOTA:
                set_quota(b, step->argument);
                break;
        case OP_BUDGET:
                set_budget(step->argument);
                break;
        case OP_CLOSE:
                world.is_closing = true;
                lido_pool_close(world.pool[0], step->argument / 1000);
                break;
        default:
                break;
        }
}

/* One in a hundred leases begins a rotation. */
static void rotate_now_and_then(struct borrower *b, struct random *random)
{
        if (b->index != 0 || random_below(random, 100) != 0)
                return;
        lido_pool_rotate(pool_of(b), 60000);
        world.books.rotations++;
}

/* Ten minutes of two hours are a rush, in which all come again at once; otherwise now and then nobody comes for long. */
static uint64_t draw_pause_ms(struct random *random)
{
        bool is_rush = sim_now() / NS_PER_S % 7200 < 600;

        return random_below(random, is_rush ? 300 : random_below(random, 8) ? 20000 : 900000);
}

/* Come and go until the time is up. */
static void roam(struct borrower *b)
{
        struct random random = {(uint64_t)b->index * 77 + world.seed};
        uint64_t end = SIM_START + world.program->roam_s * NS_PER_S;

        while (sim_now() < end) {
                sim_sleep(sim_now() + draw_pause_ms(&random) * NS_PER_MS);
                borrow_acquire(b, 5000000);
                sim_sleep(sim_now() + random_below(&random, 2000) * NS_PER_MS);
                borrow_end(b, random_below(&random, 50) ? OP_RELEASE : OP_DISCARD);
                rotate_now_and_then(b, &random);
        }
}

void steps_run(void *context)
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
                borrow_end(b, OP_RELEASE);
        await_all(b);
        while (b->holds)
                borrow_end(b, OP_RELEASE);
        world.calls--;
}
