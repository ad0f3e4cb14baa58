#include "support/storm.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "base/clock.h"
#include "base/random.h"
#include "pool/pool.h"
#include "support/crew.h"
#include "support/fixture.h"

#define SHARED 8        /* leases on their way from thread to thread */
#define HELD 3          /* leases that a thread has at once */
#define REQUESTS 12     /* of the loop */
#define LONG_MS 30000   /* nobody waits so long unless a wake-up was lost */

struct storm;

/* What one borrower counts, to be compared with what the pool has counted. */
struct tally {
        uint64_t acquired, timed_out, canceled, misused, detached;
};

struct sailor {
        struct storm *storm;
        struct random random;
        struct tally tally;
        lido_lease held[HELD];
        unsigned holds;
        lido_lease old; /* ended; every use of it is a misuse */
};

struct notice {
        struct lido_request request; /* first */
        struct storm *storm;
        _Atomic uint32_t calls;
        bool discards;
};

struct shared_lease {
        struct lido_slot *slot;
        uint64_t generation;
};

struct storm {
        struct storm_plan plan;
        struct random random; /* of the main thread */
        struct fixture *f;
        uint64_t round_steps;
        uint32_t most_max;    /* the largest max of this round */
        bool adopts, is_exact;
        _Atomic uint32_t is_closed;    /* somebody has closed the pool of this round */
        _Atomic uint32_t is_paused;    /* somebody has paused it, and will resume */
        _Atomic uint64_t notices;      /* requests without a loop under way */
        _Atomic uint64_t noticed_ok, noticed_timed_out, noticed_canceled;
        _Atomic uint32_t breaks;       /* 1000 minus how many of a thousand hooks fail */
        pthread_mutex_t lock;          /* guards shared */
        struct shared_lease shared[SHARED];
        struct sailor sailor[CREW_MOST];

        /* The loop's thread alone: */
        struct sailor skipper;
        uv_loop_t uv;
        uv_idle_t idle;
        struct lido_loop *loop;
        struct notice requests[REQUESTS];
        uint64_t loop_steps;
        unsigned pending;
        bool is_loop_closed;
};

static unsigned below(struct sailor *s, unsigned limit)
{
        return (unsigned)random_below(&s->random, limit);
}

/* ---- the factory's moods ---------------------------------------------------------------------------------- */

static struct fake_step choose(struct fake *fake, enum fake_hook hook)
{
        static _Thread_local struct random random;
        struct storm *storm = fake->data;
        struct fake_step step = { .way = FAKE_NOW };
        uint64_t dice;

        if (random.state == 0)
                random.state = storm->plan.seed ^ (uint64_t)(uintptr_t)&random;
        dice = random_below(&random, 1000);
        if (dice < 300)
                step.way = FAKE_THREAD;
        else if (dice < 330)
                step.way = FAKE_TWICE;
        if (hook != FAKE_CLOSE && random_below(&random, 1000) < atomic_load(&storm->breaks)) {
                step.status = LIDO_EFACTORY;
                step.failure = (int)random_below(&random, 5);
                if (step.failure == LIDO_FAILURE_PERMANENT && random_below(&random, 4) != 0)
                        step.failure = LIDO_FAILURE_NETWORK;
        }
        return step;
}

/* ---- leases ------------------------------------------------------------------------------------------------ */

static void use(lido_lease lease)
{
        struct fake_object *object = lido_object(lease);

        if (object) { /* NULL: revoked meanwhile */
                fake_use(object);
                fake_unuse(object);
        }
}

static void take(struct sailor *s, lido_lease lease)
{
        s->tally.acquired++;
        use(lease);
        s->held[s->holds++] = lease;
}

static lido_lease pick(struct sailor *s)
{
        unsigned i = below(s, s->holds);
        lido_lease lease = s->held[i];

        s->held[i] = s->held[--s->holds];
        s->old = lease;
        return lease;
}

static void check_end(int rc)
{
        if (rc != LIDO_OK && rc != LIDO_EREVOKED)
                ck_abort_msg("ending a lease: %s", lido_err_name(rc));
}

static void give_back(struct sailor *s)
{
        lido_lease lease = pick(s);

        use(lease);
        check_end(lido_release(lease));
}

static int is_to_go(void *object, void *context)
{
        (void)context;
        return ((struct fake_object *)object)->serial % 2;
}

static void throw_away(struct sailor *s)
{
        check_end(below(s, 2) == 0 ? lido_discard(pick(s)) : lido_discard_because(pick(s), "thrown away"));
}

static void detach(struct sailor *s)
{
        struct fake *fake = &s->storm->f->fake;
        lido_lease lease = pick(s);
        void *object = NULL;
        int rc;

        fake_forget(fake);
        rc = lido_detach(lease, &object);
        check_end(rc);
        if (rc == LIDO_OK) {
                s->tally.detached++;
                fake_drop(object);
        } else {
                fake_remember(fake);
        }
}

/* A lease that has ended, by whichever way out: refused, and nothing changes. */
static void misuse(struct sailor *s)
{
        void *object;
        int rc;

        if (!s->old.slot)
                return;
        switch (below(s, 3)) {
        case 0:
                rc = lido_release(s->old);
                break;
        case 1:
                rc = lido_discard(s->old);
                break;
        default:
                rc = lido_detach(s->old, &object);
        }
        s->tally.misused++;
        if (rc != LIDO_EDOUBLE && rc != LIDO_ESTALE)
                ck_abort_msg("a lease that has ended: %s", lido_err_name(rc));
        must(!lido_object(s->old));
}

/* ---- acquire ----------------------------------------------------------------------------------------------- */

static void judge(struct sailor *s, int rc, lido_lease lease)
{
        switch (rc) {
        case LIDO_OK:
                take(s, lease);
                break;
        case LIDO_ETIMEDOUT:
                s->tally.timed_out++;
                break;
        case LIDO_ECLOSED:
                must(atomic_load(&s->storm->is_closed));
                break;
        case LIDO_EEXHAUSTED:
        case LIDO_EPERMANENT:
        case LIDO_EUNAVAIL:
        case LIDO_EPAUSED:
        case LIDO_EQUEUEFULL:
        case LIDO_ESHED:
        case LIDO_EDEADLK:
        case LIDO_EQUOTA:
                break;
        case LIDO_EFACTORY:
                must(s->storm->f->options.open_inline);
                break;
        default:
                ck_abort_msg("acquire: %s", lido_err_name(rc));
        }
}

static void try(struct sailor *s)
{
        lido_lease lease;
        int rc = lido_try_acquire(s->storm->f->pool, &lease);

        must(rc != LIDO_ETIMEDOUT);
        judge(s, rc, lease);
}

static void acquire_soon(struct sailor *s)
{
        uint64_t began = real_now_ns();
        int64_t timeout_ms = below(s, 4);
        lido_lease lease;
        int rc = lido_acquire(s->storm->f->pool, timeout_ms, &lease);

        if (rc == LIDO_ETIMEDOUT)
                must(real_now_ns() >= began + (uint64_t)timeout_ms * NS_PER_MS);
        judge(s, rc, lease);
}

static void acquire_with(struct sailor *s)
{
        static const char *const tag[] = { NULL, "web", "batch", "other" };
        struct lido_acquire_options options = LIDO_ACQUIRE_OPTIONS_INIT;
        struct lido_blame blame = LIDO_BLAME_INIT;
        lido_lease lease;

        options.timeout_ms = 1 + below(s, 3);
        options.tag = tag[below(s, 4)];
        options.priority = (int)below(s, 4);
        options.want_label = below(s, 3);
        options.blame = &blame;
        options.site = LIDO_HERE;
        judge(s, lido_acquire_with(s->storm->f->pool, &options, &lease), lease);
}

static void empty_shared(struct storm *storm);

static void say_why(struct lido_pool *pool)
{
        struct lido_blame blame = LIDO_BLAME_INIT;
        char text[2000];

        lido_pool_blame(pool, &blame);
        lido_blame_text(&blame, text, sizeof text);
        fprintf(stderr, "gate %llx limit %u guests %u: %s\n", (unsigned long long)load_seq_cst(&pool->gate),
                load_seq_cst(&pool->limit), load_seq_cst(&pool->guests), text);
        lido_pool_dump(pool, STDERR_FILENO);
}

/* The longest wait there is. Whoever begins one has nothing, and leaves nothing on its way, so that there is something to wait
 * for; so it ends, unless a wake-up is lost. */
static void acquire_surely(struct sailor *s)
{
        uint64_t began = real_now_ns();
        lido_lease lease;
        int rc;

        while (s->holds > 0)
                give_back(s);
        empty_shared(s->storm);
        rc = lido_acquire(s->storm->f->pool, LONG_MS, &lease);
        if (rc == LIDO_ETIMEDOUT) {
                say_why(s->storm->f->pool);
                ck_abort_msg("nobody came in %lu ms", (unsigned long)((real_now_ns() - began) / NS_PER_MS));
        }
        judge(s, rc, lease);
}

/* ---- leases that travel ------------------------------------------------------------------------------------ */

static lido_lease exchange(struct storm *storm, unsigned place, lido_lease lease)
{
        lido_lease other;

        pthread_mutex_lock(&storm->lock);
        other.slot = storm->shared[place].slot;
        other.generation = storm->shared[place].generation;
        storm->shared[place].slot = lease.slot;
        storm->shared[place].generation = lease.generation;
        pthread_mutex_unlock(&storm->lock);
        return other;
}

static void empty_shared(struct storm *storm)
{
        static const lido_lease none = { NULL, 0 };

        for (unsigned i = 0; i < SHARED; i++) {
                lido_lease lease = exchange(storm, i, none);

                if (lease.slot)
                        check_end(lido_release(lease));
        }
}

static void swap(struct sailor *s)
{
        lido_lease lease = pick(s), other;

        memset(&s->old, 0, sizeof s->old); /* it lives on */
        if (below(s, 2))
                lido_transfer(lease);
        other = exchange(s->storm, below(s, SHARED), lease);
        if (other.slot)
                s->held[s->holds++] = other;
}

/* ---- requests without a loop ------------------------------------------------------------------------------- */

static void count_outcome(struct storm *storm, int status)
{
        if (status == LIDO_OK)
                atomic_fetch_add(&storm->noticed_ok, 1);
        else if (status == LIDO_ETIMEDOUT)
                atomic_fetch_add(&storm->noticed_timed_out, 1);
        else if (status == LIDO_ECANCELED)
                atomic_fetch_add(&storm->noticed_canceled, 1);
}

static void on_notice(struct lido_request *request, int status, lido_lease lease)
{
        struct notice *notice = (struct notice *)(void *)request;
        struct storm *storm = notice->storm;
        bool discards = notice->discards;

        must(atomic_fetch_add(&notice->calls, 1) == 0);
        count_outcome(storm, status);
        if (status == LIDO_OK) {
                use(lease);
                check_end(discards ? lido_discard(lease) : lido_release(lease));
        }
        free(notice);
        atomic_fetch_sub(&storm->notices, 1);
}

static void ask(struct sailor *s)
{
        struct notice *notice = calloc(1, sizeof *notice);

        notice->storm = s->storm;
        notice->discards = below(s, 20) == 0;
        atomic_fetch_add(&s->storm->notices, 1);
        if (lido_acquire_notify(s->storm->f->pool, &notice->request, below(s, 4), on_notice) != LIDO_OK) {
                free(notice);
                atomic_fetch_sub(&s->storm->notices, 1);
        }
}

/* ---- those who run the pool -------------------------------------------------------------------------------- */

static void pause_a_moment(struct sailor *s)
{
        struct lido_pool *pool = s->storm->f->pool;

        if (atomic_exchange(&s->storm->is_paused, 1))
                return;
        lido_pool_pause(pool, (int)below(s, 2));
        try(s);
        lido_pool_resume(pool);
        atomic_store(&s->storm->is_paused, 0);
}

static void look(struct sailor *s)
{
        struct lido_pool *pool = s->storm->f->pool;
        struct lido_blame blame = LIDO_BLAME_INIT;
        struct lido_stats stats = stats_of(pool);
        char text[2000];

        must(stats.opening <= stats.live);
        lido_pool_blame(pool, &blame);
        must(lido_blame_text(&blame, text, sizeof text) > 0);
        must(blame.holders <= LIDO_BLAME_HOLDERS);
        lido_estimated_wait_ns(pool);
        slots_check(pool, false);
}

static void adopt(struct sailor *s)
{
        struct fake *fake = &s->storm->f->fake;
        struct fake_object *object;

        if (!s->storm->adopts)
                return;
        object = fake_make(fake);
        fake_remember(fake);
        if (lido_pool_adopt(s->storm->f->pool, object) != LIDO_OK) {
                fake_forget(fake);
                fake_drop(object);
        }
}

static void reconfigure(struct sailor *s)
{
        struct lido_pool_options options = s->storm->f->options;

        options.max = 1 + below(s, s->storm->most_max);
        options.min = options.min_idle = 0;
        options.order = (int)below(s, 2);
        options.max_uses = below(s, 2) ? LIDO_UNLIMITED : 20;
        lido_pool_reconfigure(s->storm->f->pool, &options, NULL);
}

static void administer(struct sailor *s)
{
        struct lido_pool *pool = s->storm->f->pool;

        switch (below(s, 12)) {
        case 0:
                lido_pool_resize(pool, 1 + below(s, s->storm->most_max));
                break;
        case 1:
                pause_a_moment(s);
                break;
        case 2:
                lido_pool_trim(pool, below(s, 4));
                break;
        case 3:
                lido_pool_clear(pool);
                break;
        case 4:
                lido_pool_suspect(pool);
                break;
        case 5:
                if (below(s, 2) == 0) {
                        lido_pool_rotate(pool, below(s, 3));
                } else {
                        int rc = lido_pool_rotate_if(pool, below(s, 3), is_to_go, NULL);

                        must(rc >= 0 || rc == LIDO_ECLOSED); /* another thread may have closed it */
                }
                break;
        case 6:
                adopt(s);
                break;
        case 7:
                reconfigure(s);
                break;
        case 8:
                lido_pool_set_quota(pool, "batch", 1 + below(s, 4));
                break;
        case 9:
                atomic_store(&s->storm->breaks, below(s, 4) == 0 ? 500 : 20);
                break;
        default:
                look(s);
        }
}

static void trouble_object(struct sailor *s)
{
        lido_lease lease = s->held[below(s, s->holds)];
        struct fake_object *object = lido_object(lease);

        switch (below(s, 5)) {
        case 0:
                if (object)
                        fake_break(object);
                break;
        case 1:
                lido_revoke(lease);
                break;
        case 2:
                lido_lease_set_deadline(lease, below(s, 3));
                break;
        case 3:
                lido_set_label(lease, 1 + below(s, 2));
                break;
        default:
                lido_set_lease_data(lease, s);
        }
}

/* ---- a thread ---------------------------------------------------------------------------------------------- */

/* Something with a lease that is held. */
static void go_on(struct sailor *s)
{
        switch (below(s, 40)) {
        case 0:
                throw_away(s);
                break;
        case 1:
                detach(s);
                break;
        case 2:
        case 3:
                trouble_object(s);
                break;
        case 4:
        case 5:
        case 6:
                swap(s);
                break;
        case 7:
                sched_yield();
                break;
        default:
                give_back(s);
        }
}

static void begin(struct sailor *s)
{
        switch (below(s, 24)) {
        case 0:
        case 1:
                acquire_surely(s);
                break;
        case 2:
        case 3:
        case 4:
                acquire_soon(s);
                break;
        case 5:
                acquire_with(s);
                break;
        case 6:
                ask(s);
                break;
        case 7:
                misuse(s);
                break;
        default:
                try(s);
        }
}

static void step(struct sailor *s)
{
        if (below(s, 500) == 0)
                administer(s);
        else if (s->holds == HELD || (s->holds > 0 && below(s, 3) != 0))
                go_on(s);
        else
                begin(s);
}

static void close_pool(struct storm *storm, int64_t timeout_ms)
{
        atomic_store(&storm->is_closed, 1);
        must(lido_pool_close(storm->f->pool, timeout_ms) == LIDO_OK);
}

static void sail(void *context, unsigned number)
{
        struct storm *storm = context;
        struct sailor *s = &storm->sailor[number];
        uint64_t steps = storm->round_steps / storm->plan.threads;
        uint64_t closes_at = number == 0 && below(s, 2) ? below(s, (unsigned)steps) : UINT64_MAX;

        for (uint64_t i = 0; i < steps; i++) {
                if (i == closes_at)
                        close_pool(storm, below(s, 3));
                step(s);
        }
        while (s->holds > 0) /* others may be waiting for it, and must not wait for the end of the round */
                give_back(s);
        empty_shared(storm);
}

/* ---- the loop ---------------------------------------------------------------------------------------------- */

static void on_acquired(struct lido_request *request, int status, lido_lease lease)
{
        struct notice *notice = (struct notice *)(void *)request;
        struct storm *storm = notice->storm;

        must(atomic_fetch_sub(&notice->calls, 1) == 1);
        storm->pending--;
        if (status == LIDO_ECANCELED)
                storm->skipper.tally.canceled++;
        else if (status == LIDO_OK && storm->skipper.holds == HELD) {
                storm->skipper.tally.acquired++;
                use(lease);
                check_end(lido_release(lease));
        } else
                judge(&storm->skipper, status, lease);
}

static void on_loop_closed(void *context)
{
        struct storm *storm = context;

        storm->is_loop_closed = true;
}

static void loop_step(struct storm *storm)
{
        struct sailor *s = &storm->skipper;
        struct notice *notice = &storm->requests[below(s, REQUESTS)];

        if (s->holds > 0)
                give_back(s);
        if (atomic_load(&notice->calls) == 0) {
                atomic_store(&notice->calls, 1);
                storm->pending++;
                if (lido_acquire_async(storm->f->pool, &notice->request, below(s, 3) ? below(s, 4) : LONG_MS, on_acquired) != LIDO_OK) {
                        atomic_store(&notice->calls, 0);
                        storm->pending--;
                }
        } else if (below(s, 3) == 0) {
                lido_cancel(&notice->request);
        }
}

static void on_idle(uv_idle_t *idle)
{
        struct storm *storm = idle->data;

        if (storm->loop_steps > 0) {
                storm->loop_steps--;
                loop_step(storm);
                return;
        }
        while (storm->skipper.holds > 0)
                give_back(&storm->skipper);
        uv_idle_stop(idle);
        uv_close((uv_handle_t *)idle, NULL);
        lido_loop_close(storm->loop, on_loop_closed, storm); /* cancels what is pending */
}

static void *run_loop(void *argument)
{
        struct storm *storm = argument;

        must(uv_loop_init(&storm->uv) == 0);
        must(lido_loop_open(&storm->loop, &storm->uv) == LIDO_OK);
        for (unsigned i = 0; i < REQUESTS; i++) {
                memset(&storm->requests[i], 0, sizeof storm->requests[i]);
                storm->requests[i].storm = storm;
                storm->requests[i].request.loop = storm->loop;
        }
        uv_idle_init(&storm->uv, &storm->idle);
        storm->idle.data = storm;
        uv_idle_start(&storm->idle, on_idle);
        uv_run(&storm->uv, UV_RUN_DEFAULT);
        must(uv_loop_close(&storm->uv) == 0);
        must(storm->is_loop_closed);
        must(storm->pending == 0);
        while (storm->skipper.holds > 0) /* callbacks after the loop began to close may have brought some */
                give_back(&storm->skipper);
        return NULL;
}

/* ---- a round ----------------------------------------------------------------------------------------------- */

static void enlist(struct storm *storm, struct sailor *s)
{
        memset(s, 0, sizeof *s);
        s->storm = storm;
        s->random.state = random_next(&storm->random);
}

static void draw_options(struct storm *storm)
{
        struct lido_pool_options *options = &storm->f->options;
        struct random *r = &storm->random;

        storm->most_max = 1 + (uint32_t)random_below(r, random_below(r, 2) ? 4 : 12);
        options->max = storm->most_max;
        options->min = (uint32_t)random_below(r, options->max + 1);
        options->min_idle = random_below(r, 3) ? 0 : 1;
        options->open_limit = 1 + (uint32_t)random_below(r, 4);
        options->order = (int)random_below(r, 2);
        options->overtake_us = random_below(r, 3) ? 0 : LIDO_NEVER;
        options->idle_timeout_ms = 1 + (int64_t)random_below(r, 50);
        options->lifetime_ms = 5 + (int64_t)random_below(r, 100);
        options->rest_after_ms = 1 + (int64_t)random_below(r, 3);
        options->check_after_ms = 2 + (int64_t)random_below(r, 5);
        options->check_interval_ms = 2 + (int64_t)random_below(r, 20);
        options->max_uses = random_below(r, 2) ? LIDO_UNLIMITED : 1 + (uint32_t)random_below(r, 50);
        options->backoff_min_ms = 1;
        options->backoff_max_ms = 4;
        options->leak_after_ms = random_below(r, 2) ? LIDO_NEVER : 2;
        options->queue_limit = random_below(r, 3) ? LIDO_UNLIMITED : 3;
        options->nested = LIDO_NESTED_WARN;
        options->codel_target_ms = random_below(r, 4) ? LIDO_NEVER : 5;
        options->codel_interval_ms = 20;
        options->reserve = random_below(r, 4) ? 0 : 1;
        options->reserve_after_ms = 2;
        options->reclaim_after_ms = random_below(r, 5) ? LIDO_NEVER : 20;
        options->open_timeout_ms = options->check_timeout_ms = options->reset_timeout_ms = 1000;
        options->close_timeout_ms = 1000;
}

static void draw_factory(struct storm *storm)
{
        struct fake *fake = &storm->f->fake;
        struct random *r = &storm->random;

        fake->data = storm;
        fake->choose = choose;
        fake_add_hooks(fake, (unsigned)random_below(r, FAKE_HAS_ALL + 1));
        if (random_below(r, 2))
                fake->factory.flags |= LIDO_FACTORY_BLOCKING;
        if (random_below(r, 4) == 0)
                fake->factory.flags |= LIDO_FACTORY_PEEK_ALWAYS;
        if (random_below(r, 4) == 0)
                fake->factory.flags |= LIDO_FACTORY_TIMED;
        if (random_below(r, 3) == 0)
                fake->factory.check = NULL;
        atomic_store(&fake->verdict_says, random_below(r, 3) == 0 ? LIDO_VERDICT_RESET : LIDO_VERDICT_CLEAN);
        storm->f->options.open_inline = fake->factory.flags & LIDO_FACTORY_BLOCKING || fake->factory.watch ? 0 : random_below(r, 4) == 0;
        storm->f->options.event_mask = LIDO_EVENT_ALL;
}

static void add(struct tally *sum, const struct tally *tally)
{
        sum->acquired += tally->acquired;
        sum->timed_out += tally->timed_out;
        sum->canceled += tally->canceled;
        sum->misused += tally->misused;
        sum->detached += tally->detached;
}

static void compare(struct storm *storm)
{
        struct fake *fake = &storm->f->fake;
        struct lido_stats stats = stats_of(storm->f->pool);
        struct tally sum = storm->skipper.tally;

        for (unsigned i = 0; i < storm->plan.threads; i++)
                add(&sum, &storm->sailor[i].tally);
        sum.acquired += atomic_load(&storm->noticed_ok);
        sum.timed_out += atomic_load(&storm->noticed_timed_out);
        sum.canceled += atomic_load(&storm->noticed_canceled);
        must(stats.acquired == sum.acquired);
        must(stats.timed_out == sum.timed_out);
        must(stats.canceled == sum.canceled);
        if (atomic_load(&storm->is_closed)) /* a pool that has ended counts no more */
                ck_assert_uint_le(stats.misused, sum.misused + atomic_load(&fake->refused_answers));
        else /* a second answer may be on its way back */
                ck_eventually(stats_of(storm->f->pool).misused == sum.misused + atomic_load(&fake->refused_answers));
        must(stats.waiting == 0);
        fake_check(fake);
        if (!storm->adopts)
                ck_assert_uint_le(atomic_load(&fake->most_alive), storm->most_max + storm->f->options.reserve);
}

/* All leases come back; then, if the pool is still open, it must fall quiet and agree with what was counted. */
static void muster(struct storm *storm)
{
        empty_shared(storm);
        ck_eventually(atomic_load(&storm->notices) == 0);
        atomic_store(&storm->breaks, 0);
        if (!atomic_load(&storm->is_closed)) {
                struct sailor *s = &storm->sailor[0];

                acquire_surely(s); /* it still works */
                while (s->holds > 0)
                        give_back(s);
                ck_eventually(stats_of(storm->f->pool).leased == 0);
        }
        compare(storm);
}

static void sink_or_swim(struct storm *storm)
{
        struct fixture *f = storm->f;
        bool leaves_leases = random_below(&storm->random, 3) == 0;

        if (leaves_leases) {
                empty_shared(storm);
                ck_eventually(atomic_load(&storm->notices) == 0);
                for (int i = 0; i < HELD; i++)
                        try(&storm->sailor[0]);
                lido_pool_free(f->pool);
                f->pool = NULL;
                if (random_below(&storm->random, 2)) {
                        lido_service_stop(f->service, 0);
                        f->service = NULL;
                }
                while (storm->sailor[0].holds > 0)
                        give_back(&storm->sailor[0]);
                ck_eventually(atomic_load(&f->fake.ends) == 1);
        } else {
                muster(storm);
        }
}

static void run_round(struct storm *storm)
{
        struct crew crew;
        pthread_t loop_thread;

        storm->f = fixture_new();
        draw_options(storm);
        draw_factory(storm);
        storm->adopts = random_below(&storm->random, 2);
        atomic_store(&storm->is_closed, 0);
        atomic_store(&storm->breaks, random_below(&storm->random, 2) ? 20 : 0);
        atomic_store(&storm->noticed_ok, 0);
        atomic_store(&storm->noticed_timed_out, 0);
        atomic_store(&storm->noticed_canceled, 0);
        for (unsigned i = 0; i < storm->plan.threads; i++)
                enlist(storm, &storm->sailor[i]);
        enlist(storm, &storm->skipper);
        storm->loop_steps = storm->round_steps / 8;
        storm->is_loop_closed = false;
        fixture_open(storm->f);

        must(pthread_create(&loop_thread, NULL, run_loop, storm) == 0);
        crew_start(&crew, storm->plan.threads, sail, storm);
        crew_join(&crew);
        pthread_join(loop_thread, NULL);
        sink_or_swim(storm);
        fixture_end(storm->f);
}

/* ---- the storm --------------------------------------------------------------------------------------------- */

static uint64_t from_environment(const char *name, uint64_t otherwise)
{
        const char *text = getenv(name);

        return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

void storm_run(struct storm_plan plan)
{
        struct storm *storm = calloc(1, sizeof *storm);
        uint64_t left;

        must(storm);
        if (plan.seed == 0)
                plan.seed = from_environment("LIDO_STORM_SEED", random_seed());
        if (plan.steps == 0)
                plan.steps = from_environment("LIDO_STORM_STEPS", plan.usual);
        printf("LIDO_STORM_SEED=%llu LIDO_STORM_STEPS=%llu\n", (unsigned long long)plan.seed, (unsigned long long)plan.steps);
        fflush(stdout);
        storm->plan = plan;
        storm->random.state = plan.seed;
        pthread_mutex_init(&storm->lock, NULL);
        for (left = plan.steps; left > 0; left -= storm->round_steps) {
                storm->round_steps = left < plan.round_steps ? left : plan.round_steps;
                run_round(storm);
        }
        pthread_mutex_destroy(&storm->lock);
        free(storm);
}
