/* The hash of keys. */
#include "support/suite.h"

#include "keyed/hash.h"

START_TEST(it_is_siphash_2_4)
{
        /* the vectors of its authors: secret 00 01 .. 0f, input 00 01 .. */
        static const uint64_t vector[] = { UINT64_C(0x726fdb47dd0e0e31), UINT64_C(0x74f839c593dc67fd),
                                           UINT64_C(0x0d6c8009d9a94f5a), UINT64_C(0x85676696d7fb7e2d) };
        const struct hash_secret secret = { UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908) };
        unsigned char input[16];

        for (unsigned i = 0; i < sizeof input; i++)
                input[i] = (unsigned char)i;
        for (size_t size = 0; size < 4; size++)
                ck_assert_uint_eq(hash_bytes(&secret, input, size), vector[size]);
        ck_assert_uint_eq(hash_bytes(&secret, input, 15), UINT64_C(0xa129ca6149be45e5));
}
END_TEST

START_TEST(each_secret_gives_other_hashes)
{
        struct hash_secret one = hash_secret_new(), two = hash_secret_new();

        ck_assert_uint_ne(one.k0, two.k0);
        ck_assert_uint_ne(hash_bytes(&one, "key", 3), hash_bytes(&two, "key", 3));
}
END_TEST

START_TEST(keys_that_differ_in_length_alone_differ)
{
        struct hash_secret secret = hash_secret_new();
        static const unsigned char zero[16];

        for (size_t a = 0; a < sizeof zero; a++)
                for (size_t b = 0; b < a; b++)
                        ck_assert_uint_ne(hash_bytes(&secret, zero, a), hash_bytes(&secret, zero, b));
}
END_TEST

int main(void)
{
        return suite_run("keyed/hash", (const TTest *[]){
                                               it_is_siphash_2_4,
                                               each_secret_gives_other_hashes,
                                               keys_that_differ_in_length_alone_differ,
                                               NULL,
                                       });
}
