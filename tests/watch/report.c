/* The blame report in words, and the dump. What is blamed: tests/pool/blame.c. */
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "lido/stats.h"
#include "support/fixture.h"
#include "support/suite.h"

START_TEST(the_report_says_what_stands_in_the_way_who_and_why)
{
        struct lido_blame blame = LIDO_BLAME_INIT;
        char text[1000];

        blame.cause = LIDO_CAUSE_DOWN;
        blame.max = 8;
        blame.waiting = 3;
        blame.last_error_is_set = 1;
        blame.last_error_age_ns = 1500000000;
        strcpy(blame.last_error.text, "connection refused");
        strcpy(blame.last_error.sqlstate, "08006");
        blame.holders = 2;
        blame.holder[0] = (struct lido_holder){ .site = "a.c:1", .thread = 7, .tag = "web", .held_ns = 2000000000 };
        strcpy(blame.discard_reason, "answered with garbage");
        blame.discard_site = "b.c:2";
        blame.discard_age_ns = 2500000000;
        size_t length = lido_blame_text(&blame, text, sizeof text);

        ck_assert_uint_eq(length, strlen(text));
        ck_assert_ptr_nonnull(strstr(text, "last discarded 2.5 s ago at b.c:2: answered with garbage"));
        ck_assert_ptr_nonnull(strstr(text, "server down"));
        ck_assert_ptr_nonnull(strstr(text, "08006 connection refused"));
        ck_assert_ptr_nonnull(strstr(text, "1.5 s ago"));
        ck_assert_ptr_nonnull(strstr(text, "a.c:1 by thread 7 for web for 2.000 s"));
        ck_assert_ptr_nonnull(strstr(text, "max 8"));
        ck_assert_ptr_nonnull(strstr(text, "waiting 3"));
}
END_TEST

START_TEST(a_buffer_too_small_gets_what_fits_and_the_length_of_all)
{
        struct lido_blame blame = LIDO_BLAME_INIT;
        char whole[1000], part[20];
        size_t length = lido_blame_text(&blame, whole, sizeof whole);

        memset(part, 'x', sizeof part);
        ck_assert_uint_eq(lido_blame_text(&blame, part, 10), length);
        ck_assert_uint_eq(strlen(part), 9);
        ck_assert_int_eq(strncmp(part, whole, 9), 0);
        ck_assert_int_eq(part[10], 'x');
        ck_assert_uint_eq(lido_blame_text(&blame, part, 0), length);
}
END_TEST

START_TEST(every_cause_has_its_words_and_an_unknown_one_does_no_harm)
{
        struct lido_blame blame = LIDO_BLAME_INIT;
        char text[1000], last[1000] = "";

        for (blame.cause = LIDO_CAUSE_NONE; blame.cause <= LIDO_CAUSE_QUOTA; blame.cause++) {
                lido_blame_text(&blame, text, sizeof text);
                ck_assert_int_ne(text[0], '?');
                ck_assert_str_ne(text, last);
                strcpy(last, text);
        }
        blame.cause = 1000;
        lido_blame_text(&blame, text, sizeof text);
        ck_assert_int_eq(text[0], '?');
        blame.cause = -1;
        lido_blame_text(&blame, text, sizeof text);
        ck_assert_int_eq(text[0], '?');
}
END_TEST

static struct lido_pool *dumped;
static int dump_to;
static volatile sig_atomic_t dump_result;

static void dump_in_handler(int number)
{
        (void)number;
        dump_result = lido_pool_dump(dumped, dump_to);
}

/* Returns: the text, as long as it fits a pipe. */
static void dump(struct fixture *f, char *text, size_t size, bool in_handler)
{
        int ends[2];
        ssize_t length;

        ck_assert_int_eq(pipe(ends), 0);
        dumped = f->pool;
        dump_to = ends[1];
        if (in_handler) {
                signal(SIGUSR1, dump_in_handler);
                dump_result = 1;
                raise(SIGUSR1);
                ck_assert_int_eq(dump_result, LIDO_OK);
        } else {
                ck_assert_int_eq(lido_pool_dump(f->pool, ends[1]), LIDO_OK);
        }
        close(ends[1]);
        length = read(ends[0], text, size - 1);
        ck_assert_int_gt(length, 0);
        text[length] = '\0';
        close(ends[0]);
}

START_TEST(a_dump_has_a_line_for_the_pool_and_one_for_each_slot)
{
        struct fixture *f = fixture_new();
        char text[4000];
        lido_lease lease;

        f->options.name = "orders";
        f->options.max = 2;
        fixture_open(f);
        warm_up(f, 2);
        ck_assert_int_eq(lido_acquire_at(f->pool, 0, &lease, "site.c:42"), LIDO_OK);
        for (int in_handler = 0; in_handler < 2; in_handler++) {
                dump(f, text, sizeof text, in_handler);
                ck_assert_int_eq(strncmp(text, "pool orders max 2 live 2 waiting 0\n", 35), 0);
                ck_assert_ptr_nonnull(strstr(text, "idle"));
                ck_assert_ptr_nonnull(strstr(text, "leased"));
                ck_assert_ptr_nonnull(strstr(text, "at site.c:42"));
        }
        must_release(lease);
        fixture_end(f);
}
END_TEST

START_TEST(a_dump_to_nowhere_is_an_error_and_nothing_else)
{
        struct fixture *f = pool_of(1);

        ck_assert_int_eq(lido_pool_dump(f->pool, -1), LIDO_EINVAL);
        ck_assert_int_eq(lido_pool_dump(f->pool, 999), LIDO_EINVAL);
        ck_assert_int_eq(lido_pool_dump(NULL, 1), LIDO_EINVAL);
        fixture_end(f);
}
END_TEST

int main(void)
{
        return suite_run("watch/report", (const TTest *[]){
                                                 the_report_says_what_stands_in_the_way_who_and_why,
                                                 a_buffer_too_small_gets_what_fits_and_the_length_of_all,
                                                 every_cause_has_its_words_and_an_unknown_one_does_no_harm,
                                                 a_dump_has_a_line_for_the_pool_and_one_for_each_slot,
                                                 a_dump_to_nowhere_is_an_error_and_nothing_else,
                                                 NULL,
                                         });
}
