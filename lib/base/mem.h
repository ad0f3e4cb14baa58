/* base/mem.h - memory: one seam for every allocation, so that each of them can be told to fail.
 *
 * With LIDO_FAULTS (the build of the tests) fault_hit counts each call and fails the chosen one; see base/fault.h.
 */
#ifndef LIDO_BASE_MEM_H
#define LIDO_BASE_MEM_H

#include <stddef.h>

/* Zeroed memory; NULL when there is none. Given back with mem_free. */
void *mem_zalloc(size_t size) __attribute__((malloc));

/* `size` bytes, zeroed, on a boundary of `alignment` (a power of two). Given back with mem_free. */
void *mem_zalloc_aligned(size_t alignment, size_t size) __attribute__((malloc));

/* A copy of a string; NULL when there is no memory. */
char *mem_strdup(const char *string);

void mem_free(void *memory);

/* Clear memory in a way that no compiler takes out. */
void mem_wipe(void *memory, size_t size);

#endif
