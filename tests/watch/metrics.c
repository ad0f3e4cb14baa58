/* The text for scrapers, read by a parser of our own. */
#include "support/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool/pool.h"
#include "support/toys.h"

static struct lido_service *service;
static struct toys toys;
static struct lido_pool *pool[2];
static char text[65536];

static void set_up(void)
{
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        struct lido_factory factory = toys_factory(&toys);

        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
        options.name = "a\"b\\c\nd";
        options.max = 4;
        ck_assert_int_eq(lido_pool_open(&pool[0], service, &factory, &options), LIDO_OK);
        options.name = "plain";
        ck_assert_int_eq(lido_pool_open(&pool[1], service, &factory, &options), LIDO_OK);
}

static void tear_down(void)
{
        lido_pool_free(pool[0]);
        lido_pool_free(pool[1]);
        lido_service_stop(service, 1000);
}

static size_t write_text(int format)
{
        struct lido_metrics what = LIDO_METRICS_INIT;

        what.pools = pool;
        what.count = 2;
        what.format = format;
        return lido_metrics_write(&what, text, sizeof text);
}

/* ---- the parser --------------------------------------------------------------------------------------------- */

struct sample {
        char name[64];
        char pool[64], key[16], value[32]; /* the label pool, unescaped, and the other one */
        double number;
};

static const char *read_name(const char *at, char *name)
{
        size_t length = strspn(at, "abcdefghijklmnopqrstuvwxyz_");

        ck_assert_uint_gt(length, 0);
        ck_assert_uint_lt(length, 64);
        memcpy(name, at, length);
        name[length] = '\0';
        return at + length;
}

static const char *read_quoted(const char *at, char *value)
{
        ck_assert_int_eq(*at++, '"');
        for (; *at != '"'; at++) {
                ck_assert(*at != '\0' && *at != '\n');
                if (*at != '\\') {
                        *value++ = *at;
                        continue;
                }
                at++;
                ck_assert(*at == '\\' || *at == '"' || *at == 'n');
                *value++ = *at == 'n' ? '\n' : *at;
        }
        *value = '\0';
        return at + 1;
}

static const char *read_sample(const char *at, struct sample *sample)
{
        char key[64], *end;

        memset(sample, 0, sizeof *sample);
        at = read_name(at, sample->name);
        ck_assert_int_eq(*at++, '{');
        at = read_name(at, key);
        ck_assert_str_eq(key, "pool");
        ck_assert_int_eq(*at++, '=');
        at = read_quoted(at, sample->pool);
        if (*at == ',') {
                at = read_name(at + 1, key);
                snprintf(sample->key, sizeof sample->key, "%.15s", key);
                ck_assert_int_eq(*at++, '=');
                at = read_quoted(at, sample->value);
        }
        ck_assert_int_eq(*at++, '}');
        ck_assert_int_eq(*at++, ' ');
        sample->number = strtod(at, &end);
        ck_assert_ptr_ne(end, at);
        ck_assert_int_eq(*end, '\n');
        return end + 1;
}

/* Go over the text: each sample belongs to the family named last. Returns: the samples with this name, of this pool and, if it is
 * not NULL, this other label's value, added up; -1: none. */
static double read_all(const char *name, const char *of_pool, const char *value)
{
        char families[32][64], family[64] = "";
        double sum = -1;
        int count = 0;

        for (const char *at = text; *at;) {
                struct sample sample;

                if (strncmp(at, "# EOF\n", 6) == 0) {
                        ck_assert_str_eq(at, "# EOF\n");
                        break;
                }
                if (strncmp(at, "# HELP ", 7) == 0) {
                        read_name(at + 7, family);
                        for (int i = 0; i < count; i++)
                                ck_assert_str_ne(families[i], family);
                        ck_assert_int_lt(count, 32);
                        strcpy(families[count++], family);
                }
                if (*at == '#') {
                        char again[64];

                        ck_assert(strncmp(at, "# HELP ", 7) == 0 || strncmp(at, "# TYPE ", 7) == 0 || strncmp(at, "# UNIT ", 7) == 0);
                        read_name(at + 7, again);
                        ck_assert_str_eq(again, family);
                        at = strchr(at, '\n') + 1;
                        continue;
                }
                at = read_sample(at, &sample);
                ck_assert_int_eq(strncmp(sample.name, family, strlen(family)), 0);
                if (strcmp(sample.name, name) == 0 && strcmp(sample.pool, of_pool) == 0 &&
                    (!value || strcmp(sample.value, value) == 0))
                        sum = (sum < 0 ? 0 : sum) + sample.number;
        }
        return sum;
}

#define expect(name, of_pool, value, number) ck_assert_double_eq(read_all(name, of_pool, value), number)

/* ---- tests -------------------------------------------------------------------------------------------------- */

START_TEST(a_parser_reads_what_the_pools_did)
{
        lido_lease one, two;

        ck_assert_int_eq(lido_acquire(pool[1], 20000, &one), LIDO_OK);
        ck_assert_int_eq(lido_acquire(pool[1], 20000, &two), LIDO_OK);
        lido_release(one);
        ck_assert_int_eq(lido_release(one), LIDO_EDOUBLE);
        for (int format = 0; format < 2; format++) {
                ck_assert_uint_eq(write_text(format), strlen(text));
                expect("lido_connections", "plain", "used", 1);
                expect("lido_connections", "plain", "idle", 1);
                expect("lido_connections", "plain", NULL, 2);
                expect("lido_connections_max", "plain", NULL, 4);
                expect("lido_acquired_total", "plain", NULL, 2);
                expect("lido_created_total", "plain", NULL, 2);
                expect("lido_create_seconds_count", "plain", NULL, 2);
                expect("lido_misuse_total", "plain", NULL, 1);
                expect("lido_destroyed_total", "plain", NULL, 0);
                expect("lido_destroyed_total", "plain", "stolen", 0);
                expect("lido_acquire_wait_seconds_count", "plain", NULL, 2);
        }
        lido_release(two);
}
END_TEST

START_TEST(a_name_is_escaped)
{
        write_text(LIDO_METRICS_PROMETHEUS);
        ck_assert_ptr_nonnull(strstr(text, "lido_connections_max{pool=\"a\\\"b\\\\c\\nd\"} 4\n"));
        expect("lido_connections_max", "a\"b\\c\nd", NULL, 4);
}
END_TEST

START_TEST(buckets_are_cumulative_and_the_last_is_the_count)
{
        double last = 0, edge = 0;
        int buckets = 0;

        /* a sample of 1.5 us, one of 3 ms, and one of an hour */
        pool_record(&pool[1]->wait_time.sum_ns, &pool[1]->wait_time.max_ns, pool[1]->wait_time.bucket, 1500);
        pool_record(&pool[1]->wait_time.sum_ns, &pool[1]->wait_time.max_ns, pool[1]->wait_time.bucket, 3000000);
        pool_record(&pool[1]->wait_time.sum_ns, &pool[1]->wait_time.max_ns, pool[1]->wait_time.bucket, UINT64_C(3600000000000));
        write_text(LIDO_METRICS_PROMETHEUS);
        expect("lido_acquire_wait_seconds_bucket", "plain", "0.000001024", 0);
        expect("lido_acquire_wait_seconds_bucket", "plain", "0.000002048", 1);
        expect("lido_acquire_wait_seconds_bucket", "plain", "0.002097152", 1);
        expect("lido_acquire_wait_seconds_bucket", "plain", "0.004194304", 2);
        expect("lido_acquire_wait_seconds_bucket", "plain", "68.719476736", 2);
        expect("lido_acquire_wait_seconds_bucket", "plain", "+Inf", 3);
        expect("lido_acquire_wait_seconds_count", "plain", NULL, 3);
        ck_assert_ptr_nonnull(strstr(text, "lido_acquire_wait_seconds_sum{pool=\"plain\"} 3600.0030015\n"));
        for (const char *at = strstr(text, "lido_acquire_wait_seconds_bucket{pool=\"plain\"");
             at && strncmp(at, "lido_acquire_wait_seconds_bucket{pool=\"plain\"", 45) == 0;) {
                struct sample sample;

                at = read_sample(at, &sample);
                ck_assert_double_ge(sample.number, last);
                ck_assert_double_gt(strtod(sample.value, NULL), edge);
                last = sample.number;
                edge = strtod(sample.value, NULL);
                buckets++;
        }
        ck_assert_int_eq(buckets, 28);
}
END_TEST

START_TEST(the_two_formats_are_as_their_standards_say)
{
        static const char golden[] = "# HELP lido_connections Objects of the pool by what is going on with them.\n"
                                     "# TYPE lido_connections gauge\n"
                                     "lido_connections{pool=\"a\\\"b\\\\c\\nd\",state=\"opening\"} 0\n"
                                     "lido_connections{pool=\"a\\\"b\\\\c\\nd\",state=\"idle\"} 0\n";
        size_t length = write_text(LIDO_METRICS_PROMETHEUS);

        ck_assert_int_eq(strncmp(text, golden, strlen(golden)), 0);
        ck_assert_int_eq(text[length - 1], '\n');
        ck_assert_ptr_nonnull(strstr(text, "\n# TYPE lido_acquire_timeouts_total counter\n"));
        ck_assert_ptr_nonnull(strstr(text, "\n# TYPE lido_acquire_wait_seconds histogram\n"));
        ck_assert_ptr_null(strstr(text, "# EOF"));
        ck_assert_str_eq(lido_metrics_content_type(LIDO_METRICS_PROMETHEUS), "text/plain; version=0.0.4; charset=utf-8");

        length = write_text(LIDO_METRICS_OPENMETRICS);
        ck_assert_str_eq(text + length - 6, "# EOF\n");
        ck_assert_ptr_nonnull(strstr(text, "\n# TYPE lido_acquire_timeouts counter\n"));
        ck_assert_ptr_nonnull(strstr(text, "\n# UNIT lido_acquire_wait_seconds seconds\n"));
}
END_TEST

START_TEST(a_small_buffer_gets_the_beginning_and_the_whole_length)
{
        struct lido_metrics what = LIDO_METRICS_INIT;
        char small[40];
        size_t length;

        what.pools = pool;
        what.count = 2;
        length = lido_metrics_write(&what, text, sizeof text);
        for (size_t size = 1; size <= sizeof small; size++) {
                memset(small, 'x', sizeof small);
                ck_assert_uint_eq(lido_metrics_write(&what, small, size), length);
                ck_assert_uint_eq(strlen(small), size - 1);
                ck_assert_mem_eq(small, text, size - 1);
        }
        ck_assert_uint_eq(lido_metrics_write(&what, NULL, 0), length);
}
END_TEST

START_TEST(what_is_not_valid_gives_nothing)
{
        struct lido_metrics what = LIDO_METRICS_INIT;

        ck_assert_uint_eq(lido_metrics_write(NULL, text, sizeof text), 0);
        what.count = 1;
        ck_assert_uint_eq(lido_metrics_write(&what, text, sizeof text), 0);
        what.count = 0;
        what.format = 2;
        ck_assert_uint_eq(lido_metrics_write(&what, text, sizeof text), 0);
        ck_assert_str_eq(text, "");
}
END_TEST

START_TEST(each_name_of_opentelemetry_leads_to_a_family_that_is_written)
{
        int rows = 0;

        write_text(LIDO_METRICS_PROMETHEUS);
        for (const struct lido_otel_metric *row = lido_otel_metrics(); row->name; row++, rows++) {
                char line[96];

                ck_assert_int_eq(strncmp(row->name, "db.client.connection.", 21), 0);
                if (!row->prometheus)
                        continue;
                snprintf(line, sizeof line, "# TYPE %s ", row->prometheus);
                ck_assert_msg(strstr(text, line) != NULL, "%s", row->prometheus);
                ck_assert_uint_lt(row->offset, sizeof(struct lido_stats));
        }
        ck_assert_int_eq(rows, 10);
}
END_TEST

int main(void)
{
        return suite_run_with("watch/metrics",
                              (const TTest *[]){
                                      a_parser_reads_what_the_pools_did,
                                      a_name_is_escaped,
                                      buckets_are_cumulative_and_the_last_is_the_count,
                                      the_two_formats_are_as_their_standards_say,
                                      a_small_buffer_gets_the_beginning_and_the_whole_length,
                                      what_is_not_valid_gives_nothing,
                                      each_name_of_opentelemetry_leads_to_a_family_that_is_written,
                                      NULL,
                              },
                              set_up, tear_down);
}
