/* pool/lease.h - how a lease begins and ends; the public half is lido/pool.h. */
#ifndef LIDO_POOL_LEASE_H
#define LIDO_POOL_LEASE_H

#include "pool/waitq.h"

/* What an acquire asks for. */
struct want {
        int64_t timeout_ms;
        uint64_t deadline_ns; /* set before the spin, whose yields may take milliseconds */
        const char *site;
        const char *tag;
        uint64_t label;   /* rather such an object; 0: any */
        uint8_t priority; /* enum lido_priority */
        uint8_t quota;    /* of its tag */
        bool is_elsewhere; /* a request's gift: the stack is the loop's, not the borrower's */
        bool is_many;     /* one of several that are acquired at once: to hold some of them is no mistake */
};

/* A lease carries a generation and nothing else; with other bits it could name a slot in another state than LEASED. */
/* No canary: nothing here has an address, and it would cost as much as the rest. */
#define HOT __attribute__((hot, no_stack_protector, aligned(64)))

static inline bool lease_is_whole(lido_lease lease)
{
        return lease.generation == word_generation(lease.generation);
}

/* Make a lease of a slot that the caller has claimed, having taken the quota: peek if it must be, write down who has it.
 * Returns: false, with the quota put back, when the object turned out to be dead or doubtful, and has been sent away. Borrower's thread. */
bool lease_begin(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation, enum origin origin,
                 const struct want *want, lido_lease *ret_lease);

/* Claim without waiting. Returns: LIDO_OK; LIDO_EEXHAUSTED; what the gate says. */
int lease_claim(struct lido_pool *pool, const struct want *want, lido_lease *ret_lease);

/* Acquire until want->deadline_ns, or without waiting for a timeout of 0. Borrower's thread. */
int lease_acquire(struct lido_pool *pool, struct want *want, lido_lease *ret_lease);

/* The end of a wait that brought a lease: count it. */
void lease_count_wait(struct lido_pool *pool, uint64_t waited_ns);

/* The end of a wait that brought no lease: count it. */
void lease_count_failure(struct lido_pool *pool, int code, uint64_t waited_ns);

#endif
