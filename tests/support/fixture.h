/* fixture.h - a service, a pool on it and a fake factory, in one line.
 *
 *      struct fixture *f = pool_of(1);
 *      lido_lease lease = must_acquire(f);
 *      ...
 *      fixture_end(f);
 *
 * A test that wants something special fills in what fixture_new has prepared, and opens it then:
 *
 *      struct fixture *f = fixture_new();
 *      f->options.idle_timeout_ms = 50;
 *      fixture_open(f);
 */
#ifndef LIDO_TESTS_FIXTURE_H
#define LIDO_TESTS_FIXTURE_H

#include <pthread.h>

#include "lido.h"
#include "support/fake.h"
#include "support/patience.h"

#define EVENT_TYPES 32

/* What the pool has told, by type. */
struct heard {
        pthread_mutex_t lock; /* guards what follows */
        uint32_t count[EVENT_TYPES];
        struct lido_event last[EVENT_TYPES];
        struct lido_error error[EVENT_TYPES]; /* of the last that had one */
        char reason[LIDO_REASON_SIZE];        /* of the last discard; the others' are constant */
};

struct fixture {
        struct lido_service *service;
        struct lido_pool *pool;
        struct fake fake;
        struct lido_pool_options options;
        struct lido_service_options service_options;
        struct heard heard;
        void (*on_event)(struct fixture *f, const struct lido_event *event); /* called first; NULL: nothing */
};

/* Nothing opened yet: a plain fake, default options, events heard. */
struct fixture *fixture_new(void);

/* Start the service and open the pool. */
void fixture_open(struct fixture *f);

/* fixture_new with this max, and fixture_open. */
struct fixture *pool_of(uint32_t max);

/* Free the pool, stop the service, and see that nothing is left. A pool or service that the test has ended itself it sets to
 * NULL. */
void fixture_end(struct fixture *f);

/* Give the pool back, and wait until the keeper has ended it. */
void fixture_free_pool(struct fixture *f);

lido_lease must_acquire(struct fixture *f);
void must_release(lido_lease lease);
struct fake_object *object_of(lido_lease lease);

/* Have `count` objects open and idle. */
void warm_up(struct fixture *f, uint32_t count);

struct lido_stats stats_of(struct lido_pool *pool);

/* Wait until so many stand in line. */
void await_waiting(struct lido_pool *pool, uint32_t count);

/* Wait until nothing is being opened, checked, reset or closed, then check every invariant. For pools that nobody uses. */
void check_quiet(struct lido_pool *pool);

uint32_t heard(struct fixture *f, int type);
struct lido_event last_heard(struct fixture *f, int type);

/* ---- a thread that acquires ------------------------------------------------------------------------------ */

struct borrower {
        struct lido_pool *pool;
        int64_t timeout_ms;
        int rc;
        lido_lease lease;
        uint64_t began_ns, ended_ns; /* of the acquire, in real time */
        _Atomic bool is_done;
        _Atomic uint32_t *turn;      /* counted up by each that is served; NULL: not wanted */
        uint32_t place;              /* its own turn, from 0 */
        bool releases;               /* at once, after it has noted its place */
        pthread_t thread;
};

/* Acquire on a thread of its own. */
void borrower_start(struct borrower *b, struct lido_pool *pool, int64_t timeout_ms);

/* As borrower_start, and wait until it stands in line behind all who did before. */
void borrower_queue(struct borrower *b, struct lido_pool *pool, int64_t timeout_ms);

/* Wait for its end. Returns: what the acquire returned. */
int borrower_join(struct borrower *b);

#endif
