#include "buffer/os.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fault.h"

#define HUGE_PAGE ((size_t)2 << 20)

static void *map_pages(size_t bytes, int flags)
{
        void *memory;

        if (fault_hit())
                return NULL;
        memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
        return memory == MAP_FAILED ? NULL : memory;
}

/* More than was asked for is mapped and both ends are cut off. */
static void *map_aligned(size_t bytes, size_t alignment, void *context)
{
        uintptr_t start, aligned;
        char *memory;

        (void)context;
        if (alignment <= PAGE_BYTES)
                return map_pages(bytes, 0);
        if (bytes > SIZE_MAX - alignment || !(memory = map_pages(bytes + alignment, MAP_NORESERVE)))
                return NULL;
        start = (uintptr_t)memory;
        aligned = (start + alignment - 1) & ~(uintptr_t)(alignment - 1);
        if (aligned > start)
                munmap(memory, aligned - start);
        if (aligned < start + alignment)
                munmap((char *)aligned + bytes, start + alignment - aligned);
        return (void *)aligned;
}

/* munmap can fail only when cutting a mapping in two would make too many (vm.max_map_count). Then the memory
 * goes all the same, and only its addresses are lost. */
static void unmap(void *memory, size_t bytes, void *context)
{
        (void)context;
        if (munmap(memory, bytes) != 0)
                madvise(memory, bytes, MADV_DONTNEED);
}

static int purge(void *memory, size_t bytes, void *context)
{
        (void)context;
        return madvise(memory, bytes, MADV_DONTNEED);
}

static void *malloc_map(size_t bytes, size_t alignment, void *context)
{
        void *memory;

        (void)context;
        return fault_hit() || posix_memalign(&memory, alignment, bytes) != 0 ? NULL : memory;
}

static void malloc_unmap(void *memory, size_t bytes, void *context)
{
        (void)bytes;
        (void)context;
        free(memory);
}

const struct lido_buffer_source lido_buffer_source_mmap = {
        .size = sizeof(struct lido_buffer_source), .map = map_aligned, .unmap = unmap, .purge = purge};
const struct lido_buffer_source lido_buffer_source_malloc = {
        .size = sizeof(struct lido_buffer_source), .map = malloc_map, .unmap = malloc_unmap, .purge = purge};

/* A hint: a kernel without NUMA, or a node that does not exist, leaves the memory where it is. */
static void prefer_node(void *memory, size_t bytes, uint32_t node)
{
#ifdef SYS_mbind
        unsigned long mask[16] = {0};
        const int preferred = 1; /* MPOL_PREFERRED */

        if (node >= 8 * sizeof mask)
                return;
        mask[node / (8 * sizeof mask[0])] = 1ul << node % (8 * sizeof mask[0]);
        syscall(SYS_mbind, memory, bytes, preferred, mask, 8 * sizeof mask, 0);
#else
        (void)memory;
        (void)bytes;
        (void)node;
#endif
}

void *region_map(struct lido_buffer_pool *pool, size_t bytes, size_t alignment)
{
        bool huge = (pool->flags & LIDO_BUFFER_HUGE_PAGES) != 0 || bytes >= 2 * HUGE_PAGE;
        void *region;

        if (huge && alignment < HUGE_PAGE && bytes >= HUGE_PAGE)
                alignment = HUGE_PAGE;
        if (alignment < PAGE_BYTES)
                alignment = PAGE_BYTES;
        region = pool->source.map(bytes, alignment, pool->source.context);
        if (!region)
                return NULL;
#ifdef MADV_HUGEPAGE
        if (huge && bytes >= HUGE_PAGE)
                madvise(region, bytes, MADV_HUGEPAGE);
#endif
        if (pool->options.numa_node != 0)
                prefer_node(region, bytes, pool->options.numa_node - 1);
        return region;
}

void region_unmap(struct lido_buffer_pool *pool, void *region, size_t bytes)
{
        pool->source.unmap(region, bytes, pool->source.context);
}

bool region_purge(struct lido_buffer_pool *pool, void *memory, size_t bytes)
{
        return pool->source.purge && pool->source.purge(memory, bytes, pool->source.context) == 0;
}

void *os_reserve(size_t bytes)
{
        return map_pages(bytes, MAP_NORESERVE);
}

void os_unreserve(void *memory, size_t bytes)
{
        if (memory)
                munmap(memory, bytes);
}

bool os_protect(void *memory, size_t bytes, bool reachable)
{
        return mprotect(memory, bytes, reachable ? PROT_READ | PROT_WRITE : PROT_NONE) == 0;
}
