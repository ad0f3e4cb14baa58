/* base/list.h - an intrusive, circular, doubly linked list: O(1) at both ends and out of the middle, no allocation.
 *
 * A list head and a link are the same struct. An unlinked link points to itself, so unlinking twice is harmless.
 *
 *      struct list waiters;  list_init(&waiters);
 *      list_push_back(&waiters, &waiter->link);
 *      struct waiter *oldest = list_entry(list_front(&waiters), struct waiter, link);
 */
#ifndef LIDO_BASE_LIST_H
#define LIDO_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
        struct list *next, *prev;
};

/* The struct that contains `member` at `link`. */
#define list_entry(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))

#define list_for_each(it, head) for (struct list *it = (head)->next; it != (head); it = it->next)

/* As list_for_each, when the body may unlink `it` (and only it). */
#define list_for_each_safe(it, head)                                                                           \
        for (struct list *it = (head)->next, *it##_next = it->next; it != (head); it = it##_next, it##_next = it->next)

static inline void list_init(struct list *link)
{
        link->next = link->prev = link;
}

static inline bool list_is_empty(const struct list *head)
{
        return head->next == head;
}

/* The first link; NULL when the list is empty. */
static inline struct list *list_front(const struct list *head)
{
        return head->next == head ? NULL : head->next;
}

static inline struct list *list_back(const struct list *head)
{
        return head->next == head ? NULL : head->prev;
}

static inline void list_insert_before(struct list *place, struct list *link)
{
        link->next = place;
        link->prev = place->prev;
        place->prev->next = link;
        place->prev = link;
}

static inline void list_push_back(struct list *head, struct list *link)
{
        list_insert_before(head, link);
}

static inline void list_push_front(struct list *head, struct list *link)
{
        list_insert_before(head->next, link);
}

static inline void list_unlink(struct list *link)
{
        link->next->prev = link->prev;
        link->prev->next = link->next;
        list_init(link);
}

static inline bool list_is_linked(const struct list *link)
{
        return link->next != link;
}

#endif
