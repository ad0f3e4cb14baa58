#include "sim/sched.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "sim/mutate.h"
#include "sim/switch.h"

#define STACK_SIZE ((size_t)128 * 1024)
#define STACKS_AT ((char *)UINT64_C(0x200000000000)) /* the same in each process, so that traces are */
#define STEP_LIMIT 200000

struct scheduler sched;
struct sim_front sim;
static char *stacks;

void sched_hash(uint64_t value)
{
        sched.hash = (sched.hash ^ value) * UINT64_C(0x100000001b3);
}

/* Alone and in calm every read returns the newest value: weak memory is nothing special then. */
static void be_special(void)
{
        sim.special = sched.is_watched || (sched.strategy.stale != 0 && !sched.alone && !sched.calm);
}

static void set_alone(bool is_alone)
{
        sched.alone = is_alone;
        be_special();
}

/* ---- switching -------------------------------------------------------------------------------------------
 */

uint32_t sched_points(void)
{
        return sim.current->points + (uint32_t)(sched.given - sim.quantum);
}

static void account(void)
{
        uint32_t passed = (uint32_t)(sched.given - sim.quantum);

        sched.steps += passed;
        sim.current->points += passed;
        sched.given = sim.quantum;
}

void sched_ask_soon(void)
{
        account();
        sim.quantum = sched.given = 1;
}

static void give_quantum(int who)
{
        account();
        sim.quantum = sched.given = choose_quantum(who);
}

static void go_to(int number)
{
        struct coroutine *from = sim.current, *to = &sched.coroutine[number];

        sched.current = number;
        sim.current = to;
        sim.at = &to->at;
        if (from != to)
                sim_switch(&from->stack_pointer, to->stack_pointer);
}

static void go_to_driver(void) __attribute__((noreturn));
static void go_to_driver(void)
{
        struct coroutine *from = sim.current;

        account();
        sim.current = &sched.driver;
        sim.at = &sched.driver.at;
        sim_switch(&from->stack_pointer, sched.driver.stack_pointer);
        __builtin_unreachable();
}

bool sched_state_is_seen(unsigned preemptions_left, bool has_choice, unsigned number)
{
        sched.asks_driver = true;
        sched.preemptions_left = preemptions_left;
        sched.has_choice = has_choice;
        sched.number = number;
        sim_switch(&sim.current->stack_pointer, sched.driver.stack_pointer);
        return sched.is_seen;
}

/* The run goes on, and now and then asks. */
static void drive(void)
{
        for (;;) {
                sim_switch(&sched.driver.stack_pointer, sim.current->stack_pointer);
                if (!sched.asks_driver)
                        return;
                sched.asks_driver = false;
                sched.is_seen = state_is_seen(state_hash(), sched.preemptions_left);
                if (!sched.is_seen && sched.has_choice)
                        state_save(sched.number);
        }
}

void sched_merge(void)
{
        sched.result.merged = true;
        go_to_driver();
}

static bool all_done(void)
{
        for (int i = 0; i < sched.count; i++)
                if (!sched.coroutine[i].is_daemon && sched.coroutine[i].state != COROUTINE_DONE)
                        return false;
        return true;
}

static uint64_t next_due(void)
{
        if (!sched.is_due_known) {
                sched.due = CLOCK_NEVER;
                for (uint32_t left = sched.waiting[COROUTINE_PARKED]; left; left &= left - 1)
                        sched.due = clock_min(sched.due, sched.coroutine[__builtin_ctz(left)].due);
                sched.is_due_known = true;
        }
        return sched.due;
}

/* What a coroutine does takes no time of itself: the clock stands while one that could go on has reached its
 * deadline. */
static uint64_t latest_time(void)
{
        uint64_t latest = CLOCK_NEVER;
        uint32_t left = (sched.ready | sched.waiting[COROUTINE_LOCKING]) & sched.hurried;

        for (; left; left &= left - 1)
                latest = clock_min(latest, sched.coroutine[__builtin_ctz(left)].deadline);
        return latest;
}

bool sched_clock_can_run(void)
{
        uint64_t due = next_due();

        return due != CLOCK_NEVER && due <= latest_time();
}

static void run_clock(void)
{
        uint64_t due = next_due();

        if (due > sched.now)
                sched.now = due;
        for (uint32_t left = sched.waiting[COROUTINE_PARKED]; left; left &= left - 1) {
                int i = __builtin_ctz(left);

                if (sched.coroutine[i].due <= sched.now) {
                        sched.coroutine[i].timed_out = true;
                        sched_ready(i);
                }
        }
        if (sched.strategy.trace) {
                char text[80];

                snprintf(text, sizeof text, "time is %llu.%09llu", (unsigned long long)(sched.now / NS_PER_S),
                         (unsigned long long)(sched.now % NS_PER_S));
                trace_line(text);
        }
}

void sched_tick(uint64_t ns)
{
        uint64_t due = next_due();
        uint64_t time = clock_min(clock_min(sched.now + ns, due), latest_time());

        if (time <= sched.now)
                return;
        sched.now = time;
        if (time == due)
                run_clock();
}

/* Nobody can go on. Whoever changes a word on a stack, which is of one sleeper alone, wakes him. */
static void nobody_is_forgotten(void)
{
        for (uint32_t left = sched.waiting[COROUTINE_PARKED]; left; left &= left - 1) {
                const struct coroutine *c = &sched.coroutine[__builtin_ctz(left)];
                uint64_t offset;

                if (c->blocked_on && sched_place((uintptr_t)c->blocked_on, &offset) &&
                    SIM_PEEK((const _Atomic uint32_t *)c->blocked_on) != c->slept_on)
                        sim_fail("%s sleeps on though what it waits for has come", c->name);
        }
}

static void everybody_sleeps(void) __attribute__((noreturn));
static void everybody_sleeps(void)
{
        char text[300];
        size_t length = 0;

        for (int i = 0; i < sched.count && length < sizeof text - 60; i++) {
                const struct coroutine *c = &sched.coroutine[i];

                if (c->state != COROUTINE_DONE && !c->is_daemon)
                        length += (size_t)snprintf(text + length, sizeof text - length, " %s (%s)", c->name,
                                                   c->at ? c->at->function : "?");
        }
        sim_fail("everybody sleeps for ever:%s", text);
}

/* What the scheduler has left on a stack would be found again in the gaps of later frames, and make states differ. */
static __attribute__((noinline)) void wipe_below(void)
{
        volatile uint64_t below[128];

        for (size_t i = 0; i < sizeof below / sizeof below[0]; i++)
                below[i] = 0;
}

/* Somebody goes on; the calling coroutine goes on from here when it is its turn again. */
static __attribute__((noinline)) void take_turns(void)
{
        if (sched.steps > sched.step_limit)
                sim_fail("the run does not end: %llu steps", (unsigned long long)sched.steps);
        for (;;) {
                int who;

                if (!sched.ready) {
                        if (all_done())
                                go_to_driver();
                        nobody_is_forgotten();
                        if (sched.quiet) {
                                set_alone(true);
                                sched.quiet(sched.quiet_context);
                                set_alone(false);
                        }
                        if (sched.ready)
                                continue;
                        if (!sched_clock_can_run())
                                everybody_sleeps();
                        run_clock();
                        continue;
                }
                who = choose_who(true);
                if (who == SIM_CLOCK) {
                        run_clock();
                        continue;
                }
                give_quantum(who);
                go_to(who);
                return;
        }
}

static void reschedule(void)
{
        take_turns();
        if (sched.strategy.merges)
                wipe_below();
}

void sim_point_slow(void)
{
        if (sched.alone || sim.current == &sched.driver) {
                account();
                sim.quantum = sched.given = 1000;
                if (sched.alone && sched.steps > sched.step_limit)
                        sim_fail("the run does not end: %llu steps", (unsigned long long)sched.steps);
                return;
        }
        account();
        reschedule();
}

void sim_spin(void)
{
        if (sched.alone || sim.current == &sched.driver)
                return;
        if (sched_points() == sim.current->spun_at)
                return; /* it has looked at nothing since it spun last: nothing new could come of it */
        sim.quantum--;
        account();
        sim.current->spun_at = sim.current->points;
        choose_spun();
        reschedule();
}

void sched_block(int state, const void *on, uint64_t due)
{
        struct coroutine *c = sim.current;

        if (sched.alone || c == &sched.driver)
                sim_fail("blocks where nobody else may run");
        if (state == COROUTINE_PARKED)
                sched_clock_seen(true);
        c->state = state;
        c->blocked_on = on;
        c->due = due;
        c->timed_out = false;
        sched.ready &= ~(1u << sched.current);
        sched.waiting[state] |= 1u << sched.current;
        if (state == COROUTINE_PARKED)
                sched.due = clock_min(sched.due, due);
        sim.quantum--;
        account();
        reschedule();
}

void sched_ready(int number)
{
        struct coroutine *c = &sched.coroutine[number];

        sched.waiting[c->state] &= ~(1u << number);
        if (c->state == COROUTINE_PARKED && c->due == sched.due)
                sched.is_due_known = false;
        c->state = COROUTINE_READY;
        c->due = CLOCK_NEVER;
        sched.ready |= 1u << number;
        choose_readied(number);
}

/* ---- coroutines ------------------------------------------------------------------------------------------
 */

static void enter(void)
{
        struct coroutine *c = sim.current;

        c->run(c->argument);
        if (c->locks)
                sim_fail("%s ends with a lock held", c->name);
        c->state = COROUTINE_DONE;
        sched.ready &= ~(1u << sched.current);
        for (uint32_t left = sched.waiting[COROUTINE_JOINING]; left; left &= left - 1)
                if (sched.coroutine[__builtin_ctz(left)].blocked_on == c) {
                        memory_joined(sched.current, __builtin_ctz(left));
                        sched_ready(__builtin_ctz(left));
                }
        sim.quantum--;
        account();
        reschedule();
        __builtin_unreachable();
}

int sim_spawn(const char *name, void (*run)(void *), void *argument, bool is_daemon)
{
        int number = sched.count;
        struct coroutine *c = &sched.coroutine[number];

        lido_assert(number < SIM_COROUTINES);
        memset(c, 0, sizeof *c);
        c->name = name;
        c->run = run;
        c->argument = argument;
        c->is_daemon = is_daemon;
        c->deadline = c->deadline_in = CLOCK_NEVER;
        c->self.id = (uint32_t)number + 1;
        /* tops at different offsets, or all stacks would share the same lines of the cache */
        c->stack_top = stacks + (size_t)(number + 1) * STACK_SIZE - (size_t)number * 1088;
        c->stack_pointer = sim_stack(c->stack_top, enter);
        sched.count++;
        memory_spawned(sim.current == &sched.driver ? -1 : sched.current, number);
        sched_ready(number);
        return number;
}

void sim_join(int number)
{
        if (sched.coroutine[number].state != COROUTINE_DONE)
                sched_block(COROUTINE_JOINING, &sched.coroutine[number], CLOCK_NEVER);
        else
                memory_joined(number, sched.current);
}

bool sched_place(uintptr_t address, uint64_t *ret_offset)
{
        *ret_offset = address - (uintptr_t)stacks;
        return stacks && *ret_offset < SIM_COROUTINES * STACK_SIZE;
}

int sim_self(void)
{
        return sched.current;
}

bool sim_is_weak(void)
{
        return sched.strategy.stale > 0;
}

const char *sim_name(int number)
{
        return sched.coroutine[number].name;
}

uint64_t sim_now(void)
{
        return sched.now;
}

bool sim_sleep(uint64_t due_ns)
{
        if (due_ns <= sched.now)
                return false;
        sched_block(COROUTINE_PARKED, NULL, due_ns);
        return !sim.current->timed_out;
}

void sim_wake(int number)
{
        struct coroutine *c = &sched.coroutine[number];

        if (c->state == COROUTINE_PARKED && c->blocked_on == NULL) {
                memory_woken(sched.current, number);
                sched_ready(number);
        }
}

void sim_hand_over(int number)
{
        memory_woken(sched.current, number);
}

void sim_publish(const void *place)
{
        memory_locked(place);
        memory_unlocked(place);
}

void sim_consult(const void *place)
{
        memory_locked(place);
}

void sim_deadline_in(uint64_t ns)
{
        struct coroutine *c = sim.current;

        if (ns == CLOCK_NEVER)
                sched.hurried &= ~(1u << sched.current);
        else
                sched.hurried |= 1u << sched.current;
        c->deadline_in = ns;
        c->deadline = ns == CLOCK_NEVER ? CLOCK_NEVER : sched.now;
        c->earliest = c->deadline;
        c->is_based = false;
}

uint64_t sim_deadline(uint64_t *ret_earliest)
{
        *ret_earliest = sim.current->earliest;
        return sim.current->deadline;
}

void sched_clock_seen(bool is_final)
{
        struct coroutine *c = sim.current;

        if (c->deadline_in == CLOCK_NEVER)
                return;
        if (!is_final || !c->is_based)
                c->deadline = sched.now + c->deadline_in;
        if (!c->is_based)
                c->earliest = c->deadline;
        c->is_based = true;
        if (is_final)
                c->deadline_in = CLOCK_NEVER;
}

void sim_alone(void)
{
        set_alone(true);
}

void sim_together(void)
{
        set_alone(false);
        sched_ask_soon();
}

void sim_calm(bool is_calm)
{
        sched.calm = is_calm;
        be_special();
        if (is_calm)
                return;
        memory_calmed();
        sched_ask_soon();
}

void sim_on_quiet(void (*quiet)(void *), void *context)
{
        sched.quiet = quiet;
        sched.quiet_context = context;
}

unsigned sim_locks(void)
{
        return sim.current->locks;
}

bool sim_is_asleep(int number)
{
        return sched.coroutine[number].state == COROUTINE_PARKED;
}

/* ---- runs ------------------------------------------------------------------------------------------------
 */

void sim_fail(const char *format, ...)
{
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(sched.result.message, sizeof sched.result.message, format, arguments);
        va_end(arguments);
        sched.result.failed = true;
        if (sched.strategy.trace) {
                trace_line(sched.result.message);
        }
        lido_assert(sim.current != &sched.driver);
        go_to_driver();
}

static void start(const struct sim_strategy *strategy, uint64_t seed, void (*first)(void *), void *context)
{
        if (!stacks) {
                stacks = mmap(STACKS_AT, SIM_COROUTINES * STACK_SIZE, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
                lido_assert(stacks != MAP_FAILED);
        }
        sched.strategy = *strategy;
        sched.now = SIM_START;
        sched.steps = 0;
        sched.step_limit = strategy->steps ? strategy->steps : STEP_LIMIT;
        sched.hash = UINT64_C(0xcbf29ce484222325);
        sched.ready = sched.spun = sched.hurried = 0;
        sched.passed_by = 0;
        memset(sched.waiting, 0, sizeof sched.waiting);
        sched.due = CLOCK_NEVER;
        sched.is_due_known = true;
        sched.count = 0;
        sched.current = 0;
        sched.alone = sched.calm = false;
        sched.stale_left = strategy->stale;
        sched.spurious_left = 1;
        sched.quiet = NULL;
        sched.result.failed = sched.result.merged = false;
        sched.result.message[0] = '\0';
        sim.current = &sched.driver;
        sim.at = &sched.driver.at;
        sim.quantum = sched.given = 1;
        sched.is_watched = strategy->trace || mutate_any();
        be_special();
        sim.traced = strategy->trace;
        memory_start(strategy->stale != 0);
        face_start();
        choose_start(seed);
        sim_spawn("main", first, context, false);
        sched.current = 0;
        sim.current = &sched.coroutine[0];
        sim.at = &sched.coroutine[0].at;
        give_quantum(0);
}

struct sim_result sim_run(const struct sim_strategy *strategy, uint64_t seed, void (*first)(void *),
                          void *context)
{
        unsigned number;

        if (strategy->merges && choose_resume(&number))
                state_restore(number);
        else
                start(strategy, seed, first, context);
        drive();
        sched.result.steps = sched.steps;
        sched.result.end_ns = sched.now;
        sched.result.hash = sched.hash;
        return sched.result;
}
