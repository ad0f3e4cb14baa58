/* sim/jobs.h - work that is cut into pieces, each in a process of its own, several at a time. */
#ifndef LIDO_SIM_JOBS_H
#define LIDO_SIM_JOBS_H

#include <stdbool.h>
#include <stddef.h>

/* Run pieces 0 to count - 1, at most `at_once` at a time; after one that failed no other begins. Returns: false when any failed. */
bool jobs_run(unsigned count, unsigned at_once, bool (*run)(unsigned piece, void *context), void *context);

/* Processors that this process may use. */
unsigned jobs_processors(void);

/* Memory, zero, that all pieces share with their parent. */
void *jobs_share(size_t size);

#endif
