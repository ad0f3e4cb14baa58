#include "pg/monitor.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/thread.h"

enum post_state { POST_RESTS, POST_CONNECTS, POST_ASKS };

/* One host, as the thread sees it. All of it is the thread's. */
struct post {
        enum post_state state;
        struct connect connect; /* while it CONNECTS */
        PGconn *conn;           /* otherwise; NULL: none */
        struct probe probe;
        short events;      /* what it waits for; 0: nothing but time */
        uint64_t due_ns;   /* RESTS: when to ask next; else: when to give up */
        uint64_t asked_ns; /* ASKS: since when */
};

struct pg_monitor {
        const struct connect_tools *tools; /* constant */
        struct thread thread;
        int bell_fd;                /* constant; readable: look now, or end */
        _Atomic uint32_t is_ending; /* atomic */
        struct pollfd *fds;         /* the thread's: one for each post, and the bell */
        unsigned count;             /* constant */
        struct post post[];         /* the thread's */
};

static void rest(struct pg_monitor *monitor, struct post *post)
{
        post->state = POST_RESTS;
        post->events = 0;
        post->due_ns = clock_after_ms(clock_now_ns(), monitor->tools->options->given.host_check_ms);
}

static void lose(struct pg_monitor *monitor, struct post *post)
{
        PQfinish(post->conn); /* non-blocking: its goodbye cannot wait */
        post->conn = NULL;
        hosts_lose(monitor->tools->hosts, (unsigned)(post - monitor->post));
        rest(monitor, post);
}

static uint64_t attempt_ends_ns(const struct pg_monitor *monitor)
{
        return clock_after_ms(clock_now_ns(), monitor->tools->options->given.attempt_timeout_ms);
}

static void read_answer(struct pg_monitor *monitor, struct post *post)
{
        int flushed = PQflush(post->conn), rc = probe_read(post->conn, &post->probe);

        post->events = flushed == 1 ? POLLIN | POLLOUT : POLLIN;
        if (rc == 0 && clock_now_ns() < post->due_ns)
                return;
        if (rc <= 0) {
                lose(monitor, post);
                return;
        }
        hosts_learn(monitor->tools->hosts, (unsigned)(post - monitor->post), &post->probe, clock_now_ns() - post->asked_ns);
        rest(monitor, post);
}

static void ask(struct pg_monitor *monitor, struct post *post)
{
        post->state = POST_ASKS;
        post->asked_ns = clock_now_ns();
        post->due_ns = attempt_ends_ns(monitor);
        if (probe_send(post->conn, &post->probe))
                read_answer(monitor, post);
        else
                lose(monitor, post);
}

static void go_on_connecting(struct pg_monitor *monitor, struct post *post, bool is_ready)
{
        static const short events[] = { [CONNECT_READ] = POLLIN, [CONNECT_WRITE] = POLLOUT, [CONNECT_READ_WRITE] = POLLIN | POLLOUT };
        enum connect_want want = connect_advance(&post->connect, is_ready);

        if (want < CONNECT_DONE) {
                post->events = events[want];
                post->due_ns = connect_due_ns(&post->connect);
                return;
        }
        post->conn = want == CONNECT_DONE ? connect_take(&post->connect) : NULL;
        connect_fini(&post->connect);
        if (post->conn && PQsetnonblocking(post->conn, 1) == 0)
                ask(monitor, post);
        else
                lose(monitor, post);
}

static void go_on(struct pg_monitor *monitor, struct post *post, bool is_ready)
{
        bool is_due = clock_now_ns() >= post->due_ns;

        if (!is_ready && !is_due)
                return;
        switch (post->state) {
        case POST_RESTS:
                if (post->conn) {
                        ask(monitor, post);
                        break;
                }
                post->state = POST_CONNECTS;
                connect_init_probe(&post->connect, monitor->tools, (unsigned)(post - monitor->post), attempt_ends_ns(monitor));
                go_on_connecting(monitor, post, false);
                break;
        case POST_CONNECTS:
                go_on_connecting(monitor, post, is_ready);
                break;
        case POST_ASKS:
                read_answer(monitor, post);
                break;
        }
}

/* Wait for any of them, or the bell. */
static void wait_for_some(struct pg_monitor *monitor)
{
        struct pollfd *fds = monitor->fds;
        uint64_t due_ns = CLOCK_NEVER, count;

        for (unsigned i = 0; i < monitor->count; i++) {
                struct post *post = &monitor->post[i];

                fds[i].events = post->events;
                fds[i].revents = 0;
                fds[i].fd = post->state == POST_CONNECTS ? connect_fd(&post->connect) : post->conn ? PQsocket(post->conn) : -1;
                if (post->state == POST_RESTS)
                        fds[i].fd = -1;
                due_ns = clock_min(due_ns, post->due_ns);
        }
        fds[monitor->count] = (struct pollfd){ .fd = monitor->bell_fd, .events = POLLIN };
        if (poll(fds, monitor->count + 1, clock_poll_ms(due_ns)) <= 0 || !fds[monitor->count].revents)
                return;
        while (read(monitor->bell_fd, &count, sizeof count) > 0)
                continue;
        for (unsigned i = 0; i < monitor->count; i++)
                if (monitor->post[i].state == POST_RESTS)
                        monitor->post[i].due_ns = 0;
}

static void run(void *monitor_pointer)
{
        struct pg_monitor *monitor = monitor_pointer;

        while (!load_acquire(&monitor->is_ending)) {
                for (unsigned i = 0; i < monitor->count; i++)
                        go_on(monitor, &monitor->post[i], monitor->fds[i].revents != 0);
                if (!load_acquire(&monitor->is_ending))
                        wait_for_some(monitor);
        }
        for (unsigned i = 0; i < monitor->count; i++) {
                struct post *post = &monitor->post[i];

                if (post->state == POST_CONNECTS)
                        connect_fini(&post->connect);
                PQfinish(post->conn);
        }
}

int monitor_new(struct pg_monitor **ret_monitor, const struct connect_tools *tools)
{
        unsigned count = tools->options->host_count;
        struct pg_monitor *monitor = mem_zalloc(sizeof *monitor + count * sizeof *monitor->post);
        int rc = LIDO_EFACTORY;

        if (!monitor)
                return LIDO_ENOMEM;
        monitor->tools = tools;
        monitor->count = count;
        monitor->fds = mem_zalloc((count + 1) * sizeof *monitor->fds);
        if (!monitor->fds) {
                rc = LIDO_ENOMEM;
                goto free_monitor;
        }
        monitor->bell_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (monitor->bell_fd < 0)
                goto free_monitor;
        rc = thread_start(&monitor->thread, "lido-hosts", 0, run, monitor);
        if (rc != LIDO_OK)
                goto close_bell;
        *ret_monitor = monitor;
        return LIDO_OK;
close_bell:
        close(monitor->bell_fd);
free_monitor:
        mem_free(monitor->fds);
        mem_free(monitor);
        return rc;
}

void monitor_poke(struct pg_monitor *monitor)
{
        if (eventfd_write(monitor->bell_fd, 1) != 0)
                return; /* it is readable already */
}

void monitor_free(struct pg_monitor *monitor)
{
        if (!monitor)
                return;
        store_release(&monitor->is_ending, 1);
        monitor_poke(monitor);
        thread_join(&monitor->thread);
        close(monitor->bell_fd);
        mem_free(monitor->fds);
        mem_free(monitor);
}
