/* sim/service.h - the keeper's host under the model scheduler. */
#ifndef LIDO_SIM_SERVICE_H
#define LIDO_SIM_SERVICE_H

#include "keeper/keeper.h"
#include "keeper/service.h"
#include "sim/sim.h"

struct lido_service {
        struct keeper keeper; /* first: the host leads back to the service */
        bool is_woken;
        bool is_ending;
        uint64_t due_ns; /* what the latest turn returned */
        int coroutine; /* 0: not spawned yet */
};

void service_init(struct lido_service *service);

/* From now on the keeper is a coroutine; before it, call keeper_turn. */
void service_spawn(struct lido_service *service);

/* End the threads on which blocking hooks run; nothing is left for them to do. */
void service_stop_helpers(void);

/* Turns of the keeper in this run. */
uint64_t service_turns(void);

#endif
