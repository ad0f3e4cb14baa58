/* lido/keyed.h - one pool for each key: a connection pool for each tenant, each shard, each peer.
 *
 *      struct lido_keyed_options options = LIDO_KEYED_OPTIONS_INIT;
 *      struct lido_keyed *tenants;
 *
 *      options.total = 200;
 *      lido_keyed_open(&tenants, service, &factory, &options);
 *      if (lido_keyed_acquire(tenants, LIDO_WISH(name, strlen(name), 1000), &lease) == LIDO_OK) {
 *              use(lido_object(lease));
 *              lido_release(lease);
 *      }
 *
 * A key is some bytes. The pool of a key is made when the key is first asked for, has a line, a max and a min of its own, and
 * shares one limit with all others (lido/budget.h): when that is reached, an idle object of the least recently used key is
 * closed for whoever waits, and what is freed goes to the key that has waited longest. The factory's hooks learn the key from
 * lido_op_key. Millions of keys may be seen while thousands are alive: a key that has no object, no borrower in line, and was not
 * used lately is forgotten, with its memory, its back-off and its counters.
 */
#ifndef LIDO_KEYED_H
#define LIDO_KEYED_H

#include "lido/budget.h"
#include "lido/stats.h"

#ifdef __cplusplus
extern "C" {
#endif

struct lido_keyed;

struct lido_keyed_options {
        size_t size;
        const struct lido_pool_options *each; /* how the pool of each key behaves; NULL: the defaults. Its start must be LAZY, its
                                               * budget NULL, and its min counts until the key is forgotten */
        uint32_t total;             /* objects of all keys at most; default 100. With a budget of your own: 0 */
        uint32_t spare_keys;        /* so many keys without an object are remembered for forget_after_ms, those beyond are forgotten at
                                     * once; default 1000 */
        int64_t forget_after_ms;    /* a key without an object that was not used for so long is forgotten; default 1 min */
        struct lido_budget *budget; /* draw on this one, shared with other pools; default: one of `total` */
};
#define LIDO_KEYED_OPTIONS_INIT LIDO_SIZED(lido_keyed_options)

/* Open keyed pools. The factory is copied, and serves all keys; its end hook is called once, when the last pool is gone after
 * lido_keyed_free.
 * Threads: any. Blocks: no. Owns: the keyed pools are the caller's, to be given to lido_keyed_free.
 * Returns: LIDO_OK; LIDO_EINVAL for an option out of range, or a factory without open or close; LIDO_E2NEW; LIDO_ENOMEM;
 * LIDO_EFORKED. */
LIDO_API int lido_keyed_open(struct lido_keyed **ret_keyed, struct lido_service *service,
                             const struct lido_factory *factory, const struct lido_keyed_options *options);

/* Begin to close: as lido_pool_close, for the pools of all keys.
 * Threads: any. Blocks: no. Owns: the keyed pools stay the caller's. Returns: LIDO_OK; LIDO_EINVAL; LIDO_EFORKED. */
LIDO_API int lido_keyed_close(struct lido_keyed *keyed, int64_t timeout_ms);

/* Wait until keyed pools that were closed have no object left.
 * Threads: any but the loop thread. Blocks: until the deadline. Owns: nobody. Returns: as lido_pool_drain. */
LIDO_API int lido_keyed_drain(struct lido_keyed *keyed, int64_t timeout_ms);

/* Give the keyed pools back, as lido_pool_free does with a pool: leases that are out stay valid.
 * Threads: any. Blocks: no. Owns: they are lido's again. Returns: nothing; NULL is allowed. */
LIDO_API void lido_keyed_free(struct lido_keyed *keyed);

/* What a borrower wishes for: an object of which key, how long to wait for it (as lido_acquire), and from where. A small value,
 * made by LIDO_WISH; the key is copied where it is kept. */
struct lido_wish {
        const void *key;
        size_t key_size;
        int64_t timeout_ms;
        const char *site;
};

#define LIDO_WISH(key, key_size, timeout_ms) lido_wish_at(key, key_size, timeout_ms, LIDO_HERE)
static inline struct lido_wish lido_wish_at(const void *key, size_t key_size, int64_t timeout_ms, const char *site)
{
        struct lido_wish wish;

        wish.key = key;
        wish.key_size = key_size;
        wish.timeout_ms = timeout_ms;
        wish.site = site;
        return wish;
}

/* Acquire a lease of an object of this key; release it as any other.
 * Threads, Blocks, Owns: as lido_acquire.
 * Returns: as lido_acquire; LIDO_EINVAL also for a key longer than LIDO_KEY_MOST; LIDO_ENOMEM when a new key finds none. */
LIDO_API int lido_keyed_acquire(struct lido_keyed *keyed, struct lido_wish wish, lido_lease *ret_lease);
#define LIDO_KEY_MOST 4096

/* The same without blocking, as lido_acquire_async and lido_acquire_notify; cancel by lido_cancel.
 * Threads, Blocks, Owns, Returns: as these; LIDO_ENOMEM when a new key finds none. */
LIDO_API int lido_keyed_acquire_async(struct lido_keyed *keyed, struct lido_wish wish, struct lido_request *request,
                                      lido_acquired_cb callback);
LIDO_API int lido_keyed_acquire_notify(struct lido_keyed *keyed, struct lido_wish wish, struct lido_request *request,
                                       lido_acquired_cb callback);

/* The key of the object that an op is about, for a factory's hooks.
 * Threads: any. Blocks: no. Owns: valid until the op is answered. Returns: the key, and its size in *ret_size; NULL when the op
 * has been answered or its pool has no key. */
LIDO_API const void *lido_op_key(lido_op op, size_t *ret_size);

/* The key of a lease. Threads: any. Blocks: no. Owns: valid until the lease ends. Returns: as lido_op_key. */
LIDO_API const void *lido_lease_key(lido_lease lease, size_t *ret_size);

struct lido_keyed_stats {
        size_t size;
        uint32_t keys;      /* known now */
        uint32_t spare;     /* of these, without an object or anybody in line */
        uint64_t seen;      /* keys that became known, as often as they did */
        uint64_t forgotten;
        struct lido_budget_stats budget; /* of the budget that they draw on */
};
#define LIDO_KEYED_STATS_INIT LIDO_SIZED(lido_keyed_stats)

/* Read the stats of all. Threads: any. Blocks: no. Owns: the struct is the caller's. Returns: LIDO_OK; LIDO_EINVAL; LIDO_EFORKED. */
LIDO_API int lido_keyed_stats(struct lido_keyed *keyed, struct lido_keyed_stats *stats);

/* Read the stats of the pool of one key; all zero for a key that is not known. Does not count as a use.
 * Threads: any. Blocks: no. Owns: the struct is the caller's. Returns: LIDO_OK; LIDO_EINVAL; LIDO_ECLOSED. */
LIDO_API int lido_keyed_key_stats(struct lido_keyed *keyed, const void *key, size_t key_size, struct lido_stats *stats);

#ifdef __cplusplus
}
#endif
#endif
