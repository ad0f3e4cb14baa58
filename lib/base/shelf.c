#include "base/shelf.h"

#include "base/mem.h"

static void **link_of(struct shelf *shelf, void *item)
{
        return (void **)(void *)((char *)item + shelf->link_offset);
}

void *shelf_take(struct shelf *shelf, int *ret_is_new)
{
        void *item;

        mutex_lock(&shelf->lock);
        item = shelf->first;
        if (item)
                shelf->first = *link_of(shelf, item);
        mutex_unlock(&shelf->lock);
        *ret_is_new = item == NULL;
        return item ? item : mem_zalloc_aligned(shelf->alignment, shelf->size);
}

void shelf_give(struct shelf *shelf, void *item)
{
        mutex_lock(&shelf->lock);
        *link_of(shelf, item) = shelf->first;
        shelf->first = item;
        mutex_unlock(&shelf->lock);
}
