/* The borrowers: each moves money, one transaction after the other, until the demo is over. */
#define _GNU_SOURCE
#include "demo.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

static void note_wait(struct demo *demo, uint64_t ns)
{
        unsigned bucket = 0;

        while (bucket + 1 < LIDO_HISTOGRAM_BUCKETS && (UINT64_C(4) + bucket % 4) << (bucket / 4) < ns)
                bucket++;
        atomic_fetch_add_explicit(&demo->wait[bucket], 1, memory_order_relaxed);
}

static void note_end(struct borrower *it, uint64_t began_ns)
{
        uint64_t took = now_ns() - began_ns;

        if (took > it->longest_ns)
                it->longest_ns = took;
}

static void note_no_lease(struct demo *demo, struct borrower *it, int code, uint64_t began_ns)
{
        struct lido_blame blame = LIDO_BLAME_INIT;
        uint64_t late_ns = now_ns() - began_ns - ACQUIRE_TIMEOUT_MS * UINT64_C(1000000);

        note_end(it, began_ns);
        if (code != LIDO_ETIMEDOUT) {
                it->failed[FAILED_REFUSED]++;
                it->refusal = code;
                return;
        }
        if ((int64_t)late_ns > (int64_t)it->latest_ns)
                it->latest_ns = late_ns;
        lido_pool_blame(demo->pool, &blame);
        it->failed[blame.cause == LIDO_CAUSE_DOWN ? FAILED_TIMEOUT_DOWN : FAILED_TIMEOUT_BUSY]++;
        if (blame.cause == LIDO_CAUSE_DOWN && it->why[0] == '\0')
                lido_blame_text(&blame, it->why, sizeof it->why);
}

static void note_failure(struct borrower *it, const PGconn *conn, bool is_commit)
{
        if (is_commit && it->unknowns < UNKNOWN_MAX) {
                it->unknown[it->unknowns++] = it->sequence;
                it->failed[FAILED_COMMIT]++;
        } else {
                it->failed[PQtransactionStatus(conn) == PQTRANS_UNKNOWN ? FAILED_CONNECTION : FAILED_OTHER]++;
        }
}

/* The three statements that change something, and are told apart at the end by `filler`. */
static void write_transaction(const struct demo *demo, const struct borrower *it, unsigned *random, char sql[3][160])
{
        int delta = (int)(rand_r(random) % 1999) - 999;
        unsigned account = rand_r(random) % 100000 + 1, teller = rand_r(random) % 10 + 1;

        snprintf(sql[0], 160, "update pgbench_accounts set abalance = abalance + %d where aid = %u", delta, account);
        snprintf(sql[1], 160, "update pgbench_tellers set tbalance = tbalance + %d where tid = %u", delta, teller);
        snprintf(sql[2], 160,
                 "insert into pgbench_history (tid, bid, aid, delta, mtime, filler) "
                 "values (%u, 1, %u, %d, now(), '%u.%u.%u')",
                 teller, account, delta, demo->run, it->number, it->sequence);
}

/* ---- threads: acquire by blocking --------------------------------------------------------------------------- */

static bool run(PGconn *conn, const char *sql)
{
        PGresult *result = PQexec(conn, sql);
        bool is_good = PQresultStatus(result) == PGRES_COMMAND_OK;

        PQclear(result);
        return is_good;
}

static bool move_money(struct demo *demo, struct borrower *it, PGconn *conn, unsigned *random)
{
        char sql[3][160];

        write_transaction(demo, it, random, sql);
        if (!run(conn, "begin") || !run(conn, sql[0]) || !run(conn, sql[1]) || !run(conn, sql[2])) {
                note_failure(it, conn, false);
                return false;
        }
        if (!run(conn, "commit")) {
                note_failure(it, conn, true);
                return false;
        }
        return true;
}

void *work_on_thread(void *argument)
{
        struct worker *worker = argument;
        struct borrower *it = &worker->it;
        struct demo *demo = worker->demo;
        unsigned random = it->number * 2654435761u + demo->run;

        while (!atomic_load(&demo->is_over)) {
                uint64_t began_ns = now_ns();
                lido_lease lease;
                int rc = lido_acquire(demo->pool, ACQUIRE_TIMEOUT_MS, &lease);

                it->sequence++;
                if (rc != LIDO_OK) {
                        note_no_lease(demo, it, rc, began_ns);
                        continue;
                }
                note_wait(demo, now_ns() - began_ns);
                if (move_money(demo, it, lido_pg_conn(lease), &random)) {
                        it->done++;
                        atomic_fetch_add(&demo->done, 1);
                }
                lido_release(lease);
                note_end(it, began_ns);
        }
        return NULL;
}

/* ---- the loop: acquire by callback, and never block ---------------------------------------------------------- */

struct task {
        struct lido_request request;
        struct demo *demo;
        struct borrower *it;
        unsigned random;
        lido_lease lease;
        uv_poll_t *poll; /* on a duplicate of the socket, which libpq may close at any time */
        int fd;
        bool has_failed;
        uint64_t began_ns;
};

static void start(struct task *task);

static void on_poll_closed(uv_handle_t *handle)
{
        close((int)(intptr_t)handle->data);
        free(handle);
}

static void end_transaction(struct task *task)
{
        PGconn *conn = lido_pg_conn(task->lease);

        task->poll->data = (void *)(intptr_t)task->fd;
        uv_close((uv_handle_t *)task->poll, on_poll_closed);
        if (task->has_failed) {
                /* All went out at once, so an end that is not known may be that of the commit. */
                note_failure(task->it, conn, PQtransactionStatus(conn) == PQTRANS_UNKNOWN);
        } else {
                task->it->done++;
                atomic_fetch_add(&task->demo->done, 1);
        }
        lido_release(task->lease);
        note_end(task->it, task->began_ns);
        start(task);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
        struct task *task = poll->data;
        PGconn *conn = lido_pg_conn(task->lease);
        PGresult *result;

        (void)events;
        if (!PQconsumeInput(conn) || status < 0)
                task->has_failed = true;
        while (task->has_failed || !PQisBusy(conn)) {
                result = PQgetResult(conn);
                if (!result) {
                        end_transaction(task);
                        return;
                }
                if (PQresultStatus(result) != PGRES_COMMAND_OK)
                        task->has_failed = true;
                PQclear(result);
        }
}

static void on_lease(struct lido_request *request, int status, lido_lease lease)
{
        struct task *task = request->data;
        char sql[3][160], all[512];
        PGconn *conn;

        task->it->sequence++;
        if (status != LIDO_OK) {
                note_no_lease(task->demo, task->it, status, task->began_ns);
                start(task);
                return;
        }
        note_wait(task->demo, now_ns() - task->began_ns);
        task->lease = lease;
        task->has_failed = false;
        conn = lido_pg_conn(lease);
        write_transaction(task->demo, task->it, &task->random, sql);
        snprintf(all, sizeof all, "begin;%s;%s;%s;commit", sql[0], sql[1], sql[2]);
        task->fd = dup(PQsocket(conn));
        task->poll = malloc(sizeof *task->poll);
        if (task->fd < 0 || !task->poll || uv_poll_init(lido_loop_uv(request->loop), task->poll, task->fd) != 0) {
                fprintf(stderr, "demo: no descriptor or no memory\n");
                exit(2);
        }
        task->poll->data = task;
        if (!PQsendQuery(conn, all))
                task->has_failed = true;
        uv_poll_start(task->poll, UV_READABLE | (task->has_failed ? UV_WRITABLE : 0), on_readable);
}

static void start(struct task *task)
{
        if (atomic_load(&task->demo->is_over))
                return;
        task->began_ns = now_ns();
        if (lido_acquire_async(task->demo->pool, &task->request, ACQUIRE_TIMEOUT_MS, on_lease) != LIDO_OK)
                task->it->failed[FAILED_REFUSED]++;
}

void *work_on_loop(void *argument)
{
        struct loop_worker *worker = argument;
        struct task task[LOOP_TASKS];
        struct lido_loop *loop;
        uv_loop_t uv;

        memset(task, 0, sizeof task);
        if (uv_loop_init(&uv) != 0 || lido_loop_open(&loop, &uv) != LIDO_OK) {
                fprintf(stderr, "demo: no event loop\n");
                exit(2);
        }
        for (int i = 0; i < LOOP_TASKS; i++) {
                task[i].request.loop = loop;
                task[i].request.data = &task[i];
                task[i].demo = worker->demo;
                task[i].it = &worker->it[i];
                task[i].random = worker->it[i].number * 2654435761u + worker->demo->run;
                start(&task[i]);
        }
        uv_run(&uv, UV_RUN_DEFAULT);
        lido_loop_close(loop, NULL, NULL);
        uv_run(&uv, UV_RUN_DEFAULT);
        uv_loop_close(&uv);
        return NULL;
}
