/* pool/codel.h - is the line a burst or a standing queue? The rule of CoDel (controlled delay), by the shortest wait.
 *
 * Over an interval the shortest wait of those served is noted; an empty line counts as no wait. If even the shortest one
 * exceeds the target, the line has stood all the time: for the next interval the pool is `slow`, and whoever has waited
 * for more than twice the target is shed instead of served. A burst that drains in between never gets there.
 */
#ifndef LIDO_POOL_CODEL_H
#define LIDO_POOL_CODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"

struct codel {
        uint64_t ends_ns;     /* of the current interval; 0: none has begun */
        uint64_t shortest_ns; /* of the current interval */
        bool is_slow;         /* decided at the end of the last one */
};

/* The line has become empty. */
static inline void codel_note_empty(struct codel *codel)
{
        codel->shortest_ns = 0;
}

/* At `now`, somebody is served who has waited for `waited_ns`, or, with CLOCK_NEVER, time has just passed. */
static inline void codel_note(struct codel *codel, uint64_t waited_ns, uint64_t now, uint64_t target_ns,
                              uint64_t interval_ns)
{
        if (codel->ends_ns != 0 && now >= codel->ends_ns) {
                codel->is_slow = codel->shortest_ns > target_ns && codel->shortest_ns != CLOCK_NEVER;
                codel->ends_ns = 0;
        }
        if (codel->ends_ns == 0) {
                codel->ends_ns = interval_ns > CLOCK_NEVER - now ? CLOCK_NEVER : now + interval_ns;
                codel->shortest_ns = CLOCK_NEVER;
        }
        codel->shortest_ns = clock_min(codel->shortest_ns, waited_ns);
}

#endif
