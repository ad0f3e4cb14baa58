/* base/heap.h - an intrusive heap of times: who is due first, without allocation.
 *
 * A pairing heap: add is O(1), take and remove are O(log n) amortised. A node knows whether it is in a heap, so
 * removing one that is not is harmless.
 */
#ifndef LIDO_BASE_HEAP_H
#define LIDO_BASE_HEAP_H

#include <stdbool.h>
#include <stdint.h>

struct heap_node {
        struct heap_node *child, *next, *prev; /* prev: the parent, for a first child */
        uint64_t due_ns;
        bool is_in;
};

struct heap {
        struct heap_node *root;
};

/* The node due first; NULL when the heap is empty. */
static inline struct heap_node *heap_first(const struct heap *heap)
{
        return heap->root;
}

/* Put a node in, or move it to a new time. */
void heap_set(struct heap *heap, struct heap_node *node, uint64_t due_ns);

/* Take a node out, wherever it is. */
void heap_remove(struct heap *heap, struct heap_node *node);

#endif
