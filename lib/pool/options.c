#include "pool/options.h"

#include <stddef.h>

#include "base/sized.h"

enum kind { COUNT, DURATION, CHOICE };

struct option {
        const char *name;
        enum kind kind;
        const char *unit;
        size_t offset;
        int64_t standard, least, most; /* of a DURATION LIDO_NEVER is allowed besides */
};

#define OPTION(name, kind, unit, standard, least, most)                                                        \
        {                                                                                                      \
                #name, kind, unit, offsetof(struct lido_pool_options, name), standard, least, most             \
        }
#define S INT64_C(1000)
#define MINUTE (60 * S)
#define YEAR (366 * 24 * 60 * MINUTE)
#define MANY INT64_C(1000000)

static const struct option table[] = {
        OPTION(max, COUNT, "objects", 10, 1, MANY),
        OPTION(min, COUNT, "objects", 0, 0, MANY),
        OPTION(min_idle, COUNT, "objects", 0, 0, MANY),
        OPTION(open_limit, COUNT, "opens", 4, 1, MANY),
        OPTION(acquire_timeout_ms, DURATION, "ms", 5 * S, 1, YEAR),
        OPTION(open_timeout_ms, DURATION, "ms", 10 * S, 1, YEAR),
        OPTION(check_timeout_ms, DURATION, "ms", 1 * S, 1, YEAR),
        OPTION(reset_timeout_ms, DURATION, "ms", 2 * S, 1, YEAR),
        OPTION(close_timeout_ms, DURATION, "ms", 2 * S, 1, YEAR),
        OPTION(idle_timeout_ms, DURATION, "ms", 10 * MINUTE, 1, YEAR),
        OPTION(lifetime_ms, DURATION, "ms", 30 * MINUTE, 1, YEAR),
        OPTION(lifetime_jitter, COUNT, "percent", 10, 0, 100),
        OPTION(max_uses, COUNT, "leases", LIDO_UNLIMITED, 1, LIDO_UNLIMITED),
        OPTION(rest_after_ms, DURATION, "ms", 1 * S, 1, YEAR),
        OPTION(check_after_ms, DURATION, "ms", 30 * S, 1, YEAR),
        OPTION(check_interval_ms, DURATION, "ms", 2 * MINUTE, 1, YEAR),
        OPTION(backoff_min_ms, DURATION, "ms", 100, 1, YEAR),
        OPTION(backoff_max_ms, DURATION, "ms", 30 * S, 1, YEAR),
        OPTION(queue_limit, COUNT, "waiters", LIDO_UNLIMITED, 1, LIDO_UNLIMITED),
        OPTION(overtake_us, DURATION, "us", 500, 1, 1000 * MINUTE),
        OPTION(order, CHOICE, "", LIDO_ORDER_LIFO, LIDO_ORDER_LIFO, LIDO_ORDER_FIFO),
        OPTION(start, CHOICE, "", LIDO_START_LAZY, LIDO_START_LAZY, LIDO_START_FAIL_FAST),
        OPTION(start_timeout_ms, DURATION, "ms", 10 * S, 1, YEAR),
        OPTION(leak_after_ms, DURATION, "ms", LIDO_NEVER, 1, YEAR),
        OPTION(nested, CHOICE, "", LIDO_NESTED_WARN, LIDO_NESTED_WARN, LIDO_NESTED_STRICT),
        OPTION(open_inline, COUNT, "", 0, 0, 1),
};

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

static int is_possible(const struct option *option, int64_t value)
{
        return (value >= option->least && value <= option->most) || (option->kind == DURATION && value == LIDO_NEVER);
}

int options_take(struct lido_pool_options *ours, const struct lido_pool_options *theirs)
{
        int rc = sized_take(ours, sizeof *ours, theirs);

        if (rc != LIDO_OK)
                return rc;
        for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
                int64_t value = get(ours, &table[i]);

                if (value == 0)
                        set(ours, &table[i], table[i].standard);
                else if (!is_possible(&table[i], value))
                        return LIDO_EINVAL;
        }
        if (ours->event_mask == 0)
                ours->event_mask = UINT64_MAX;
        if (ours->min > ours->max || ours->min_idle > ours->max)
                return LIDO_EINVAL;
        if (ours->backoff_max_ms != LIDO_NEVER && ours->backoff_min_ms > ours->backoff_max_ms)
                return LIDO_EINVAL;
        return LIDO_OK;
}
