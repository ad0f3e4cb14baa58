/* worker/backtrace.h - have another thread say where it is: a signal whose handler walks the stack.
 *
 * Only where the embedder has named a signal, and has made lido_workers_on_signal its handler: lido changes no handler
 * of the process. That is async-signal-safe once backtrace(3) has been called before, which backtrace_prepare sees to.
 * One trace at a time in a process; a thread that does not answer within a tenth of a second (it sleeps in the kernel
 * without a care for signals) is reported without frames.
 */
#ifndef LIDO_WORKER_BACKTRACE_H
#define LIDO_WORKER_BACKTRACE_H

#include <stdbool.h>
#include <stdint.h>

struct lido_workers;
struct lido_worker;

enum { BACKTRACE_FRAMES = 48 };

struct backtrace {
        void *frame[BACKTRACE_FRAMES];
        uint32_t count;
};

/* Returns: LIDO_OK; LIDO_EINVAL for a number that no handler can have. */
int backtrace_prepare(int signal_number);

/* Let the calling thread be asked. */
void backtrace_admit(int signal_number);

/* Ask a worker. Returns: false without an answer. */
bool backtrace_take(struct lido_workers *ws, struct lido_worker *w, struct backtrace *ret_trace);

#endif
