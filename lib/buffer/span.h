/* buffer/span.h - spans: which region a pointer lies in, and the buffers of a region that no depot has.
 *
 * The map from addresses to spans has two levels over 48 bits of address, one word for each page of 4096
 * bytes, and is read without a lock. A span that ends leaves the map first; its struct is recycled for other
 * spans and never freed, so that a release of a pointer long dead reads a state byte that says no, and never
 * memory that is not there.
 */
#ifndef LIDO_BUFFER_SPAN_H
#define LIDO_BUFFER_SPAN_H

#include "buffer/types.h"

#define MAP_BITS 18
#define MAP_LEAF ((size_t)1 << MAP_BITS)

struct map_leaf {
        _Atomic(struct span *) span[MAP_LEAF];
};
extern _Atomic(struct map_leaf *) span_map[MAP_LEAF] __attribute__((visibility("hidden")));

/* The span that has this address on one of its pages; NULL when none. Any pointer may be asked about. Hot. */
static inline struct span *span_of(const void *pointer)
{
        uintptr_t a = (uintptr_t)pointer;
        struct map_leaf *leaf;

        if (unlikely(a >> (12 + MAP_BITS) >= MAP_LEAF))
                return NULL;
        leaf = load_acquire(&span_map[a >> (12 + MAP_BITS)]);
        if (unlikely(!leaf))
                return NULL;
        return load_acquire(&leaf->span[(a >> 12) & (MAP_LEAF - 1)]);
}

/* Which buffer of the span begins at this address on its pages; UINT64_MAX when none does. It may be one or
 * some beyond count, in the rest of the last page, where every state is NONE. Hot. */
static inline uint64_t span_index(const struct span *span, const void *pointer)
{
        uintptr_t off = (uintptr_t)pointer - span->base;
        uint64_t i = off * (uint64_t)span->reciprocal >> 32;

        return likely(i * span->bytes == off) ? i : UINT64_MAX;
}

/* The state of a buffer by its number. Hot. */
static inline state_byte *span_state_at(struct span *span, uint64_t i)
{
        return &span->state[i << span->stride];
}

/* Does a word of eight bytes begin here? */
static inline bool span_is_word(const state_byte *state)
{
        return ((uintptr_t)state & 7) == 0;
}

static inline uint32_t span_number_of(const struct span *span, const state_byte *state)
{
        return (uint32_t)((size_t)(state - span->state) >> span->stride);
}

/* The state of the buffer that begins at this address of the span; NULL when none does. */
static inline state_byte *span_state(struct span *span, const void *pointer)
{
        uint64_t i = span_index(span, pointer);

        return i < span->count ? span_state_at(span, i) : NULL;
}

static inline void *span_buffer(struct span *span, uint32_t i)
{
        return (void *)(span->base + (size_t)i * span->bytes);
}

/* A new span for a class, or with CLASS_HUGE one buffer of `bytes`; all its buffers are CLEAN. It is charged
 * to the cap, on the map, and in no list. No lock held. Returns: LIDO_OK; LIDO_EEXHAUSTED at the cap;
 * LIDO_ENOMEM. */
int span_new(struct lido_buffer_pool *pool, uint32_t class_index, size_t bytes, struct span **ret_span);

/* The same over the caller's memory. Returns: LIDO_OK; LIDO_EINVAL when no buffer fits; LIDO_EEXHAUSTED;
 * LIDO_ENOMEM. */
int span_adopt(struct lido_buffer_pool *pool, void *memory, size_t bytes, struct span **ret_span);

/* End a span without lent or cached buffers that is in no list: destruct, unmap, uncharge, drop the pool's
 * reference. No lock held; the pool may be gone on return unless the caller has a reference of its own. */
void span_end(struct span *span);

/* Put a span with free buffers into the class's lists, in its place. */
void span_link_locked(struct buffer_class *class, struct span *span) REQUIRES(class->lock);

/* Take up to `count` free buffers out of the class's spans, fullest first. Returns: how many. Those of a pool
 * that constructs come as RAW when nobody has constructed them. */
uint32_t span_carve_locked(struct buffer_class *class, struct entry *entries, uint32_t count)
        REQUIRES(class->lock);

/* A cached buffer goes back to its span. */
void span_give_back_locked(struct buffer_class *class, const struct entry *entry, enum buffer_state state)
        REQUIRES(class->lock);

/* Drop the memory behind the free pages of a span, which is out of the lists (detached). No lock held.
 * Returns: the bytes dropped. The caller puts the span back with span_attach_locked. */
size_t span_purge(struct span *span, uint32_t *ret_cleaned);
void span_attach_locked(struct buffer_class *class, struct span *span, uint32_t cleaned)
        REQUIRES(class->lock);

/* Around fork(2): the map is in order in the child. */
void span_fork_lock(void);
void span_fork_unlock(void);

#endif
