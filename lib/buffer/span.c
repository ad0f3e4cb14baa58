#include "buffer/span.h"

#include <string.h>

#include "base/assert.h"
#include "base/mem.h"
#include "buffer/debug.h"
#include "buffer/os.h"
#include "buffer/pool.h"

/* ---- metadata: structs of spans, recycled and never freed ---- */

#define FINE_BUCKETS 16
#define BUCKETS (FINE_BUCKETS + 4 * 18)
#define CHUNK_BYTES ((size_t)65536)

_Atomic(struct map_leaf *) span_map[MAP_LEAF];

static struct mutex map_lock = MUTEX_INIT; /* for new leaves, and the metadata below */
static struct list recycled[BUCKETS];      /* guarded by map_lock; linked by span->link */
static char *chunk;                        /* guarded by map_lock */
static size_t chunk_left;                  /* guarded by map_lock */

void span_fork_lock(void) NO_THREAD_SAFETY
{
        mutex_lock(&map_lock);
}

void span_fork_unlock(void) NO_THREAD_SAFETY
{
        mutex_unlock(&map_lock);
}

/* Sizes by 64 bytes up to 1 KiB, where single buffers and small spans are, then four a doubling. */
static size_t bucket_bytes(uint32_t bucket)
{
        uint32_t beyond = bucket - FINE_BUCKETS;

        return bucket < FINE_BUCKETS ? (bucket + 1) * (size_t)64 : (size_t)(256 * (5 + beyond % 4)) << beyond / 4;
}

static uint32_t bucket_of(size_t bytes)
{
        uint32_t bucket = 0;

        while (bucket < BUCKETS && bucket_bytes(bucket) < bytes)
                bucket++;
        return bucket;
}

static struct span *recycle_locked(uint32_t bucket) REQUIRES(map_lock)
{
        struct list *link;

        if (!recycled[bucket].next || !(link = list_front(&recycled[bucket])))
                return NULL;
        list_unlink(link);
        return list_entry(link, struct span, link);
}

/* Returns: NULL when the chunk has too little left. */
static struct span *cut_locked(size_t bytes) REQUIRES(map_lock)
{
        struct span *span = NULL;

        if (chunk_left >= bytes) {
                span = (struct span *)(void *)chunk;
                chunk += bytes;
                chunk_left -= bytes;
        }
        return span;
}

/* A span struct with room for its states. */
static struct span *struct_new(size_t state_bytes)
{
        uint32_t bucket = bucket_of(sizeof(struct span) + state_bytes);
        size_t bytes = bucket_bytes(bucket);
        struct span *span;
        char *fresh = NULL;

        if (bucket >= BUCKETS)
                return NULL;
        for (;;) {
                mutex_lock(&map_lock);
                span = recycle_locked(bucket);
                if (!span)
                        span = cut_locked(bytes);
                if (!span && fresh) {
                        chunk = fresh;
                        chunk_left = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
                        fresh = NULL;
                        span = cut_locked(bytes);
                }
                mutex_unlock(&map_lock);
                if (span)
                        break;
                fresh = mem_zalloc_aligned(64, bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES);
                if (!fresh)
                        return NULL;
        }
        mem_free(fresh);
        span->bucket = (uint8_t)bucket;
        return span;
}

static void struct_free(struct span *span)
{
        mutex_lock(&map_lock);
        if (!recycled[span->bucket].next)
                list_init(&recycled[span->bucket]);
        list_init(&span->link);
        list_push_front(&recycled[span->bucket], &span->link);
        mutex_unlock(&map_lock);
}

/* ---- the map ---- */

/* Returns: false when there is no memory for a leaf. */
static bool leaf_ensure(uintptr_t address)
{
        _Atomic(struct map_leaf *) *place = &span_map[address >> (12 + MAP_BITS)];
        struct map_leaf *fresh, *seen = NULL;

        if (load_acquire(place))
                return true;
        fresh = os_reserve(sizeof *fresh);
        if (!fresh)
                return false;
        if (!cas_acq_rel(place, &seen, fresh))
                os_unreserve(fresh, sizeof *fresh);
        return true;
}

/* Of a single buffer only the first page is on the map: no release can name another. */
static uintptr_t mapped_end(const struct span *span)
{
        return span->count == 1 ? span->base + 1 : span->base + (size_t)span->count * span->bytes;
}

static void map_store(struct span *span, struct span *value)
{
        for (uintptr_t a = span->base & ~(PAGE_BYTES - 1); a < mapped_end(span); a += PAGE_BYTES)
                store_release(
                        &load_acquire(&span_map[a >> (12 + MAP_BITS)])->span[(a >> 12) & (MAP_LEAF - 1)],
                        value);
}

static bool map_enter(struct span *span)
{
        uintptr_t end = mapped_end(span);

        if (end >> (12 + 2 * MAP_BITS) != 0 || !leaf_ensure(span->base) || !leaf_ensure(end - 1))
                return false;
        map_store(span, span);
        return true;
}

/* ---- the cap ---- */

/* Charge up to `count` buffers. Returns: how many there is room for. */
static uint32_t charge(struct lido_buffer_pool *pool, uint32_t count, size_t bytes)
{
        size_t seen = load_relaxed(&pool->mapped_bytes);

        for (;;) {
                size_t room = pool->max_bytes - seen;
                uint32_t fit = room / bytes < count ? (uint32_t)(room / bytes) : count;

                if (fit == 0 || cas_relaxed(&pool->mapped_bytes, &seen, seen + fit * bytes))
                        return fit;
        }
}

static void uncharge(struct lido_buffer_pool *pool, uint32_t count, size_t bytes)
{
        sub_relaxed(&pool->mapped_bytes, count * bytes);
}

/* ---- life ---- */

/* Two threads that use neighbours must not write to one cache line with each pair: it would cost four times the pair.
 * Up to a line for each state, but no more than a 32nd of what the buffer takes (a 16th and an eighth of the smallest):
 * then a batch of 32, which is what a cache fetches of small ones, has lines of its own. */
static uint32_t span_stride(size_t bytes, uint32_t count)
{
        uint32_t stride = 1;

        if (count == 1)
                return 0;
        while (stride < 6 && ((size_t)64 << stride) <= bytes)
                stride++;
        return stride;
}

static struct span *set_up(struct lido_buffer_pool *pool, uint32_t class_index, size_t bytes, uint32_t count)
{
        uint32_t states = count + (uint32_t)(PAGE_BYTES / bytes) + 1;
        uint32_t stride = span_stride(bytes, count);
        struct span *span = struct_new((size_t)states << stride);

        if (!span)
                return NULL;
        span->bytes = bytes;
        span->count = count;
        span->reciprocal = count == 1 ? 0 : (uint32_t)((UINT64_C(1) << 32) / bytes + 1);
        span->pool = pool;
        span->flags = 0;
        span->class_index = (uint8_t)class_index;
        span->rack = RACK_OFFSET(class_index == CLASS_HUGE ? pool->class_count : class_index);
        span->slot = (uint8_t)pool->slot;
        span->stride = (uint8_t)stride;
        list_init(&span->link);
        list_init(&span->member);
        span->free = count;
        span->kept = 0;
        span->hint = 0;
        span->stamp = 0;
        span->detached = 0;
        for (size_t i = 0; i < (size_t)states << stride; i++) /* between the states, too */
                store_relaxed(&span->state[i], STATE_NONE);
        for (uint32_t i = 0; i < count; i++)
                store_relaxed(span_state_at(span, i), STATE_CLEAN);
        return span;
}

/* The lock of the list of all spans of its kind. */
static struct mutex *lock_of(struct lido_buffer_pool *pool, const struct span *span)
{
        return span->class_index == CLASS_HUGE ? &pool->huge_lock : &pool->classes[span->class_index].lock;
}

static void enter(struct lido_buffer_pool *pool, struct span *span) NO_THREAD_SAFETY
{
        mutex_lock(lock_of(pool, span));
        list_push_back(span->class_index == CLASS_HUGE ? &pool->huge_all
                                                       : &pool->classes[span->class_index].all,
                       &span->member);
        mutex_unlock(lock_of(pool, span));
        add_relaxed(&pool->refs, 1);
        add_relaxed(&pool->spans, 1);
        if (span->class_index == CLASS_HUGE)
                add_relaxed(&pool->huge_bytes, span->bytes);
        add_relaxed(&pool->grown, 1);
        add_relaxed(&pool->grown_bytes, span->region_bytes);
}

int span_new(struct lido_buffer_pool *pool, uint32_t class_index, size_t bytes, struct span **ret_span)
{
        uint32_t wanted = class_index == CLASS_HUGE ? 1 : pool->classes[class_index].span_count;
        uint32_t count = charge(pool, wanted, bytes);
        struct span *span;
        size_t guard;

        if (count == 0)
                return LIDO_EEXHAUSTED;
        span = set_up(pool, class_index, bytes, count);
        if (!span)
                goto uncharge;
        guard = pool->checks & CHECK_GUARD ? PAGE_BYTES : 0;
        span->region_bytes = ((count * bytes + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1)) + 2 * guard;
        span->region = region_map(pool, span->region_bytes, pool->alignment);
        if (!span->region)
                goto free_struct;
        span->base = (uintptr_t)span->region;
        if (guard)
                span->base +=
                        span->region_bytes - guard - bytes; /* so that an overrun meets the page behind */
        if (!map_enter(span))
                goto unmap;
        if (pool->checks)
                debug_region_new(span);
        enter(pool, span);
        *ret_span = span;
        return LIDO_OK;
unmap:
        region_unmap(pool, span->region, span->region_bytes);
free_struct:
        struct_free(span);
uncharge:
        uncharge(pool, count, bytes);
        return LIDO_ENOMEM;
}

int span_adopt(struct lido_buffer_pool *pool, void *memory, size_t bytes, struct span **ret_span)
{
        size_t boundary = pool->alignment > PAGE_BYTES ? pool->alignment : PAGE_BYTES;
        uintptr_t start = ((uintptr_t)memory + boundary - 1) & ~(uintptr_t)(boundary - 1);
        uintptr_t end = ((uintptr_t)memory + bytes) & ~(uintptr_t)(PAGE_BYTES - 1);
        size_t each = pool->classes[0].bytes;
        struct span *span;
        uint32_t count;

        if (end <= start || (end - start) / each == 0)
                return LIDO_EINVAL;
        if ((end - start) / each > ((size_t)1 << 20))
                return LIDO_EINVAL;
        count = charge(pool, (uint32_t)((end - start) / each), each);
        if (count == 0)
                return LIDO_EEXHAUSTED;
        span = set_up(pool, 0, each, count);
        if (!span)
                goto uncharge;
        span->region = (void *)start;
        span->region_bytes = count * each;
        span->base = start;
        span->flags |= SPAN_CALLERS;
        if (!map_enter(span))
                goto free_struct;
        if (pool->checks)
                debug_region_new(span);
        enter(pool, span);
        *ret_span = span;
        return LIDO_OK;
free_struct:
        struct_free(span);
uncharge:
        uncharge(pool, count, each);
        return LIDO_ENOMEM;
}

static void leave(struct lido_buffer_pool *pool, struct span *span) NO_THREAD_SAFETY
{
        mutex_lock(lock_of(pool, span));
        list_unlink(&span->member);
        mutex_unlock(lock_of(pool, span));
        sub_relaxed(&pool->mapped_bytes, span->count * span->bytes);
        if (span->class_index == CLASS_HUGE)
                sub_relaxed(&pool->huge_bytes, span->bytes);
}

static void destruct(struct span *span)
{
        const struct lido_buffer_options *o = &span->pool->options;

        if (!o->destruct)
                return;
        for (uint32_t i = 0; i < span->count; i++)
                if (load_relaxed(span_state_at(span, i)) == STATE_KEPT)
                        o->destruct(span_buffer(span, i), span->bytes, o->construct_context);
}

void span_end(struct span *span)
{
        struct lido_buffer_pool *pool = span->pool;

        destruct(span);
        for (uint32_t i = 0; i < span->count; i++)
                store_relaxed(span_state_at(span, i), STATE_NONE);
        map_store(span, NULL);
        if (pool->checks)
                debug_region_end(span);
        if (!(span->flags & SPAN_CALLERS)) {
                region_unmap(pool, span->region, span->region_bytes);
                add_relaxed(&pool->returned, 1);
                add_relaxed(&pool->returned_bytes, span->region_bytes);
        }
        leave(pool, span);
        struct_free(span);
        pool_span_gone(pool);
}

/* ---- free buffers of a class's spans ---- */

static uint32_t fullness(const struct span *span)
{
        return span->free == span->count ? FULLNESS - 1 : span->free * (FULLNESS - 1) / span->count;
}

void span_link_locked(struct buffer_class *class, struct span *span)
{
        list_unlink(&span->link);
        if (span->free > 0 && !span->detached)
                list_push_front(&class->spans[fullness(span)], &span->link);
}

/* Move a span to its list if what has changed calls for it. */
static void settle_locked(struct buffer_class *class, struct span *span, uint32_t free_before)
        REQUIRES(class->lock)
{
        uint32_t free_now = span->free;

        span->stamp = class->tick;
        if (free_before > 0 && free_now > 0) {
                uint32_t now = fullness(span), before;

                span->free = free_before;
                before = fullness(span);
                span->free = free_now;
                if (now == before)
                        return;
        }
        span_link_locked(class, span);
}

static uint32_t carve_span_locked(struct buffer_class *class, struct span *span, struct entry *entries,
                                  uint32_t count) REQUIRES(class->lock)
{
        bool constructs = span->pool->options.construct != NULL;
        uint32_t free_before = span->free, got = 0, i;
        uint8_t take = span->kept > 0 ? STATE_KEPT : STATE_CLEAN;

        for (i = span->hint; i < span->count && got < count; i++) {
                uint8_t state = load_relaxed(span_state_at(span, i));

                if (state != take && (take == STATE_KEPT || state != STATE_KEPT))
                        continue;
                entries[got].buffer = span_buffer(span, i);
                entries[got].state = span_state_at(span, i);
                got++;
                span->free--;
                if (state == STATE_KEPT)
                        span->kept--;
                store_relaxed(span_state_at(span, i), state == STATE_CLEAN && constructs ? STATE_RAW : STATE_CACHED);
        }
        if (take == STATE_CLEAN)
                span->hint = i;
        settle_locked(class, span, free_before);
        return got;
}

uint32_t span_carve_locked(struct buffer_class *class, struct entry *entries, uint32_t count)
{
        uint32_t got = 0;

        for (uint32_t f = 0; f < FULLNESS && got < count;) {
                struct list *link = list_front(&class->spans[f]);

                if (!link) {
                        f++;
                        continue;
                }
                got += carve_span_locked(class, list_entry(link, struct span, link), entries + got,
                                         count - got);
        }
        return got;
}

void span_give_back_locked(struct buffer_class *class, const struct entry *entry, enum buffer_state state)
{
        struct span *span = span_of(entry->buffer);
        uint32_t free_before = span->free, i = span_number_of(span, entry->state);

        debug_assert(load_relaxed(entry->state) == STATE_CACHED || load_relaxed(entry->state) == STATE_RAW);
        store_relaxed(entry->state, (uint8_t)state);
        span->free++;
        if (state == STATE_KEPT)
                span->kept++;
        if (i < span->hint)
                span->hint = i;
        settle_locked(class, span, free_before);
}

/* ---- purge ---- */

/* Whole pages inside a run of free buffers go; the buffers whose every byte is gone become CLEAN. As the span
 * is detached nobody takes its free buffers meanwhile; others may become free, and are left for the next
 * time. */
static size_t purge_run(struct span *span, uint32_t from, uint32_t to, uint32_t *ret_cleaned)
{
        uintptr_t begin = span->base + (size_t)from * span->bytes,
                  end = span->base + (size_t)to * span->bytes;
        uintptr_t first = (begin + PAGE_BYTES - 1) & ~(uintptr_t)(PAGE_BYTES - 1),
                  last = end & ~(uintptr_t)(PAGE_BYTES - 1);

        if (to == span->count) /* the rest of the region is nobody's */
                last = (uintptr_t)span->region + span->region_bytes;
        if (first >= last || !region_purge(span->pool, (void *)first, last - first))
                return 0;
        for (uint32_t i = from; i < to; i++) {
                uintptr_t a = span->base + (size_t)i * span->bytes;

                if (a >= first && a + span->bytes <= last && load_relaxed(span_state_at(span, i)) == STATE_KEPT) {
                        store_relaxed(span_state_at(span, i), STATE_CLEAN);
                        (*ret_cleaned)++;
                }
        }
        return last - first;
}

size_t span_purge(struct span *span, uint32_t *ret_cleaned)
{
        uint32_t cleaned = 0, from = 0;
        size_t bytes = 0;

        *ret_cleaned = 0;
        if ((span->flags & SPAN_CALLERS) || span->pool->options.construct ||
            span->pool->checks & CHECK_POISON)
                return 0;
        while (from < span->count) {
                bool warm = false;
                uint32_t to = from;

                for (; to < span->count; to++) {
                        uint8_t state = load_relaxed(span_state_at(span, to));

                        if (state != STATE_KEPT && state != STATE_CLEAN)
                                break;
                        warm |= state == STATE_KEPT;
                }
                if (warm)
                        bytes += purge_run(span, from, to, &cleaned);
                from = to + 1;
        }
        if (bytes) {
                add_relaxed(&span->pool->returned, 1);
                add_relaxed(&span->pool->returned_bytes, bytes);
        }
        *ret_cleaned = cleaned;
        return bytes;
}

void span_attach_locked(struct buffer_class *class, struct span *span, uint32_t cleaned)
{
        span->kept -= cleaned;
        span->detached = 0;
        span->stamp = class->tick;
        span_link_locked(class, span);
}
