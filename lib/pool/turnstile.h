/* pool/turnstile.h - one at a time, in order of arrival, with a deadline.
 *
 * Whoever wants several leases at once goes through the turnstile of each place he takes them from: half-filled hands never wait
 * for each other there. It is held across waits, so it is no mutex: it is given from hand to hand, and nobody spins.
 */
#ifndef LIDO_POOL_TURNSTILE_H
#define LIDO_POOL_TURNSTILE_H

#include "base/list.h"
#include "base/mutex.h"

struct turnstile {
        struct mutex lock; /* guards what follows */
        struct list line;  /* of struct waiter */
        bool is_taken;
};

void turnstile_init(struct turnstile *turnstile);

/* Go in. Returns: false when the deadline has passed before. Blocks: until then. */
bool turnstile_enter(struct turnstile *turnstile, uint64_t deadline_ns);

/* Go in if nobody is inside. */
bool turnstile_try(struct turnstile *turnstile);

/* Go out; the next goes in. */
void turnstile_leave(struct turnstile *turnstile);

#endif
