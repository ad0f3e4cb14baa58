/* bench/base/phases.h - some threads do the same thing over and over, in phases that end for all of them at
 * once.
 *
 * A warm-up; a phase that counts and reads no clock, from which come throughput, fairness, CPU time and
 * context switches; and one that reads the clock around each operation, from which come the waits.
 *
 *      static uint64_t body(struct worker *self, enum phase phase)    how many operations until
 * is_over(phase)
 *
 *      struct outcome outcome = phases_run(threads, ms, body);
 *      outcome_print(&outcome, "name", "W1", "ok", "early=0");
 *
 * A run is printed as one line that begins with "run", followed by its distribution in lines that begin with
 * "wait".
 */
#ifndef BENCH_BASE_PHASES_H
#define BENCH_BASE_PHASES_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif

#include "bench/base/histogram.h"
#include "bench/base/quiet.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum phase { PHASE_WARM, PHASE_COUNT, PHASE_CLOCK, PHASES };

#define WARM_MS 30
#define STACK_BYTES (256 * 1024)

struct worker {
        pthread_t thread;
        unsigned index;
        struct histogram *waits;
        uint64_t done[PHASES], begun[PHASES], ended[PHASES];
        uint64_t tally[4]; /* the body's own */
} __attribute__((aligned(128)));

/* What a run has shown. */
struct outcome {
        struct worker *workers;
        unsigned threads;
        uint64_t cpu_ns;                 /* of the counting phase, like all below */
        uint64_t voluntary, involuntary; /* context switches */
        double foreign;                  /* share of the machine that other processes took from us */
};

static struct {
        atomic_bool over[PHASES];
        pthread_barrier_t gate;
        uint64_t (*body)(struct worker *self, enum phase phase);
} phases __attribute__((aligned(128)));

/* Now, on CLOCK_MONOTONIC. */
static inline uint64_t now_ns(void)
{
        struct timespec now;

        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline void sleep_ns(uint64_t ns)
{
        struct timespec time = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};

        while (nanosleep(&time, &time) && errno == EINTR)
                continue;
}

static inline bool is_over(enum phase phase)
{
        return atomic_load_explicit(&phases.over[phase], memory_order_relaxed);
}

static inline void *must_have(void *memory)
{
        if (!memory)
                abort();
        return memory;
}

static void *worker_main(void *argument)
{
        struct worker *self = argument;

        for (enum phase phase = PHASE_WARM; phase < PHASES; phase++) {
                (void)pthread_barrier_wait(&phases.gate);
                self->begun[phase] = now_ns();
                self->done[phase] = phases.body(self, phase);
                self->ended[phase] = now_ns();
                (void)pthread_barrier_wait(&phases.gate);
        }
        return NULL;
}

/* What others had, less the cores that so many threads leave idle anyway. With a real-time policy they had
 * only that. */
static double taken_from_us(uint64_t others_ns, uint64_t elapsed_ns, unsigned threads)
{
        double cores = (double)sysconf(_SC_NPROCESSORS_ONLN);
        double spare = cores > threads ? cores - threads : 0;
        double taken = (double)others_ns / (double)elapsed_ns - spare;

        return taken > 0 && sched_getscheduler(0) == SCHED_OTHER ? taken / cores : 0;
}

static void run_phase(struct outcome *outcome, enum phase phase, unsigned ms)
{
        struct rusage before, after;
        uint64_t machine = quiet_machine_ns(), begun = now_ns(), spent;

        (void)getrusage(RUSAGE_SELF, &before);
        (void)pthread_barrier_wait(&phases.gate);
        sleep_ns((phase == PHASE_WARM ? WARM_MS : ms) * UINT64_C(1000000));
        atomic_store(&phases.over[phase], true);
        (void)pthread_barrier_wait(&phases.gate);
        if (phase != PHASE_COUNT)
                return;
        (void)getrusage(RUSAGE_SELF, &after);
        spent = quiet_machine_ns() - machine;
        outcome->cpu_ns = quiet_own_ns(&after) - quiet_own_ns(&before);
        outcome->voluntary = (uint64_t)(after.ru_nvcsw - before.ru_nvcsw);
        outcome->involuntary = (uint64_t)(after.ru_nivcsw - before.ru_nivcsw);
        if (spent > outcome->cpu_ns)
                outcome->foreign = taken_from_us(spent - outcome->cpu_ns, now_ns() - begun, outcome->threads);
}

static struct outcome phases_run(unsigned threads, unsigned ms,
                                 uint64_t (*body)(struct worker *self, enum phase phase))
{
        struct outcome outcome = {.threads = threads};
        pthread_attr_t attributes;

        outcome.workers = must_have(aligned_alloc(128, threads * sizeof *outcome.workers));
        memset(outcome.workers, 0, threads * sizeof *outcome.workers);
        phases.body = body;
        (void)pthread_barrier_init(&phases.gate, NULL, threads + 1);
        (void)pthread_attr_init(&attributes);
        (void)pthread_attr_setstacksize(&attributes, STACK_BYTES);
        for (unsigned i = 0; i < threads; i++) {
                struct worker *worker = &outcome.workers[i];

                worker->index = i;
                worker->waits = must_have(calloc(1, sizeof *worker->waits));
                if (pthread_create(&worker->thread, &attributes, worker_main, worker))
                        abort();
        }
        (void)pthread_attr_destroy(&attributes);
        for (enum phase phase = PHASE_WARM; phase < PHASES; phase++)
                run_phase(&outcome, phase, ms);
        for (unsigned i = 0; i < threads; i++)
                (void)pthread_join(outcome.workers[i].thread, NULL);
        return outcome;
}

/* The sum of a tally over all workers. */
static inline uint64_t outcome_tally(const struct outcome *outcome, unsigned which)
{
        uint64_t sum = 0;

        for (unsigned i = 0; i < outcome->threads; i++)
                sum += outcome->workers[i].tally[which];
        return sum;
}

/* All that was done in the three phases. */
static inline uint64_t outcome_done(const struct outcome *outcome)
{
        uint64_t sum = 0;

        for (unsigned i = 0; i < outcome->threads; i++)
                for (enum phase phase = PHASE_WARM; phase < PHASES; phase++)
                        sum += outcome->workers[i].done[phase];
        return sum;
}

static void print_waits(const char *rival, const char *workload, const struct histogram *waits)
{
        static const double quantiles[] = {0.01, 0.05,  0.1,   0.25,  0.5,    0.75,   0.9,     0.95,     0.98,
                                           0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 0.99999, 0.999999, 1};

        for (size_t i = 0; i < sizeof quantiles / sizeof quantiles[0]; i++)
                (void)printf("wait\t%s\t%s\t%g\t%" PRIu64 "\n", rival, workload, quantiles[i],
                             histogram_quantile(waits, quantiles[i]));
}

/* Print the run and give its memory back. `remarks` is words without a space; `measures` is name=number, by
 * commas. */
static void outcome_print(struct outcome *outcome, const char *rival, const char *workload,
                          const char *remarks, const char *measures)
{
        struct histogram *waits = must_have(calloc(1, sizeof *waits));
        uint64_t begun = UINT64_MAX, ended = 0, least = UINT64_MAX, most = 0, all = 0;

        for (struct worker *w = outcome->workers; w < outcome->workers + outcome->threads; w++) {
                uint64_t done = w->done[PHASE_COUNT];

                begun = w->begun[PHASE_COUNT] < begun ? w->begun[PHASE_COUNT] : begun;
                ended = w->ended[PHASE_COUNT] > ended ? w->ended[PHASE_COUNT] : ended;
                least = done < least ? done : least;
                most = done > most ? done : most;
                all += done;
                histogram_add(waits, w->waits);
                free(w->waits);
        }
        (void)printf("run\t%s\t%s\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64
                     "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%.3f\t%s\t%s\n",
                     rival, workload, all, ended - begun, histogram_quantile(waits, 0.5),
                     histogram_quantile(waits, 0.99), histogram_quantile(waits, 0.999), waits->longest, least,
                     most, outcome->cpu_ns, outcome->voluntary, outcome->involuntary, outcome->foreign,
                     remarks, measures);
        print_waits(rival, workload, waits);
        free(waits);
        free(outcome->workers);
}

#endif
