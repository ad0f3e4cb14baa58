/* worker/lock.h - the lock of an executor: held for some tens of instructions, taken for every job.
 *
 * It is one word, so that it shares a cache line with what it guards, and both ends are inline: a job costs two of
 * each, and the calls and the book-keeping of a pthread mutex are a third of its price. A contender looks again for a few
 * microseconds, in which nearly every holder is done, before it sleeps; on one word 0 is free, 1 held, 2 held and somebody may
 * sleep. Not recursive, not fair: whoever is awake takes it.
 */
#ifndef LIDO_WORKER_LOCK_H
#define LIDO_WORKER_LOCK_H

#include "base/assert.h"
#include "base/atomic.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/park.h"

struct CAPABILITY("mutex") lock {
        _Atomic uint32_t word;
};

void lock_take_slow(struct lock *lock);
void lock_give_slow(struct lock *lock);

static inline void lock_take(struct lock *lock) ACQUIRES(*lock) NO_THREAD_SAFETY
{
        uint32_t seen = 0;

        if (__builtin_expect(!cas_acquire(&lock->word, &seen, 1), 0))
                lock_take_slow(lock);
}

static inline void lock_give(struct lock *lock) RELEASES(*lock) NO_THREAD_SAFETY
{
        if (__builtin_expect(exchange_acq_rel(&lock->word, 0) != 1, 0))
                lock_give_slow(lock);
}

#endif
