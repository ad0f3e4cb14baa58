#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "pg/failure.h"
#include "pg/mux.h"
#include "pg/mux_sql.h"

#define LINGER_MS 2  /* an empty pipe stays so long, for the next call may come at once; up to twice as long */
#define HOLD_MS 100  /* a busy one: then the pool and its other borrowers have their turn */
#define STUCK_MS 2   /* a pipe that has not answered for so long is avoided, even at the price of one more connection */
#define HOT 3        /* calls of threads, from which on one more joins them */
#define CORK_AT 3    /* calls that wait behind one that is sent, so that it is worth two system calls to send them together */
#define GROW_AT 4    /* calls on each pipe, that one more is wanted */

/* The socket of a pipe on the loop: a dup, for libpq closes its own when it likes. Outlives its pipe by a turn. */
struct pipe_watch {
        uv_poll_t poll;
        int fd;
        int events;
        struct shard *shard;
        struct pipe *pipe; /* NULL once it is gone */
};

static void on_socket(uv_poll_t *poll, int status, int events);
static void end_if_over(struct shard *shard);

static void count(_Atomic uint64_t *counter)
{
        add_relaxed(counter, 1);
}

/* ---- outcomes -------------------------------------------------------------------------------------------- */

static void call_back(struct call *call, int code)
{
        struct lido_loop *loop = call->shard->loop;
        PGresult *result = code == LIDO_OK ? call->result : NULL;

        if (result)
                call->result = NULL;
        call->callback(code, result, &call->error, call->context);
        lido_loop_unhold(loop);
}

static void tell(struct shard *shard, struct call *call)
{
        if (call->code == LIDO_OK && !call->result)
                call_fail(call, LIDO_EFACTORY, "the server has not answered");
        if (!call->callback) {
                sub_relaxed(&shard->load, 1);
                call_settle(call);
                return;
        }
        if (call_move(call, CALL_SENT, CALL_DONE) || call_move(call, CALL_QUEUED, CALL_DONE)) {
                lido_timer_clear(call->shard->loop, &call->timer);
                call_back(call, call->code);
        }
        call_unref(call);
}

/* A callback may do anything, even close the multiplexer: no list but this one is being walked now. */
static void tell_all(struct shard *shard)
{
        struct list *front;

        if (shard->is_telling)
                return;
        shard->is_telling = true;
        while ((front = list_front(&shard->ready)) != NULL) {
                list_unlink(front);
                tell(shard, list_entry(front, struct call, link));
        }
        shard->is_telling = false;
}

static void on_call_timer(struct lido_timer *timer)
{
        struct call *call = list_entry(timer, struct call, timer);
        int code = LIDO_OK;

        if (call_move(call, CALL_QUEUED, CALL_LEFT))
                code = LIDO_ETIMEDOUT;
        else if (call_move(call, CALL_SENT, CALL_LEFT))
                code = LIDO_EDEADLINE;
        if (code == LIDO_OK)
                return; /* it waits in `ready` */
        if (code == LIDO_EDEADLINE)
                count(&call->shard->mux->counters.detached);
        failure_set(&call->error, code, LIDO_FAILURE_TRANSIENT, lido_strerror(code));
        add_relaxed(&call->users, 1); /* the callback may close the multiplexer, and reads the error */
        call_back(call, code);
        call_unref(call);
}

/* ---- pipes ----------------------------------------------------------------------------------------------- */

static void on_watch_closed(uv_handle_t *handle)
{
        struct pipe_watch *watch = handle->data;
        struct shard *shard = watch->shard;

        close(watch->fd);
        mem_free(watch);
        shard->handles--;
        end_if_over(shard);
}

static bool start_watch(struct shard *shard, struct pipe *pipe)
{
        struct pipe_watch *watch = mem_zalloc(sizeof *watch);

        if (!watch)
                return false;
        watch->shard = shard;
        watch->pipe = pipe;
        watch->poll.data = watch;
        watch->fd = fcntl(PQsocket(pipe->conn), F_DUPFD_CLOEXEC, 0);
        if (watch->fd < 0 || uv_poll_init(lido_loop_uv(shard->loop), &watch->poll, watch->fd) != 0) {
                if (watch->fd >= 0)
                        close(watch->fd);
                mem_free(watch);
                return false;
        }
        uv_unref((uv_handle_t *)&watch->poll); /* what keeps the loop going are calls */
        shard->handles++;
        pipe->watch = watch;
        watch->events = UV_READABLE;
        uv_poll_start(&watch->poll, watch->events, on_socket);
        return true;
}

/* Writing is waited for only while something is unsent: each change costs two system calls. */
static void watch_for(struct pipe *pipe, int events)
{
        struct pipe_watch *watch = pipe->watch;

        if (watch->events == events)
                return;
        watch->events = events;
        uv_poll_start(&watch->poll, events, on_socket);
}

static void on_tick(struct lido_timer *timer);

static void start_tick(struct shard *shard)
{
        if (shard->is_ticking)
                return;
        shard->is_ticking = true;
        lido_timer_set(shard->loop, &shard->tick, clock_after_ms(clock_now_ns(), LINGER_MS));
}

/* Make a pipe of a lease. Returns: LIDO_OK; LIDO_ESTALE when the connection was lost; LIDO_ENOMEM, LIDO_ELOOP. */
static int add_pipe(struct shard *shard, lido_lease lease, struct pipe **ret_pipe)
{
        struct pipe *pipe = mem_zalloc(sizeof *pipe);

        if (!pipe) {
                lido_release_at(lease, "lido_pg_mux");
                return LIDO_ENOMEM;
        }
        if (!pipe_begin(pipe, lease)) {
                lido_discard_at(lease, "lido_pg_mux");
                mem_free(pipe);
                return LIDO_ESTALE;
        }
        if (!start_watch(shard, pipe)) {
                lido_release_at(lease, "lido_pg_mux");
                mem_free(pipe);
                return LIDO_ELOOP;
        }
        pipe->since_ns = pipe->moved_ns = clock_now_ns();
        list_push_back(&shard->pipes, &pipe->link);
        count(&shard->mux->counters.converted);
        start_tick(shard);
        *ret_pipe = pipe;
        return LIDO_OK;
}

static void remove_pipe(struct shard *shard, struct pipe *pipe)
{
        struct counters *counters = &shard->mux->counters;

        list_unlink(&pipe->link);
        pipe->watch->pipe = NULL;
        uv_close((uv_handle_t *)&pipe->watch->poll, on_watch_closed);
        count(pipe->state == PIPE_LOST ? &counters->lost : &counters->returned);
        if (pipe->is_breached)
                count(&counters->breaches);
        pipe_end(pipe);
        mem_free(pipe);
}

static void due(struct shard *shard);

/* The loop is awake and will see to the inbox at the end of this turn. */
static void wake(struct shard *shard)
{
        if (load_relaxed(&shard->is_closing))
                return;
        exchange_acq_rel(&shard->is_asleep, 0);
        due(shard);
}

/* Sort out what a pipe has finished; an outdated plan sends its call to the front of the queue. The pipe may be gone then. */
static void reap(struct shard *shard, struct pipe *pipe)
{
        struct call *call;

        while ((call = pipe_take_done(pipe)) != NULL) {
                if (call->is_aside) {
                        call_unref(call);
                } else if (call->is_outdated && call->code == LIDO_OK && call_move(call, CALL_SENT, CALL_QUEUED)) {
                        call->is_outdated = false;
                        call->is_second = true;
                        list_push_front(&shard->queue, &call->link);
                        shard->queue_length++;
                        count(&shard->mux->counters.retried);
                } else {
                        list_push_back(&shard->ready, &call->link);
                }
        }
        if (pipe->state == PIPE_LOST || (pipe->state == PIPE_LEAVING && pipe->count == 0))
                remove_pipe(shard, pipe);
        if (shard->queue_length > 0)
                due(shard);
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
        struct pipe_watch *watch = poll->data;
        struct shard *shard = watch->shard;
        struct pipe *pipe = watch->pipe;

        (void)status; /* what is wrong with the socket, reading tells */
        if (!pipe)
                return;
        wake(shard);
        if (events & UV_WRITABLE)
                watch_for(pipe, pipe_flush(pipe) == 1 ? UV_READABLE | UV_WRITABLE : UV_READABLE);
        pipe_read(pipe);
        pipe->moved_ns = clock_now_ns();
        reap(shard, pipe);
        tell_all(shard);
        end_if_over(shard);
}

static void on_tick(struct lido_timer *timer)
{
        struct shard *shard = list_entry(timer, struct shard, tick);
        uint64_t now = clock_now_ns();

        shard->is_ticking = false;
        list_for_each_safe(it, &shard->pipes) {
                struct pipe *pipe = list_entry(it, struct pipe, link);

                if (pipe->state == PIPE_OPEN && (now - pipe->since_ns >= HOLD_MS * NS_PER_MS ||
                                                 (pipe->count == 0 && pipe->served == pipe->served_before)))
                        pipe->state = PIPE_LEAVING;
                pipe->served_before = pipe->served;
                if (pipe->state == PIPE_LEAVING && pipe->count == 0)
                        remove_pipe(shard, pipe);
        }
        if (!list_is_empty(&shard->pipes))
                start_tick(shard);
        if (shard->queue_length > 0)
                due(shard);
}

/* ---- the queue ------------------------------------------------------------------------------------------- */

static struct call *take_queued(struct shard *shard)
{
        struct list *front = list_front(&shard->queue);

        if (!front)
                return NULL;
        list_unlink(front);
        shard->queue_length--;
        return list_entry(front, struct call, link);
}

/* Those in the queue, or in that of the lonely, that were there before `before_ns` get no connection. */
static void refuse_queued(struct shard *shard, struct list *queue, int code, uint64_t before_ns)
{
        list_for_each_safe(it, queue) {
                struct call *call = list_entry(it, struct call, link);

                if (call->queued_ns > before_ns)
                        break;
                list_unlink(&call->link);
                shard->queue_length -= queue == &shard->queue;
                call_fail(call, code, lido_strerror(code));
                list_push_back(&shard->ready, &call->link);
        }
}

static uint32_t open_pipes(const struct shard *shard)
{
        uint32_t open = 0;

        list_for_each(it, &shard->pipes)
                open += list_entry(it, struct pipe, link)->state == PIPE_OPEN;
        return open;
}

/* The lease did not come. A pipe that is there goes on serving the queue, unless the pool has closed. */
static void on_refused(struct shard *shard, int code)
{
        if (code == LIDO_ETIMEDOUT && open_pipes(shard) == 0)
                refuse_queued(shard, &shard->queue, code, shard->asked_ns);
        else if (code == LIDO_ECLOSED || open_pipes(shard) == 0)
                refuse_queued(shard, &shard->queue, code, CLOCK_NEVER);
        tell_all(shard);
}

static void on_lease(struct lido_request *request, int status, lido_lease lease)
{
        struct shard *shard = request->data;
        struct pipe *pipe;

        shard->is_asking = false;
        if (status == LIDO_OK && load_relaxed(&shard->is_closing))
                lido_release_at(lease, "lido_pg_mux");
        else if (status == LIDO_OK)
                status = add_pipe(shard, lease, &pipe);
        if (load_relaxed(&shard->is_closing)) {
                end_if_over(shard);
                return;
        }
        if (status != LIDO_OK && status != LIDO_ESTALE)
                on_refused(shard, status);
        due(shard);
}

static bool is_stuck(const struct pipe *pipe, uint64_t now)
{
        return pipe->count > 0 && now > pipe->moved_ns && now - pipe->moved_ns > STUCK_MS * NS_PER_MS;
}

static bool has_room(const struct shard *shard, const struct pipe *pipe, const struct call *call)
{
        if (pipe->state != PIPE_OPEN)
                return false;
        return pipe->count == 0 ||
               (pipe->count < shard->limits.statements && pipe->bytes + call->bytes <= shard->limits.bytes);
}

/* The pipe with the fewest calls; those that are stuck come last. */
static struct pipe *find_pipe(struct shard *shard, const struct call *call, uint64_t now)
{
        struct pipe *best = NULL;

        list_for_each(it, &shard->pipes) {
                struct pipe *pipe = list_entry(it, struct pipe, link);

                if (!has_room(shard, pipe, call))
                        continue;
                if (!best || is_stuck(pipe, now) < is_stuck(best, now) ||
                    (is_stuck(pipe, now) == is_stuck(best, now) && pipe->count < best->count))
                        best = pipe;
        }
        return best;
}

/* A pipe for a call. One more connection is taken, if one is idle, where there is none yet, where all are busy and few, or where all
 * are stuck behind something slow. */
static struct pipe *choose_pipe(struct shard *shard, const struct call *call, uint64_t now)
{
        struct pipe *pipe = find_pipe(shard, call, now), *more;
        bool is_enough = pipe && pipe->count < GROW_AT && !is_stuck(pipe, now);
        lido_lease lease;

        if (is_enough || ((!pipe || !is_stuck(pipe, now)) && open_pipes(shard) >= shard->limits.connections))
                return pipe;
        if (lido_try_acquire_at(shard->pool, &lease, "lido_pg_mux") != LIDO_OK)
                return pipe;
        return add_pipe(shard, lease, &more) == LIDO_OK ? more : pipe;
}

/* Ask for one more connection, if the queue, or those that all are busy, want it. */
static void ask(struct shard *shard)
{
        int rc;

        if (shard->is_asking || shard->queue_length == 0 || open_pipes(shard) >= shard->limits.connections)
                return;
        shard->asked_ns = clock_now_ns();
        shard->is_asking = true;
        rc = lido_acquire_async_at(shard->pool, &shard->request, LIDO_TIMEOUT_DEFAULT, on_lease, "lido_pg_mux");
        if (rc == LIDO_OK)
                return;
        shard->is_asking = false;
        on_refused(shard, rc);
}

static void send_call(struct shard *shard, struct pipe *pipe, struct call *call, uint64_t now)
{
        int rc;

        if (pipe->count == 0)
                pipe->moved_ns = now;
        if (shard->queue_length >= CORK_AT)
                pipe_cork(pipe);
        rc = pipe_send(pipe, call);
        if (rc == LIDO_OK)
                return;
        call_fail(call, rc, lido_strerror(rc));
        list_push_back(&shard->ready, &call->link);
}

static void flush_all(struct shard *shard)
{
        list_for_each_safe(it, &shard->pipes) {
                struct pipe *pipe = list_entry(it, struct pipe, link);

                if (pipe->is_unflushed && pipe->state != PIPE_LOST)
                        watch_for(pipe, pipe_flush(pipe) == 1 ? UV_READABLE | UV_WRITABLE : UV_READABLE);
                if (pipe->state == PIPE_LOST)
                        reap(shard, pipe);
        }
}

/* ---- calls that want a lease to themselves --------------------------------------------------------------- */

static void run_alone(struct shard *shard, struct pipe *pipe)
{
        struct list *front;

        pipe->state = PIPE_LEAVING; /* nobody else comes on it */
        while ((front = list_front(&shard->alone)) != NULL && pipe->count == 0 && pipe->state != PIPE_LOST) {
                struct call *call = list_entry(front, struct call, link);

                list_unlink(front);
                if (call_move(call, CALL_QUEUED, CALL_SENT))
                        send_call(shard, pipe, call, clock_now_ns());
                else
                        list_push_back(&shard->ready, &call->link);
        }
        if (pipe->count == 0) /* nobody wanted it any more, or it is lost */
                reap(shard, pipe);
        flush_all(shard);
}

static void on_lease_alone(struct lido_request *request, int status, lido_lease lease)
{
        struct shard *shard = request->data;
        struct pipe *pipe;

        shard->is_asking_alone = false;
        if (status == LIDO_OK && (load_relaxed(&shard->is_closing) || list_is_empty(&shard->alone))) {
                lido_release_at(lease, "lido_pg_mux");
        } else if (status == LIDO_OK) {
                status = add_pipe(shard, lease, &pipe);
                if (status == LIDO_OK)
                        run_alone(shard, pipe);
        }
        if (load_relaxed(&shard->is_closing)) {
                end_if_over(shard);
                return;
        }
        if (status != LIDO_OK && status != LIDO_ESTALE)
                refuse_queued(shard, &shard->alone, status, status == LIDO_ETIMEDOUT ? shard->asked_alone_ns : CLOCK_NEVER);
        due(shard);
        tell_all(shard);
}

static void ask_alone(struct shard *shard)
{
        int rc;

        if (shard->is_asking_alone || list_is_empty(&shard->alone))
                return;
        shard->asked_alone_ns = clock_now_ns();
        shard->is_asking_alone = true;
        rc = lido_acquire_async_at(shard->pool, &shard->alone_request, LIDO_TIMEOUT_DEFAULT, on_lease_alone, "lido_pg_mux");
        if (rc == LIDO_OK)
                return;
        shard->is_asking_alone = false;
        refuse_queued(shard, &shard->alone, rc, CLOCK_NEVER);
}

/* The end of a turn: give the queue to the pipes, and all of it to the network. */
static void feed(struct shard *shard)
{
        uint64_t now = clock_now_ns();
        struct list *front;

        while ((front = list_front(&shard->queue)) != NULL) {
                struct call *call = list_entry(front, struct call, link);
                struct pipe *pipe;

                if (load_relaxed(&call->state) == CALL_LEFT) {
                        list_push_back(&shard->ready, &take_queued(shard)->link);
                        continue;
                }
                pipe = choose_pipe(shard, call, now);
                if (!pipe)
                        break;
                take_queued(shard);
                if (call_move(call, CALL_QUEUED, CALL_SENT))
                        send_call(shard, pipe, call, now);
                else
                        list_push_back(&shard->ready, &call->link);
        }
        flush_all(shard);
        ask(shard);
        ask_alone(shard);
        tell_all(shard);
}

static void empty_inbox(struct shard *shard);

/* Awake for whatever reason, the loop sees to the inbox until it is empty when it sleeps. */
static void on_prepare(uv_prepare_t *prepare)
{
        struct shard *shard = prepare->data;

        if (!shard->is_due)
                return;
        do {
                shard->is_due = false;
                empty_inbox(shard);
                feed(shard);
                if (load_relaxed(&shard->is_closing))
                        return;
                exchange_acq_rel(&shard->is_asleep, 1); /* pairs with shard_submit */
        } while (!inbox_is_empty(&shard->inbox) && exchange_acq_rel(&shard->is_asleep, 0));
        if (!shard->is_due)
                uv_idle_stop(&shard->idle);
}

static void on_idle(uv_idle_t *idle)
{
        (void)idle;
}

/* See to it that the queue is looked at when this turn of the loop ends. */
static void due(struct shard *shard)
{
        if (shard->is_due || load_relaxed(&shard->is_closing))
                return;
        shard->is_due = true;
        uv_idle_start(&shard->idle, on_idle);
}

static void enqueue(struct shard *shard, struct call *call, uint64_t now)
{
        if (load_relaxed(&shard->is_closing) || shard->queue_length >= shard->limits.queue_limit) {
                int code = load_relaxed(&shard->is_closing) ? LIDO_ECLOSED : LIDO_EQUEUEFULL;

                call_fail(call, code, lido_strerror(code));
                list_push_back(&shard->ready, &call->link);
                return;
        }
        call->queued_ns = now;
        if (call->kind == SQL_ALONE) {
                list_push_back(&shard->alone, &call->link);
                count(&shard->mux->counters.alone);
                return;
        }
        list_push_back(&shard->queue, &call->link);
        shard->queue_length++;
        count(&shard->mux->counters.shared);
}

/* A thread has left its pipe with a statement on it. It is waited for and given back. */
static void adopt(struct shard *shard, struct pipe *pipe)
{
        list_push_back(&shard->pipes, &pipe->link);
        pipe->state = PIPE_LEAVING;
        if (load_relaxed(&shard->is_closing) || !start_watch(shard, pipe)) {
                struct lido_error error;
                struct call *call;

                failure_set(&error, LIDO_ECLOSED, LIDO_FAILURE_TRANSIENT, lido_strerror(LIDO_ECLOSED));
                list_unlink(&pipe->link);
                pipe_lose(pipe, &error);
                while ((call = pipe_take_done(pipe)) != NULL)
                        call_unref(call);
                pipe_end(pipe);
                mem_free(pipe);
                return;
        }
        start_tick(shard);
        pipe->since_ns = pipe->moved_ns = clock_now_ns();
        pipe_read(pipe); /* what came meanwhile */
        reap(shard, pipe);
}

static void empty_inbox(struct shard *shard)
{
        struct letter *letter = inbox_take(&shard->inbox);
        uint64_t now = letter ? clock_now_ns() : 0;

        while (letter) {
                struct call *call = list_entry(letter, struct call, letter);

                letter = letter->next;
                if (call->adopted)
                        adopt(shard, call->adopted);
                else
                        enqueue(shard, call, now);
        }
}

static void on_doorbell(struct lido_post *post)
{
        struct shard *shard = list_entry(post, struct shard, doorbell);

        exchange_acq_rel(&shard->is_rung, 0);
        due(shard);
        end_if_over(shard);
}

int shard_submit(struct shard *shard, struct call *call)
{
        int rc = LIDO_ECLOSED;

        add_seq_cst(&shard->submitters, 1); /* pairs with shard_close: either sees the other */
        if (!load_seq_cst(&shard->is_closing)) {
                rc = LIDO_OK;
                if (!call->adopted)
                        add_relaxed(&shard->load, 1);
                /* The first exchange pairs with on_prepare, the second with on_doorbell: a caller who is slow to post may meet another,
                 * after the loop has been awake and asleep again, and there is one doorbell. */
                if (inbox_send(&shard->inbox, &call->letter) && exchange_acq_rel(&shard->is_asleep, 0) &&
                    !exchange_acq_rel(&shard->is_rung, 1))
                        lido_loop_post(shard->loop, &shard->doorbell);
        }
        sub_acq_rel(&shard->submitters, 1);
        return rc;
}

bool shard_is_hot(struct shard *shard)
{
        return load_relaxed(&shard->load) >= HOT;
}

int shard_call(struct shard *shard, struct call *call, uint64_t deadline_ns)
{
        if (load_relaxed(&shard->is_closing))
                return LIDO_ECLOSED;
        if (shard->queue_length >= shard->limits.queue_limit)
                return LIDO_EQUEUEFULL;
        call->shard = shard;
        call->timer.run = on_call_timer;
        lido_loop_hold(shard->loop);
        lido_timer_set(shard->loop, &call->timer, deadline_ns);
        enqueue(shard, call, clock_now_ns());
        due(shard);
        return LIDO_OK;
}

/* ---- its life -------------------------------------------------------------------------------------------- */

static void on_handle_closed(uv_handle_t *handle)
{
        struct shard *shard = handle->data;

        shard->handles--;
        end_if_over(shard);
}

/* Nothing may touch the shard any more: no handle, no request, no post, no callback being called. */
static void end_if_over(struct shard *shard)
{
        void (*closed)(void *) = shard->closed;

        if (!closed || shard->handles > 0 || shard->is_asking || shard->is_asking_alone || shard->is_telling ||
            load_acquire(&shard->is_rung))
                return;
        shard->closed = NULL;
        closed(shard->closed_context);
}

int shard_open(struct shard *shard, struct lido_loop *loop)
{
        uv_loop_t *uv = lido_loop_uv(loop);

        shard->loop = loop;
        shard->thread_number = thread_id();
        inbox_init(&shard->inbox);
        shard->doorbell.run = on_doorbell;
        list_init(&shard->queue);
        list_init(&shard->ready);
        list_init(&shard->pipes);
        list_init(&shard->alone);
        shard->request.data = shard->alone_request.data = shard;
        shard->request.loop = shard->alone_request.loop = loop;
        shard->tick.run = on_tick;
        shard->prepare.data = shard->idle.data = shard;
        store_relaxed(&shard->is_asleep, 1);
        if (uv_prepare_init(uv, &shard->prepare) != 0 || uv_idle_init(uv, &shard->idle) != 0)
                return LIDO_ELOOP; /* neither can fail in libuv */
        uv_prepare_start(&shard->prepare, on_prepare);
        uv_unref((uv_handle_t *)&shard->prepare);
        shard->handles = 2;
        return LIDO_OK;
}

/* In words for those under way, who cannot know whether they were done. */
static void give_up_pipes(struct shard *shard)
{
        struct lido_error error;

        failure_set(&error, LIDO_ECLOSED, LIDO_FAILURE_TRANSIENT, "the multiplexer was closed under the statement");
        list_for_each_safe(it, &shard->pipes) {
                struct pipe *pipe = list_entry(it, struct pipe, link);

                if (pipe->count > 0)
                        pipe_lose(pipe, &error);
                else
                        pipe->state = PIPE_LEAVING;
                reap(shard, pipe);
        }
}

void shard_close(struct shard *shard, void (*closed)(void *context), void *context)
{
        store_seq_cst(&shard->is_closing, 1); /* pairs with shard_submit */
        while (load_acquire(&shard->submitters) > 0)
                thread_yield();
        shard->is_due = false;
        shard->closed = closed;
        shard->closed_context = context;
        empty_inbox(shard);
        give_up_pipes(shard);
        refuse_queued(shard, &shard->queue, LIDO_ECLOSED, CLOCK_NEVER);
        refuse_queued(shard, &shard->alone, LIDO_ECLOSED, CLOCK_NEVER);
        if (shard->is_asking)
                lido_cancel(&shard->request);
        if (shard->is_asking_alone)
                lido_cancel(&shard->alone_request);
        lido_timer_clear(shard->loop, &shard->tick);
        uv_close((uv_handle_t *)&shard->prepare, on_handle_closed);
        uv_close((uv_handle_t *)&shard->idle, on_handle_closed);
        tell_all(shard);
}
