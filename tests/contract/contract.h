/* contract.h - what every factory promises through the pool, as one suite that any factory can be put through.
 *
 * A factory is described by a struct contract: how to make a pool of it, and what can be done to its objects from outside. What
 * it cannot do (an object that is never dirty, say) it leaves NULL, and the claims about it are passed over. README.md in
 * this folder shows how to plug one in.
 */
#ifndef LIDO_TESTS_CONTRACT_H
#define LIDO_TESTS_CONTRACT_H

#include <stdbool.h>

#include "lido.h"

struct contract;

/* ---- for kinds with an engine of their own ------------------------------------------------------------------------------ */

/* One loan, whatever lends. */
struct lent {
        void *object;     /* another for each of the objects that are lent at a time */
        lido_lease lease; /* a pool's */
        uint64_t own[2];  /* an engine's */
};

#define CONTRACT_UNKNOWN UINT64_MAX /* of what an engine does not count */

struct contract_counts {
        uint64_t live, opened; /* objects that exist; that were ever made */
        uint64_t acquired, misused;
        uint64_t ended_idle, ended_old; /* for want of use; at the end of their lifetime */
};

struct contract_asked {
        struct contract *contract;
        int calls, status;
        struct lent lent;
        uint64_t own[40];
};

/* How an engine that does not lend through lido_acquire does what the suite asks. What it cannot do is NULL. Any thread. */
struct contract_engine {
        int (*acquire)(struct contract *contract, int64_t timeout_ms, struct lent *ret_lent); /* 0: do not wait */
        int (*release)(struct contract *contract, struct lent *lent);
        void (*use)(struct contract *contract, struct lent *lent);
        void (*kill)(struct contract *contract, struct lent *lent); /* what is lent; its release must succeed all the same */
        int (*ask)(struct contract *contract, struct lido_loop *loop, int64_t timeout_ms, struct contract_asked *asked);
        struct contract_counts (*counts)(struct contract *contract);
        int (*close)(struct contract *contract);
        int (*drain)(struct contract *contract, int64_t timeout_ms);
        void (*free)(struct contract *contract);
        uint32_t least;         /* so many objects stay, however idle */
        bool tells_loans_apart; /* a release of an earlier loan is known, though the object is lent again */
        bool is_outlived;       /* `free` while something is lent is allowed, and what is lent stays good */
};

/* ---- the description ----------------------------------------------------------------------------------------------------- */

struct contract {
        const char *name;
        uint32_t most; /* a pool may have so many objects; at least 4 */
        void *data;    /* the description's own */

        const struct contract_engine *engine; /* NULL: it lends through lido_acquire */

        /* Open a pool: with `options`, which the suite has filled in as far as it cares; the rest is the factory's. Once a test.
         * Returns: the pool, which the suite gives to lido_pool_free; NULL when there is an engine, which takes from `options` max and
         * idle_timeout_ms (0: not at all). */
        struct lido_pool *(*open)(struct contract *contract, struct lido_pool_options *options);

        /* The pool has been freed: end what it stood on, and fail the test if anything is left. */
        void (*end)(struct contract *contract);

        /* Do some real work with an object that the caller has to itself; fail the test if it does not work. Any thread. */
        void (*use)(void *object);

        /* Leave it in a state in which the next borrower must not find it; and is it in no such state? Both or neither. */
        void (*soil)(void *object);
        bool (*is_clean)(void *object);

        /* Make it die from outside, idle or lent, without telling the pool. What follows may not be used again. */
        void (*kill)(void *object);

        /* End an object that was detached. */
        void (*drop)(struct contract *contract, void *object);

        /* Before a detach, which the pool's book-keeping cannot see; NULL: nothing. */
        void (*part)(struct contract *contract);

        /* Let every open fail from now on, or none. */
        void (*refuse)(struct contract *contract, bool refuses);

        /* How many objects there are, as the world outside the pool sees it. */
        uint32_t (*alive)(struct contract *contract);
};

/* Run the suite for each, the array ending in NULL. Returns: what main returns. */
int contract_run(const char *name, struct contract *const *contracts);

#endif
