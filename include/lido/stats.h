/* lido/stats.h - how a pool is doing: counters, gauges, the wait histogram, who is to blame, a dump. */
#ifndef LIDO_STATS_H
#define LIDO_STATS_H

#include "lido/events.h"
#include "lido/pool.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A histogram of durations: bucket i counts those of [2^(i/4)...) nanoseconds, four buckets a doubling. */
#define LIDO_HISTOGRAM_BUCKETS 160
struct lido_histogram {
        uint64_t count;
        uint64_t sum_ns;
        uint64_t max_ns;
        uint64_t bucket[LIDO_HISTOGRAM_BUCKETS];
};

/* The duration below which `quantile` (0 to 1) of the samples lie, as the upper edge of its bucket; 0 when empty.
 * Threads: any. Blocks: no. Owns: nobody. */
LIDO_API uint64_t lido_histogram_quantile_ns(const struct lido_histogram *histogram, double quantile);

struct lido_stats {
        size_t size;
        /* how it is now; live == opening + idle + leased + checking + resetting + closing */
        uint32_t max, live, opening, idle, leased, checking, resetting, closing;
        uint32_t waiting;
        uint32_t waiting_peak;
        /* what has happened */
        uint64_t acquired;         /* leases given */
        uint64_t waited;           /* of these, after standing in line */
        uint64_t timed_out, canceled, refused; /* acquires that ended otherwise */
        uint64_t opened, open_failed;
        uint64_t closed[LIDO_CLOSE_REASONS]; /* by enum lido_close_reason */
        uint64_t checked, reset;
        uint64_t misused, leaked;
        struct lido_histogram wait;      /* of those who stood in line, until their outcome */
        struct lido_histogram open_time; /* of opens that succeeded */
        uint64_t shed;                   /* of `refused`: shed in a standing queue */
};
#define LIDO_STATS_INIT LIDO_SIZED(lido_stats)

/* Read the stats. Each figure is exact for some moment during the call; gauges are counted slot by slot.
 * Threads: any. Blocks: no. Owns: the struct is the caller's. Returns: LIDO_OK; LIDO_EINVAL; LIDO_E2NEW. */
LIDO_API int lido_pool_stats(struct lido_pool *pool, struct lido_stats *stats);

/* ---- why an acquire failed, and who holds the objects ---------------------------------------------------- */

/* Append only. */
enum lido_cause {
        LIDO_CAUSE_NONE = 0,
        LIDO_CAUSE_EXHAUSTED = 1,     /* every object is lent: see the holders */
        LIDO_CAUSE_DOWN = 2,          /* opening fails: see last_error */
        LIDO_CAUSE_OPENING = 3,       /* objects are being opened, slowly */
        LIDO_CAUSE_PAUSED = 4,
        LIDO_CAUSE_QUEUE_FULL = 5,
        LIDO_CAUSE_CLOSED = 6,
        LIDO_CAUSE_SHED = 7,
        LIDO_CAUSE_DEADLOCK = 8,
        LIDO_CAUSE_BREAKER = 9,       /* refused without waiting, because opening fails and is paused: see last_error */
        LIDO_CAUSE_QUOTA = 11,        /* the tag has as many objects as its quota allows */
        LIDO_CAUSE_UPKEEP = 10,       /* objects are being checked, reset or closed */
};

#define LIDO_BLAME_HOLDERS 8
#define LIDO_HOLDER_FRAMES 16
struct lido_holder {
        uint32_t slot;
        uint32_t thread;   /* kernel id of the thread that acquired it */
        const char *site;  /* where */
        const char *tag;   /* on whose behalf, or NULL */
        uint64_t held_ns;  /* for at least so long */
        uint32_t frame_count;                /* 0 unless backtrace_every had its turn */
        uint32_t reserved;
        void *frame[LIDO_HOLDER_FRAMES];     /* return addresses, nearest first; the first few are lido's own */
};

struct lido_blame {
        size_t size;
        int cause;                 /* enum lido_cause */
        int last_error_is_set;
        struct lido_error last_error; /* of the latest open that failed */
        uint64_t last_error_age_ns;
        uint32_t max, live, idle, leased, opening, waiting;
        uint32_t holders;             /* how many of the array are filled: the longest, longest first */
        struct lido_holder holder[LIDO_BLAME_HOLDERS];
        char discard_reason[LIDO_REASON_SIZE]; /* of the latest lido_discard_because; "": none was */
        const char *discard_site;              /* where */
        uint64_t discard_age_ns;
};
#define LIDO_BLAME_INIT LIDO_SIZED(lido_blame)

/* Say what stands in the way of an acquire now.
 * Threads: any. Blocks: no. Owns: the struct is the caller's; sites and tags are constants of the borrowers.
 * Returns: LIDO_OK; LIDO_EINVAL; LIDO_E2NEW. */
LIDO_API int lido_pool_blame(struct lido_pool *pool, struct lido_blame *blame);

/* Write a blame report as one paragraph of text. Threads: any. Blocks: no. Owns: the buffer is the caller's.
 * Returns: the length of the whole text, even if `size` was too small for it; the buffer always ends in a NUL. */
LIDO_API size_t lido_blame_text(const struct lido_blame *blame, char *text, size_t size);

/* Write return addresses as "name+0x10 (object+0x1234) < ...", nearest first and without lido's own; what is in a program itself
 * has names if it was linked with -rdynamic, and addr2line(1) finds the line.
 * Threads: any. Blocks: no. Owns: the buffer is the caller's. Returns: as lido_blame_text. */
LIDO_API size_t lido_frames_text(void *const *frames, uint32_t count, char *text, size_t size);

/* Write every slot and waiter to a file descriptor, a line each.
 * Threads: any, also in a signal handler. Blocks: as write(2) does. Owns: nobody. Returns: LIDO_OK; LIDO_EINVAL. */
LIDO_API int lido_pool_dump(struct lido_pool *pool, int fd);

/* ---- metrics ----------------------------------------------------------------------------------------------- */

enum lido_metrics_format { LIDO_METRICS_PROMETHEUS = 0, LIDO_METRICS_OPENMETRICS = 1 };

/* What to write about. */
struct lido_metrics {
        size_t size;
        struct lido_pool *const *pools; /* the label `pool` is their name: give each another */
        uint32_t count;
        int format; /* enum lido_metrics_format: text 0.0.4, or OpenMetrics 1.0 */
};
#define LIDO_METRICS_INIT LIDO_SIZED(lido_metrics)

/* Write the metrics of some pools as text for a scraper: lido_connections, lido_acquire_wait_seconds and so on, in base units.
 * Threads: any. Blocks: no; it takes no lock that a borrower could wait for. Owns: the buffer is the caller's.
 * Returns: the length of the whole text, even if `size` was too small for it; the buffer always ends in a NUL. 0 when `what` is
 * not valid. */
LIDO_API size_t lido_metrics_write(const struct lido_metrics *what, char *text, size_t size);

/* The content type of a format. Threads: any. Blocks: no. Owns: nobody, the text is constant. */
LIDO_API const char *lido_metrics_content_type(int format);

/* What OpenTelemetry calls the same figures (semantic conventions for database clients, status "development"): a table, for those
 * who feed its SDK. */
enum lido_otel_instrument { LIDO_OTEL_UPDOWNCOUNTER = 0, LIDO_OTEL_COUNTER = 1, LIDO_OTEL_HISTOGRAM = 2 };
struct lido_otel_metric {
        const char *name;       /* "db.client.connection.count"; NULL ends the table */
        int instrument;         /* enum lido_otel_instrument */
        const char *unit;       /* "{connection}", "s" */
        const char *state;      /* value of the attribute db.client.connection.state, or NULL */
        const char *prometheus; /* the family of lido_metrics_write that says the same; NULL: an option of the
                                 * pool, or not measured */
        size_t offset;          /* of the figure in struct lido_stats: uint32_t, uint64_t, or struct lido_histogram (nanoseconds), by
                                 * instrument; SIZE_MAX: none */
};
#define LIDO_OTEL_POOL_NAME "db.client.connection.pool.name" /* the attribute that all of them need */

/* Threads: any. Blocks: no. Owns: nobody, the table is constant. Returns: its first row. */
LIDO_API const struct lido_otel_metric *lido_otel_metrics(void);

#ifdef __cplusplus
}
#endif
#endif
