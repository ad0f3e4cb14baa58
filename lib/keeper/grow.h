/* keeper/grow.h - when to open another object, and how long not to. */
#ifndef LIDO_KEEPER_GROW_H
#define LIDO_KEEPER_GROW_H

#include "keeper/keeper.h"

/* Open what is wanted: never more than those who wait and are not being opened for, than max leaves room for, than
 * open_limit allows; one at a time while opening fails.
 * Returns: when to try again; CLOCK_NEVER: when woken. */
uint64_t grow(struct keeper *keeper, struct lido_pool *pool, uint64_t now);

/* What the limit on live objects does by the clock: it opens the reserve for those who have waited too long, takes it back
 * when nobody waits, and grows again after the server had taken no more. Returns: when to look again. */
uint64_t grow_limit(struct lido_pool *pool, uint64_t now);

/* Opening has failed for so long that somebody should be told. Returns: when that will be. */
uint64_t grow_despair(struct lido_pool *pool, uint64_t now);

/* An open was answered: go on, or pause longer. */
void grow_note(struct lido_pool *pool, int status, int failure, uint64_t now);

#endif
