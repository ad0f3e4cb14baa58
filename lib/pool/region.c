#include "pool/region.h"

#include <sys/mman.h>

#include "base/fault.h"
#include "base/mutex.h"
#include "pool/slots.h"

/* Address space costs nothing until it is used: a gigabyte holds four million slots. Under a limit of address space
 * (ulimit -v) less is asked for, down to a megabyte. */
#define RESERVE_MOST (UINT64_C(1) << 30)
#define RESERVE_LEAST (UINT64_C(1) << 20)

uintptr_t region_base;
_Atomic uintptr_t region_in_use;

/* The same for code outside the library, whose linker may move it. Whoever reads an old size there calls lido_object. */
struct lido_slot_range lido_slot_range;

static struct mutex lock = MUTEX_INIT;
static uintptr_t reserved;              /* guarded by lock */
static struct lido_slot *shelf[CHUNKS]; /* guarded by lock; linked through slot->letter of the first slot */

/* Called locked. */
static bool reserve(void)
{
        for (uint64_t size = RESERVE_MOST; size >= RESERVE_LEAST; size /= 2) {
                void *range = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

                if (range != MAP_FAILED) {
                        region_base = (uintptr_t)range;
                        __atomic_store_n(&lido_slot_range.base, region_base, __ATOMIC_RELAXED);
                        reserved = (uintptr_t)size;
                        return true;
                }
        }
        return false;
}

/* Called locked. The region is set up before any slot of it is known to anybody, so region_base needs no order. */
static struct lido_slot *carve(unsigned k)
{
        size_t size = (size_t)(CHUNK_SLOTS << k) * SLOT_SIZE;
        uintptr_t used = load_relaxed(&region_in_use);

        if (fault_hit() || (reserved == 0 && !reserve()))
                return NULL;
        if (size > reserved - used || mprotect((char *)region_base + used, size, PROT_READ | PROT_WRITE) != 0)
                return NULL;
        store_relaxed(&region_in_use, used + size);
        __atomic_store_n(&lido_slot_range.size, used + size, __ATOMIC_RELEASE);
        return (struct lido_slot *)(region_base + used);
}

struct lido_slot *region_take(unsigned k)
{
        struct lido_slot *chunk;

        mutex_lock(&lock);
        chunk = shelf[k];
        if (chunk)
                shelf[k] = (struct lido_slot *)(void *)chunk->letter.next;
        else
                chunk = carve(k);
        mutex_unlock(&lock);
        return chunk;
}

void region_give(unsigned k, struct lido_slot *chunk)
{
        mutex_lock(&lock);
        chunk->letter.next = (struct letter *)(void *)shelf[k];
        shelf[k] = chunk;
        mutex_unlock(&lock);
}

void region_lock(void) NO_THREAD_SAFETY
{
        mutex_lock(&lock);
}

void region_unlock(void) NO_THREAD_SAFETY
{
        mutex_unlock(&lock);
}
