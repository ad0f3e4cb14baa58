#include "buffer/classes.h"

#include <string.h>

#include "base/assert.h"

#define SMALLEST ((size_t)16)
#define FIXED_LARGEST ((size_t)1 << 30) /* of a pool with one size; sizes[] has 32 bits */

static size_t round_up(size_t bytes, size_t to)
{
        return (bytes + to - 1) / to * to;
}

/* A class that is cut from a span follows the next at its own size, so it must keep the alignment; a single
 * one fills pages. */
static size_t class_size(const struct lido_buffer_pool *pool, size_t bytes)
{
        bytes = round_up(bytes, pool->alignment);
        return bytes > SINGLE_FROM ? round_up(bytes, PAGE_BYTES) : bytes;
}

/* Insert a size in order, once. Returns: false when there is no room. */
static bool add(struct lido_buffer_pool *pool, size_t bytes)
{
        uint32_t i = 0;

        bytes = class_size(pool, bytes);
        while (i < pool->class_count && pool->sizes[i] < bytes)
                i++;
        if (i < pool->class_count && pool->sizes[i] == bytes)
                return true;
        if (pool->class_count == CLASSES_MAX)
                return false;
        memmove(&pool->sizes[i + 1], &pool->sizes[i], (pool->class_count - i) * sizeof pool->sizes[0]);
        pool->sizes[i] = (uint32_t)bytes;
        pool->class_count++;
        return true;
}

static bool add_geometric(struct lido_buffer_pool *pool, size_t largest, uint32_t per_doubling)
{
        for (size_t base = SMALLEST; base < largest; base *= 2) {
                size_t step = base / per_doubling < SMALLEST ? SMALLEST : base / per_doubling;

                for (size_t bytes = base; bytes < 2 * base && bytes < largest; bytes += step)
                        if (!add(pool, bytes))
                                return false;
        }
        return add(pool, largest);
}

static void fill_map(struct lido_buffer_pool *pool)
{
        uint32_t c = 0, ranges = class_range(pool->largest) + 1;

        lido_assert(ranges <= sizeof pool->map);
        for (uint32_t r = 0; r < ranges; r++) {
                uint32_t lg = (r >> 3) + 3;
                size_t least = r <= 7 ? 1 : ((size_t)(8 + (r & 7)) << (lg - 3)) + 1;

                while (c + 1 < pool->class_count && pool->sizes[c] < least)
                        c++;
                pool->map[r] = (uint8_t)c;
        }
}

int classes_init(struct lido_buffer_pool *pool)
{
        const struct lido_buffer_options *o = &pool->options;
        size_t largest = o->largest_bytes ? o->largest_bytes : (size_t)1 << 20;
        uint32_t per = o->per_doubling ? o->per_doubling : 4;

        if (o->buffer_bytes != 0) {
                if (o->buffer_bytes > FIXED_LARGEST || o->named_count || o->largest_bytes || o->per_doubling)
                        return LIDO_EINVAL;
                if (!add(pool, o->buffer_bytes))
                        return LIDO_EINVAL;
                pool->only_bytes = pool->largest = pool->sizes[0];
                return LIDO_OK;
        }
        if (largest > CLASS_LARGEST_MAX || largest < SMALLEST ||
            (per != 1 && per != 2 && per != 4 && per != 8) || o->named_count > 16 ||
            (o->named_count && !o->named_bytes))
                return LIDO_EINVAL;
        if (!add_geometric(pool, largest, per))
                return LIDO_EINVAL;
        for (uint32_t i = 0; i < o->named_count; i++)
                if (o->named_bytes[i] == 0 || o->named_bytes[i] > CLASS_LARGEST_MAX ||
                    !add(pool, o->named_bytes[i]))
                        return LIDO_EINVAL;
        pool->largest = pool->sizes[pool->class_count - 1];
        fill_map(pool);
        return LIDO_OK;
}
