#include "pg/connect.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "base/mem.h"
#include "lido/keyed.h"
#include "pg/failure.h"

/* What a step says that leads to the next one at once. */
#define GO_ON ((enum connect_want)-1)

static bool is_final(int rc)
{
        return rc == LIDO_OK || rc == LIDO_EPERMANENT || rc == LIDO_ECANCELED || rc == LIDO_ENOMEM;
}

/* ---- life ------------------------------------------------------------------------------------------------ */

void connect_init(struct connect *connect, const struct connect_tools *tools, uint64_t deadline_ns)
{
        unsigned count = tools->options->host_count;

        memset(connect, 0, sizeof *connect);
        connect->tools = tools;
        connect->deadline_ns = connect->attempt_ns = deadline_ns;
        connect->host = -1;
        connect->step = CONNECT_STEP_PASS;
        connect->order = mem_zalloc((count ? count : 1) * sizeof *connect->order);
        news_init(&connect->news);
        connect->news.since_ns = clock_now_ns();
}

void connect_begin(struct connect *connect, const struct connect_tools *tools, lido_op op)
{
        size_t size;
        const void *key = lido_op_key(op, &size);

        connect_init(connect, tools, lido_op_deadline_ns(op));
        if (key && options_parse_key(key, size, &connect->key, &connect->best) != LIDO_OK)
                connect->step = CONNECT_STEP_REFUSED;
}

void connect_init_probe(struct connect *connect, const struct connect_tools *tools, unsigned host, uint64_t deadline_ns)
{
        connect_init(connect, tools, deadline_ns);
        connect->is_probe = true;
        connect->session_attrs = "any";
        connect->step = CONNECT_STEP_HOST;
        connect->pass = 2;
        if (connect->order)
                connect->order[connect->order_count++] = host;
}

/* It is linked where it asked last, if anywhere. */
static void forget_news(struct connect *connect)
{
        if (connect->step == CONNECT_STEP_ADDRESSES)
                resolver_forget(connect->tools->resolver, &connect->news);
        if (connect->step == CONNECT_STEP_SECRET && connect->tools->credentials)
                credentials_forget(connect->tools->credentials, &connect->news);
}

/* The host is left without a session. */
static void leave_host(struct connect *connect)
{
        if (connect->host >= 0 && connect->tools->hosts && !connect->is_probe)
                hosts_count(connect->tools->hosts, (unsigned)connect->host, -1);
        connect->host = -1;
}

/* libpq sends a goodbye in PQfinish, which must not block. */
static void drop(struct connect *connect)
{
        if (connect->conn && PQtransactionStatus(connect->conn) == PQTRANS_IDLE)
                PQsetnonblocking(connect->conn, 1);
        PQfinish(connect->conn);
        connect->conn = NULL;
}

void connect_fini(struct connect *connect)
{
        forget_news(connect);
        news_fini(&connect->news);
        if (connect->conn || connect->step != CONNECT_STEP_OVER) {
                drop(connect);
                leave_host(connect);
        }
        secret_unref(connect->secret);
        mem_free(connect->order);
        PQconninfoFree(connect->key);
        connect->secret = NULL;
        connect->order = NULL;
        connect->key = NULL;
}

PGconn *connect_take(struct connect *connect)
{
        PGconn *conn = connect->conn;

        connect->conn = NULL;
        return conn;
}

const struct lido_error *connect_error(const struct connect *connect)
{
        return &connect->best;
}

int connect_fd(const struct connect *connect)
{
        bool is_asking = connect->step == CONNECT_STEP_ADDRESSES || connect->step == CONNECT_STEP_SECRET;

        return is_asking ? connect->news.fd : PQsocket(connect->conn);
}

uint64_t connect_due_ns(const struct connect *connect)
{
        return connect->attempt_ns;
}

/* ---- what a failure means -------------------------------------------------------------------------------- */

static void set_error(struct connect *connect, int code, enum lido_failure failure, const char *text)
{
        failure_set(&connect->error, code, failure, text);
}

static void describe_place(const struct connect *connect, char *text, size_t size)
{
        const char *host = PQhost(connect->conn), *address = PQhostaddr(connect->conn), *port = PQport(connect->conn);

        snprintf(text, size, "\"%.80s\"%s%.60s%s, port %.10s", host ? host : "", address && *address ? " (" : "",
                 address ? address : "", address && *address ? ")" : "", port ? port : "");
}

static void fail_waiting(struct connect *connect, int code, const char *why)
{
        char place[200], text[250];

        if (connect->conn) {
                describe_place(connect, place, sizeof place);
                snprintf(text, sizeof text, "connection to server at %s failed: %s", place, why);
        } else {
                snprintf(text, sizeof text, "connection to server at \"%.100s\" failed: %s%s",
                         connect->place.host ? connect->place.host : "", why,
                         connect->step == CONNECT_STEP_ADDRESSES ? " to a look-up of its name"
                         : connect->step == CONNECT_STEP_SECRET  ? " to a question for a password"
                                                                 : "");
        }
        set_error(connect, code, LIDO_FAILURE_NETWORK, text);
}

/* Without an SQLSTATE, how far libpq had come says what kind of failure it is. */
static enum lido_failure kind_by_progress(const struct connect *connect, ConnStatusType reached)
{
        if (PQconnectionNeedsPassword(connect->conn))
                return LIDO_FAILURE_PERMANENT;
        if (PQparameterStatus(connect->conn, "server_version")) /* logged in, but it is not the role that we want */
                return LIDO_FAILURE_NOT_READY;
        if (reached == CONNECTION_SSL_STARTUP && strstr(PQerrorMessage(connect->conn), "certificate"))
                return LIDO_FAILURE_PERMANENT; /* OpenSSL's word, which is not translated */
        return LIDO_FAILURE_NETWORK;
}

static void fail_by_libpq(struct connect *connect, ConnStatusType reached)
{
        failure_from_text(&connect->error, PQerrorMessage(connect->conn));
        if (connect->error.sqlstate[0] == '\0')
                connect->error.failure = kind_by_progress(connect, reached);
        connect->error.code = connect->error.failure == LIDO_FAILURE_PERMANENT ? LIDO_EPERMANENT : LIDO_EFACTORY;
}

/* With sslmode=prefer libpq tries again in clear text after any refusal, a wrong password included: the server would
 * count it twice, and be told the password in clear. Only pg_hba.conf (28000) may decide otherwise without TLS. */
static bool is_refused_already(const struct connect *connect)
{
        const char *state = failure_find_sqlstate(PQerrorMessage(connect->conn));

        return connect->host >= 0 && state && strncmp(state, "28000", 5) != 0;
}

/* ---- the search ------------------------------------------------------------------------------------------ */

static void keep_the_more_telling(struct connect *connect)
{
        struct lido_error *best = &connect->best, *error = &connect->error;

        if (best->code == LIDO_OK || is_final(error->code) || (best->sqlstate[0] == '\0' && error->sqlstate[0] != '\0'))
                *best = *error;
}

/* No more. */
static enum connect_want end(struct connect *connect)
{
        if (connect->best.code == LIDO_OK)
                failure_set(&connect->best, LIDO_EDEADLINE, LIDO_FAILURE_NETWORK, "no time was left to connect");
        options_redact(connect->tools->options, &connect->best);
        if (connect->secret)
                failure_redact(&connect->best, connect->secret->password);
        forget_news(connect);
        drop(connect);
        leave_host(connect);
        connect->step = CONNECT_STEP_OVER;
        return CONNECT_FAILED;
}

/* A password that the provider gave is refused: it counts for nobody any more. He may have a newer one, but is asked for it once
 * only. */
static bool may_have_another_secret(const struct connect *connect)
{
        bool is_refused = strcmp(connect->error.sqlstate, "28P01") == 0 || strcmp(connect->error.sqlstate, "28000") == 0;

        if (!connect->secret || !is_refused)
                return false;
        credentials_refused(connect->tools->credentials, connect->secret->number);
        return connect->refused == 0;
}

static void note_address(struct connect *connect)
{
        bool is_dead = connect->error.failure == LIDO_FAILURE_NETWORK && connect->error.sqlstate[0] == '\0';

        if (connect->addresses.count > 0 && connect->place.hostaddr)
                resolver_note(connect->tools->resolver, connect->place.host, connect->place.hostaddr, !is_dead);
}

/* The attempt has failed with connect->error. Where next? */
static enum connect_want fail_attempt(struct connect *connect)
{
        note_address(connect);
        drop(connect);
        connect->attempt_ns = connect->deadline_ns;
        if (may_have_another_secret(connect)) {
                connect->refused = connect->secret->number;
                connect->news.since_ns = clock_now_ns();
                connect->step = CONNECT_STEP_SECRET;
                return GO_ON;
        }
        keep_the_more_telling(connect);
        if (is_final(connect->error.code))
                return end(connect);
        connect->step = ++connect->address_at < connect->addresses.count ? CONNECT_STEP_SECRET : CONNECT_STEP_HOST;
        if (connect->step == CONNECT_STEP_SECRET)
                return GO_ON;
        if (connect->host >= 0 && connect->tools->hosts && connect->error.failure == LIDO_FAILURE_NETWORK)
                hosts_lose(connect->tools->hosts, (unsigned)connect->host);
        return GO_ON;
}

/* prefer-standby is two searches: libpq would take the first host for want of another, seeing but one at a time. */
static enum connect_want next_pass(struct connect *connect)
{
        const struct connect_tools *tools = connect->tools;
        const char *attrs = tools->options->session_attrs;
        bool prefers_standby = attrs && strcmp(attrs, "prefer-standby") == 0;

        if (!connect->order) {
                set_error(connect, LIDO_ENOMEM, LIDO_FAILURE_TRANSIENT, "out of memory");
                keep_the_more_telling(connect);
                return end(connect);
        }
        if (connect->pass++ >= (prefers_standby ? 2u : 1u))
                return end(connect);
        connect->session_attrs = !prefers_standby ? attrs : connect->pass == 1 ? "standby" : "any";
        connect->order_at = 0;
        connect->step = CONNECT_STEP_HOST;
        if (tools->hosts) {
                connect->order_count = hosts_order(tools->hosts, connect->session_attrs, connect->order);
                return GO_ON;
        }
        connect->order_count = tools->options->host_count ? tools->options->host_count : 1;
        for (unsigned i = 0; i < connect->order_count; i++)
                connect->order[i] = i;
        return GO_ON;
}

static bool is_numeric(const char *host)
{
        struct in6_addr address;

        return inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1;
}

static enum connect_want next_host(struct connect *connect)
{
        const struct connect_tools *tools = connect->tools;
        const struct pg_host *place = &connect->place;

        leave_host(connect);
        connect->step = connect->is_probe ? CONNECT_STEP_OVER : CONNECT_STEP_PASS;
        if (connect->order_at >= connect->order_count)
                return connect->is_probe ? end(connect) : GO_ON;
        connect->addresses.count = connect->address_at = 0;
        connect->step = CONNECT_STEP_SECRET;
        if (tools->options->host_count == 0) {
                connect->order_at++;
                return GO_ON;
        }
        connect->host = (int)connect->order[connect->order_at++];
        connect->place = tools->options->hosts[connect->host];
        if (tools->hosts && !connect->is_probe)
                hosts_count(tools->hosts, (unsigned)connect->host, 1);
        if (place->hostaddr || !addresses_are_needed(place->host))
                return GO_ON;
        if (is_numeric(place->host)) {
                connect->place.hostaddr = place->host;
                return GO_ON;
        }
        connect->step = CONNECT_STEP_ADDRESSES;
        connect->attempt_ns = clock_min(connect->deadline_ns,
                                        clock_after_ms(clock_now_ns(), tools->options->given.attempt_timeout_ms));
        return GO_ON;
}

static enum connect_want find_addresses(struct connect *connect)
{
        int rc = resolver_ask(connect->tools->resolver, connect->place.host, &connect->news, &connect->addresses, &connect->error);

        if (rc == LIDO_EBUSY)
                return CONNECT_READ;
        if (rc != LIDO_OK)
                return fail_attempt(connect);
        connect->attempt_ns = connect->deadline_ns;
        connect->step = CONNECT_STEP_SECRET;
        return GO_ON;
}

/* ---- one attempt ----------------------------------------------------------------------------------------- */

static void take_notice(void *options_pointer, const PGresult *notice)
{
        const struct pg_options *options = options_pointer;

        if (options->given.on_notice)
                options->given.on_notice(notice, options->given.notice_context);
}

static _Atomic(PQnoticeReceiver) libpq_receiver; /* libpq's own, the same for every connection */
static _Atomic(PQnoticeProcessor) libpq_processor;

void connect_give_back_notices(PGconn *conn)
{
        PQsetNoticeReceiver(conn, load_relaxed(&libpq_receiver), NULL);
        PQsetNoticeProcessor(conn, load_relaxed(&libpq_processor), NULL);
}

static enum connect_want start(struct connect *connect)
{
        const struct pg_options *options = connect->tools->options;
        struct options_attempt attempt = {
                .host = connect->host >= 0 ? &connect->place : NULL,
                .session_attrs = connect->session_attrs,
                .key = connect->key,
                .user = connect->secret ? connect->secret->user : NULL,
                .password = connect->secret ? connect->secret->password : NULL,
        };

        if (connect->addresses.count > 0)
                connect->place.hostaddr = connect->addresses.text[connect->address_at];
        connect->attempt_ns =
                clock_min(connect->deadline_ns, clock_after_ms(clock_now_ns(), options->given.attempt_timeout_ms));
        if (options->is_template) {
                uint32_t number = connect->tools->number ? add_relaxed(connect->tools->number, 1u) : 0;

                options_expand_name(options, number, connect->application_name, sizeof connect->application_name);
                attempt.application_name = connect->application_name;
        }
        options_parameters(options, &attempt);
        connect->conn = PQconnectStartParams(attempt.keywords, attempt.values, 0);
        if (!connect->conn) {
                set_error(connect, LIDO_ENOMEM, LIDO_FAILURE_TRANSIENT, "out of memory");
                return fail_attempt(connect);
        }
        PQsetErrorVerbosity(connect->conn, PQERRORS_VERBOSE);
        store_relaxed(&libpq_processor, PQsetNoticeProcessor(connect->conn, NULL, NULL)); /* NULL only asks */
        store_relaxed(&libpq_receiver, PQsetNoticeReceiver(connect->conn, take_notice, (void *)options));
        if (PQstatus(connect->conn) == CONNECTION_BAD) {
                fail_by_libpq(connect, CONNECTION_STARTED);
                return fail_attempt(connect);
        }
        connect->step = CONNECT_STEP_LOG_IN;
        return CONNECT_WRITE;
}

static enum connect_want find_secret(struct connect *connect)
{
        struct credentials *credentials = connect->tools->credentials;
        struct secret *secret;
        int rc;

        if (!credentials)
                return start(connect);
        rc = credentials_ask(credentials, connect->refused, &connect->news, &secret, &connect->error);
        if (rc == LIDO_EBUSY)
                return CONNECT_READ;
        if (rc != LIDO_OK) { /* the next host would have to ask too */
                keep_the_more_telling(connect);
                return end(connect);
        }
        secret_unref(connect->secret);
        connect->secret = secret;
        return start(connect);
}

static enum connect_want begin_set_up(struct connect *connect)
{
        const struct pg_options *options = connect->tools->options;

        PQsetErrorVerbosity(connect->conn, PQERRORS_DEFAULT);
        if (PQsetnonblocking(connect->conn, 0) != 0) { /* nothing is unsent, so it does not block */
                fail_by_libpq(connect, CONNECTION_OK);
                return fail_attempt(connect);
        }
        connect->step = CONNECT_STEP_OVER;
        if (!options->setup || connect->is_probe)
                return CONNECT_DONE;
        connect->setup[0] = options->setup;
        work_start(&connect->work, connect->conn, connect->setup, options->given.drain_bytes);
        connect->step = CONNECT_STEP_SET_UP;
        return GO_ON;
}

/* A pool of several hosts takes nobody's word for what he was. */
static enum connect_want begin_identity(struct connect *connect)
{
        connect->attempt_ns = connect->deadline_ns; /* the address is good: no haste but the op's own */
        note_address(connect);
        if (!connect->tools->hosts || connect->is_probe)
                return begin_set_up(connect);
        connect->step = CONNECT_STEP_IDENTITY;
        if (PQsetnonblocking(connect->conn, 1) == 0 && probe_send(connect->conn, &connect->probe))
                return GO_ON;
        fail_by_libpq(connect, CONNECTION_OK);
        return fail_attempt(connect);
}

static enum connect_want log_in(struct connect *connect, bool is_ready)
{
        ConnStatusType reached = PQstatus(connect->conn);
        PostgresPollingStatusType polling;

        if (!is_ready)
                return connect->want;
        connect->error.failure = LIDO_FAILURE_TRANSIENT;
        polling = PQconnectPoll(connect->conn);
        if (polling == PGRES_POLLING_FAILED || (polling != PGRES_POLLING_OK && is_refused_already(connect))) {
                fail_by_libpq(connect, reached);
                return fail_attempt(connect);
        }
        if (polling == PGRES_POLLING_OK)
                return begin_identity(connect);
        return polling == PGRES_POLLING_READING ? CONNECT_READ : CONNECT_WRITE;
}

static enum connect_want find_identity(struct connect *connect)
{
        int flushed = PQflush(connect->conn), rc = probe_read(connect->conn, &connect->probe);
        const char *against;

        if (rc == 0)
                return flushed == 1 ? CONNECT_READ_WRITE : CONNECT_READ;
        if (rc < 0) {
                fail_by_libpq(connect, CONNECTION_OK);
                return fail_attempt(connect);
        }
        against = hosts_admit(connect->tools->hosts, (unsigned)connect->host, &connect->probe, connect->session_attrs);
        if (!against)
                return begin_set_up(connect);

        char place[200], text[400];
        describe_place(connect, place, sizeof place);
        snprintf(text, sizeof text, "connection to server at %s refused: %.100s", place, against);
        set_error(connect, LIDO_EFACTORY, LIDO_FAILURE_NOT_READY, text);
        return fail_attempt(connect);
}

static enum connect_want set_up(struct connect *connect)
{
        struct work *work = &connect->work;
        enum work_want want = work_advance(work);

        if (want == WORK_READ)
                return CONNECT_READ;
        if (want == WORK_READ_WRITE)
                return CONNECT_READ_WRITE;
        if (want == WORK_DONE && PQtransactionStatus(connect->conn) == PQTRANS_IDLE) {
                connect->step = CONNECT_STEP_OVER;
                return CONNECT_DONE;
        }
        if (want == WORK_DONE)
                failure_set(&work->error, LIDO_EPERMANENT, LIDO_FAILURE_PERMANENT, "the set-up left a transaction open");
        connect->error = work->error;
        connect->error.code = work->error.failure == LIDO_FAILURE_PERMANENT ? LIDO_EPERMANENT : LIDO_EFACTORY;
        return fail_attempt(connect);
}

/* ---- one after the other --------------------------------------------------------------------------------- */

static enum connect_want take_step(struct connect *connect, bool is_ready)
{
        switch (connect->step) {
        case CONNECT_STEP_PASS:
                return next_pass(connect);
        case CONNECT_STEP_HOST:
                return next_host(connect);
        case CONNECT_STEP_ADDRESSES:
                return find_addresses(connect);
        case CONNECT_STEP_SECRET:
                return find_secret(connect);
        case CONNECT_STEP_LOG_IN:
                return log_in(connect, is_ready);
        case CONNECT_STEP_IDENTITY:
                return find_identity(connect);
        case CONNECT_STEP_SET_UP:
                return set_up(connect);
        case CONNECT_STEP_REFUSED:
                return end(connect);
        case CONNECT_STEP_OVER:
                break;
        }
        return CONNECT_FAILED;
}

/* Time is over for the step, and perhaps for all of them. */
static enum connect_want time_out(struct connect *connect)
{
        bool is_over = clock_now_ns() >= connect->deadline_ns;

        if (connect->step >= CONNECT_STEP_ADDRESSES)
                fail_waiting(connect, LIDO_EDEADLINE, "no answer in time");
        forget_news(connect);
        if (!is_over)
                return fail_attempt(connect);
        if (connect->step >= CONNECT_STEP_ADDRESSES) {
                note_address(connect);
                keep_the_more_telling(connect);
                if (connect->host >= 0 && connect->tools->hosts)
                        hosts_lose(connect->tools->hosts, (unsigned)connect->host);
        }
        if (connect->best.code != LIDO_OK)
                connect->best.code = LIDO_EDEADLINE;
        return end(connect);
}

enum connect_want connect_advance(struct connect *connect, bool is_ready)
{
        enum connect_want want;
        bool is_due;

        do { /* what has come in time counts, but after it there is no more waiting: a server may talk without end */
                if (!is_ready && clock_now_ns() >= connect->attempt_ns)
                        want = time_out(connect);
                else
                        want = take_step(connect, is_ready);
                is_due = is_ready && want < CONNECT_DONE && want != GO_ON && clock_now_ns() >= connect->attempt_ns;
                is_ready = false;
        } while (want == GO_ON || is_due);
        connect->want = want;
        return want;
}

void connect_give_up(struct connect *connect, int code, const char *text)
{
        fail_waiting(connect, code, text);
        connect->best = connect->error;
        connect->want = end(connect);
}

void connect_abort(struct connect *connect)
{
        connect_give_up(connect, LIDO_ECANCELED, "it is not wanted any more");
}

/* ---- on a thread ----------------------------------------------------------------------------------------- */

int connect_run(struct connect *connect, int abort_fd)
{
        static const short events[] = { [CONNECT_READ] = POLLIN, [CONNECT_WRITE] = POLLOUT, [CONNECT_READ_WRITE] = POLLIN | POLLOUT };
        bool is_ready = false;

        while (connect_advance(connect, is_ready) < CONNECT_DONE) {
                struct pollfd fds[2] = {
                        { .fd = connect_fd(connect), .events = events[connect->want] },
                        { .fd = abort_fd, .events = POLLIN },
                };
                int ready = poll(fds, 2, clock_poll_ms(connect_due_ns(connect)));

                if (ready > 0 && fds[1].revents)
                        connect_abort(connect);
                is_ready = ready > 0 && fds[0].revents;
                if (connect->want == CONNECT_FAILED)
                        break;
        }
        return connect->want == CONNECT_DONE ? LIDO_OK : connect->best.code;
}
