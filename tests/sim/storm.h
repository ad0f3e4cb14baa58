/* sim/storm.h - everything at random out of one seed: the program, the strategy, the schedule. And what is
 * done when a seed fails: it is made as small as it will go, and told step by step.
 */
#ifndef LIDO_SIM_STORM_H
#define LIDO_SIM_STORM_H

#include "sim/program.h"
#include "sim/sim.h"

/* What a seed stands for. */
void storm_draw(uint64_t seed, struct program *ret_program, struct sim_strategy *ret_strategy);

/* Run it. With `trace`, print each step. */
struct sim_result storm_run(uint64_t seed, bool trace);

struct storm_figures {
        uint64_t runs, steps, failures;
        uint64_t first_seed; /* that failed */
        double seconds;      /* of processor time */
        char message[400];
};

/* Run seeds from `first` on, until `runs` are done, `seconds` have passed (0: no limit) or one fails. */
struct storm_figures storm(uint64_t first, uint64_t runs, double seconds);

/* As storm, with weak memory in every run. Meant for a broken core: a run that fails is the wish. Returns:
 * how many runs it took; 0: none of `runs` failed. */
uint64_t storm_until_failure(uint64_t first, uint64_t runs, char *ret_message, size_t size);

/* The smallest case found. */
struct storm_case {
        struct program program;
        struct sim_choices choices; /* to be replayed */
        struct sim_result result;
        unsigned stale;
        uint64_t tried; /* runs it took to find it */
};

/* Make a failing program smaller. `seed` fails under `strategy`. */
void storm_shrink(const struct program *program, const struct sim_strategy *strategy, uint64_t seed,
                  struct storm_case *ret_case);

/* Print a case and each of its steps. */
void storm_tell(const struct storm_case *smallest);

/* Do two messages tell of the same kind of failure? */
bool storm_same_kind(const char *a, const char *b);

/* Seconds: by the wall, and of this processor's time. */
double storm_clock(void);
double storm_cpu(void);

#endif
