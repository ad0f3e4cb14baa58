/* demo.h - what the parts of the main job share: demo.c is the story, demo_work.c the borrowers, demo_chaos.c the misfortune. */
#ifndef DEMO_H
#define DEMO_H

#include <lido.h>
#include <lido/pg.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define ACQUIRE_TIMEOUT_MS 1000
#define LOOP_TASKS 8    /* transactions that the event loop has under way */
#define UNKNOWN_MAX 512 /* commits a borrower may never have heard of the end of */

/* How a transaction can end, other than well. */
enum failure {
        FAILED_TIMEOUT_DOWN,  /* no lease in time, and the pool says: server down */
        FAILED_TIMEOUT_BUSY,  /* no lease in time, for another reason */
        FAILED_REFUSED,       /* no lease, at once */
        FAILED_CONNECTION,    /* the connection died in the middle */
        FAILED_COMMIT,        /* ... or while it committed: it may have happened or not */
        FAILED_OTHER,
        FAILURES
};

/* One borrower: a thread, or one of the loop's tasks. Only its own thread writes; read when it has ended. */
struct borrower {
        uint32_t number;
        uint32_t sequence;                /* of its transactions */
        uint64_t done;                    /* commits that the server has acknowledged */
        uint64_t failed[FAILURES];
        uint32_t unknown[UNKNOWN_MAX];    /* sequences of the commits whose end is not known */
        uint32_t unknowns;
        uint64_t longest_ns;              /* the longest transaction, its acquire included */
        uint64_t latest_ns;               /* how late the latest time-out came */
        int refusal;                      /* the latest code of those refused */
        char why[512];                    /* the blame report of a time-out while the server was down */
};

struct demo {
        /* constant once the borrowers run */
        struct lido_pool *pool;
        const char *conninfo, *server_dir;
        uint32_t threads, connections, seconds, run;

        /* everybody */
        _Atomic int is_over;
        _Atomic uint64_t done;
        _Atomic uint64_t wait[LIDO_HISTOGRAM_BUCKETS]; /* how long acquires took, since the last look */

        /* of the chaos thread, read at its end */
        uint64_t back_ns, full_speed_ns; /* when the server was back, and the pool at full speed; 0: never */
        double speed;                    /* transactions a second before the outage */
        int killed;                      /* backends */
};

uint64_t now_ns(void);

/* Run until the demo is over; struct borrower is found behind the argument. */
struct worker {
        struct demo *demo;
        struct borrower it;
        pthread_t thread;
};
void *work_on_thread(void *worker);

/* The event loop: LOOP_TASKS borrowers on one thread. */
struct loop_worker {
        struct demo *demo;
        struct borrower it[LOOP_TASKS];
        pthread_t thread;
};
void *work_on_loop(void *loop_worker);

/* Kill backends, then stop the server and start it again, and measure how the pool takes it. */
void *make_trouble(void *demo);

#endif
