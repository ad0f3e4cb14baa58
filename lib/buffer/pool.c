#include "buffer/pool.h"

#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/park.h"
#include "base/sized.h"
#include "buffer/acquire.h"
#include "buffer/asym.h"
#include "buffer/cache.h"
#include "buffer/classes.h"
#include "buffer/debug.h"
#include "buffer/depot.h"
#include "buffer/guard.h"
#include "buffer/huge.h"
#include "buffer/decay.h"
#include "buffer/os.h"
#include "buffer/span.h"
#include "buffer/line.h"

#define FLAGS_ALL 0x1ffu
#define ALIGNMENT_MAX ((size_t)2 << 20)
#define HUGE_SPAN ((size_t)2 << 20)

static _Atomic uint32_t next_slot;

/* ---- end ---- */

static void destroy(struct lido_buffer_pool *pool)
{
        for (uint32_t c = 0; pool->classes && c < pool->class_count; c++)
                mutex_fini(&pool->classes[c].lock);
        debug_fini(pool);
        lido_buffer_pool_free(load_acquire(&pool->counts));
        mutex_fini(&pool->huge_lock);
        mutex_fini(&pool->wait_lock);
        mutex_fini(&pool->guard_lock);
        if (pool->classes)
                os_unreserve(pool->classes[0].entries,
                             (size_t)pool->class_count * DEPOT_MAX * sizeof(struct entry));
        mem_free(pool->classes);
        mem_free(pool->reserve);
        mem_free(pool);
}

void pool_unref(struct lido_buffer_pool *pool)
{
        if (sub_acq_rel(&pool->refs, 1) == 1)
                destroy(pool);
}

/* Who drains sleeps on the count of spans. */
void pool_span_gone(struct lido_buffer_pool *pool)
{
        if (sub_acq_rel(&pool->spans, 1) == 1)
                park_wake(&pool->spans, INT32_MAX);
        pool_unref(pool);
}

/* ---- open ---- */

static uint32_t checks_of(const struct lido_buffer_options *o)
{
        uint32_t checks = 0;

        if (o->flags & LIDO_BUFFER_ZERO_ON_ACQUIRE)
                checks |= CHECK_ZERO_ACQUIRE;
        if (o->flags & LIDO_BUFFER_ZERO_ON_RELEASE)
                checks |= CHECK_ZERO_RELEASE;
        if (o->flags & LIDO_BUFFER_POISON)
                checks |= CHECK_POISON;
        if (o->flags & LIDO_BUFFER_COOKIES)
                checks |= CHECK_COOKIES;
        if (o->flags & LIDO_BUFFER_GUARD)
                checks |= CHECK_GUARD | CHECK_RESERVE;
        if (o->flags & LIDO_BUFFER_LEAKS)
                checks |= CHECK_LEAKS;
        if (!(o->flags & LIDO_BUFFER_NO_TOOLS))
                checks |= debug_tools();
        if (o->mode == LIDO_BUFFER_MODE_RESERVE)
                checks |= CHECK_RESERVE;
        if (!fence_is_asymmetric())
                checks |= CHECK_FENCE;
        return checks;
}

/* What options exclude each other: a constructed state must survive, a guarded buffer is of no class. */
static int validate(const struct lido_buffer_options *o)
{
        const uint32_t changes = LIDO_BUFFER_ZERO_ON_ACQUIRE | LIDO_BUFFER_ZERO_ON_RELEASE |
                                 LIDO_BUFFER_POISON | LIDO_BUFFER_COOKIES | LIDO_BUFFER_GUARD;
        const uint32_t not_guard =
                LIDO_BUFFER_POISON | LIDO_BUFFER_COOKIES | LIDO_BUFFER_CALLER_MEMORY | LIDO_BUFFER_HUGE_PAGES;
        bool fixed = o->buffer_bytes != 0;

        if (o->flags & ~FLAGS_ALL ||
            (o->mode != LIDO_BUFFER_MODE_CACHE && o->mode != LIDO_BUFFER_MODE_RESERVE))
                return LIDO_EINVAL;
        if ((o->alignment_bytes & (o->alignment_bytes - 1)) != 0 || o->alignment_bytes > ALIGNMENT_MAX)
                return LIDO_EINVAL;
        if ((o->reserve || o->construct || o->flags & LIDO_BUFFER_CALLER_MEMORY) && !fixed)
                return LIDO_EINVAL;
        if ((o->mode == LIDO_BUFFER_MODE_RESERVE) != (o->reserve != 0) && o->mode == LIDO_BUFFER_MODE_RESERVE)
                return LIDO_EINVAL;
        if ((o->construct && o->flags & changes) || (o->destruct && !o->construct))
                return LIDO_EINVAL;
        if (o->flags & LIDO_BUFFER_GUARD &&
            (o->flags & not_guard || o->reserve || o->alignment_bytes > PAGE_BYTES))
                return LIDO_EINVAL;
        if (o->acquire_timeout_ms < LIDO_NEVER || o->decay_ms < LIDO_NEVER || o->leak_after_ms < LIDO_NEVER)
                return LIDO_EINVAL;
        if (o->service && o->loop)
                return LIDO_EINVAL;
        if (o->source && (!o->source->map || !o->source->unmap))
                return LIDO_EINVAL;
        return LIDO_OK;
}

static void set_defaults(struct lido_buffer_options *o)
{
        if (o->alignment_bytes < 16)
                o->alignment_bytes = 16;
        if (o->acquire_timeout_ms == 0)
                o->acquire_timeout_ms = 5000;
        if (o->queue_limit == 0)
                o->queue_limit = LIDO_UNLIMITED;
        if (o->cache_bytes == 0)
                o->cache_bytes = (size_t)1 << 20;
        if (o->warm_bytes == 0)
                o->warm_bytes = (size_t)64 << 20;
        if (o->decay_ms == 0)
                o->decay_ms = 1000;
        if (o->leak_sample == 0)
                o->leak_sample = 128;
        if (o->leak_after_ms == 0)
                o->leak_after_ms = LIDO_NEVER;
        if (o->event_mask == 0)
                o->event_mask = LIDO_EVENT_ALL;
}

static uint32_t clamp(size_t value, uint32_t least, uint32_t most)
{
        return value < least ? least : value > most ? most : (uint32_t)value;
}

static void class_init(struct lido_buffer_pool *pool, struct buffer_class *class, size_t bytes)
{
        size_t span = pool->flags & LIDO_BUFFER_HUGE_PAGES ? HUGE_SPAN
                      : bytes > SPAN_BYTES / 8             ? SPAN_BYTES_LARGE
                                                           : SPAN_BYTES;

        mutex_init(&class->lock);
        class->bytes = bytes;
        class->span_count = bytes > SINGLE_FROM && !(pool->flags & LIDO_BUFFER_HUGE_PAGES)
                                    ? 1
                                    : clamp(span / bytes, 1, UINT32_MAX);
        if (pool->options.mode == LIDO_BUFFER_MODE_RESERVE)
                class->span_count = 1; /* so that each release gives its memory back */
        class->rack_base = clamp(RACK_BYTES / bytes, 0, RACK_MAX);
        class->rack_cap =
                clamp(pool->options.cache_bytes / bytes, class->rack_base ? class->rack_base : 1, RACK_MAX);
        for (int f = 0; f < FULLNESS; f++)
                list_init(&class->spans[f]);
        list_init(&class->all);
}

static int classes_open(struct lido_buffer_pool *pool)
{
        struct entry *entries;

        pool->classes = mem_zalloc_aligned(128, pool->class_count * sizeof *pool->classes);
        entries = os_reserve((size_t)pool->class_count * DEPOT_MAX * sizeof *entries);
        if (!pool->classes || !entries) {
                mem_free(pool->classes);
                pool->classes = NULL;
                os_unreserve(entries, (size_t)pool->class_count * DEPOT_MAX * sizeof *entries);
                return LIDO_ENOMEM;
        }
        for (uint32_t c = 0; c < pool->class_count; c++) {
                class_init(pool, &pool->classes[c], pool->sizes[c]);
                pool->classes[c].entries = entries + (size_t)c * DEPOT_MAX;
        }
        return LIDO_OK;
}

static void take_options(struct lido_buffer_pool *pool, const struct lido_buffer_options *o)
{
        pool->options = *o;
        pool->flags = o->flags;
        pool->checks = checks_of(o);
        pool->alignment = o->alignment_bytes;
        pool->max_bytes = o->max_bytes ? o->max_bytes : SIZE_MAX;
        pool->loop = o->service ? lido_service_loop(o->service) : o->loop;
        pool->tick_ms =
                o->decay_ms == LIDO_NEVER ? 0 : clock_min((uint64_t)o->decay_ms, UINT32_MAX) / TICKS_OF_DECAY;
        if (o->decay_ms != LIDO_NEVER && pool->tick_ms == 0)
                pool->tick_ms = 1;
        strncpy(pool->name, o->name ? o->name : "buffer", sizeof pool->name - 1);
        pool->epoch = fork_epoch;
        pool->slot = add_relaxed(&next_slot, 1) % CACHE_SLOTS;
}

int lido_buffer_pool_open(struct lido_buffer_pool **ret_pool, const struct lido_buffer_options *options)
{
        struct lido_buffer_options o;
        struct lido_buffer_pool *pool;
        int rc = sized_take(&o, sizeof o, options);

        if (rc != LIDO_OK || !ret_pool)
                return rc != LIDO_OK ? rc : LIDO_EINVAL;
        rc = validate(&o);
        if (rc != LIDO_OK)
                return rc;
        if (o.service && !lido_service_loop(o.service))
                return LIDO_EFORKED;
        set_defaults(&o);
        if (!cache_init_process())
                return LIDO_ENOMEM;
        pool = mem_zalloc_aligned(128, sizeof *pool);
        if (!pool)
                return LIDO_ENOMEM;
        take_options(pool, &o);
        rc = sized_take(&pool->source, sizeof pool->source, o.source ? o.source : &lido_buffer_source_mmap);
        if (rc == LIDO_OK)
                rc = classes_init(pool);
        if (rc == LIDO_OK)
                rc = debug_init(pool);
        pool->plain = pool->checks ? 0 : pool->largest;
        pool->only_rack = pool->only_bytes ? RACK_OFFSET(0) : 0;
        if (rc != LIDO_OK) {
                mem_free(pool);
                return rc;
        }
        store_relaxed(&pool->refs, 1);
        list_init(&pool->caches);
        mutex_init(&pool->huge_lock);
        mutex_init(&pool->wait_lock);
        mutex_init(&pool->guard_lock);
        list_init(&pool->huge_warm);
        list_init(&pool->huge_all);
        list_init(&pool->waiters);
        list_init(&pool->guarded);
        decay_init(pool);
        rc = classes_open(pool);
        if (rc == LIDO_OK && o.reserve && !(pool->reserve = mem_zalloc(o.reserve * sizeof *pool->reserve)))
                rc = LIDO_ENOMEM;
        if (rc == LIDO_OK)
                rc = depot_fill_reserve(pool, o.reserve);
        if (rc != LIDO_OK) {
                lido_buffer_pool_free(pool);
                return rc == LIDO_EEXHAUSTED ? LIDO_EINVAL : rc;
        }
        *ret_pool = pool;
        return LIDO_OK;
}

int lido_buffer_pool_populate(struct lido_buffer_pool *pool, void *memory, size_t bytes)
{
        struct buffer_class *class;
        struct span *span;
        int rc;

        if (!pool || !memory || pool->only_bytes == 0 || pool->checks & CHECK_GUARD)
                return LIDO_EINVAL;
        if (pool->epoch != fork_epoch)
                return LIDO_EFORKED;
        if (load_acquire(&pool->closed))
                return LIDO_ECLOSED;
        rc = span_adopt(pool, memory, bytes, &span);
        if (rc != LIDO_OK)
                return rc;
        class = &pool->classes[0];
        mutex_lock(&class->lock);
        span_link_locked(class, span);
        mutex_unlock(&class->lock);
        line_look_again(pool);
        return LIDO_OK;
}

/* ---- close ---- */

/* The caller's memory leaves with the trim, once it is all back. */
static void flush(struct lido_buffer_pool *pool)
{
        struct buffer_class *class = &pool->classes[0];

        if (pool->reserve) {
                struct entry e;
                bool more;

                do {
                        mutex_lock(&class->lock);
                        more = pool->reserve_count > 0;
                        if (more)
                                e = pool->reserve[--pool->reserve_count];
                        mutex_unlock(&class->lock);
                        if (more)
                                depot_give_back(pool, 0, &e, 1);
                } while (more);
        }
        decay_trim(pool);
}

int lido_buffer_pool_close(struct lido_buffer_pool *pool)
{
        uint32_t seen = 0;

        if (!pool)
                return LIDO_EINVAL;
        if (pool->epoch != fork_epoch)
                return LIDO_EFORKED;
        if (!cas_acq_rel(&pool->closed, &seen, 1))
                return LIDO_OK;
        attention_raise(pool);
        line_fail_all(pool, LIDO_ECLOSED);
        if (pool->classes)
                flush(pool);
        decay_stop(pool);
        return LIDO_OK;
}

int lido_buffer_pool_drain(struct lido_buffer_pool *pool, int64_t timeout_ms)
{
        uint64_t deadline;
        uint32_t spans;

        if (!pool || timeout_ms < LIDO_NEVER || !load_acquire(&pool->closed))
                return LIDO_EINVAL;
        if (pool->epoch != fork_epoch)
                return LIDO_EFORKED;
        deadline = clock_after_ms(clock_now_ns(), timeout_ms);
        while ((spans = load_acquire(&pool->spans)) != 0)
                if (!park_wait(&pool->spans, spans, deadline) && load_acquire(&pool->spans) != 0)
                        return LIDO_ETIMEDOUT;
        return LIDO_OK;
}

void lido_buffer_pool_free(struct lido_buffer_pool *pool)
{
        if (!pool || lido_buffer_pool_close(pool) == LIDO_EFORKED)
                return;
        cache_forget_pool(pool);
        pool_unref(pool);
}

int lido_buffer_pool_trim(struct lido_buffer_pool *pool, size_t *ret_bytes)
{
        size_t bytes;

        if (!pool)
                return LIDO_EINVAL;
        if (pool->epoch != fork_epoch)
                return LIDO_EFORKED;
        bytes = decay_trim(pool);
        if (ret_bytes)
                *ret_bytes = bytes;
        return LIDO_OK;
}

int lido_buffer_pool_upkeep(struct lido_buffer_pool *pool)
{
        if (!pool)
                return LIDO_EINVAL;
        if (pool->epoch != fork_epoch)
                return LIDO_EFORKED;
        return decay_tick(pool);
}

size_t lido_buffer_class_bytes(const struct lido_buffer_pool *pool, uint32_t index)
{
        return pool && index < pool->class_count ? pool->sizes[index] : 0;
}

size_t lido_buffer_pool_bytes_for(const struct lido_buffer_pool *pool, size_t bytes)
{
        uint32_t c;

        if (!pool || bytes == 0 || bytes > SIZE_MAX / 2)
                return 0;
        if (pool->checks & CHECK_GUARD)
                return guard_bytes_for(pool, bytes);
        c = acquire_class(pool, bytes);
        return c == CLASS_HUGE ? huge_bytes_for(pool, bytes) : pool->sizes[c];
}
