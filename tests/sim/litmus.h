/* sim/litmus.h - small programs whose outcomes C11 lists, to test the model's memory. */
#ifndef LIDO_SIM_LITMUS_H
#define LIDO_SIM_LITMUS_H

#include <stddef.h>
#include <stdint.h>

struct litmus {
        const char *claim;
        void (*thread[4])(void *);
        unsigned digits; /* values read, one digit each in an outcome */
        const char *outcomes;
};
extern const struct litmus litmus_tests[];
extern const unsigned litmus_count;

/* Run it in every way. Writes the outcomes, sorted. Returns: the number of runs. */
uint64_t litmus_run(const struct litmus *test, char *ret_outcomes, size_t size);

#endif
