#include "base/heap.h"

#include <stddef.h>

/* Invariants: a node is due no later than its children; siblings are linked by next and prev, the first one's prev is
 * the parent; the root has neither sibling nor parent. */

static struct heap_node *meld(struct heap_node *a, struct heap_node *b)
{
        if (!a)
                return b;
        if (!b)
                return a;
        if (b->due_ns < a->due_ns) {
                struct heap_node *t = a;

                a = b;
                b = t;
        }
        b->prev = a;
        b->next = a->child;
        if (a->child)
                a->child->prev = b;
        a->child = b;
        return a;
}

/* Make one tree of a list of siblings: meld them two by two, then the pairs from the last to the first. */
static struct heap_node *meld_siblings(struct heap_node *first)
{
        struct heap_node *pairs = NULL, *tree = NULL;

        while (first) {
                struct heap_node *a = first, *b = first->next;

                first = b ? b->next : NULL;
                a->next = a->prev = NULL;
                if (b)
                        b->next = b->prev = NULL;
                a = meld(a, b);
                a->next = pairs;
                pairs = a;
        }
        while (pairs) {
                struct heap_node *a = pairs;

                pairs = a->next;
                a->next = NULL;
                tree = meld(tree, a);
        }
        return tree;
}

void heap_remove(struct heap *heap, struct heap_node *node)
{
        struct heap_node *rest;

        if (!node->is_in)
                return;
        rest = meld_siblings(node->child);
        if (node == heap->root) {
                heap->root = rest;
        } else {
                if (node->prev->child == node)
                        node->prev->child = node->next;
                else
                        node->prev->next = node->next;
                if (node->next)
                        node->next->prev = node->prev;
                heap->root = meld(heap->root, rest);
        }
        node->child = node->next = node->prev = NULL;
        node->is_in = false;
}

void heap_set(struct heap *heap, struct heap_node *node, uint64_t due_ns)
{
        heap_remove(heap, node);
        node->child = node->next = node->prev = NULL;
        node->due_ns = due_ns;
        node->is_in = true;
        heap->root = meld(heap->root, node);
}
