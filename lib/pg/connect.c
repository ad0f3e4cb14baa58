#include "pg/connect.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "pg/addresses.h"
#include "pg/failure.h"
#include "pg/work.h"

/* One attempt at one address. */
struct attempt {
        const struct pg_options *options;
        const struct connect_stop *stop;
        const struct pg_host *host; /* NULL: libpq sees to the hosts */
        const char *session_attrs;
        uint64_t deadline_ns;
        PGconn *conn;
        struct lido_error error;
};

/* ---- waiting --------------------------------------------------------------------------------------------- */

static int milliseconds_until(uint64_t deadline_ns)
{
        uint64_t now = clock_now_ns();

        if (deadline_ns == CLOCK_NEVER)
                return -1;
        if (deadline_ns <= now)
                return 0;

        uint64_t left = (deadline_ns - now + NS_PER_MS - 1) / NS_PER_MS;
        return left > 3600000 ? 3600000 : (int)left;
}

/* Wait for the socket. Returns: LIDO_OK when it is ready; LIDO_EDEADLINE; LIDO_ECANCELED. */
static int wait_for(struct attempt *attempt, short events)
{
        for (;;) {
                struct pollfd fds[2] = {
                        {.fd = PQsocket(attempt->conn), .events = events}, /* libpq may have opened another since */
                        {.fd = attempt->stop->abort_fd, .events = POLLIN},
                };
                int ready = poll(fds, 2, milliseconds_until(attempt->deadline_ns));

                if (ready > 0 && fds[1].revents)
                        return LIDO_ECANCELED;
                if (ready > 0)
                        return LIDO_OK;
                if (ready == 0 && clock_now_ns() >= attempt->deadline_ns)
                        return LIDO_EDEADLINE;
                if (ready < 0 && errno != EINTR)
                        return LIDO_EFACTORY;
        }
}

/* ---- what a failure means -------------------------------------------------------------------------------- */

static void describe_place(const struct attempt *attempt, char *text, size_t size)
{
        const char *host = PQhost(attempt->conn), *address = PQhostaddr(attempt->conn), *port = PQport(attempt->conn);

        snprintf(text, size, "\"%.80s\"%s%.60s%s, port %.10s", host ? host : "", address && *address ? " (" : "",
                 address ? address : "", address && *address ? ")" : "", port ? port : "");
}

static int fail_waiting(struct attempt *attempt, int code)
{
        int native = code == LIDO_EFACTORY ? errno : 0;
        char place[200], text[250];

        describe_place(attempt, place, sizeof place);
        snprintf(text, sizeof text, "connection to server at %s failed: %s", place,
                 code == LIDO_EDEADLINE   ? "no answer in time"
                 : code == LIDO_ECANCELED ? "it is not wanted any more"
                                          : strerror(native));
        failure_set(&attempt->error, code, LIDO_FAILURE_NETWORK, text);
        attempt->error.native = native;
        return code;
}

/* Without an SQLSTATE, how far libpq had come says what kind of failure it is. */
static enum lido_failure kind_by_progress(const struct attempt *attempt, ConnStatusType reached)
{
        if (PQconnectionNeedsPassword(attempt->conn))
                return LIDO_FAILURE_PERMANENT;
        if (PQparameterStatus(attempt->conn, "server_version")) /* logged in, but it is not the role that we want */
                return LIDO_FAILURE_NOT_READY;
        if (reached == CONNECTION_SSL_STARTUP && strstr(PQerrorMessage(attempt->conn), "certificate"))
                return LIDO_FAILURE_PERMANENT; /* OpenSSL's word, which is not translated */
        return LIDO_FAILURE_NETWORK;
}

static int fail_by_libpq(struct attempt *attempt, ConnStatusType reached)
{
        failure_from_text(&attempt->error, PQerrorMessage(attempt->conn));
        if (attempt->error.sqlstate[0] == '\0')
                attempt->error.failure = kind_by_progress(attempt, reached);
        attempt->error.code = attempt->error.failure == LIDO_FAILURE_PERMANENT ? LIDO_EPERMANENT : LIDO_EFACTORY;
        return attempt->error.code;
}

/* With sslmode=prefer libpq tries again in clear text after any refusal, a wrong password included: the server would
 * count it twice, and be told the password in clear. Only pg_hba.conf (28000) may decide otherwise without TLS. */
static bool is_refused_already(const struct attempt *attempt)
{
        const char *state = failure_find_sqlstate(PQerrorMessage(attempt->conn));

        return attempt->host && state && strncmp(state, "28000", 5) != 0;
}

/* ---- one attempt ----------------------------------------------------------------------------------------- */

static void take_notice(void *options_pointer, const PGresult *notice)
{
        const struct pg_options *options = options_pointer;

        if (options->given.on_notice)
                options->given.on_notice(notice, options->given.notice_context);
}

static _Atomic(PQnoticeReceiver) libpq_receiver; /* the same for every connection */

PQnoticeReceiver connect_libpq_receiver(void)
{
        return load_relaxed(&libpq_receiver);
}

static int start(struct attempt *attempt)
{
        const char *keywords[OPTIONS_PARAMETERS], *values[OPTIONS_PARAMETERS];

        options_parameters(attempt->options, attempt->host, attempt->session_attrs, keywords, values);
        attempt->conn = PQconnectStartParams(keywords, values, 0);
        if (!attempt->conn) {
                failure_set(&attempt->error, LIDO_ENOMEM, LIDO_FAILURE_TRANSIENT, "out of memory");
                return LIDO_ENOMEM;
        }
        PQsetErrorVerbosity(attempt->conn, PQERRORS_VERBOSE);
        store_relaxed(&libpq_receiver, PQsetNoticeReceiver(attempt->conn, take_notice, (void *)attempt->options));
        if (PQstatus(attempt->conn) == CONNECTION_BAD)
                return fail_by_libpq(attempt, CONNECTION_STARTED);
        return LIDO_OK;
}

static int log_in(struct attempt *attempt)
{
        PostgresPollingStatusType want = PGRES_POLLING_WRITING;

        while (want != PGRES_POLLING_OK) {
                int rc = wait_for(attempt, want == PGRES_POLLING_READING ? POLLIN : POLLOUT);
                ConnStatusType reached = PQstatus(attempt->conn);

                if (rc != LIDO_OK)
                        return fail_waiting(attempt, rc);
                want = PQconnectPoll(attempt->conn);
                if (want == PGRES_POLLING_FAILED || (want != PGRES_POLLING_OK && is_refused_already(attempt)))
                        return fail_by_libpq(attempt, reached);
        }
        return LIDO_OK;
}

static int set_up(struct attempt *attempt)
{
        const char *steps[] = {attempt->options->setup, NULL};
        struct work work;
        enum work_want want;

        if (!attempt->options->setup)
                return LIDO_OK;
        work_start(&work, attempt->conn, steps, attempt->options->given.drain_bytes);
        while ((want = work_advance(&work)) == WORK_READ || want == WORK_READ_WRITE) {
                int rc = wait_for(attempt, want == WORK_READ ? POLLIN : POLLIN | POLLOUT);

                if (rc != LIDO_OK)
                        return fail_waiting(attempt, rc);
        }
        if (want == WORK_DONE && PQtransactionStatus(attempt->conn) == PQTRANS_IDLE)
                return LIDO_OK;
        if (want == WORK_DONE)
                failure_set(&work.error, LIDO_EPERMANENT, LIDO_FAILURE_PERMANENT, "the set-up left a transaction open");
        attempt->error = work.error;
        attempt->error.code = work.error.failure == LIDO_FAILURE_PERMANENT ? LIDO_EPERMANENT : LIDO_EFACTORY;
        return attempt->error.code;
}

/* libpq sends a goodbye in PQfinish, which must not block. */
static void drop(struct attempt *attempt)
{
        if (PQtransactionStatus(attempt->conn) == PQTRANS_IDLE)
                PQsetnonblocking(attempt->conn, 1);
        PQfinish(attempt->conn);
        attempt->conn = NULL;
}

static int try_once(struct attempt *attempt)
{
        int64_t timeout_ms = attempt->options->given.attempt_timeout_ms;
        int rc;

        attempt->deadline_ns = clock_min(attempt->stop->deadline_ns, clock_after_ms(clock_now_ns(), timeout_ms));
        memset(&attempt->error, 0, sizeof attempt->error);
        rc = start(attempt);
        if (rc == LIDO_OK)
                rc = log_in(attempt);
        if (rc == LIDO_OK) {
                attempt->deadline_ns = attempt->stop->deadline_ns; /* the address is good: no haste but the op's own */
                PQsetErrorVerbosity(attempt->conn, PQERRORS_DEFAULT);
                rc = set_up(attempt);
        }
        if (rc != LIDO_OK)
                drop(attempt);
        return rc;
}

/* ---- the search ------------------------------------------------------------------------------------------ */

static bool is_final(int rc)
{
        return rc == LIDO_OK || rc == LIDO_EPERMANENT || rc == LIDO_ECANCELED || rc == LIDO_ENOMEM;
}

/* Keep the more telling failure. */
static void keep(struct lido_error *best, const struct lido_error *error, int rc)
{
        if (best->code == LIDO_OK || is_final(rc) || (best->sqlstate[0] == '\0' && error->sqlstate[0] != '\0'))
                *best = *error;
}

static int try_address(struct attempt *attempt, struct lido_error *best)
{
        int rc = try_once(attempt);

        if (rc != LIDO_OK)
                keep(best, &attempt->error, rc);
        if (!is_final(rc) && clock_now_ns() >= attempt->stop->deadline_ns)
                best->code = LIDO_EDEADLINE;
        return rc;
}

static bool is_time_left(const struct connect_stop *stop)
{
        return clock_now_ns() < stop->deadline_ns;
}

static int look_up(struct attempt *attempt, const char *name, struct addresses *addresses)
{
        const struct connect_stop *stop = attempt->stop;

        if (stop->before_lookup)
                stop->before_lookup(stop->owner);
        int rc = addresses_resolve(addresses, name, &attempt->error);
        if (stop->after_lookup)
                stop->after_lookup(stop->owner);
        return rc;
}

static int try_host(struct attempt *attempt, const struct pg_host *host, struct lido_error *best)
{
        struct addresses addresses;
        struct pg_host one = *host;
        int rc;

        attempt->host = &one;
        if (host->hostaddr || !addresses_are_needed(host->host))
                return try_address(attempt, best);
        rc = look_up(attempt, host->host, &addresses);
        if (rc != LIDO_OK) {
                keep(best, &attempt->error, rc);
                return rc;
        }
        rc = LIDO_EDEADLINE;
        for (unsigned i = 0; i < addresses.count && is_time_left(attempt->stop); i++) {
                one.hostaddr = addresses.text[i];
                rc = try_address(attempt, best);
                if (is_final(rc))
                        break;
        }
        return rc;
}

static int try_hosts(struct attempt *attempt, struct lido_error *best)
{
        const struct pg_options *options = attempt->options;
        int rc = LIDO_EDEADLINE;

        if (options->host_count == 0)
                return try_address(attempt, best);
        for (unsigned i = 0; i < options->host_count && is_time_left(attempt->stop); i++) {
                rc = try_host(attempt, &options->hosts[i], best);
                if (is_final(rc))
                        break;
        }
        return rc;
}

int connect_open(const struct pg_options *options, const struct connect_stop *stop, PGconn **ret_conn,
                 struct lido_error *error)
{
        struct attempt attempt = {.options = options, .stop = stop, .session_attrs = options->session_attrs};
        bool prefers_standby = options->session_attrs && strcmp(options->session_attrs, "prefer-standby") == 0;
        int rc;

        memset(error, 0, sizeof *error);
        /* libpq would take the first host for want of another, seeing but one at a time */
        attempt.session_attrs = prefers_standby ? "standby" : options->session_attrs;
        rc = try_hosts(&attempt, error);
        if (prefers_standby && !is_final(rc) && is_time_left(stop)) {
                attempt.session_attrs = "any";
                rc = try_hosts(&attempt, error);
        }
        if (rc == LIDO_OK) {
                *ret_conn = attempt.conn;
                return LIDO_OK;
        }
        if (error->code == LIDO_OK)
                failure_set(error, LIDO_EDEADLINE, LIDO_FAILURE_NETWORK, "no time was left to connect");
        options_redact(options, error);
        return error->code;
}
