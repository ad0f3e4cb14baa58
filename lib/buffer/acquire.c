/* The calls that borrowers make. What must be fast touches: the pool's first line (constant), a thread-local
 * pointer, the cache's first line, one rack, its top slot, one state byte. The slow half is out of line.
 *
 * A release first wins the state byte, LENT -> CACHED by compare-and-swap; who loses is told, and has changed
 * nothing. Only the winner makes an entry of the buffer, so no buffer is ever on two racks. Exactness costs that
 * one compare-and-swap: between nothing and a tenth of a pair, because it overlaps with the look-up.
 */
#include "buffer/acquire.h"

#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "buffer/cache.h"
#include "buffer/classes.h"
#include "buffer/debug.h"
#include "buffer/depot.h"
#include "buffer/guard.h"
#include "buffer/huge.h"
#include "buffer/decay.h"
#include "buffer/pool.h"
#include "buffer/span.h"
#include "buffer/line.h"

#define REFILL_MAX (RACK_MAX / 2)
#define MISSES_TO_GROW 2

/* ---- the slow half of acquire ---- */

uint32_t acquire_class(const struct lido_buffer_pool *pool, size_t bytes)
{
        if (pool->checks & CHECK_COOKIES)
                bytes += COOKIE_BYTES;
        return pool->checks & CHECK_GUARD ? CLASS_HUGE : class_of(pool, bytes);
}

int acquire_supply(struct lido_buffer_pool *pool, uint32_t class_index, size_t bytes, struct entry *entries,
                   uint32_t count)
{
        if (pool->checks & CHECK_GUARD)
                return guard_take(pool, bytes, entries);
        if (pool->checks & CHECK_COOKIES)
                bytes += COOKIE_BYTES;
        return depot_supply(pool, class_index, bytes, entries, count);
}

/* Can this pool ever give that much? Returns: LIDO_OK, or why not. */
static int refuse(const struct lido_buffer_pool *pool, uint32_t class_index, size_t bytes)
{
        if (pool->epoch != fork_epoch)
                return LIDO_EFORKED;
        if (load_acquire(&pool->closed))
                return LIDO_ECLOSED;
        if (bytes == 0 || bytes > SIZE_MAX / 2)
                return LIDO_EINVAL;
        if (pool->checks & CHECK_GUARD)
                return (pool->only_bytes && bytes > pool->only_bytes) ||
                                       guard_bytes_for(pool, bytes) > pool->max_bytes
                               ? LIDO_EINVAL
                               : LIDO_OK;
        if (class_index == CLASS_HUGE)
                return huge_bytes_for(pool, bytes) == 0 ? LIDO_EINVAL : LIDO_OK;
        return pool->sizes[class_index] > pool->max_bytes ? LIDO_EINVAL : LIDO_OK;
}

/* A rack that makes many trips may hold more, within the cache's budget. Owner, inside. */
static void maybe_grow(struct lido_buffer_pool *pool, struct lido_buffer_cache *cache, uint32_t c)
{
        const struct buffer_class *class = &pool->classes[c];
        struct rack *rack = &cache->racks[c];
        uint32_t limit = rack_limit(rack), higher = limit == 0 ? 1 : limit * 2;
        size_t more;

        if (++cache->more[c].misses < MISSES_TO_GROW || limit >= class->rack_cap)
                return;
        cache->more[c].misses = 0;
        if (higher > class->rack_cap)
                higher = class->rack_cap;
        more = (higher - limit) * class->bytes;
        if (cache->extra + more > pool->options.cache_bytes)
                return;
        cache->extra += more;
        rack->end = rack->base + higher;
}

/* Put what was fetched too much on the rack, the warmest on top. Returns: how many had no room there. */
static uint32_t stock(struct lido_buffer_cache *cache, struct lido_buffer_pool *pool, uint32_t class_index,
                      const struct entry *entries, uint32_t count)
{
        struct rack *rack = &cache->racks[class_index];
        uint32_t fit;

        if (!cache_enter_checked(cache, pool))
                return count;
        fit = (uint32_t)(rack->end - rack->top);
        if (fit > count)
                fit = count;
        memcpy(rack->top, entries + (count - fit), fit * sizeof *entries);
        rack->top += fit;
        cache_leave(cache);
        return count - fit;
}

/* How many to fetch at once: half a rack, so that neither a taker nor a giver bounces. */
static uint32_t refill_count(struct lido_buffer_cache *cache, struct lido_buffer_pool *pool,
                             uint32_t class_index)
{
        uint32_t count = 1;

        if (cache_enter_checked(cache, pool)) {
                maybe_grow(pool, cache, class_index);
                count = rack_limit(&cache->racks[class_index]) / 2;
                cache_leave(cache);
        }
        return count < 1 ? 1 : count > REFILL_MAX ? REFILL_MAX : count;
}

/* Owner, inside. */
static inline void count_acquired(struct rack *rack, uint32_t count)
{
        store_relaxed(&rack->acquired, load_relaxed(&rack->acquired) + count);
}

/* Take one off the rack, if there is one. */
static bool pop(struct lido_buffer_cache *cache, struct lido_buffer_pool *pool, uint32_t class_index,
                struct entry *ret_entry)
{
        struct rack *rack = &cache->racks[class_index];
        bool got;

        if (!cache_enter_checked(cache, pool))
                return false;
        got = rack->top != rack->base;
        if (got) {
                *ret_entry = *--rack->top;
                count_acquired(rack, 1);
        }
        cache_leave(cache);
        return got;
}

static int entry_through(struct lido_buffer_pool *pool, struct lido_buffer_cache *cache, uint32_t class_index,
                         size_t bytes, struct entry *ret_entry)
{
        struct entry entries[REFILL_MAX];
        int rc = refuse(pool, class_index, bytes);
        uint32_t left, count = 1;

        if (rc != LIDO_OK)
                return rc;
        if (class_index == CLASS_HUGE)
                cache = NULL;
        if (cache && pop(cache, pool, class_index, ret_entry))
                return LIDO_OK;
        if (line_exists(pool))
                return LIDO_EEXHAUSTED;
        if (cache)
                count = refill_count(cache, pool, class_index);
        rc = acquire_supply(pool, class_index, bytes, entries, count);
        if (rc < 1)
                return rc;
        *ret_entry = entries[rc - 1];
        if (rc > 1) {
                left = stock(cache, pool, class_index, entries, (uint32_t)rc - 1);
                if (left > 0) {
                        depot_put(pool, class_index, entries, left);
                        line_look_again(pool);
                }
        }
        if (class_index == CLASS_HUGE)
                add_relaxed(&pool->huge_acquired, 1);
        else if (cache)
                count_acquired(&cache->racks[class_index], 1);
        if (class_index == CLASS_HUGE || !cache)
                add_relaxed(&pool->acquired_directly, 1);
        return LIDO_OK;
}

int acquire_entry(struct lido_buffer_pool *pool, uint32_t class_index, size_t bytes, struct entry *ret_entry)
{
        struct lido_buffer_cache *cache = NULL;

        if (pool->epoch == fork_epoch && class_index != CLASS_HUGE && !load_acquire(&pool->closed))
                cache = cache_get(pool);
        return entry_through(pool, cache, class_index, bytes, ret_entry);
}

void *acquire_finish(struct lido_buffer_pool *pool, const struct entry *entry, size_t bytes, const char *site)
{
        store_relaxed(entry->state, pool->checks ? STATE_LENT_CHECKED : STATE_LENT);
        if (unlikely(pool->checks))
                debug_lend(pool, entry, bytes, site);
        return entry->buffer;
}

/* timeout_ms: 0 does not wait. (Five parameters, the first four where the caller has them: no register is
 * moved on the hot path.) */
static buffer_cold int acquire_slow(struct lido_buffer_pool *pool, size_t bytes, void **ret_buffer,
                                    const char *site, int64_t timeout_ms)
{
        uint32_t class_index;
        struct entry entry;
        int rc;

        if (bytes == 0 || bytes > SIZE_MAX / 2)
                return LIDO_EINVAL;
        class_index = acquire_class(pool, bytes);
        rc = acquire_entry(pool, class_index, bytes, &entry);
        if (rc == LIDO_EEXHAUSTED && timeout_ms != 0)
                rc = line_wait(pool, class_index, bytes, clock_after_ms(clock_now_ns(), timeout_ms), &entry);
        if (rc != LIDO_OK)
                return rc;
        *ret_buffer = acquire_finish(pool, &entry, bytes, site);
        return LIDO_OK;
}

/* ---- acquire ---- */

/* Hot: measured by tests/bench/adapters/buffers_lido.h. The owner is inside. Returns: false when the rack is
 * empty. */
static inline always_inline bool acquire_hot(struct lido_buffer_pool *pool, struct lido_buffer_cache *cache,
                                             size_t bytes, void **ret_buffer)
{
        size_t offset = pool->only_rack;
        struct rack *rack;
        struct entry *top;
        state_byte *state;

        if (unlikely(offset == 0))
                offset = RACK_OFFSET(class_of(pool, bytes));
        rack = rack_at(cache, offset);
        top = rack->top;
        if (unlikely(top == rack->base)) {
                cache_leave(cache);
                return false;
        }
        state = top[-1].state;
        *ret_buffer = top[-1].buffer;
        rack->top = top - 1;
        count_acquired(rack, 1);
        cache_leave(cache);
        store_relaxed(state, STATE_LENT);
        return true;
}

/* Sizes from 1 to pool->plain; 0 wraps around, and is refused in the slow half. */
static inline bool is_plain(const struct lido_buffer_pool *pool, size_t bytes)
{
        return likely(bytes - 1 < pool->plain);
}

/* The cache that the thread used last is not this pool's, or shut: enter the right one, if it is open. */
static struct lido_buffer_cache *enter_other(const struct lido_buffer_pool *pool)
{
        struct lido_buffer_cache *cache = cache_slots[pool->slot];

        if (!cache || pool->checks || !cache_enter(cache, pool))
                return NULL;
        return cache_last = cache;
}

/* All that is not hot ends in a tail call, so that the hot path needs no stack frame. */
static __attribute__((noinline)) int acquire_other(struct lido_buffer_pool *pool, size_t bytes,
                                                   void **ret_buffer, const char *site, int64_t timeout_ms)
{
        struct lido_buffer_cache *cache = is_plain(pool, bytes) ? enter_other(pool) : NULL;

        if (cache && acquire_hot(pool, cache, bytes, ret_buffer))
                return LIDO_OK;
        return acquire_slow(pool, bytes, ret_buffer, site, timeout_ms);
}

buffer_hot int lido_buffer_try_acquire_at(struct lido_buffer_pool *pool, size_t bytes, void **ret_buffer,
                                          const char *site)
{
        struct lido_buffer_cache *cache = cache_last;

        if (unlikely(!is_plain(pool, bytes)))
                return acquire_slow(pool, bytes, ret_buffer, site, 0);
        if (unlikely(!cache_enter(cache, pool)))
                return acquire_other(pool, bytes, ret_buffer, site, 0);
        if (unlikely(!acquire_hot(pool, cache, bytes, ret_buffer)))
                return acquire_slow(pool, bytes, ret_buffer, site, 0);
        return LIDO_OK;
}

buffer_hot int lido_buffer_acquire_at(struct lido_buffer_pool *pool, size_t bytes, void **ret_buffer,
                                      const char *site)
{
        struct lido_buffer_cache *cache = cache_last;

        if (unlikely(!is_plain(pool, bytes)))
                return acquire_slow(pool, bytes, ret_buffer, site, pool->options.acquire_timeout_ms);
        if (unlikely(!cache_enter(cache, pool)))
                return acquire_other(pool, bytes, ret_buffer, site, pool->options.acquire_timeout_ms);
        if (unlikely(!acquire_hot(pool, cache, bytes, ret_buffer)))
                return acquire_slow(pool, bytes, ret_buffer, site, pool->options.acquire_timeout_ms);
        return LIDO_OK;
}

int lido_buffer_timed_acquire(struct lido_buffer_pool *pool, size_t bytes, int64_t timeout_ms,
                              void **ret_buffer)
{
        if (!pool || timeout_ms < LIDO_TIMEOUT_DEFAULT)
                return LIDO_EINVAL;
        if (timeout_ms == LIDO_TIMEOUT_DEFAULT)
                timeout_ms = pool->options.acquire_timeout_ms;
        return acquire_other(pool, bytes, ret_buffer, "?", timeout_ms);
}

int lido_buffer_cache_acquire(struct lido_buffer_cache *cache, size_t bytes, void **ret_buffer)
{
        struct lido_buffer_pool *pool = cache ? load_relaxed(&cache->pool) : NULL;
        uint32_t class_index;
        struct entry entry;
        int rc;

        if (!pool || bytes == 0 || bytes > SIZE_MAX / 2)
                return LIDO_EINVAL;
        if (is_plain(pool, bytes) && cache_enter(cache, pool) && acquire_hot(pool, cache, bytes, ret_buffer))
                return LIDO_OK;
        if (pool->epoch == fork_epoch && load_relaxed(&cache->open) != pool &&
            load_relaxed(&pool->attention) == 0)
                cache_reopen(cache, pool);
        class_index = acquire_class(pool, bytes);
        rc = entry_through(pool, cache, class_index, bytes, &entry);
        if (rc == LIDO_OK)
                *ret_buffer = acquire_finish(pool, &entry, bytes, "cache handle");
        return rc;
}

/* ---- the slow half of release ---- */

/* The rack is full: its coldest half goes to the depot, so that the next releases and the next acquires have
 * room. */
static bool push(struct lido_buffer_pool *pool, struct lido_buffer_cache *cache, uint32_t class_index,
                 const struct entry *entry)
{
        struct rack *rack = &cache->racks[class_index];
        struct entry cold[RACK_MAX];
        uint32_t n, k = 0;

        if (!cache_enter_checked(cache, pool))
                return false;
        if (rack->top == rack->end)
                maybe_grow(pool, cache, class_index);
        if (rack->end == rack->base) {
                cache_leave(cache);
                return false;
        }
        if (rack->top == rack->end) {
                n = rack_count(rack);
                k = (n + 1) / 2;
                memcpy(cold, rack->base, k * sizeof *cold);
                memmove(rack->base, rack->base + k, (n - k) * sizeof *cold);
                rack->top -= k;
        }
        *rack->top++ = *entry;
        cache_leave(cache);
        if (k > 0)
                depot_put(pool, class_index, cold, k);
        return true;
}

/* After something was put down: somebody may have begun to wait, or to close, since it was decided where to.
 */
static void settle_down(struct lido_buffer_pool *pool, uint32_t class_index)
{
        line_look_again(pool);
        if (unlikely(load_acquire(&pool->closed)) && class_index != CLASS_HUGE)
                depot_shed(pool, class_index, UINT32_MAX, 0);
}

/* The buffer is CACHED and has no entry yet. The pool may end once its last buffer is down: hold it
 * meanwhile. */
static buffer_cold int release_slow(struct span *span, struct lido_buffer_cache *cache, void *buffer,
                                    state_byte *state)
{
        const struct entry entry = {buffer, state};
        struct lido_buffer_pool *pool = span->pool;
        uint32_t class_index = span->class_index;

        if (pool->epoch != fork_epoch) {
                store_relaxed(state, STATE_LENT);
                return LIDO_EFORKED;
        }
        add_relaxed(&pool->refs, 1);
        if (pool->checks & CHECK_GUARD) {
                guard_put(pool, &entry);
        } else {
                if (load_relaxed(&pool->attention) != 0 || class_index == CLASS_HUGE ||
                    (pool->checks & CHECK_RESERVE))
                        cache = NULL;
                else if (!cache)
                        cache = cache_get(pool);
                else if (load_relaxed(&cache->open) != pool)
                        cache_reopen(cache, pool);
                if (!cache || !push(pool, cache, class_index, &entry))
                        depot_return(pool, class_index, &entry);
        }
        settle_down(pool, class_index);
        pool_unref(pool);
        return LIDO_OK;
}

void release_batch(struct span *span, const struct entry *entries, uint32_t count)
{
        struct lido_buffer_pool *pool = span->pool;
        uint32_t class_index = span->class_index;

        if (pool->epoch != fork_epoch)
                return;
        add_relaxed(&pool->refs, 1);
        if (load_relaxed(&pool->attention) == 0 && class_index != CLASS_HUGE &&
            !(pool->checks & CHECK_RESERVE)) {
                depot_put(pool, class_index, entries, count);
        } else {
                for (uint32_t i = 0; i < count; i++)
                        depot_return(pool, class_index, &entries[i]);
        }
        settle_down(pool, class_index);
        pool_unref(pool);
}

/* Who releases what is not lent. Nothing has been changed. `span` may be NULL. */
static buffer_cold int misuse(struct span *span, const void *buffer, const char *site)
{
        int code = !buffer ? LIDO_EINVAL : span && span_state(span, buffer) ? LIDO_EDOUBLE : LIDO_EFOREIGN;

        if (span && span_state(span, buffer)) {
                struct lido_buffer_pool *pool = span->pool;

                if (pool->epoch != fork_epoch)
                        return LIDO_EFORKED;
                debug_misuse(pool, buffer, code, site);
        }
        return code;
}

/* The state is not LENT. Pools that check more lend otherwise: there the buffer is the releaser's alone
 * between the compare-and-swap and the push. */
static buffer_cold int release_checked(struct span *span, struct lido_buffer_cache *cache, void *buffer,
                                       const char *site)
{
        state_byte *state = span_state(span, buffer);
        uint8_t seen = STATE_LENT_CHECKED;

        if (!state)
                return misuse(span, buffer, site);
        if (span->pool->epoch != fork_epoch)
                return LIDO_EFORKED;
        if (!cas_acq_rel(state, &seen, STATE_CACHED)) {
                if (seen != STATE_LENT_TRACED || !cas_acq_rel(state, &seen, STATE_CACHED))
                        return misuse(span, buffer, site);
                debug_untrace(span->pool, buffer);
        }
        debug_take_back(span->pool, span, buffer, site);
        return release_slow(span, cache, buffer, state);
}

/* ---- release ---- */

/* Hot. The owner is inside. Returns: false when the rack is full.
 *
 * What is read of the span is only compared with what the cache was last used for: a branch that is
 * predicted, and not a chain of six loads that the next acquire would wait for (10 ns to 5 ns a pair). The
 * fields are stored one by one, because a struct would be read as a whole right after its halves were
 * written, which no store buffer forwards. */
static inline always_inline bool release_hot(struct span *span, struct lido_buffer_cache *cache, void *buffer,
                                             state_byte *state)
{
        struct rack *rack;
        struct entry *top;
        size_t guess;

        guess = cache->last_rack;
        if (unlikely(guess != span->rack))
                cache->last_rack = guess = span->rack;
        else
                opaque(guess);
        rack = rack_at(cache, guess);
        top = rack->top;
        if (unlikely(top == rack->end)) {
                cache_leave(cache);
                return false;
        }
        top->buffer = buffer;
        top->state = state;
        rack->top = top + 1;
        cache_leave(cache);
        return true;
}

static __attribute__((noinline)) int release_other(struct span *span, void *buffer, state_byte *state)
{
        struct lido_buffer_cache *cache = enter_other(span->pool);

        if (cache && release_hot(span, cache, buffer, state))
                return LIDO_OK;
        return release_slow(span, NULL, buffer, state);
}

buffer_hot int lido_buffer_release_at(void *buffer, const char *site)
{
        struct lido_buffer_cache *cache = cache_last;
        struct span *span = span_of(buffer);
        uint8_t seen = STATE_LENT;
        uint64_t i;

        if (unlikely(!span))
                return misuse(span, buffer, site);
        i = span_index(span, buffer);
        if (unlikely(i == UINT64_MAX))
                return misuse(span, buffer, site);
        if (unlikely(!cas_acq_rel(span_state_at(span, i), &seen, STATE_CACHED)))
                return release_checked(span, NULL, buffer, site);
        if (unlikely(!cache_enter(cache, span->pool)))
                return release_other(span, buffer, span_state_at(span, i));
        if (unlikely(!release_hot(span, cache, buffer, span_state_at(span, i))))
                return release_slow(span, NULL, buffer, span_state_at(span, i));
        return LIDO_OK;
}

int lido_buffer_cache_release(struct lido_buffer_cache *cache, void *buffer)
{
        struct span *span = span_of(buffer);
        struct lido_buffer_pool *pool;
        uint8_t seen = STATE_LENT;
        uint64_t i;

        if (!cache)
                return LIDO_EINVAL;
        if (!span)
                return misuse(span, buffer, "cache handle");
        pool = load_relaxed(&cache->pool);
        if (span->pool != pool)
                return lido_buffer_release_at(buffer, "cache handle");
        i = span_index(span, buffer);
        if (i == UINT64_MAX)
                return misuse(span, buffer, "cache handle");
        if (!cas_acq_rel(span_state_at(span, i), &seen, STATE_CACHED))
                return release_checked(span, cache, buffer, "cache handle");
        if (cache_enter(cache, pool) && release_hot(span, cache, buffer, span_state_at(span, i)))
                return LIDO_OK;
        return release_slow(span, cache, buffer, span_state_at(span, i));
}

/* ---- what a buffer says of itself ---- */

static struct span *lent_span(const void *buffer)
{
        struct span *span = span_of(buffer);
        state_byte *state = span ? span_state(span, buffer) : NULL;
        uint8_t seen = state ? load_relaxed(state) : STATE_NONE;

        return seen == STATE_LENT || seen == STATE_LENT_CHECKED || seen == STATE_LENT_TRACED ? span : NULL;
}

size_t lido_buffer_bytes(const void *buffer)
{
        struct span *span = lent_span(buffer);

        if (!span)
                return 0;
        return span->pool->checks & (CHECK_COOKIES | CHECK_ASAN) ? debug_bytes(span, buffer) : span->bytes;
}

struct lido_buffer_pool *lido_buffer_pool_of(const void *buffer)
{
        struct span *span = lent_span(buffer);

        return span ? span->pool : NULL;
}
