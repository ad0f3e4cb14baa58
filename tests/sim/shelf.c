/* The real shelves, empty at the start of each run as all memory is. */
#define LIDO_SIM_SHELF
#include "sim/face.h"

#include "base/shelf.c"

#include "sim/sched.h"

void *sim_shelf_take(struct shelf *shelf, int *ret_is_new)
{
        if (sim_mutex_renew(&shelf->lock))
                shelf->first = NULL;
        return shelf_take(shelf, ret_is_new);
}
