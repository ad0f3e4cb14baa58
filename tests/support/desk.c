#include "support/desk.h"

#include <stdlib.h>

#include "keeper/lifecycle.h"
#include "pool/op.h"
#include "pool/options.h"

static struct desk *desk_of(struct pool_host *host)
{
        return (struct desk *)(void *)host; /* the keeper is first, and the host is first in it */
}

static void wake(struct pool_host *host)
{
        desk_of(host)->wakes++;
}

static void begin_blocking(struct keeper *keeper, struct lido_slot *slot)
{
        struct desk *desk = (struct desk *)(void *)keeper;

        desk->blocking++;
        op_begin(load_relaxed(&slot->pool), slot, word_generation(load_relaxed(&slot->word)));
}

struct desk *desk_new(void)
{
        struct desk *desk = calloc(1, sizeof *desk);
        struct fixture *prepared = fixture_new();

        must(desk);
        desk->f.options = prepared->options;
        desk->f.options.event_context = &desk->f;
        pthread_mutex_init(&desk->f.heard.lock, NULL);
        fake_fini(&prepared->fake);
        free(prepared);
        fake_init(&desk->f.fake);
        mutex_init(&desk->keeper.lock);
        clock_freeze();
        return desk;
}

void desk_open(struct desk *desk)
{
        struct lido_pool_options options;

        must(options_take(&options, &desk->f.options, NULL) == LIDO_OK);
        keeper_init(&desk->keeper, wake, begin_blocking);
        desk->pool = desk->f.pool = pool_new(&desk->f.fake.factory, &options, &desk->keeper.host);
        must(desk->pool);
        keeper_add(&desk->keeper, desk->pool);
        desk_turn(desk);
}

void desk_turn(struct desk *desk)
{
        desk->turns++;
        desk->due_ns = keeper_turn(&desk->keeper, clock_now_ns());
        if (desk->pool)
                slots_check(desk->pool, true);
}

static bool has_mail(struct desk *desk)
{
        return !inbox_is_empty(&desk->keeper.host.slots) || !inbox_is_empty(&desk->keeper.host.called);
}

void desk_pass_time(struct desk *desk, uint64_t ns)
{
        uint64_t until = clock_now_ns() + ns;

        for (;;) {
                if (has_mail(desk) || desk->due_ns <= clock_now_ns()) {
                        desk_turn(desk);
                        continue;
                }
                if (desk->due_ns > until)
                        break;
                clock_advance(desk->due_ns - clock_now_ns());
        }
        clock_advance(until - clock_now_ns());
}

void desk_end(struct desk *desk)
{
        if (desk->pool) {
                lido_pool_free(desk->pool);
                desk->pool = NULL;
                desk_turn(desk);
        }
        must(atomic_load(&desk->f.fake.ends) == 1);
        must(list_is_empty(&desk->keeper.pools));
        must(!heap_first(&desk->keeper.due));
        fake_fini(&desk->f.fake);
        mutex_fini(&desk->keeper.lock);
        pthread_mutex_destroy(&desk->f.heard.lock);
        clock_thaw();
        free(desk);
}

lido_lease desk_acquire(struct desk *desk)
{
        lido_lease lease = { NULL, 0 };

        must(lido_try_acquire(desk->pool, &lease) == LIDO_OK);
        return lease;
}

void desk_warm_up(struct desk *desk, uint32_t count)
{
        struct waiting w[128] = { { .calls = 0 } };

        must(count <= 128);
        for (uint32_t i = 0; i < count; i++)
                must(desk_wait(desk, &w[i], LIDO_NEVER) == LIDO_OK);
        desk_turn(desk);
        for (uint32_t i = 0; i < count; i++) {
                must(w[i].status == LIDO_OK);
                must_release(w[i].lease);
        }
        desk_turn(desk);
        must(stats_of(desk->pool).idle == count);
}

static void note(struct lido_request *request, int status, lido_lease lease)
{
        struct waiting *w = (struct waiting *)(void *)request;

        w->calls++;
        w->status = status;
        w->lease = lease;
        w->called_ns = clock_now_ns();
}

int desk_wait(struct desk *desk, struct waiting *w, int64_t timeout_ms)
{
        w->status = 1;
        return lido_acquire_notify(desk->pool, &w->request, timeout_ms, note);
}
