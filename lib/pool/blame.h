/* pool/blame.h - why an acquire fails, and who holds what it wanted. */
#ifndef LIDO_POOL_BLAME_H
#define LIDO_POOL_BLAME_H

#include "pool/pool.h"

/* Fill the caller's struct, as far as its size goes. `code` is what the acquire returned, LIDO_OK if there was none. */
void blame_fill(struct lido_pool *pool, int code, struct lido_blame *blame);

/* For how long the lease with this word has been held, at least. */
uint64_t blame_held_ns(const struct lido_pool *pool, struct lido_slot *slot, uint64_t word, uint64_t now_ns);

#endif
