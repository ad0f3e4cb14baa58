/* The real pools, none of them made yet at the start of each run. */
#include "sim/face.h"

#include "pool/pool.c"

#include "sim/sched.h"

void pools_start(void)
{
        atomic_store_explicit(&next_hint, 0, memory_order_relaxed);
        atomic_store_explicit(&newest, NULL, memory_order_relaxed);
}
