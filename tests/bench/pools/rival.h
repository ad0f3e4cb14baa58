/* bench/pools/rival.h - what the load generator asks of a pool, ours or somebody else's.
 *
 * An adapter is one file. It includes this header first, defines what stands below and includes
 * bench/pools/load.h last: all is one translation unit, so that a pool made of inline functions is measured
 * as its embedder would run it.
 *
 *      #define RIVAL_NAME "mine"
 *      #define RIVAL_WAITS 1      its acquire waits; 0: the generator polls with rival_try, yielding the core
 *      #define RIVAL_TRIES 1      it has a try that does not wait
 *      #define RIVAL_TIMES 1      it has an acquire with a deadline
 *      #define RIVAL_COUNTS 1     rival_handle answers; 0: the objects are its own, and double use goes unseen
 *      typedef struct handle *grip;    what a borrower keeps until the release
 *
 * A function of an ability that is 0 is not defined.
 */
#ifndef BENCH_POOLS_RIVAL_H
#define BENCH_POOLS_RIVAL_H

#include "bench/base/phases.h"

/* The object that every pool holds: a line of its own, with a count that its borrower raises without any
 * atomic. The counts add up to the number of leases unless a handle was lent twice. */
struct handle {
        uint64_t uses;
        void *volatile borrower; /* set and looked at again around each hold */
        void *link[2];           /* room for a pool that chains what it holds */
} __attribute__((aligned(128)));

static inline struct handle *handle_new(void)
{
        struct handle *handle = must_have(aligned_alloc(128, sizeof *handle));

        *handle = (struct handle){0};
        return handle;
}

/* Of these, an adapter defines what it is able to; `pool` is what rival_open answered.
 *
 *      static void *rival_open(unsigned handles);     a pool filled with handle_new(); NULL: not to be had here
 *      static inline bool rival_acquire(void *pool, grip *ret_grip);
 *      static inline bool rival_try(void *pool, grip *ret_grip);
 *      static inline bool rival_timed(void *pool, uint64_t timeout_ns, grip *ret_grip);
 *      static inline void rival_release(void *pool, grip grip);
 *      static inline struct handle *rival_handle(grip grip);
 *      static void rival_close(void *pool);
 */

#endif
