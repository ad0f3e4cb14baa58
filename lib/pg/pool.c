/* pg/pool.c - the factory of PostgreSQL connections: which hook is done where.
 *
 *      open                       a connector thread: lookups, SCRAM and TLS block or take milliseconds (connector.h)
 *      check, reset, watch        the loop: a short exchange each, waited for as an event (watch.h)
 *      close                      wherever it is called: it cannot block (session.h)
 *      peek, verdict              the borrower's thread: one recv, or no system call at all
 *      interrupt                  any thread: shutdown of the session's spare descriptor
 *
 * So the factory is not LIDO_FACTORY_BLOCKING. After a fork no hook runs in the child, which therefore touches nothing of
 * its parent's sessions; all descriptors are closed on exec.
 */
#include "pg/pool.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/sized.h"
#include "lido/loop.h"
#include "lido/pg.h"
#include "lido/pg_keyed.h"
#include "lido/service.h"
#include "pg/cancel.h"
#include "pg/connector.h"
#include "pg/credentials.h"
#include "pg/failure.h"
#include "pg/hosts.h"
#include "pg/session.h"
#include "pg/watch.h"

static const char kind[] = "pg";

int pool_is_pg(const struct lido_pool *pool)
{
        return lido_pool_kind(pool) == kind;
}

static void on_open(lido_op op, void *connectors)
{
        connectors_open(connectors, op);
}

static void on_close(lido_op op, void *session, void *connectors)
{
        cancels_remove(connectors_cancels(connectors), session);
        if (session_close(session))
                connectors_alarm(connectors);
        lido_op_done(op, LIDO_OK);
}

static void on_check(lido_op op, void *session, void *connectors)
{
        watch_check(session, connectors_cancels(connectors), op);
}

static void on_reset(lido_op op, void *session, void *connectors)
{
        watch_reset(session, connectors_cancels(connectors), op);
}

/* A check or reset at work needs no hint: the pool interrupts its session, which ends it. */
static void on_cancel(lido_op op, void *connectors)
{
        cancels_give_up(connectors_cancels(connectors), op);
        connectors_cancel(connectors, op);
}

static enum lido_peek on_peek(void *session, void *connectors)
{
        (void)connectors;
        return session_peek(session);
}

static enum lido_verdict on_verdict(void *session, void *connectors)
{
        enum lido_verdict verdict = session_verdict(session);

        if (((struct pg_session *)session)->is_alarming)
                connectors_alarm(connectors);
        return verdict;
}

static void on_interrupt(void *session, void *connectors)
{
        (void)connectors;
        session_interrupt(session);
}

static void on_describe(void *session, char *text, size_t size, void *connectors)
{
        (void)connectors;
        snprintf(text, size, "%s", ((const struct pg_session *)session)->label);
}

static void on_watch(lido_handle handle, void *session, struct uv_loop_s *loop, void *connectors)
{
        (void)connectors;
        watch_start(session, handle, loop);
}

static void on_unwatch(void *session, void *connectors)
{
        watch_stop(session, connectors_cancels(connectors));
}

static void on_end(void *connectors)
{
        connectors_free(connectors);
}

/* A pool that existed, if only for a moment, calls its end hook. */
static bool had_pool(int rc)
{
        return rc == LIDO_OK || rc == LIDO_ECLOSED || rc == LIDO_EPERMANENT || rc == LIDO_EUNAVAIL || rc == LIDO_ETIMEDOUT;
}

/* The factory, whose context are connectors of these options. Owns: they are the end hook's, on success. Returns: LIDO_OK; as
 * options_init and connectors_watch_hosts. */
static int make_factory(struct lido_factory *factory, struct lido_service *service, const struct lido_pg_options *pg_options,
                        const char *name)
{
        struct pg_options taken;
        int rc;

        *factory = (struct lido_factory){
                .size = sizeof *factory,
                .kind = kind,
                .flags = LIDO_FACTORY_PEEK_ALWAYS | LIDO_FACTORY_TIMED, /* half a microsecond, beside any query */
                .open = on_open,
                .close = on_close,
                .check = on_check,
                .reset = on_reset,
                .cancel = on_cancel,
                .peek = on_peek,
                .verdict = on_verdict,
                .interrupt = on_interrupt,
                .describe = on_describe,
                .watch = on_watch,
                .unwatch = on_unwatch,
                .end = on_end,
        };
        rc = options_init(&taken, pg_options, name ? name : "lido");
        if (rc != LIDO_OK)
                return rc;
        taken.given.error = NULL; /* the caller's memory */
        if (taken.given.connect_on_loop && lido_service_loop(service))
                taken.loop = lido_loop_uv(lido_service_loop(service));
        factory->context = connectors_new(&taken);
        if (!factory->context) {
                options_fini(&taken);
                return LIDO_ENOMEM;
        }
        rc = connectors_watch_hosts(factory->context);
        if (rc != LIDO_OK)
                connectors_free(factory->context);
        return rc;
}

int lido_pg_pool_open(struct lido_pool **ret_pool, struct lido_service *service,
                      const struct lido_pg_options *pg_options, const struct lido_pool_options *options)
{
        struct lido_factory factory;
        int rc = make_factory(&factory, service, pg_options, options ? options->name : NULL);

        if (rc != LIDO_OK)
                return rc;
        rc = lido_pool_open(ret_pool, service, &factory, options);
        if (rc == LIDO_OK)
                connectors_set_pool(factory.context, *ret_pool);
        else if (!had_pool(rc))
                connectors_free(factory.context);
        return rc;
}

/* The connectors serve the pools of all keys, and know none of them. */
int lido_pg_keyed_open(struct lido_keyed **ret_keyed, struct lido_service *service, const struct lido_pg_options *pg_options,
                       const struct lido_keyed_options *options)
{
        struct lido_factory factory;
        int rc;

        if (!ret_keyed || !service)
                return LIDO_EINVAL;
        rc = make_factory(&factory, service, pg_options, options && options->each ? options->each->name : NULL);
        if (rc != LIDO_OK)
                return rc;
        if (connectors_options(factory.context)->given.credentials)
                rc = LIDO_ENOTSUP;
        if (rc == LIDO_OK)
                rc = lido_keyed_open(ret_keyed, service, &factory, options);
        if (rc != LIDO_OK)
                connectors_free(factory.context);
        return rc;
}

/* ---- several hosts, credentials -------------------------------------------------------------------------- */

/* Returns: NULL when the pool is not one of connections. */
static struct pg_connectors *connectors_of(struct lido_pool *pool)
{
        return pool_is_pg(pool) ? lido_pool_context(pool) : NULL;
}

int lido_pg_forget_past(struct lido_pool *pool)
{
        struct pg_connectors *connectors = pool ? connectors_of(pool) : NULL;

        if (!connectors)
                return pool ? LIDO_EFOREIGN : LIDO_EINVAL;
        if (connectors_hosts(connectors))
                hosts_forget_past(connectors_hosts(connectors));
        return LIDO_OK;
}

int lido_pg_host(struct lido_pool *pool, uint32_t index, struct lido_pg_host *host)
{
        struct pg_connectors *connectors = pool ? connectors_of(pool) : NULL;
        struct lido_pg_host mine = LIDO_PG_HOST_INIT;
        size_t room;

        if (pool && !connectors)
                return LIDO_EFOREIGN;
        if (!connectors || !host || !connectors_hosts(connectors) || index >= connectors_options(connectors)->host_count)
                return LIDO_EINVAL;
        room = sized_room(host->size, sizeof mine);
        if (room == 0)
                return LIDO_EINVAL;
        mine.size = host->size;
        hosts_describe(connectors_hosts(connectors), index, &mine);
        memcpy(host, &mine, room);
        return LIDO_OK;
}

int lido_pg_credentials_changed(struct lido_pool *pool, int64_t over_ms)
{
        struct pg_connectors *connectors = pool ? connectors_of(pool) : NULL;

        if (!connectors)
                return pool ? LIDO_EFOREIGN : LIDO_EINVAL;
        if (over_ms < LIDO_NEVER)
                return LIDO_EINVAL;
        if (connectors_credentials(connectors))
                credentials_expire(connectors_credentials(connectors));
        return over_ms == LIDO_NEVER ? LIDO_OK : lido_pool_rotate(pool, over_ms);
}

/* ---- one connection -------------------------------------------------------------------------------------- */

PGconn *lido_pg_conn(lido_lease lease)
{
        struct pg_session *session = lido_object(lease);

        if (!session || !session->conn)
                return NULL;
        session_expose(session);
        return session->conn;
}

int lido_pg_detach_at(lido_lease lease, PGconn **ret_conn, const char *site)
{
        struct lido_pool *pool = lido_lease_pool(lease);
        struct cancels *cancels = NULL;
        void *session;
        int rc;

        if (pool && !pool_is_pg(pool))
                return LIDO_EFOREIGN;
        if (pool) /* which may end with this lease */
                cancels = cancels_ref(connectors_cancels(lido_pool_context(pool)));
        rc = lido_detach_at(lease, &session, site);
        if (rc == LIDO_OK) {
                cancels_remove(cancels, session);
                *ret_conn = session_release_conn(session);
        }
        if (cancels)
                cancels_unref(cancels);
        return rc;
}

void lido_pg_error(const PGresult *result, const PGconn *conn, struct lido_error *ret_error)
{
        memset(ret_error, 0, sizeof *ret_error);
        if (result) {
                ExecStatusType status = PQresultStatus(result);

                if (status == PGRES_FATAL_ERROR || status == PGRES_BAD_RESPONSE || status == PGRES_PIPELINE_ABORTED)
                        failure_from_result(ret_error, result);
        } else if (conn && PQerrorMessage(conn)[0] != '\0') {
                failure_from_text(ret_error, PQerrorMessage(conn));
                ret_error->code = LIDO_EFACTORY;
        }
}
