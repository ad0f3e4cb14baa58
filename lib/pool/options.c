#include "pool/options.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/sized.h"

enum kind { COUNT, DURATION, CHOICE };

struct option {
        const char *name; /* in text; the field of a duration has the unit behind it */
        enum kind kind;
        const char *unit; /* of a count what is counted, of a choice the words for 0, 1, 2 */
        size_t offset;
        int64_t standard, least, most; /* of a DURATION LIDO_NEVER is allowed besides */
        const char *text;
};

#define FIELD(name) offsetof(struct lido_pool_options, name)
#define COUNTED(name, unit, standard, least, most, text)                                                       \
        {                                                                                                      \
                #name, COUNT, unit, FIELD(name), standard, least, most, text                                   \
        }
#define TIMED(name, unit, standard, text)                                                                      \
        {                                                                                                      \
                #name, DURATION, #unit, FIELD(name##_##unit), standard, 1, YEAR, text                          \
        }
#define CHOSEN(name, words, most, text)                                                                        \
        {                                                                                                      \
                #name, CHOICE, words, FIELD(name), 0, 0, most, text                                            \
        }
#define S INT64_C(1000)
#define MINUTE (60 * S)
#define YEAR (366 * 24 * 60 * MINUTE)
#define MANY INT64_C(1000000)

static const struct option table[] = {
        COUNTED(max, "objects", 10, 1, MANY, "objects at most"),
        COUNTED(min, "objects", 0, 0, MANY, "objects kept open"),
        COUNTED(min_idle, "objects", 0, 0, MANY, "objects kept idle beyond those lent"),
        COUNTED(open_limit, "opens", 4, 1, MANY, "opens under way at once"),
        TIMED(acquire_timeout, ms, 5 * S, "how long an acquire waits unless it says so"),
        TIMED(open_timeout, ms, 10 * S, "deadline of an open"),
        TIMED(check_timeout, ms, 1 * S, "deadline of a check"),
        TIMED(reset_timeout, ms, 2 * S, "deadline of a reset"),
        TIMED(close_timeout, ms, 2 * S, "deadline of a close"),
        TIMED(idle_timeout, ms, 10 * MINUTE, "objects not needed for so long are closed"),
        TIMED(lifetime, ms, 30 * MINUTE, "an object lives at most so long"),
        COUNTED(lifetime_jitter, "percent", 10, 0, 100, "taken off the lifetime at random"),
        COUNTED(max_uses, "leases", LIDO_UNLIMITED, 1, LIDO_UNLIMITED, "leases after which an object is closed"),
        TIMED(rest_after, ms, 1 * S, "idle for so long: peeked before it is lent"),
        TIMED(check_after, ms, 30 * S, "idle for so long: checked before it is lent"),
        TIMED(check_interval, ms, 2 * MINUTE, "an idle object is checked so often"),
        TIMED(backoff_min, ms, 100, "pause after a failed open"),
        TIMED(backoff_max, ms, 30 * S, "what the pause grows to"),
        COUNTED(queue_limit, "waiters", LIDO_UNLIMITED, 1, LIDO_UNLIMITED, "waiters at most"),
        TIMED(overtake, us, 500, "newcomers may overtake for so long after short holds"),
        CHOSEN(order, "lifo fifo", LIDO_ORDER_FIFO, "which idle object is lent first"),
        CHOSEN(start, "lazy warm fail_fast", LIDO_START_FAIL_FAST, "whether opening the pool waits for min objects"),
        TIMED(start_timeout, ms, 10 * S, "and for how long"),
        TIMED(leak_after, ms, LIDO_NEVER, "a lease held for so long is reported"),
        CHOSEN(nested, "warn lenient strict", LIDO_NESTED_STRICT, "a thread that waits for what it holds"),
        COUNTED(fail_fast, "", 0, 0, 1, "waiters fail at once while nothing can be opened"),
        COUNTED(open_inline, "", 0, 0, 1, "a borrower opens what it does not find"),
        COUNTED(reserve, "objects", 0, 0, MANY, "objects beyond max, for those who have waited too long"),
        TIMED(reserve_after, ms, 5 * S, "which is so long"),
        TIMED(give_up_after, ms, 5 * MINUTE, "opening has failed for so long: an event"),
        TIMED(reclaim_after, ms, LIDO_NEVER, "a lease held for so long is revoked"),
        TIMED(ageing, ms, 1 * S, "a priority class is worth so much waiting"),
        TIMED(codel_target, ms, LIDO_NEVER, "shed load when the shortest wait exceeds this"),
        TIMED(codel_interval, ms, 2 * S, "over so long"),
        CHOSEN(queue_policy, "reject drop_oldest drop_lowest", LIDO_LINE_DROP_LOWEST, "who goes when the line is full"),
        COUNTED(backtrace_every, "leases", 0, 0, MANY, "one lease in so many has its backtrace kept"),
};
#define OPTIONS (sizeof table / sizeof table[0])

/* ---- values ----------------------------------------------------------------------------------------------- */

static int64_t get(const struct lido_pool_options *options, const struct option *option)
{
        const char *field = (const char *)options + option->offset;

        switch (option->kind) {
        case COUNT:
                return *(const uint32_t *)(const void *)field;
        case DURATION:
                return *(const int64_t *)(const void *)field;
        default:
                return *(const int *)(const void *)field;
        }
}

static void set(struct lido_pool_options *options, const struct option *option, int64_t value)
{
        char *field = (char *)options + option->offset;

        switch (option->kind) {
        case COUNT:
                *(uint32_t *)(void *)field = (uint32_t)value;
                break;
        case DURATION:
                *(int64_t *)(void *)field = value;
                break;
        default:
                *(int *)(void *)field = (int)value;
        }
}

static bool is_possible(const struct option *option, int64_t value)
{
        return (value >= option->least && value <= option->most) || (option->kind == DURATION && value == LIDO_NEVER);
}

/* Nothing, said out loud because 0 means the default. */
static bool is_none(const struct option *option, int64_t value)
{
        return option->kind == COUNT && option->least == 0 && value == LIDO_NONE;
}

static int refuse(struct lido_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int refuse(struct lido_error *error, const char *format, ...)
{
        va_list arguments;

        if (error) {
                *error = (struct lido_error){ .code = LIDO_EINVAL };
                va_start(arguments, format);
                vsnprintf(error->text, sizeof error->text, format, arguments);
                va_end(arguments);
        }
        return LIDO_EINVAL;
}

/* ---- text ------------------------------------------------------------------------------------------------- */

/* The n-th of words that are parted by a space. Returns: its length; 0 when there is none. */
static size_t word_at(const char *words, int64_t n, const char **ret_word)
{
        while (n-- > 0) {
                words = strchr(words, ' ');
                if (!words)
                        return 0;
                words++;
        }
        *ret_word = words;
        return strcspn(words, " ");
}

static size_t put_value(char *text, size_t size, const struct option *option, int64_t value)
{
        const char *word = "?";
        int length;

        if (option->kind == CHOICE) {
                size_t n = word_at(option->unit, value, &word);

                length = snprintf(text, size, "%.*s", (int)n, word);
        } else if (option->kind == DURATION && value < 0) {
                length = snprintf(text, size, "never");
        } else if (option->kind == COUNT && value == LIDO_NONE) {
                length = snprintf(text, size, "none");
        } else if (option->kind == COUNT && value == LIDO_UNLIMITED) {
                length = snprintf(text, size, "unlimited");
        } else if (option->kind == DURATION && strcmp(option->unit, "ms") == 0 && value % MINUTE == 0) {
                length = snprintf(text, size, "%" PRId64 "min", value / MINUTE);
        } else if (option->kind == DURATION && strcmp(option->unit, "ms") == 0 && value % S == 0) {
                length = snprintf(text, size, "%" PRId64 "s", value / S);
        } else {
                length = snprintf(text, size, "%" PRId64 "%s", value, option->kind == DURATION ? option->unit : "");
        }
        return length > 0 ? (size_t)length : 0;
}

static int refuse_range(struct lido_error *error, const struct option *option, int64_t value)
{
        char is[32], least[32], most[32];

        put_value(is, sizeof is, option, value);
        put_value(least, sizeof least, option, option->least);
        put_value(most, sizeof most, option, option->most);
        return refuse(error, "%s=%s is not between %s and %s%s", option->name, is, least, most,
                      option->kind == DURATION ? " (or never)" : "");
}

/* How many of the option's unit there are in one of this text's. 0: it is no unit of time. */
static int64_t unit_in(const struct option *option, const char *unit, size_t length)
{
        static const struct {
                const char *name;
                int64_t us;
        } known[] = { { "us", 1 },
                      { "ms", 1000 },
                      { "s", 1000 * S },
                      { "min", 1000 * MINUTE },
                      { "h", 60 * 1000 * MINUTE },
                      { "d", 24 * 60 * 1000 * MINUTE } };
        int64_t ours = strcmp(option->unit, "us") == 0 ? 1 : 1000;

        if (length == 0)
                return 1;
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
                if (strlen(known[i].name) == length && memcmp(known[i].name, unit, length) == 0)
                        return known[i].us / ours;
        return 0;
}

static bool equals(const char *word, const char *text, size_t length)
{
        return strlen(word) == length && memcmp(word, text, length) == 0;
}

/* Returns: false when the text is no value of this option. */
static bool take_value(const struct option *option, const char *text, size_t length, int64_t *ret_value)
{
        size_t digits = 0;
        int64_t number = 0, unit;

        if (option->kind == CHOICE) {
                const char *word;
                size_t n;

                for (*ret_value = 0; (n = word_at(option->unit, *ret_value, &word)) > 0; ++*ret_value)
                        if (n == length && memcmp(word, text, n) == 0)
                                return true;
                return false;
        }
        if (option->kind == DURATION && equals("never", text, length)) {
                *ret_value = LIDO_NEVER;
                return true;
        }
        if (option->kind == COUNT && equals("none", text, length)) {
                *ret_value = LIDO_NONE;
                return true;
        }
        if (option->kind == COUNT && equals("unlimited", text, length)) {
                *ret_value = LIDO_UNLIMITED;
                return true;
        }
        while (digits < length && text[digits] >= '0' && text[digits] <= '9') {
                if (__builtin_mul_overflow(number, 10, &number) || __builtin_add_overflow(number, text[digits] - '0', &number))
                        return false;
                digits++;
        }
        unit = option->kind == DURATION ? unit_in(option, text + digits, length - digits) : length == digits;
        if (digits == 0 || unit == 0 || __builtin_mul_overflow(number, unit, &number))
                return false;
        *ret_value = number;
        return true;
}

/* By its name in text, or by the name of its field. */
static const struct option *find(const char *name, size_t length)
{
        for (size_t i = 0; i < OPTIONS; i++) {
                size_t n = strlen(table[i].name);

                if (n == length && memcmp(table[i].name, name, n) == 0)
                        return &table[i];
                if (table[i].kind == DURATION && n + 3 == length && memcmp(table[i].name, name, n) == 0 &&
                    name[n] == '_' && memcmp(table[i].unit, name + n + 1, 2) == 0)
                        return &table[i];
        }
        return NULL;
}

static int take_pair(struct lido_pool_options *options, const char *pair, size_t length, struct lido_error *error)
{
        const char *equal = memchr(pair, '=', length);
        size_t name_length = equal ? (size_t)(equal - pair) : length;
        const struct option *option = find(pair, name_length);
        const char *value = pair + name_length + 1;
        int64_t number;

        if (!equal)
                return refuse(error, "\"%.*s\" has no value: name=value is wanted", (int)length, pair);
        if (!option)
                return refuse(error, "there is no option \"%.*s\"", (int)name_length, pair);
        if (!take_value(option, value, length - name_length - 1, &number))
                return refuse(error, "%s=%.*s is no %s", option->name, (int)(length - name_length - 1), value,
                              option->kind == DURATION ? "duration (10min, 500ms, never)"
                              : option->kind == CHOICE ? "choice"
                                                       : "number");
        if (!is_possible(option, number) && !is_none(option, number))
                return refuse_range(error, option, number);
        set(options, option, number);
        return LIDO_OK;
}

int lido_options_parse(struct lido_pool_options *options, const char *text, struct lido_error *ret_error)
{
        struct lido_pool_options ours;
        int rc = LIDO_OK;

        if (!options || !text || options->size < sizeof ours)
                return refuse(ret_error, "no options, or no text");
        ours = *options;
        while (rc == LIDO_OK && *(text += strspn(text, " \t\r\n,;&")) != '\0') {
                size_t length = strcspn(text, " \t\r\n,;&");

                rc = take_pair(&ours, text, length, ret_error);
                text += length;
        }
        if (rc == LIDO_OK)
                *options = ours;
        return rc;
}

static size_t append(char *text, size_t size, size_t length, const char *format, ...)
        __attribute__((format(printf, 4, 5)));

static size_t append(char *text, size_t size, size_t length, const char *format, ...)
{
        va_list arguments;
        int n;

        va_start(arguments, format);
        n = vsnprintf(length < size ? text + length : NULL, length < size ? size - length : 0, format, arguments);
        va_end(arguments);
        return length + (n > 0 ? (size_t)n : 0);
}

size_t lido_options_print(const struct lido_pool_options *options, char *text, size_t size)
{
        size_t length = 0;
        char value[32];

        if (size > 0)
                text[0] = '\0';
        for (size_t i = 0; i < OPTIONS; i++) {
                int64_t number = get(options, &table[i]);

                put_value(value, sizeof value, &table[i], number == 0 ? table[i].standard : number);
                length = append(text, size, length, "%s%s=%s", i == 0 ? "" : " ", table[i].name, value);
        }
        return length;
}

size_t lido_options_describe(char *text, size_t size)
{
        size_t length = 0;
        char standard[32], least[32], most[32];

        if (size > 0)
                text[0] = '\0';
        for (size_t i = 0; i < OPTIONS; i++) {
                const struct option *option = &table[i];

                put_value(standard, sizeof standard, option, option->standard);
                put_value(least, sizeof least, option, option->least);
                put_value(most, sizeof most, option, option->most);
                length = append(text, size, length, "%-16s default %-10s %s to %s%s: %s\n", option->name, standard, least,
                                most, option->kind == DURATION ? " or never" : "", option->text);
        }
        return length;
}

/* ---- validation ------------------------------------------------------------------------------------------- */

static int check_together(const struct lido_pool_options *options, struct lido_error *error)
{
        if (options->min > options->max)
                return refuse(error, "min=%u is above max=%u", options->min, options->max);
        if (options->min_idle > options->max)
                return refuse(error, "min_idle=%u is above max=%u", options->min_idle, options->max);
        if (options->backoff_max_ms != LIDO_NEVER && options->backoff_min_ms > options->backoff_max_ms)
                return refuse(error, "backoff_min=%" PRId64 "ms is above backoff_max=%" PRId64 "ms",
                              options->backoff_min_ms, options->backoff_max_ms);
        if (options->backoff_min_ms == LIDO_NEVER)
                return refuse(error, "backoff_min=never would never open anything again");
        return LIDO_OK;
}

int options_take(struct lido_pool_options *ours, const struct lido_pool_options *theirs, struct lido_error *ret_error)
{
        int rc = sized_take(ours, sizeof *ours, theirs);

        if (rc != LIDO_OK) {
                refuse(ret_error, "%s", rc == LIDO_E2NEW ? lido_strerror(rc) : "options.size was not set");
                if (ret_error)
                        ret_error->code = rc;
                return rc;
        }
        for (size_t i = 0; i < OPTIONS; i++) {
                int64_t value = get(ours, &table[i]);

                if (value == 0)
                        set(ours, &table[i], table[i].standard);
                else if (is_none(&table[i], value))
                        set(ours, &table[i], 0);
                else if (!is_possible(&table[i], value))
                        return refuse_range(ret_error, &table[i], value);
        }
        if (ours->event_mask == 0)
                ours->event_mask = UINT64_MAX;
        return check_together(ours, ret_error);
}
