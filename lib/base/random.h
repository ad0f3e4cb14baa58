/* base/random.h - numbers for jitter and for generations: fast, seeded, not for secrets. */
#ifndef LIDO_BASE_RANDOM_H
#define LIDO_BASE_RANDOM_H

#include <stdint.h>

struct random {
        uint64_t state;
};

/* A seed from the system, different in each process and at each call. */
uint64_t random_seed(void);

/* The next 64 bits (splitmix64). */
static inline uint64_t random_next(struct random *random)
{
        uint64_t z = (random->state += UINT64_C(0x9e3779b97f4a7c15));

        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        return z ^ (z >> 31);
}

/* The generator that `random` becomes after n numbers. */
static inline struct random random_after(struct random random, uint64_t n)
{
        return (struct random){ random.state + n * UINT64_C(0x9e3779b97f4a7c15) };
}

/* A number in [0, limit); 0 for a limit of 0. The bias is below 2^-32 for the limits in use here. */
static inline uint64_t random_below(struct random *random, uint64_t limit)
{
        return limit == 0 ? 0 : random_next(random) % limit;
}

#endif
