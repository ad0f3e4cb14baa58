/* keyed/hash.h - SipHash-2-4: whoever chooses the keys cannot choose where they fall, without the secret. */
#ifndef LIDO_KEYED_HASH_H
#define LIDO_KEYED_HASH_H

#include <stddef.h>
#include <stdint.h>

struct hash_secret {
        uint64_t k0, k1;
};

/* A new secret, from the system's randomness where there is some. */
struct hash_secret hash_secret_new(void);

uint64_t hash_bytes(const struct hash_secret *secret, const void *bytes, size_t size);

#endif
