/* Events and histograms. */
#include "pool/pool.h"

void pool_emit_late(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation, struct lido_event *event)
{
        pool_enter(pool);
        if (load_seq_cst(&pool->stage) == POOL_RUNNING && slots_has(&pool->slots, slot) &&
            generation >= load_relaxed(&slot->first_generation)) {
                event->slot = load_relaxed(&slot->index);
                if (event->type == LIDO_EVENT_MISUSE)
                        add_relaxed(&pool->misused, 1);
                pool_emit(pool, event);
        }
        pool_leave(pool);
}

void pool_emit(struct lido_pool *pool, struct lido_event *event)
{
        if (!pool_options(pool)->on_event || !(pool_options(pool)->event_mask >> event->type & 1))
                return;
        event->size = sizeof *event;
        event->pool = pool;
        event->pool_name = pool->name;
        pool_options(pool)->on_event(event, pool_options(pool)->event_context);
}

void tell_copy(char *to, size_t size, const char *from)
{
        size_t length = 0;

        for (; from[length] != '\0' && length + 1 < size; length++)
                to[length] = (unsigned char)from[length] < ' ' || from[length] == 0x7f ? ' ' : from[length];
        if (((unsigned char)from[length] & 0xc0) == 0x80) { /* in the middle of a character of several bytes */
                while (length > 0 && ((unsigned char)from[length] & 0xc0) == 0x80)
                        length--;
        }
        to[length] = '\0';
}

/* Bucket 4 * e + q holds [2^e * (1 + q/4), 2^e * (1 + (q+1)/4)); below 4 ns they are as good as 0. */
static unsigned bucket_of(uint64_t ns)
{
        unsigned exponent, bucket;

        if (ns < 4)
                return (unsigned)ns;
        exponent = 63u - (unsigned)__builtin_clzll(ns);
        bucket = 4 * (exponent - 1) + (unsigned)(ns >> (exponent - 2) & 3);
        return bucket < LIDO_HISTOGRAM_BUCKETS ? bucket : LIDO_HISTOGRAM_BUCKETS - 1;
}

void pool_record(_Atomic uint64_t *sum_ns, _Atomic uint64_t *max_ns, _Atomic uint64_t *bucket, uint64_t ns)
{
        uint64_t seen = load_relaxed(max_ns);

        add_relaxed(sum_ns, ns);
        add_relaxed(&bucket[bucket_of(ns)], 1);
        while (seen < ns && !cas_relaxed(max_ns, &seen, ns))
                ;
}
