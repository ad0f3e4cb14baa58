/* The mailbox: order, who wakes, and that no letter is lost between senders and reader. */
#undef LIDO_DEBUG
#define LIDO_DEBUG 1 /* its functions are inline, so here they check */
#include "base/inbox.h"

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/crew.h"
#include "support/patience.h"
#include "support/suite.h"

#define SENDERS 4u
#define LETTERS 20000u

struct numbered {
        struct letter letter; /* first */
        uint32_t sender, number;
};

START_TEST(letters_are_read_in_the_order_of_sending)
{
        struct inbox inbox;
        struct letter a, b, c;

        inbox_init(&inbox);
        inbox_send(&inbox, &a);
        inbox_send(&inbox, &b);
        inbox_send(&inbox, &c);
        struct letter *first = inbox_take(&inbox);

        ck_assert_ptr_eq(first, &a);
        ck_assert_ptr_eq(first->next, &b);
        ck_assert_ptr_eq(first->next->next, &c);
        ck_assert_ptr_null(first->next->next->next);
}
END_TEST

START_TEST(only_the_sender_into_an_empty_box_wakes_the_reader)
{
        struct inbox inbox;
        struct letter a, b, c;

        inbox_init(&inbox);
        ck_assert(inbox_is_empty(&inbox));
        ck_assert(inbox_send(&inbox, &a));
        ck_assert(!inbox_send(&inbox, &b));
        ck_assert(!inbox_is_empty(&inbox));
        inbox_take(&inbox);

        ck_assert(inbox_is_empty(&inbox));
        ck_assert(inbox_send(&inbox, &c));
        ck_assert_ptr_eq(inbox_take(&inbox), &c);
        ck_assert_ptr_null(inbox_take(&inbox));
}
END_TEST

/* In a child, for it ends with an abort. Returns: the signal. */
static int signal_of(void (*body)(void))
{
        pid_t pid = fork();
        int status;

        if (pid == 0) {
                fclose(stderr);
                body();
                _exit(0);
        }
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void send_twice(void)
{
        struct inbox inbox;
        struct letter a;

        inbox_init(&inbox);
        inbox_send(&inbox, &a);
        inbox_send(&inbox, &a);
}

static void send_twice_with_others_between(void)
{
        struct inbox inbox;
        struct letter a, b, c;

        inbox_init(&inbox);
        inbox_send(&inbox, &a);
        inbox_send(&inbox, &b);
        inbox_send(&inbox, &c);
        inbox_send(&inbox, &a);
        inbox_take(&inbox);
}

static void send_again_once_read(void)
{
        struct inbox inbox;
        struct letter a, b;

        inbox_init(&inbox);
        for (int i = 0; i < 3; i++) {
                inbox_send(&inbox, &a);
                inbox_send(&inbox, &b);
                inbox_take(&inbox);
        }
}

START_TEST(a_letter_sent_again_before_it_is_read_is_found_in_a_debug_build)
{
        ck_assert_int_eq(signal_of(send_twice), SIGABRT);
        ck_assert_int_eq(signal_of(send_twice_with_others_between), SIGABRT);
        ck_assert_int_eq(signal_of(send_again_once_read), 0);
}
END_TEST

struct traffic {
        struct inbox inbox;
        struct numbered letters[SENDERS][LETTERS];
        _Atomic uint32_t wakes;
};

static void send_all(void *context, unsigned number)
{
        struct traffic *traffic = context;

        for (uint32_t i = 0; i < LETTERS; i++) {
                struct numbered *numbered = &traffic->letters[number][i];

                numbered->sender = number;
                numbered->number = i;
                if (inbox_send(&traffic->inbox, &numbered->letter))
                        atomic_fetch_add(&traffic->wakes, 1);
        }
}

START_TEST(no_letter_is_lost_and_each_senders_keep_their_order)
{
        static struct traffic traffic;
        uint32_t next[SENDERS] = { 0 }, read = 0, takes = 0;
        struct crew crew;

        inbox_init(&traffic.inbox);
        crew_start(&crew, SENDERS, send_all, &traffic);
        while (read < SENDERS * LETTERS) {
                struct letter *letter = inbox_take(&traffic.inbox);

                takes += letter != NULL;
                for (; letter; letter = letter->next, read++) {
                        struct numbered *numbered = (struct numbered *)(void *)letter;

                        ck_assert_uint_eq(numbered->number, next[numbered->sender]);
                        next[numbered->sender]++;
                }
        }
        crew_join(&crew);

        ck_assert_ptr_null(inbox_take(&traffic.inbox));
        ck_assert_uint_eq(atomic_load(&traffic.wakes), takes);
}
END_TEST

int main(void)
{
        return suite_run("base/inbox", (const TTest *[]){
                                               letters_are_read_in_the_order_of_sending,
                                               only_the_sender_into_an_empty_box_wakes_the_reader,
                                               a_letter_sent_again_before_it_is_read_is_found_in_a_debug_build,
                                               no_letter_is_lost_and_each_senders_keep_their_order,
                                               NULL,
                                       });
}
