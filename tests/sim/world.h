/* sim/world.h - the real core under the model scheduler: a pool, its keeper, a scripted factory, and the laws they keep.
 *
 * world_run makes the pool of a program, runs its threads as coroutines beside the keeper and the factory's "server", closes
 * everything and checks the books. Each broken law ends the run with a message.
 */
#ifndef LIDO_SIM_WORLD_H
#define LIDO_SIM_WORLD_H

#include "sim/program.h"
#include "sim/sim.h"

/* Run a program once. */
struct sim_result world_run(const struct program *program, const struct sim_strategy *strategy, uint64_t seed);

/* A pool under random load for so long, by the clock of the run. Returns: what went wrong, if anything; the books in
 * *ret_day. */
struct world_day {
        uint64_t acquired, timed_out, opened, open_failed, closed, checks;
};
struct sim_result world_run_day(uint64_t seed, uint64_t duration_ns, struct world_day *ret_day);

#endif
