/* bench/pools/load.h - the load generator: the last line of every adapter (bench/pools/rival.h says what it
 * defines).
 *
 *      PROGRAM WORKLOAD MILLISECONDS
 *
 * One run has three phases, each ended for all threads at once: a warm-up; one that counts leases and reads
 * no clock, from which come throughput, fairness, CPU time and context switches; and one that reads the clock
 * before and after each acquire, from which come the waits. At the end every handle must be there, and its
 * count right. The run is printed as one line that begins with "run", followed by its distribution in lines
 * that begin with "wait".
 */
#ifndef BENCH_POOLS_LOAD_H
#define BENCH_POOLS_LOAD_H

#include "bench/pools/histogram.h"
#include "bench/pools/quiet.h"
#include "bench/pools/workloads.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

enum phase { PHASE_WARM, PHASE_COUNT, PHASE_CLOCK, PHASES };

#define WARM_MS 30
#define STACK_BYTES (256 * 1024)
#define LOST_AFTER_S 10 /* a handle that has not come back by then never will */

struct worker {
        pthread_t thread;
        struct histogram *waits;
        uint64_t leases[PHASES], begun[PHASES], ended[PHASES];
        uint64_t held_ns; /* in the clock phase */
        uint64_t early;   /* deadlines that came too soon */
        uint64_t shared;  /* holds in which somebody else had the handle too */
} __attribute__((aligned(128)));

static const struct workload *work;
static void *pool;
static pthread_barrier_t gate;
static struct {
        atomic_bool over[PHASES];
} __attribute__((aligned(128))) phases;

static inline uint64_t now_ns(void)
{
        struct timespec now;

        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void die(const char *what)
{
        (void)fprintf(stderr, "%s %s: %s\n", RIVAL_NAME, work->name, what);
        _exit(1);
}

static inline bool is_over(enum phase phase)
{
        return atomic_load_explicit(&phases.over[phase], memory_order_relaxed);
}

static inline void must_acquire(grip *ret_grip)
{
#if RIVAL_WAITS
        if (!rival_acquire(pool, ret_grip))
                die("acquire failed");
#else
        while (!rival_try(pool, ret_grip))
                sched_yield();
#endif
}

static inline void count_use(grip grip)
{
#if RIVAL_COUNTS
        rival_handle(grip)->uses++;
#else
        (void)grip;
#endif
}

static void spend(void)
{
        if (work->hold == HOLD_SPIN) {
                uint64_t until = now_ns() + work->hold_ns;

                while (now_ns() < until)
                        continue;
        } else {
                struct timespec time = {.tv_nsec = (long)work->hold_ns};

                (void)nanosleep(&time, NULL);
        }
}

/* Hold the handle for its time, and see whether anybody else holds it meanwhile. */
static void hold(struct worker *self, grip grip)
{
#if RIVAL_COUNTS
        struct handle *handle = rival_handle(grip);

        handle->borrower = self;
        spend();
        self->shared += handle->borrower != self;
#else
        (void)self, (void)grip;
        spend();
#endif
}

static uint64_t lease_without_clock(struct worker *self, enum phase phase)
{
        uint64_t leases = 0;
        grip grip;

        if (work->hold == HOLD_NOT) {
                for (; !is_over(phase); leases++) {
                        must_acquire(&grip);
                        count_use(grip);
                        rival_release(pool, grip);
                }
                return leases;
        }
        for (; !is_over(phase); leases++) {
                must_acquire(&grip);
                count_use(grip);
                hold(self, grip);
                rival_release(pool, grip);
        }
        return leases;
}

static uint64_t lease_with_clock(struct worker *self)
{
        uint64_t leases = 0;
        grip grip;

        for (; !is_over(PHASE_CLOCK); leases++) {
                uint64_t asked = now_ns(), got;

                must_acquire(&grip);
                got = now_ns();
                histogram_count(self->waits, got - asked);
                count_use(grip);
                if (work->hold != HOLD_NOT) {
                        hold(self, grip);
                        self->held_ns += now_ns() - got;
                }
                rival_release(pool, grip);
        }
        return leases;
}

static uint64_t try_in_vain(struct worker *self, enum phase phase)
{
        uint64_t tries = 0;

#if RIVAL_TRIES
        grip grip;

        if (phase != PHASE_CLOCK) {
                for (; !is_over(phase); tries++)
                        if (rival_try(pool, &grip))
                                die("a try got a handle though all are out");
                return tries;
        }
        for (; !is_over(phase); tries++) {
                uint64_t asked = now_ns();

                if (rival_try(pool, &grip))
                        die("a try got a handle though all are out");
                histogram_count(self->waits, now_ns() - asked);
        }
#else
        (void)self, (void)phase;
#endif
        return tries;
}

/* What counts here is how late the deadline is noticed. */
static uint64_t wait_in_vain(struct worker *self, enum phase phase)
{
        uint64_t waits = 0;

#if RIVAL_TIMES
        grip grip;

        for (; !is_over(phase); waits++) {
                uint64_t asked = now_ns(), waited;

                if (rival_timed(pool, work->timeout_ns, &grip))
                        die("a wait got a handle though all are out");
                waited = now_ns() - asked;
                self->early += waited < work->timeout_ns;
                if (phase == PHASE_CLOCK)
                        histogram_count(self->waits,
                                        waited < work->timeout_ns ? 0 : waited - work->timeout_ns);
        }
#else
        (void)self, (void)phase;
#endif
        return waits;
}

static void *worker_main(void *argument)
{
        struct worker *self = argument;

        for (enum phase phase = PHASE_WARM; phase < PHASES; phase++) {
                (void)pthread_barrier_wait(&gate);
                self->begun[phase] = now_ns();
                if (work->act == ACT_TRY)
                        self->leases[phase] = try_in_vain(self, phase);
                else if (work->act == ACT_TIMED)
                        self->leases[phase] = wait_in_vain(self, phase);
                else if (phase == PHASE_CLOCK)
                        self->leases[phase] = lease_with_clock(self);
                else
                        self->leases[phase] = lease_without_clock(self, phase);
                self->ended[phase] = now_ns();
                (void)pthread_barrier_wait(&gate);
        }
        return NULL;
}

static void sleep_ms(unsigned ms)
{
        struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};

        while (nanosleep(&time, &time) && errno == EINTR)
                continue;
}

/* What the counting phase has cost. */
struct cost {
        uint64_t cpu_ns;
        uint64_t voluntary, involuntary; /* context switches */
        double foreign;                  /* share of the machine that other processes took from us */
};

/* What others had, less the cores that this workload leaves idle anyway. */
static double taken_from_us(uint64_t others_ns, uint64_t elapsed_ns)
{
        double cores = (double)sysconf(_SC_NPROCESSORS_ONLN);
        double spare = cores > work->threads ? cores - work->threads : 0;
        double taken = (double)others_ns / (double)elapsed_ns - spare;

        return taken > 0 ? taken / cores : 0;
}

static struct cost run_phases(unsigned ms)
{
        struct cost cost = {0};
        struct rusage before, after;
        uint64_t machine, begun, spent;

        for (enum phase phase = PHASE_WARM; phase < PHASES; phase++) {
                (void)getrusage(RUSAGE_SELF, &before);
                machine = quiet_machine_ns();
                begun = now_ns();
                (void)pthread_barrier_wait(&gate);
                sleep_ms(phase == PHASE_WARM ? WARM_MS : ms);
                atomic_store(&phases.over[phase], true);
                (void)pthread_barrier_wait(&gate);
                if (phase != PHASE_COUNT)
                        continue;
                (void)getrusage(RUSAGE_SELF, &after);
                spent = quiet_machine_ns() - machine;
                cost.cpu_ns = quiet_own_ns(&after) - quiet_own_ns(&before);
                cost.voluntary = (uint64_t)(after.ru_nvcsw - before.ru_nvcsw);
                cost.involuntary = (uint64_t)(after.ru_nivcsw - before.ru_nivcsw);
                if (spent > cost.cpu_ns)
                        cost.foreign = taken_from_us(spent - cost.cpu_ns, now_ns() - begun);
        }
        return cost;
}

static void a_handle_is_lost(int number)
{
        static const char text[] = RIVAL_NAME ": a handle is lost: not all came back\n";
        ssize_t written = write(STDERR_FILENO, text, sizeof text - 1);

        (void)number, (void)written;
        _exit(1);
}

/* Take every handle, all of which are idle now. */
static void take_all(grip *grips)
{
        (void)signal(SIGALRM, a_handle_is_lost);
        (void)alarm(LOST_AFTER_S);
        for (unsigned i = 0; i < work->handles; i++)
                must_acquire(&grips[i]);
        (void)alarm(0);
}

/* Every lease has raised the count of one handle, and no two grips have the same handle. */
static const char *check_counts(const grip *grips, const struct worker *workers)
{
#if RIVAL_COUNTS
        uint64_t leases = 0, uses = 0, shared = 0;

        for (unsigned i = 0; i < work->threads; i++) {
                shared += workers[i].shared;
                for (enum phase phase = PHASE_WARM; work->act == ACT_LEASE && phase < PHASES; phase++)
                        leases += workers[i].leases[phase];
        }
        for (unsigned i = 0; i < work->handles; i++) {
                uses += rival_handle(grips[i])->uses;
                for (unsigned k = 0; k < i; k++)
                        shared += rival_handle(grips[i]) == rival_handle(grips[k]);
        }
        return uses == leases && shared == 0 ? "ok" : "DOUBLE-USE";
#else
        (void)grips, (void)workers;
        return "unchecked";
#endif
}

static void print_run(const struct worker *workers, const struct cost *cost, bool real_time,
                      const char *check)
{
        static const double quantiles[] = {0.01, 0.05,  0.1,   0.25,  0.5,    0.75,   0.9,     0.95,     0.98,
                                           0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 0.99999, 0.999999, 1};
        struct histogram *waits = calloc(1, sizeof *waits);
        uint64_t begun = UINT64_MAX, ended = 0, least = UINT64_MAX, most = 0, all = 0, held = 0, early = 0;

        if (!waits)
                abort();
        for (const struct worker *w = workers; w < workers + work->threads; w++) {
                uint64_t leases = w->leases[PHASE_COUNT];

                begun = w->begun[PHASE_COUNT] < begun ? w->begun[PHASE_COUNT] : begun;
                ended = w->ended[PHASE_COUNT] > ended ? w->ended[PHASE_COUNT] : ended;
                least = leases < least ? leases : least;
                most = leases > most ? leases : most;
                all += leases;
                held += w->held_ns;
                early += w->early;
                histogram_add(waits, w->waits);
        }
        (void)printf("run\t%s\t%s\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64
                     "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64
                     "\t%" PRIu64 "\t%.3f\t%s\t%s\n",
                     RIVAL_NAME, work->name, all, ended - begun, histogram_quantile(waits, 0.5),
                     histogram_quantile(waits, 0.99), histogram_quantile(waits, 0.999), waits->longest, least,
                     most, cost->cpu_ns, cost->voluntary, cost->involuntary,
                     work->act == ACT_LEASE && waits->count ? held / waits->count : 0, early, cost->foreign,
                     RIVAL_WAITS || work->act != ACT_LEASE ? (real_time ? "real-time" : "fair")
                                                           : (real_time ? "real-time,polls" : "fair,polls"),
                     check);
        for (size_t i = 0; i < sizeof quantiles / sizeof quantiles[0]; i++)
                (void)printf("wait\t%s\t%s\t%g\t%" PRIu64 "\n", RIVAL_NAME, work->name, quantiles[i],
                             histogram_quantile(waits, quantiles[i]));
        free(waits);
}

static struct worker *start_workers(void)
{
        struct worker *workers = aligned_alloc(128, work->threads * sizeof *workers);
        pthread_attr_t attributes;

        if (!workers)
                abort();
        memset(workers, 0, work->threads * sizeof *workers);
        (void)pthread_barrier_init(&gate, NULL, work->threads + 1);
        (void)pthread_attr_init(&attributes);
        (void)pthread_attr_setstacksize(&attributes, STACK_BYTES);
        for (unsigned i = 0; i < work->threads; i++) {
                workers[i].waits = calloc(1, sizeof *workers[i].waits);
                if (!workers[i].waits ||
                    pthread_create(&workers[i].thread, &attributes, worker_main, &workers[i]))
                        die("a thread cannot be started");
        }
        (void)pthread_attr_destroy(&attributes);
        return workers;
}

static int run(unsigned ms)
{
        bool real_time = quiet_begin(work->real_time, work->slack_ns);
        grip *grips = calloc(work->handles, sizeof *grips);
        struct worker *workers;
        struct cost cost;

        pool = rival_open(work->handles);
        if (!grips || !pool)
                die("the pool cannot be opened");
        if (work->act != ACT_LEASE)
                take_all(grips);
        workers = start_workers();
        cost = run_phases(ms);
        for (unsigned i = 0; i < work->threads; i++)
                (void)pthread_join(workers[i].thread, NULL);
        if (work->act == ACT_LEASE)
                take_all(grips);
        print_run(workers, &cost, real_time, check_counts(grips, workers));

        for (unsigned i = 0; i < work->handles; i++)
                rival_release(pool, grips[i]);
        rival_close(pool);
        for (unsigned i = 0; i < work->threads; i++)
                free(workers[i].waits);
        free(workers);
        free(grips);
        return 0;
}

int main(int count, char **arguments)
{
        int ms = count == 3 ? atoi(arguments[2]) : 0;

        for (size_t i = 0; i < WORKLOADS && ms > 0; i++)
                if (!strcmp(workloads[i].name, arguments[1]))
                        work = &workloads[i];
        if (!work) {
                (void)fprintf(stderr, "usage: %s WORKLOAD MILLISECONDS\n", arguments[0]);
                for (size_t i = 0; i < WORKLOADS; i++)
                        (void)fprintf(stderr, "  %s  %s\n", workloads[i].name, workloads[i].says);
                return 2;
        }
        if ((work->act == ACT_TRY && !RIVAL_TRIES) || (work->act == ACT_TIMED && !RIVAL_TIMES)) {
                (void)printf("none\t%s\t%s\t%s\n", RIVAL_NAME, work->name,
                             work->act == ACT_TRY ? "it has no try" : "it has no wait with a deadline");
                return 0;
        }
        return run((unsigned)ms);
}

#endif
