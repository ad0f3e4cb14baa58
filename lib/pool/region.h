/* pool/region.h - the address range in which every slot of the process lives.
 *
 * A slot's memory is never anything but a slot, and never leaves the range. So whether a lease names a slot at all is a
 * comparison of addresses, made before anything is read; and a lease of a pool that is long gone finds a slot whose
 * generation has moved on.
 */
#ifndef LIDO_POOL_REGION_H
#define LIDO_POOL_REGION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/atomic.h"

#define SLOT_SIZE 256u

/* Chunk k holds CHUNK_SLOTS << k slots. */
#define CHUNK_SLOTS 16u
#define CHUNKS 17u

struct lido_slot;

/* set once, then constant; in_use grows and is read without a lock */
extern uintptr_t region_base __attribute__((visibility("hidden")));
extern _Atomic uintptr_t region_in_use __attribute__((visibility("hidden")));

/* Does this pointer name a slot? Reads nothing behind it. Threads: any. */
static inline bool region_has(const struct lido_slot *slot)
{
        uintptr_t offset = (uintptr_t)slot - region_base;

        return offset < load_relaxed(&region_in_use) && offset % SLOT_SIZE == 0;
}

/* The slots of chunk k: new ones are zero, used ones as their last pool left them. NULL: no memory. Threads: any. */
struct lido_slot *region_take(unsigned k);

/* Put chunk k on the shelf for the next pool. Threads: any. */
void region_give(unsigned k, struct lido_slot *chunk);

/* Around a fork, so that the child finds the shelves whole. */
void region_lock(void);
void region_unlock(void);

#endif
