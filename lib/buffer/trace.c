#include "buffer/trace.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/sized.h"
#include "base/thread.h"
#include "buffer/cache.h"
#include "buffer/span.h"

/* A table with open addressing, half of which may be used; a sample that finds no room is not taken. */
#define TRACES 4096

struct trace {
        const void *buffer; /* NULL: free, never used; TOMBSTONE: free again */
        size_t bytes;
        const char *site, *last_site;
        uint32_t thread, last_thread;
        uint64_t since_ns;
        bool reported;
};

static const char tombstone;
#define TOMBSTONE ((const void *)&tombstone)

int trace_init(struct lido_buffer_pool *pool)
{
        mutex_init(&pool->trace_lock);
        pool->traces = mem_zalloc(TRACES * sizeof *pool->traces);
        if (pool->traces)
                return LIDO_OK;
        mutex_fini(&pool->trace_lock);
        return LIDO_ENOMEM;
}

void trace_fini(struct lido_buffer_pool *pool)
{
        mem_free(pool->traces);
        mutex_fini(&pool->trace_lock);
}

static uint32_t place_of(const void *buffer)
{
        return (uint32_t)(((uintptr_t)buffer >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 32) % TRACES;
}

static struct trace *find_locked(struct lido_buffer_pool *pool, const void *buffer) REQUIRES(pool->trace_lock)
{
        uint32_t i = place_of(buffer);

        for (uint32_t n = 0; n < TRACES && pool->traces[i].buffer; n++, i = (i + 1) % TRACES)
                if (pool->traces[i].buffer == buffer)
                        return &pool->traces[i];
        return NULL;
}

static struct trace *room_locked(struct lido_buffer_pool *pool, const void *buffer) REQUIRES(pool->trace_lock)
{
        uint32_t i = place_of(buffer);

        for (uint32_t n = 0; n < TRACES / 2; n++, i = (i + 1) % TRACES)
                if (!pool->traces[i].buffer || pool->traces[i].buffer == TOMBSTONE)
                        return &pool->traces[i];
        return NULL;
}

void trace_lend(struct lido_buffer_pool *pool, const struct entry *entry, size_t bytes, const char *site)
{
        struct trace *trace, fresh = {.buffer = entry->buffer,
                                      .bytes = bytes,
                                      .site = site ? site : "?",
                                      .thread = thread_id()};

        if (add_relaxed(&pool->trace_next, 1) % pool->options.leak_sample != 0)
                return;
        fresh.since_ns = clock_now_ns();
        mutex_lock(&pool->trace_lock);
        trace = room_locked(pool, entry->buffer);
        if (trace) {
                *trace = fresh;
                store_relaxed(entry->state, STATE_LENT_TRACED);
        }
        mutex_unlock(&pool->trace_lock);
}

static void report(struct lido_buffer_pool *pool, const struct trace *trace, int type, uint64_t now)
{
        struct lido_event event = {
                .size = sizeof event,
                .type = type,
                .pool_name = pool->name,
                .slot = LIDO_UNLIMITED,
                .thread = trace->thread,
                .site = trace->site,
                .other_site = trace->last_site,
                .age_ns = now - trace->since_ns,
        };

        if (type == LIDO_EVENT_LEAK)
                add_relaxed(&pool->leaked, 1);
        if (pool->options.on_event && (pool->options.event_mask & UINT64_C(1) << type))
                pool->options.on_event(&event, pool->options.event_context);
}

void trace_end(struct lido_buffer_pool *pool, const void *buffer)
{
        struct trace *trace, copy = {0};

        mutex_lock(&pool->trace_lock);
        trace = find_locked(pool, buffer);
        if (trace) {
                copy = *trace;
                trace->buffer = TOMBSTONE;
        }
        mutex_unlock(&pool->trace_lock);
        if (copy.reported)
                report(pool, &copy, LIDO_EVENT_LEAK_ENDED, clock_now_ns());
}

/* Take the next record from *place on that is older than `before` and, if asked, not yet reported, which it
 * then is. */
static bool next(struct lido_buffer_pool *pool, uint32_t *place, uint64_t before, bool unreported,
                 struct trace *ret)
{
        bool found = false;

        mutex_lock(&pool->trace_lock);
        for (; *place < TRACES && !found; (*place)++) {
                struct trace *trace = &pool->traces[*place];

                if (!trace->buffer || trace->buffer == TOMBSTONE || trace->since_ns > before ||
                    (unreported && trace->reported))
                        continue;
                if (unreported)
                        trace->reported = true;
                *ret = *trace;
                found = true;
        }
        mutex_unlock(&pool->trace_lock);
        return found;
}

bool trace_tick(struct lido_buffer_pool *pool)
{
        uint64_t now, before;
        struct trace trace;
        uint32_t place = 0;

        if (pool->options.leak_after_ms == LIDO_NEVER)
                return false;
        now = clock_now_ns();
        before = now - clock_min(now, (uint64_t)pool->options.leak_after_ms * NS_PER_MS);
        while (next(pool, &place, before, true, &trace))
                report(pool, &trace, LIDO_EVENT_LEAK, now);
        place = 0;
        return next(pool, &place, now, false, &trace) && !trace.reported;
}

int lido_buffer_pool_leaks(struct lido_buffer_pool *pool, int64_t age_ms,
                           void (*each)(const struct lido_buffer_trace *trace, void *context), void *context)
{
        uint64_t now = clock_now_ns(), before;
        struct trace trace;
        uint32_t place = 0;
        int count = 0;

        if (!pool || !(pool->checks & CHECK_LEAKS) || age_ms < 0 || !each)
                return LIDO_EINVAL;
        if (pool->epoch != fork_epoch)
                return LIDO_EFORKED;
        before = now - clock_min(now, clock_after_ms(0, age_ms));
        while (next(pool, &place, before, false, &trace)) {
                struct lido_buffer_trace out = LIDO_BUFFER_TRACE_INIT;

                out.buffer = (void *)(uintptr_t)trace.buffer;
                out.bytes = trace.bytes;
                out.site = trace.site;
                out.last_site = trace.last_site;
                out.thread = trace.thread;
                out.last_thread = trace.last_thread;
                out.held_ns = now - trace.since_ns;
                each(&out, context);
                count++;
        }
        return count;
}

void lido_buffer_touch_at(const void *buffer, const char *site)
{
        struct span *span = span_of(buffer);
        state_byte *state = span ? span_state(span, buffer) : NULL;
        struct trace *trace;

        if (!state || load_relaxed(state) != STATE_LENT_TRACED)
                return;
        mutex_lock(&span->pool->trace_lock);
        trace = find_locked(span->pool, buffer);
        if (trace) {
                trace->last_site = site;
                trace->last_thread = thread_id();
        }
        mutex_unlock(&span->pool->trace_lock);
}
