/* base/stack.h - where a thread is: the return addresses on its own stack, and what they are called.
 *
 * By backtrace(3) where the C library has it; elsewhere every stack is empty. A walk takes some microseconds, allocates
 * nothing once stack_prepare has been called, and needs no frame pointers.
 */
#ifndef LIDO_BASE_STACK_H
#define LIDO_BASE_STACK_H

#include <stddef.h>
#include <stdint.h>

/* Load what the first walk would load, which allocates. Threads: any, not on a path that must not block. */
void stack_prepare(void);

/* The callers of the caller, nearest first, without the nearest `skip`. Returns: how many, `most` at most. */
uint32_t stack_walk(void **ret_frame, uint32_t most, uint32_t skip);

/* One return address as "name+0x10 (object+0x1234)", as far as it is known. Returns: as snprintf. */
int stack_name(void *frame, char *text, size_t size);

/* The start of the object file that an address is in; NULL: not known. */
const void *stack_object(const void *address);

#endif
