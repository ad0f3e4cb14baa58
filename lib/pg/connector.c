#include "pg/connector.h"

#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/atomic.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/mutex.h"
#include "base/park.h"
#include "base/thread.h"
#include "pg/cancel.h"
#include "pg/connect.h"
#include "pg/failure.h"
#include "pg/monitor.h"
#include "pg/onloop.h"
#include "pg/session.h"

#define MOVE_EACH_NS (30 * NS_PER_S) /* connections are spread anew over the hosts so often at most */
#define MOVE_OVER_MS 10000           /* and over so long */
#define IDLE_MS 10000 /* long enough that a pool which opens now and then keeps its thread warm */

struct job {
        struct list link; /* guarded by lock: in `queue`, or unlinked */
        lido_op op;       /* constant */
};

enum connector_state { CONNECTOR_IDLE, CONNECTOR_BUSY, CONNECTOR_ENDED };

struct connector {
        struct list link; /* guarded by lock */
        struct pg_connectors *owner;
        struct thread thread;
        int abort_fd;               /* constant */
        enum connector_state state; /* guarded by lock */
        lido_op op;                 /* guarded by lock, while BUSY */
        bool is_orphan;             /* guarded by lock: nobody joins it */
};

struct pg_connectors {
        struct pg_options options;  /* constant */
        struct connect_tools tools; /* constant */
        struct cancels *cancels;    /* constant */
        struct pg_monitor *monitor; /* set before the pool is, then constant; NULL: nobody watches the hosts */
        struct onloop onloop;       /* the loop's, if connections are opened there */
        struct mutex lock;
        struct list queue;      /* guarded by lock: of struct job, oldest first */
        struct list threads;    /* guarded by lock: of struct connector */
        unsigned thread_count;  /* guarded by lock: those not ENDED */
        unsigned idle_count;    /* guarded by lock: those IDLE */
        unsigned queue_length;  /* guarded by lock */
        bool is_ending;         /* guarded by lock */
        _Atomic uint32_t users; /* atomic: the pool and its orphans */
        _Atomic(struct lido_pool *) pool; /* atomic: NULL until it is open */
        _Atomic uint64_t alarmed_ns;      /* atomic: when all were last doubted */
        _Atomic uint64_t moved_ns;        /* atomic: when they were last spread anew over the hosts */
        _Atomic uint32_t number;          /* atomic: connections begun */
        _Atomic uint32_t bell;  /* atomic: changed at each ring, slept on by idle threads */
};

/* Is it time again? For one of those who ask at once only. The last time is read first, so that it is never after now. */
static bool is_time(_Atomic uint64_t *last_ns, uint64_t each_ns)
{
        uint64_t last = load_relaxed(last_ns), now = clock_now_ns();

        return (last == 0 || now - last >= each_ns) && cas_relaxed(last_ns, &last, now);
}

static void ring(struct pg_connectors *connectors, int count)
{
        add_acq_rel(&connectors->bell, 1u);
        park_wake(&connectors->bell, count);
}

/* ---- one thread ------------------------------------------------------------------------------------------ */

static void empty(int event_fd)
{
        uint64_t count;

        while (read(event_fd, &count, sizeof count) > 0)
                continue;
}

static struct job *take_job(struct pg_connectors *connectors, struct connector *self) REQUIRES(connectors->lock)
{
        struct list *first = list_front(&connectors->queue);
        struct job *job = first ? list_entry(first, struct job, link) : NULL;

        if (!job)
                return NULL;
        list_unlink(&job->link);
        connectors->queue_length--;
        connectors->idle_count--;
        empty(self->abort_fd); /* a cancel of the job before */
        self->state = CONNECTOR_BUSY;
        self->op = job->op;
        return job;
}

/* Wait for a job. Returns: true with one taken; false when the thread is to end. */
static bool wait_for_job(struct pg_connectors *connectors, struct connector *self)
{
        uint64_t give_up = clock_after_ms(clock_now_ns(), IDLE_MS);

        for (;;) {
                uint32_t heard = load_acquire(&connectors->bell);

                mutex_lock(&connectors->lock);
                struct job *job = take_job(connectors, self);
                bool is_over = !job && (connectors->is_ending || clock_now_ns() >= give_up);
                if (is_over) {
                        self->state = CONNECTOR_ENDED;
                        connectors->idle_count--;
                        connectors->thread_count--;
                }
                mutex_unlock(&connectors->lock);
                if (job || is_over) {
                        mem_free(job);
                        return job != NULL;
                }
                park_wait(&connectors->bell, heard, give_up);
        }
}

/* The work on an op is over. */
static void leave_job(struct pg_connectors *connectors, struct connector *self)
{
        mutex_lock(&connectors->lock);
        self->state = CONNECTOR_IDLE;
        connectors->idle_count++;
        mutex_unlock(&connectors->lock);
}

/* Wrap what was made. */
int connectors_wrap(struct pg_connectors *connectors, struct connect *connect, struct pg_session **ret_session,
                    struct lido_error *error)
{
        PGconn *conn = connect_take(connect);
        int rc = session_new(ret_session, conn, &connectors->options);

        if (rc != LIDO_OK) {
                PQsetnonblocking(conn, 1); /* so that the goodbye of PQfinish cannot block */
                PQfinish(conn);
                if (connectors->tools.hosts && connect->host >= 0)
                        hosts_count(connectors->tools.hosts, (unsigned)connect->host, -1);
                failure_set(error, rc, LIDO_FAILURE_TRANSIENT, lido_strerror(rc));
                return rc;
        }
        if (connectors->tools.hosts && connect->host >= 0)
                session_set_host(*ret_session, connectors->tools.hosts, (unsigned)connect->host);
        cancels_add(connectors->cancels, *ret_session);
        return LIDO_OK;
}

static int open_session(struct connector *self, lido_op op, struct pg_session **ret_session, struct lido_error *error)
{
        struct connect connect;
        int rc;

        connect_begin(&connect, &self->owner->tools, op);
        rc = connect_run(&connect, self->abort_fd);
        if (rc == LIDO_OK)
                rc = connectors_wrap(self->owner, &connect, ret_session, error);
        else
                *error = *connect_error(&connect);
        connect_fini(&connect);
        return rc;
}

void connectors_answer(struct pg_connectors *connectors, lido_op op, struct pg_session *session)
{
        if (lido_op_opened(op, session) == LIDO_OK)
                return;
        cancels_remove(connectors->cancels, session);
        session_close(session);
}

static void do_job(struct pg_connectors *connectors, struct connector *self)
{
        lido_op op = self->op; /* nobody else writes it while BUSY */
        struct pg_session *session = NULL;
        struct lido_error error;
        int rc = open_session(self, op, &session, &error);

        leave_job(connectors, self);
        if (rc == LIDO_OK)
                connectors_answer(connectors, op, session);
        else
                lido_op_failed(op, &error);
}

static void connectors_unref(struct pg_connectors *connectors);

static void run(void *self_pointer)
{
        struct connector *self = self_pointer;
        struct pg_connectors *connectors = self->owner;
        bool is_orphan;

        while (wait_for_job(connectors, self))
                do_job(connectors, self);
        mutex_lock(&connectors->lock);
        is_orphan = self->is_orphan;
        mutex_unlock(&connectors->lock);
        if (is_orphan) { /* otherwise `self` belongs to who joins */
                close(self->abort_fd);
                mem_free(self);
                connectors_unref(connectors);
        }
}

/* ---- threads come and go --------------------------------------------------------------------------------- */

static void reap(struct connector *connector)
{
        thread_join(&connector->thread);
        close(connector->abort_fd);
        mem_free(connector);
}

/* Collect those that ended for want of work. */
static void reap_ended(struct pg_connectors *connectors)
{
        struct list ended;

        list_init(&ended);
        mutex_lock(&connectors->lock);
        list_for_each_safe(it, &connectors->threads) {
                if (list_entry(it, struct connector, link)->state == CONNECTOR_ENDED) {
                        list_unlink(it);
                        list_push_back(&ended, it);
                }
        }
        mutex_unlock(&connectors->lock);
        list_for_each_safe(it, &ended)
                reap(list_entry(it, struct connector, link));
}

/* One more thread, counted already. */
static int start_thread(struct pg_connectors *connectors)
{
        struct connector *connector = mem_zalloc(sizeof *connector);
        int rc = LIDO_ENOMEM;

        if (!connector)
                goto uncount;
        connector->owner = connectors;
        list_init(&connector->link);
        connector->abort_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        rc = LIDO_EFACTORY;
        if (connector->abort_fd < 0)
                goto free_connector;
        mutex_lock(&connectors->lock); /* the thread's first act is to lock: it finds itself in the list */
        list_push_back(&connectors->threads, &connector->link);
        rc = thread_start(&connector->thread, "lido-connect", 0, run, connector);
        if (rc != LIDO_OK)
                list_unlink(&connector->link);
        mutex_unlock(&connectors->lock);
        if (rc == LIDO_OK)
                return LIDO_OK;
        close(connector->abort_fd);
free_connector:
        mem_free(connector);
uncount:
        mutex_lock(&connectors->lock);
        connectors->thread_count--;
        connectors->idle_count--;
        mutex_unlock(&connectors->lock);
        return rc;
}

/* ---- the face -------------------------------------------------------------------------------------------- */

/* What is known of the hosts has changed. On whose thread it became known; no lock is held. */
static void on_hosts(void *connectors_pointer, unsigned changes)
{
        struct pg_connectors *connectors = connectors_pointer;
        struct lido_pool *pool = load_acquire(&connectors->pool);
        const char *attrs = connectors->options.session_attrs;
        bool may_move = connectors->options.given.balance != LIDO_PG_BALANCE_ORDER ||
                        (attrs && strcmp(attrs, "prefer-standby") == 0);

        if (changes & HOSTS_CUT)
                cancels_cut(connectors->cancels);
        if (pool && (changes & (HOSTS_LEFT | HOSTS_CUT)))
                lido_pool_suspect(pool);
        if (pool && (changes & HOSTS_CAME) && may_move && hosts_fit_count(connectors->tools.hosts) > 1 &&
            is_time(&connectors->moved_ns, MOVE_EACH_NS))
                lido_pool_rotate(pool, MOVE_OVER_MS);
}

static bool make_tools(struct pg_connectors *connectors)
{
        const struct pg_options *options = &connectors->options;
        struct connect_tools *tools = &connectors->tools;

        tools->options = options;
        tools->number = &connectors->number;
        tools->resolver = resolver_new(options->given.dns_ttl_ms, options->loop);
        if (options->is_clustered)
                tools->hosts = hosts_new(options, on_hosts, connectors);
        if (options->given.credentials)
                tools->credentials = credentials_new(&options->given);
        connectors->cancels = cancels_new();
        return connectors->cancels && tools->resolver && (tools->hosts || !options->is_clustered) &&
               (tools->credentials || !options->given.credentials);
}

static void free_tools(struct pg_connectors *connectors)
{
        resolver_free(connectors->tools.resolver);
        credentials_free(connectors->tools.credentials);
        hosts_unref(connectors->tools.hosts);
        if (connectors->cancels)
                cancels_unref(connectors->cancels);
}

struct pg_connectors *connectors_new(struct pg_options *options)
{
        struct pg_connectors *connectors = mem_zalloc(sizeof *connectors);

        if (!connectors)
                return NULL;
        connectors->options = *options;
        if (!make_tools(connectors)) {
                free_tools(connectors);
                mem_free(connectors);
                return NULL;
        }
        store_relaxed(&connectors->users, 1);
        mutex_init(&connectors->lock);
        list_init(&connectors->queue);
        list_init(&connectors->threads);
        list_init(&connectors->onloop.connects);
        connectors->onloop.loop = options->loop;
        return connectors;
}

int connectors_watch_hosts(struct pg_connectors *connectors)
{
        if (!connectors->tools.hosts || connectors->options.given.host_check_ms == LIDO_NEVER || connectors->onloop.loop)
                return LIDO_OK;
        return monitor_new(&connectors->monitor, &connectors->tools);
}

struct pg_hosts *connectors_hosts(struct pg_connectors *connectors)
{
        return connectors->tools.hosts;
}

struct credentials *connectors_credentials(struct pg_connectors *connectors)
{
        return connectors->tools.credentials;
}

const struct pg_options *connectors_options(const struct pg_connectors *connectors)
{
        return &connectors->options;
}

struct cancels *connectors_cancels(struct pg_connectors *connectors)
{
        return connectors->cancels;
}

void connectors_set_pool(struct pg_connectors *connectors, struct lido_pool *pool)
{
        store_release(&connectors->pool, pool);
}

void connectors_alarm(struct pg_connectors *connectors)
{
        struct lido_pool *pool = load_acquire(&connectors->pool);

        if (!pool || !is_time(&connectors->alarmed_ns, NS_PER_S))
                return;
        if (connectors->monitor)
                monitor_poke(connectors->monitor);
        lido_pool_suspect(pool);
}

static void fail(lido_op op, int rc, const char *text)
{
        struct lido_error error;

        failure_set(&error, rc, LIDO_FAILURE_TRANSIENT, text);
        lido_op_failed(op, &error);
}

static bool is_same(lido_op a, lido_op b)
{
        return a.slot == b.slot && a.ticket == b.ticket;
}

/* Take a waiting job out of the queue. */
static bool withdraw(struct pg_connectors *connectors, lido_op op)
{
        struct job *found = NULL;

        mutex_lock(&connectors->lock);
        list_for_each_safe(it, &connectors->queue) {
                struct job *job = list_entry(it, struct job, link);

                if (is_same(job->op, op)) {
                        found = job;
                        connectors->queue_length--;
                        list_unlink(it);
                }
        }
        mutex_unlock(&connectors->lock);
        mem_free(found);
        return found != NULL;
}

void connectors_open(struct pg_connectors *connectors, lido_op op)
{
        struct job *job;
        bool is_alone, is_short;
        int rc = LIDO_OK;

        if (connectors->onloop.loop) {
                onloop_open(&connectors->onloop, connectors, &connectors->tools, op);
                return;
        }
        job = mem_zalloc(sizeof *job);
        if (!job) {
                fail(op, LIDO_ENOMEM, "out of memory");
                return;
        }
        job->op = op;
        reap_ended(connectors);
        mutex_lock(&connectors->lock);
        list_push_back(&connectors->queue, &job->link);
        connectors->queue_length++;
        is_alone = connectors->thread_count == 0;
        is_short = connectors->queue_length > connectors->idle_count &&
                   connectors->thread_count < connectors->options.given.connectors;
        if (is_short) {
                connectors->thread_count++;
                connectors->idle_count++;
        }
        mutex_unlock(&connectors->lock);
        if (is_short)
                rc = start_thread(connectors);
        if (rc == LIDO_OK || !is_alone)
                ring(connectors, 1);
        else if (withdraw(connectors, op))
                fail(op, rc, "no thread to connect on");
}

void connectors_cancel(struct pg_connectors *connectors, lido_op op)
{
        bool is_mine = withdraw(connectors, op);

        if (connectors->onloop.loop) {
                onloop_cancel(&connectors->onloop, op);
                return;
        }
        mutex_lock(&connectors->lock);
        list_for_each(it, &connectors->threads) {
                struct connector *connector = list_entry(it, struct connector, link);

                if (is_mine || connector->state != CONNECTOR_BUSY || !is_same(connector->op, op))
                        continue;
                if (eventfd_write(connector->abort_fd, 1) != 0)
                        continue; /* it is readable already */
        }
        mutex_unlock(&connectors->lock);
        if (is_mine)
                fail(op, LIDO_ECANCELED, "it is not wanted any more");
}

static void connectors_unref(struct pg_connectors *connectors)
{
        if (sub_acq_rel(&connectors->users, 1) != 1)
                return;
        free_tools(connectors);
        options_fini(&connectors->options);
        mutex_fini(&connectors->lock);
        mem_free(connectors);
}

void connectors_free(struct pg_connectors *connectors)
{
        struct list joined;

        monitor_free(connectors->monitor); /* it may be telling the pool something */
        connectors->monitor = NULL;
        list_init(&joined);
        mutex_lock(&connectors->lock);
        lido_assert(list_is_empty(&connectors->queue));
        connectors->is_ending = true;
        list_for_each_safe(it, &connectors->threads) {
                struct connector *connector = list_entry(it, struct connector, link);

                list_unlink(it);
                if (connector->state == CONNECTOR_BUSY || thread_is_self(&connector->thread)) {
                        connector->is_orphan = true;
                        add_relaxed(&connectors->users, 1);
                        pthread_detach(connector->thread.native);
                } else {
                        list_push_back(&joined, it);
                }
        }
        mutex_unlock(&connectors->lock);
        ring(connectors, INT32_MAX);
        list_for_each_safe(it, &joined)
                reap(list_entry(it, struct connector, link));
        connectors_unref(connectors);
}
