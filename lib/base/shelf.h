/* base/shelf.h - memory that keeps its type for ever: given back, it waits on a shelf for the next of its kind.
 *
 * Some structs are looked at by threads that cannot know whether they still exist: a stale lease points to a slot, a
 * releaser to the pool whose last object it has just put back. If such memory is never anything else, a late look
 * finds an older or a newer one of the same kind, whose words say so, and harms nothing. A shelf grows to the largest
 * number in use at once and is never emptied.
 */
#ifndef LIDO_BASE_SHELF_H
#define LIDO_BASE_SHELF_H

#include <stddef.h>

#include "base/mutex.h"

struct shelf {
        struct mutex lock;
        void *first; /* guarded by lock; linked through `link_offset` of each */
        size_t size, alignment, link_offset; /* constant */
};

#define SHELF_INIT(type, link)                                                                                 \
        {                                                                                                      \
                MUTEX_INIT, NULL, sizeof(type), _Alignof(type), offsetof(type, link)                           \
        }

/* One of its kind: zeroed when it is new, as it was left when it is not. *ret_is_new tells. NULL: no memory. */
void *shelf_take(struct shelf *shelf, int *ret_is_new);

/* Put it back. Its link pointer is overwritten, nothing else. */
void shelf_give(struct shelf *shelf, void *item);

#endif
