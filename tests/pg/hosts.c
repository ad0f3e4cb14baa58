/* What is known of the servers of a list, and what follows. With real ones: pg/cluster.c. */
#include "pg/hosts.h"

#include <string.h>

#include "support/suite.h"

#define PRIMARY(tl, at) ((struct probe){ .has_role = true, .is_told = true, .system_id = 7, .timeline = (tl), .position = (at) })
#define STANDBY(at)                                                                                            \
        ((struct probe){ .has_role = true, .is_told = true, .is_standby = true, .system_id = 7, .position = (at) })

static struct pg_options options;
static struct pg_hosts *hosts;
static unsigned changes; /* all that were told since it was last cleared */
static unsigned order[8];

static void on_change(void *context, unsigned told)
{
        ck_assert_ptr_eq(context, &changes);
        changes |= told;
}

static void with(struct lido_pg_options given, const char *conninfo)
{
        given.conninfo = conninfo;
        ck_assert_int_eq(options_init(&options, &given, "test"), LIDO_OK);
        hosts = hosts_new(&options, on_change, &changes);
        changes = 0;
}

static void tear_down(void)
{
        hosts_unref(hosts);
        options_fini(&options);
}

static void learn(unsigned host, struct probe probe)
{
        hosts_learn(hosts, host, &probe, 0);
}

static const char *admit(unsigned host, struct probe probe)
{
        return hosts_admit(hosts, host, &probe, options.session_attrs);
}

static void order_is(unsigned a, unsigned b, unsigned c)
{
        ck_assert_uint_eq(hosts_order(hosts, options.session_attrs, order), 3);
        ck_assert_msg(order[0] == a && order[1] == b && order[2] == c, "%u %u %u", order[0], order[1], order[2]);
}

static struct lido_pg_options balanced(int balance)
{
        struct lido_pg_options given = LIDO_PG_OPTIONS_INIT;

        given.balance = balance;
        return given;
}

#define WRITERS "host=a,b,c target_session_attrs=read-write"
#define READERS "host=a,b,c target_session_attrs=standby"

/* ---- roles ----------------------------------------------------------------------------------------------- */

START_TEST(what_is_not_known_fits)
{
        with(balanced(0), WRITERS);
        for (unsigned i = 0; i < 3; i++)
                ck_assert(hosts_fits(hosts, i));
        order_is(0, 1, 2);
}
END_TEST

START_TEST(a_server_of_another_role_does_not_fit_and_is_tried_last)
{
        /* given */ with(balanced(0), WRITERS);
        /* when  */ learn(0, STANDBY(10));
        learn(1, PRIMARY(1, 10));
        /* then  */ ck_assert(!hosts_fits(hosts, 0));
        ck_assert(hosts_fits(hosts, 1));
        ck_assert_uint_eq(changes, HOSTS_LEFT);
        order_is(1, 2, 0);
}
END_TEST

START_TEST(a_read_only_primary_is_for_readers)
{
        struct probe probe = PRIMARY(1, 10);

        probe.is_read_only = true;
        ck_assert(hosts_role_is_wrong("read-write", &probe));
        ck_assert(!hosts_role_is_wrong("primary", &probe));
        ck_assert(!hosts_role_is_wrong("read-only", &probe));
        ck_assert(hosts_role_is_wrong("standby", &probe));
        ck_assert(!hosts_role_is_wrong("any", &probe));
        ck_assert(!hosts_role_is_wrong(NULL, &probe));
        with(balanced(0), WRITERS);
}
END_TEST

START_TEST(a_server_that_does_not_tell_its_role_is_believed)
{
        struct probe silent = { .is_told = false };

        with(balanced(0), READERS);
        learn(0, silent);
        ck_assert(hosts_fits(hosts, 0));
        ck_assert_ptr_null(admit(0, silent));
}
END_TEST

START_TEST(a_promotion_brings_a_host_that_fits)
{
        /* given */ with(balanced(0), WRITERS);
        learn(0, PRIMARY(1, 10));
        learn(1, STANDBY(10));
        hosts_lose(hosts, 0);
        changes = 0;
        /* when  */ learn(1, PRIMARY(2, 11));
        /* then  */ ck_assert(changes & HOSTS_CAME);
        ck_assert(hosts_fits(hosts, 1));
        ck_assert_uint_eq(hosts_order(hosts, options.session_attrs, order), 3);
        ck_assert_uint_eq(order[0], 1);
}
END_TEST

START_TEST(a_word_about_the_role_alone_takes_nothing_else_away)
{
        /* given */ struct lido_pg_host seen = LIDO_PG_HOST_INIT;
        with(balanced(0), WRITERS);
        learn(0, PRIMARY(3, 10));
        /* when  */ learn(0, (struct probe){ .has_role = true });
        /* then  */ hosts_describe(hosts, 0, &seen);
        ck_assert_uint_eq(seen.timeline, 3);
        ck_assert_uint_eq(seen.system_id, 7);
}
END_TEST

/* ---- the past -------------------------------------------------------------------------------------------- */

START_TEST(an_old_primary_that_returns_is_refused)
{
        /* given */ with(balanced(0), WRITERS);
        learn(0, PRIMARY(1, 10));
        learn(1, PRIMARY(2, 11));
        /* when  */ const char *against = admit(0, PRIMARY(1, 12));
        /* then  */ ck_assert_ptr_nonnull(against);
        ck_assert_ptr_nonnull(strstr(against, "replaced"));
        ck_assert(!hosts_fits(hosts, 0));
        order_is(1, 2, 0);
}
END_TEST

START_TEST(sessions_at_a_primary_that_was_replaced_are_cut_off)
{
        /* given */ with(balanced(0), WRITERS);
        learn(0, PRIMARY(1, 10));
        changes = 0;
        /* when  */ ck_assert_ptr_null(admit(1, PRIMARY(2, 11)));
        /* then  */ ck_assert(changes & HOSTS_CUT);
        ck_assert(hosts_is_cut(hosts, 0));
        ck_assert(!hosts_is_cut(hosts, 1));
}
END_TEST

START_TEST(a_primary_that_is_rejoined_as_a_standby_is_one)
{
        /* given */ with(balanced(0), READERS);
        learn(0, PRIMARY(1, 10));
        learn(1, PRIMARY(2, 11));
        /* when  */ ck_assert_ptr_null(admit(0, STANDBY(11)));
        /* then  */ ck_assert(hosts_fits(hosts, 0));
        ck_assert(!hosts_is_cut(hosts, 0));
}
END_TEST

START_TEST(a_server_of_another_cluster_is_refused)
{
        /* given */ struct probe other = PRIMARY(9, 99);
        with(balanced(0), WRITERS);
        ck_assert_ptr_null(admit(0, PRIMARY(1, 10)));
        other.system_id = 8;
        /* when  */ const char *against = admit(1, other);
        /* then  */ ck_assert_ptr_nonnull(against);
        ck_assert_ptr_nonnull(strstr(against, "another cluster"));
        ck_assert(!hosts_fits(hosts, 1));
        ck_assert(hosts_fits(hosts, 0)); /* what the stranger says of timelines does not count */
}
END_TEST

START_TEST(before_there_is_a_connection_the_first_in_the_list_says_which_cluster_it_is)
{
        /* given */ struct probe other = PRIMARY(9, 99);
        with(balanced(0), WRITERS);
        other.system_id = 8;
        learn(1, other);
        ck_assert(hosts_fits(hosts, 1));
        /* when  */ ck_assert_ptr_null(admit(0, PRIMARY(1, 10)));
        /* then  */ ck_assert(!hosts_fits(hosts, 1));
        ck_assert(hosts_fits(hosts, 0));
}
END_TEST

START_TEST(when_all_are_of_another_cluster_that_is_the_cluster)
{
        /* given */ struct probe other = PRIMARY(1, 1), standby = STANDBY(1);
        other.system_id = standby.system_id = 8;
        with(balanced(0), WRITERS);
        ck_assert_ptr_null(admit(0, PRIMARY(5, 10)));
        /* when  */ learn(1, standby);
        learn(2, standby);
        ck_assert_ptr_nonnull(admit(1, standby));
        learn(0, other);
        /* then  */ ck_assert(hosts_fits(hosts, 0));
        ck_assert(!hosts_fits(hosts, 1)); /* a standby, for writers */
        ck_assert_ptr_null(admit(0, other));
}
END_TEST

START_TEST(the_past_can_be_forgotten)
{
        /* given */ with(balanced(0), WRITERS);
        learn(1, PRIMARY(2, 11));
        ck_assert_ptr_nonnull(admit(0, PRIMARY(1, 12)));
        /* when  */ hosts_forget_past(hosts);
        /* then  */ ck_assert_ptr_null(admit(0, PRIMARY(1, 12)));
        ck_assert(hosts_fits(hosts, 0));
}
END_TEST

/* ---- behind ---------------------------------------------------------------------------------------------- */

START_TEST(a_standby_too_far_behind_does_not_fit_until_it_has_caught_up)
{
        /* given */ struct lido_pg_options given = LIDO_PG_OPTIONS_INIT;
        given.lag_limit_bytes = 100;
        with(given, READERS);
        learn(0, PRIMARY(1, 1000));
        /* when  */ learn(1, STANDBY(899));
        learn(2, STANDBY(900));
        /* then  */ ck_assert(!hosts_fits(hosts, 1));
        ck_assert(hosts_fits(hosts, 2));
        ck_assert_ptr_nonnull(strstr(admit(1, STANDBY(899)), "behind"));
        learn(1, STANDBY(949)); /* not halfway yet */
        ck_assert(!hosts_fits(hosts, 1));
        changes = 0;
        learn(1, STANDBY(950));
        ck_assert(hosts_fits(hosts, 1));
        ck_assert_uint_eq(changes, HOSTS_CAME);
}
END_TEST

/* ---- balance --------------------------------------------------------------------------------------------- */

START_TEST(in_turn_each_is_first_as_often)
{
        /* given */ unsigned first[3] = { 0 };
        with(balanced(LIDO_PG_BALANCE_ROUND_ROBIN), READERS);
        for (unsigned i = 0; i < 3; i++)
                learn(i, STANDBY(1));
        /* when  */ for (unsigned i = 0; i < 30; i++) {
                hosts_order(hosts, options.session_attrs, order);
                first[order[0]]++;
        }
        /* then  */ ck_assert_uint_eq(first[0], 10);
        ck_assert_uint_eq(first[1], 10);
        ck_assert_uint_eq(first[2], 10);
}
END_TEST

START_TEST(the_one_with_the_fewest_connections_is_first)
{
        /* given */ with(balanced(LIDO_PG_BALANCE_LEAST), READERS);
        for (unsigned i = 0; i < 3; i++)
                learn(i, STANDBY(1));
        /* when  */ hosts_count(hosts, 0, 1);
        hosts_count(hosts, 0, 1);
        hosts_count(hosts, 1, 1);
        /* then  */ order_is(2, 1, 0);
        hosts_count(hosts, 0, -1);
        hosts_count(hosts, 0, -1);
        ck_assert_uint_eq(hosts_order(hosts, options.session_attrs, order), 3);
        ck_assert_uint_eq(order[2], 1);
}
END_TEST

START_TEST(who_spreads_tries_those_that_have_said_nothing_yet)
{
        /* given */ with(balanced(LIDO_PG_BALANCE_LEAST), READERS);
        learn(0, PRIMARY(1, 1)); /* does not fit */
        learn(1, STANDBY(1));
        /* when  */ hosts_count(hosts, 1, 1);
        /* then  */ order_is(2, 1, 0);
        tear_down();

        /* given */ with(balanced(LIDO_PG_BALANCE_ORDER), READERS);
        /* when  */ learn(1, STANDBY(1));
        /* then  */ order_is(1, 0, 2);
}
END_TEST

START_TEST(the_nearest_is_first_and_one_that_does_not_answer_last)
{
        /* given */ struct probe probe = STANDBY(1);
        with(balanced(LIDO_PG_BALANCE_NEAREST), READERS);
        hosts_learn(hosts, 0, &probe, 3000000);
        hosts_learn(hosts, 1, &probe, 2000000);
        hosts_learn(hosts, 2, &probe, 1000000);
        /* then  */ order_is(2, 1, 0);
        hosts_lose(hosts, 2);
        order_is(1, 0, 2);
        ck_assert(hosts_fits(hosts, 2)); /* its sessions will say themselves whether they are dead */
        ck_assert_uint_eq(hosts_fit_count(hosts), 2);
}
END_TEST

int main(void)
{
        return suite_run_with("pg/hosts",
                              (const TTest *[]){
                                      what_is_not_known_fits,
                                      a_server_of_another_role_does_not_fit_and_is_tried_last,
                                      a_read_only_primary_is_for_readers,
                                      a_server_that_does_not_tell_its_role_is_believed,
                                      a_promotion_brings_a_host_that_fits,
                                      a_word_about_the_role_alone_takes_nothing_else_away,
                                      an_old_primary_that_returns_is_refused,
                                      sessions_at_a_primary_that_was_replaced_are_cut_off,
                                      a_primary_that_is_rejoined_as_a_standby_is_one,
                                      a_server_of_another_cluster_is_refused,
                                      before_there_is_a_connection_the_first_in_the_list_says_which_cluster_it_is,
                                      when_all_are_of_another_cluster_that_is_the_cluster,
                                      the_past_can_be_forgotten,
                                      a_standby_too_far_behind_does_not_fit_until_it_has_caught_up,
                                      in_turn_each_is_first_as_often,
                                      the_one_with_the_fewest_connections_is_first,
                                      who_spreads_tries_those_that_have_said_nothing_yet,
                                      the_nearest_is_first_and_one_that_does_not_answer_last,
                                      NULL,
                              },
                              NULL, tear_down);
}
