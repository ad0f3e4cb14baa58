/* The text that a scraper reads. A table says what there is; a family's lines stand together, so each family goes over all pools. */
#include <stdbool.h>
#include <string.h>

#include "base/sized.h"
#include "lido/stats.h"
#include "watch/histogram.h"
#include "watch/text.h"

enum kind { GAUGE, COUNTER, HISTOGRAM, STATES, REASONS };

struct family {
        const char *name; /* without the _total of a counter */
        enum kind kind;
        const char *unit; /* as it ends the name, or NULL */
        size_t offset;    /* in struct lido_stats */
        const char *help;
};

#define AT(field) offsetof(struct lido_stats, field)

static const struct family family[] = {
        { "lido_connections", STATES, NULL, 0, "Objects of the pool by what is going on with them." },
        { "lido_connections_max", GAUGE, NULL, AT(max), "Objects that the pool may have at most." },
        { "lido_pending_requests", GAUGE, NULL, AT(waiting), "Borrowers who stand in line." },
        { "lido_acquired", COUNTER, NULL, AT(acquired), "Leases given." },
        { "lido_acquire_waited", COUNTER, NULL, AT(waited), "Leases given to somebody who stood in line." },
        { "lido_acquire_timeouts", COUNTER, NULL, AT(timed_out), "Acquires that ended by their deadline." },
        { "lido_acquire_canceled", COUNTER, NULL, AT(canceled), "Acquires that were cancelled." },
        { "lido_acquire_refused", COUNTER, NULL, AT(refused), "Acquires that were refused: closed, paused, queue full, shed." },
        { "lido_created", COUNTER, NULL, AT(opened), "Objects opened." },
        { "lido_create_failures", COUNTER, NULL, AT(open_failed), "Opens that failed." },
        { "lido_destroyed", REASONS, NULL, AT(closed), "Objects closed, by reason." },
        { "lido_checked", COUNTER, NULL, AT(checked), "Checks that were answered." },
        { "lido_reset", COUNTER, NULL, AT(reset), "Resets that were answered." },
        { "lido_misuse", COUNTER, NULL, AT(misused), "Releases and answers that were refused: double, stale, foreign." },
        { "lido_leaks", COUNTER, NULL, AT(leaked), "Leases reported as leaked." },
        { "lido_acquire_wait_seconds", HISTOGRAM, "seconds", AT(wait), "Time in line until the outcome." },
        { "lido_create_seconds", HISTOGRAM, "seconds", AT(open_time), "Time that opens took which succeeded." },
};

static const struct {
        const char *name;
        size_t offset;
} state[] = {
        { "opening", AT(opening) }, { "idle", AT(idle) },           { "used", AT(leased) },
        { "checking", AT(checking) }, { "resetting", AT(resetting) }, { "closing", AT(closing) },
};

/* A label's value: backslash, quote and newline are escaped. */
static void add_value(struct text *text, const char *value)
{
        for (; *value; value++) {
                if (*value == '\n')
                        text_add(text, "\\n");
                else if (*value == '\\' || *value == '"')
                        text_add(text, "\\%c", *value);
                else
                        text_add(text, "%c", *value);
        }
}

/* Seconds, exactly: nanoseconds are nine decimal places, and a locale is not asked for its decimal point. */
static void add_seconds(struct text *text, uint64_t ns)
{
        char digits[10];
        size_t length = 9;

        snprintf(digits, sizeof digits, "%09llu", (unsigned long long)(ns % 1000000000));
        while (length > 1 && digits[length - 1] == '0')
                length--;
        text_add(text, "%llu.%.*s", (unsigned long long)(ns / 1000000000), (int)length, digits);
}

/* name_suffix{pool="...",key="value"} - the value of the sample is the caller's to add. */
static void begin_sample(struct text *text, const char *name, const char *suffix, const char *pool)
{
        text_add(text, "%s%s{pool=\"", name, suffix);
        add_value(text, pool);
        text_add(text, "\"");
}

static uint64_t number(const struct lido_stats *stats, size_t offset, bool is_wide)
{
        const char *at = (const char *)stats + offset;

        return is_wide ? *(const uint64_t *)(const void *)at : *(const uint32_t *)(const void *)at;
}

static void end_sample(struct text *text, uint64_t value)
{
        text_add(text, "} %llu\n", (unsigned long long)value);
}

/* One line a doubling from a microsecond to a minute: every fourth edge, so that counts are exact. */
static void add_histogram(struct text *text, const struct family *f, const char *pool, const struct lido_histogram *histogram)
{
        uint64_t below = 0;

        for (unsigned i = 0; i < LIDO_HISTOGRAM_BUCKETS; i++) {
                uint64_t edge = histogram_edge_ns(i);

                below += histogram->bucket[i];
                if (i % 4 != 3 || edge < 1024 || edge > UINT64_C(1) << 36)
                        continue;
                begin_sample(text, f->name, "_bucket", pool);
                text_add(text, ",le=\"");
                add_seconds(text, edge);
                text_add(text, "\"");
                end_sample(text, below);
        }
        begin_sample(text, f->name, "_bucket", pool);
        text_add(text, ",le=\"+Inf\"");
        end_sample(text, histogram->count);
        begin_sample(text, f->name, "_sum", pool);
        text_add(text, "} ");
        add_seconds(text, histogram->sum_ns);
        text_add(text, "\n");
        begin_sample(text, f->name, "_count", pool);
        end_sample(text, histogram->count);
}

static void add_pool(struct text *text, const struct family *f, struct lido_pool *pool)
{
        struct lido_stats stats = LIDO_STATS_INIT;
        const char *name = lido_pool_name(pool);

        if (lido_pool_stats(pool, &stats) != LIDO_OK)
                return;
        switch (f->kind) {
        case GAUGE:
        case COUNTER:
                begin_sample(text, f->name, f->kind == COUNTER ? "_total" : "", name);
                end_sample(text, number(&stats, f->offset, f->kind == COUNTER));
                break;
        case STATES:
                for (size_t i = 0; i < sizeof state / sizeof state[0]; i++) {
                        begin_sample(text, f->name, "", name);
                        text_add(text, ",state=\"%s\"", state[i].name);
                        end_sample(text, number(&stats, state[i].offset, false));
                }
                break;
        case REASONS:
                for (int i = 0; i < LIDO_CLOSE_REASONS && lido_close_reason_name(i)[0] != '?'; i++) {
                        begin_sample(text, f->name, "_total", name);
                        text_add(text, ",reason=\"%s\"", lido_close_reason_name(i));
                        end_sample(text, stats.closed[i]);
                }
                break;
        default:
                add_histogram(text, f, name,
                              (const struct lido_histogram *)(const void *)((const char *)&stats + f->offset));
        }
}

static void add_head(struct text *text, const struct family *f, int format)
{
        bool is_counter = f->kind == COUNTER || f->kind == REASONS;
        const char *suffix = is_counter && format == LIDO_METRICS_PROMETHEUS ? "_total" : "";
        const char *type = is_counter ? "counter" : f->kind == HISTOGRAM ? "histogram" : "gauge";

        text_add(text, "# HELP %s%s %s\n# TYPE %s%s %s\n", f->name, suffix, f->help, f->name, suffix, type);
        if (f->unit && format == LIDO_METRICS_OPENMETRICS)
                text_add(text, "# UNIT %s %s\n", f->name, f->unit);
}

size_t lido_metrics_write(const struct lido_metrics *what, char *text, size_t size)
{
        struct lido_metrics ours;
        struct text t;

        text_init(&t, text, text ? size : 0);
        if (!what || (!text && size > 0) || sized_take(&ours, sizeof ours, what) != LIDO_OK ||
            (!ours.pools && ours.count > 0) || ours.format < LIDO_METRICS_PROMETHEUS || ours.format > LIDO_METRICS_OPENMETRICS)
                return 0;
        for (size_t i = 0; i < sizeof family / sizeof family[0]; i++) {
                add_head(&t, &family[i], ours.format);
                for (uint32_t k = 0; k < ours.count; k++)
                        add_pool(&t, &family[i], ours.pools[k]);
        }
        if (ours.format == LIDO_METRICS_OPENMETRICS)
                text_add(&t, "# EOF\n");
        return t.length;
}

const char *lido_metrics_content_type(int format)
{
        return format == LIDO_METRICS_OPENMETRICS ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                                                  : "text/plain; version=0.0.4; charset=utf-8";
}

/* ---- OpenTelemetry ---------------------------------------------------------------------------------------- */

#define CONNECTION "db.client.connection."

static const struct lido_otel_metric otel[] = {
        { CONNECTION "count", LIDO_OTEL_UPDOWNCOUNTER, "{connection}", "idle", "lido_connections", AT(idle) },
        { CONNECTION "count", LIDO_OTEL_UPDOWNCOUNTER, "{connection}", "used", "lido_connections", AT(leased) },
        { CONNECTION "idle.max", LIDO_OTEL_UPDOWNCOUNTER, "{connection}", NULL, "lido_connections_max", AT(max) },
        { CONNECTION "idle.min", LIDO_OTEL_UPDOWNCOUNTER, "{connection}", NULL, NULL, SIZE_MAX },
        { CONNECTION "max", LIDO_OTEL_UPDOWNCOUNTER, "{connection}", NULL, "lido_connections_max", AT(max) },
        { CONNECTION "pending_requests", LIDO_OTEL_UPDOWNCOUNTER, "{request}", NULL, "lido_pending_requests", AT(waiting) },
        { CONNECTION "timeouts", LIDO_OTEL_COUNTER, "{timeout}", NULL, "lido_acquire_timeouts_total", AT(timed_out) },
        { CONNECTION "create_time", LIDO_OTEL_HISTOGRAM, "s", NULL, "lido_create_seconds", AT(open_time) },
        { CONNECTION "wait_time", LIDO_OTEL_HISTOGRAM, "s", NULL, "lido_acquire_wait_seconds", AT(wait) },
        { CONNECTION "use_time", LIDO_OTEL_HISTOGRAM, "s", NULL, NULL, SIZE_MAX }, /* would cost each lease two readings of the clock */
        { NULL, 0, NULL, NULL, NULL, SIZE_MAX },
};

const struct lido_otel_metric *lido_otel_metrics(void)
{
        return otel;
}
