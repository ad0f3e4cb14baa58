/* desk.h - the keeper at work without an event loop, on a clock that the test moves.
 *
 * The desk owns a struct keeper and one pool. Nothing happens but in desk_turn and desk_pass_time, on the test's own thread, so a
 * day of upkeep takes milliseconds and is the same each time. Because the keeper runs on the test's thread, an acquire that
 * would wait is refused there; lido_acquire_notify stands in line instead, and its deadline is the keeper's.
 */
#ifndef LIDO_TESTS_DESK_H
#define LIDO_TESTS_DESK_H

#include "keeper/keeper.h"
#include "support/clock.h"
#include "support/fixture.h"

struct desk {
        struct keeper keeper;
        struct fixture f; /* without a service */
        struct lido_pool *pool;
        uint32_t wakes;   /* how often the keeper was woken */
        uint32_t turns;   /* and how often desk_pass_time let it work */
        uint32_t blocking; /* ops that were to begin on a helper thread; they are begun at once */
        uint64_t due_ns;  /* when the keeper wants its next turn */
};

/* Clock frozen; fake and options prepared in desk->f; nothing opened. */
struct desk *desk_new(void);
void desk_open(struct desk *desk);

/* Let the keeper do all there is to do now. */
void desk_turn(struct desk *desk);

/* Let time pass, with a turn whenever the keeper wants one or has been woken. */
void desk_pass_time(struct desk *desk, uint64_t ns);

/* Close the pool and see that nothing is left. */
void desk_end(struct desk *desk);

/* An acquire that succeeds at once. */
lido_lease desk_acquire(struct desk *desk);

/* Have `count` objects open and idle. */
void desk_warm_up(struct desk *desk, uint32_t count);

/* A request that stands in line; its callback notes the outcome. */
struct waiting {
        struct lido_request request; /* first: the callback gets it */
        uint32_t calls;
        int status;
        lido_lease lease;
        uint64_t called_ns;
};

int desk_wait(struct desk *desk, struct waiting *w, int64_t timeout_ms);

#endif
