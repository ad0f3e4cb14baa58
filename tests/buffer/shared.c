/* Shared buffers, and what libuv reads into. */
#include <pthread.h>
#include <unistd.h>
#include <uv.h>

#include "buffer/support.h"

START_TEST(the_last_reference_releases_the_buffer)
{
        struct lido_buffer_pool *pool = fixed_pool(4096, 0);
        char *buffer = must_acquire(pool, 4096);
        lido_slice whole, again, part, part_of_part, bad;

        memcpy(buffer, "hello, world", 13);
        ck_assert_int_eq(lido_slice_share(buffer, 5000, &bad), LIDO_EINVAL);
        ck_assert_int_eq(lido_slice_share(buffer + 1, 5, &bad), LIDO_EINVAL);
        ck_assert_int_eq(lido_slice_share(buffer, 13, &whole), LIDO_OK);
        ck_assert_int_eq(lido_slice_is_unique(whole), 1);
        again = lido_slice_ref(whole);
        ck_assert_int_eq(lido_slice_is_unique(whole), 0);
        ck_assert_int_eq(lido_slice_sub(whole, 7, 6, &part), LIDO_OK);
        ck_assert_int_eq(lido_slice_sub(part, 1, 4, &part_of_part), LIDO_OK);
        ck_assert_int_eq(lido_slice_sub(part, 1, 6, &bad), LIDO_EINVAL);
        ck_assert_int_eq(lido_slice_sub(part, SIZE_MAX, 2, &bad), LIDO_EINVAL);
        ck_assert_int_eq(memcmp(part.data, "world", 6), 0);
        ck_assert_int_eq(memcmp(part_of_part.data, "orld", 4), 0);
        ck_assert_int_eq(lido_slice_release(whole), LIDO_OK);
        ck_assert_int_eq(lido_slice_release(part), LIDO_OK);
        ck_assert_int_eq(lido_slice_release(again), LIDO_OK);
        ck_assert_uint_eq(stats_of(pool).lent, 1);
        ck_assert_int_eq(lido_slice_is_unique(part_of_part), 1);
        ck_assert_int_eq(lido_slice_release(part_of_part), LIDO_OK);
        ck_assert_uint_eq(stats_of(pool).lent, 0);
        ck_assert_int_eq(lido_slice_release(part_of_part), LIDO_EDOUBLE);
        ck_assert_int_eq(lido_slice_release((lido_slice){0}), LIDO_EINVAL);
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(unique_copies_only_what_others_still_see)
{
        struct lido_buffer_options options = plain_options();
        struct lido_buffer_pool *pool = pool_with(&options);
        char *buffer = must_acquire(pool, 100);
        lido_slice mine, theirs;

        memcpy(buffer, "shared", 7);
        ck_assert_int_eq(lido_slice_share(buffer, 7, &mine), LIDO_OK);
        ck_assert_int_eq(lido_slice_unique(&mine), LIDO_OK);
        ck_assert_ptr_eq(mine.data, buffer);
        theirs = lido_slice_ref(mine);
        ck_assert_int_eq(lido_slice_unique(&mine), LIDO_OK);
        ck_assert_ptr_ne(mine.data, buffer);
        mine.data[0] = 'S';
        ck_assert_str_eq(mine.data, "Shared");
        ck_assert_str_eq(theirs.data, "shared");
        lido_slice_release(mine);
        lido_slice_release(theirs);
        ck_assert_uint_eq(stats_of(pool).lent, 0);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(sharing_works_at_the_cap)
{
        struct lido_buffer_pool *pool = fixed_pool(4096, 1);
        void *buffer = must_acquire(pool, 4096);
        lido_slice slice;

        ck_assert_int_eq(lido_slice_share(buffer, 10, &slice), LIDO_OK);
        lido_buffer_pool_free(pool);
        slice.data[9] = 1;
        ck_assert_int_eq(lido_slice_release(slice), LIDO_OK);
}
END_TEST

struct readers {
        lido_slice slice;
        int rounds;
};

static void *read_and_drop(void *context)
{
        struct readers *r = context;

        for (int i = 0; i < r->rounds; i++) {
                lido_slice mine = lido_slice_ref(r->slice), part;

                if (lido_slice_sub(mine, 3, 2, &part) != LIDO_OK || part.data[0] != 'd')
                        ck_abort_msg("a shared byte changed");
                lido_slice_release(mine);
                lido_slice_release(part);
        }
        lido_slice_release(r->slice);
        return NULL;
}

START_TEST(many_threads_share_one_buffer)
{
        struct lido_buffer_pool *pool = fixed_pool(64, 0);
        struct readers readers[4];
        pthread_t threads[4];

        for (int round = 0; round < 20; round++) {
                char *buffer = must_acquire(pool, 64);
                lido_slice first;

                memcpy(buffer, "abcdef", 7);
                ck_assert_int_eq(lido_slice_share(buffer, 7, &first), LIDO_OK);
                for (int i = 0; i < 4; i++) {
                        readers[i] = (struct readers){lido_slice_ref(first), 200};
                        pthread_create(&threads[i], NULL, read_and_drop, &readers[i]);
                }
                lido_slice_release(first);
                for (int i = 0; i < 4; i++)
                        pthread_join(threads[i], NULL);
                ck_assert_uint_eq(stats_of(pool).lent, 0);
        }
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

/* ---- libuv ---- */

struct reader {
        struct lido_buffer_uv from; /* first, for lido_buffer_uv_alloc */
        char text[64];
        size_t length;
        int refused;
};

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
        struct reader *reader = stream->data;

        if (n == UV_ENOBUFS)
                reader->refused++;
        if (n > 0) {
                ck_assert_ptr_eq(lido_buffer_pool_of(buf->base), reader->from.pool);
                memcpy(reader->text + reader->length, buf->base, (size_t)n);
                reader->length += (size_t)n;
        }
        lido_buffer_uv_release(buf);
        if (n < 0)
                uv_close((uv_handle_t *)stream, NULL);
}

/* Read what is written to a pipe until its end. */
static void read_through(struct reader *reader, const char *text)
{
        uv_loop_t loop;
        uv_file ends[2];
        uv_pipe_t pipe;

        ck_assert_int_eq(uv_loop_init(&loop), 0);
        ck_assert_int_eq(uv_pipe(ends, 0, 0), 0);
        ck_assert_int_eq(uv_pipe_init(&loop, &pipe, 0), 0);
        ck_assert_int_eq(uv_pipe_open(&pipe, ends[0]), 0);
        pipe.data = reader;
        ck_assert_int_eq(uv_read_start((uv_stream_t *)&pipe, lido_buffer_uv_alloc, on_read), 0);
        ck_assert_int_eq(write(ends[1], text, strlen(text)), (ssize_t)strlen(text));
        close(ends[1]);
        uv_run(&loop, UV_RUN_DEFAULT);
        ck_assert_int_eq(uv_loop_close(&loop), 0);
}

START_TEST(libuv_reads_into_lent_buffers)
{
        struct lido_buffer_options options = plain_options();
        struct reader reader = {.from = {pool_with(&options), 16}};

        read_through(&reader, "to be read in pieces of sixteen bytes");
        ck_assert_str_eq(reader.text, "to be read in pieces of sixteen bytes");
        ck_assert_uint_eq(stats_of(reader.from.pool).lent, 0);
        ck_assert_uint_gt(stats_of(reader.from.pool).acquired, 2);
        lido_buffer_pool_free(reader.from.pool);
}
END_TEST

START_TEST(libuv_is_told_when_there_is_no_buffer)
{
        struct reader reader = {.from = {fixed_pool(4096, 1), 4096}};
        void *only = must_acquire(reader.from.pool, 1);

        read_through(&reader, "x");
        ck_assert_int_eq(reader.refused, 1);
        must_release(only);
        lido_buffer_uv_release(NULL);
        lido_buffer_pool_free(reader.from.pool);
}
END_TEST

int main(void)
{
        return suite_run("buffer/shared",
                         (const TTest *[]){the_last_reference_releases_the_buffer,
                                           unique_copies_only_what_others_still_see, sharing_works_at_the_cap,
                                           many_threads_share_one_buffer, libuv_reads_into_lent_buffers,
                                           libuv_is_told_when_there_is_no_buffer, NULL});
}
