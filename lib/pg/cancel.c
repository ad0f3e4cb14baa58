#include "pg/cancel.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/mutex.h"
#include "base/park.h"
#include "base/thread.h"
#include "lido/pg.h"
#include "pg/connector.h"
#include "pg/failure.h"
#include "pg/pool.h"
#include "pg/session.h"

#define REQUESTS_MOST 8 /* at once; each costs the server a process */

struct cancels {
        struct mutex lock;
        struct list sessions;    /* guarded by lock */
        unsigned request_count;  /* guarded by lock */
        _Atomic uint32_t users;  /* atomic: the pool, and each request */
};

/* One request. */
struct request {
        struct cancels *cancels;
        struct pg_session *session; /* a share of it */
        struct thread thread;
        int status;                /* written before is_done, read after */
        _Atomic uint32_t is_done;  /* atomic; slept on by who asked */
        _Atomic uint32_t users;    /* atomic: the thread, who asked */
};

struct cancels *cancels_new(void)
{
        struct cancels *cancels = mem_zalloc(sizeof *cancels);

        if (!cancels)
                return NULL;
        mutex_init(&cancels->lock);
        list_init(&cancels->sessions);
        store_relaxed(&cancels->users, 1);
        return cancels;
}

struct cancels *cancels_ref(struct cancels *cancels)
{
        add_relaxed(&cancels->users, 1);
        return cancels;
}

void cancels_unref(struct cancels *cancels)
{
        if (sub_acq_rel(&cancels->users, 1) != 1)
                return;
        mutex_fini(&cancels->lock);
        mem_free(cancels);
}

void cancels_add(struct cancels *cancels, struct pg_session *session)
{
        mutex_lock(&cancels->lock);
        list_push_back(&cancels->sessions, &session->link);
        mutex_unlock(&cancels->lock);
}

void cancels_remove(struct cancels *cancels, struct pg_session *session)
{
        mutex_lock(&cancels->lock);
        list_unlink(&session->link);
        mutex_unlock(&cancels->lock);
}

void cancels_cut(struct cancels *cancels)
{
        mutex_lock(&cancels->lock);
        list_for_each(it, &cancels->sessions) {
                struct pg_session *session = list_entry(it, struct pg_session, link);

                if (session->hosts && hosts_is_cut(session->hosts, session->host))
                        session_interrupt(session);
        }
        mutex_unlock(&cancels->lock);
}

/* ---- quarantine ------------------------------------------------------------------------------------------ */

bool cancels_put_off(struct cancels *cancels, struct pg_session *session, lido_op op)
{
        bool is_put_off;

        mutex_lock(&cancels->lock);
        is_put_off = load_relaxed(&session->request_count) > 0;
        session->is_put_off = is_put_off;
        if (is_put_off)
                session->op = op;
        mutex_unlock(&cancels->lock);
        return is_put_off;
}

static void fail_op(lido_op op, const char *text)
{
        struct lido_error error;

        failure_set(&error, LIDO_ECANCELED, LIDO_FAILURE_TRANSIENT, text);
        lido_op_failed(op, &error);
}

void cancels_give_up(struct cancels *cancels, lido_op op)
{
        bool is_found = false;

        mutex_lock(&cancels->lock);
        list_for_each(it, &cancels->sessions) {
                struct pg_session *session = list_entry(it, struct pg_session, link);

                if (session->is_put_off && session->op.slot == op.slot && session->op.ticket == op.ticket) {
                        session->is_put_off = false;
                        is_found = true;
                }
        }
        mutex_unlock(&cancels->lock);
        if (is_found)
                fail_op(op, "a cancel request is still under way");
}

/* The session is ours until its op is answered. The pool interrupts it when it takes too long. */
static void carry_out(struct pg_session *session)
{
        enum work_want want;

        session_begin_work(session);
        while ((want = work_advance(&session->work)) == WORK_READ || want == WORK_READ_WRITE) {
                struct pollfd fd = { .fd = session->line->fd, .events = want == WORK_READ ? POLLIN : POLLIN | POLLOUT };

                while (poll(&fd, 1, -1) < 0 && errno == EINTR)
                        continue;
        }
        session_answer(session, session->op, want == WORK_DONE);
}

bool cancels_settle(struct pg_session *session, uint64_t deadline_ns)
{
        uint32_t count;

        while ((count = load_acquire(&session->request_count)) != 0)
                if (!park_wait(&session->request_count, count, deadline_ns))
                        return load_acquire(&session->request_count) == 0;
        return true;
}

/* ---- a request ------------------------------------------------------------------------------------------- */

static void request_unref(struct request *request)
{
        if (sub_acq_rel(&request->users, 1) == 1)
                mem_free(request);
}

/* The request is over, one way or the other. */
static void leave(struct cancels *cancels, struct pg_session *session)
{
        bool must_carry_out;
        uint32_t left;

        mutex_lock(&cancels->lock);
        cancels->request_count--;
        left = load_relaxed(&session->request_count) - 1;
        must_carry_out = left == 0 && session->is_put_off;
        if (must_carry_out)
                session->is_put_off = false;
        store_release(&session->request_count, left); /* pairs with cancels_settle */
        mutex_unlock(&cancels->lock);
        park_wake(&session->request_count, INT_MAX);
        if (must_carry_out)
                carry_out(session);
        session_unref(session);
        cancels_unref(cancels);
}

static void run(void *request_pointer)
{
        struct request *request = request_pointer;
        struct cancels *cancels = request->cancels;
        struct pg_session *session = request->session;
        char text[256];

        request->status = PQcancel(session->cancel, text, sizeof text) ? LIDO_OK : LIDO_EFACTORY;
        store_release(&request->is_done, 1);
        park_wake(&request->is_done, 1);
        request_unref(request);
        leave(cancels, session);
}

/* Find the session of the lease, safely though the lease may end at any moment. */
static int enter(struct cancels *cancels, lido_lease lease, struct pg_session **ret_session)
{
        const struct pg_session *wanted = lido_object(lease);
        int rc = LIDO_ESTALE;

        mutex_lock(&cancels->lock);
        list_for_each(it, &cancels->sessions) {
                struct pg_session *session = list_entry(it, struct pg_session, link);

                if (session != wanted)
                        continue;
                rc = cancels->request_count < REQUESTS_MOST ? LIDO_OK : LIDO_EBUSY;
                if (rc != LIDO_OK)
                        break;
                cancels->request_count++;
                add_relaxed(&session->request_count, 1);
                store_relaxed(&session->was_cancelled, 1);
                add_relaxed(&session->users, 1);
                add_relaxed(&cancels->users, 1);
                *ret_session = session;
                break;
        }
        mutex_unlock(&cancels->lock);
        return rc;
}

static struct request *request_new(struct cancels *cancels, struct pg_session *session)
{
        struct request *request = mem_zalloc(sizeof *request);

        if (!request)
                return NULL;
        request->cancels = cancels;
        request->session = session;
        store_relaxed(&request->users, 2);
        return request;
}

int cancels_request(struct cancels *cancels, lido_lease lease, int64_t timeout_ms)
{
        uint64_t deadline_ns = clock_after_ms(clock_now_ns(), timeout_ms);
        struct pg_session *session;
        struct request *request;
        int rc = enter(cancels, lease, &session);

        if (rc != LIDO_OK)
                return rc;
        lido_handle_suspect(session->handle, "a statement on it is being cancelled");
        rc = LIDO_ESTALE;
        if (lido_object(lease) != session) /* the doubt may be on another lease */
                goto leave;
        rc = LIDO_ENOMEM;
        request = request_new(cancels, session);
        if (!request)
                goto leave;
        rc = thread_start(&request->thread, "lido-cancel", 0, run, request);
        if (rc != LIDO_OK)
                goto free_request;
        pthread_detach(request->thread.native);
        while (!load_acquire(&request->is_done) && park_wait(&request->is_done, 0, deadline_ns))
                continue;
        rc = load_acquire(&request->is_done) ? request->status : LIDO_EDEADLINE;
        request_unref(request);
        return rc;

free_request:
        mem_free(request);
leave:
        leave(cancels, session);
        return rc;
}

int lido_pg_cancel(lido_lease lease, int64_t timeout_ms)
{
        struct lido_pool *pool = lido_lease_pool(lease);

        if (timeout_ms < LIDO_NEVER)
                return LIDO_EINVAL;
        if (!pool)
                return LIDO_ESTALE;
        if (!pool_is_pg(pool))
                return LIDO_EFOREIGN;
        return cancels_request(connectors_cancels(lido_pool_context(pool)), lease, timeout_ms);
}
