/* The service under the model scheduler: a coroutine that runs the keeper's turns, woken or when they are
 * due. */
#include "sim/face.h"

#include "sim/service.h"

#include "keeper/helpers.h"

static struct sim_site waking = {"sim", "wake", "keeper", 0, SIM_OP_WAKE, SIM_RELAXED, 0, 0};
static struct sim_site *const listed __attribute__((section("sim_sites"), used)) = &waking;

struct pool_host *service_host(struct lido_service *service)
{
        return &service->keeper.host;
}

bool service_is_self(struct lido_service *service)
{
        return SIM_PEEK(&service->keeper.host.thread) == thread_id();
}

bool service_is_forked(struct lido_service *service)
{
        (void)service;
        return false;
}

bool service_add(struct lido_service *service, struct lido_pool *pool)
{
        keeper_add(&service->keeper, pool);
        return true;
}

/* As bell_ring: the loop will run once more, however often it is asked. */
static void wake(struct pool_host *host)
{
        struct lido_service *service = (struct lido_service *)(void *)host;

        sim_point(&waking, NULL);
        if (sim_locks())
                sim_fail("the keeper is woken with a lock held");
        if (waking.mutation == SIM_DROPPED)
                return;
        service->is_woken = true;
        if (service->coroutine > 0)
                sim_wake(service->coroutine);
}

/* Not in the service, where it would be part of the state of a run: the programs of the search have no use for it. */
static struct helpers helpers;

static void begin_blocking(struct keeper *keeper, struct lido_slot *slot)
{
        (void)keeper;
        if (helpers_submit(&helpers, slot) != LIDO_OK)
                sim_fail("there is no helper");
}

void service_stop_helpers(void)
{
        helpers_stop(&helpers);
}

static uint64_t turns; /* nor is this */

uint64_t service_turns(void)
{
        return turns;
}

static void keep(void *context)
{
        struct lido_service *service = context;

        while (!service->is_ending) {
                service->is_woken = false;
                service->due_ns = keeper_turn(&service->keeper, sim_now());
                turns++;
                if (!service->is_woken)
                        sim_sleep(service->due_ns);
        }
}

void service_init(struct lido_service *service)
{
        memset(service, 0, sizeof *service);
        turns = 0;
        memset(&helpers, 0, sizeof helpers);
        mutex_init(&helpers.lock);
        helpers_init(&helpers, 2, "model");
        mutex_init(&service->keeper.lock);
        keeper_init(&service->keeper, wake, begin_blocking);
}

void service_spawn(struct lido_service *service)
{
        store_relaxed(&service->keeper.host.thread, 0);
        service->coroutine = sim_spawn("keeper", keep, service, true);
}
