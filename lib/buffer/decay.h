/* buffer/decay.h - the decay: what nobody has needed since the last tick goes back, a little at a time, then
 * the ticks stop.
 *
 * A tick empties idle racks, asks each depot how much of it stood unused since the last tick, and sheds seven
 * eighths of that (all of it when it is little): after a burst an eighth survives a tick, so that the next
 * burst finds something and a single one pins nothing. Spans untouched for a tick are purged, or end. When
 * nothing is kept any more the timer is not set again; what opens a cache or fills a depot arms it: cache_reopen,
 * depot_put, huge_put.
 *
 *      armed 0 -> 1   decay_arm: posts to the loop, with a reference on the pool
 *      armed 1 -> 0   on_timer, when nothing was left; it looks again afterwards, because a cache may have
 * been opened in between
 */
#ifndef LIDO_BUFFER_DECAY_H
#define LIDO_BUFFER_DECAY_H

#include "buffer/types.h"

#define TICKS_OF_DECAY 4 /* in decay_ms */

/* Set the pool's posts up. */
void decay_init(struct lido_buffer_pool *pool);

void decay_arm_slow(struct lido_buffer_pool *pool);

/* There is something to decay. No lock held. */
static inline void decay_arm(struct lido_buffer_pool *pool)
{
        if (pool->loop && unlikely(load_relaxed(&pool->armed) == 0))
                decay_arm_slow(pool);
}

/* One tick. Returns: true when anything is left. No lock held. */
bool decay_tick(struct lido_buffer_pool *pool);

/* Everything that is not lent goes back. Returns: bytes. No lock held. */
size_t decay_trim(struct lido_buffer_pool *pool);

/* No more ticks: the pool is closed. No lock held. */
void decay_stop(struct lido_buffer_pool *pool);

#endif
