#include "sim/face.h"

#include "sim/world.h"

#include <string.h>

#include "sim/borrower.h"

#define LONG_MS 100000

struct world world;

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
        options.ageing_ms = p->ageing_ms;
        options.budget = world.budget;
        options.backoff_min_ms = 1;
        options.backoff_max_ms = 4;
        return options;
}

static void make_budget(void)
{
        world.most_budget = world.program->budget;
        if (world.program->budget && lido_budget_new(&world.budget, world.program->budget) != LIDO_OK)
                sim_fail("there is no budget");
}

static void make_pool(uint32_t i)
{
        const struct program *program = world.program;
        struct lido_pool_options options = options_of(program);
        int rc;

        factory_init(&world.factory[i], program);
        world.factory[i].keeper = world.service.coroutine;
        world.factory[i].at_once = true;
        rc = lido_pool_open(&world.pool[i], &world.service, &world.factory[i].hooks, &options);
        if (rc != LIDO_OK)
                sim_fail("lido_pool_open says %s", lido_err_name(rc));
        world.most_quota = program->quota;
        if (program->quota && lido_pool_set_quota(world.pool[i], TAG, program->quota) != LIDO_OK)
                sim_fail("a quota cannot be set");
}

/* `filled` objects are idle, as many of them as a budget has when all other pools have what they open by themselves. */
static void fill_pool(uint32_t i)
{
        uint32_t filled = i == 0 ? world.program->filled : 0;
        uint32_t others = world.program->min > world.program->min_idle ? world.program->min : world.program->min_idle;
        lido_lease lease[16];

        if (world.program->budget && filled + others > world.program->budget)
                filled = world.program->budget > others ? world.program->budget - others : 0;
        for (uint32_t k = 0; k < filled; k++)
                while (lido_try_acquire(world.pool[i], &lease[k]) != LIDO_OK)
                        keeper_turn(&world.service.keeper, sim_now());
        for (uint32_t k = 0; k < filled; k++)
                lido_release(lease[k]);
        if (filled)
                keeper_turn(&world.service.keeper, sim_now());
}

/* The pools as the program finds them. Nobody else runs. */
static void set_up(void)
{
        service_init(&world.service);
        make_budget();
        for (uint32_t i = 0; i < world.program->pools; i++)
                make_pool(i);
        for (uint32_t i = 0; i < world.program->pools; i++)
                fill_pool(i);
        for (uint32_t i = 0; i < world.program->pools; i++) {
                world.factory[i].at_once = false;
                if (world.program->has_blocking)
                        world.pool[i]->factory.flags |= LIDO_FACTORY_BLOCKING; /* not before, for there are no helpers yet */
        }
}

static void tear_down(void)
{
        law_all_is_back();
        world.is_closing = world.has_ended = true;
        for (uint32_t i = 0; i < world.program->pools; i++)
                lido_pool_close(world.pool[i], LIDO_NEVER);
        for (uint32_t i = 0; i < world.program->pools; i++) {
                int rc = lido_pool_drain(world.pool[i], LONG_MS);

                if (rc != LIDO_OK)
                        sim_fail("when all leases are back, drain says %s", lido_err_name(rc));
                lido_pool_free(world.pool[i]);
        }
        sim_sleep(sim_now() + NS_PER_MS);
        service_stop_helpers();
        law_books();
        if (world.budget)
                lido_budget_free(world.budget);
}

static void live(void *context)
{
        static const char *const names[] = {"A", "B", "C", "D", "E", "F"};
        static const char *const servers[] = {"server", "server 2"};

        (void)context;
        sim_alone();
        set_up();
        service_spawn(&world.service);
        for (uint32_t i = 0; i < world.program->pools; i++) {
                world.factory[i].keeper = world.service.coroutine;
                world.factory[i].server = sim_spawn(servers[i], factory_serve, &world.factory[i], true);
        }
        sim_together();
        sim_calm(true);
        sim_sleep(sim_now() + 1); /* until these sleep as well */
        sim_calm(false);
        sim_alone();
        for (uint32_t i = 0; i < world.program->threads; i++) {
                struct borrower *b = &world.borrower[i];

                memset(b, 0, sizeof *b);
                b->index = (int)i;
                b->coroutine = sim_spawn(names[i], steps_run, b, false);
        }
        sim_on_quiet(law_quiet, NULL);
        sim_together();
        for (uint32_t i = 0; i < world.program->threads; i++)
                sim_join(world.borrower[i].coroutine);
        sim_calm(true);
        tear_down();
}

/* The slots and the world, without what no run has touched, and without the counts of what has been. */
static unsigned state_of_world(struct sim_block *list, unsigned most, struct sim_block *ret_reports)
{
        unsigned count = 0;

        (void)most;
        list[count++] = (struct sim_block){&world, offsetof(struct world, factory)};
        for (uint32_t i = 0; i < world.program->pools; i++) {
                const struct factory *factory = &world.factory[i];

                list[count++] = (struct sim_block){factory, offsetof(struct factory, object)};
                list[count++] = (struct sim_block){factory->object, factory->objects * sizeof factory->object[0]};
                list[count++] = (struct sim_block){factory->answer, factory->answers * sizeof factory->answer[0]};
        }
        list[count++] = (struct sim_block){world.borrower, world.program->threads * sizeof world.borrower[0]};
        for (uint32_t i = 0; i < world.program->pools; i++)
                list[count++] = (struct sim_block){SIM_PEEK(&world.pool[i]->slots.chunk[0]),
                                                   SIM_PEEK(&world.pool[i]->slots.high) * SLOT_SIZE};
        ret_reports->memory = &world.pool[0]->waited;
        ret_reports->size = offsetof(struct lido_pool, kept) - offsetof(struct lido_pool, waited);
        return count;
}

struct sim_result world_run(const struct program *program, const struct sim_strategy *strategy, uint64_t seed)
{
        world.program = program;
        world.seed = seed;
        world.pool[0] = world.pool[1] = NULL;
        world.budget = NULL;
        world.is_closing = world.is_paused = world.is_shared = world.has_ended = world.has_resized = false;
        world.factory[1].failed = 0;
        world.shared_returns = world.calls = world.pauses = world.pausing = 0;
        memset(&world.books, 0, sizeof world.books);
        sim_state_of(state_of_world);
        return sim_run(strategy, seed, live, NULL);
}

struct world_books world_books(void)
{
        world.books.opened = world.factory[0].opened;
        world.books.open_failed = world.factory[0].failed;
        world.books.closed = world.factory[0].closed;
        world.books.upkeep = world.factory[0].checks;
        world.books.peak = world.factory[0].peak;
        world.books.turns = service_turns();
        return world.books;
}
