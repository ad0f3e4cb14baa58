/* The system refuses: every allocation and mapping of lib/buffer in turn, once and from then on. Needs
 * LIDO_FAULTS. */
#include "base/fault.h"
#include "buffer/support.h"

#ifdef LIDO_FAULTS

static struct lido_buffer_options options_of(int kind)
{
        struct lido_buffer_options options = plain_options();

        switch (kind) {
        case 1:
                options.buffer_bytes = 8192;
                options.reserve = 3;
                break;
        case 2:
                options.flags |= LIDO_BUFFER_LEAKS | LIDO_BUFFER_COOKIES;
                break;
        case 3:
                options.flags |= LIDO_BUFFER_GUARD;
                break;
        case 4:
                options.buffer_bytes = 8192;
                options.reserve = 2;
                options.mode = LIDO_BUFFER_MODE_RESERVE;
                break;
        default:
                break;
        }
        return options;
}

/* All that asks for memory, going on where it is refused. Returns: how many acquires were served. */
static int use(struct lido_buffer_pool *pool)
{
        const size_t sizes[] = {10, 5000, 8000, 300000, (size_t)3 << 20};
        struct lido_buffer_cache *cache = NULL;
        void *lent[32], *bulk[16];
        lido_slice slice;
        int n = 0, served;

        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
                for (int k = 0; k < 2; k++) {
                        int rc = lido_buffer_try_acquire(pool, sizes[i], &lent[n]);

                        if (rc == LIDO_OK)
                                n++;
                        else
                                ck_assert_msg(rc == LIDO_ENOMEM || rc == LIDO_EINVAL, "%s",
                                              lido_err_name(rc));
                }
        served = n;
        if (lido_buffer_acquire_bulk(pool, 100, 16, bulk) == LIDO_OK)
                ck_assert_int_eq(lido_buffer_release_bulk(bulk, 16), LIDO_OK);
        if (n > 0 && lido_slice_share(lent[n - 1], 1, &slice) == LIDO_OK) {
                n--;
                ck_assert_int_eq(lido_slice_release(slice), LIDO_OK);
        }
        if (lido_buffer_cache_open(&cache, pool) == LIDO_OK) {
                if (lido_buffer_cache_acquire(cache, 50, &lent[n]) == LIDO_OK)
                        ck_assert_int_eq(lido_buffer_cache_release(cache, lent[n]), LIDO_OK);
                lido_buffer_cache_close(cache);
        }
        while (n > 0)
                must_release(lent[--n]);
        lido_buffer_pool_upkeep(pool);
        lido_buffer_pool_trim(pool, NULL);
        return served;
}

static void refuse_each(int kind, enum fault_mode mode)
{
        struct lido_buffer_options options = options_of(kind);
        uint64_t hits = 1;

        for (uint64_t at = 1; at <= hits; at++) {
                struct lido_buffer_pool *pool;
                int rc;

                fault_arm(at, mode);
                rc = lido_buffer_pool_open(&pool, &options);
                if (rc == LIDO_OK)
                        use(pool);
                else
                        ck_assert_int_eq(rc, LIDO_ENOMEM);
                if (fault_disarm() >= at)
                        hits = at + 1;
                if (rc != LIDO_OK)
                        continue;
                ck_assert_int_gt(use(pool), 3); /* what was refused is not held against it */
                buffers_check(pool);
                ck_assert_uint_eq(stats_of(pool).lent, 0);
                lido_buffer_pool_free(pool);
        }
}

START_TEST(whatever_is_refused_once_the_pool_goes_on)
{
        for (int kind = 0; kind < 5; kind++)
                refuse_each(kind, FAULT_ONCE);
}
END_TEST

START_TEST(whatever_is_refused_from_then_on_nothing_is_lost)
{
        for (int kind = 0; kind < 5; kind++)
                refuse_each(kind, FAULT_FROM);
}
END_TEST

int main(void)
{
        return suite_run("buffer/faults",
                         (const TTest *[]){whatever_is_refused_once_the_pool_goes_on,
                                           whatever_is_refused_from_then_on_nothing_is_lost, NULL});
}
#else
int main(void)
{
        return 77; /* skipped: this build has no faults */
}
#endif
