/* Churn for as long as one likes, and memory that does not grow: threads that acquire, hand over and release buffers of all
 * sizes, jobs, groups, loans and delayed jobs that do the same on workers, everything kept by one service. After each round all
 * is at rest, trimmed, and looked at.
 *
 *      LIDO_SOAK_ROUNDS=200 tests/soak       the short form of "make check"; LIDO_SOAK_SECONDS=600: "make soak"
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/random.h"
#include "lido.h"
#include "support/crew.h"
#include "support/patience.h"
#include "support/suite.h"

enum { CREW = 3, JOBS = 64, KEPT = 48, STEPS = 400, SHELF = 64 };

struct soak {
        struct lido_service *service;
        struct lido_buffer_pool *buffers, *fixed;
        struct lido_workers *workers;
        _Atomic(void *) shelf[SHELF]; /* buffers on their way from one thread to another */
        uint64_t round;
};

static struct soak soak;

static size_t resident_bytes(void)
{
        FILE *file = fopen("/proc/self/statm", "r");
        unsigned long pages = 0, ignored;

        must(file && fscanf(file, "%lu %lu", &ignored, &pages) == 2);
        fclose(file);
        return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* ---- churn ----------------------------------------------------------------------------------------------------------------- */

/* From 16 bytes to 1 MiB, evenly by the logarithm; now and then above the classes. */
static size_t some_size(struct random *r)
{
        unsigned doubling = (unsigned)random_below(r, random_below(r, 500) ? 16 : 18);

        return ((size_t)16 << doubling) + random_below(r, (size_t)16 << doubling);
}

static void *buffer_of(struct random *r)
{
        struct lido_buffer_pool *pool = random_below(r, 4) ? soak.buffers : soak.fixed;
        size_t bytes = pool == soak.fixed ? 512 : some_size(r);
        char *buffer;
        void *got;
        int rc = lido_buffer_acquire(pool, bytes, &got);

        if (rc == LIDO_ETIMEDOUT || rc == LIDO_EEXHAUSTED) /* all of it is in others' hands */
                return NULL;
        must(rc == LIDO_OK);
        buffer = got;
        buffer[0] = buffer[bytes - 1] = 1;
        return buffer;
}

static void let_go(void *buffer)
{
        if (buffer)
                must(lido_buffer_release(buffer) == LIDO_OK);
}

/* One of the things that can be done with buffers: keep one, release one kept, leave one to another thread, a slice, a batch. */
static void step(struct random *r, void **kept)
{
        size_t i = random_below(r, KEPT);
        void *batch[16];
        lido_slice slice;

        switch (random_below(r, 6)) {
        case 0:
                let_go(atomic_exchange(&soak.shelf[random_below(r, SHELF)], buffer_of(r)));
                return;
        case 1:
                if (lido_buffer_acquire_bulk(soak.buffers, 700, 16, batch) == LIDO_OK)
                        must(lido_buffer_release_bulk(batch, 16) == LIDO_OK);
                return;
        case 2:
                if (kept[i] && lido_slice_share(kept[i], 16, &slice) == LIDO_OK) {
                        kept[i] = NULL;
                        must(lido_slice_release(lido_slice_ref(slice)) == LIDO_OK);
                        must(lido_slice_release(slice) == LIDO_OK);
                }
                return;
        default:
                let_go(kept[i]);
                kept[i] = random_below(r, 3) ? buffer_of(r) : NULL;
        }
}

static void churn(struct random r, unsigned steps)
{
        void *kept[KEPT] = {NULL};

        for (unsigned i = 0; i < steps; i++)
                step(&r, kept);
        for (int i = 0; i < KEPT; i++)
                let_go(kept[i]);
}

static void churn_in_crew(void *context, unsigned number)
{
        (void)context;
        churn((struct random){soak.round * 1000 + number}, STEPS);
}

struct task {
        struct lido_job job;
        uint64_t seed;
        _Atomic int dones;
};

static void run(struct lido_job *job)
{
        churn((struct random){((struct task *)(void *)job)->seed}, STEPS / 10);
}

static void done(struct lido_job *job, int status)
{
        must(status == LIDO_OK || status == LIDO_ECANCELED);
        atomic_fetch_add(&((struct task *)(void *)job)->dones, 1);
}

static void work(void)
{
        static struct task task[JOBS];
        struct lido_group group;
        lido_thread thread;

        must(lido_group_init(&group, soak.workers) == LIDO_OK);
        must(lido_thread_acquire(soak.workers, PATIENCE_MS, &thread) == LIDO_OK);
        for (uint64_t i = 0; i < JOBS; i++) {
                memset(&task[i], 0, sizeof task[i]);
                task[i].job.run = run;
                task[i].job.done = done;
                task[i].job.group = &group;
                task[i].seed = soak.round * 1000 + 100 + i;
                if (i % 8 == 0)
                        must(lido_thread_run(thread, &task[i].job) == LIDO_OK);
                else if (i % 8 == 1)
                        must(lido_submit_after(soak.workers, &task[i].job, (int64_t)(i % 5)) == LIDO_OK);
                else
                        must(lido_submit(soak.workers, &task[i].job) == LIDO_OK);
        }
        if (soak.round % 4 == 3)
                lido_group_cancel(&group);
        must(lido_thread_release(thread) == LIDO_OK);
        must(lido_group_wait(&group, PATIENCE_MS) == LIDO_OK);
        for (int i = 0; i < JOBS; i++)
                must(atomic_load(&task[i].dones) == 1);
}

static bool has_nothing(struct lido_buffer_pool *pool)
{
        struct lido_buffer_stats stats = LIDO_BUFFER_STATS_INIT;

        must(lido_buffer_pool_stats(pool, &stats) == LIDO_OK);
        must(stats.lent == 0 && stats.misused == 0);
        return stats.mapped_bytes == 0;
}

static void come_to_rest(void)
{
        for (int i = 0; i < SHELF; i++)
                let_go(atomic_exchange(&soak.shelf[i], NULL));
        must(lido_workers_drain(soak.workers, PATIENCE_MS) == LIDO_OK);
        must(lido_buffer_pool_trim(soak.buffers, NULL) == LIDO_OK);
        must(lido_buffer_pool_trim(soak.fixed, NULL) == LIDO_OK);
        ck_eventually(has_nothing(soak.buffers) && has_nothing(soak.fixed)); /* the decay may be at it, too */
}

static void one_round(void)
{
        struct crew crew;

        soak.round++;
        crew_start(&crew, CREW, churn_in_crew, NULL);
        work();
        crew_join(&crew);
        come_to_rest();
}

/* ---- the claim ------------------------------------------------------------------------------------------------------------- */

static void set_up(void)
{
        struct lido_buffer_options buffers = LIDO_BUFFER_OPTIONS_INIT;
        struct lido_workers_options workers = LIDO_WORKERS_OPTIONS_INIT;

        must(lido_service_start(&soak.service, NULL) == LIDO_OK);
        buffers.service = soak.service;
        buffers.decay_ms = 20;
        buffers.acquire_timeout_ms = 20;
        buffers.max_bytes = (size_t)48 << 20;
        buffers.flags = LIDO_BUFFER_LEAKS;
        must(lido_buffer_pool_open(&soak.buffers, &buffers) == LIDO_OK);
        buffers.buffer_bytes = 512;
        buffers.max_bytes = 512 * 200;
        must(lido_buffer_pool_open(&soak.fixed, &buffers) == LIDO_OK);
        workers.min = 1;
        workers.max = 4;
        workers.idle_timeout_ms = 10;
        workers.stuck_after_ms = PATIENCE_MS;
        must(lido_workers_open(&soak.workers, &workers) == LIDO_OK);
}

static void tear_down(void)
{
        must(lido_workers_shutdown(soak.workers, PATIENCE_MS) == LIDO_OK);
        lido_buffer_pool_free(soak.buffers);
        lido_buffer_pool_free(soak.fixed);
        must(lido_service_stop(soak.service, PATIENCE_MS) == LIDO_OK);
}

static uint64_t number_from(const char *name, uint64_t otherwise)
{
        const char *text = getenv(name);

        return text ? strtoull(text, NULL, 10) : otherwise;
}

/* What a round leaves varies: which threads malloc gave an arena, how the metadata of spans was cut. So the most of the second
 * half is compared with the most of the first, whose beginning is for warming up. */
START_TEST(memory_at_rest_does_not_grow_however_long_the_churn)
{
        uint64_t seconds = number_from("LIDO_SOAK_SECONDS", 0), begin = real_now_ns();
        uint64_t rounds = number_from("LIDO_SOAK_ROUNDS", 200), length = seconds * UINT64_C(1000000000);
        size_t most[2] = {0, 0}, now;

        set_up();
        for (uint64_t i = 0; seconds ? real_now_ns() - begin < length : i < rounds; i++) {
                bool is_late = seconds ? real_now_ns() - begin >= length / 2 : i >= rounds / 2;

                one_round();
                now = resident_bytes();
                if (now > most[is_late])
                        most[is_late] = now;
                if (seconds && i % 100 == 0)
                        fprintf(stderr, "round %lu: %zu KiB at rest\n", (unsigned long)i, now >> 10);
        }
        fprintf(stderr, "%lu rounds; at rest at most %zu KiB in the first half, %zu KiB in the second\n",
                (unsigned long)soak.round, most[0] >> 10, most[1] >> 10);
        if (!IS_SANITIZED) /* a sanitizer keeps memory of its own for what has been freed, and about what is there */
                ck_assert_msg(most[1] <= most[0] + ((size_t)1 << 20), "it grows: %zu KiB, then %zu KiB", most[0] >> 10,
                              most[1] >> 10);
        tear_down();
}
END_TEST

int main(void)
{
        return suite_run("soak", (const TTest *[]){memory_at_rest_does_not_grow_however_long_the_churn, NULL});
}
