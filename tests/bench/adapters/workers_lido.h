/* tests/bench/adapters/workers_lido.h - lido's executor for the worker benches: it stands in their engine.h beside its
 * neighbours, under #elif defined(E_LIDO); tests/bench/adapters/workers.sh puts it there, in a copy. `lido` must be the first
 * member of their struct task. */
#include "lido/worker.h"

#ifndef LINGER_US
#define LINGER_US 0
#endif
#ifndef IDLE_TIMEOUT_MS
#define IDLE_TIMEOUT_MS 60000
#endif
#ifndef MIN_THREADS
#define MIN_THREADS w
#endif
#if LINGER_US
#define ENGINE "lido linger"
#else
#define ENGINE "lido"
#endif
#undef CAN_CANCEL
#define CAN_CANCEL 1
static struct lido_workers *lido_engine;

static void lido_run(struct lido_job *job)
{
	task *t = (task *)(void *)job;

	t->fn(t);
}

static void e_start(int w)
{
	struct lido_workers_options options = LIDO_WORKERS_OPTIONS_INIT;

	options.min = (uint32_t)(MIN_THREADS);
	options.max = (uint32_t)w;
	options.idle_timeout_ms = IDLE_TIMEOUT_MS;
	options.linger_us = LINGER_US;
	if (lido_workers_open(&lido_engine, &options) != LIDO_OK)
		abort();
}

static inline void e_submit(task *t)
{
	t->lido.run = lido_run;
	lido_submit(lido_engine, &t->lido);
}

static inline int e_cancel(task *t)
{
	return lido_job_cancel(&t->lido) == LIDO_OK;
}
NO_PRODUCER_STATE
