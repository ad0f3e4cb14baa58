/* Threads of our own. Fork as the pool sees it: tests/keeper/lifecycle.c. */
#include "base/thread.h"

#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lido/error.h"
#include "support/suite.h"

struct seen {
        uint32_t id;
        char name[16];
        int signals_blocked;
        int is_self;
        struct thread *thread;
};

static void look(void *argument)
{
        struct seen *seen = argument;
        sigset_t set;

        seen->id = thread_id();
        pthread_getname_np(pthread_self(), seen->name, sizeof seen->name);
        pthread_sigmask(SIG_BLOCK, NULL, &set);
        seen->signals_blocked = sigismember(&set, SIGTERM) && sigismember(&set, SIGINT) && sigismember(&set, SIGCHLD);
        seen->is_self = thread_is_self(seen->thread);
}

START_TEST(a_thread_runs_with_its_name_and_every_signal_blocked)
{
        struct thread thread;
        struct seen seen = { .thread = &thread };
        sigset_t before, after;

        pthread_sigmask(SIG_BLOCK, NULL, &before);
        ck_assert_int_eq(thread_start(&thread, "a-very-long-name-indeed", 0, look, &seen), LIDO_OK);
        thread_join(&thread);
        pthread_sigmask(SIG_BLOCK, NULL, &after);

        ck_assert_str_eq(seen.name, "a-very-long-nam");
        ck_assert_int_eq(seen.signals_blocked, 1);
        ck_assert_int_eq(sigismember(&after, SIGTERM), sigismember(&before, SIGTERM));
}
END_TEST

START_TEST(each_thread_has_the_kernels_id)
{
        struct thread thread;
        struct seen seen = { .thread = &thread };

        ck_assert_int_eq(thread_start(&thread, "id", 0, look, &seen), LIDO_OK);
        thread_join(&thread);

        ck_assert_uint_eq(thread_id(), (uint32_t)syscall(SYS_gettid));
        ck_assert_uint_ne(seen.id, thread_id());
        ck_assert_uint_ne(seen.id, 0);
}
END_TEST

START_TEST(a_thread_knows_itself_and_not_another)
{
        struct thread thread;
        struct seen seen = { .thread = &thread };

        ck_assert_int_eq(thread_start(&thread, "self", 0, look, &seen), LIDO_OK);
        ck_assert(!thread_is_self(&thread));
        thread_join(&thread);
}
END_TEST

START_TEST(a_stack_that_is_too_small_is_an_error_and_no_thread)
{
        struct thread thread;
        struct seen seen = { .thread = &thread };

        ck_assert_int_eq(thread_start(&thread, "small", 1, look, &seen), LIDO_ETHREAD);

        ck_assert_uint_eq(seen.id, 0);
}
END_TEST

START_TEST(a_forked_child_has_an_id_of_its_own)
{
        uint32_t parent = thread_id();
        int status;
        pid_t pid = fork();

        if (pid == 0)
                _exit(thread_id() == (uint32_t)syscall(SYS_gettid) && thread_id() != parent ? 0 : 1);

        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert_int_eq(status, 0);
        ck_assert_uint_eq(thread_id(), parent);
}
END_TEST

int main(void)
{
        return suite_run("base/thread", (const TTest *[]){
                                                a_thread_runs_with_its_name_and_every_signal_blocked,
                                                each_thread_has_the_kernels_id,
                                                a_thread_knows_itself_and_not_another,
                                                a_stack_that_is_too_small_is_an_error_and_no_thread,
                                                a_forked_child_has_an_id_of_its_own,
                                                NULL,
                                        });
}
