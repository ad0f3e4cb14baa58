#include <string.h>

#include "base/mem.h"
#include "base/park.h"
#include "pg/failure.h"
#include "pg/mux.h"
#include "pg/params.h"

#define OVERHEAD 64 /* of the protocol's messages for a statement, about */

static size_t aligned(size_t size)
{
        return (size + 15) & ~(size_t)15;
}

void call_borrow(struct call *call, const char *sql, const struct lido_pg_param *params, uint32_t count,
                 const struct lido_pg_exec_options *options)
{
        memset(call, 0, sizeof *call);
        store_relaxed(&call->state, CALL_QUEUED);
        store_relaxed(&call->users, 1);
        list_init(&call->link);
        call->sql = sql;
        call->params = params;
        call->param_count = count;
        call->result_format = options->result_format;
        call->prepare = options->prepare;
}

/* One block: the call, the parameters, their values, the text. */
struct call *call_new(const char *sql, const struct lido_pg_param *params, uint32_t count,
                      const struct lido_pg_exec_options *options, uint32_t users)
{
        size_t head = aligned(sizeof(struct call)), size = params_copy_size(params, count, sql);
        struct lido_pg_param *copies;
        struct call *call = mem_zalloc(head + size);
        const char *text;

        if (!call)
                return NULL;
        copies = params_copy_to((char *)call + head, params, count, sql, &text);
        call_borrow(call, text, copies, count, options);
        store_relaxed(&call->users, users);
        call->bytes = OVERHEAD + size - count * sizeof *params;
        return call;
}

void call_unref(struct call *call)
{
        if (sub_acq_rel(&call->users, 1) != 1)
                return;
        PQclear(call->result);
        mem_free(call);
}

bool call_move(struct call *call, enum call_state from, enum call_state to)
{
        uint32_t seen = (uint32_t)from;

        return cas_acq_rel(&call->state, &seen, (uint32_t)to);
}

void call_fail(struct call *call, int code, const char *text)
{
        if (call->code != LIDO_OK)
                return;
        call->code = code;
        failure_set(&call->error, code, LIDO_FAILURE_TRANSIENT, text);
}

void call_settle(struct call *call)
{
        if (call_move(call, CALL_SENT, CALL_DONE) || call_move(call, CALL_QUEUED, CALL_DONE))
                park_wake(&call->state, 1);
        call_unref(call);
}

int call_wait(struct call *call, uint64_t deadline_ns)
{
        for (;;) {
                uint32_t seen = load_acquire(&call->state);

                if (seen == CALL_DONE)
                        return LIDO_OK;
                if (park_wait(&call->state, seen, deadline_ns) || clock_now_ns() < deadline_ns)
                        continue;
                if (call_move(call, CALL_QUEUED, CALL_LEFT))
                        return LIDO_ETIMEDOUT;
                if (call_move(call, CALL_SENT, CALL_LEFT))
                        return LIDO_EDEADLINE;
        }
}
