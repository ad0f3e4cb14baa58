/* The system refuses: memory, threads, loop handles, one after the other, once and from then on. This program is linked with a
 * core of its own, in which each such call can be told to fail (base/fault.h). Failing factories: tests/keeper/grow.c.
 */
#include "base/fault.h"

#include <dirent.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "support/crew.h"
#include "support/fixture.h"
#include "support/looper.h"
#include "support/suite.h"

/* ---- nothing is allocated where nothing may fail -------------------------------------------------------------------------- */

static void borrow_many_times(void *context, unsigned number)
{
        struct fixture *f = context;

        (void)number;
        for (int i = 0; i < 500; i++)
                must_release(must_acquire(f));
}

START_TEST(acquire_release_and_waiting_allocate_nothing)
{
        struct fixture *f = pool_of(2);
        struct looper looper;
        struct asked asked = { .calls = 0 };

        looper_init(&looper);
        warm_up(f, 2);
        fault_arm(1, FAULT_FROM); /* and if something asked for memory, it would get none */
        crew_run(6, borrow_many_times, f);
        for (int i = 0; i < 100; i++) {
                ck_assert_int_eq(looper_ask(&looper, &asked, f->pool, PATIENCE_MS), LIDO_OK);
                ck_assert_int_eq(looper_await(&looper, &asked), LIDO_OK);
                must_release(asked.lease);
                lido_cancel(&asked.request);
        }
        ck_assert_int_eq(lido_discard(must_acquire(f)), LIDO_OK);
        must_release(must_acquire(f));

        ck_assert_uint_eq(fault_disarm(), 0);
        looper_fini(&looper);
        fixture_end(f);
}
END_TEST

/* ---- every failure in turn ------------------------------------------------------------------------------------------------- */

enum { FINE, REFUSED, WRONG };

static bool is_refusal(int rc)
{
        return rc == LIDO_ENOMEM || rc == LIDO_ETHREAD || rc == LIDO_ELOOP;
}

/* Returns: FINE, or REFUSED for a code that says so, or WRONG. */
static int judge(int rc)
{
        return rc == LIDO_OK ? FINE : is_refusal(rc) ? REFUSED : WRONG;
}

static int worse(int a, int b)
{
        return a > b ? a : b;
}

static int use_pool(struct fixture *f, uv_loop_t *uv)
{
        struct lido_pool_options options = f->options;
        struct lido_loop *loop = NULL;
        lido_lease lease;
        int rc = lido_acquire(f->pool, 300, &lease), worst = FINE;

        if (rc == LIDO_OK)
                worst = judge(lido_release(lease));
        else if (rc != LIDO_ETIMEDOUT) /* no helper thread could be started */
                return WRONG;
        worst = worse(worst, judge(lido_pool_resize(f->pool, 300)));
        options.max = 20;
        worst = worse(worst, judge(lido_pool_reconfigure(f->pool, &options, NULL)));
        worst = worse(worst, judge(lido_loop_open(&loop, uv)));
        lido_loop_close(loop, NULL, NULL);
        uv_run(uv, UV_RUN_DEFAULT);
        return worst;
}

/* A life from start to stop. Whatever is refused, the rest goes on, and the end always succeeds. */
static int live(struct fixture *f, uv_loop_t *uv)
{
        int worst = judge(lido_service_start(&f->service, NULL));

        if (worst != FINE)
                return worst;
        worst = judge(lido_pool_open(&f->pool, f->service, &f->fake.factory, &f->options));
        if (worst == FINE) {
                worst = use_pool(f, uv);
                lido_pool_free(f->pool);
        }
        if (lido_service_stop(f->service, PATIENCE_MS) != LIDO_OK)
                return WRONG;
        f->pool = NULL;
        f->service = NULL;
        return worst;
}

static unsigned descriptors(void)
{
        DIR *folder = opendir("/proc/self/fd");
        unsigned count = 0;

        while (readdir(folder))
                count++;
        closedir(folder);
        return count;
}

/* In a child of its own, because memory that keeps its type is asked for only once. Exits with 0: refused and well; 1: the n-th call
 * was never made; more: something is wrong. */
static int live_with_fault(uint64_t n, enum fault_mode mode)
{
        struct fixture *f = fixture_new();
        unsigned before;
        uint64_t hits;
        uv_loop_t uv;

        f->fake.factory.flags |= LIDO_FACTORY_BLOCKING;
        f->options.max = 4;
        f->options.backoff_min_ms = f->options.backoff_max_ms = 1;
        if (uv_loop_init(&uv) != 0)
                return 2;
        before = descriptors();
        fault_arm(n, mode);
        if (live(f, &uv) == WRONG)
                return 3;
        hits = fault_disarm();
        if (atomic_load(&f->fake.alive) != 0)
                return 4;
        if (live(f, &uv) != FINE) /* the fault is lifted */
                return 5;
        if (atomic_load(&f->fake.alive) != 0 || descriptors() > before + 8) /* libuv keeps some for ever at its first use */
                return 6;
        return hits < n ? 1 : 0;
}

static unsigned count_refusals(enum fault_mode mode)
{
        for (uint64_t n = 1; n < 100; n++) {
                int status;
                pid_t pid = fork();

                if (pid == 0)
                        _exit(live_with_fault(n, mode));
                ck_assert_int_eq(waitpid(pid, &status, 0), pid);
                ck_assert_msg(WIFEXITED(status), "failure %lu ended the process by signal %d", (unsigned long)n, WTERMSIG(status));
                if (WEXITSTATUS(status) == 1)
                        return (unsigned)n - 1;
                ck_assert_msg(WEXITSTATUS(status) == 0, "failure %lu: step %d went wrong", (unsigned long)n, WEXITSTATUS(status));
        }
        return 100;
}

START_TEST(a_pool_outlives_every_failure_of_memory_threads_and_loops)
{
        unsigned refusals = count_refusals(FAULT_ONCE);

        ck_assert_uint_ge(refusals, 10); /* service, loop, handles, thread, pool, slots, options, helper, larger, newer, ... */
        ck_assert_uint_lt(refusals, 100);
}
END_TEST

START_TEST(it_outlives_them_when_they_go_on_too)
{
        unsigned refusals = count_refusals(FAULT_FROM);

        ck_assert_uint_ge(refusals, 1);
        ck_assert_uint_lt(refusals, 100);
}
END_TEST

int main(void)
{
        return suite_run("faults", (const TTest *[]){
                                           acquire_release_and_waiting_allocate_nothing,
                                           a_pool_outlives_every_failure_of_memory_threads_and_loops,
                                           it_outlives_them_when_they_go_on_too,
                                           NULL,
                                   });
}
