#include "pg/listen.h"

#include <string.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/park.h"
#include "base/sized.h"
#include "pg/failure.h"
#include "pg/lease.h"
#include "pg/pool.h"
#include "pg/session.h"
#include "pg/wait.h"
#include "pg/work.h"

#define PAUSE_MIN_MS 50
#define PAUSE_MAX_MS 5000
#define CHECK_MS 30000       /* after so much silence the server is asked for a sign of life */

/* ---- channels ---------------------------------------------------------------------------------------------- */

#define PREFIX "LISTEN \""

/* A name in quotes has its own quotes doubled. */
static size_t write_statement(char *to, const char *channel)
{
        char *at = to;

        memcpy(at, PREFIX, strlen(PREFIX));
        at += strlen(PREFIX);
        for (const char *from = channel; *from; from++) {
                if (*from == '"')
                        *at++ = '"';
                *at++ = *from;
        }
        *at++ = '"';
        *at++ = '\0';
        return (size_t)(at - to);
}

/* One piece of memory: the pointers, then the texts. */
static char **write_statements(const char *const *channels, uint32_t count)
{
        size_t size = count * sizeof(char *);
        char **statements, *at;

        for (uint32_t i = 0; i < count; i++)
                size += strlen(PREFIX) + 2 * strlen(channels[i]) + 2;
        statements = mem_zalloc(size);
        if (!statements)
                return NULL;
        at = (char *)(statements + count);
        for (uint32_t i = 0; i < count; i++) {
                statements[i] = at;
                at += write_statement(at, channels[i]);
        }
        return statements;
}

/* ---- the lease --------------------------------------------------------------------------------------------- */

struct pg_session *listen_session(const struct lido_pg_listener *listener)
{
        struct pg_session *session = listener->is_leased ? lido_object(listener->lease) : NULL;

        return session && session->conn && !session->is_lost ? session : NULL;
}

void listen_drop(struct lido_pg_listener *listener)
{
        if (listener->is_leased)
                lido_discard_at(listener->lease, "lido_pg_listen");
        listener->is_leased = false;
}

/* The pool's reset ends the listening where it is of a kind that does. */
void listen_give_back(struct lido_pg_listener *listener)
{
        const struct pg_session *session = listen_session(listener);

        if (!session || session->options->given.reset < LIDO_PG_RESET_AUTO)
                listen_drop(listener);
        else if (listener->is_leased)
                lido_release_at(listener->lease, "lido_pg_listen");
        listener->is_leased = false;
}

uint64_t listen_pause_ns(struct lido_pg_listener *listener)
{
        uint64_t most = PAUSE_MIN_MS;

        for (uint32_t i = 0; i < listener->failures && most < PAUSE_MAX_MS; i++)
                most *= 2;
        listener->failures++;
        return (most / 2) * NS_PER_MS + random_below(&listener->random, (most / 2) * NS_PER_MS);
}

bool listen_is_final(int code)
{
        return code == LIDO_ECLOSED || code == LIDO_EFORKED || code == LIDO_EINVAL || code == LIDO_EDEADLK || code == LIDO_ECANCELED;
}

void listen_fill(struct lido_pg_listener *listener, PGnotify *notify, struct lido_pg_notification *ret_notification)
{
        memset(ret_notification, 0, sizeof *ret_notification);
        PQfreemem(listener->notify);
        listener->notify = notify;
        ret_notification->kind = LIDO_PG_NOTIFIED;
        ret_notification->channel = notify->relname;
        ret_notification->payload = notify->extra;
        ret_notification->backend_pid = notify->be_pid;
}

bool listen_read(struct lido_pg_listener *listener)
{
        struct pg_session *session = listen_session(listener);

        if (!session || !PQconsumeInput(session->conn))
                return false;
        PQisBusy(session->conn); /* parses, so that the server's last words are known */
        listener->heard_ns = clock_now_ns();
        return !session->is_lost;
}

void listen_free(struct lido_pg_listener *listener)
{
        PQfreemem(listener->notify);
        mem_free(listener->statements);
        mem_free(listener);
}

/* ---- the thread form --------------------------------------------------------------------------------------- */

/* Acquire, and listen. */
static int connect_once(struct lido_pg_listener *listener, uint64_t deadline_ns, struct lido_error *ret_error)
{
        struct lido_acquire_options acquire = LIDO_ACQUIRE_OPTIONS_INIT;
        int rc;

        acquire.timeout_ms = clock_timeout_ms(deadline_ns);
        acquire.tag = listener->options.tag;
        acquire.site = "lido_pg_listen";
        rc = lido_acquire_with(listener->pool, &acquire, &listener->lease);
        if (rc != LIDO_OK) {
                failure_set(ret_error, rc, LIDO_FAILURE_TRANSIENT, lido_strerror(rc));
                return rc;
        }
        listener->is_leased = true;
        for (uint32_t i = 0; i < listener->options.channel_count && rc == LIDO_OK; i++)
                rc = lease_run(listener->lease, listener->statements[i], deadline_ns, ret_error);
        if (rc != LIDO_OK)
                listen_drop(listener);
        else
                listener->failures = 0;
        listener->heard_ns = clock_now_ns();
        return rc;
}

/* Returns: LIDO_OK; LIDO_EUNAVAIL at the deadline; what makes it useless to go on. */
static int reconnect(struct lido_pg_listener *listener, uint64_t deadline_ns)
{
        _Atomic uint32_t never = 0;
        struct lido_error error;

        for (;;) {
                int rc = connect_once(listener, deadline_ns, &error);
                uint64_t until_ns;

                if (rc == LIDO_OK || listen_is_final(rc))
                        return rc;
                until_ns = clock_now_ns() + listen_pause_ns(listener);
                while (park_wait(&never, 0, clock_min(until_ns, deadline_ns)))
                        continue;
                if (clock_now_ns() >= deadline_ns)
                        return LIDO_EUNAVAIL;
        }
}

/* Wait for the socket, and after a long silence for a sign of life. Returns: LIDO_OK; LIDO_ETIMEDOUT; LIDO_EFACTORY. */
static int wait_for_more(struct lido_pg_listener *listener, struct pg_session *session, uint64_t deadline_ns)
{
        uint64_t check_ns = clock_after_ms(listener->heard_ns, listener->options.check_ms);
        struct lido_error error;
        int rc;

        if (work_has_pending(session->conn))
                return listen_read(listener) ? LIDO_OK : LIDO_EFACTORY;
        rc = wait_for_socket(session->conn, false, clock_min(deadline_ns, check_ns));
        if (rc == LIDO_OK)
                return listen_read(listener) ? LIDO_OK : LIDO_EFACTORY;
        if (rc == LIDO_EDEADLINE && clock_now_ns() >= check_ns) {
                rc = lease_run(listener->lease, "", clock_after_ms(clock_now_ns(), CHECK_TIMEOUT_MS), &error);
                listener->heard_ns = clock_now_ns();
                return rc == LIDO_OK ? LIDO_OK : LIDO_EFACTORY;
        }
        return rc == LIDO_EDEADLINE ? LIDO_ETIMEDOUT : LIDO_EFACTORY;
}

int lido_pg_next_notification(struct lido_pg_listener *listener, int64_t timeout_ms,
                              struct lido_pg_notification *ret_notification)
{
        uint64_t deadline_ns = clock_after_ms(clock_now_ns(), timeout_ms);

        if (!listener || listener->loop || !ret_notification || timeout_ms < LIDO_NEVER)
                return LIDO_EINVAL;
        for (;;) {
                struct pg_session *session = listen_session(listener);
                PGnotify *notify = session ? PQnotifies(session->conn) : NULL;
                int rc = LIDO_EFACTORY;

                if (notify) {
                        listen_fill(listener, notify, ret_notification);
                        return LIDO_OK;
                }
                if (session)
                        rc = wait_for_more(listener, session, deadline_ns);
                if (rc == LIDO_ETIMEDOUT)
                        return rc;
                if (rc == LIDO_OK)
                        continue;
                listen_drop(listener);
                rc = reconnect(listener, deadline_ns);
                if (rc != LIDO_OK)
                        return rc;
                memset(ret_notification, 0, sizeof *ret_notification);
                ret_notification->kind = LIDO_PG_MISSED;
                return LIDO_OK;
        }
}

/* ---- the face ---------------------------------------------------------------------------------------------- */

static int take_in(struct lido_pg_listener *listener, const struct lido_pg_listen_options *theirs)
{
        struct lido_pg_listen_options *ours = &listener->options;
        int rc = sized_take(ours, sizeof *ours, theirs);

        if (rc != LIDO_OK)
                return rc;
        if (ours->channel_count == 0 || !ours->channels || ours->timeout_ms < LIDO_NEVER || ours->check_ms < LIDO_NEVER ||
            (ours->loop && (!ours->on_notification || !lido_loop_is_self(ours->loop))))
                return LIDO_EINVAL;
        for (uint32_t i = 0; i < ours->channel_count; i++)
                if (!ours->channels[i] || ours->channels[i][0] == '\0')
                        return LIDO_EINVAL;
        if (ours->check_ms == 0)
                ours->check_ms = CHECK_MS;
        listener->loop = ours->loop;
        listener->random.state = random_seed();
        listener->statements = write_statements(ours->channels, ours->channel_count);
        ours->channels = NULL;
        return listener->statements ? LIDO_OK : LIDO_ENOMEM;
}

static int start(struct lido_pg_listener *listener)
{
        int64_t timeout_ms = listener->options.timeout_ms;
        struct lido_error error;
        int rc;

        if (listener->loop)
                return listen_loop_start(listener);
        rc = connect_once(listener, clock_deadline(timeout_ms), &error);
        if (rc != LIDO_OK && listener->options.error)
                *listener->options.error = error;
        listener->options.error = NULL;
        return rc;
}

int lido_pg_listen(struct lido_pool *pool, const struct lido_pg_listen_options *options, struct lido_pg_listener **ret_listener)
{
        struct lido_pg_listener *listener;
        int rc;

        if (!pool || !options || !ret_listener)
                return LIDO_EINVAL;
        if (!pool_is_pg(pool))
                return LIDO_EFOREIGN;
        listener = mem_zalloc(sizeof *listener);
        if (!listener)
                return LIDO_ENOMEM;
        listener->pool = pool;
        rc = take_in(listener, options);
        if (rc == LIDO_OK)
                rc = start(listener);
        if (rc != LIDO_OK) {
                listen_free(listener);
                return rc;
        }
        *ret_listener = listener;
        return LIDO_OK;
}

void lido_pg_listener_close(struct lido_pg_listener *listener)
{
        if (!listener)
                return;
        if (listener->loop) {
                listen_loop_close(listener);
                return;
        }
        listen_give_back(listener);
        listen_free(listener);
}
