#include "buffer/debug.h"

#include <string.h>

#include "base/mem.h"
#include "base/random.h"
#include "buffer/span.h"
#include "buffer/trace.h"

#if defined(__has_include)
#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#define HAVE_VALGRIND 1
#endif
#endif
#ifndef HAVE_VALGRIND
#define RUNNING_ON_VALGRIND 0
#define VALGRIND_MAKE_MEM_NOACCESS(a, n) ((void)(a), (void)(n))
#define VALGRIND_MAKE_MEM_UNDEFINED(a, n) ((void)(a), (void)(n))
#define VALGRIND_MAKE_MEM_DEFINED(a, n) ((void)(a), (void)(n))
#define VALGRIND_MALLOCLIKE_BLOCK(a, n, rz, z) ((void)(a), (void)(n))
#define VALGRIND_FREELIKE_BLOCK(a, rz) ((void)(a))
#endif

__attribute__((weak)) void __asan_poison_memory_region(void const volatile *address, size_t bytes);
__attribute__((weak)) void __asan_unpoison_memory_region(void const volatile *address, size_t bytes);

#define POISON 0xd5
#define FILLER 0xa7

uint32_t debug_tools(void)
{
        uint32_t tools = 0;

        if (__asan_poison_memory_region && __asan_unpoison_memory_region)
                tools |= CHECK_ASAN;
        if (RUNNING_ON_VALGRIND)
                tools |= CHECK_VALGRIND;
        return tools;
}

int debug_init(struct lido_buffer_pool *pool)
{
        pool->cookie = random_seed() | 1;
        return pool->checks & CHECK_LEAKS ? trace_init(pool) : LIDO_OK;
}

void debug_fini(struct lido_buffer_pool *pool)
{
        if (pool->checks & CHECK_LEAKS)
                trace_fini(pool);
}

/* ---- reach ---- */

static void hide(struct lido_buffer_pool *pool, void *memory, size_t bytes)
{
        if (pool->checks & CHECK_ASAN)
                __asan_poison_memory_region(memory, bytes);
        if (pool->checks & CHECK_VALGRIND)
                VALGRIND_MAKE_MEM_NOACCESS(memory, bytes);
}

static void show(struct lido_buffer_pool *pool, void *memory, size_t bytes)
{
        if (pool->checks & CHECK_ASAN)
                __asan_unpoison_memory_region(memory, bytes);
        if (pool->checks & CHECK_VALGRIND)
                VALGRIND_MAKE_MEM_DEFINED(memory, bytes);
}

/* A constructed buffer keeps its contents while it is free, and its hooks must reach them. */
static bool hides(const struct lido_buffer_pool *pool)
{
        return (pool->checks & (CHECK_ASAN | CHECK_VALGRIND)) && !pool->options.construct;
}

void debug_region_new(struct span *span)
{
        if (span->pool->checks & CHECK_POISON)
                memset((void *)span->base, POISON, (size_t)span->count * span->bytes);
        if (hides(span->pool))
                hide(span->pool, (void *)span->base, (size_t)span->count * span->bytes);
}

void debug_region_end(struct span *span)
{
        if (hides(span->pool))
                show(span->pool, (void *)span->base, (size_t)span->count * span->bytes);
}

/* ---- events ---- */

static void report(struct lido_buffer_pool *pool, const void *buffer, int code, const char *site,
                   const char *reason)
{
        struct lido_event event = {
                .size = sizeof event,
                .type = LIDO_EVENT_MISUSE,
                .code = code,
                .pool_name = pool->name,
                .slot = LIDO_UNLIMITED,
                .site = site,
                .reason = reason,
        };

        (void)buffer;
        if (pool->options.on_event && (pool->options.event_mask & UINT64_C(1) << LIDO_EVENT_MISUSE))
                pool->options.on_event(&event, pool->options.event_context);
}

void debug_misuse(struct lido_buffer_pool *pool, const void *buffer, int code, const char *site)
{
        add_relaxed(&pool->misused, 1);
        report(pool, buffer, code, site, code == LIDO_EDOUBLE ? "released twice" : "no buffer");
}

static void damaged(struct lido_buffer_pool *pool, const void *buffer, const char *site, const char *reason)
{
        add_relaxed(&pool->damaged, 1);
        report(pool, buffer, LIDO_ESTALE, site, reason);
}

/* ---- cookies: [ bytes asked for | filler | bytes asked for, mixed ] ---- */

static uint64_t *tail_of(struct span *span, const void *buffer)
{
        return (uint64_t *)(void *)((char *)(uintptr_t)buffer + (span->bytes & ~(size_t)7) - COOKIE_BYTES);
}

static void set_cookie(struct lido_buffer_pool *pool, struct span *span, void *buffer, size_t bytes)
{
        uint64_t *tail = tail_of(span, buffer);

        tail[0] = bytes;
        tail[1] = bytes ^ pool->cookie ^ (uintptr_t)buffer;
        memset((char *)buffer + bytes, FILLER, (size_t)((char *)tail - (char *)buffer) - bytes);
}

static size_t cookie_bytes(struct lido_buffer_pool *pool, struct span *span, const void *buffer)
{
        const uint64_t *tail = tail_of(span, buffer);

        if (tail[0] > span->bytes - COOKIE_BYTES || (tail[0] ^ pool->cookie ^ (uintptr_t)buffer) != tail[1])
                return SIZE_MAX;
        return (size_t)tail[0];
}

static bool is_filled(const unsigned char *memory, size_t bytes, unsigned char with)
{
        for (size_t i = 0; i < bytes; i++)
                if (memory[i] != with)
                        return false;
        return true;
}

static bool cookie_holds(struct lido_buffer_pool *pool, struct span *span, const void *buffer)
{
        size_t bytes = cookie_bytes(pool, span, buffer);
        const unsigned char *memory = buffer;

        return bytes != SIZE_MAX &&
               is_filled(memory + bytes,
                         (size_t)((const unsigned char *)tail_of(span, buffer) - memory) - bytes, FILLER);
}

/* ---- out and back ---- */

size_t debug_bytes(struct span *span, const void *buffer)
{
        struct lido_buffer_pool *pool = span->pool;
        size_t bytes;

        if (!(pool->checks & CHECK_COOKIES))
                return span->bytes;
        show(pool, tail_of(span, buffer), COOKIE_BYTES);
        bytes = cookie_bytes(pool, span, buffer);
        hide(pool, tail_of(span, buffer), COOKIE_BYTES);
        return bytes == SIZE_MAX ? 0 : bytes;
}

void debug_lend(struct lido_buffer_pool *pool, const struct entry *entry, size_t bytes, const char *site)
{
        struct span *span = span_of(entry->buffer);
        size_t whole = span->bytes;

        if (hides(pool))
                show(pool, entry->buffer, whole);
        if (pool->checks & CHECK_POISON && !is_filled(entry->buffer, whole, POISON))
                damaged(pool, entry->buffer, site, "written to after its release");
        if (pool->checks & CHECK_ZERO_ACQUIRE)
                memset(entry->buffer, 0, bytes);
        if (pool->checks & CHECK_COOKIES)
                set_cookie(pool, span, entry->buffer, bytes);
        if (hides(pool) && bytes < whole && (pool->checks & CHECK_COOKIES))
                hide(pool, (char *)entry->buffer + bytes, whole - bytes);
        if (pool->checks & CHECK_VALGRIND && hides(pool) && !(pool->checks & CHECK_ZERO_ACQUIRE))
                VALGRIND_MAKE_MEM_UNDEFINED(entry->buffer, pool->checks & CHECK_COOKIES ? bytes : whole);
        if (pool->checks & CHECK_LEAKS)
                trace_lend(pool, entry, bytes, site);
}

void debug_take_back(struct lido_buffer_pool *pool, struct span *span, void *buffer, const char *site)
{
        if (hides(pool))
                show(pool, buffer, span->bytes);
        if (pool->checks & CHECK_COOKIES && !cookie_holds(pool, span, buffer))
                damaged(pool, buffer, site, "written past its end");
        if (pool->checks & CHECK_ZERO_RELEASE)
                mem_wipe(buffer, span->bytes);
        if (pool->checks & CHECK_POISON)
                memset(buffer, POISON, span->bytes);
        if (hides(pool))
                hide(pool, buffer, span->bytes);
}

void debug_untrace(struct lido_buffer_pool *pool, const void *buffer)
{
        trace_end(pool, buffer);
}

bool debug_leak_tick(struct lido_buffer_pool *pool)
{
        return trace_tick(pool);
}
