#include <string.h>

#include "base/mem.h"
#include "pg/failure.h"
#include "pg/mux.h"
#include "pg/session.h"
#include "pg/wait.h"

/* Give the pipe to the shard, with a call of nobody's in place of ours, which comes last on it. The statement is cancelled, for
 * nobody else is on the connection; the pool keeps that from hitting a later one. */
static void leave_to(struct shard *shard, struct pipe *pipe, struct call *call)
{
        static const struct lido_pg_exec_options none = LIDO_PG_EXEC_OPTIONS_INIT;
        struct pipe *copy = mem_zalloc(sizeof *copy);
        struct call *stand_in = call_new("", NULL, 0, &none, 1);
        struct list *front;

        lido_pg_cancel(pipe->lease, 0);
        if (copy && stand_in) {
                *copy = *pipe;
                list_init(&copy->link);
                list_init(&copy->sent);
                list_init(&copy->done);
                stand_in->is_aside = true;
                stand_in->is_preparing = call->is_preparing;
                stand_in->adopted = copy;
                memcpy(stand_in->name, call->name, sizeof stand_in->name);
                stand_in->bytes = call->bytes;
                list_unlink(&call->link);
                while ((front = list_front(&pipe->sent)) != NULL) {
                        list_unlink(front);
                        list_push_back(&copy->sent, front);
                }
                list_push_back(&copy->sent, &stand_in->link);
                if (shard_submit(shard, stand_in) == LIDO_OK)
                        return;
                list_unlink(&stand_in->link);
                while ((front = list_front(&copy->sent)) != NULL) {
                        list_unlink(front);
                        call_unref(list_entry(front, struct call, link));
                }
        }
        mem_free(copy);
        if (stand_in)
                call_unref(stand_in);
        pipe->state = PIPE_LOST;
        pipe_end(pipe);
}

/* Wait for the call's outcome. Returns: false when the deadline has passed. */
static bool await(struct pipe *pipe, struct call *call, uint64_t deadline_ns)
{
        for (;;) {
                int flushed = pipe_flush(pipe);
                struct call *done;

                while ((done = pipe_take_done(pipe)) != NULL && done != call)
                        call_unref(done); /* an aside */
                if (done)
                        return true;
                if (wait_for_socket(pipe->conn, flushed == 1, deadline_ns) == LIDO_EDEADLINE) /* what else is wrong, reading tells */
                        return false;
                pipe_read(pipe);
        }
}

/* hot: measured by tests/bench/pg */
int direct_run(struct shard *shard, lido_lease lease, struct call *call, uint64_t deadline_ns)
{
        struct counters *counters = &shard->mux->counters;
        struct pipe pipe;
        int rc;

        if (!pipe_begin(&pipe, lease)) {
                lido_discard_at(lease, "lido_pg_mux");
                return LIDO_ESTALE;
        }
        for (;;) {
                store_relaxed(&call->state, CALL_SENT);
                rc = pipe_send(&pipe, call);
                if (rc != LIDO_OK) {
                        call_fail(call, rc, lido_strerror(rc));
                        break;
                }
                if (!await(&pipe, call, deadline_ns)) {
                        call_fail(call, LIDO_EDEADLINE, lido_strerror(LIDO_EDEADLINE));
                        add_relaxed(&counters->detached, 1);
                        leave_to(shard, &pipe, call);
                        return call->code;
                }
                if (!call->is_outdated || call->code != LIDO_OK || pipe.state == PIPE_LOST)
                        break;
                call->is_outdated = false;
                call->is_second = true;
                add_relaxed(&counters->retried, 1);
        }
        if (pipe.state == PIPE_LOST)
                add_relaxed(&counters->lost, 1);
        if (pipe.is_breached)
                add_relaxed(&counters->breaches, 1);
        pipe_end(&pipe);
        if (call->code == LIDO_OK && !call->result)
                call_fail(call, LIDO_EFACTORY, "the server has not answered");
        return call->code;
}
