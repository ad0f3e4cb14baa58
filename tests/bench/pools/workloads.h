/* bench/pools/workloads.h - the eight ways in which a pool is put under load.
 *
 * Together they ask: what does a lease cost when nobody else is there (W1), does a second core help (W2, W3),
 * what happens when far more threads than handles meet after holds of nothing (W4), of two microseconds (W5)
 * and of a database's hundred (W6), what does asking in vain cost (W7), and how late is a deadline (W8).
 */
#ifndef BENCH_POOLS_WORKLOADS_H
#define BENCH_POOLS_WORKLOADS_H

#include <stddef.h>
#include <stdint.h>

enum act {
        ACT_LEASE, /* acquire, hold, release */
        ACT_TRY,   /* try in vain: every handle is out */
        ACT_TIMED  /* wait in vain until the deadline */
};

enum hold { HOLD_NOT, HOLD_SPIN, HOLD_SLEEP };

struct workload {
        const char *name;
        const char *says;
        enum act act;
        enum hold hold;
        unsigned threads;
        unsigned handles;
        uint64_t hold_ns;
        uint64_t timeout_ns;
        int real_time; /* no more threads than cores: keep other processes off them where the system allows */
        uint64_t slack_ns; /* timer slack; 0: the system's default */
};

static const struct workload workloads[] = {
        {"W1", "1 thread, 8 handles", ACT_LEASE, HOLD_NOT, 1, 8, 0, 0, 1, 0},
        {"W2", "2 threads, 8 handles", ACT_LEASE, HOLD_NOT, 2, 8, 0, 0, 1, 0},
        {"W3", "8 threads, 8 handles", ACT_LEASE, HOLD_NOT, 8, 8, 0, 0, 0, 0},
        {"W4", "32 threads, 4 handles", ACT_LEASE, HOLD_NOT, 32, 4, 0, 0, 0, 0},
        {"W5", "32 threads, 4 handles, 2 us of work", ACT_LEASE, HOLD_SPIN, 32, 4, 2000, 0, 0, 0},
        {"W6", "200 threads, 10 handles, 100 us of sleep", ACT_LEASE, HOLD_SLEEP, 200, 10, 100000, 0, 0, 1},
        {"W7", "a try with no handle left", ACT_TRY, HOLD_NOT, 1, 8, 0, 0, 1, 0},
        {"W8", "a wait of 1 ms with no handle left", ACT_TIMED, HOLD_NOT, 1, 8, 0, 1000000, 1, 0},
};

#define WORKLOADS (sizeof workloads / sizeof workloads[0])

#endif
