/* Looking up names, with a getaddrinfo of the test's own. Within a pool: pg/connector.c. */
#include "pg/resolver.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "lido/pool.h"
#include "support/suite.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned lookups, inside; /* guarded by lock */
static bool gate_is_open;        /* guarded by lock: for the name "slow" */
static bool is_failing;          /* guarded by lock */

/* "two" has two addresses, any other name one. */
__attribute__((visibility("default"))) int getaddrinfo(const char *restrict node, const char *restrict name,
                                                       const struct addrinfo *restrict hints,
                                                       struct addrinfo **restrict ret_list)
{
        unsigned count = strcmp(node, "two") == 0 ? 2 : 1;
        bool must_fail;

        (void)name;
        (void)hints;
        pthread_mutex_lock(&lock);
        lookups++;
        inside++;
        pthread_cond_broadcast(&changed);
        while (strcmp(node, "slow") == 0 && !gate_is_open)
                pthread_cond_wait(&changed, &lock);
        inside--;
        must_fail = is_failing;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
        *ret_list = NULL;
        if (must_fail)
                return EAI_AGAIN;
        for (unsigned i = count; i > 0; i--) {
                struct addrinfo *entry = calloc(1, sizeof *entry + sizeof(struct sockaddr_in));
                struct sockaddr_in *address = (struct sockaddr_in *)(void *)(entry + 1);

                address->sin_family = AF_INET;
                address->sin_addr.s_addr = htonl(INADDR_LOOPBACK + i - 1);
                entry->ai_family = AF_INET;
                entry->ai_addr = (struct sockaddr *)address;
                entry->ai_addrlen = sizeof *address;
                entry->ai_next = *ret_list;
                *ret_list = entry;
        }
        return 0;
}

__attribute__((visibility("default"))) void freeaddrinfo(struct addrinfo *list)
{
        while (list) {
                struct addrinfo *next = list->ai_next;

                free(list);
                list = next;
        }
}

static void set_gate(bool is_open)
{
        pthread_mutex_lock(&lock);
        gate_is_open = is_open;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
}

static void set_failing(bool must_fail)
{
        pthread_mutex_lock(&lock);
        is_failing = must_fail;
        pthread_mutex_unlock(&lock);
}

static void wait_inside(unsigned count)
{
        pthread_mutex_lock(&lock);
        while (inside != count)
                pthread_cond_wait(&changed, &lock);
        pthread_mutex_unlock(&lock);
}

static unsigned lookups_so_far(void)
{
        pthread_mutex_lock(&lock);
        unsigned count = lookups;
        pthread_mutex_unlock(&lock);
        return count;
}

static struct addresses addresses;
static struct lido_error error;

static void expect(struct news *news)
{
        news_init(news);
        news->since_ns = clock_now_ns();
}

static void wait_for(struct news *news)
{
        struct pollfd fd = { .fd = news->fd, .events = POLLIN };

        ck_assert_int_eq(poll(&fd, 1, 20000), 1);
}

/* Ask, and wait until there is an answer. */
static int look_up(struct resolver *resolver, const char *host)
{
        struct news news;
        int rc;

        expect(&news);
        while ((rc = resolver_ask(resolver, host, &news, &addresses, &error)) == LIDO_EBUSY)
                wait_for(&news);
        news_fini(&news);
        return rc;
}

static void wait_ms(uint64_t ms)
{
        for (uint64_t end = clock_after_ms(clock_now_ns(), (int64_t)ms); clock_now_ns() < end;)
                poll(NULL, 0, 1);
}

START_TEST(what_was_found_counts_for_its_time_and_is_then_looked_up_again)
{
        /* given */ struct resolver *lasting = resolver_new(LIDO_NEVER, NULL), *brief = resolver_new(1, NULL);
        /* when  */ for (int i = 0; i < 3; i++)
                ck_assert_int_eq(look_up(lasting, "one"), LIDO_OK);
        /* then  */ ck_assert_uint_eq(lookups_so_far(), 1);
        ck_assert_uint_eq(addresses.count, 1);
        ck_assert_str_eq(addresses.text[0], "127.0.0.1");
        ck_assert_int_eq(look_up(brief, "one"), LIDO_OK);
        wait_ms(3);
        ck_assert_int_eq(look_up(brief, "one"), LIDO_OK);
        ck_assert_uint_eq(lookups_so_far(), 3);
        resolver_free(lasting);
        resolver_free(brief);
}
END_TEST

START_TEST(a_name_that_many_want_is_looked_up_once_and_all_are_told)
{
        /* given */ struct resolver *resolver = resolver_new(15000, NULL);
        struct news news[8];
        for (int i = 0; i < 8; i++) {
                expect(&news[i]);
                ck_assert_int_eq(resolver_ask(resolver, "slow", &news[i], &addresses, &error), LIDO_EBUSY);
        }
        resolver_forget(resolver, &news[7]);
        /* when  */ set_gate(true);
        for (int i = 0; i < 7; i++)
                wait_for(&news[i]);
        /* then  */ ck_assert_int_eq(resolver_ask(resolver, "slow", &news[0], &addresses, &error), LIDO_OK);
        ck_assert_uint_eq(lookups_so_far(), 1);
        struct pollfd forgotten = { .fd = news[7].fd, .events = POLLIN };
        ck_assert_int_eq(poll(&forgotten, 1, 0), 0);
        for (int i = 0; i < 8; i++)
                news_fini(&news[i]);
        resolver_free(resolver);
}
END_TEST

START_TEST(a_name_that_hangs_stands_in_nobodys_way)
{
        /* given */ struct resolver *resolver = resolver_new(15000, NULL);
        struct news news;
        expect(&news);
        ck_assert_int_eq(resolver_ask(resolver, "slow", &news, &addresses, &error), LIDO_EBUSY);
        wait_inside(1);
        /* when  */ ck_assert_int_eq(look_up(resolver, "one"), LIDO_OK);
        /* then  */ resolver_forget(resolver, &news);
        news_fini(&news);
        resolver_free(resolver); /* does not wait for the one that hangs */
        set_gate(true);
        wait_inside(0);
}
END_TEST

START_TEST(a_failure_is_told_and_counts_for_a_while)
{
        /* given */ struct resolver *resolver = resolver_new(15000, NULL);
        set_failing(true);
        /* when  */ int rc = look_up(resolver, "one");
        /* then  */ ck_assert_int_eq(rc, LIDO_EFACTORY);
        ck_assert_int_eq(error.failure, LIDO_FAILURE_NETWORK);
        ck_assert_ptr_nonnull(strstr(error.text, "\"one\""));
        ck_assert_int_eq(look_up(resolver, "one"), LIDO_EFACTORY);
        ck_assert_uint_eq(lookups_so_far(), 1);
        resolver_free(resolver);
}
END_TEST

START_TEST(a_resolver_that_is_down_takes_nothing_away)
{
        /* given */ struct resolver *resolver = resolver_new(1, NULL);
        ck_assert_int_eq(look_up(resolver, "one"), LIDO_OK);
        set_failing(true);
        wait_ms(3);
        /* when  */ int rc = look_up(resolver, "one");
        /* then  */ ck_assert_uint_eq(lookups_so_far(), 2);
        ck_assert_int_eq(rc, LIDO_OK);
        ck_assert_str_eq(addresses.text[0], "127.0.0.1");
        resolver_free(resolver);
}
END_TEST

START_TEST(an_address_that_did_not_answer_comes_last)
{
        /* given */ struct resolver *resolver = resolver_new(15000, NULL);
        ck_assert_int_eq(look_up(resolver, "two"), LIDO_OK);
        ck_assert_uint_eq(addresses.count, 2);
        ck_assert_str_eq(addresses.text[0], "127.0.0.1");
        /* when  */ resolver_note(resolver, "two", "127.0.0.1", false);
        /* then  */ ck_assert_int_eq(look_up(resolver, "two"), LIDO_OK);
        ck_assert_uint_eq(addresses.count, 2);
        ck_assert_str_eq(addresses.text[0], "127.0.0.2");
        resolver_note(resolver, "two", "127.0.0.1", true);
        ck_assert_int_eq(look_up(resolver, "two"), LIDO_OK);
        ck_assert_str_eq(addresses.text[0], "127.0.0.1");
        resolver_free(resolver);
}
END_TEST

static void *ask_often(void *resolver)
{
        struct addresses mine;
        struct lido_error why;

        for (int i = 0; i < 50; i++) {
                struct news news;

                expect(&news);
                while (resolver_ask(resolver, i % 2 ? "one" : "two", &news, &mine, &why) == LIDO_EBUSY) {
                        if (i % 5 == 0) /* never mind */
                                break;
                        wait_for(&news);
                }
                resolver_forget(resolver, &news);
                news_fini(&news);
        }
        return NULL;
}

START_TEST(many_threads_ask_and_change_their_minds)
{
        struct resolver *resolver = resolver_new(1, NULL);
        pthread_t threads[4];

        for (int i = 0; i < 4; i++)
                ck_assert_int_eq(pthread_create(&threads[i], NULL, ask_often, resolver), 0);
        for (int i = 0; i < 4; i++)
                pthread_join(threads[i], NULL);
        resolver_free(resolver);
}
END_TEST

int main(void)
{
        return suite_run("pg/resolver", (const TTest *[]){
                                                what_was_found_counts_for_its_time_and_is_then_looked_up_again,
                                                a_name_that_many_want_is_looked_up_once_and_all_are_told,
                                                a_name_that_hangs_stands_in_nobodys_way,
                                                a_failure_is_told_and_counts_for_a_while,
                                                a_resolver_that_is_down_takes_nothing_away,
                                                an_address_that_did_not_answer_comes_last,
                                                many_threads_ask_and_change_their_minds,
                                                NULL,
                                        });
}
