/* allocations.h - counts what a program asks of malloc, so that a server can show that a request asks for nothing. Include it in
 * one file of the program: it puts itself in front of malloc, calloc and realloc (glibc). */
#ifndef ALLOCATIONS_H
#define ALLOCATIONS_H

#include <stdatomic.h>
#include <stddef.h>

extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t count, size_t bytes);
extern void *__libc_realloc(void *memory, size_t bytes);

static atomic_ulong allocations;

void *malloc(size_t bytes)
{
        atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
        return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
        atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
        return __libc_calloc(count, bytes);
}

void *realloc(void *memory, size_t bytes)
{
        atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
        return __libc_realloc(memory, bytes);
}

#endif
