#include "support/fixture.h"

#include <stdlib.h>
#include <string.h>

#include "pool/pool.h"
#include "support/clock.h"

static void hear(const struct lido_event *event, void *context)
{
        struct fixture *f = context;

        if (f->on_event)
                f->on_event(f, event);
        must(event->type < EVENT_TYPES);
        pthread_mutex_lock(&f->heard.lock);
        f->heard.count[event->type]++;
        f->heard.last[event->type] = *event;
        if (event->error) {
                f->heard.error[event->type] = *event->error;
                f->heard.last[event->type].error = &f->heard.error[event->type];
        }
        if (event->type == LIDO_EVENT_DISCARDED && event->reason) {
                memcpy(f->heard.reason, event->reason, strlen(event->reason) + 1);
                f->heard.last[event->type].reason = f->heard.reason;
        }
        pthread_mutex_unlock(&f->heard.lock);
}

struct fixture *fixture_new(void)
{
        struct fixture *f = calloc(1, sizeof *f);
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        struct lido_service_options service_options = LIDO_SERVICE_OPTIONS_INIT;

        must(f);
        fake_init(&f->fake);
        f->options = options;
        f->service_options = service_options;
        f->options.on_event = hear;
        f->options.event_context = f;
        pthread_mutex_init(&f->heard.lock, NULL);
        return f;
}

void fixture_open(struct fixture *f)
{
        if (!f->service)
                must(lido_service_start(&f->service, &f->service_options) == LIDO_OK);
        must(lido_pool_open(&f->pool, f->service, &f->fake.factory, &f->options) == LIDO_OK);
}

struct fixture *pool_of(uint32_t max)
{
        struct fixture *f = fixture_new();

        f->options.max = max;
        fixture_open(f);
        return f;
}

void fixture_free_pool(struct fixture *f)
{
        lido_pool_free(f->pool);
        f->pool = NULL;
        ck_eventually(atomic_load(&f->fake.ends) == 1);
}

void fixture_end(struct fixture *f)
{
        lido_pool_free(f->pool);
        if (f->service)
                must(lido_service_stop(f->service, PATIENCE_MS) == LIDO_OK);
        ck_eventually(atomic_load(&f->fake.ends) == 1); /* somebody on his way out may end it a moment later */
        fake_fini(&f->fake);
        pthread_mutex_destroy(&f->heard.lock);
        free(f);
}

lido_lease must_acquire(struct fixture *f)
{
        lido_lease lease = { NULL, 0 };

        int rc = lido_acquire(f->pool, PATIENCE_MS, &lease);

        if (rc != LIDO_OK)
                ck_abort_msg("acquire: %s", lido_err_name(rc));
        must(lido_object(lease));
        return lease;
}

void must_release(lido_lease lease)
{
        must(lido_release(lease) == LIDO_OK);
}

struct fake_object *object_of(lido_lease lease)
{
        return lido_object(lease);
}

void warm_up(struct fixture *f, uint32_t count)
{
        lido_lease lease[64];

        must(count <= 64);
        for (uint32_t i = 0; i < count; i++)
                lease[i] = must_acquire(f);
        for (uint32_t i = 0; i < count; i++)
                must_release(lease[i]);
        ck_eventually(stats_of(f->pool).idle == count);
}

struct lido_stats stats_of(struct lido_pool *pool)
{
        struct lido_stats stats = LIDO_STATS_INIT;

        must(lido_pool_stats(pool, &stats) == LIDO_OK);
        return stats;
}

void await_waiting(struct lido_pool *pool, uint32_t count)
{
        ck_eventually(stats_of(pool).waiting == count);
}

static bool is_quiet(struct lido_pool *pool)
{
        struct lido_stats stats = stats_of(pool);

        return stats.opening + stats.checking + stats.resetting + stats.closing == 0 && stats.live == load_seq_cst(&pool->live) &&
               load_seq_cst(&pool->opening) == 0;
}

void check_quiet(struct lido_pool *pool)
{
        ck_eventually(is_quiet(pool));
        slots_check(pool, true);
}

uint32_t heard(struct fixture *f, int type)
{
        uint32_t count;

        pthread_mutex_lock(&f->heard.lock);
        count = f->heard.count[type];
        pthread_mutex_unlock(&f->heard.lock);
        return count;
}

struct lido_event last_heard(struct fixture *f, int type)
{
        struct lido_event event;

        ck_eventually(heard(f, type) > 0);
        pthread_mutex_lock(&f->heard.lock);
        event = f->heard.last[type];
        pthread_mutex_unlock(&f->heard.lock);
        return event;
}

/* ---- a thread that acquires ------------------------------------------------------------------------------ */

static void *borrow(void *argument)
{
        struct borrower *b = argument;

        b->began_ns = real_now_ns();
        b->rc = lido_acquire(b->pool, b->timeout_ms, &b->lease);
        b->ended_ns = real_now_ns();
        if (b->turn && b->rc == LIDO_OK)
                b->place = atomic_fetch_add(b->turn, 1);
        if (b->releases && b->rc == LIDO_OK)
                must(lido_release(b->lease) == LIDO_OK);
        atomic_store(&b->is_done, true);
        return NULL;
}

void borrower_start(struct borrower *b, struct lido_pool *pool, int64_t timeout_ms)
{
        b->pool = pool;
        b->timeout_ms = timeout_ms;
        must(pthread_create(&b->thread, NULL, borrow, b) == 0);
}

void borrower_queue(struct borrower *b, struct lido_pool *pool, int64_t timeout_ms)
{
        uint32_t before = stats_of(pool).waiting;

        borrower_start(b, pool, timeout_ms);
        await_waiting(pool, before + 1);
}

int borrower_join(struct borrower *b)
{
        pthread_join(b->thread, NULL);
        return b->rc;
}
