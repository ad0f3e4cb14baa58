/* Zeroing, cookies, poison, guard pages, ASan, Valgrind, leak sampling. Under "make check-valgrind" the claim about
 * Valgrind is more than that it is not there. */
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/thread.h"
#include "buffer/support.h"

#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#else
#define RUNNING_ON_VALGRIND 0
#define VALGRIND_GET_VBITS(memory, bits, bytes) ((void)(memory), (void)(bits), (void)(bytes), 0)
#endif

static int damaged, leaks, leaks_ended;
static char site[256];

static void note(const struct lido_event *event, void *context)
{
        (void)context;
        damaged += event->type == LIDO_EVENT_MISUSE && event->code == LIDO_ESTALE;
        leaks += event->type == LIDO_EVENT_LEAK;
        leaks_ended += event->type == LIDO_EVENT_LEAK_ENDED;
        if (event->site)
                strncpy(site, event->site, sizeof site - 1);
}

static struct lido_buffer_pool *pool_that(uint32_t flags)
{
        struct lido_buffer_options options = LIDO_BUFFER_OPTIONS_INIT;

        options.flags = flags;
        options.on_event = note;
        options.leak_sample = 1;
        options.leak_after_ms = 1;
        return pool_with(&options);
}

static size_t others(const char *memory, size_t bytes, char value)
{
        size_t count = 0;

        for (size_t i = 0; i < bytes; i++)
                count += memory[i] != value;
        return count;
}

START_TEST(nothing_of_what_a_borrower_wrote_is_there_after_a_wiping_release)
{
        struct lido_buffer_pool *pool = pool_that(LIDO_BUFFER_ZERO_ON_RELEASE | LIDO_BUFFER_NO_TOOLS);
        const size_t sizes[] = {16, 100, 5000, 70000, (size_t)2 << 20};

        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
                char *buffer = must_acquire(pool, sizes[i]);
                size_t whole = lido_buffer_bytes(buffer);

                memset(buffer, 's', whole);
                must_release(buffer);
                ck_assert_uint_eq(others(buffer, whole, 0), 0);
                ck_assert_ptr_eq(must_acquire(pool, sizes[i]), buffer);
                ck_assert_uint_eq(others(buffer, whole, 0), 0);
                must_release(buffer);
        }
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(a_clearing_acquire_gives_zeroes)
{
        struct lido_buffer_pool *pool = pool_that(LIDO_BUFFER_ZERO_ON_ACQUIRE);

        for (int round = 0; round < 3; round++) {
                char *buffer = must_acquire(pool, 9000);

                ck_assert_uint_eq(others(buffer, 9000, 0), 0);
                memset(buffer, 7, 9000);
                must_release(buffer);
        }
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(a_cookie_notices_one_byte_too_many)
{
        struct lido_buffer_pool *pool = pool_that(LIDO_BUFFER_COOKIES | LIDO_BUFFER_NO_TOOLS);

        for (size_t bytes = 1; bytes < 3000; bytes += 111) {
                char *buffer = must_acquire(pool, bytes);

                ck_assert_uint_eq(lido_buffer_bytes(buffer), bytes);
                memset(buffer, 1, bytes);
                must_release(buffer);
                ck_assert_int_eq(damaged, 0);
        }
        for (size_t bytes = 1; bytes < 3000; bytes += 111) {
                char *buffer = must_acquire(pool, bytes);
                int before = damaged;

                buffer[bytes] ^= 1;
                must_release(buffer);
                ck_assert_int_eq(damaged, before + 1);
                ck_assert_ptr_nonnull(strstr(site, "support.h:"));
        }
        ck_assert_uint_eq(stats_of(pool).damaged, (uint64_t)damaged);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(poison_notices_a_write_after_release)
{
        struct lido_buffer_pool *pool = pool_that(LIDO_BUFFER_POISON | LIDO_BUFFER_NO_TOOLS);
        char *buffer = must_acquire(pool, 1000);

        must_release(buffer);
        ck_assert_ptr_eq(must_acquire(pool, 1000), buffer);
        ck_assert_int_eq(damaged, 0);
        must_release(buffer);
        buffer[500]++;
        ck_assert_ptr_eq(must_acquire(pool, 1000), buffer);
        ck_assert_int_eq(damaged, 1);
        must_release(buffer);
        lido_buffer_pool_free(pool);
}
END_TEST

/* How a child that does this ends: the signal, or 0. */
static int signal_of(void (*deed)(char *buffer), char *buffer)
{
        int status = 0;
        pid_t child = fork();

        if (child == 0) {
                signal(SIGSEGV, SIG_DFL);
                signal(SIGBUS, SIG_DFL);
                deed(buffer);
                _exit(0);
        }
        waitpid(child, &status, 0);
        return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status) ? SIGSEGV : 0;
}

static void read_first(char *buffer)
{
        *(volatile char *)buffer;
}

static void write_past(char *buffer)
{
        ((volatile char *)buffer)[112] = 1;
}

static void write_before_page(char *buffer)
{
        ((volatile char *)buffer)[-4096] = 1;
}

static void write_last(char *buffer)
{
        ((volatile char *)buffer)[111] = 1;
}

START_TEST(a_guarded_buffer_faults_at_overrun_and_after_release)
{
        struct lido_buffer_pool *pool = pool_that(LIDO_BUFFER_GUARD | LIDO_BUFFER_NO_TOOLS);
        char *buffer = must_acquire(pool, 100); /* rounded to 112 */

        ck_assert_uint_eq(lido_buffer_bytes(buffer), 112);
        ck_assert_int_eq(signal_of(write_last, buffer), 0);
        ck_assert_int_eq(signal_of(write_past, buffer), SIGSEGV);
        ck_assert_int_eq(signal_of(write_before_page, buffer), SIGSEGV);
        must_release(buffer);
        ck_assert_int_eq(signal_of(read_first, buffer), SIGSEGV);
        ck_assert_int_eq(lido_buffer_release(buffer), LIDO_EDOUBLE);
        for (int i = 0; i < 1000; i++)
                must_release(must_acquire(pool, 100));
        ck_assert_uint_le(pool->guard_count, 256);
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

extern int __asan_address_is_poisoned(void const volatile *address) __attribute__((weak));

START_TEST(asan_knows_which_bytes_are_lent)
{
        struct lido_buffer_pool *pool = pool_that(0);
        char *buffer;

        if (!__asan_address_is_poisoned) {
                ck_assert_uint_eq(pool->checks & CHECK_ASAN, 0);
        } else {
                buffer = must_acquire(pool, 4000);
                ck_assert_int_eq(__asan_address_is_poisoned(buffer), 0);
                ck_assert_int_eq(__asan_address_is_poisoned(buffer + 3999), 0);
                must_release(buffer);
                ck_assert_int_eq(__asan_address_is_poisoned(buffer), 1);
                lido_buffer_pool_trim(pool, NULL);
                ck_assert_int_eq(__asan_address_is_poisoned(buffer), 0);
        }
        lido_buffer_pool_free(pool);
}
END_TEST

enum { NOT_ADDRESSABLE = 3 }; /* what VALGRIND_GET_VBITS answers, without a report */

START_TEST(valgrind_knows_which_bytes_are_lent)
{
        struct lido_buffer_pool *pool = pool_that(0);
        unsigned char bits[8];
        char *buffer;

        if (!RUNNING_ON_VALGRIND) {
                ck_assert_uint_eq(pool->checks & CHECK_VALGRIND, 0);
        } else {
                buffer = must_acquire(pool, 4000);
                ck_assert_int_eq(VALGRIND_GET_VBITS(buffer, bits, sizeof bits), 1);
                ck_assert_uint_eq(bits[0], 0xff); /* not defined until it is written */
                buffer[0] = 1;
                ck_assert_int_eq(VALGRIND_GET_VBITS(buffer, bits, 1), 1);
                ck_assert_uint_eq(bits[0], 0);
                must_release(buffer);
                ck_assert_int_eq(VALGRIND_GET_VBITS(buffer, bits, 1), NOT_ADDRESSABLE);
        }
        lido_buffer_pool_free(pool);
}
END_TEST

static int listed;
static struct lido_buffer_trace trace;

static void list(const struct lido_buffer_trace *t, void *context)
{
        (void)context;
        listed++;
        trace = *t;
}

START_TEST(a_leak_is_listed_with_its_sites_and_reported_once)
{
        struct lido_buffer_pool *pool = pool_that(LIDO_BUFFER_LEAKS | LIDO_BUFFER_NO_TOOLS);
        void *a, *b;

        ck_assert_int_eq(lido_buffer_try_acquire(pool, 300, &a), LIDO_OK);
        b = must_acquire(pool, 300);
        must_release(b);
        lido_buffer_touch(a);
        ck_assert_int_eq(lido_buffer_pool_leaks(pool, 0, list, NULL), 1);
        ck_assert_int_eq(listed, 1);
        ck_assert_ptr_eq(trace.buffer, a);
        ck_assert_uint_eq(trace.bytes, 300);
        ck_assert_uint_eq(trace.thread, thread_id());
        ck_assert_ptr_nonnull(strstr(trace.site, "debug.c:"));
        ck_assert_ptr_nonnull(strstr(trace.last_site, "debug.c:"));
        while (lido_buffer_pool_leaks(pool, 1, list, NULL) == 0)
                thread_yield();
        for (int i = 0; i < 3; i++)
                lido_buffer_pool_upkeep(pool);
        ck_assert_int_eq(leaks, 1);
        must_release(a);
        ck_assert_int_eq(leaks_ended, 1);
        ck_assert_int_eq(lido_buffer_release(a), LIDO_EDOUBLE);
        ck_assert_int_eq(lido_buffer_pool_leaks(pool, 0, list, NULL), 0);
        buffers_check(pool);
        lido_buffer_pool_free(pool);
}
END_TEST

START_TEST(one_acquire_in_leak_sample_is_traced)
{
        struct lido_buffer_options options = plain_options();
        struct lido_buffer_pool *pool;
        void *lent[1280];

        options.flags |= LIDO_BUFFER_LEAKS;
        pool = pool_with(&options);
        for (int i = 0; i < 1280; i++)
                lent[i] = must_acquire(pool, 64);
        ck_assert_int_eq(lido_buffer_pool_leaks(pool, 0, list, NULL), 10);
        for (int i = 0; i < 1280; i++)
                must_release(lent[i]);
        ck_assert_int_eq(lido_buffer_pool_leaks(pool, 0, list, NULL), 0);
        lido_buffer_pool_free(pool);
}
END_TEST

static int builds, tears, refuse_build;

static int build(void *buffer, size_t bytes, void *context)
{
        ck_assert_ptr_eq(context, &builds);
        if (refuse_build)
                return -1;
        builds++;
        memset(buffer, 0x11, bytes);
        return 0;
}

static void tear(void *buffer, size_t bytes, void *context)
{
        (void)context;
        ck_assert_uint_eq(others(buffer, bytes, 0x11), 0);
        tears++;
}

START_TEST(a_constructed_state_lasts_from_borrower_to_borrower)
{
        struct lido_buffer_options options = LIDO_BUFFER_OPTIONS_INIT;
        struct lido_buffer_pool *pool;
        void *buffer, *lent[100];
        int before;

        options.buffer_bytes = 256;
        options.construct = build;
        options.destruct = tear;
        options.construct_context = &builds;
        pool = pool_with(&options);
        buffer = must_acquire(pool, 256);
        before = builds;
        for (int i = 0; i < 50; i++) {
                ck_assert_uint_eq(others(buffer, 256, 0x11), 0);
                must_release(buffer);
                ck_assert_ptr_eq(must_acquire(pool, 256), buffer);
        }
        ck_assert_int_eq(builds, before);
        must_release(buffer);
        for (int i = 0; i < 100; i++)
                lent[i] = must_acquire(pool, 1);
        for (int i = 0; i < 100; i++)
                must_release(lent[i]);
        lido_buffer_pool_trim(pool, NULL);
        ck_assert_int_eq(tears, builds);
        refuse_build = 1;
        ck_assert_int_eq(lido_buffer_try_acquire(pool, 1, &buffer), LIDO_EFACTORY);
        refuse_build = 0;
        must_release(must_acquire(pool, 1));
        buffers_check(pool);
        lido_buffer_pool_free(pool);
        ck_assert_int_eq(tears, builds);
}
END_TEST

int main(void)
{
        return suite_run("buffer/debug",
                         (const TTest *[]){nothing_of_what_a_borrower_wrote_is_there_after_a_wiping_release,
                                           a_clearing_acquire_gives_zeroes,
                                           a_cookie_notices_one_byte_too_many,
                                           poison_notices_a_write_after_release,
                                           a_guarded_buffer_faults_at_overrun_and_after_release,
                                           asan_knows_which_bytes_are_lent,
                                           valgrind_knows_which_bytes_are_lent,
                                           a_leak_is_listed_with_its_sites_and_reported_once,
                                           one_acquire_in_leak_sample_is_traced,
                                           a_constructed_state_lasts_from_borrower_to_borrower, NULL});
}
