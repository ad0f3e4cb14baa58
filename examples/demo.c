/* demo.c - the main job: many threads and one event loop share a few PostgreSQL connections, while these are killed and
 * the server is restarted; and then the books are checked.
 *
 * Each transaction changes an account and a teller by the same amount and writes it down in the history. Whatever happens,
 * the three sums agree at the end, and every commit that the server has acknowledged is in the history.
 */
#define _GNU_SOURCE
#include "demo.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MS UINT64_C(1000000)
#define HANG_S 15 /* a borrower that has not come back by then, hangs */

uint64_t now_ns(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static const char *const failure_name[FAILURES] = {
        [FAILED_TIMEOUT_DOWN] = "no lease in time: server down",
        [FAILED_TIMEOUT_BUSY] = "no lease in time: other causes",
        [FAILED_REFUSED] = "no lease, refused at once",
        [FAILED_CONNECTION] = "connection lost in mid-transaction",
        [FAILED_COMMIT] = "connection lost in mid-commit",
        [FAILED_OTHER] = "statement failed",
};

/* ---- the live line ------------------------------------------------------------------------------------------- */

static double quantile_ms(const uint64_t *bucket, double quantile)
{
        uint64_t count = 0, below = 0;

        for (int i = 0; i < LIDO_HISTOGRAM_BUCKETS; i++)
                count += bucket[i];
        for (int i = 0; i < LIDO_HISTOGRAM_BUCKETS; i++) {
                below += bucket[i];
                if (count > 0 && (double)below >= quantile * (double)count)
                        return (double)((UINT64_C(4) + (unsigned)i % 4) << (i / 4)) / 1e6;
        }
        return 0;
}

static void print_line(struct demo *demo, uint32_t second, uint64_t done)
{
        struct lido_stats stats = LIDO_STATS_INIT;
        uint64_t bucket[LIDO_HISTOGRAM_BUCKETS];

        for (int i = 0; i < LIDO_HISTOGRAM_BUCKETS; i++)
                bucket[i] = atomic_exchange(&demo->wait[i], 0);
        lido_pool_stats(demo->pool, &stats);
        printf("%3u s  %6llu done/s  waiting %3u  idle %2u  leased %2u  opening %2u  acquire p50 %8.3f ms  p99 %8.3f ms\n",
               second, (unsigned long long)done, stats.waiting, stats.idle, stats.leased, stats.opening,
               quantile_ms(bucket, 0.5), quantile_ms(bucket, 0.99));
        fflush(stdout);
}

static void watch(struct demo *demo)
{
        uint64_t began_ns = now_ns(), before = 0;

        for (uint32_t second = 1; second <= demo->seconds; second++) {
                uint64_t due = began_ns + second * UINT64_C(1000000000), done;

                while (now_ns() < due)
                        usleep(1000);
                done = atomic_load(&demo->done);
                print_line(demo, second, done - before);
                before = done;
        }
        atomic_store(&demo->is_over, 1);
}

/* ---- the books ----------------------------------------------------------------------------------------------- */

static long long ask(PGconn *conn, const char *sql)
{
        PGresult *result = PQexec(conn, sql);
        long long answer = PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1
                                   ? strtoll(PQgetvalue(result, 0, 0), NULL, 10)
                                   : -1;

        if (PQresultStatus(result) != PGRES_TUPLES_OK)
                fprintf(stderr, "demo: %s", PQerrorMessage(conn));
        PQclear(result);
        return answer;
}

static void add_up(struct borrower *sum, const struct borrower *it)
{
        sum->done += it->done;
        sum->unknowns += it->unknowns;
        for (int i = 0; i < FAILURES; i++)
                sum->failed[i] += it->failed[i];
        if (it->longest_ns > sum->longest_ns)
                sum->longest_ns = it->longest_ns;
        if (it->latest_ns > sum->latest_ns)
                sum->latest_ns = it->latest_ns;
        if (it->refusal != LIDO_OK)
                sum->refusal = it->refusal;
        if (it->why[0] && !sum->why[0])
                memcpy(sum->why, it->why, sizeof sum->why);
}

/* How many of the commits whose end nobody heard of did happen. */
static long long count_unknown(PGconn *conn, const struct demo *demo, const struct borrower *it)
{
        long long found = 0;

        for (uint32_t i = 0; i < it->unknowns; i++) {
                char sql[160];

                snprintf(sql, sizeof sql, "select count(*) from pgbench_history where filler = '%u.%u.%u'", demo->run,
                         it->number, it->unknown[i]);
                found += ask(conn, sql);
        }
        return found;
}

/* Acknowledged commits that are not in the history, plus history that nobody has committed. */
static long long count_lost(const struct demo *demo, const struct worker *workers, const struct loop_worker *loop,
                            const struct borrower *sum)
{
        PGconn *conn = PQconnectdb(demo->conninfo);
        long long unknown = 0, written, lost, accounts, tellers, history;
        char sql[160];

        for (uint32_t i = 0; i < demo->threads; i++)
                unknown += count_unknown(conn, demo, &workers[i].it);
        for (int i = 0; i < LOOP_TASKS; i++)
                unknown += count_unknown(conn, demo, &loop->it[i]);
        snprintf(sql, sizeof sql, "select count(*) from pgbench_history where filler like '%u.%%'", demo->run);
        written = ask(conn, sql);
        lost = llabs((long long)sum->done + unknown - written);
        accounts = ask(conn, "select sum(abalance) from pgbench_accounts");
        tellers = ask(conn, "select sum(tbalance) from pgbench_tellers");
        history = ask(conn, "select coalesce(sum(delta), 0) from pgbench_history");
        printf("money: accounts %lld, tellers %lld, history %lld: %s\n", accounts, tellers, history,
               accounts == tellers && tellers == history ? "conserved" : "NOT CONSERVED");
        printf("commits: %lld in the history; %llu acknowledged, %lld of %u unacknowledged ones happened all the same\n",
               written, (unsigned long long)sum->done, unknown, sum->unknowns);
        if (accounts != tellers || tellers != history)
                lost++;
        PQfinish(conn);
        return lost;
}

/* ---- the end ------------------------------------------------------------------------------------------------- */

static int join(pthread_t thread)
{
        struct timespec limit;

        clock_gettime(CLOCK_REALTIME, &limit);
        limit.tv_sec += HANG_S;
        return pthread_timedjoin_np(thread, NULL, &limit) != 0;
}

/* With nobody left to borrow, the connections are not needed, and go. Returns: how many were evicted. */
static unsigned long long evict(struct demo *demo, struct lido_pool_options *options)
{
        struct lido_stats stats = LIDO_STATS_INIT;
        uint64_t deadline = now_ns() + 5000 * MS;

        options->idle_timeout_ms = 400;
        options->rest_after_ms = 50;
        options->min = 0;
        if (lido_pool_reconfigure(demo->pool, options, NULL) != LIDO_OK)
                return 0;
        do {
                usleep(10000);
                lido_pool_stats(demo->pool, &stats);
        } while (stats.live > 0 && now_ns() < deadline);
        return stats.closed[LIDO_CLOSE_IDLE];
}

/* Leases that never came back, and connections that the server still has after the pool is gone. */
static long long count_leaked(struct demo *demo, struct lido_service *service)
{
        struct lido_stats stats = LIDO_STATS_INIT;
        uint64_t deadline = now_ns() + 5000 * MS;
        long long left;
        PGconn *conn;

        lido_pool_stats(demo->pool, &stats);
        lido_pool_free(demo->pool);
        lido_service_stop(service, 5000);
        conn = PQconnectdb(demo->conninfo);
        do {
                left = ask(conn, "select count(*) from pg_stat_activity where application_name = 'lido-demo'");
                usleep(10000);
        } while (left != 0 && now_ns() < deadline);
        PQfinish(conn);
        return left + stats.leased;
}

static int report(struct demo *demo, const struct borrower *sum, long long lost, long long leaked, int hung)
{
        uint64_t errors = 0;
        long long recovered_ms = -1;

        for (int i = 0; i < FAILURES; i++) {
                errors += sum->failed[i];
                if (sum->failed[i] > 0)
                        printf("errors: %6llu  %s\n", (unsigned long long)sum->failed[i], failure_name[i]);
        }
        if (sum->refusal != LIDO_OK)
                printf("refused means: %s\n", lido_strerror(sum->refusal));
        if (sum->why[0])
                printf("a borrower was told: %s\n", sum->why);
        printf("longest stall: %.3f s (an acquire may wait %.3f s); the latest time-out came %.1f ms after its deadline\n",
               (double)sum->longest_ns / 1e9, ACQUIRE_TIMEOUT_MS / 1e3, (double)sum->latest_ns / 1e6);
        if (demo->full_speed_ns > 0) {
                recovered_ms = (long long)(demo->full_speed_ns - demo->back_ns) / (long long)MS;
                recovered_ms = recovered_ms < 0 ? 0 : recovered_ms;
                printf("the server was back; %lld ms later the pool was at full speed (%.0f done/s before)\n", recovered_ms,
                       demo->speed);
        } else if (demo->back_ns > 0) {
                printf("the server was back, and full speed (%.0f done/s) was not reached again\n", demo->speed);
        }
        printf("result: transactions=%llu errors=%llu lost=%lld hung=%d leaked=%lld recovered_ms=%lld\n",
               (unsigned long long)sum->done, (unsigned long long)errors, lost, hung, leaked, recovered_ms);
        return lost != 0 || hung != 0 || leaked != 0;
}

static int run(struct demo *demo)
{
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        struct lido_pg_options pg = LIDO_PG_OPTIONS_INIT;
        struct lido_error error = { 0 };
        struct lido_service *service;
        struct worker *workers = calloc(demo->threads, sizeof *workers);
        struct loop_worker *loop = calloc(1, sizeof *loop);
        struct borrower sum = { 0 };
        long long lost, leaked;
        pthread_t trouble;
        int rc, hung = 0;

        options.max = demo->connections;
        options.start = LIDO_START_FAIL_FAST;
        options.min = demo->connections < 2 ? 1 : 2;
        pg.conninfo = demo->conninfo;
        pg.application_name = "lido-demo";
        pg.error = &error;
        if (!workers || !loop || lido_service_start(&service, NULL) != LIDO_OK)
                return 2;
        rc = lido_pg_pool_open(&demo->pool, service, &pg, &options);
        if (rc != LIDO_OK) {
                fprintf(stderr, "demo: no pool: %s %s\n", lido_strerror(rc), error.text);
                return 2;
        }
        printf("%u threads and a loop with %d tasks share %u connections for %u s\n", demo->threads, LOOP_TASKS,
               demo->connections, demo->seconds);
        for (uint32_t i = 0; i < demo->threads; i++) {
                workers[i].demo = demo;
                workers[i].it.number = i;
                pthread_create(&workers[i].thread, NULL, work_on_thread, &workers[i]);
        }
        loop->demo = demo;
        for (int i = 0; i < LOOP_TASKS; i++)
                loop->it[i].number = demo->threads + (uint32_t)i;
        pthread_create(&loop->thread, NULL, work_on_loop, loop);
        pthread_create(&trouble, NULL, make_trouble, demo);
        watch(demo);

        for (uint32_t i = 0; i < demo->threads; i++)
                hung += join(workers[i].thread);
        hung += join(loop->thread);
        pthread_join(trouble, NULL);
        if (hung > 0) {
                printf("%d borrowers do not come back; this is the pool:\n", hung);
                fflush(stdout);
                lido_pool_dump(demo->pool, STDOUT_FILENO);
        }
        for (uint32_t i = 0; i < demo->threads; i++)
                add_up(&sum, &workers[i].it);
        for (int i = 0; i < LOOP_TASKS; i++)
                add_up(&sum, &loop->it[i]);

        printf("\nall in all: %llu transactions, %d backends killed\n", (unsigned long long)sum.done, demo->killed);
        lost = count_lost(demo, workers, loop, &sum);
        printf("evicted when idle: %llu connections\n", evict(demo, &options));
        leaked = count_leaked(demo, service);
        rc = report(demo, &sum, lost, leaked, hung);
        if (hung == 0) {
                free(workers);
                free(loop);
        }
        return rc;
}

static void usage(void)
{
        printf("demo --conninfo TEXT [--server-dir DIR] [--seconds N] [--threads N] [--connections N]\n"
               "It is run by examples/demo.sh, which has a server for it; DIR is that server's, to be restarted.\n");
}

int main(int argc, char **argv)
{
        static const struct option known[] = { { "conninfo", required_argument, NULL, 'c' },
                                               { "server-dir", required_argument, NULL, 'd' },
                                               { "seconds", required_argument, NULL, 's' },
                                               { "threads", required_argument, NULL, 't' },
                                               { "connections", required_argument, NULL, 'n' },
                                               { "help", no_argument, NULL, 'h' },
                                               { NULL, 0, NULL, 0 } };
        static struct demo demo = { .seconds = 20, .threads = 32, .connections = 8 };
        int choice;

        while ((choice = getopt_long(argc, argv, "", known, NULL)) != -1) {
                switch (choice) {
                case 'c':
                        demo.conninfo = optarg;
                        break;
                case 'd':
                        demo.server_dir = optarg;
                        break;
                case 's':
                        demo.seconds = (uint32_t)strtoul(optarg, NULL, 10);
                        break;
                case 't':
                        demo.threads = (uint32_t)strtoul(optarg, NULL, 10);
                        break;
                case 'n':
                        demo.connections = (uint32_t)strtoul(optarg, NULL, 10);
                        break;
                default:
                        usage();
                        return choice == 'h' ? 0 : 2;
                }
        }
        if (!demo.conninfo || demo.seconds == 0 || demo.threads == 0 || demo.connections == 0) {
                usage();
                return 2;
        }
        setvbuf(stdout, NULL, _IOLBF, 0);
        demo.run = (uint32_t)(getpid() % 100000);
        return run(&demo);
}
