#include "base/mem.h"

#include <string.h>

#include "base/fault.h"
#include "lido/memory.h"

void *mem_zalloc(size_t size)
{
        return fault_hit() ? NULL : lido_allocate(_Alignof(max_align_t), size);
}

void *mem_zalloc_aligned(size_t alignment, size_t size)
{
        return fault_hit() ? NULL : lido_allocate(alignment, size);
}

char *mem_strdup(const char *string)
{
        size_t size = strlen(string) + 1;
        char *copy = mem_zalloc(size);

        return copy ? memcpy(copy, string, size) : NULL;
}

void mem_free(void *memory)
{
        lido_deallocate(memory);
}

void mem_wipe(void *memory, size_t size)
{
        explicit_bzero(memory, size);
}
