/* worker/backtrace.h - have another thread say where it is: a signal whose handler walks the stack.
 *
 * Only where the embedder has named a signal for it. The handler is async-signal-safe once backtrace(3) has been called
 * before, which backtrace_prepare sees to. One trace at a time in a process; a thread that does not answer within a tenth of
 * a second (it sleeps in the kernel without a care for signals) is reported without frames.
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

/* Install the handler. Returns: LIDO_OK; LIDO_EINVAL for a signal that cannot be had. */
int backtrace_prepare(int signal_number);

/* Let the calling thread be asked. */
void backtrace_admit(int signal_number);

/* Ask a worker. Returns: false without an answer. */
bool backtrace_take(struct lido_workers *ws, struct lido_worker *w, struct backtrace *ret_trace);

#endif
