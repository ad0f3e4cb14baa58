/* watch/histogram.h - where the buckets of a struct lido_histogram end. */
#ifndef LIDO_WATCH_HISTOGRAM_H
#define LIDO_WATCH_HISTOGRAM_H

#include <stdint.h>

/* The upper edge of bucket 4 * e + q is 2^(e+1) * (1 + (q+1)/4); what is in the bucket is below it. */
static inline uint64_t histogram_edge_ns(unsigned bucket)
{
        if (bucket < 4)
                return bucket + 1;
        return (UINT64_C(5) + bucket % 4) << (bucket / 4 - 1);
}

#endif
