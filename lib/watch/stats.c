#include <string.h>

#include "base/sized.h"
#include "lido/stats.h"
#include "pool/blame.h"
#include "watch/histogram.h"

static void read_histogram(struct lido_histogram *histogram, _Atomic uint64_t *sum_ns, _Atomic uint64_t *max_ns,
                           _Atomic uint64_t *bucket)
{
        histogram->sum_ns = load_relaxed(sum_ns);
        histogram->max_ns = load_relaxed(max_ns);
        for (int i = 0; i < LIDO_HISTOGRAM_BUCKETS; i++) {
                histogram->bucket[i] = load_relaxed(&bucket[i]);
                histogram->count += histogram->bucket[i];
        }
}

uint64_t lido_histogram_quantile_ns(const struct lido_histogram *histogram, double quantile)
{
        double rank = quantile * (double)histogram->count;
        uint64_t below = 0;

        for (unsigned i = 0; i < LIDO_HISTOGRAM_BUCKETS; i++) {
                uint64_t edge_ns = i + 1 < LIDO_HISTOGRAM_BUCKETS ? histogram_edge_ns(i) : UINT64_MAX; /* the last has none */

                below += histogram->bucket[i];
                if (below > 0 && (double)below >= rank)
                        return edge_ns < histogram->max_ns ? edge_ns : histogram->max_ns;
        }
        return 0;
}

static void read_gauges(struct lido_pool *pool, struct lido_stats *stats)
{
        uint32_t count[SLOT_STATES];

        slots_count(&pool->slots, count);
        stats->max = load_relaxed(&pool->max);
        stats->opening = count[SLOT_OPENING];
        stats->idle = count[SLOT_IDLE] + count[SLOT_RESTED];
        stats->leased = count[SLOT_LEASED];
        stats->checking = count[SLOT_CHECKING];
        stats->resetting = count[SLOT_RESETTING];
        stats->closing = count[SLOT_CLOSING];
        stats->live = stats->opening + stats->idle + stats->leased + stats->checking + stats->resetting + stats->closing;
        stats->waiting = (uint32_t)(load_relaxed(&pool->gate) & GATE_COUNT);
        stats->waiting_peak = load_relaxed(&pool->waiting_peak);
}

static void read_counters(struct lido_pool *pool, struct lido_stats *stats)
{
        slots_for_each (slot, &pool->slots)
                stats->acquired += load_relaxed(&slot->leases);
        stats->waited = load_relaxed(&pool->waited);
        stats->timed_out = load_relaxed(&pool->timed_out);
        stats->canceled = load_relaxed(&pool->canceled);
        stats->refused = load_relaxed(&pool->refused);
        stats->opened = load_relaxed(&pool->opened);
        stats->open_failed = load_relaxed(&pool->open_failed);
        stats->checked = load_relaxed(&pool->checked);
        stats->reset = load_relaxed(&pool->was_reset);
        stats->misused = load_relaxed(&pool->misused);
        stats->leaked = load_relaxed(&pool->leaked);
        stats->shed = load_relaxed(&pool->shed);
        for (int i = 0; i < LIDO_CLOSE_REASONS; i++)
                stats->closed[i] = load_relaxed(&pool->closed[i]);
}

int lido_pool_stats(struct lido_pool *pool, struct lido_stats *stats)
{
        struct lido_stats ours = LIDO_STATS_INIT;
        size_t room;

        if (!pool || !stats || stats->size < sizeof stats->size)
                return LIDO_EINVAL;
        room = sized_room(stats->size, sizeof ours);
        read_gauges(pool, &ours);
        read_counters(pool, &ours);
        read_histogram(&ours.wait, &pool->wait_time.sum_ns, &pool->wait_time.max_ns, pool->wait_time.bucket);
        read_histogram(&ours.open_time, &pool->open_time.sum_ns, &pool->open_time.max_ns, pool->open_time.bucket);
        ours.size = room;
        memcpy(stats, &ours, room);
        return LIDO_OK;
}

int lido_pool_blame(struct lido_pool *pool, struct lido_blame *blame)
{
        if (!pool || !blame || blame->size < sizeof blame->size)
                return LIDO_EINVAL;
        if (load_relaxed(&pool->gate) & GATE_FORKED)
                return LIDO_EFORKED;
        blame_fill(pool, LIDO_OK, blame);
        return LIDO_OK;
}
