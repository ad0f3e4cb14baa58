/* The misfortune: what an operator, a crash or a failover does to a server in the middle of a day. */
#define _GNU_SOURCE
#include "demo.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MS UINT64_C(1000000)
#define OUTAGE_MS 2500 /* longer than an acquire waits, so that some time out and say why */

static void sleep_ms(uint64_t ms)
{
        struct timespec t = { (time_t)(ms / 1000), (long)(ms % 1000 * 1000000) };

        nanosleep(&t, NULL);
}

/* Sleep until this part of the demo's time has passed. Returns: false when it is over before. */
static bool wait_for_part(const struct demo *demo, uint64_t began_ns, double part)
{
        uint64_t due = began_ns + (uint64_t)((double)demo->seconds * 1e9 * part);

        while (now_ns() < due && !atomic_load(&demo->is_over))
                sleep_ms(10);
        return !atomic_load(&demo->is_over);
}

static int kill_some(const struct demo *demo, const char *which, int limit)
{
        PGconn *conn = PQconnectdb(demo->conninfo);
        char sql[320];
        PGresult *result;
        int killed;

        snprintf(sql, sizeof sql,
                 "select pg_terminate_backend(pid) from (select pid from pg_stat_activity where application_name = "
                 "'lido-demo' and state %s 'idle' order by random() limit %d) as victims",
                 which, limit);
        result = PQexec(conn, sql);
        killed = PQresultStatus(result) == PGRES_TUPLES_OK ? PQntuples(result) : 0;
        PQclear(result);
        PQfinish(conn);
        return killed;
}

/* Returns: the process that does it; -1: there is none. */
static pid_t begin_script(const struct demo *demo, const char *verb, const char *mode)
{
        const char *script = getenv("LIDO_PGSERVER");
        pid_t pid = fork();

        if (pid == 0) {
                dup2(open("/dev/null", O_WRONLY), STDOUT_FILENO);
                execl(script ? script : "pgserver.sh", "pgserver.sh", verb, demo->server_dir, mode, (char *)NULL);
                _exit(127);
        }
        return pid;
}

static bool end_script(pid_t pid)
{
        int status;

        return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* Transactions in the next `ms`. */
static uint64_t count_for(struct demo *demo, uint64_t ms)
{
        uint64_t before = atomic_load(&demo->done);

        sleep_ms(ms);
        return atomic_load(&demo->done) - before;
}

/* From the moment that the server accepts: until four fifths of the former speed (the machine has its moods) are seen over a fifth of a second, in steps of
 * a twentieth. The moment is the beginning of that time. */
static void measure_recovery(struct demo *demo)
{
        uint64_t counts[4] = { 0 }, began[4] = { 0 }, sum;

        for (int i = 0; !atomic_load(&demo->is_over); i++) {
                began[i % 4] = now_ns();
                counts[i % 4] = count_for(demo, 50);
                sum = counts[0] + counts[1] + counts[2] + counts[3];
                if (i >= 3 && (double)sum >= 0.8 * demo->speed * (double)(now_ns() - began[(i + 1) % 4]) / 1e9) {
                        demo->full_speed_ns = began[(i + 1) % 4];
                        return;
                }
        }
}

static void restart_server(struct demo *demo)
{
        pid_t starting;

        demo->speed = (double)count_for(demo, 1000);
        printf("  -- the server is stopped (immediately, without a word to its clients)\n");
        if (!end_script(begin_script(demo, "stop", "immediate"))) {
                fprintf(stderr, "demo: the server could not be stopped\n");
                return;
        }
        sleep_ms(OUTAGE_MS);
        printf("  -- the server is started again\n");
        starting = begin_script(demo, "start", NULL);
        while (PQping(demo->conninfo) != PQPING_OK && !atomic_load(&demo->is_over))
                sleep_ms(2);
        demo->back_ns = now_ns();
        measure_recovery(demo);
        if (!end_script(starting))
                fprintf(stderr, "demo: the server could not be started\n");
}

void *make_trouble(void *argument)
{
        struct demo *demo = argument;
        uint64_t began_ns = now_ns();

        if (!wait_for_part(demo, began_ns, 0.25))
                return NULL;
        demo->killed += kill_some(demo, "=", 2);
        demo->killed += kill_some(demo, "<>", 2);
        printf("  -- %d backends were killed, idle and busy ones\n", demo->killed);
        if (!wait_for_part(demo, began_ns, 0.45) || !demo->server_dir)
                return NULL;
        restart_server(demo);
        return NULL;
}
