#include "pool/trace.h"

#include "base/mem.h"
#include "base/stack.h"
#include "pool/pool.h"

#define NO_LEASE 1

int traces_grow(struct lido_pool *pool, uint32_t every)
{
        if (every == 0)
                return LIDO_OK;
        for (unsigned k = 0; k < CHUNKS && load_relaxed(&pool->slots.chunk[k]); k++) {
                struct lease_trace *chunk;

                if (load_relaxed(&pool->traces.chunk[k]))
                        continue;
                chunk = mem_zalloc(sizeof *chunk * (CHUNK_SLOTS << k));
                if (!chunk)
                        return LIDO_ENOMEM;
                for (uint32_t i = 0; i < CHUNK_SLOTS << k; i++)
                        store_relaxed(&chunk[i].generation, NO_LEASE);
                store_release(&pool->traces.chunk[k], chunk);
        }
        return LIDO_OK;
}

void traces_fini(struct lido_pool *pool)
{
        for (unsigned k = 0; k < CHUNKS; k++) {
                mem_free(load_relaxed(&pool->traces.chunk[k]));
                store_relaxed(&pool->traces.chunk[k], NULL);
        }
}

/* NULL: the pool has had the option switched on after the slot was there, or never. */
static struct lease_trace *trace_of(const struct lido_pool *pool, const struct lido_slot *slot)
{
        uint32_t index = load_relaxed(&slot->index), place;
        unsigned k = slots_chunk_of(index, &place);
        struct lease_trace *chunk = k < CHUNKS ? load_acquire(&pool->traces.chunk[k]) : NULL;

        return chunk ? chunk + place : NULL;
}

void trace_note(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation)
{
        uint32_t every = pool_options(pool)->backtrace_every, count;
        struct lease_trace *trace;
        void *frame[TRACE_FRAMES];

        if (every == 0 || load_relaxed(&slot->leases) % every != 0)
                return;
        trace = trace_of(pool, slot);
        if (!trace)
                return;
        count = stack_walk(frame, TRACE_FRAMES, 1);
        store_relaxed(&trace->generation, NO_LEASE);
        for (uint32_t i = 0; i < count; i++)
                store_release(&trace->frame[i], frame[i]); /* after NO_LEASE: pairs with trace_read */
        store_relaxed(&trace->count, count);
        store_release(&trace->generation, generation);
}

uint32_t trace_read(const struct lido_pool *pool, const struct lido_slot *slot, uint64_t generation, void **ret_frame,
                    uint32_t most)
{
        struct lease_trace *trace = trace_of(pool, slot);
        uint32_t count;

        if (!trace || load_acquire(&trace->generation) != generation)
                return 0;
        count = load_relaxed(&trace->count);
        if (count > most)
                count = most;
        for (uint32_t i = 0; i < count; i++)
                ret_frame[i] = load_acquire(&trace->frame[i]);
        return load_relaxed(&trace->generation) == generation ? count : 0;
}

void trace_emit(struct lido_pool *pool, const struct lido_slot *slot, uint64_t generation, struct lido_event *event)
{
        void *frame[TRACE_FRAMES];

        event->frame_count = trace_read(pool, slot, generation, frame, TRACE_FRAMES);
        event->frames = event->frame_count > 0 ? frame : NULL;
        pool_emit(pool, event);
}
