/* buffer/depot.h - what stands behind the caches of one class: free entries, then spans, then the source,
 * then the reserve.
 *
 * Taking goes down that ladder, giving goes up. The depot is a stack, so that its bottom is what nobody has
 * needed; `low` is how much of it that is since the last tick (Bonwick's working set).
 */
#ifndef LIDO_BUFFER_DEPOT_H
#define LIDO_BUFFER_DEPOT_H

#include "buffer/types.h"

/* Take up to `count` entries that exist already, from depot and spans, constructed. Returns: how many. No
 * lock held. */
uint32_t depot_take(struct lido_buffer_pool *pool, uint32_t class_index, struct entry *entries,
                    uint32_t count);

/* Put entries back: on the depot, or when it is full to their spans. The last one is the warmest. No lock
 * held. */
void depot_put(struct lido_buffer_pool *pool, uint32_t class_index, const struct entry *entries,
               uint32_t count);

/* Get at least one entry and up to `count`, by the whole ladder; the reserve and what must be taken from
 * other classes only for the first. class_index may be CLASS_HUGE, with the size in `bytes`. No lock held.
 * Returns: how many; else LIDO_EEXHAUSTED at the cap, LIDO_ENOMEM, LIDO_EFACTORY, LIDO_EINVAL for more than
 * the cap allows. */
int depot_supply(struct lido_buffer_pool *pool, uint32_t class_index, size_t bytes, struct entry *entries,
                 uint32_t count);

/* One entry comes back to a pool that wants to be told (attention), is closed, keeps nothing, or is huge: put
 * it where it belongs. No lock held. */
void depot_return(struct lido_buffer_pool *pool, uint32_t class_index, const struct entry *entry);

/* Fill the reserve at open. Returns: as depot_supply, or LIDO_OK. */
int depot_fill_reserve(struct lido_buffer_pool *pool, uint32_t target);

/* Give entries to their spans at once, and end the spans that fall empty. Returns: bytes. */
size_t depot_give_back(struct lido_buffer_pool *pool, uint32_t class_index, const struct entry *entries,
                       uint32_t count);

/* Move the coldest `count` of the depot to their spans, and what is free of these to the source: spans that
 * are free as a whole end, of others the free pages are purged, both only if untouched for `age` ticks.
 * Returns: bytes. */
size_t depot_shed(struct lido_buffer_pool *pool, uint32_t class_index, uint32_t count, uint32_t age);

/* Is anything free and warm? */
bool depot_any_kept(struct lido_buffer_pool *pool, uint32_t class_index);

/* How many of the depot were not needed since the last call, and a new tick. *ret_left: is anything kept? */
uint32_t depot_tick(struct lido_buffer_pool *pool, uint32_t class_index, bool *ret_left);

#endif
