/* sim/borrower.h - the inside of the world, shared by world.c, laws.c, borrow.c and steps.c. */
#ifndef LIDO_SIM_BORROWER_H
#define LIDO_SIM_BORROWER_H

#include "lido/budget.h"
#include "lido/pool.h"
#include "pool/waitq.h"
#include "sim/factory.h"
#include "sim/loop.h"
#include "sim/service.h"
#include "sim/world.h"

#define HELD 4 /* leases that one thread holds at once at most */
#define REQUESTS 2
#define TAG "tagged"

struct held {
        lido_lease lease;
        struct object *object;
        struct factory *factory; /* whose object it is */
        bool is_revoked;
        bool is_tagged;
};

struct borrower {
        int index;
        int coroutine;
        unsigned pool; /* that it borrows from */
        int priority;
        bool is_tagged;
        struct held held[HELD];
        unsigned holds;
        struct held last; /* the lease that ended last */
        bool has_paused;
        bool is_acquiring;
        bool was_stuck; /* at some moment of this acquire, everybody who could have helped was waiting too */
        unsigned calls; /* acquires begun, to tell one wait of a thread from its next */
        struct lido_loop loop;
        struct request {
                struct lido_request request; /* first */
                struct borrower *borrower;
                unsigned pool;
                uint64_t deadline_ns;
                bool is_pending, is_canceled;
        } request[REQUESTS];
};

struct world {
        const struct program *program;
        struct lido_service service;
        struct lido_pool *pool[PROGRAM_POOLS]; /* NULL: not made yet, or gone */
        struct lido_budget *budget;            /* of all, or NULL */
        uint64_t seed;
        bool is_closing, is_paused; /* the first pool */
        bool has_ended;             /* all borrowers have */
        bool has_resized;           /* some pool is of another size than at first */
        unsigned pauses, pausing;   /* begun so far; on their way */
        unsigned calls;             /* borrowers inside the library */
        uint32_t most_quota, most_budget; /* the highest limits so far */
        /* one lease that several may release */
        bool is_shared, was_shared_returned;
        struct held shared;
        unsigned shared_returns;
        struct factory factory[PROGRAM_POOLS];
        struct borrower borrower[PROGRAM_THREADS];
        struct world_books books;
};
extern struct world world;

static inline struct lido_pool *pool_of(const struct borrower *b)
{
        return world.pool[b->pool];
}

/* ---- laws.c ---- */

/* Nobody can go on, and time is about to: nothing that could be done may have been left undone. */
void law_quiet(void *context);

/* Those who sleep in a line now, to be compared with those who still do when somebody else was served, who came at `now_ns`. */
struct line {
        struct lido_pool *pool;
        uint64_t now_ns;
        unsigned count;
        struct pool_waiter *waiter[8];
        uint32_t thread[8];
        unsigned call[8];
};
void law_look_at_line(struct lido_pool *pool, struct line *ret_line);
void law_nobody_was_overtaken(const struct line *before, const struct borrower *by);

/* Does everybody who holds something of the pool wait for something? */
bool law_is_deadlock(unsigned pool);

/* Nobody has more of a quota, nobody opens more of a budget than there is. */
void law_limits(void);

/* All is back: nothing is owed. */
void law_all_is_back(void);
void law_books(void);

/* ---- borrow.c ---- */

void borrow_got(struct borrower *b, unsigned pool, lido_lease lease);
bool borrow_is_expected(int rc);
void borrow_acquire(struct borrower *b, uint32_t us);
void borrow_try(struct borrower *b);
void borrow_many(struct borrower *b, uint32_t us);
void borrow_end(struct borrower *b, int op);
void borrow_release_stale(struct borrower *b);
void borrow_share(struct borrower *b);
void borrow_steal(struct borrower *b);
bool borrow_is_shared(const struct held *held);
bool borrow_has_request(const struct borrower *b);

/* ---- steps.c ---- */

/* The life of a borrower. */
void steps_run(void *borrower);

#endif
