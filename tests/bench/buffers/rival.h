/* bench/buffers/rival.h - what the load generator asks of a source of buffers, ours or somebody else's.
 *
 * An adapter includes this header first, defines what stands below and includes bench/buffers/load.h last.
 *
 *      #define RIVAL_NAME "mine"
 *      static void rival_open(size_t bytes);       the size of all buffers to come; 0: any size
 *      static inline void *rival_acquire(size_t bytes);
 *      static inline void rival_release(void *buffer, size_t bytes);       from any thread
 *      static void rival_close(void);
 *
 * and, if it has calls for many buffers at once,
 *
 *      #define RIVAL_BULK 1
 *      static inline void rival_acquire_bulk(size_t bytes, unsigned count, void **buffers);
 *      static inline void rival_release_bulk(size_t bytes, unsigned count, void **buffers);
 */
#ifndef BENCH_BUFFERS_RIVAL_H
#define BENCH_BUFFERS_RIVAL_H

#include "bench/base/phases.h"

#endif
