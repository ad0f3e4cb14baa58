#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#include "base/fault.h"

void *mem_zalloc(size_t size)
{
        return fault_hit() ? NULL : calloc(1, size);
}

void *mem_zalloc_aligned(size_t alignment, size_t size)
{
        void *memory;

        if (fault_hit() || posix_memalign(&memory, alignment, size) != 0)
                return NULL;
        memset(memory, 0, size);
        return memory;
}

char *mem_strdup(const char *string)
{
        return fault_hit() ? NULL : strdup(string);
}

void mem_free(void *memory)
{
        free(memory);
}

void mem_wipe(void *memory, size_t size)
{
        explicit_bzero(memory, size);
}
