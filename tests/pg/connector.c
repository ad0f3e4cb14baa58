/* The threads that connect, with a resolver that hangs: getaddrinfo here is the test's own. One open: pg/connect.c. */
#include "pg/connector.h"

#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uv.h>

#include "base/clock.h"
#include "lido/loop.h"
#include "lido/pg.h"
#include "lido/service.h"
#include "lido/stats.h"
#include "support/fakepg.h"
#include "support/suite.h"

static pthread_mutex_t gate_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_changed = PTHREAD_COND_INITIALIZER;
static bool gate_is_open;
static unsigned inside, inside_most, lookups;

static void wait_at_gate(void)
{
        pthread_mutex_lock(&gate_lock);
        inside++;
        inside_most = inside > inside_most ? inside : inside_most;
        pthread_cond_broadcast(&gate_changed);
        while (!gate_is_open)
                pthread_cond_wait(&gate_changed, &gate_lock);
        inside--;
        pthread_cond_broadcast(&gate_changed);
        pthread_mutex_unlock(&gate_lock);
}

/* Every name is this machine, and waits at the gate. An address, which libpq looks up too, does not. Visible, so that libpq
 * calls it as well. */
__attribute__((visibility("default"))) int getaddrinfo(const char *restrict node, const char *restrict name,
                                                       const struct addrinfo *restrict hints,
                                                       struct addrinfo **restrict ret_list)
{
        struct addrinfo *entry = calloc(1, sizeof *entry + sizeof(struct sockaddr_in));
        struct sockaddr_in *address = (struct sockaddr_in *)(void *)(entry + 1);

        (void)node;
        address->sin_family = AF_INET;
        address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address->sin_port = htons((uint16_t)(name ? atoi(name) : 0));
        entry->ai_family = AF_INET;
        entry->ai_socktype = SOCK_STREAM;
        entry->ai_addr = (struct sockaddr *)address;
        entry->ai_addrlen = sizeof *address;
        *ret_list = entry;
        if (hints->ai_flags & AI_NUMERICHOST)
                return 0;
        pthread_mutex_lock(&gate_lock);
        lookups++;
        pthread_mutex_unlock(&gate_lock);
        wait_at_gate();
        return 0;
}

__attribute__((visibility("default"))) void freeaddrinfo(struct addrinfo *list)
{
        free(list);
}

static void wait_inside(unsigned count)
{
        pthread_mutex_lock(&gate_lock);
        while (inside != count)
                pthread_cond_wait(&gate_changed, &gate_lock);
        pthread_mutex_unlock(&gate_lock);
}

static void open_gate(void)
{
        pthread_mutex_lock(&gate_lock);
        gate_is_open = true;
        pthread_cond_broadcast(&gate_changed);
        pthread_mutex_unlock(&gate_lock);
}

static struct fakepg server;
static char text[256];

static struct lido_pool *open_pool(struct lido_service *service, const char *host, uint32_t connectors,
                                   struct lido_pool_options *options)
{
        struct lido_pg_options pg = LIDO_PG_OPTIONS_INIT;
        struct lido_pool *pool;

        snprintf(text, sizeof text, "host=%s port=%d dbname=d user=u sslmode=disable", host, server.port);
        pg.conninfo = text;
        pg.connectors = connectors;
        ck_assert_int_eq(lido_pg_pool_open(&pool, service, &pg, options), LIDO_OK);
        return pool;
}

static void set_up(void)
{
        fakepg_start(&server, fakepg_serve);
}

static void tear_down(void)
{
        fakepg_stop(&server);
}

START_TEST(a_resolver_that_hangs_holds_up_neither_deadline_nor_close_nor_stop)
{
        /* given */ struct lido_service *service;
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        lido_lease lease;
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
        struct lido_pool *pool = open_pool(service, "hangs", 1, &options);
        /* when  */ uint64_t start = clock_now_ns();
        ck_assert_int_eq(lido_acquire(pool, 100, &lease), LIDO_ETIMEDOUT);
        wait_inside(1);
        lido_pool_close(pool, 0);
        ck_assert_int_eq(lido_pool_drain(pool, 20000), LIDO_OK);
        lido_pool_free(pool);
        ck_assert_int_eq(lido_service_stop(service, 20000), LIDO_OK);
        /* then  */ ck_assert_uint_lt(clock_now_ns() - start, 5 * NS_PER_S);
        open_gate(); /* the thread that was left behind comes out, and frees what it held */
        wait_inside(0);
}
END_TEST

START_TEST(an_open_that_times_out_in_the_resolver_is_answered)
{
        /* given */ struct lido_service *service;
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        struct lido_stats stats = LIDO_STATS_INIT;
        lido_lease lease;
        options.open_timeout_ms = 50;
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
        struct lido_pool *pool = open_pool(service, "hangs", 1, &options);
        /* when  */ ck_assert_int_eq(lido_acquire(pool, 500, &lease), LIDO_ETIMEDOUT);
        ck_assert_int_eq(lido_pool_stats(pool, &stats), LIDO_OK);
        /* then  */ ck_assert_uint_ge(stats.open_failed, 1);
        open_gate();
        ck_assert_int_eq(lido_acquire(pool, 20000, &lease), LIDO_OK);
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        lido_pool_free(pool);
        ck_assert_int_eq(lido_service_stop(service, 20000), LIDO_OK);
}
END_TEST

static void serve_behind_gate(struct fakepg *fake, int fd, unsigned nth)
{
        wait_at_gate();
        fakepg_serve(fake, fd, nth);
}

START_TEST(no_more_threads_connect_than_the_options_allow)
{
        /* given */ struct lido_service *service;
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        options.max = options.min = 8;
        options.open_limit = 8;
        server.behave = serve_behind_gate;
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
        struct lido_pool *pool = open_pool(service, "127.0.0.1", 3, &options);
        /* when  */ wait_inside(3);
        open_gate();
        ck_assert_int_eq(lido_pool_wait_ready(pool, 8, 20000), LIDO_OK);
        /* then  */ ck_assert_uint_eq(inside_most, 3);
        ck_assert_uint_eq(lookups, 0); /* an address is not looked up */
        lido_pool_free(pool);
        ck_assert_int_eq(lido_service_stop(service, 20000), LIDO_OK);
}
END_TEST

START_TEST(a_name_is_looked_up_once_however_many_connect)
{
        /* given */ struct lido_service *service;
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        options.max = options.min = 8;
        options.open_limit = 8;
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
        struct lido_pool *pool = open_pool(service, "slow", 8, &options);
        /* when  */ wait_inside(1);
        open_gate();
        ck_assert_int_eq(lido_pool_wait_ready(pool, 8, 20000), LIDO_OK);
        /* then  */ ck_assert_uint_eq(lookups, 1);
        lido_pool_free(pool);
        ck_assert_int_eq(lido_service_stop(service, 20000), LIDO_OK);
}
END_TEST

/* ---- on the embedder's loop ------------------------------------------------------------------------------ */

struct lag {
        uint64_t last_ns, most_ns;
};

static void on_tick(uv_timer_t *timer)
{
        struct lag *lag = timer->data;
        uint64_t now = clock_now_ns();

        if (now - lag->last_ns > lag->most_ns)
                lag->most_ns = now - lag->last_ns;
        lag->last_ns = now;
}

static void on_acquired(struct lido_request *request, int status, lido_lease lease)
{
        ck_assert_int_eq(status, LIDO_OK);
        ck_assert_ptr_nonnull(lido_pg_conn(lease));
        ck_assert_int_eq(lido_release(lease), LIDO_OK);
        *(int *)request->data += 1;
}

static void on_detached(int status, void *context)
{
        *(int *)context = status == LIDO_OK;
}

static void *open_gate_after_pause(void *unused)
{
        (void)unused;
        wait_inside(1);
        nanosleep(&(struct timespec){ .tv_nsec = 300000000 }, NULL); /* for so long the resolver is slow */
        open_gate();
        return NULL;
}

START_TEST(a_slow_resolver_does_not_stop_the_loop)
{
        /* given */ uv_loop_t loop;
        uv_timer_t timer;
        struct lag lag = { .last_ns = 0 };
        struct lido_service *service;
        struct lido_loop *mine;
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        struct lido_request requests[8];
        pthread_t thread;
        int acquired = 0, is_detached = 0;
        options.max = 8;
        uv_loop_init(&loop);
        ck_assert_int_eq(lido_service_attach(&service, &loop, NULL), LIDO_OK);
        ck_assert_int_eq(lido_loop_open(&mine, &loop), LIDO_OK);
        struct lido_pool *pool = open_pool(service, "slow", 4, &options);
        ck_assert_int_eq(pthread_create(&thread, NULL, open_gate_after_pause, NULL), 0);
        timer.data = &lag;
        uv_timer_init(&loop, &timer);
        lag.last_ns = clock_now_ns();
        uv_timer_start(&timer, on_tick, 1, 1);
        /* when  */ memset(requests, 0, sizeof requests);
        for (int i = 0; i < 8; i++) {
                requests[i].loop = mine;
                requests[i].data = &acquired;
                ck_assert_int_eq(lido_acquire_async(pool, &requests[i], 20000, on_acquired), LIDO_OK);
        }
        while (acquired < 8)
                uv_run(&loop, UV_RUN_ONCE);
        /* then  */ ck_assert_uint_lt(lag.most_ns, 150 * NS_PER_MS); /* half of what the resolver took */
        pthread_join(thread, NULL);
        uv_close((uv_handle_t *)&timer, NULL);
        lido_loop_close(mine, NULL, NULL);
        uv_run(&loop, UV_RUN_DEFAULT); /* watched idle connections do not keep it going */
        lido_pool_free(pool);
        ck_assert_int_eq(lido_service_detach(service, 20000, on_detached, &is_detached), LIDO_OK);
        uv_run(&loop, UV_RUN_DEFAULT);
        ck_assert_int_eq(is_detached, 1);
        ck_assert_int_eq(uv_loop_close(&loop), 0);
}
END_TEST

int main(void)
{
        return suite_run_with("pg/connector",
                              (const TTest *[]){
                                      a_resolver_that_hangs_holds_up_neither_deadline_nor_close_nor_stop,
                                      an_open_that_times_out_in_the_resolver_is_answered,
                                      no_more_threads_connect_than_the_options_allow,
                                      a_name_is_looked_up_once_however_many_connect,
                                      a_slow_resolver_does_not_stop_the_loop,
                                      NULL,
                              },
                              set_up, tear_down);
}
