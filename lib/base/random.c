#include "base/random.h"

#include <sys/random.h>

#include "base/clock.h"

uint64_t random_seed(void)
{
        uint64_t seed;

        if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != (ssize_t)sizeof seed)
                seed = clock_now_ns() ^ (uint64_t)(uintptr_t)&seed;
        return seed;
}
