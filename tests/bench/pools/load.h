/* bench/pools/load.h - the load generator: the last line of every adapter (bench/pools/rival.h says what it
 * defines).
 *
 *      PROGRAM                         lists the workloads
 *      PROGRAM WORKLOAD MILLISECONDS   runs one; each phase (bench/base/phases.h) is so long
 *
 * At the end of a run every handle must be there, and its count right.
 */
#ifndef BENCH_POOLS_LOAD_H
#define BENCH_POOLS_LOAD_H

#include "bench/pools/workloads.h"

#include <sched.h>
#include <signal.h>

#define LOST_AFTER_S 10 /* a handle that has not come back by then never will */

/* What the threads count besides their leases. */
enum tally {
        TALLY_HELD_NS, /* in the clock phase */
        TALLY_EARLY,   /* deadlines that came too soon */
        TALLY_SHARED   /* holds in which somebody else had the handle too */
};

static const struct workload *work;
static void *pool;

static void die(const char *what)
{
        (void)fprintf(stderr, "%s %s: %s\n", RIVAL_NAME, work->name, what);
        _exit(1);
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

static inline bool has_hold(void)
{
        return work->hold == HOLD_SPIN || work->hold == HOLD_SLEEP;
}

static void spend(void)
{
        if (work->hold == HOLD_SPIN) {
                uint64_t until = now_ns() + work->hold_ns;

                while (now_ns() < until)
                        continue;
        } else {
                sleep_ns(work->hold_ns);
        }
}

/* Hold the handle for its time, and see whether anybody else holds it meanwhile. */
static void hold(struct worker *self, grip grip)
{
#if RIVAL_COUNTS
        struct handle *handle = rival_handle(grip);

        handle->borrower = self;
        spend();
        self->tally[TALLY_SHARED] += handle->borrower != self;
#else
        (void)self, (void)grip;
        spend();
#endif
}

static uint64_t lease_without_clock(struct worker *self, enum phase phase)
{
        uint64_t leases = 0;
        grip grip;

        if (work->hold == HOLD_NONE) {
                for (; !is_over(phase); leases++) {
                        must_acquire(&grip);
                        rival_release(pool, grip);
                }
                return leases;
        }
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
                if (work->hold != HOLD_NONE)
                        count_use(grip);
                if (has_hold()) {
                        hold(self, grip);
                        self->tally[TALLY_HELD_NS] += now_ns() - got;
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
                self->tally[TALLY_EARLY] += waited < work->timeout_ns;
                if (phase == PHASE_CLOCK)
                        histogram_count(self->waits,
                                        waited < work->timeout_ns ? 0 : waited - work->timeout_ns);
        }
#else
        (void)self, (void)phase;
#endif
        return waits;
}

static uint64_t load(struct worker *self, enum phase phase)
{
        if (work->act == ACT_TRY)
                return try_in_vain(self, phase);
        if (work->act == ACT_TIMED)
                return wait_in_vain(self, phase);
        return phase == PHASE_CLOCK ? lease_with_clock(self) : lease_without_clock(self, phase);
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
static const char *check_counts(const grip *grips, const struct outcome *outcome)
{
#if RIVAL_COUNTS
        uint64_t leases = work->act == ACT_LEASE && work->hold != HOLD_NONE ? outcome_done(outcome) : 0, uses = 0;
        uint64_t shared = outcome_tally(outcome, TALLY_SHARED);

        for (unsigned i = 0; i < work->handles; i++) {
                uses += rival_handle(grips[i])->uses;
                for (unsigned k = 0; k < i; k++)
                        shared += rival_handle(grips[i]) == rival_handle(grips[k]);
        }
        return uses == leases && shared == 0 ? "ok" : "DOUBLE-USE";
#else
        (void)grips, (void)outcome;
        return "unchecked";
#endif
}

static void report(struct outcome *outcome, const char *check, bool real_time)
{
        char remarks[64], measures[64] = "-";
        uint64_t clocked = 0;

        for (unsigned i = 0; i < outcome->threads; i++)
                clocked += outcome->workers[i].done[PHASE_CLOCK];
        if (work->act == ACT_TIMED)
                (void)snprintf(measures, sizeof measures, "early=%" PRIu64,
                               outcome_tally(outcome, TALLY_EARLY));
        else if (has_hold() && clocked)
                (void)snprintf(measures, sizeof measures, "held_ns=%" PRIu64,
                               outcome_tally(outcome, TALLY_HELD_NS) / clocked);
        (void)snprintf(remarks, sizeof remarks, "%s%s%s", check,
                       RIVAL_WAITS || work->act != ACT_LEASE ? "" : ",polls",
                       work->real_time && !real_time ? ",not-real-time" : "");
        outcome_print(outcome, RIVAL_NAME, work->name, remarks, measures);
}

static int run(unsigned ms)
{
        bool real_time = quiet_begin(work->real_time, work->slack_ns);
        grip *grips = must_have(calloc(work->handles, sizeof *grips));
        struct outcome outcome;

        pool = rival_open(work->handles);
        if (!pool)
                die("the pool cannot be opened");
        if (work->act != ACT_LEASE)
                take_all(grips);
        outcome = phases_run(work->threads, ms, load);
        if (work->act == ACT_LEASE)
                take_all(grips);
        report(&outcome, check_counts(grips, &outcome), real_time);
        for (unsigned i = 0; i < work->handles; i++)
                rival_release(pool, grips[i]);
        rival_close(pool);
        free(grips);
        return 0;
}

int main(int count, char **arguments)
{
        int ms = count == 3 ? atoi(arguments[2]) : 0;

        for (size_t i = 0; i < WORKLOADS; i++) {
                if (count == 1)
                        (void)printf("%s\t%s\t%s\n", workloads[i].name, workloads[i].length,
                                     workloads[i].says);
                else if (ms > 0 && !strcmp(workloads[i].name, arguments[1]))
                        work = &workloads[i];
        }
        if (!work)
                return count == 1 ? 0 : 2;
        if ((work->act == ACT_TRY && !RIVAL_TRIES) || (work->act == ACT_TIMED && !RIVAL_TIMES)) {
                (void)printf("none\t%s\t%s\t%s\n", RIVAL_NAME, work->name,
                             work->act == ACT_TRY ? "it has no try" : "it has no wait with a deadline");
                return 0;
        }
        return run((unsigned)ms);
}

#endif
