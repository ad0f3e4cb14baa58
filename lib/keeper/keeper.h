/* keeper/keeper.h - the maintenance actor: it opens, checks, resets and closes, evicts, and ends pools.
 *
 * The keeper is just another borrower. To touch an idle object it claims the slot with the same compare-and-swap as
 * everybody, works on it alone, and puts it back through pool_offer. It knows no event loop: its host calls keeper_turn
 * when it was woken or when the time that the last turn returned has come. All of it runs on one thread.
 *
 * What wakes it is a level, not a message: "somebody waits and there is room", "a slot lies in the inbox". A lost or
 * doubled wake-up changes nothing, for every turn looks at the levels anew.
 *
 * Maintenance is the lowest class: while somebody waits it claims nothing that is idle.
 *
 * Passes. Hot paths read no clock, so ages come from passes over the slots: idle under the generation of the last pass
 * means idle since then. A pass that finds nothing idle but what has rested sets NAPPING in the gate and is the last;
 * whoever then makes a slot idle, or takes a rested one, wakes the keeper, once.
 */
#ifndef LIDO_KEEPER_KEEPER_H
#define LIDO_KEEPER_KEEPER_H

#include "pool/pool.h"

struct keeper {
        struct pool_host host; /* first: the pools know this part */
        struct heap due;       /* keeper's thread */
        struct mutex lock;
        struct list pools;     /* by kept.link; guarded by lock */
        uint64_t suspended_ns; /* how long the machine had been suspended at the last turn; keeper's thread */
        bool is_closed;        /* no pool is taken in any more; guarded by lock */
        /* Have an op begun (op_begin) on a thread that may block. Keeper's thread; constant. */
        void (*begin_blocking)(struct keeper *keeper, struct lido_slot *slot);
};

void keeper_init(struct keeper *keeper, void (*wake)(struct pool_host *host),
                 void (*begin_blocking)(struct keeper *keeper, struct lido_slot *slot));

/* Take a pool in; it is tended from the next turn on. Threads: any. Returns: false when all are being closed. */
bool keeper_add(struct keeper *keeper, struct lido_pool *pool);

/* Do all there is to do. Returns: when to call again at the latest; CLOCK_NEVER: when woken. Keeper's thread. */
uint64_t keeper_turn(struct keeper *keeper, uint64_t now);

/* Close every pool by this deadline. Keeper's thread. */
void keeper_close_all(struct keeper *keeper, uint64_t deadline_ns);

/* Has every pool ended? Keeper's thread. */
bool keeper_is_done(struct keeper *keeper);

/* Is every object that is left lent, and no hook at work? Keeper's thread. */
bool keeper_is_still(struct keeper *keeper);

/* The host is about to go: leave every pool that has not ended to those who still hold its leases, with nothing watched and
 * no letter under way. Keeper's thread. Returns: true when there was none. */
bool keeper_abandon(struct keeper *keeper);

#endif
