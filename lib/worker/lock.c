#include "worker/lock.h"

/* A holder needs some 50 ns; one that takes several jobs waits for their cache lines, up to a microsecond. A pause
 * takes 10 to 20 ns, a sleep and a wake cost 5000. */
enum { SPINS = 200 };

void lock_take_slow(struct lock *lock)
{
        for (int i = 0; i < SPINS; i++) {
                uint32_t seen = load_relaxed(&lock->word);

                if (seen == 0 && cas_acquire(&lock->word, &seen, 1))
                        return;
                if (seen == 2)
                        break;
                cpu_relax();
        }
        while (exchange_acquire(&lock->word, 2) != 0)
                park_wait(&lock->word, 2, CLOCK_NEVER);
}

/* The word is free already; the lock may be gone, for whoever slept may have taken it and freed it. */
void lock_give_slow(struct lock *lock)
{
        park_wake(&lock->word, 1);
}
