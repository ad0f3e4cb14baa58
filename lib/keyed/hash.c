#include "keyed/hash.h"

#include "base/random.h"

static uint64_t rotate(uint64_t x, int bits)
{
        return x << bits | x >> (64 - bits);
}

struct state {
        uint64_t v0, v1, v2, v3;
};

static void round_(struct state *s)
{
        s->v0 += s->v1, s->v1 = rotate(s->v1, 13) ^ s->v0, s->v0 = rotate(s->v0, 32);
        s->v2 += s->v3, s->v3 = rotate(s->v3, 16) ^ s->v2;
        s->v0 += s->v3, s->v3 = rotate(s->v3, 21) ^ s->v0;
        s->v2 += s->v1, s->v1 = rotate(s->v1, 17) ^ s->v2, s->v2 = rotate(s->v2, 32);
}

static void take_in(struct state *s, uint64_t word)
{
        s->v3 ^= word;
        round_(s);
        round_(s);
        s->v0 ^= word;
}

/* Up to eight bytes, the first one lowest, on machines of either order. */
static uint64_t load(const unsigned char *bytes, size_t size)
{
        uint64_t word = 0;

        for (size_t i = 0; i < size; i++)
                word |= (uint64_t)bytes[i] << 8 * i;
        return word;
}

struct hash_secret hash_secret_new(void)
{
        struct hash_secret secret = { random_seed(), random_seed() };

        return secret;
}

uint64_t hash_bytes(const struct hash_secret *secret, const void *bytes, size_t size)
{
        struct state s = { secret->k0 ^ UINT64_C(0x736f6d6570736575), secret->k1 ^ UINT64_C(0x646f72616e646f6d),
                           secret->k0 ^ UINT64_C(0x6c7967656e657261), secret->k1 ^ UINT64_C(0x7465646279746573) };
        const unsigned char *at = bytes;
        size_t rest = size;

        for (; rest >= 8; at += 8, rest -= 8)
                take_in(&s, load(at, 8));
        take_in(&s, load(at, rest) | (uint64_t)size << 56);
        s.v2 ^= 0xff;
        for (int i = 0; i < 4; i++)
                round_(&s);
        return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}
