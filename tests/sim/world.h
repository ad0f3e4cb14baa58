/* sim/world.h - the real core under the model scheduler: a pool, its keeper, a scripted factory, and the laws
 * they keep.
 *
 * world_run makes the pool of a program, runs its threads as coroutines beside the keeper and the factory's
 * "server", closes everything and checks the books. Each broken law ends the run with a message.
 */
#ifndef LIDO_SIM_WORLD_H
#define LIDO_SIM_WORLD_H

#include "sim/program.h"
#include "sim/sim.h"

/* Run a program once. */
struct sim_result world_run(const struct program *program, const struct sim_strategy *strategy,
                            uint64_t seed);

/* The books of the latest run. */
struct world_books {
        uint64_t acquired, timed_out, opened, open_failed, closed, upkeep, turns, rotations;
        uint64_t looks;           /* at all invariants */
        uint64_t longest_wait_ns; /* of an acquire */
        uint32_t peak;            /* objects at once at most */
};
struct world_books world_books(void);

#endif
