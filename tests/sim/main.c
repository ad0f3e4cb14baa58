/* The model scheduler by hand.
 *
 *      sim                       a storm of 20 seconds
 *      sim --seed N              one seed, each step told; if it fails, its smallest case as well
 *      sim --schedules N         so many seeds, from --from N on
 *      sim --seconds S
 *      sim --speed               schedules a second on the typical program
 *      sim --exhaustive P        every schedule with at most P preemptions of the programs of exhaustive.c, but of
 *                                each no more than --schedules; --only N: of one of them
 *      sim --mutants             break the core in every way at every site, and see whether --schedules notice it
 *      sim --day [--seed N]      a day of random load
 *      sim --sites               every operation on a shared word, and how often it was passed
 *      sim --keyed               keyed pools: --schedules seeds, or --seed N with each step told
 *      --jobs N                  processes at work; else as many as there are processors
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sim/exhaustive.h"
#include "sim/jobs.h"
#include "sim/keyed.h"
#include "sim/mutate.h"
#include "sim/sim.h"
#include "sim/storm.h"
#include "sim/world.h"

static void tell_figures(const struct storm_figures *figures)
{
        printf("%" PRIu64 " schedules in %.1f s: %.0f a second of a processor, %.0f steps each, %" PRIu64 " failed\n",
               figures->runs, figures->seconds, (double)figures->runs / figures->seconds,
               (double)figures->steps / (double)figures->runs, figures->failures);
}

static int tell_failure(uint64_t seed)
{
        static struct storm_case smallest;
        struct sim_strategy strategy;
        struct program program;

        storm_draw(seed, &program, &strategy);
        storm_shrink(&program, &strategy, seed, &smallest);
        storm_tell(&smallest);
        return 1;
}

/* A storm in pieces, for all processors. */
struct pieces {
        uint64_t first, schedules; /* of one piece */
        double seconds;
        struct storm_figures *figures; /* of each; shared */
};

static bool run_piece(unsigned piece, void *context)
{
        const struct pieces *pieces = context;
        uint64_t first = pieces->first + piece * pieces->schedules;
        struct storm_figures figures = storm(first, pieces->schedules, pieces->seconds);

        pieces->figures[piece] = figures;
        if (figures.failures == 0)
                return true;
        printf("SEED=%" PRIu64 ": %s\n", figures.first_seed, figures.message);
        tell_failure(figures.first_seed);
        return false;
}

#define PIECE UINT64_C(100000) /* schedules: some seconds */

static int run_storm(uint64_t first, uint64_t schedules, double seconds, unsigned jobs)
{
        bool is_timed = seconds > 0;
        uint64_t size = is_timed ? UINT64_C(1) << 40 : schedules < PIECE * jobs ? (schedules + jobs - 1) / jobs : PIECE;
        unsigned count = is_timed ? jobs : (unsigned)((schedules + size - 1) / size);
        struct storm_figures *figures = jobs_share((count + 1) * sizeof *figures), sum = { .runs = 0 };
        struct pieces pieces = { first, size, seconds, figures };
        double began = storm_clock();
        bool is_well = jobs_run(count, jobs, run_piece, &pieces);

        for (unsigned i = 0; i < count; i++) {
                sum.runs += figures[i].runs;
                sum.steps += figures[i].steps;
                sum.failures += figures[i].failures;
                sum.seconds += figures[i].seconds;
        }
        tell_figures(&sum);
        printf("%.0f s by the clock, with %u at a time\n", storm_clock() - began, jobs);
        return is_well ? 0 : 1;
}

static int run_seed(uint64_t seed)
{
        struct sim_strategy strategy;
        struct sim_result result;
        struct program program;

        storm_draw(seed, &program, &strategy);
        printf("seed %" PRIu64 ", %s, memory %s\n", seed,
               strategy.kind == SIM_PCT ? "priorities" : "random walk", strategy.stale ? "weak" : "strong");
        program_print(&program);
        result = storm_run(seed, true);
        printf("%s after %" PRIu64 " steps, hash %016" PRIx64 "\n", result.failed ? result.message : "sound",
               result.steps, result.hash);
        return result.failed ? tell_failure(seed) : 0;
}

static int measure_speed(void)
{
        struct sim_strategy strategy = {.kind = SIM_RANDOM};
        struct program program;
        uint64_t runs = 0, steps = 0;
        double began = storm_cpu(), seconds;

        program_typical(&program);
        do {
                for (int i = 0; i < 1000; i++, runs++) {
                        struct sim_result result = world_run(&program, &strategy, runs);

                        steps += result.steps;
                        if (result.failed) {
                                printf("%s\n", result.message);
                                return 1;
                        }
                }
                seconds = storm_cpu() - began;
        } while (seconds < 3);
        printf("4 threads x 2 leases on a pool of 2: %.0f schedules a second, %.0f steps each\n",
               (double)runs / seconds, (double)steps / (double)runs);
        return 0;
}

struct search {
        unsigned preemptions, first;
        uint64_t limit;
        struct outcome {
                uint64_t runs;
                double seconds;
                bool is_cut;
        } *outcome; /* of each program; shared */
};

static bool search_program(unsigned piece, void *context)
{
        const struct search *search = context;
        struct sim_result failure;
        struct exhaustive e;
        double began = storm_cpu();
        uint64_t runs;
        bool is_cut;

        exhaustive_get(search->first + piece, &e);
        runs = exhaustive_run(&e.program, search->preemptions, 0, search->limit, &failure, &is_cut);
        search->outcome[piece] = (struct outcome){ runs, storm_cpu() - began, is_cut };
        printf("%-40s %u preemptions: %s %9" PRIu64 " schedules, %9" PRIu64 " states in %6.1f s%s%s\n", e.name,
               search->preemptions, is_cut ? "first" : "all  ", runs, state_count(), storm_cpu() - began,
               failure.failed ? ": " : "", failure.failed ? failure.message : "");
        if (failure.failed)
                exhaustive_tell(&e.program, search->preemptions);
        return !failure.failed;
}

static int run_exhaustive(unsigned preemptions, uint64_t limit, int only, unsigned jobs)
{
        unsigned count = only < 0 ? exhaustive_count() : 1, cut = 0;
        struct search search = { preemptions, only < 0 ? 0 : (unsigned)only, limit,
                                 jobs_share(count * sizeof *search.outcome) };
        bool is_well = jobs_run(count, jobs, search_program, &search);
        uint64_t sum = 0;

        for (unsigned i = 0; i < count; i++) {
                sum += search.outcome[i].runs;
                cut += search.outcome[i].is_cut;
        }
        printf("%" PRIu64 " schedules, %u programs of %u to the end\n", sum, count - cut, count);
        return is_well ? 0 : 1;
}

static const char *base_name(const char *file)
{
        const char *slash = strrchr(file, '/');

        return slash ? slash + 1 : file;
}

#define MOST_SITES 2000

#define MUTANT_SECONDS 60

static void tell_mutant(const struct sim_site *site, enum sim_mutation mutation)
{
        printf("%-12s %s:%d %s %s: ", mutate_name(mutation), base_name(site->file), site->line, site->function,
               site->what);
        fflush(stdout);
}

/* One mutant in a process of its own, for it may crash or run for ever. Returns: was it noticed? */
static bool try_mutant(const struct sim_site *site, enum sim_mutation mutation, uint64_t schedules)
{
        int status = 0;
        pid_t child = fork();

        if (child == 0) {
                char message[400] = "";
                uint64_t runs;

                alarm(MUTANT_SECONDS);
                mutate_site(site, mutation);
                runs = storm_until_failure(1, schedules, message, sizeof message);
                if (runs)
                        printf("caught by schedule %" PRIu64 ": %s\n", runs, message);
                else
                        printf("not noticed in %" PRIu64 "\n", schedules);
                fflush(stdout);
                _exit(runs ? 1 : 0);
        }
        if (child < 0 || waitpid(child, &status, 0) != child) {
                perror("sim: fork");
                exit(2);
        }
        if (WIFSIGNALED(status))
                printf("caught by signal %d\n", WTERMSIG(status));
        return status != 0;
}

/* Every way to break every site of the core; tells which ones nothing in the storm notices. */
static int run_mutants(uint64_t schedules)
{
        static struct sim_site *sites[MOST_SITES];
        unsigned count = mutate_sites(sites, MOST_SITES), tried[SIM_BLIND + 1] = { 0 }, caught[SIM_BLIND + 1] = { 0 };

        for (unsigned i = 0; i < count; i++)
                for (int m = SIM_WEAKER; m <= SIM_BLIND; m++) {
                        if (!strstr(sites[i]->file, "lib/") || !mutate_applies(sites[i], (enum sim_mutation)m))
                                continue;
                        tell_mutant(sites[i], (enum sim_mutation)m);
                        tried[m]++;
                        caught[m] += try_mutant(sites[i], (enum sim_mutation)m, schedules);
                }
        for (int m = SIM_WEAKER; m <= SIM_BLIND; m++)
                printf("%s: %u tried, %u caught\n", mutate_name((enum sim_mutation)m), tried[m], caught[m]);
        return 0;
}

static int list_sites(uint64_t schedules)
{
        static struct sim_site *sites[MOST_SITES];
        unsigned count = mutate_sites(sites, MOST_SITES);
        char message[400];

        storm_until_failure(1, schedules, message, sizeof message);
        for (unsigned i = 0; i < count; i++)
                printf("%9" PRIu64 " %s:%d %s %s\n", sites[i]->hits, base_name(sites[i]->file),
                       sites[i]->line, sites[i]->function, sites[i]->what);
        return 0;
}

static int run_day(uint64_t seed)
{
        static const struct sim_choices none; /* time goes on when nobody can: the machine is fast enough */
        struct sim_strategy strategy = {.kind = SIM_REPLAY, .replay = &none, .steps = UINT64_MAX};
        struct program program;
        struct world_books books;
        struct sim_result result;
        double began = storm_cpu();

        program_day(&program);
        result = world_run(&program, &strategy, seed);
        books = world_books();
        printf("a day in %.2f s, %" PRIu64 " steps: %s\n", storm_cpu() - began, result.steps,
               result.failed ? result.message : "sound");
        printf("%" PRIu64 " leases, %" PRIu64 " timeouts, %" PRIu64 " opened, %" PRIu64
               " opens failed, %" PRIu64 " closed, %" PRIu64 " checks, %" PRIu64
               " turns of the keeper, %" PRIu64 " rotations, %" PRIu64 " looks at all invariants, longest wait %" PRIu64
               " ms, hash %016" PRIx64 "\n",
               books.acquired, books.timed_out, books.opened, books.open_failed, books.closed, books.upkeep,
               books.turns, books.rotations, books.looks, books.longest_wait_ns / NS_PER_MS, result.hash);
        return result.failed;
}

static int run_keyed(uint64_t first, uint64_t schedules, bool trace)
{
        double began = storm_cpu();

        for (uint64_t seed = first; seed < first + schedules; seed++) {
                struct sim_result result = keyed_run(seed, seed % 4 == 0 ? 4 : 0, trace);

                if (result.failed) {
                        printf("keyed, SEED=%" PRIu64 ": %s\n", seed, result.message);
                        return 1;
                }
        }
        printf("keyed: %" PRIu64 " schedules in %.1f s, none failed\n", schedules, storm_cpu() - began);
        return 0;
}

int main(int count, char **arguments)
{
        uint64_t seed = 0, from = 1, schedules = UINT64_MAX;
        double seconds = 20;
        unsigned preemptions = 0;
        int only = -1;
        unsigned jobs = jobs_processors();
        bool has_seed = false, wants_keyed = false, wants_day = false, wants_mutants = false, wants_sites = false;

        for (int i = 1; i < count; i++) {
                const char *value = i + 1 < count ? arguments[i + 1] : "";

                if (strcmp(arguments[i], "--seed") == 0) {
                        seed = strtoull(value, NULL, 0);
                        has_seed = true;
                        i++;
                } else if (strcmp(arguments[i], "--from") == 0) {
                        from = strtoull(value, NULL, 0);
                        i++;
                } else if (strcmp(arguments[i], "--schedules") == 0) {
                        schedules = strtoull(value, NULL, 0);
                        seconds = 0;
                        i++;
                } else if (strcmp(arguments[i], "--jobs") == 0) {
                        jobs = (unsigned)strtoul(value, NULL, 0);
                        i++;
                } else if (strcmp(arguments[i], "--only") == 0) {
                        only = (int)strtoul(value, NULL, 0);
                        i++;
                } else if (strcmp(arguments[i], "--seconds") == 0) {
                        seconds = strtod(value, NULL);
                        i++;
                } else if (strcmp(arguments[i], "--exhaustive") == 0) {
                        preemptions = (unsigned)strtoul(value, NULL, 0);
                        i++;
                } else if (strcmp(arguments[i], "--keyed") == 0) {
                        wants_keyed = true;
                } else if (strcmp(arguments[i], "--mutants") == 0) {
                        wants_mutants = true;
                } else if (strcmp(arguments[i], "--day") == 0) {
                        wants_day = true;
                } else if (strcmp(arguments[i], "--sites") == 0) {
                        wants_sites = true;
                } else if (strcmp(arguments[i], "--speed") == 0) {
                        return measure_speed();
                } else {
                        fprintf(stderr, "unknown option %s\n", arguments[i]);
                        return 2;
                }
        }
        if (wants_keyed)
                return has_seed ? run_keyed(seed, 1, true) : run_keyed(from, schedules == UINT64_MAX ? 2000 : schedules, false);
        if (wants_day)
                return run_day(seed);
        if (wants_mutants)
                return run_mutants(schedules == UINT64_MAX ? 3000 : schedules);
        if (wants_sites)
                return list_sites(schedules == UINT64_MAX ? 20000 : schedules);
        if (preemptions)
                return run_exhaustive(preemptions, schedules, only, jobs);
        return has_seed ? run_seed(seed) : run_storm(from, schedules, seconds, jobs ? jobs : 1);
}
