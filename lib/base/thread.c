#include "base/thread.h"

#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fault.h"
#include "lido/error.h"

_Thread_local struct thread_self thread_self_now __attribute__((tls_model("initial-exec")));
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

/* The thread that forks goes on in the child under another id. */
static void forget_id_in_child(void)
{
        thread_self_now.id = 0;
}

static void watch_forks(void)
{
        pthread_atfork(NULL, NULL, forget_id_in_child);
}

uint32_t thread_id_slow(void)
{
        pthread_once(&fork_once, watch_forks);
        thread_self_now.id = (uint32_t)syscall(SYS_gettid);
        return thread_self_now.id;
}

static void *start(void *argument)
{
        struct thread *thread = argument;

        pthread_setname_np(pthread_self(), thread->name);
        thread->run(thread->argument);
        return NULL;
}

int thread_start(struct thread *thread, const char *name, size_t stack_size, void (*run)(void *), void *argument)
{
        pthread_attr_t attributes;
        sigset_t all, old;
        int rc = -1;

        thread->run = run;
        thread->argument = argument;
        strncpy(thread->name, name, sizeof thread->name - 1);
        thread->name[sizeof thread->name - 1] = '\0';
        if (fault_hit() || pthread_attr_init(&attributes) != 0)
                return LIDO_ETHREAD;
        if (stack_size != 0 && pthread_attr_setstacksize(&attributes, stack_size) != 0)
                goto destroy;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        rc = pthread_create(&thread->native, &attributes, start, thread);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
destroy:
        pthread_attr_destroy(&attributes);
        return rc == 0 ? LIDO_OK : LIDO_ETHREAD;
}

void thread_join(struct thread *thread)
{
        pthread_join(thread->native, NULL);
}

int thread_is_self(const struct thread *thread)
{
        return pthread_equal(thread->native, pthread_self());
}

void thread_yield(void)
{
        sched_yield();
}
