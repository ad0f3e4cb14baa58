#include "pg/mux.h"

#include <string.h>

#include "base/mem.h"
#include "base/park.h"
#include "base/sized.h"
#include "lido/service.h"
#include "pg/failure.h"
#include "pg/mux_sql.h"
#include "pg/params.h"
#include "pg/pool.h"

#define CONNECTIONS 2     /* saturate two cores (tests/bench/pg) */
#define STATEMENTS 64
#define BYTES (256u * 1024)
#define STALE_TRIES 3     /* connections found dead before anything was sent */

/* ---- its life -------------------------------------------------------------------------------------------- */

static void mux_unref(struct lido_pg_mux *mux)
{
        if (sub_acq_rel(&mux->users, 1) == 1)
                mem_free(mux);
}

/* The last thing that a shard's own thread does on its loop. */
static void on_shard_closed(void *shard_pointer)
{
        struct shard *shard = shard_pointer;

        lido_loop_unhold(shard->loop);
        lido_loop_close(shard->loop, NULL, NULL);
}

static void on_stop(struct lido_post *post)
{
        struct shard *shard = list_entry(post, struct shard, stop);

        shard_close(shard, on_shard_closed, shard);
}

static void tell_ready(struct shard *shard, int code)
{
        shard->start_code = code;
        store_release(&shard->is_ready, 1);
        park_wake(&shard->is_ready, 1);
}

static void run_shard(void *shard_pointer)
{
        struct shard *shard = shard_pointer;
        struct lido_loop *loop;
        uv_loop_t uv;

        if (uv_loop_init(&uv) != 0) {
                tell_ready(shard, LIDO_ELOOP);
                return;
        }
        int rc = lido_loop_open(&loop, &uv);
        if (rc == LIDO_OK) {
                rc = shard_open(shard, loop);
                if (rc == LIDO_OK)
                        lido_loop_hold(loop); /* so that it runs until on_shard_closed */
                else
                        lido_loop_close(loop, NULL, NULL);
        }
        tell_ready(shard, rc);
        uv_run(&uv, UV_RUN_DEFAULT);
        uv_loop_close(&uv);
}

static int start_shard(struct shard *shard)
{
        int rc;

        shard->stop.run = on_stop;
        rc = thread_start(&shard->thread, "lido-mux", 0, run_shard, shard);
        if (rc != 0)
                return LIDO_ETHREAD;
        while (load_acquire(&shard->is_ready) == 0)
                park_wait(&shard->is_ready, 0, CLOCK_NEVER);
        shard->has_thread = shard->start_code == LIDO_OK;
        if (!shard->has_thread)
                thread_join(&shard->thread);
        return shard->start_code;
}

static void stop_shards(struct lido_pg_mux *mux)
{
        for (uint32_t i = 0; i < mux->shard_count; i++)
                if (mux->shards[i].has_thread)
                        lido_loop_post(mux->shards[i].loop, &mux->shards[i].stop);
        for (uint32_t i = 0; i < mux->shard_count; i++)
                if (mux->shards[i].has_thread)
                        thread_join(&mux->shards[i].thread);
}

static struct mux_limits limits_of(const struct lido_pg_mux_options *options)
{
        struct mux_limits limits = {
                .connections = options->connections ? options->connections : CONNECTIONS,
                .statements = options->statements ? options->statements : STATEMENTS,
                .bytes = options->bytes ? options->bytes : BYTES,
                .queue_limit = options->queue_limit ? options->queue_limit : LIDO_UNLIMITED,
        };

        return limits;
}

int lido_pg_mux_open(struct lido_pg_mux **ret_mux, struct lido_pool *pool, struct lido_loop *loop,
                     const struct lido_pg_mux_options *options)
{
        struct lido_pg_mux_options ours;
        struct lido_pg_mux *mux;
        uint32_t shards;
        int rc = sized_take(&ours, sizeof ours, options);

        if (rc != LIDO_OK)
                return rc;
        shards = ours.shards ? ours.shards : 1;
        if (!ret_mux || !pool || (loop && (shards > 1 || !lido_loop_is_self(loop))) || shards > 1024)
                return LIDO_EINVAL;
        if (!pool_is_pg(pool))
                return LIDO_EFOREIGN;
        mux = mem_zalloc(sizeof *mux + shards * sizeof *mux->shards);
        if (!mux)
                return LIDO_ENOMEM;
        mux->pool = pool;
        mux->shard_count = shards;
        store_relaxed(&mux->users, 1);
        for (uint32_t i = 0; i < shards && rc == LIDO_OK; i++) {
                mux->shards[i].mux = mux;
                mux->shards[i].pool = pool;
                mux->shards[i].limits = limits_of(&ours);
                rc = loop ? shard_open(&mux->shards[i], loop) : start_shard(&mux->shards[i]);
        }
        if (rc != LIDO_OK) {
                stop_shards(mux);
                mux_unref(mux);
                return rc;
        }
        *ret_mux = mux;
        return LIDO_OK;
}

static void on_loop_shard_closed(void *mux_pointer)
{
        struct lido_pg_mux *mux = mux_pointer;
        void (*closed)(void *) = mux->closed;
        void *context = mux->closed_context;

        mux_unref(mux);
        if (closed)
                closed(context);
}

void lido_pg_mux_close(struct lido_pg_mux *mux, void (*closed)(void *context), void *context)
{
        if (!mux || exchange_acq_rel(&mux->is_closed, 1)) /* from a callback that closing calls */
                return;
        if (!mux->shards[0].has_thread) {
                mux->closed = closed;
                mux->closed_context = context;
                shard_close(&mux->shards[0], on_loop_shard_closed, mux);
                return;
        }
        stop_shards(mux);
        mux_unref(mux);
        if (closed)
                closed(context);
}

/* ---- one statement --------------------------------------------------------------------------------------- */

static void tell(const struct lido_pg_exec_options *options, int code, const char *text)
{
        if (options->error)
                failure_set(options->error, code, LIDO_FAILURE_TRANSIENT, text);
}

static int refuse(const struct lido_pg_exec_options *options, int code)
{
        tell(options, code, lido_strerror(code));
        return code;
}

/* What both doors check. Returns: LIDO_OK and the options, else what is wrong with the arguments. */
static int take_options(struct lido_pg_exec_options *ours, const struct lido_pg_exec_options *theirs, const struct lido_pg_mux *mux,
                        const char *sql, const struct lido_pg_param *params, uint32_t count)
{
        int rc = sized_take(ours, sizeof *ours, theirs);

        if (rc != LIDO_OK)
                return rc;
        if (!mux || !sql || !params_are_valid(params, count) || ours->timeout_ms < LIDO_NEVER ||
            ours->result_format < 0 || ours->result_format > 1 || ours->prepare < LIDO_PG_PREPARE_DEFAULT ||
            ours->prepare > LIDO_PG_PREPARE_AT_ONCE || (ours->flags & ~LIDO_PG_ALONE))
                return LIDO_EINVAL;
        return LIDO_OK;
}

static struct shard *shard_of_thread(struct lido_pg_mux *mux)
{
        return &mux->shards[mux->shard_count > 1 ? thread_id() % mux->shard_count : 0];
}

/* Give a settled call's outcome to its caller. */
static int hand_over(struct call *call, const struct lido_pg_exec_options *options, PGresult **ret_result)
{
        if (call->code == LIDO_OK) {
                *ret_result = call->result;
                call->result = NULL;
        } else if (options->error) {
                *options->error = call->error;
        }
        return call->code;
}

struct statement_of_caller {
        const char *sql;
        const struct lido_pg_param *params;
        uint32_t count;
};

/* Returns: the outcome; LIDO_ESTALE when the connection was lost before anything was sent. */
static int run_on_lease(struct shard *shard, lido_lease lease, const struct statement_of_caller *asked,
                        const struct lido_pg_exec_options *options, uint64_t deadline_ns, PGresult **ret_result)
{
        struct call call;
        int rc;

        call_borrow(&call, asked->sql, asked->params, asked->count, options);
        if (direct_run(shard, lease, &call, deadline_ns) == LIDO_ESTALE)
                return LIDO_ESTALE;
        rc = hand_over(&call, options, ret_result);
        PQclear(call.result); /* an error came after it, of the commit say */
        return rc;
}

static int run_alone(struct lido_pg_mux *mux, const struct statement_of_caller *asked,
                     const struct lido_pg_exec_options *options, uint64_t deadline_ns, PGresult **ret_result)
{
        struct lido_acquire_options acquire = LIDO_ACQUIRE_OPTIONS_INIT;
        int rc = LIDO_ESTALE;

        acquire.site = "lido_pg_mux_exec";
        for (int tries = 0; rc == LIDO_ESTALE && tries < STALE_TRIES; tries++) {
                lido_lease lease;

                acquire.timeout_ms = options->timeout_ms ? clock_timeout_ms(deadline_ns) : LIDO_TIMEOUT_DEFAULT;
                rc = lido_acquire_with(mux->pool, &acquire, &lease);
                if (rc != LIDO_OK)
                        return refuse(options, rc);
                add_relaxed(&mux->counters.alone, 1);
                rc = run_on_lease(shard_of_thread(mux), lease, asked, options, deadline_ns, ret_result);
        }
        return rc == LIDO_ESTALE ? refuse(options, LIDO_EUNAVAIL) : rc;
}

static int run_shared(struct shard *shard, const struct statement_of_caller *asked,
                      const struct lido_pg_exec_options *options, uint64_t deadline_ns, PGresult **ret_result)
{
        struct call *call = call_new(asked->sql, asked->params, asked->count, options, 2);
        int rc;

        if (!call)
                return refuse(options, LIDO_ENOMEM);
        rc = shard_submit(shard, call);
        if (rc != LIDO_OK) {
                call_unref(call);
                call_unref(call);
                return refuse(options, rc);
        }
        rc = call_wait(call, deadline_ns);
        if (rc == LIDO_EDEADLINE)
                add_relaxed(&shard->mux->counters.detached, 1);
        rc = rc == LIDO_OK ? hand_over(call, options, ret_result) : refuse(options, rc);
        call_unref(call);
        return rc;
}

/* hot: measured by tests/bench/pg */
static int run(struct lido_pg_mux *mux, const struct statement_of_caller *asked, const struct lido_pg_exec_options *options,
               PGresult **ret_result)
{
        struct shard *shard = shard_of_thread(mux);
        enum sql_kind kind = mux_sql_kind(asked->sql);
        uint64_t deadline_ns = clock_deadline(options->timeout_ms);
        int rc = LIDO_OK;

        if (kind == SQL_REFUSED) {
                tell(options, LIDO_EINVAL, "a statement that changes the session, or COPY, needs a lease of its own: lido_acquire");
                return LIDO_EINVAL;
        }
        if (kind == SQL_ALONE || (options->flags & LIDO_PG_ALONE))
                return run_alone(mux, asked, options, deadline_ns, ret_result);
        for (int tries = 0; tries < STALE_TRIES && !shard_is_hot(shard); tries++) {
                lido_lease lease;

                rc = lido_try_acquire_at(mux->pool, &lease, "lido_pg_mux_exec");
                if (rc != LIDO_OK)
                        break;
                rc = run_on_lease(shard, lease, asked, options, deadline_ns, ret_result);
                if (rc != LIDO_ESTALE) {
                        add_relaxed(&mux->counters.direct, 1);
                        return rc;
                }
        }
        if (rc == LIDO_ECLOSED || rc == LIDO_EFORKED)
                return refuse(options, rc);
        return run_shared(shard, asked, options, deadline_ns, ret_result);
}

static bool is_of_a_shard(const struct lido_pg_mux *mux)
{
        for (uint32_t i = 0; i < mux->shard_count; i++)
                if (mux->shards[i].thread_number == thread_id())
                        return true;
        return false;
}

int lido_pg_mux_exec(struct lido_pg_mux *mux, const char *sql, const struct lido_pg_param *params, uint32_t param_count,
                     const struct lido_pg_exec_options *options, PGresult **ret_result)
{
        struct statement_of_caller asked = { sql, params, param_count };
        struct lido_pg_exec_options ours;
        int rc = take_options(&ours, options, mux, sql, params, param_count);

        if (rc != LIDO_OK || !ret_result)
                return rc != LIDO_OK ? rc : LIDO_EINVAL;
        add_relaxed(&mux->users, 1); /* first: it may be closed from here on, and is still there */
        if (load_acquire(&mux->is_closed))
                rc = refuse(&ours, LIDO_ECLOSED);
        else if (is_of_a_shard(mux))
                rc = refuse(&ours, LIDO_EDEADLK);
        else
                rc = run(mux, &asked, &ours, ret_result);
        mux_unref(mux);
        return rc;
}

int lido_pg_mux_exec_async(struct lido_pg_mux *mux, const char *sql, const struct lido_pg_param *params,
                           uint32_t param_count, const struct lido_pg_exec_options *options, lido_pg_exec_cb callback,
                           void *context)
{
        struct lido_pg_exec_options ours;
        struct call *call;
        int rc = take_options(&ours, options, mux, sql, params, param_count);

        if (rc != LIDO_OK)
                return rc;
        if (!callback || mux->shards[0].has_thread || !lido_loop_is_self(mux->shards[0].loop))
                return LIDO_EINVAL;
        call = call_new(sql, params, param_count, &ours, 1);
        if (!call)
                return LIDO_ENOMEM;
        call->callback = callback;
        call->context = context;
        call->kind = (int)mux_sql_kind(sql);
        if (call->kind == SQL_SHARED && (ours.flags & LIDO_PG_ALONE))
                call->kind = SQL_ALONE;
        rc = call->kind == SQL_REFUSED ? LIDO_EINVAL : shard_call(&mux->shards[0], call, clock_deadline(ours.timeout_ms));
        if (rc != LIDO_OK)
                call_unref(call);
        return rc;
}

int lido_pg_mux_stats(struct lido_pg_mux *mux, struct lido_pg_mux_stats *stats)
{
        struct lido_pg_mux_stats ours = LIDO_PG_MUX_STATS_INIT;
        struct counters *counters = mux ? &mux->counters : NULL;

        if (!mux || !stats || stats->size < sizeof stats->size)
                return LIDO_EINVAL;
        ours.size = stats->size;
        ours.direct = load_relaxed(&counters->direct);
        ours.alone = load_relaxed(&counters->alone);
        ours.shared = load_relaxed(&counters->shared);
        ours.retried = load_relaxed(&counters->retried);
        ours.detached = load_relaxed(&counters->detached);
        ours.converted = load_relaxed(&counters->converted);
        ours.returned = load_relaxed(&counters->returned);
        ours.lost = load_relaxed(&counters->lost);
        ours.breaches = load_relaxed(&counters->breaches);
        memcpy(stats, &ours, sized_room(stats->size, sizeof ours));
        return LIDO_OK;
}
