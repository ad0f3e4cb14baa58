/* keyed/keyed.h - a pool for each key; the public half is lido/keyed.h.
 *
 * A key has an entry, which owns a pool like any other; its budget does the sharing. What is left for this module is to find the
 * entry, to make it, and to forget it:
 *
 *      (none) --make--> MADE --insert, under the shard's lock--> KNOWN --forget, keyed_free--> GOING --the pool is gone--> (none)
 *                         \--another thread was first------------------------------------------^
 *
 *      MADE     its pool exists and is kept, but nobody can find it
 *      KNOWN    in the table of its shard; borrowers find it, and are guests of its pool from before the lock is given up
 *      GOING    not in the table any more; its pool is freed, and `gone` frees the entry
 *
 * Forgetting. The keeper asks after each look at a pool (`tended`). Under the shard's lock an entry with no guest, nobody in line
 * and no object leaves the table. Whoever is looking for the key at the same time either became a guest before, and then it stays, or
 * finds nothing after, and makes a new one. A borrower who waits, or a request that does, is a guest until its outcome; one who has
 * a lease keeps an object alive. So nobody is ever turned away because a key was forgotten.
 *
 * While a key has no object it costs memory and nothing else, so it is kept for a while (its back-off and counters are worth
 * something), but no more than spare_keys of them.
 *
 * Locks: that of a shard is taken with no other held, and under it nothing is called but memory functions.
 */
#ifndef LIDO_KEYED_KEYED_H
#define LIDO_KEYED_KEYED_H

#include "base/mutex.h"
#include "keyed/hash.h"
#include "keyed/table.h"
#include "lido/keyed.h"
#include "pool/pool.h"

#define SHARDS 16u

struct keyed_entry {
        struct pool_owner owner;   /* first: the pool leads back to its entry */
        struct table_entry entry;  /* guarded by the shard's lock */
        struct lido_keyed *keyed;  /* constant */
        struct lido_pool *pool;    /* set before it is KNOWN, then constant */
        bool is_known;             /* guarded by the shard's lock */
        bool is_spare;             /* keeper: counted in keyed->spare */
        unsigned char key[];       /* constant */
};

struct shard {
        struct mutex lock __attribute__((aligned(64)));
        struct table table; /* guarded by lock */
        bool is_closed;     /* guarded by lock */
};

struct lido_keyed {
        struct shard shard[SHARDS];
        struct hash_secret secret;       /* constant */
        struct lido_service *service;    /* constant */
        struct lido_factory factory;     /* constant; without its end */
        void (*end)(void *context);      /* constant */
        struct lido_pool_options each;   /* constant */
        struct lido_budget *budget;      /* constant */
        bool owns_budget;                /* constant */
        uint32_t spare_keys;             /* constant */
        int64_t forget_after_ms;         /* constant */
        _Atomic uint32_t is_freed;
        _Atomic uint32_t holds;          /* the owner, and every entry */
        _Atomic uint32_t spare;          /* entries without an object or anybody in line */
        _Atomic uint32_t keys;
        _Atomic uint64_t seen, forgotten;
};

/* Assert what holds when nobody is at work. */
void keyed_check(struct lido_keyed *keyed);

#endif
