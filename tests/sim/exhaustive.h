/* sim/exhaustive.h - small programs, every schedule of which is run, up to a bound of preemptions. */
#ifndef LIDO_SIM_EXHAUSTIVE_H
#define LIDO_SIM_EXHAUSTIVE_H

#include "sim/program.h"
#include "sim/sim.h"

struct exhaustive {
        const char *name;
        struct program program;
};

/* Programs there are: 3 threads of 2 operations each, on pools of 1 and 2. */
unsigned exhaustive_count(void);
void exhaustive_get(unsigned number, struct exhaustive *ret);

/* Run every schedule with at most so many preemptions, or `limit` of them. Returns: how many were run;
 * *ret_failure says what went wrong in the first that failed, *ret_is_cut whether some are left. */
uint64_t exhaustive_run(const struct program *program, unsigned preemptions, unsigned stale, uint64_t limit,
                        struct sim_result *ret_failure, bool *ret_is_cut);

/* The latest run of the search, which has failed, once more, with each step told. */
void exhaustive_tell(const struct program *program, unsigned preemptions);

#endif
