/* bench/workers/rival.h - what the load generator asks of a pool of threads, ours or somebody else's.
 *
 * An adapter includes this header, defines the first four, includes bench/workers/load.h and then defines the
 * rest.
 *
 *      #define RIVAL_NAME "mine"
 *      #define RIVAL_CANCELS 0         it can take a queued task back
 *      #define RIVAL_LOOPS 0           it brings results to a uv loop
 *      struct own { ... };             what it wants to have in each task
 *      static void rival_open(unsigned workers);
 *      static void rival_begin(void);                          a producer's first call, on its own thread
 *      static inline void rival_submit(struct task *task);     run_task(task) is to be called on a worker,
 * once static inline void rival_reap(void);                    a producer waits for tasks to come back:
 * yield, or help static inline bool rival_cancel(struct task *task);     it will not run, and its memory is
 * the producer's static inline void rival_submit_from_loop(uv_loop_t *loop, struct task *task);  then
 * task_is_back(task) on the loop static void rival_loop_end(uv_loop_t *loop);            nothing is under way
 * on it static void rival_end(void);                            a producer's last call
 *
 * A rival that does not look at a task any more once it has called run_task defines RIVAL_FREES_EARLY 1;
 * another calls task_is_free when it is through with it.
 */
#ifndef BENCH_WORKERS_RIVAL_H
#define BENCH_WORKERS_RIVAL_H

#include "bench/base/phases.h"

#include <sched.h>
#include <uv.h>

struct task;

#endif
