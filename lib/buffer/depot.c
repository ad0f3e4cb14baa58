#include "buffer/depot.h"

#include <string.h>

#include "base/assert.h"
#include "buffer/cache.h"
#include "buffer/decay.h"
#include "buffer/huge.h"
#include "buffer/span.h"
#include "buffer/line.h"

/* ---- constructed state ---- */

/* Entries that came RAW are constructed; those that refuse go back. Returns: how many entries are good, in
 * front. */
static uint32_t construct(struct lido_buffer_pool *pool, uint32_t class_index, struct entry *entries,
                          uint32_t count)
{
        const struct lido_buffer_options *o = &pool->options;
        struct buffer_class *class = &pool->classes[class_index];
        uint32_t good = 0;

        for (uint32_t i = 0; i < count; i++) {
                struct entry e = entries[i];

                if (load_relaxed(e.state) == STATE_RAW) {
                        if (o->construct(e.buffer, class->bytes, o->construct_context) != 0) {
                                mutex_lock(&class->lock);
                                span_give_back_locked(class, &e, STATE_CLEAN);
                                mutex_unlock(&class->lock);
                                continue;
                        }
                        store_relaxed(e.state, STATE_CACHED);
                }
                entries[good++] = e;
        }
        return good;
}

/* ---- take and put ---- */

/* A trip lasts some 50 ns, falling asleep and being woken 5 us: look for so long before. */
#define LOOKS 256

static inline void trip_lock(struct buffer_class *class) ACQUIRES(class->lock)
{
        for (int i = 0; i < LOOKS && load_relaxed(&class->held); i++)
                cpu_relax();
        mutex_lock(&class->lock);
        store_relaxed(&class->held, 1);
        class->contended++;
}

static inline void trip_unlock(struct buffer_class *class) RELEASES(class->lock)
{
        store_relaxed(&class->held, 0);
        mutex_unlock(&class->lock);
}

static uint32_t pop_locked(struct buffer_class *class, struct entry *entries, uint32_t count)
        REQUIRES(class->lock)
{
        uint32_t n = count < class->count ? count : class->count;

        class->count -= n;
        if (n)
                memcpy(entries, &class->entries[class->count], n * sizeof *entries);
        if (class->count < class->low)
                class->low = class->count;
        return n;
}

static uint32_t take(struct buffer_class *class, struct entry *entries, uint32_t count)
{
        uint32_t got;

        trip_lock(class);
        got = pop_locked(class, entries, count);
        if (got < count)
                got += span_carve_locked(class, entries + got, count - got);
        trip_unlock(class);
        return got;
}

uint32_t depot_take(struct lido_buffer_pool *pool, uint32_t class_index, struct entry *entries,
                    uint32_t count)
{
        uint32_t got = take(&pool->classes[class_index], entries, count);

        return pool->options.construct ? construct(pool, class_index, entries, got) : got;
}

void depot_put(struct lido_buffer_pool *pool, uint32_t class_index, const struct entry *entries,
               uint32_t count)
{
        struct buffer_class *class = &pool->classes[class_index];
        uint32_t fit;

        trip_lock(class);
        fit = count < DEPOT_MAX - class->count ? count : DEPOT_MAX - class->count;
        for (uint32_t i = 0; i < count - fit; i++)
                span_give_back_locked(class, &entries[i], STATE_KEPT);
        memcpy(&class->entries[class->count], &entries[count - fit], fit * sizeof *entries);
        class->count += fit;
        trip_unlock(class);
        decay_arm(pool); /* whoever puts down, a waiter too who came too late for what he was given */
}

/* ---- the ladder ---- */

/* A new span for the class, whose first buffers are the caller's. Returns: how many; or LIDO_EEXHAUSTED,
 * LIDO_ENOMEM. */
static int grow(struct lido_buffer_pool *pool, uint32_t class_index, struct entry *entries, uint32_t count)
{
        struct buffer_class *class = &pool->classes[class_index];
        struct span *span;
        uint32_t got;
        int rc;

        if (pool->flags & LIDO_BUFFER_CALLER_MEMORY)
                return LIDO_EEXHAUSTED;
        rc = span_new(pool, class_index, class->bytes, &span);
        if (rc != LIDO_OK)
                return rc;
        mutex_lock(&class->lock);
        span->stamp = class->tick;
        span_link_locked(class, span);
        got = span_carve_locked(class, entries, count);
        mutex_unlock(&class->lock);
        if (pool->options.construct && got > 0) {
                got = construct(pool, class_index, entries, got);
                if (got == 0)
                        return LIDO_EFACTORY;
        }
        return (int)got; /* 0: others were quicker */
}

/* The cap is reached, or memory: empty the caches, and give back what other classes keep until there is room.
 */
static bool reclaim(struct lido_buffer_pool *pool, uint32_t class_index, size_t bytes)
{
        size_t freed = 0;

        if (cache_collect_all(pool) > 0)
                freed = 1;
        for (uint32_t c = 0; c < pool->class_count && freed < bytes; c++)
                if (c != class_index)
                        freed += depot_shed(pool, c, UINT32_MAX, 0);
        if (freed < bytes)
                freed += huge_shed(pool, 0);
        return freed > 0;
}

static int from_reserve(struct lido_buffer_pool *pool, struct entry *entry)
{
        struct buffer_class *class = &pool->classes[0];
        bool raise = false;
        int got = 0;

        if (pool->reserve_target == 0)
                return 0;
        mutex_lock(&class->lock);
        if (pool->reserve_count > 0) {
                *entry = pool->reserve[--pool->reserve_count];
                got = 1;
                raise = !pool->reserve_short;
                pool->reserve_short = true;
        }
        mutex_unlock(&class->lock);
        if (raise)
                attention_raise(pool);
        if (got)
                add_relaxed(&pool->from_reserve, 1);
        return got;
}

/* Returns: true when the entry went to the reserve. */
static bool to_reserve(struct lido_buffer_pool *pool, const struct entry *entry)
{
        struct buffer_class *class = &pool->classes[0];
        bool taken = false, drop = false;

        if (pool->reserve_target == 0)
                return false;
        mutex_lock(&class->lock);
        if (pool->reserve_count < pool->reserve_target) {
                pool->reserve[pool->reserve_count++] = *entry;
                taken = true;
                drop = pool->reserve_short && pool->reserve_count == pool->reserve_target;
                if (drop)
                        pool->reserve_short = false;
        }
        mutex_unlock(&class->lock);
        if (drop)
                attention_drop(pool);
        return taken;
}

static int supply_class(struct lido_buffer_pool *pool, uint32_t class_index, struct entry *entries,
                        uint32_t count)
{
        size_t bytes = pool->classes[class_index].bytes;
        bool reclaimed = false;
        int rc;

        for (;;) {
                rc = (int)depot_take(pool, class_index, entries, count);
                if (rc > 0)
                        return rc;
                rc = grow(pool, class_index, entries, count);
                if (rc > 0 || rc == LIDO_EFACTORY)
                        return rc;
                if (rc == 0)
                        continue;
                if (reclaimed || !reclaim(pool, class_index, bytes))
                        break;
                reclaimed = true;
        }
        return from_reserve(pool, entries) ? 1 : rc;
}

int depot_supply(struct lido_buffer_pool *pool, uint32_t class_index, size_t bytes, struct entry *entries,
                 uint32_t count)
{
        int rc;

        if (class_index != CLASS_HUGE)
                return supply_class(pool, class_index, entries, count);
        rc = huge_take(pool, bytes, entries);
        if (rc != LIDO_EEXHAUSTED && rc != LIDO_ENOMEM)
                return rc;
        return reclaim(pool, CLASS_HUGE, bytes) ? huge_take(pool, bytes, entries) : rc;
}

/* The target is set last: until then there is no reserve to fall back on. */
int depot_fill_reserve(struct lido_buffer_pool *pool, uint32_t target)
{
        while (pool->reserve_count < target) {
                struct entry e;
                int rc = supply_class(pool, 0, &e, 1);

                if (rc < 0)
                        return rc;
                pool->reserve[pool->reserve_count++] = e;
        }
        pool->reserve_target = target;
        return LIDO_OK;
}

void depot_return(struct lido_buffer_pool *pool, uint32_t class_index, const struct entry *entry)
{
        if (class_index == CLASS_HUGE)
                huge_put(pool, entry);
        else if (load_acquire(&pool->closed))
                depot_give_back(pool, class_index, entry, 1);
        else if (to_reserve(pool, entry))
                ;
        else if (pool->options.mode == LIDO_BUFFER_MODE_RESERVE)
                depot_give_back(pool, class_index, entry, 1);
        else
                depot_put(pool, class_index, entry, 1);
}

/* ---- back to the source ---- */

#define SHED_BATCH 32

/* Unlink up to SHED_BATCH spans that are free as a whole. Returns: how many. */
static uint32_t pick_free_locked(struct buffer_class *class, struct span **spans, uint32_t age)
        REQUIRES(class->lock)
{
        uint32_t n = 0;

        list_for_each_safe(it, &class->spans[FULLNESS - 1])
        {
                struct span *span = list_entry(it, struct span, link);

                if (n == SHED_BATCH)
                        break;
                if (class->tick - span->stamp < age)
                        continue;
                if (span->flags & SPAN_CALLERS && !load_acquire(&span->pool->closed))
                        continue;
                list_unlink(&span->link);
                spans[n++] = span;
        }
        return n;
}

static size_t end_free_spans(struct buffer_class *class, uint32_t age)
{
        struct span *spans[SHED_BATCH];
        size_t bytes = 0;
        uint32_t n;

        do {
                mutex_lock(&class->lock);
                n = pick_free_locked(class, spans, age);
                mutex_unlock(&class->lock);
                for (uint32_t i = 0; i < n; i++) {
                        bytes += spans[i]->region_bytes;
                        span_end(spans[i]);
                }
        } while (n == SHED_BATCH);
        return bytes;
}

/* Detach up to SHED_BATCH spans with warm free buffers. Returns: how many. */
static uint32_t pick_warm_locked(struct buffer_class *class, struct span **spans, uint32_t age)
        REQUIRES(class->lock)
{
        uint32_t n = 0;

        for (uint32_t f = 0; f < FULLNESS; f++)
                list_for_each_safe(it, &class->spans[f])
                {
                        struct span *span = list_entry(it, struct span, link);

                        if (n == SHED_BATCH)
                                return n;
                        if (span->kept == 0 || class->tick - span->stamp < age ||
                            (span->flags & SPAN_CALLERS))
                                continue;
                        list_unlink(&span->link);
                        span->detached = 1;
                        spans[n++] = span;
                }
        return n;
}

/* Each span is purged at most once a call: attaching makes its stamp new, and with age 0 a span that could
 * not be cleaned would come again. */
static size_t purge_spans(struct buffer_class *class, uint32_t age)
{
        struct span *spans[SHED_BATCH];
        uint32_t cleaned[SHED_BATCH], n;
        size_t bytes = 0, gone;

        if (class->bytes > SINGLE_FROM)
                return 0;
        do {
                mutex_lock(&class->lock);
                n = pick_warm_locked(class, spans, age);
                mutex_unlock(&class->lock);
                gone = 0;
                for (uint32_t i = 0; i < n; i++)
                        gone += span_purge(spans[i], &cleaned[i]);
                mutex_lock(&class->lock);
                for (uint32_t i = 0; i < n; i++)
                        span_attach_locked(class, spans[i], cleaned[i]);
                mutex_unlock(&class->lock);
                bytes += gone;
        } while (n == SHED_BATCH && gone > 0);
        return bytes;
}

size_t depot_give_back(struct lido_buffer_pool *pool, uint32_t class_index, const struct entry *entries,
                       uint32_t count)
{
        struct buffer_class *class = &pool->classes[class_index];

        mutex_lock(&class->lock);
        for (uint32_t i = 0; i < count; i++)
                span_give_back_locked(class, &entries[i], STATE_KEPT);
        mutex_unlock(&class->lock);
        return end_free_spans(class, 0);
}

size_t depot_shed(struct lido_buffer_pool *pool, uint32_t class_index, uint32_t count, uint32_t age)
{
        struct buffer_class *class = &pool->classes[class_index];
        size_t bytes;

        mutex_lock(&class->lock);
        if (count > class->count)
                count = class->count;
        for (uint32_t i = 0; i < count; i++) {
                span_give_back_locked(class, &class->entries[i], STATE_KEPT);
                if (age > 0)
                        span_of(class->entries[i].buffer)->stamp -=
                                age; /* it has stood in the depot for that long */
        }
        class->count -= count;
        memmove(class->entries, class->entries + count, class->count * sizeof *class->entries);
        if (class->count < class->low)
                class->low = class->count;
        mutex_unlock(&class->lock);
        bytes = end_free_spans(class, age);
        return bytes + purge_spans(class, age);
}

/* A span that is free as a whole counts, though all of it be clean: it was being purged while a trim ended those that it found. */
static bool any_kept_locked(struct buffer_class *class) REQUIRES(class->lock)
{
        if (class->count > 0)
                return true;
        list_for_each(it, &class->spans[FULLNESS - 1])
        {
                if (!(list_entry(it, struct span, link)->flags & SPAN_CALLERS))
                        return true;
        }
        for (uint32_t f = 0; f < FULLNESS; f++)
                list_for_each(it,
                              &class->spans[f]) if (list_entry(it, struct span, link)->kept > 0) return true;
        return false;
}

bool depot_any_kept(struct lido_buffer_pool *pool, uint32_t class_index)
{
        struct buffer_class *class = &pool->classes[class_index];
        bool any;

        mutex_lock(&class->lock);
        any = any_kept_locked(class);
        mutex_unlock(&class->lock);
        return any;
}

uint32_t depot_tick(struct lido_buffer_pool *pool, uint32_t class_index, bool *ret_left)
{
        struct buffer_class *class = &pool->classes[class_index];
        uint32_t unused;

        mutex_lock(&class->lock);
        unused = class->low;
        class->low = class->count;
        class->tick++;
        if (any_kept_locked(class))
                *ret_left = true;
        mutex_unlock(&class->lock);
        return unused;
}
