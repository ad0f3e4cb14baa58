/* The real region of slots, empty at the start of each run, at the same address in each process. */
#include <string.h>
#include <sys/mman.h>

#include "sim/face.h"

#include "sim/sched.h"

#define REGION_AT ((void *)UINT64_C(0x300000000000))
#define mmap(address, size, protection, flags, file, offset)                                                   \
        (mmap)(REGION_AT, size, PROT_READ | PROT_WRITE, flags, file, offset)
#define mprotect(address, size, protection) ((void)(address), 0)
#define region_take real_region_take

#include "pool/region.c"

#undef region_take
#undef mmap

struct lido_slot *region_take(unsigned k); /* the header has declared the real one instead */

struct lido_slot *region_take(unsigned k)
{
        if (sim_mutex_renew(&lock)) { /* at once: nobody else runs here */
                memset((void *)region_base, 0, SIM_PEEK(&region_in_use));
                atomic_store_explicit(&region_in_use, 0, memory_order_relaxed);
                memset(shelf, 0, sizeof shelf);
        }
        return real_region_take(k);
}

bool sim_region_place(uintptr_t address, uint64_t *ret_offset)
{
        *ret_offset = address - region_base;
        return reserved && *ret_offset < reserved;
}

struct sim_block region_memory(void)
{
        return (struct sim_block){(const void *)region_base, SIM_PEEK(&region_in_use)};
}
