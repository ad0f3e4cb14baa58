/* buffer/cache.h - the cache of one thread for one pool, which its owner uses without an atomic, and others
 * can empty.
 *
 * The owner enters (busy = 1, then reads `open`), moves an entry, and leaves (busy = 0). A visitor (the
 * decay, a trim, somebody who waits at the cap) shuts the cache (open = NULL), runs a heavy fence, waits
 * until it is not busy, and then has the racks for itself until it, or the owner in its slow path, opens the
 * cache again; both under the registry lock.
 *
 *      OPEN    open == pool    the owner alone touches the racks, inside enter and leave
 *      SHUT    open == NULL    once busy was seen 0 after the fence, who holds the registry lock may touch
 * the racks DRAINED SHUT, and the racks are empty
 *
 *      OPEN -> SHUT           cache_visit, cache_end (registry lock)
 *      SHUT -> DRAINED        cache_visit
 *      SHUT, DRAINED -> OPEN  cache_get in its owner's slow path, and cache_visit for one that is in use
 * (registry lock); never while pool->attention > 0, so that nothing is hidden from those who wait
 *
 * Nearly missed: the owner may be inside when it is shut. Its entry then lands on the rack, and the visitor
 * sees it, because it waits for busy == 0. The owner may also be on its way to the depot with a batch in its
 * hands: it looks at `attention` after it has put the batch down, and serves those who wait.
 */
#ifndef LIDO_BUFFER_CACHE_H
#define LIDO_BUFFER_CACHE_H

#include "buffer/asym.h"
#include "buffer/types.h"

#define initial_exec __attribute__((tls_model("initial-exec"), visibility("hidden")))

/* The calling thread's caches; the pool's slot chooses. Another pool's cache may stand there, or a dead one:
 * compare `open`. */
extern _Thread_local struct lido_buffer_cache *cache_slots[CACHE_SLOTS] initial_exec;

/* Of these, the one that was used last; cache_none, which is never open, when there is none. */
extern _Thread_local struct lido_buffer_cache *cache_last initial_exec;
extern struct lido_buffer_cache cache_none __attribute__((visibility("hidden")));

/* Counted up in each child of fork. */
extern uint32_t fork_epoch __attribute__((visibility("hidden")));

/* Hot. Returns: true when the owner may use the racks, until cache_leave. */
static inline bool cache_enter(struct lido_buffer_cache *cache, const struct lido_buffer_pool *pool)
{
        store_relaxed(&cache->busy, 1);
        fence_light();
        if (likely(load_acquire(&cache->open) == pool))
                return true;
        store_release(&cache->busy, 0);
        return false;
}

static inline void cache_leave(struct lido_buffer_cache *cache)
{
        store_release(&cache->busy, 0);
}

/* As cache_enter, for pools whose checks may ask for a real fence. */
static inline bool cache_enter_checked(struct lido_buffer_cache *cache, const struct lido_buffer_pool *pool)
{
        if (!(pool->checks & CHECK_FENCE))
                return cache_enter(cache, pool);
        store_seq_cst(&cache->busy, 1); /* pairs with shut_locked: store, then load, on both sides */
        if (load_seq_cst(&cache->open) == pool)
                return true;
        store_release(&cache->busy, 0);
        return false;
}

/* The calling thread's cache for a pool, made if need be, opened if that is allowed now. No lock held.
 * Returns: NULL when there is no memory, or the pool has no caches. */
struct lido_buffer_cache *cache_get(struct lido_buffer_pool *pool);

/* A cache that is no thread's. Returns: LIDO_OK; LIDO_ENOMEM; LIDO_ECLOSED when the pool has been freed. */
int cache_new(struct lido_buffer_pool *pool, bool handle, struct lido_buffer_cache **ret_cache);

/* Open a cache if that is allowed now. Owner only. */
void cache_reopen(struct lido_buffer_cache *cache, struct lido_buffer_pool *pool);

/* Give its entries to the depots, take it off its pool, free it. Owner only. No lock held. */
void cache_end(struct lido_buffer_cache *cache);

/* Empty every cache into the depots and leave it shut; waits for owners that are inside. Returns: buffers. No
 * lock held. */
size_t cache_collect_all(struct lido_buffer_pool *pool);

/* Empty the racks that were not used since the last call; a cache without use at all stays shut. *ret_left
 * becomes true when anything stays cached. No lock held. */
void cache_tick(struct lido_buffer_pool *pool, bool *ret_left);

/* Has any cache been opened and not drained since? */
bool cache_any_open(struct lido_buffer_pool *pool);

/* Count attention up or down under the lock that opening takes. Returns: the count before. */
uint32_t cache_attention(struct lido_buffer_pool *pool, int change);

/* The pool is going: its caches forget it; their owners free them later. */
void cache_forget_pool(struct lido_buffer_pool *pool);

/* Sum up what the caches have counted. */
void cache_stats(struct lido_buffer_pool *pool, struct lido_buffer_stats *stats);

/* Set up the key, the fork handlers; once a process. Returns: false when the system refuses. */
bool cache_init_process(void);

#endif
