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

struct contract {
        const char *name;
        uint32_t most; /* a pool may have so many objects; at least 4 */
        void *data;    /* the description's own */

        /* Open a pool: with `options`, which the suite has filled in as far as it cares; the rest is the factory's. Once a test.
         * Returns: the pool, which the suite gives to lido_pool_free. */
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
