/* bench/base/histogram.h - durations counted in buckets about 1.5 % wide, each thread its own, added up at
 * the end. */
#ifndef BENCH_BASE_HISTOGRAM_H
#define BENCH_BASE_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_BITS 6 /* buckets in each doubling: 2^6 */
#define HISTOGRAM_FINE (UINT64_C(1) << HISTOGRAM_BITS)
#define HISTOGRAM_BUCKETS ((64 - HISTOGRAM_BITS + 1) * HISTOGRAM_FINE)

struct histogram {
        uint64_t count;
        uint64_t longest;
        uint64_t bucket[HISTOGRAM_BUCKETS];
};

/* Values below HISTOGRAM_FINE have a bucket each; above, the leading HISTOGRAM_BITS + 1 bits choose it. */
static inline unsigned histogram_bucket(uint64_t value)
{
        unsigned shift;

        if (value < HISTOGRAM_FINE)
                return (unsigned)value;
        shift = 63u - (unsigned)__builtin_clzll(value) - HISTOGRAM_BITS;
        return (unsigned)(shift * HISTOGRAM_FINE + (value >> shift));
}

/* The middle of a bucket. */
static inline uint64_t histogram_middle(unsigned bucket)
{
        unsigned shift;

        if (bucket < 2 * HISTOGRAM_FINE)
                return bucket;
        shift = bucket / HISTOGRAM_FINE - 1;
        return ((bucket - shift * HISTOGRAM_FINE) << shift) + (UINT64_C(1) << shift) / 2;
}

static inline void histogram_count(struct histogram *histogram, uint64_t value)
{
        histogram->count++;
        histogram->bucket[histogram_bucket(value)]++;
        if (value > histogram->longest)
                histogram->longest = value;
}

static inline void histogram_add(struct histogram *sum, const struct histogram *part)
{
        sum->count += part->count;
        if (part->longest > sum->longest)
                sum->longest = part->longest;
        for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
                sum->bucket[i] += part->bucket[i];
}

/* The value below which a share `quantile` of all lie; 1 is the longest, exactly. */
static inline uint64_t histogram_quantile(const struct histogram *histogram, double quantile)
{
        uint64_t below = (uint64_t)(quantile * (double)histogram->count), seen = 0;

        for (unsigned i = 0; i < HISTOGRAM_BUCKETS && below < histogram->count; i++) {
                seen += histogram->bucket[i];
                if (seen > below)
                        return histogram_middle(i) < histogram->longest ? histogram_middle(i)
                                                                        : histogram->longest;
        }
        return histogram->longest;
}

#endif
