/* sim/keyed.h - keyed pools under the model scheduler: a few threads that borrow by a few keys, drawn from a seed, and the laws. */
#ifndef LIDO_SIM_KEYED_H
#define LIDO_SIM_KEYED_H

#include "sim/sim.h"

/* Run the case of a seed once. With `trace`, print each step. */
struct sim_result keyed_run(uint64_t seed, unsigned stale, bool trace);

/* Of the latest run. */
struct keyed_books {
        uint64_t acquired, timed_out, forgotten, stolen;
};
struct keyed_books keyed_books(void);

#endif
