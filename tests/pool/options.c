/* The table of options: defaults and ranges. What each option does is tested with what it steers. */
#include "pool/options.h"

#include <string.h>

#include "lido/events.h"
#include "support/suite.h"

static int take(struct lido_pool_options theirs)
{
        struct lido_pool_options ours;

        return options_take(&ours, &theirs, NULL);
}

/* One option with a value that is refused and one that is taken. */
#define CASE(field, bad, good)                                                                                 \
        do {                                                                                                   \
                struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;                                     \
                                                                                                               \
                options.max = 1000000;                                                                         \
                options.field = bad;                                                                           \
                ck_assert_msg(take(options) == LIDO_EINVAL, #field " = " #bad " was taken");                   \
                options.max = 1000000;                                                                         \
                options.field = good;                                                                          \
                ck_assert_msg(take(options) == LIDO_OK, #field " = " #good " was refused");                    \
        } while (0)

START_TEST(no_options_are_all_defaults)
{
        struct lido_pool_options ours, zero = LIDO_POOL_OPTIONS_INIT, of_zero;

        ck_assert_int_eq(options_take(&ours, NULL, NULL), LIDO_OK);
        ck_assert_int_eq(options_take(&of_zero, &zero, NULL), LIDO_OK);

        ck_assert_mem_eq(&ours, &of_zero, sizeof ours);
        ck_assert_uint_eq(ours.size, sizeof ours);
        ck_assert_uint_eq(ours.max, 10);
        ck_assert_uint_eq(ours.min, 0);
        ck_assert_uint_eq(ours.open_limit, 4);
        ck_assert_int_eq(ours.acquire_timeout_ms, 5000);
        ck_assert_int_eq(ours.open_timeout_ms, 10000);
        ck_assert_int_eq(ours.check_timeout_ms, 1000);
        ck_assert_int_eq(ours.idle_timeout_ms, 600000);
        ck_assert_int_eq(ours.lifetime_ms, 1800000);
        ck_assert_uint_eq(ours.lifetime_jitter, 10);
        ck_assert_uint_eq(ours.max_uses, LIDO_UNLIMITED);
        ck_assert_int_eq(ours.backoff_min_ms, 100);
        ck_assert_int_eq(ours.backoff_max_ms, 30000);
        ck_assert_int_eq(ours.overtake_us, 500);
        ck_assert_int_eq(ours.leak_after_ms, LIDO_NEVER);
        ck_assert_uint_eq(ours.event_mask, LIDO_EVENT_ALL);
}
END_TEST

START_TEST(every_option_has_a_range)
{
        CASE(max, 1000001, 1);
        CASE(min, 1000001, 1000000);
        CASE(min_idle, 1000001, 1000000);
        CASE(open_limit, 1000001, 1);
        CASE(acquire_timeout_ms, -2, 1);
        CASE(open_timeout_ms, -3, LIDO_NEVER);
        CASE(check_timeout_ms, INT64_MAX, LIDO_NEVER);
        CASE(reset_timeout_ms, INT64_MIN, 1);
        CASE(close_timeout_ms, -2, 1);
        CASE(idle_timeout_ms, -2, LIDO_NEVER);
        CASE(lifetime_ms, -2, LIDO_NEVER);
        CASE(lifetime_jitter, 101, 100);
        CASE(rest_after_ms, -2, LIDO_NEVER);
        CASE(check_after_ms, -2, LIDO_NEVER);
        CASE(check_interval_ms, -2, LIDO_NEVER);
        CASE(backoff_min_ms, -2, 1);
        CASE(backoff_max_ms, -2, LIDO_NEVER);
        CASE(overtake_us, -2, LIDO_NEVER);
        CASE(order, 2, LIDO_ORDER_FIFO);
        CASE(order, -1, LIDO_ORDER_LIFO);
        CASE(start, 3, LIDO_START_WARM);
        CASE(start_timeout_ms, -2, 1);
        CASE(leak_after_ms, -2, 1);
        CASE(nested, 3, LIDO_NESTED_STRICT);
        CASE(open_inline, 2, 1);
}
END_TEST

START_TEST(no_value_of_a_count_that_may_be_unlimited_is_refused)
{
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;

        options.queue_limit = options.max_uses = LIDO_UNLIMITED;
        ck_assert_int_eq(take(options), LIDO_OK);
        options.queue_limit = options.max_uses = 1;
        ck_assert_int_eq(take(options), LIDO_OK);
}
END_TEST

START_TEST(options_that_contradict_each_other_are_refused)
{
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;

        options.max = 4;
        options.min = 5;
        ck_assert_int_eq(take(options), LIDO_EINVAL);
        options.min = 4;
        ck_assert_int_eq(take(options), LIDO_OK);
        options.min_idle = 5;
        ck_assert_int_eq(take(options), LIDO_EINVAL);
        options.min_idle = 0;
        options.backoff_min_ms = 1000;
        options.backoff_max_ms = 999;
        ck_assert_int_eq(take(options), LIDO_EINVAL);
        options.backoff_max_ms = LIDO_NEVER;
        ck_assert_int_eq(take(options), LIDO_OK);
}
END_TEST

START_TEST(the_least_default_pool_still_fits_its_min)
{
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;

        options.min = 11; /* above the default of max */
        ck_assert_int_eq(take(options), LIDO_EINVAL);
        options.min = 10;
        ck_assert_int_eq(take(options), LIDO_OK);
}
END_TEST

START_TEST(an_older_caller_gets_defaults_for_what_it_lacks)
{
        struct lido_pool_options theirs = LIDO_POOL_OPTIONS_INIT, ours;

        theirs.max = 3;
        theirs.min = 99; /* beyond the size it claims: not to be read */
        theirs.size = offsetof(struct lido_pool_options, min);
        ck_assert_int_eq(options_take(&ours, &theirs, NULL), LIDO_OK);

        ck_assert_uint_eq(ours.max, 3);
        ck_assert_uint_eq(ours.min, 0);
        ck_assert_uint_eq(ours.size, sizeof ours);
}
END_TEST

START_TEST(a_newer_caller_is_told_when_it_asks_for_what_we_lack)
{
        struct {
                struct lido_pool_options known;
                uint64_t unknown;
        } theirs = { LIDO_POOL_OPTIONS_INIT, 0 };
        struct lido_pool_options ours;

        theirs.known.size = sizeof theirs;
        ck_assert_int_eq(options_take(&ours, &theirs.known, NULL), LIDO_OK);
        theirs.unknown = 1;
        ck_assert_int_eq(options_take(&ours, &theirs.known, NULL), LIDO_E2NEW);
}
END_TEST

START_TEST(an_event_mask_is_kept_and_none_means_all)
{
        struct lido_pool_options theirs = LIDO_POOL_OPTIONS_INIT, ours;

        theirs.event_mask = 6;
        ck_assert_int_eq(options_take(&ours, &theirs, NULL), LIDO_OK);
        ck_assert_uint_eq(ours.event_mask, 6);
}
END_TEST

/* ---- as text ----------------------------------------------------------------------------------------------------------- */

static struct lido_pool_options parsed(const char *text)
{
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        struct lido_error error = { .code = 0 };

        if (lido_options_parse(&options, text, &error) != LIDO_OK)
                ck_abort_msg("\"%s\" was refused: %s", text, error.text);
        return options;
}

START_TEST(text_sets_the_options_that_it_names_and_no_other)
{
        struct lido_pool_options options = parsed("max=32 idle_timeout=10min,order=fifo&max_uses=unlimited;leak_after=never\n"
                                                  "lifetime_jitter=none overtake=250us start=fail_fast");
        struct lido_pool_options zero = LIDO_POOL_OPTIONS_INIT;

        ck_assert_uint_eq(options.max, 32);
        ck_assert_int_eq(options.idle_timeout_ms, 600000);
        ck_assert_int_eq(options.order, LIDO_ORDER_FIFO);
        ck_assert_uint_eq(options.max_uses, LIDO_UNLIMITED);
        ck_assert_int_eq(options.leak_after_ms, LIDO_NEVER);
        ck_assert_uint_eq(options.lifetime_jitter, LIDO_NONE);
        ck_assert_int_eq(options.overtake_us, 250);
        ck_assert_int_eq(options.start, LIDO_START_FAIL_FAST);
        ck_assert_int_eq(options.check_after_ms, 0);
        options = parsed(" \t, ");
        ck_assert_mem_eq(&options, &zero, sizeof zero);
}
END_TEST

START_TEST(a_duration_has_a_unit_and_becomes_the_options_own)
{
        ck_assert_int_eq(parsed("lifetime=5ms").lifetime_ms, 5);
        ck_assert_int_eq(parsed("lifetime=5s").lifetime_ms, 5000);
        ck_assert_int_eq(parsed("lifetime=5min").lifetime_ms, 300000);
        ck_assert_int_eq(parsed("lifetime=5h").lifetime_ms, 18000000);
        ck_assert_int_eq(parsed("lifetime=5d").lifetime_ms, 432000000);
        ck_assert_int_eq(parsed("overtake=3ms").overtake_us, 3000);
        ck_assert_int_eq(parsed("lifetime_ms=5").lifetime_ms, 5); /* by the name of the field, which says the unit */
}
END_TEST

START_TEST(text_that_is_wrong_changes_nothing_and_says_what_is_wrong)
{
        static const struct {
                const char *text, *names;
        } cases[] = {
                { "max=0", "max" },          { "max=1000001", "max" },       { "max=", "max" },
                { "max", "max" },            { "max=-1", "max" },            { "max=1x", "max" },
                { "max=99999999999999999999", "max" }, { "lifetime=0s", "lifetime" }, { "lifetime=5weeks", "lifetime" },
                { "lifetime=99999999d", "lifetime" }, { "order=random", "order" }, { "maximum=3", "maximum" },
                { "=3", "" },                { "min=3 max=4 nested=no", "nested" }, { "open_inline=2", "open_inline" },
                { "lifetime=-1s", "lifetime" }, { "lifetime=99999999999999999999999s", "lifetime" }, { "max=unlimited", "max" },
        };

        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
                struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT, before;
                struct lido_error error = { .code = 0 };

                options.max = 7;
                before = options;
                ck_assert_msg(lido_options_parse(&options, cases[i].text, &error) == LIDO_EINVAL, "\"%s\" was taken", cases[i].text);
                ck_assert_mem_eq(&options, &before, sizeof before);
                ck_assert_int_eq(error.code, LIDO_EINVAL);
                ck_assert_msg(strstr(error.text, cases[i].names) != NULL && error.text[0] != '\0', "\"%s\": %s", cases[i].text,
                              error.text);
                ck_assert_int_eq(lido_options_parse(&options, cases[i].text, NULL), LIDO_EINVAL);
        }
        ck_assert_int_eq(lido_options_parse(NULL, "max=1", NULL), LIDO_EINVAL);
}
END_TEST

START_TEST(what_is_printed_is_parsed_as_the_same)
{
        struct lido_pool_options options, again;
        char text[2000], twice[2000];

        ck_assert_int_eq(options_take(&options, NULL, NULL), LIDO_OK);
        options.max = 17;
        options.order = LIDO_ORDER_FIFO;
        options.leak_after_ms = 90000;
        size_t length = lido_options_print(&options, text, sizeof text);
        ck_assert_uint_lt(length, sizeof text);
        again = parsed(text);
        lido_options_print(&again, twice, sizeof twice);

        ck_assert_str_eq(text, twice);
        ck_assert_uint_eq(again.max, 17);
        ck_assert_int_eq(again.leak_after_ms, 90000);
        ck_assert_uint_eq(lido_options_print(&options, twice, 5), length);
        ck_assert_uint_eq(strlen(twice), 4);
}
END_TEST

START_TEST(every_option_that_is_printed_is_described)
{
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        char printed[2000], described[6000];
        unsigned lines = 0, options_seen = 0;

        lido_options_print(&options, printed, sizeof printed);
        ck_assert_uint_lt(lido_options_describe(described, sizeof described), sizeof described);
        for (char *c = described; *c; c++)
                lines += *c == '\n';
        for (char *pair = strtok(printed, " "); pair; pair = strtok(NULL, " ")) {
                *strchr(pair, '=') = '\0';
                ck_assert_msg(strstr(described, pair) != NULL, "%s is not described", pair);
                options_seen++;
        }

        ck_assert_uint_eq(lines, options_seen);
        ck_assert_uint_gt(lines, 30);
}
END_TEST

START_TEST(a_refused_option_is_named_with_its_value_and_range)
{
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT, ours;
        struct lido_error error = { .code = 0 };

        options.lifetime_jitter = 101;
        ck_assert_int_eq(options_take(&ours, &options, &error), LIDO_EINVAL);

        ck_assert_ptr_nonnull(strstr(error.text, "lifetime_jitter"));
        ck_assert_ptr_nonnull(strstr(error.text, "101"));
        ck_assert_ptr_nonnull(strstr(error.text, "100"));
}
END_TEST

int main(void)
{
        return suite_run("pool/options", (const TTest *[]){
                                                 no_options_are_all_defaults,
                                                 every_option_has_a_range,
                                                 no_value_of_a_count_that_may_be_unlimited_is_refused,
                                                 options_that_contradict_each_other_are_refused,
                                                 the_least_default_pool_still_fits_its_min,
                                                 an_older_caller_gets_defaults_for_what_it_lacks,
                                                 a_newer_caller_is_told_when_it_asks_for_what_we_lack,
                                                 an_event_mask_is_kept_and_none_means_all,
                                                 text_sets_the_options_that_it_names_and_no_other,
                                                 a_duration_has_a_unit_and_becomes_the_options_own,
                                                 text_that_is_wrong_changes_nothing_and_says_what_is_wrong,
                                                 what_is_printed_is_parsed_as_the_same,
                                                 every_option_that_is_printed_is_described,
                                                 a_refused_option_is_named_with_its_value_and_range,
                                                 NULL,
                                         });
}
