/* worker/group.h - how many jobs of a set are on their way, and which of them can still be dropped.
 *
 * `pending` counts jobs from submit until after their `done`, in its upper 31 bits; the lowest bit says that somebody
 * sleeps on it. The last leaver takes the group to nothing by one subtraction and reads nothing of it afterwards, for the
 * waiter may free it at that moment: whether to wake is in the very word that was subtracted from.
 */
#ifndef LIDO_WORKER_GROUP_H
#define LIDO_WORKER_GROUP_H

#include "base/atomic.h"
#include "base/list.h"
#include "lido/worker.h"

struct group {
        struct lido_workers *workers; /* constant */
        _Atomic uint32_t pending;     /* see above */
        _Atomic uint32_t is_canceled; /* written under the executor's lock, read anywhere */
        struct list queued;           /* executor's lock: jobs that can be taken, by group_link */
        struct list parked;           /* executor's lock: delayed, or waiting for a lease */
} __attribute__((may_alias));

_Static_assert(sizeof(struct group) <= sizeof(struct lido_group), "struct lido_group has room for it");

static inline struct group *group_of(struct lido_group *group)
{
        return (struct group *)group;
}

/* One job more. Returns: true when a sleeper is to be woken (group_call) once the lock is released, for it may be a
 * worker that can run it. Under the executor's lock. */
bool group_enter_locked(struct lido_group *group);

/* Have the sleepers look again. */
void group_call(struct lido_group *group);

/* One job less. Nothing of the group is read after it. */
void group_leave(struct lido_group *group);

#endif
