#include "sim/storm.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/random.h"
#include "sim/world.h"

static double read_clock(clockid_t clock)
{
        struct timespec t;

        clock_gettime(clock, &t);
        return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

double storm_clock(void)
{
        return read_clock(CLOCK_MONOTONIC);
}

double storm_cpu(void)
{
        return read_clock(CLOCK_PROCESS_CPUTIME_ID);
}

void storm_draw(uint64_t seed, struct program *ret_program, struct sim_strategy *ret_strategy)
{
        struct random random = { seed ^ UINT64_C(0x73746f726d) };

        program_draw(ret_program, seed);
        random_next(&random);
        memset(ret_strategy, 0, sizeof *ret_strategy);
        ret_strategy->kind = random_below(&random, 2) ? SIM_RANDOM : SIM_PCT;
        ret_strategy->depth = 1 + (unsigned)random_below(&random, 5);
        ret_strategy->stale = random_below(&random, 4) == 0 ? 4 : 0;
}

struct sim_result storm_run(uint64_t seed, bool trace)
{
        struct sim_strategy strategy;
        struct program program;

        storm_draw(seed, &program, &strategy);
        strategy.trace = trace;
        return world_run(&program, &strategy, seed);
}

struct storm_figures storm(uint64_t first, uint64_t runs, double seconds)
{
        struct storm_figures figures = { .runs = 0 };
        double began = storm_clock(), began_cpu = storm_cpu();

        while (figures.runs < runs) {
                struct sim_result result = storm_run(first + figures.runs, false);

                figures.runs++;
                figures.steps += result.steps;
                if (result.failed) {
                        figures.failures++;
                        figures.first_seed = first + figures.runs - 1;
                        memcpy(figures.message, result.message, sizeof figures.message);
                        break;
                }
                if (seconds > 0 && figures.runs % 256 == 0 && storm_clock() - began >= seconds)
                        break;
        }
        figures.seconds = storm_cpu() - began_cpu;
        return figures;
}

uint64_t storm_until_failure(uint64_t first, uint64_t runs, char *ret_message, size_t size)
{
        for (uint64_t n = 0; n < runs; n++) {
                struct sim_strategy strategy;
                struct sim_result result;
                struct program program;

                storm_draw(first + n, &program, &strategy);
                strategy.stale = 4;
                result = world_run(&program, &strategy, first + n);
                if (result.failed) {
                        snprintf(ret_message, size, "%s", result.message);
                        return n + 1;
                }
        }
        return 0;
}

/* ---- smaller --------------------------------------------------------------------------------------------- */

#define TRIES 1500         /* schedules until a smaller program is taken to be sound */
#define EXHAUSTIVE 100000  /* runs to look for a failure with few preemptions */

static bool is_detail(char c)
{
        return isdigit((unsigned char)c) || isupper((unsigned char)c);
}

bool storm_same_kind(const char *a, const char *b)
{
        for (;;) {
                while (is_detail(*a))
                        a++;
                while (is_detail(*b))
                        b++;
                if (*a != *b)
                        return false;
                if (!*a)
                        return true;
                a++;
                b++;
        }
}

static struct sim_strategy variant(const struct sim_strategy *strategy, uint64_t n)
{
        struct sim_strategy varied = *strategy;

        if (n == 0)
                return varied;
        varied.kind = n % 2 ? SIM_RANDOM : SIM_PCT;
        varied.depth = 1 + (unsigned)(n / 2 % 4);
        return varied;
}

/* Does any of so many schedules fail in the same way? */
static bool still_fails(const struct program *program, const struct sim_strategy *strategy, uint64_t seed,
                        struct storm_case *found, const char *message)
{
        for (uint64_t n = 0; n < TRIES; n++) {
                struct sim_strategy varied = variant(strategy, n);
                struct sim_result result;

                found->choices.count = 0;
                varied.record = &found->choices;
                result = world_run(program, &varied, seed + n);
                found->tried++;
                if (result.failed && storm_same_kind(result.message, message)) {
                        found->program = *program;
                        found->result = result;
                        return true;
                }
        }
        return false;
}

static void shrink_program(const struct sim_strategy *strategy, uint64_t seed, struct storm_case *best)
{
        static struct storm_case candidate;
        bool progress = true;

        while (progress) {
                struct program smaller;

                progress = false;
                for (unsigned n = 0; program_smaller(&best->program, n, &smaller); n++) {
                        if (smaller.threads == 0)
                                continue;
                        candidate.tried = best->tried;
                        candidate.stale = best->stale;
                        if (still_fails(&smaller, strategy, seed, &candidate, best->result.message)) {
                                *best = candidate;
                                progress = true;
                        } else {
                                best->tried = candidate.tried;
                        }
                }
        }
}

/* The failure with the fewest preemptions, if there are few. */
static void search_few(struct storm_case *best)
{
        static struct storm_case candidate;

        for (unsigned preemptions = 0; preemptions <= 3; preemptions++) {
                struct sim_strategy strategy = { .kind = SIM_EXHAUSTIVE, .preemptions = preemptions,
                                                 .stale = best->stale, .record = &candidate.choices };
                uint64_t runs = 0;

                sim_search_start();
                do {
                        candidate.choices.count = 0;
                        candidate.result = world_run(&best->program, &strategy, 1);
                        best->tried++;
                        if (candidate.result.failed && storm_same_kind(candidate.result.message, best->result.message)) {
                                best->choices = candidate.choices;
                                best->result = candidate.result;
                                return;
                        }
                } while (++runs < EXHAUSTIVE && sim_search_next());
        }
}

static struct sim_result replay(const struct storm_case *of, const struct sim_choices *choices, bool trace)
{
        struct sim_strategy strategy = { .kind = SIM_REPLAY, .replay = choices, .stale = of->stale, .trace = trace };

        return world_run(&of->program, &strategy, 1);
}

/* Take out each choice that is not needed. */
static void shrink_choices(struct storm_case *best)
{
        static struct sim_choices fewer;
        bool progress = true;

        while (progress) {
                progress = false;
                for (uint32_t i = 0; i < best->choices.count;) {
                        struct sim_result result;

                        fewer.count = best->choices.count - 1;
                        memcpy(fewer.list, best->choices.list, i * sizeof fewer.list[0]);
                        memcpy(fewer.list + i, best->choices.list + i + 1, (fewer.count - i) * sizeof fewer.list[0]);
                        result = replay(best, &fewer, false);
                        best->tried++;
                        if (result.failed && storm_same_kind(result.message, best->result.message)) {
                                best->choices = fewer;
                                best->result = result;
                                progress = true;
                        } else {
                                i++;
                        }
                }
        }
}

void storm_shrink(const struct program *program, const struct sim_strategy *strategy, uint64_t seed,
                  struct storm_case *ret_case)
{
        struct sim_strategy recorded = *strategy;

        memset(ret_case, 0, sizeof *ret_case);
        ret_case->program = *program;
        ret_case->stale = strategy->stale;
        recorded.trace = false;
        recorded.record = &ret_case->choices;
        ret_case->result = world_run(program, &recorded, seed);
        if (!ret_case->result.failed)
                return;
        shrink_program(strategy, seed, ret_case);
        if (ret_case->stale) { /* is old memory needed at all? */
                struct sim_strategy strong = *strategy;
                static struct storm_case candidate;

                strong.stale = 0;
                candidate.tried = ret_case->tried;
                candidate.stale = 0;
                if (still_fails(&ret_case->program, &strong, seed, &candidate, ret_case->result.message))
                        *ret_case = candidate;
        }
        search_few(ret_case);
        shrink_choices(ret_case);
}

void storm_tell(const struct storm_case *smallest)
{
        struct sim_result result;

        printf("smallest case, found in %llu runs, %u unusual choices, memory %s:\n", (unsigned long long)smallest->tried,
               smallest->choices.count, smallest->stale ? "weak" : "strong");
        program_print(&smallest->program);
        result = replay(smallest, &smallest->choices, true);
        printf("%s\n", result.failed ? result.message : "(it does not fail when it is replayed)");
}
