/* LISTEN, from a thread and on a loop: what is heard, and what is said when something may have been missed. */
#include "lido/pg.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lido/service.h"
#include "lido/stats.h"
#include "support/looper.h"
#include "support/pgfixture.h"
#include "support/suite.h"

static struct lido_service *service;
static struct lido_pool *pool;
static struct looper looper;
static PGconn *admin;
static const char *const channels[] = { "orders", "Odd \"name\"" };
static struct lido_pg_listen_options options;
static struct lido_error error;

static void open_pool(const char *conninfo)
{
        struct lido_pg_options pg = LIDO_PG_OPTIONS_INIT;
        struct lido_pool_options pool_options = LIDO_POOL_OPTIONS_INIT;

        pg.conninfo = conninfo;
        pool_options.max = 1;
        pool_options.acquire_timeout_ms = 500;
        ck_assert_int_eq(lido_pg_pool_open(&pool, service, &pg, &pool_options), LIDO_OK);
}

static void set_up(void)
{
        ck_assert_int_eq(lido_service_start(&service, NULL), LIDO_OK);
        open_pool(server_conninfo());
        admin = admin_connect(server_conninfo());
        options = (struct lido_pg_listen_options)LIDO_PG_LISTEN_OPTIONS_INIT;
        options.channels = channels;
        options.channel_count = 2;
        options.timeout_ms = 60000;
        options.error = &error;
}

static void tear_down(void)
{
        struct lido_stats stats = LIDO_STATS_INIT;

        ck_assert_int_eq(lido_pool_stats(pool, &stats), LIDO_OK);
        ck_assert_uint_eq(stats.leased, 0);
        lido_pool_free(pool);
        ck_assert_int_eq(lido_service_stop(service, 20000), LIDO_OK);
        PQfinish(admin);
}

/* ---- a thread ---------------------------------------------------------------------------------------------- */

static struct lido_pg_listener *listen_here(void)
{
        struct lido_pg_listener *listener;
        int rc = lido_pg_listen(pool, &options, &listener);

        ck_assert_msg(rc == LIDO_OK, "%s: %s", lido_err_name(rc), error.text);
        return listener;
}

static struct lido_pg_notification next(struct lido_pg_listener *listener)
{
        struct lido_pg_notification notification;

        ck_assert_int_eq(lido_pg_next_notification(listener, 60000, &notification), LIDO_OK);
        return notification;
}

START_TEST(what_is_notified_is_heard_in_order)
{
        struct lido_pg_listener *listener = listen_here();
        struct lido_pg_notification heard;
        char expected[32];

        for (int i = 0; i < 2000; i++)
                admin_run(admin, "select pg_notify('orders', 'number %d')", i);
        admin_run(admin, "notify \"Odd \"\"name\"\"\"; notify elsewhere");
        for (int i = 0; i < 2000; i++) {
                heard = next(listener);
                snprintf(expected, sizeof expected, "number %d", i);
                ck_assert_int_eq(heard.kind, LIDO_PG_NOTIFIED);
                ck_assert_str_eq(heard.channel, "orders");
                ck_assert_str_eq(heard.payload, expected);
                ck_assert_int_eq(heard.backend_pid, PQbackendPID(admin));
        }
        heard = next(listener);
        ck_assert_str_eq(heard.channel, "Odd \"name\"");
        ck_assert_str_eq(heard.payload, "");
        ck_assert_int_eq(lido_pg_next_notification(listener, 50, &heard), LIDO_ETIMEDOUT);
        ck_assert_int_eq(lido_pg_next_notification(listener, 0, &heard), LIDO_ETIMEDOUT);
        lido_pg_listener_close(listener);
}
END_TEST

START_TEST(the_next_borrower_of_its_connection_hears_nothing)
{
        struct lido_pg_listener *listener = listen_here();
        lido_lease lease;

        lido_pg_listener_close(listener);
        ck_assert_int_eq(lido_acquire(pool, 20000, &lease), LIDO_OK);
        ck_assert_int_eq(admin_number(lido_pg_conn(lease), "select count(*) from pg_listening_channels()"), 0);
        lido_release(lease);
}
END_TEST

static void lose_connection(void)
{
        admin_run(admin, "select pg_terminate_backend(pid, 20000) from pg_stat_activity where query like 'LISTEN%%' and pid <> pg_backend_pid()");
}

static long listening(void)
{
        return admin_number(admin, "select count(*) from pg_stat_activity where query like 'LISTEN %%name%%' and state = 'idle'");
}

START_TEST(after_a_reconnect_it_listens_again_and_says_that_something_may_be_missing)
{
        struct lido_pg_listener *listener = listen_here();

        for (int i = 0; i < 3; i++) {
                lose_connection();
                ck_assert_int_eq(next(listener).kind, LIDO_PG_MISSED);
                admin_run(admin, "notify orders, 'heard'");
                ck_assert_str_eq(next(listener).payload, "heard");
        }
        lido_pg_listener_close(listener);
}
END_TEST

START_TEST(while_there_is_no_server_it_says_so_and_goes_on_when_there_is)
{
        struct own_server server;
        struct lido_pg_listener *listener;
        struct lido_pg_notification heard;
        PGconn *other;

        lido_pool_free(pool);
        own_server_start(&server, "");
        open_pool(server.conninfo);
        listener = listen_here();
        own_server_command(&server, "stop", "fast");
        ck_assert_int_eq(lido_pg_next_notification(listener, 300, &heard), LIDO_EUNAVAIL);
        ck_assert_int_eq(lido_pg_next_notification(listener, 300, &heard), LIDO_EUNAVAIL);
        own_server_command(&server, "start", "");
        ck_assert_int_eq(next(listener).kind, LIDO_PG_MISSED);
        other = admin_connect(server.conninfo);
        admin_run(other, "notify orders, 'heard'");
        ck_assert_str_eq(next(listener).payload, "heard");
        PQfinish(other);
        lido_pg_listener_close(listener);
        lido_pool_free(pool);
        own_server_remove(&server);
        open_pool(server_conninfo());
}
END_TEST

START_TEST(a_silent_server_is_asked_for_a_sign_of_life)
{
        struct lido_pg_listener *listener;
        struct lido_pg_notification heard;

        options.check_ms = 20;
        listener = listen_here();
        ck_assert_int_eq(lido_pg_next_notification(listener, 200, &heard), LIDO_ETIMEDOUT);
        ck_assert_int_eq(admin_number(admin, "select count(*) from pg_stat_activity where query = '' and state = 'idle' and "
                                             "backend_type = 'client backend' and pid <> pg_backend_pid()"), 1);
        admin_run(admin, "notify orders, 'heard'");
        ck_assert_str_eq(next(listener).payload, "heard"); /* and nothing was missed */
        lido_pg_listener_close(listener);
}
END_TEST

START_TEST(a_pool_that_is_closed_ends_the_listening)
{
        struct lido_pg_listener *listener = listen_here();
        struct lido_pg_notification heard;

        ck_assert_int_eq(lido_pool_close(pool, 0), LIDO_OK);
        ck_assert_int_eq(lido_pg_next_notification(listener, 60000, &heard), LIDO_ECLOSED);
        lido_pg_listener_close(listener);
}
END_TEST

START_TEST(it_works_over_tls_and_scram_as_well)
{
        struct own_server server;
        struct lido_pg_listener *listener;
        PGconn *other;

        lido_pool_free(pool);
        own_server_start(&server, "--tls --scram");
        open_pool(server.tcp_conninfo);
        listener = listen_here();
        other = admin_connect(server.conninfo);
        admin_run(other, "select pg_notify('orders', i || repeat('x', 7900)) from generate_series(1, 100) i"); /* one burst */
        for (int i = 1; i <= 100; i++)
                ck_assert_int_eq(strtol(next(listener).payload, NULL, 10), i);
        PQfinish(other);
        lido_pg_listener_close(listener);
        lido_pool_free(pool);
        own_server_remove(&server);
        open_pool(server_conninfo());
}
END_TEST

START_TEST(arguments_that_make_no_sense_are_refused)
{
        struct lido_pg_listener *listener;

        ck_assert_int_eq(lido_pg_listen(NULL, &options, &listener), LIDO_EINVAL);
        ck_assert_int_eq(lido_pg_listen(pool, NULL, &listener), LIDO_EINVAL);
        options.channel_count = 0;
        ck_assert_int_eq(lido_pg_listen(pool, &options, &listener), LIDO_EINVAL);
        ck_assert_int_eq(lido_pg_next_notification(NULL, 0, NULL), LIDO_EINVAL);
        lido_pg_listener_close(NULL);
}
END_TEST

/* ---- a loop ------------------------------------------------------------------------------------------------ */

struct hearer {
        int counts[4]; /* by kind */
        int status, close_at;
        char last[64];
        struct lido_pg_listener *listener;
};

static void on_notification(struct lido_pg_listener *listener, const struct lido_pg_notification *notification, void *context)
{
        struct hearer *hearer = context;

        must(!hearer->listener || listener == hearer->listener);
        hearer->counts[notification->kind]++;
        hearer->status = notification->status;
        if (notification->kind == LIDO_PG_NOTIFIED)
                snprintf(hearer->last, sizeof hearer->last, "%s", notification->payload);
        if (hearer->close_at && hearer->counts[notification->kind] == hearer->close_at) {
                hearer->listener = NULL;
                lido_pg_listener_close(listener);
        }
}

static void listen_on_loop(struct hearer *hearer)
{
        looper_init(&looper);
        options.loop = looper.loop;
        options.on_notification = on_notification;
        options.context = hearer;
        ck_assert_int_eq(lido_pg_listen(pool, &options, &hearer->listener), LIDO_OK);
        ck_assert_int_eq(hearer->counts[LIDO_PG_LISTENING], 0); /* never from inside */
        ck_eventually(looper_turn(&looper) && hearer->counts[LIDO_PG_LISTENING] + hearer->counts[LIDO_PG_LISTEN_ENDED] == 1);
}

START_TEST(on_a_loop_notifications_come_by_callback)
{
        struct hearer hearer = { 0 };

        listen_on_loop(&hearer);
        admin_run(admin, "select pg_notify('orders', 'number ' || i) from generate_series(1, 2000) i");
        ck_eventually(looper_turn(&looper) && hearer.counts[LIDO_PG_NOTIFIED] == 2000);
        ck_assert_str_eq(hearer.last, "number 2000");
        lido_pg_listener_close(hearer.listener);
        looper_fini(&looper);
        ck_assert_int_eq(hearer.counts[LIDO_PG_LISTEN_ENDED], 0);
}
END_TEST

START_TEST(on_a_loop_it_listens_again_after_a_reconnect_and_says_so)
{
        struct hearer hearer = { 0 };

        listen_on_loop(&hearer);
        for (int i = 1; i <= 3; i++) {
                lose_connection();
                ck_eventually(looper_turn(&looper) && hearer.counts[LIDO_PG_MISSED] == i);
                admin_run(admin, "notify orders, 'heard'");
                ck_eventually(looper_turn(&looper) && hearer.counts[LIDO_PG_NOTIFIED] == i);
                ck_assert_str_eq(hearer.last, "heard");
        }
        ck_assert_int_eq(hearer.counts[LIDO_PG_LISTENING], 1);
        lido_pg_listener_close(hearer.listener);
        looper_fini(&looper);
}
END_TEST

START_TEST(on_a_loop_too_a_silent_server_is_asked_and_nothing_is_missed)
{
        struct hearer hearer = { 0 };

        options.check_ms = 5;
        listen_on_loop(&hearer);
        for (int i = 1; i <= 200; i++) {
                admin_run(admin, "notify orders, 'number %d'", i);
                ck_eventually(looper_turn(&looper) && hearer.counts[LIDO_PG_NOTIFIED] == i);
        }
        ck_eventually(looper_turn(&looper) &&
                      admin_number(admin, "select count(*) from pg_stat_activity where query = '' and "
                                          "backend_type = 'client backend' and pid <> pg_backend_pid()") == 1);
        ck_assert_int_eq(hearer.counts[LIDO_PG_MISSED], 0);
        lido_pg_listener_close(hearer.listener);
        looper_fini(&looper);
}
END_TEST

START_TEST(a_callback_may_close_its_listener_and_hears_no_more)
{
        struct hearer hearer = { .close_at = 3 };

        listen_on_loop(&hearer);
        admin_run(admin, "select pg_notify('orders', 'number ' || i) from generate_series(1, 10) i");
        ck_eventually(looper_turn(&looper) && !hearer.listener);
        looper_fini(&looper);
        ck_assert_int_eq(hearer.counts[LIDO_PG_NOTIFIED], 3);
}
END_TEST

START_TEST(a_listener_may_be_closed_at_any_moment)
{
        for (int turns = 0; turns < 40; turns++) {
                struct hearer hearer = { .close_at = turns == 39 }; /* at last in its first callback */

                looper_init(&looper);
                options.loop = looper.loop;
                options.on_notification = on_notification;
                options.context = &hearer;
                ck_assert_int_eq(lido_pg_listen(pool, &options, &hearer.listener), LIDO_OK);
                for (int turn = 0; turn < turns || (turns == 39 && hearer.listener); turn++) {
                        looper_turn(&looper);
                        give_way();
                }
                lido_pg_listener_close(hearer.listener);
                looper_fini(&looper);
        }
}
END_TEST

START_TEST(on_a_loop_a_pool_that_is_closed_ends_the_listening)
{
        struct hearer hearer = { 0 };

        listen_on_loop(&hearer);
        ck_assert_int_eq(lido_pool_close(pool, 0), LIDO_OK);
        ck_eventually(looper_turn(&looper) && hearer.counts[LIDO_PG_LISTEN_ENDED] == 1);
        ck_assert_int_eq(hearer.status, LIDO_ECLOSED);
        lido_pg_listener_close(hearer.listener);
        looper_fini(&looper);
        ck_assert_int_eq(listening(), 0);
}
END_TEST

int main(void)
{
        return suite_run_with("pg/listen",
                              (const TTest *[]){
                                      what_is_notified_is_heard_in_order,
                                      the_next_borrower_of_its_connection_hears_nothing,
                                      after_a_reconnect_it_listens_again_and_says_that_something_may_be_missing,
                                      while_there_is_no_server_it_says_so_and_goes_on_when_there_is,
                                      a_silent_server_is_asked_for_a_sign_of_life,
                                      a_pool_that_is_closed_ends_the_listening,
                                      it_works_over_tls_and_scram_as_well,
                                      arguments_that_make_no_sense_are_refused,
                                      on_a_loop_notifications_come_by_callback,
                                      on_a_loop_it_listens_again_after_a_reconnect_and_says_so,
                                      on_a_loop_too_a_silent_server_is_asked_and_nothing_is_missed,
                                      a_callback_may_close_its_listener_and_hears_no_more,
                                      a_listener_may_be_closed_at_any_moment,
                                      on_a_loop_a_pool_that_is_closed_ends_the_listening,
                                      NULL,
                              },
                              set_up, tear_down);
}
