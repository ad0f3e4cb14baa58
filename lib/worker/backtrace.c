#include "worker/backtrace.h"

#include <errno.h>
#include <execinfo.h>
#include <signal.h>

#include "base/mutex.h"
#include "worker/executor.h"

#define ANSWER_NS (100 * NS_PER_MS)

enum { NOBODY, ASKED, ANSWERED };

/* One question at a time; `asking` keeps others out. The handler writes `answer` and then ANSWERED, the asker reads
 * it after; a handler that comes too late finds the word no longer ASKED for its thread. */
static struct mutex asking = MUTEX_INIT;
static struct backtrace answer;
static _Atomic uint32_t state;
static _Atomic uint32_t asked_thread;

void lido_workers_on_signal(int signal_number)
{
        int saved = errno;

        (void)signal_number;
        if (load_acquire(&state) == ASKED && load_relaxed(&asked_thread) == thread_id()) {
                int count = backtrace(answer.frame, BACKTRACE_FRAMES);

                answer.count = count > 0 ? (uint32_t)count : 0;
                store_release(&state, ANSWERED);
                if (!clock_is_theirs())
                        park_wake(&state, 1);
        }
        errno = saved;
}

int backtrace_prepare(int signal_number)
{
        void *frame[2];

        if (signal_number < 1 || signal_number > SIGRTMAX || signal_number == SIGKILL || signal_number == SIGSTOP)
                return LIDO_EINVAL;
        backtrace(frame, 2); /* the first call loads a library, which is not for a handler */
        return LIDO_OK;
}

void backtrace_admit(int signal_number)
{
        sigset_t set;

        sigemptyset(&set);
        sigaddset(&set, signal_number);
        pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* A worker that is in the table lives: it is signalled under the lock. */
static bool ask(struct lido_workers *ws, struct lido_worker *w)
{
        bool is_asked = false;

        executor_lock(ws);
        if (w->is_reported && list_is_linked(&w->link)) {
                store_relaxed(&asked_thread, w->thread_id);
                store_release(&state, ASKED);
                is_asked = pthread_kill(w->thread.native, ws->options.backtrace_signal) == 0;
        }
        lock_give(&ws->lock);
        return is_asked;
}

/* The handler wakes nobody where that would take a lock, and the thread that runs it knows nothing of the embedder's clock. */
static void await_answer(void)
{
        uint64_t deadline = clock_real_ns() + ANSWER_NS;

        while (load_acquire(&state) == ASKED)
                if (clock_is_theirs() && clock_real_ns() < deadline)
                        thread_yield();
                else if (clock_is_theirs() || !park_wait(&state, ASKED, deadline))
                        return;
}

bool backtrace_take(struct lido_workers *ws, struct lido_worker *w, struct backtrace *ret_trace)
{
        bool is_answered = false;
        uint32_t asked = ASKED;

        if (ws->options.backtrace_signal == 0)
                return false;
        mutex_lock(&asking);
        if (ask(ws, w)) {
                await_answer();
                is_answered = !cas_acquire(&state, &asked, NOBODY);
                if (is_answered)
                        *ret_trace = answer;
        }
        store_relaxed(&state, NOBODY);
        mutex_unlock(&asking);
        return is_answered;
}
