/* bench/pools/workloads.h - the nine ways in which a pool is put under load.
 *
 * Together they ask: what do acquire and release cost (W0), what a lease whose handle is looked at (W1), does a second core help (W2, W3),
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

enum hold {
        HOLD_NOT,  /* raise the count of the handle */
        HOLD_NONE, /* not even that: where the handle is, nobody asks */
        HOLD_SPIN,
        HOLD_SLEEP
};

struct workload {
        const char *name;
        const char *length; /* of its phases: long where a scheduler's slice must not matter */
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
        {.name = "W0",
         .length = "short",
         .says = "1 thread, 8 handles, acquire and release without a look at the handle",
         .threads = 1,
         .handles = 8,
         .hold = HOLD_NONE,
         .real_time = 1},
        {.name = "W1",
         .length = "short",
         .says = "1 thread, 8 handles, no hold",
         .threads = 1,
         .handles = 8,
         .real_time = 1},
        {.name = "W2",
         .length = "short",
         .says = "2 threads, 8 handles, no hold",
         .threads = 2,
         .handles = 8,
         .real_time = 1},
        {.name = "W3",
         .length = "short",
         .says = "8 threads, 8 handles, no hold",
         .threads = 8,
         .handles = 8},
        {.name = "W4",
         .length = "long",
         .says = "32 threads, 4 handles, no hold",
         .threads = 32,
         .handles = 4},
        {.name = "W5",
         .length = "long",
         .says = "32 threads, 4 handles, 2 us of work in each hold",
         .threads = 32,
         .handles = 4,
         .hold = HOLD_SPIN,
         .hold_ns = 2000},
        {.name = "W6",
         .length = "long",
         .says = "200 threads, 10 handles, 100 us of sleep in each hold",
         .threads = 200,
         .handles = 10,
         .hold = HOLD_SLEEP,
         .hold_ns = 100000,
         .slack_ns = 1},
        {.name = "W7",
         .length = "short",
         .says = "a try while every handle is out",
         .act = ACT_TRY,
         .threads = 1,
         .handles = 8,
         .real_time = 1},
        {.name = "W8",
         .length = "short",
         .says = "a wait of 1 ms while every handle is out; the waits are how late that is noticed",
         .act = ACT_TIMED,
         .timeout_ns = 1000000,
         .threads = 1,
         .handles = 8,
         .real_time = 1},
};

#define WORKLOADS (sizeof workloads / sizeof workloads[0])

#endif
