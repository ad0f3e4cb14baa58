#include "buffer/cache.h"

#include <pthread.h>
#include <string.h>

#include "base/fork.h"
#include "base/mem.h"
#include "base/thread.h"
#include "buffer/depot.h"
#include "buffer/decay.h"
#include "buffer/pool.h"
#include "buffer/span.h"
#include "buffer/line.h"

#define VISIT_BATCH 64 /* as many as a rack holds */

_Thread_local struct lido_buffer_cache *cache_slots[CACHE_SLOTS] initial_exec;
struct lido_buffer_cache cache_none;
_Thread_local struct lido_buffer_cache *cache_last initial_exec = &cache_none;
static _Thread_local struct lido_buffer_cache *own_caches
        __attribute__((tls_model("initial-exec"))); /* linked by next */
uint32_t fork_epoch = 1;                            /* written in a child that has one thread */

static struct mutex registry = MUTEX_INIT; /* who is in which pool's list, and who may open */
static pthread_key_t exit_key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool ready;

/* ---- threads end, processes fork ---- */

static void thread_exits(void *unused)
{
        struct lido_buffer_cache *cache;

        (void)unused;
        while ((cache = own_caches) != NULL) {
                own_caches = cache->next;
                cache_end(cache);
        }
        cache_last = &cache_none;
        memset(cache_slots, 0, sizeof cache_slots);
}

static void before_fork(void) NO_THREAD_SAFETY
{
        mutex_lock(&registry);
        span_fork_lock();
}

static void after_fork(void) NO_THREAD_SAFETY
{
        span_fork_unlock();
        mutex_unlock(&registry);
}

/* The caches are the parent's: without them every call goes the slow way and finds the pool's epoch wrong. */
static void after_fork_in_child(void)
{
        after_fork();
        fork_epoch++;
        own_caches = NULL;
        cache_last = &cache_none;
        memset(cache_slots, 0, sizeof cache_slots);
}

static void set_up(void)
{
        ready = pthread_key_create(&exit_key, thread_exits) == 0;
        fork_watch(before_fork, after_fork, after_fork_in_child);
}

bool cache_init_process(void)
{
        pthread_once(&once, set_up);
        return ready;
}

/* ---- life ---- */

static size_t slots_of(const struct lido_buffer_pool *pool)
{
        size_t n = 0;

        for (uint32_t c = 0; c < pool->class_count; c++)
                n += pool->classes[c].rack_cap;
        return n;
}

int cache_new(struct lido_buffer_pool *pool, bool handle, struct lido_buffer_cache **ret_cache)
{
        size_t racks = (pool->class_count + 1) * sizeof(struct rack),
               slots = slots_of(pool) * sizeof(struct entry);
        size_t more = pool->class_count * sizeof(struct rack_more);
        struct lido_buffer_cache *cache = mem_zalloc_aligned(64, sizeof *cache + racks + slots + more);
        struct entry *base;
        bool gone;

        if (!cache)
                return LIDO_ENOMEM;
        base = (struct entry *)(void *)((char *)cache->racks + racks);
        cache->more = (struct rack_more *)(void *)((char *)base + slots);
        for (uint32_t c = 0; c < pool->class_count; c++) {
                struct rack *rack = &cache->racks[c];

                rack->base = rack->top = base;
                rack->end = base + pool->classes[c].rack_base;
                base += pool->classes[c].rack_cap;
        }
        cache->handle = handle;
        cache->drained = 1;
        store_relaxed(&cache->pool, pool);
        mutex_lock(&registry);
        gone = pool->forgotten;
        if (!gone) {
                list_push_back(&pool->caches, &cache->link);
                pool->cache_count++;
        }
        mutex_unlock(&registry);
        if (gone) { /* freed while a buffer of it was on its way back */
                mem_free(cache);
                return LIDO_ECLOSED;
        }
        *ret_cache = cache;
        return LIDO_OK;
}

void cache_reopen(struct lido_buffer_cache *cache, struct lido_buffer_pool *pool)
{
        mutex_lock(&registry);
        if (load_relaxed(&pool->attention) == 0 && !(pool->checks & CHECK_RESERVE)) {
                cache->drained = 0;
                store_release(&cache->open, pool);
        }
        mutex_unlock(&registry);
        decay_arm(pool);
}

/* Take a dead cache out of the thread's list. */
static struct lido_buffer_cache *find(const struct lido_buffer_pool *pool)
{
        struct lido_buffer_cache **place = &own_caches, *cache;

        while ((cache = *place) != NULL) {
                const struct lido_buffer_pool *of = load_relaxed(&cache->pool);

                if (of == pool)
                        return cache;
                if (of) {
                        place = &cache->next;
                        continue;
                }
                *place = cache->next;
                cache_last = &cache_none;
                for (int i = 0; i < CACHE_SLOTS; i++)
                        if (cache_slots[i] == cache)
                                cache_slots[i] = NULL;
                cache_end(cache);
        }
        return NULL;
}

struct lido_buffer_cache *cache_get(struct lido_buffer_pool *pool)
{
        struct lido_buffer_cache *cache = cache_slots[pool->slot];

        if (pool->checks & CHECK_RESERVE)
                return NULL;
        if (!cache || load_relaxed(&cache->pool) != pool)
                cache = find(pool);
        if (!cache) {
                if (pthread_setspecific(exit_key, &exit_key) != 0 ||
                    cache_new(pool, false, &cache) != LIDO_OK)
                        return NULL;
                cache->next = own_caches;
                own_caches = cache;
        }
        cache_slots[pool->slot] = cache;
        if (load_relaxed(&cache->open) != pool && load_relaxed(&pool->attention) == 0)
                cache_reopen(cache, pool);
        return cache;
}

/* ---- visits ---- */

/* Take one rack's entries. Returns: how many. The cache is shut and not busy, or the caller's own. */
static uint32_t empty_rack(struct rack *rack, struct entry *entries)
{
        uint32_t n = rack_count(rack);

        if (n)
                memcpy(entries, rack->base, n * sizeof *entries);
        rack->top = rack->base;
        return n;
}

static void shrink_rack(struct lido_buffer_cache *cache, uint32_t c, const struct buffer_class *class)
{
        struct rack *rack = &cache->racks[c];
        uint32_t limit = rack_limit(rack);

        if (limit > class->rack_base)
                cache->extra -= (limit - class->rack_base) * class->bytes;
        rack->end = rack->base + class->rack_base;
        cache->more[c].misses = 0;
}

void cache_end(struct lido_buffer_cache *cache)
{
        struct entry entries[VISIT_BATCH];
        struct lido_buffer_pool *pool;

        for (uint32_t c = 0;; c++) {
                uint32_t n;

                mutex_lock(&registry); /* no visitor is at it, and the pool is there */
                pool = load_relaxed(&cache->pool);
                store_relaxed(&cache->open, NULL);
                if (!pool || c == pool->class_count)
                        break;
                n = empty_rack(&cache->racks[c], entries);
                if (n > 0)
                        add_relaxed(&pool->refs, 1);
                mutex_unlock(&registry);
                if (n > 0) {
                        depot_put(pool, c, entries, n);
                        line_look_again(pool);
                        if (load_acquire(&pool->closed))
                                depot_shed(pool, c, UINT32_MAX, 0);
                        pool_unref(pool);
                }
        }
        if (pool) {
                for (uint32_t c = 0; c < pool->class_count; c++)
                        add_relaxed(&pool->acquired_directly, load_relaxed(&cache->racks[c].acquired));
                list_unlink(&cache->link);
                pool->cache_count--;
        }
        mutex_unlock(&registry);
        mem_free(cache);
}

/* Shut every cache that is not drained. Returns: whether there was one. */
static bool shut_all(struct lido_buffer_pool *pool, uint64_t *ret_pass)
{
        bool any = false;

        mutex_lock(&registry);
        *ret_pass = ++pool->pass;
        list_for_each(it, &pool->caches)
        {
                struct lido_buffer_cache *cache = list_entry(it, struct lido_buffer_cache, link);

                if (cache->drained) {
                        cache->pass = *ret_pass;
                        continue;
                }
                store_seq_cst(&cache->open, NULL); /* pairs with cache_enter_checked */
                any = true;
        }
        mutex_unlock(&registry);
        if (any && !(pool->checks & CHECK_FENCE))
                fence_heavy();
        return any;
}

/* The next cache of this pass: shut, and nobody inside. Waits for the owner to leave: ten instructions, or
 * the time slice of whoever has preempted it. Returns: NULL when the pass is through. */
static struct lido_buffer_cache *next_locked(struct lido_buffer_pool *pool, uint64_t pass) REQUIRES(registry)
{
        struct list *it = pool->caches.next;

        while (it != &pool->caches) {
                struct lido_buffer_cache *cache = list_entry(it, struct lido_buffer_cache, link);

                if (cache->pass >= pass) {
                        it = it->next;
                } else if (load_relaxed(&cache->open)) { /* new, or opened by its owner meanwhile */
                        cache->pass = pass;
                } else if (load_seq_cst(&cache->busy)) {
                        mutex_unlock(&registry);
                        thread_yield();
                        mutex_lock(&registry);
                        it = pool->caches.next; /* the list may have changed */
                } else {
                        return cache;
                }
        }
        return NULL;
}

size_t cache_collect_all(struct lido_buffer_pool *pool)
{
        struct entry entries[VISIT_BATCH];
        struct lido_buffer_cache *cache;
        size_t got = 0;
        uint64_t pass;
        uint32_t c = 0, n = 0;

        if (!shut_all(pool, &pass))
                return 0;
        mutex_lock(&registry);
        while ((cache = next_locked(pool, pass)) != NULL) {
                for (c = 0, n = 0; c < pool->class_count && n == 0; c++)
                        n = empty_rack(&cache->racks[c], entries);
                if (n == 0) {
                        cache->drained = 1;
                        cache->pass = pass;
                        continue;
                }
                mutex_unlock(&registry);
                depot_put(pool, c - 1, entries, n);
                got += n;
                mutex_lock(&registry);
        }
        mutex_unlock(&registry);
        return got;
}

/* Empty one rack that was idle. Returns: how many entries, with the class; 0 when none is left to empty. */
static uint32_t empty_idle_locked(struct lido_buffer_pool *pool, struct lido_buffer_cache *cache,
                                  struct entry *entries, uint32_t *ret_class) REQUIRES(registry)
{
        uint32_t count;

        for (uint32_t c = 0; c < pool->class_count; c++) {
                struct rack *rack = &cache->racks[c];

                if (load_relaxed(&rack->acquired) != cache->more[c].seen || rack_count(rack) == 0)
                        continue;
                *ret_class = c;
                count = empty_rack(rack, entries);
                shrink_rack(cache, c, &pool->classes[c]);
                return count;
        }
        return 0;
}

/* Begin a new tick for the cache. Returns: whether it is in use. */
static bool renew_locked(struct lido_buffer_pool *pool, struct lido_buffer_cache *cache) REQUIRES(registry)
{
        bool in_use = false;

        for (uint32_t c = 0; c < pool->class_count; c++) {
                uint64_t acquired = load_relaxed(&cache->racks[c].acquired);

                in_use |= acquired != cache->more[c].seen;
                cache->more[c].seen = acquired;
        }
        return in_use;
}

void cache_tick(struct lido_buffer_pool *pool, bool *ret_left)
{
        struct entry entries[VISIT_BATCH];
        struct lido_buffer_cache *cache;
        uint64_t pass;
        uint32_t c = 0, n;

        if (!shut_all(pool, &pass))
                return;
        mutex_lock(&registry);
        while ((cache = next_locked(pool, pass)) != NULL) {
                n = empty_idle_locked(pool, cache, entries, &c);
                if (n > 0) {
                        mutex_unlock(&registry);
                        depot_put(pool, c, entries, n);
                        mutex_lock(&registry);
                        continue;
                }
                cache->pass = pass;
                if (!renew_locked(pool, cache)) {
                        cache->drained = 1;
                } else if (load_relaxed(&pool->attention) == 0) {
                        *ret_left = true;
                        cache->drained = 0; /* a trim may have been through it since this tick shut it */
                        store_release(&cache->open, pool);
                }
        }
        mutex_unlock(&registry);
}

bool cache_any_open(struct lido_buffer_pool *pool)
{
        bool any = false;

        mutex_lock(&registry);
        list_for_each(it, &pool->caches) any |= !list_entry(it, struct lido_buffer_cache, link)->drained;
        mutex_unlock(&registry);
        return any;
}

uint32_t cache_attention(struct lido_buffer_pool *pool, int change)
{
        uint32_t before;

        mutex_lock(&registry);
        before = load_relaxed(&pool->attention);
        store_seq_cst(&pool->attention, before + (uint32_t)change);
        mutex_unlock(&registry);
        return before;
}

void cache_forget_pool(struct lido_buffer_pool *pool)
{
        mutex_lock(&registry);
        list_for_each_safe(it, &pool->caches)
        {
                struct lido_buffer_cache *cache = list_entry(it, struct lido_buffer_cache, link);

                store_relaxed(&cache->open, NULL);
                store_relaxed(&cache->pool, NULL);
                list_unlink(&cache->link);
        }
        pool->cache_count = 0;
        pool->forgotten = true;
        mutex_unlock(&registry);
}

void cache_stats(struct lido_buffer_pool *pool, struct lido_buffer_stats *stats)
{
        mutex_lock(&registry);
        list_for_each(it, &pool->caches)
        {
                struct lido_buffer_cache *cache = list_entry(it, struct lido_buffer_cache, link);

                stats->caches++;
                for (uint32_t c = 0; c < pool->class_count; c++)
                        stats->acquired += load_relaxed(&cache->racks[c].acquired);
        }
        mutex_unlock(&registry);
}
