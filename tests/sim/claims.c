/* What the model scheduler claims of itself, and what it finds out about the core in a few seconds. Longer:
 * make sim. */
#include "support/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sim/exhaustive.h"
#include "sim/keyed.h"
#include "sim/litmus.h"
#include "sim/mutate.h"
#include "sim/storm.h"
#include "sim/world.h"

/* Fewer runs where a run is dear (valgrind) or time is short. */
static uint64_t scaled(uint64_t runs)
{
        return getenv("LIDO_QUICK") ? runs / 10 + 1 : runs;
}

START_TEST(the_memory_is_that_of_c11)
{
        for (unsigned i = 0; i < litmus_count; i++) {
                char outcomes[400];

                litmus_run(&litmus_tests[i], outcomes, sizeof outcomes);
                ck_assert_msg(strcmp(outcomes, litmus_tests[i].outcomes) == 0, "%s: got %s",
                              litmus_tests[i].claim, outcomes);
        }
}
END_TEST

START_TEST(a_seed_gives_the_same_run_whatever_ran_before)
{
        enum { SEEDS = 300 };
        uint64_t hash[SEEDS];

        for (int i = 0; i < SEEDS; i++)
                hash[i] = storm_run((uint64_t)i, false).hash;
        for (int i = SEEDS - 1; i >= 0; i--)
                ck_assert_uint_eq(storm_run((uint64_t)i, false).hash, hash[i]);
}
END_TEST

/* A process of its own, for addresses may differ from one to the next. */
static char *trace_of(uint64_t seed, size_t *ret_size)
{
        char name[] = "/tmp/lido-trace-XXXXXX", *text;
        int file = mkstemp(name), status;
        pid_t child;

        ck_assert_int_ge(file, 0);
        fflush(stdout);
        child = fork();
        if (child == 0) {
                dup2(file, STDOUT_FILENO);
                storm_run(seed, true);
                fflush(stdout);
                _exit(0);
        }
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        *ret_size = (size_t)lseek(file, 0, SEEK_END);
        text = calloc(1, *ret_size + 1);
        ck_assert_ptr_nonnull(text);
        ck_assert_int_eq(pread(file, text, *ret_size, 0), (ssize_t)*ret_size);
        close(file);
        unlink(name);
        return text;
}

START_TEST(a_seed_is_told_in_the_same_words_byte_for_byte)
{
        for (uint64_t seed = 1; seed <= 20; seed++) {
                size_t size, again_size;
                char *text = trace_of(seed, &size), *again = trace_of(seed, &again_size);

                ck_assert_uint_gt(size, 1000);
                ck_assert_uint_eq(size, again_size);
                ck_assert(memcmp(text, again, size) == 0);
                free(text);
                free(again);
        }
}
END_TEST

START_TEST(a_storm_finds_nothing)
{
        struct storm_figures figures = storm(1, scaled(20000), 0);

        ck_assert_msg(figures.failures == 0, "SEED=%llu: %s", (unsigned long long)figures.first_seed,
                      figures.message);
        ck_assert_uint_eq(figures.runs, scaled(20000));
}
END_TEST

/* With two preemptions: `make sim-exhaustive`. */
START_TEST(small_programs_are_sound_in_every_schedule_with_one_preemption)
{
        for (unsigned i = 0; i < exhaustive_count(); i++) {
                struct sim_result failure;
                struct exhaustive e;
                uint64_t runs;
                bool is_cut;

                exhaustive_get(i, &e);
                runs = exhaustive_run(&e.program, 1, 0, scaled(1000000), &failure, &is_cut);
                ck_assert_msg(!failure.failed, "%s, run %llu: %s", e.name, (unsigned long long)runs,
                              failure.message);
                ck_assert(!is_cut || runs == scaled(1000000));
                ck_assert_uint_gt(runs, 100);
        }
}
END_TEST

static bool search_notices(void)
{
        for (unsigned i = 0; i < exhaustive_count(); i++) {
                struct sim_result failure;
                struct exhaustive e;
                bool is_cut;

                exhaustive_get(i, &e);
                exhaustive_run(&e.program, 2, 0, 100000, &failure, &is_cut);
                if (failure.failed)
                        return true;
        }
        return false;
}

/* That states are merged must hide nothing. */
START_TEST(the_search_notices_what_is_broken)
{
        static const struct {
                const char *function;
                int kind;
                enum sim_mutation mutation;
        } broken[] = {
                { "waitq_poke", SIM_OP_WAKE, SIM_DROPPED },
                { "wake_all", SIM_OP_WAKE, SIM_DROPPED },
                { "waiter_settle", SIM_OP_CAS, SIM_BLIND },
                { "slot_claim", SIM_OP_CAS, SIM_BLIND },
        };

        for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
                bool is_noticed;

                ck_assert_uint_gt(mutate_named(broken[i].function, broken[i].kind, NULL, broken[i].mutation), 0);
                is_noticed = search_notices();
                mutate_nothing();
                ck_assert_msg(is_noticed, "%s", broken[i].function);
        }
}
END_TEST

/* More of them: make sim-keyed. */
START_TEST(keyed_pools_keep_their_laws_while_keys_come_and_are_forgotten)
{
        struct keyed_books sum = {0};

        for (uint64_t seed = 1; seed <= scaled(600); seed++) {
                struct sim_result result = keyed_run(seed, seed % 4 == 0 ? 4 : 0, false);
                struct keyed_books books = keyed_books();

                ck_assert_msg(!result.failed, "seed %llu: %s", (unsigned long long)seed, result.message);
                sum.acquired += books.acquired;
                sum.forgotten += books.forgotten;
                sum.stolen += books.stolen;
        }
        ck_assert_uint_gt(sum.acquired, scaled(600));
        ck_assert_uint_gt(sum.forgotten, scaled(100));
        ck_assert_uint_gt(sum.stolen, scaled(100));
}
END_TEST

START_TEST(a_guest_that_is_not_counted_is_noticed)
{
        bool is_noticed = false;

        ck_assert_uint_gt(mutate_named("pool_enter", SIM_OP_ADD, NULL, SIM_DROPPED), 0);
        for (uint64_t seed = 1; seed <= 2000 && !is_noticed; seed++)
                is_noticed = keyed_run(seed, 0, false).failed;
        mutate_nothing();
        ck_assert(is_noticed);
}
END_TEST

static struct sim_result run_day(uint64_t seed, struct world_books *ret_books)
{
        static const struct sim_choices none; /* time goes on when nobody can: the machine is fast enough */
        struct sim_strategy strategy = {.kind = SIM_REPLAY, .replay = &none, .steps = UINT64_MAX};
        struct program program;
        struct sim_result result;

        program_day(&program);
        result = world_run(&program, &strategy, seed);
        *ret_books = world_books();
        return result;
}

START_TEST(a_day_of_idle_timeouts_lifetimes_back_off_and_rotation_passes_in_a_moment_and_is_the_same_each_time)
{
        struct sim_result first, again;
        struct world_books books;
        double began = storm_cpu();

        first = run_day(1, &books);
        ck_assert_double_lt(storm_cpu() - began, 1.0);
        again = run_day(1, &books);

        ck_assert_msg(!first.failed, "%s", first.message);
        ck_assert_uint_ge(first.end_ns - SIM_START, UINT64_C(24) * 3600 * NS_PER_S);
        ck_assert_uint_eq(first.hash, again.hash);
        ck_assert_uint_eq(first.steps, again.steps);
        ck_assert_uint_gt(books.acquired, 1000);
        ck_assert_uint_gt(books.closed, 50);
        ck_assert_uint_gt(books.open_failed, 10);
        ck_assert_uint_gt(books.upkeep, 100);
        ck_assert_uint_gt(books.rotations, 5);
}
END_TEST

/* Each of these days is another. The invariants are looked at whenever nobody can go on; a wait is bounded by two holds of others
 * (6 threads, 4 objects, 2 seconds) and an open with its back-off; and the factory counts its objects at each open. */
START_TEST(over_a_day_at_random_load_no_invariant_is_broken_nobody_starves_and_live_never_exceeds_max)
{
        for (uint64_t seed = 1; seed <= scaled(20); seed++) {
                struct world_books books;
                struct sim_result result = run_day(seed, &books);
                struct program program;

                program_day(&program);
                ck_assert_msg(!result.failed, "day %llu: %s", (unsigned long long)seed, result.message);
                ck_assert_uint_gt(books.looks, 10000);
                ck_assert_uint_eq(books.timed_out, 0);
                ck_assert_uint_lt(books.longest_wait_ns, 4500 * NS_PER_MS);
                ck_assert_uint_le(books.peak, program.max);
        }
}
END_TEST

/* ---- broken variants: each must be caught ----------------------------------------------------------------
 */

/* Two or three threads at one object, the newcomers allowed to overtake: pokes, hand-overs, timeouts. */
static void tight(struct program *program, int64_t overtake_us)
{
        program_plain(program, 1, 1);
        program->overtake_us = overtake_us;
        program->threads = 3;
        program->step[0][0] = (struct step){OP_ACQUIRE, 0};
        program->step[0][1] = (struct step){OP_RELEASE, 0};
        program->step[0][2] = (struct step){OP_ACQUIRE, 0};
        program->step[0][3] = (struct step){OP_HOLD, 1000};
        program->step[0][4] = (struct step){OP_RELEASE, 0};
        program->step[1][0] = (struct step){OP_ACQUIRE, 1000};
        program->step[1][1] = (struct step){OP_RELEASE, 0};
        program->step[2][0] = (struct step){OP_ACQUIRE, 0};
        program->step[2][1] = (struct step){OP_RELEASE, 0};
}

/* How many schedules it takes to notice; 0: it is not noticed. */
static uint64_t noticed(const struct program *program, unsigned stale, uint64_t runs)
{
        for (uint64_t run = 1; run <= runs; run++) {
                struct sim_strategy strategy = {
                        .kind = run % 2 ? SIM_RANDOM : SIM_PCT, .depth = 1 + run / 2 % 4, .stale = stale};
                struct sim_result result = world_run(program, &strategy, run);

                if (result.failed) {
                        printf("noticed in schedule %llu: %s\n", (unsigned long long)run, result.message);
                        return run;
                }
        }
        return 0;
}

#define SOUND_RUNS 1000    /* what is whole must not fail in so many, */
#define BROKEN_RUNS 100000 /* what is broken must fail in so many */

struct broken {
        const char *function;
        int kind;
        const char *what; /* NULL: any word */
        int mutation;
};

static void must_notice(const struct broken *broken, unsigned count, const struct program *program, unsigned stale)
{
        uint64_t run;

        ck_assert_uint_eq(noticed(program, stale, scaled(SOUND_RUNS)), 0);
        for (unsigned i = 0; i < count; i++) {
                printf("%s in %s: ", mutate_name((enum sim_mutation)broken[i].mutation), broken[i].function);
                ck_assert_uint_gt(mutate_named(broken[i].function, broken[i].kind, broken[i].what,
                                               (enum sim_mutation)broken[i].mutation),
                                  0);
        }
        run = noticed(program, stale, BROKEN_RUNS);
        mutate_nothing();
        ck_assert_msg(run > 0, "it is not noticed");
}

static void must_notice_tight(const struct broken *broken, unsigned count, int64_t overtake_us, unsigned stale)
{
        struct program program;

        tight(&program, overtake_us);
        must_notice(broken, count, &program, stale);
}
#define MUST_NOTICE(overtake_us, stale, ...)                                                                 \
        must_notice_tight((const struct broken[]){__VA_ARGS__},                                              \
                          sizeof((const struct broken[]){__VA_ARGS__}) / sizeof(struct broken), overtake_us, \
                          stale)

START_TEST(a_lost_poke_is_noticed)
{
        MUST_NOTICE(500, 0, {"waitq_poke", SIM_OP_WAKE, NULL, SIM_DROPPED});
}
END_TEST

START_TEST(a_lost_wake_is_noticed)
{
        MUST_NOTICE(-1, 0, {"wake_all", SIM_OP_WAKE, NULL, SIM_DROPPED});
}
END_TEST

START_TEST(a_grant_ignored_on_timeout_is_noticed)
{
        MUST_NOTICE(-1, 0, {"waiter_settle", SIM_OP_CAS, NULL, SIM_BLIND});
}
END_TEST

START_TEST(a_claim_that_does_not_compare_is_noticed)
{
        MUST_NOTICE(500, 0, {"slot_claim", SIM_OP_CAS, NULL, SIM_BLIND});
}
END_TEST

START_TEST(a_release_that_is_not_seq_cst_is_noticed)
{
        MUST_NOTICE(500, 4, {"slot_move", SIM_OP_CAS, NULL, SIM_WEAKER});
}
END_TEST

START_TEST(a_look_at_the_gate_that_is_not_seq_cst_is_noticed)
{
        MUST_NOTICE(500, 4, {"lido_release_at", SIM_OP_LOAD, "&pool->gate", SIM_WEAKER});
}
END_TEST

START_TEST(a_scan_that_is_not_seq_cst_is_noticed)
{
        MUST_NOTICE(500, 4, {"slots_claim", SIM_OP_LOAD, "&slot->word", SIM_WEAKER});
}
END_TEST

/* Either of the two in seq_cst would be enough: the second reads what the first has written. */
START_TEST(a_waiter_that_raises_the_gate_too_weakly_is_noticed)
{
        MUST_NOTICE(500, 4, {"link_waiter", SIM_OP_ADD, "&pool->gate", SIM_WEAKER},
                    {"may_serve", SIM_OP_LOAD, "&pool->gate", SIM_WEAKER});
}
END_TEST

/* ---- and those of what not every pool has --------------------------------------------------------------------- */

/* Three threads that do the same. */
static void alike(struct program *program, uint32_t max, const struct step *steps, unsigned count)
{
        program_plain(program, max, max);
        program->overtake_us = -1;
        program->threads = 3;
        for (uint32_t i = 0; i < program->threads; i++)
                memcpy(program->step[i], steps, count * sizeof steps[0]);
}
#define ALIKE(program, max, ...)                               \
        alike(program, max, (const struct step[]){__VA_ARGS__}, \
              sizeof((const struct step[]){__VA_ARGS__}) / sizeof(struct step))

START_TEST(a_turnstile_that_wakes_nobody_is_noticed)
{
        struct program program;

        ALIKE(&program, 2, {OP_MANY, 100000}, {OP_HOLD, 10}, {OP_RELEASE, 0}, {OP_RELEASE, 0}, {OP_ACQUIRE, 0});
        must_notice(&(struct broken){"turnstile_leave", SIM_OP_WAKE, NULL, SIM_DROPPED}, 1, &program, 0);
}
END_TEST

static void quota_of_one(struct program *program)
{
        ALIKE(program, 2, {OP_TAG, 1}, {OP_ACQUIRE, 0}, {OP_HOLD, 10}, {OP_RELEASE, 0}, {OP_ACQUIRE, 0});
        program->quota = 1;
}

START_TEST(a_quota_that_is_not_given_back_is_noticed)
{
        struct program program;

        quota_of_one(&program);
        must_notice(&(struct broken){"quota_put", SIM_OP_SUB, NULL, SIM_DROPPED}, 1, &program, 0);
}
END_TEST

START_TEST(a_quota_that_two_take_at_once_is_noticed)
{
        struct program program;

        quota_of_one(&program);
        must_notice(&(struct broken){"quota_take", SIM_OP_CAS, NULL, SIM_BLIND}, 1, &program, 0);
}
END_TEST

static void hooks_that_block(struct program *program)
{
        ALIKE(program, 2, {OP_ACQUIRE, 0}, {OP_DISCARD, 0}, {OP_ACQUIRE, 0}, {OP_DISCARD, 0});
        program->has_blocking = 1;
        program->open[0].us = 10;
        program->close_us = 10;
}

START_TEST(a_helper_that_is_not_woken_is_noticed)
{
        struct program program;

        hooks_that_block(&program);
        must_notice(&(struct broken){"helpers_submit", SIM_OP_WAKE, NULL, SIM_DROPPED}, 1, &program, 0);
}
END_TEST

START_TEST(a_bell_that_does_not_ring_is_noticed)
{
        struct program program;

        hooks_that_block(&program);
        must_notice(&(struct broken){"ring", SIM_OP_ADD, NULL, SIM_DROPPED}, 1, &program, 0);
}
END_TEST

static void budget_of_one(struct program *program)
{
        ALIKE(program, 1, {OP_ACQUIRE, 0}, {OP_RELEASE, 0}, {OP_OTHER, 1}, {OP_ACQUIRE, 0}, {OP_RELEASE, 0});
        program->pools = 2;
        program->budget = 1;
        program->step[1][0] = (struct step){OP_OTHER, 1};
        program->step[1][1] = (struct step){OP_ACQUIRE, 0};
        program->step[1][2] = (struct step){OP_RELEASE, 0};
        program->step[1][3] = program->step[1][4] = (struct step){OP_NOTHING, 0};
}

START_TEST(a_pool_that_is_not_told_that_its_objects_are_coveted_is_noticed)
{
        struct program program;

        budget_of_one(&program);
        must_notice(&(struct broken){"steal_one", SIM_OP_OR, NULL, SIM_DROPPED}, 1, &program, 0);
}
END_TEST

START_TEST(a_count_of_what_is_to_spare_that_is_not_seq_cst_is_noticed)
{
        struct program program;

        budget_of_one(&program);
        must_notice(&(struct broken){"slots_count", SIM_OP_LOAD, "&slot->word", SIM_WEAKER}, 1, &program, 4);
}
END_TEST

START_TEST(a_keeper_that_is_not_woken_is_noticed)
{
        struct program program;

        ALIKE(&program, 1, {OP_ACQUIRE, 0}, {OP_DISCARD, 0}, {OP_ACQUIRE, 0});
        must_notice(&(struct broken){"wake", SIM_OP_WAKE, NULL, SIM_DROPPED}, 1, &program, 0);
}
END_TEST

START_TEST(a_post_that_is_lost_is_noticed)
{
        struct program program;

        ALIKE(&program, 1, {OP_REQUEST, 0}, {OP_AWAIT, 0});
        must_notice(&(struct broken){"lido_loop_post", SIM_OP_WAKE, NULL, SIM_DROPPED}, 1, &program, 0);
}
END_TEST

START_TEST(a_failure_is_made_small)
{
        static struct storm_case smallest;
        struct sim_strategy strategy;
        struct program program;
        char message[400];
        uint64_t run;

        /* given: a core that loses wakes, and a seed that shows it */
        mutate_named("wake_all", SIM_OP_WAKE, NULL, SIM_DROPPED);
        run = storm_until_failure(1, 10000, message, sizeof message);
        ck_assert_uint_gt(run, 0);
        storm_draw(run, &program, &strategy);
        strategy.stale = 4;
        /* when */
        storm_shrink(&program, &strategy, run, &smallest);
        mutate_nothing();
        /* then */
        ck_assert(smallest.result.failed);
        ck_assert_uint_le(program_ops(&smallest.program), 5);
        ck_assert_uint_le(smallest.choices.count, 8);
}
END_TEST

int main(void)
{
        return suite_run("sim/claims",
                         (const TTest *[]){
                                 the_memory_is_that_of_c11,
                                 a_seed_gives_the_same_run_whatever_ran_before,
                                 a_seed_is_told_in_the_same_words_byte_for_byte,
                                 a_storm_finds_nothing,
                                 small_programs_are_sound_in_every_schedule_with_one_preemption,
                                 the_search_notices_what_is_broken,
                                 keyed_pools_keep_their_laws_while_keys_come_and_are_forgotten,
                                 a_guest_that_is_not_counted_is_noticed,
                                 a_day_of_idle_timeouts_lifetimes_back_off_and_rotation_passes_in_a_moment_and_is_the_same_each_time,
                                 over_a_day_at_random_load_no_invariant_is_broken_nobody_starves_and_live_never_exceeds_max,
                                 a_lost_poke_is_noticed,
                                 a_lost_wake_is_noticed,
                                 a_grant_ignored_on_timeout_is_noticed,
                                 a_claim_that_does_not_compare_is_noticed,
                                 a_release_that_is_not_seq_cst_is_noticed,
                                 a_look_at_the_gate_that_is_not_seq_cst_is_noticed,
                                 a_scan_that_is_not_seq_cst_is_noticed,
                                 a_waiter_that_raises_the_gate_too_weakly_is_noticed,
                                 a_turnstile_that_wakes_nobody_is_noticed,
                                 a_quota_that_is_not_given_back_is_noticed,
                                 a_quota_that_two_take_at_once_is_noticed,
                                 a_helper_that_is_not_woken_is_noticed,
                                 a_bell_that_does_not_ring_is_noticed,
                                 a_pool_that_is_not_told_that_its_objects_are_coveted_is_noticed,
                                 a_count_of_what_is_to_spare_that_is_not_seq_cst_is_noticed,
                                 a_keeper_that_is_not_woken_is_noticed,
                                 a_post_that_is_lost_is_noticed,
                                 a_failure_is_made_small,
                                 NULL,
                         });
}
