/* Threads on loan, put through the suite in contract.c. They are acquired by blocking alone, a borrower leaves nothing on a
 * thread, one that ends is not lent any more, and an executor waits for its loans: the other claims are passed over. */
#include "contract/contract.h"

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "support/patience.h"

struct kind {
        struct lido_workers *workers;
        uint32_t others; /* threads of the process before */
};

static uint32_t threads_of_the_process(void)
{
        DIR *folder = opendir("/proc/self/task");
        struct dirent *entry;
        uint32_t count = 0;

        while ((entry = readdir(folder)) != NULL)
                count += entry->d_name[0] != '.';
        closedir(folder);
        return count;
}

static void *nothing(void *context)
{
        return context;
}

/* The first thread of a process may bring another with it, that of a sanitizer. */
static void start_a_first_thread(void)
{
        pthread_t thread;

        must(pthread_create(&thread, NULL, nothing, NULL) == 0);
        must(pthread_join(thread, NULL) == 0);
}

/* A thread that has been joined is seen for a moment more: look until the number stays. */
static uint32_t settled_threads(void)
{
        uint32_t seen, again = threads_of_the_process();

        do {
                seen = again;
                for (int i = 0; i < 20; i++) {
                        give_way();
                        again = threads_of_the_process();
                        if (again != seen)
                                break;
                }
        } while (again != seen);
        return seen;
}

static struct lido_pool *open_kind(struct contract *contract, struct lido_pool_options *wished)
{
        struct lido_workers_options options = LIDO_WORKERS_OPTIONS_INIT;
        struct kind *kind = contract->data;

        start_a_first_thread();
        kind->others = settled_threads();
        options.min = 1;
        options.max = options.lease_limit = wished->max;
        options.idle_timeout_ms = wished->idle_timeout_ms ? wished->idle_timeout_ms : LIDO_NEVER;
        must(lido_workers_open(&kind->workers, &options) == LIDO_OK);
        return NULL;
}

static void end_kind(struct contract *contract)
{
        struct kind *kind = contract->data;

        ck_eventually(threads_of_the_process() == kind->others);
}

static uint32_t alive(struct contract *contract)
{
        return threads_of_the_process() - ((struct kind *)contract->data)->others;
}

/* ---- the engine --------------------------------------------------------------------------------------------------------------- */

enum { GENERATION, IS_DEAD }; /* in lent.own */

static lido_thread thread_of(const struct lent *lent)
{
        return (lido_thread){ lent->object, lent->own[GENERATION] };
}

static int acquire(struct contract *contract, int64_t timeout_ms, struct lent *ret_lent)
{
        struct kind *kind = contract->data;
        lido_thread thread;
        int rc = lido_thread_acquire(kind->workers, timeout_ms, &thread);

        if (rc == LIDO_OK) {
                ret_lent->object = thread.worker;
                ret_lent->own[GENERATION] = thread.generation;
        }
        return rc;
}

/* A thread that has died has ended its loan. */
static int release(struct contract *contract, struct lent *lent)
{
        int rc = lido_thread_release(thread_of(lent));

        (void)contract;
        if (lent->own[IS_DEAD])
                return rc == LIDO_EDOUBLE || rc == LIDO_ESTALE ? LIDO_OK : LIDO_EINVAL;
        return rc;
}

struct task {
        struct lido_job job;
        struct lido_workers *self;
        long thread;
        _Atomic int is_done;
};

static void run(struct lido_job *job)
{
        struct task *task = (struct task *)(void *)job;

        task->self = lido_workers_self();
        task->thread = syscall(SYS_gettid);
}

static void run_and_die(struct lido_job *job)
{
        run(job);
        pthread_exit(NULL);
}

static void done(struct lido_job *job, int status)
{
        struct task *task = (struct task *)(void *)job;

        must(status == LIDO_OK);
        atomic_store(&task->is_done, 1);
}

static void perform(struct lent *lent, void (*what)(struct lido_job *job), struct task *ret_task)
{
        memset(ret_task, 0, sizeof *ret_task);
        ret_task->job.run = what;
        ret_task->job.done = done;
        must(lido_thread_run(thread_of(lent), &ret_task->job) == LIDO_OK);
        ck_eventually(atomic_load(&ret_task->is_done));
}

/* Two jobs run on the same thread, which is one of the executor's. */
static void use(struct contract *contract, struct lent *lent)
{
        struct kind *kind = contract->data;
        struct task first, second;

        perform(lent, run, &first);
        perform(lent, run, &second);
        must(first.self == kind->workers);
        must(first.thread == second.thread && first.thread != syscall(SYS_gettid));
}

static void kill_kind(struct contract *contract, struct lent *lent)
{
        struct kind *kind = contract->data;
        struct lido_worker_stats stats = LIDO_WORKER_STATS_INIT;
        struct task task;
        uint32_t lent_before;

        must(lido_workers_stats(kind->workers, &stats) == LIDO_OK);
        lent_before = stats.lent;
        perform(lent, run_and_die, &task);
        do
                must(lido_workers_stats(kind->workers, &stats) == LIDO_OK);
        while (stats.lent == lent_before); /* its job counts as run before the thread has ended */
        lent->own[IS_DEAD] = 1;
}

static struct contract_counts counts(struct contract *contract)
{
        struct lido_worker_stats stats = LIDO_WORKER_STATS_INIT;
        struct kind *kind = contract->data;

        must(lido_workers_stats(kind->workers, &stats) == LIDO_OK);
        return (struct contract_counts){ .live = stats.threads, .opened = stats.started, .acquired = CONTRACT_UNKNOWN,
                                         .misused = stats.misused, .ended_idle = stats.ended, .ended_old = CONTRACT_UNKNOWN };
}

static int close_kind(struct contract *contract)
{
        return lido_workers_close(((struct kind *)contract->data)->workers);
}

static int drain(struct contract *contract, int64_t timeout_ms)
{
        struct kind *kind = contract->data;
        int rc = lido_workers_shutdown(kind->workers, timeout_ms);

        if (rc == LIDO_OK)
                kind->workers = NULL;
        return rc;
}

static void free_kind(struct contract *contract)
{
        must(drain(contract, PATIENCE_MS) == LIDO_OK);
}

static const struct contract_engine engine = {
        .acquire = acquire, .release = release, .use = use, .kill = kill_kind, .counts = counts, .close = close_kind,
        .drain = drain, .free = free_kind, .least = 1, .tells_loans_apart = true,
};

static struct contract on_loan = { .name = "threads on loan", .most = 64, .data = &(struct kind){ .others = 0 },
                                   .engine = &engine, .open = open_kind, .end = end_kind, .alive = alive };

int main(void)
{
        return contract_run("contract/worker", (struct contract *const[]){ &on_loan, NULL });
}
