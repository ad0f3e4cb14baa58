/* storm.h - threads and a loop that do everything to a pool at once, at random, while every promise is checked.
 *
 * A storm is a number of rounds. Each round has a pool of its own, with options drawn at random, and ends with the pool closed
 * under way, freed with leases out, or left to a service that stops. The moves come from a seed, printed at the start:
 *
 *      LIDO_STORM_SEED=17 LIDO_STORM_STEPS=10000000 tests/storm
 *
 * Threads interleave differently each time, so a seed repeats the moves and not the schedule (tests/sim does that). What is
 * checked: nobody has an object that somebody else has or that is closed; a misuse is refused with its code and changes
 * nothing; every request is called back once; no wait outlives its deadline by long; the counters agree with what the
 * borrowers saw; at the end nothing is open, and slots_check finds nothing.
 */
#ifndef LIDO_TESTS_STORM_H
#define LIDO_TESTS_STORM_H

#include <stdint.h>

struct storm_plan {
        uint64_t seed;        /* 0: from LIDO_STORM_SEED, or any */
        uint64_t steps;       /* moves of all borrowers together; 0: from LIDO_STORM_STEPS, or `usual` */
        uint64_t usual;
        uint64_t round_steps; /* moves in one round */
        unsigned threads;     /* that borrow; a loop comes besides */
};

/* Run it. The test fails where a promise is broken. */
void storm_run(struct storm_plan plan);

#endif
