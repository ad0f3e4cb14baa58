/* Many at once: one visit to the rack, one trip to the depot, whatever the count. */
#include <string.h>

#include "buffer/acquire.h"
#include "buffer/cache.h"
#include "buffer/classes.h"
#include "buffer/depot.h"
#include "buffer/decay.h"
#include "buffer/pool.h"
#include "buffer/span.h"
#include "buffer/line.h"

#define BATCH 64

/* Words in which each state is 1. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define WORD_OF_FOUR UINT64_C(0x0001000100010001)
#define WORD_OF_TWO UINT64_C(0x0000000100000001)
#else
#define WORD_OF_FOUR UINT64_C(0x0100010001000100)
#define WORD_OF_TWO UINT64_C(0x0100000001000000)
#endif

/* ---- acquire ---- */

static void lend(const struct entry *entries, uint32_t count, void **ret_buffers)
{
        for (uint32_t i = 0; i < count; i++) {
                store_relaxed(entries[i].state, STATE_LENT);
                ret_buffers[i] = entries[i].buffer;
        }
}

/* What the rack has. Hot: measured by the batch workload. Returns: how many. */
static uint32_t from_rack(struct lido_buffer_cache *cache, struct lido_buffer_pool *pool,
                          uint32_t class_index, void **ret_buffers, uint32_t count)
{
        struct rack *rack = &cache->racks[class_index];
        uint32_t n;

        if (!cache_enter_checked(cache, pool))
                return 0;
        n = rack_count(rack);
        if (count > n)
                count = n;
        lend(rack->top - count, count, ret_buffers);
        rack->top -= count;
        store_relaxed(&rack->acquired, load_relaxed(&rack->acquired) + count);
        cache_leave(cache);
        return count;
}

/* One by one, for what is not plain. Returns: how many. */
static uint32_t singly(struct lido_buffer_pool *pool, size_t bytes, void **ret_buffers, uint32_t count,
                       int *ret_rc)
{
        for (uint32_t i = 0; i < count; i++) {
                *ret_rc = lido_buffer_try_acquire_at(pool, bytes, &ret_buffers[i], "bulk");
                if (*ret_rc != LIDO_OK)
                        return i;
        }
        return count;
}

static uint32_t from_depot(struct lido_buffer_pool *pool, uint32_t class_index, size_t bytes,
                           void **ret_buffers, uint32_t count, int *ret_rc)
{
        struct entry entries[BATCH];
        uint32_t got = 0;

        while (got < count) {
                uint32_t want = count - got < BATCH ? count - got : BATCH;
                int rc = depot_supply(pool, class_index, bytes, entries, want);

                if (rc < 1) {
                        *ret_rc = rc;
                        break;
                }
                lend(entries, (uint32_t)rc, ret_buffers + got);
                got += (uint32_t)rc;
        }
        add_relaxed(&pool->acquired_directly, got);
        return got;
}

int lido_buffer_acquire_bulk(struct lido_buffer_pool *pool, size_t bytes, uint32_t count, void **ret_buffers)
{
        struct lido_buffer_cache *cache;
        uint32_t class_index, got = 0;
        int rc = LIDO_OK;

        if (!pool || !ret_buffers || count == 0)
                return LIDO_EINVAL;
        if (bytes - 1 >= pool->plain || pool->epoch != fork_epoch || load_acquire(&pool->closed)) {
                got = singly(pool, bytes, ret_buffers, count, &rc);
        } else {
                class_index = class_of(pool, bytes);
                cache = cache_slots[pool->slot];
                if (unlikely(!cache || load_relaxed(&cache->open) != pool))
                        cache = cache_get(pool);
                if (likely(cache != NULL))
                        got = from_rack(cache, pool, class_index, ret_buffers, count);
                if (got < count && line_exists(pool))
                        rc = LIDO_EEXHAUSTED;
                else if (got < count)
                        got += from_depot(pool, class_index, bytes, ret_buffers + got, count - got, &rc);
        }
        if (got == count)
                return LIDO_OK;
        if (got > 0)
                lido_buffer_release_bulk(ret_buffers, got);
        return rc;
}

/* ---- release ---- */

/* Buffers that follow each other are mostly of one class, often of one span: what is known of that is kept at
 * hand. */
struct run {
        struct lido_buffer_pool *pool;
        size_t rack;
        /* of the span that the last one was in */
        uintptr_t base;
        size_t extent, bytes;
        uint64_t reciprocal;
        state_byte *state;
        uint32_t stride, count;
};

/* Returns: false when the buffer is of another pool or class, or needs more checks, or is none. */
static bool run_enter(struct run *run, const void *buffer)
{
        struct span *span = span_of(buffer);

        if (!span || span->pool != run->pool || span->rack != run->rack)
                return false;
        run->base = span->base;
        run->bytes = span->bytes;
        run->extent = span->count * span->bytes;
        run->reciprocal = span->reciprocal;
        run->state = span->state;
        run->stride = span->stride;
        run->count = span->count;
        return true;
}

/* The buffer's number in its span; UINT64_MAX when it is not that simple. */
static inline always_inline uint64_t find(struct run *run, const void *buffer)
{
        uintptr_t off = (uintptr_t)buffer - run->base;
        uint64_t i;

        if (unlikely(off >= run->extent)) {
                if (!run_enter(run, buffer))
                        return UINT64_MAX;
                off = (uintptr_t)buffer - run->base;
                if (off >= run->extent)
                        return UINT64_MAX;
        }
        i = off * run->reciprocal >> 32;
        return likely(i * run->bytes == off) ? i : UINT64_MAX;
}

/* Entries of those that stand in memory one after the other, beginning with the first, whose state is known. Returns: how
 * many. */
static inline always_inline uint32_t enter_neighbours(void *const *buffers, uint32_t count, size_t bytes,
                                                      state_byte *state, uint32_t stride, struct entry *entries)
{
        size_t step = (size_t)1 << stride;
        char *next = buffers[0];
        uint32_t n = 0;

        do {
                entries[n].buffer = next;
                entries[n].state = state;
                next += bytes;
                state += step;
                n++;
        } while (n < count && buffers[n] == next);
        return n;
}

static inline bool win(state_byte *state)
{
        uint8_t seen = STATE_LENT;

        return cas_acq_rel(state, &seen, STATE_CACHED);
}

/* Win neighbours for their releaser, four or two of them by one compare-and-swap where so many states lie in eight
 * bytes: it succeeds when all are LENT, and each of them is won by one releaser only, whatever the width. The bytes
 * between states are 0. Hot. Returns: how many, from the first. */
static inline always_inline uint32_t win_neighbours(state_byte *state, uint32_t stride, uint32_t count)
{
        static const uint64_t ones[] = {0, WORD_OF_FOUR, WORD_OF_TWO};
        uint32_t width = stride == 1 ? 4 : stride == 2 ? 2 : 1, n = 0;

        while (n < count) {
                state_byte *at = state + ((size_t)n << stride);

                if (width > 1 && count - n >= width && span_is_word(at)) {
                        uint64_t seen = ones[stride] * STATE_LENT;

                        if (likely(cas_acq_rel((state_word *)(void *)at, &seen, ones[stride] * STATE_CACHED))) {
                                n += width;
                                continue;
                        }
                }
                if (unlikely(!win(at)))
                        break;
                n++;
        }
        return n;
}

/* Win what stands at the head of `buffers` and make entries of it. Returns: how many; 0 when it is not that simple. */
static inline always_inline uint32_t win_some(struct run *run, void *const *buffers, uint32_t count,
                                              struct entry *entries)
{
        uint64_t i = find(run, buffers[0]);
        uint32_t stride = run->stride;
        state_byte *state;

        if (unlikely(i == UINT64_MAX))
                return 0;
        state = &run->state[i << stride];
        if (count > run->count - i)
                count = (uint32_t)(run->count - i);
        return win_neighbours(state, stride, enter_neighbours(buffers, count, run->bytes, state, stride, entries));
}

/* Onto the rack, as long as there is room and they are of the run. Hot: measured by the batch workload.
 * Returns: how many. */
static uint32_t to_rack(struct lido_buffer_cache *cache, struct run *run, void *const *buffers,
                        uint32_t count)
{
        struct rack *rack;
        struct entry *top;
        uint32_t done = 0, room, n;

        if (unlikely(!cache || !cache_enter(cache, run->pool)))
                return 0;
        rack = rack_at(cache, run->rack);
        top = rack->top;
        room = (uint32_t)(rack->end - top);
        if (count > room)
                count = room;
        while (done < count && (n = win_some(run, buffers + done, count - done, top + done)) > 0)
                done += n;
        if (done > 0)
                rack->top = top + done;
        cache_leave(cache);
        return done;
}

/* Into the depot, up to a batch. Returns: how many. */
static uint32_t to_depot(struct span *first, struct run *run, void *const *buffers, uint32_t count)
{
        struct entry batch[BATCH];
        uint32_t done = 0, n;

        if (count > BATCH)
                count = BATCH;
        while (done < count && (n = win_some(run, buffers + done, count - done, batch + done)) > 0)
                done += n;
        if (done > 0)
                release_batch(first, batch, done);
        return done;
}

int lido_buffer_release_bulk(void *const *buffers, uint32_t count)
{
        int first = LIDO_OK, rc;
        uint32_t done = 0, n;

        if (!buffers)
                return LIDO_EINVAL;
        while (done < count) {
                struct span *span = span_of(buffers[done]);

                n = 0;
                if (likely(span && !span->pool->checks)) {
                        struct run run = {.pool = span->pool, .rack = span->rack};

                        n = to_rack(cache_slots[span->slot], &run, buffers + done, count - done);
                        if (n == 0)
                                n = to_depot(span, &run, buffers + done, count - done);
                }
                done += n;
                if (n > 0)
                        continue;
                rc = lido_buffer_release_at(buffers[done++], "bulk");
                if (first == LIDO_OK)
                        first = rc;
        }
        return first;
}
