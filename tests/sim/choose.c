/* The strategies: who goes on at a point, whether time does, and which of several values a read returns.
 *
 * The usual choice is: the current coroutine goes on, or the next one in turn if it cannot; time stands as
 * long as anybody can go on; a read returns the newest value. A run is therefore the list of its unusual
 * choices.
 */
#include <string.h>

#include "base/assert.h"
#include "sim/sched.h"

#define FOREVER INT64_C(1000000)

static struct {
        /* random */
        unsigned mean, clock_chance, value_chance;
        /* PCT: the highest goes on; the clock has a priority too */
        int32_t priority[SIM_COROUTINES + 1], lowest;
        unsigned clock_runs;
        uint64_t change[8];
        unsigned changes;
        /* replay */
        uint8_t used[SIM_CHOICES];
} choice;

/* ---- exhaustive: a stack of decisions --------------------------------------------------------------------
 */

struct decision {
        uint32_t left; /* alternatives not tried yet, a bit each */
        uint8_t taken;
        uint8_t preemptions_left;
};
#define DECISIONS 200000
#define SPUN_MOST 1000 /* choices for which one who spins may be passed over */
static struct {
        struct decision stack[DECISIONS];
        unsigned depth, at;
        unsigned preemptions_left;
} search;

void sim_search_start(void)
{
        search.depth = 0;
        state_start();
}

bool sim_search_next(void)
{
        while (search.depth > 0) {
                struct decision *top = &search.stack[search.depth - 1];

                if (top->left) {
                        top->taken = (uint8_t)__builtin_ctz(top->left);
                        top->left &= top->left - 1;
                        return true;
                }
                search.depth--;
        }
        return false;
}

bool choose_resume(unsigned *ret_number)
{
        if (search.depth == 0)
                return false;
        search.at = *ret_number = search.depth - 1;
        search.preemptions_left = search.stack[search.at].preemptions_left;
        return true;
}

static unsigned decide(unsigned usual, uint32_t alternatives)
{
        struct decision *d;

        if (!(alternatives & ~(1u << usual)))
                return usual;
        lido_assert(search.at < DECISIONS);
        d = &search.stack[search.at++];
        if (search.at > search.depth) {
                search.depth = search.at;
                d->taken = (uint8_t)usual;
                d->preemptions_left = (uint8_t)search.preemptions_left;
                d->left = alternatives & ~(1u << usual);
        }
        return d->taken;
}

static int who_exhaustive(int usual, uint32_t ready, bool clock)
{
        bool forced = usual != sched.current && !(sched.spun >> sched.current & 1);
        uint32_t alternatives = 1u << usual;
        bool has_choice;
        int who;

        if (forced || search.preemptions_left)
                alternatives |= ready;
        if (clock && search.preemptions_left)
                alternatives |= 1u << SIM_CLOCK;
        has_choice = (alternatives & (alternatives - 1)) != 0;
        if (sched.strategy.merges && search.at >= search.depth && /* beyond what the last run has been through */
            (has_choice || !search.preemptions_left) &&
            sched_state_is_seen(search.preemptions_left, has_choice, search.at))
                sched_merge();
        who = (int)decide((unsigned)usual, alternatives);
        if (who == SIM_CLOCK || (!forced && who != usual))
                search.preemptions_left--;
        return who;
}

/* ---- replay ----------------------------------------------------------------------------------------------
 */

static int taken_in_list(enum sim_choice_kind kind)
{
        const struct sim_choices *list = sched.strategy.replay;
        uint32_t point = sched_points();

        for (uint32_t i = 0; i < list->count; i++) {
                const struct sim_choice *c = &list->list[i];

                if (!choice.used[i] && c->coroutine == sched.current && c->point == point &&
                    c->kind == kind) {
                        choice.used[i] = 1;
                        return c->taken;
                }
        }
        return -1;
}

static int who_replayed(int usual, bool clock)
{
        int who = taken_in_list(SIM_WHO);

        if (who < 0 || (who == SIM_CLOCK ? !clock : !(sched.ready >> who & 1)))
                return usual;
        return who;
}

static int64_t quantum_replayed(int who)
{
        const struct sim_choices *list = sched.strategy.replay;
        uint32_t point = sched.coroutine[who].points;
        int64_t quantum = FOREVER;

        for (uint32_t i = 0; i < list->count; i++) {
                const struct sim_choice *c = &list->list[i];

                if (c->coroutine == who && c->kind == SIM_WHO && c->point > point &&
                    c->point - point < quantum)
                        quantum = c->point - point;
        }
        return quantum;
}

/* ---- random and PCT --------------------------------------------------------------------------------------
 */

static unsigned below(unsigned limit)
{
        return (unsigned)((random_next(&sched.random) >> 32) * limit >> 32);
}

static unsigned count_bits(uint32_t bits)
{
        unsigned count = 0;

        for (; bits; bits &= bits - 1)
                count++;
        return count;
}

static int nth_bit(uint32_t bits, unsigned n)
{
        while (n--)
                bits &= bits - 1;
        return __builtin_ctz(bits);
}

static int who_random(uint32_t ready, bool clock)
{
        if (clock && choice.clock_chance && below(choice.clock_chance) == 0 && sched_clock_can_run())
                return SIM_CLOCK;
        return nth_bit(ready, below(count_bits(ready)));
}

static int who_first(uint32_t ready, bool clock)
{
        int best = -1;

        for (uint32_t left = ready; left; left &= left - 1) {
                int i = __builtin_ctz(left);

                if (best < 0 || choice.priority[i] > choice.priority[best])
                        best = i;
        }
        if (clock && choice.priority[SIM_CLOCK] > choice.priority[best] && sched_clock_can_run()) {
                if (++choice.clock_runs % 8 == 0)
                        choice.priority[SIM_CLOCK] =
                                --choice.lowest; /* or it could keep all others waiting */
                return SIM_CLOCK;
        }
        return best;
}

static void pct_start(void)
{
        unsigned length = 16u << below(8);

        choice.lowest = 0;
        choice.clock_runs = 0;
        for (int i = 0; i <= SIM_COROUTINES; i++)
                choice.priority[i] = (int32_t)(1 + below(1u << 20));
        choice.changes = sched.strategy.depth > 1 ? sched.strategy.depth - 1 : 0;
        if (choice.changes > 8)
                choice.changes = 8;
        for (unsigned i = 0; i < choice.changes; i++)
                choice.change[i] = 1 + below(length);
}

static void pct_change(void)
{
        for (unsigned i = 0; i < choice.changes; i++)
                if (choice.change[i] <= sched.steps) {
                        choice.priority[sched.current] = --choice.lowest;
                        choice.change[i] = UINT64_MAX;
                }
}

static int64_t pct_quantum(void)
{
        uint64_t next = UINT64_MAX;

        for (unsigned i = 0; i < choice.changes; i++)
                next = choice.change[i] < next ? choice.change[i] : next;
        return next == UINT64_MAX ? FOREVER : (int64_t)(next > sched.steps ? next - sched.steps : 1);
}

/* ---- the face of all -------------------------------------------------------------------------------------
 */

void choose_start(uint64_t seed)
{
        sched.random.state = seed;
        random_next(&sched.random);
        search.at = 0;
        search.preemptions_left = sched.strategy.preemptions;
        choice.value_chance = 2u << below(3);
        switch (sched.strategy.kind) {
        case SIM_RANDOM:
                choice.mean = 1u << below(6);
                choice.clock_chance = below(4) == 0 ? 0 : 8u << below(5);
                break;
        case SIM_PCT:
                pct_start();
                break;
        case SIM_REPLAY:
                memset(choice.used, 0, sched.strategy.replay->count);
                break;
        default:
                break;
        }
}

static void record(enum sim_choice_kind kind, int taken)
{
        struct sim_choices *list = sched.strategy.record;

        if (list && list->count < SIM_CHOICES)
                list->list[list->count++] = (struct sim_choice){sched_points(), (uint8_t)sched.current,
                                                                (uint8_t)kind, (uint8_t)taken};
}

static int next_in_turn(uint32_t ready)
{
        uint32_t after = ready & ~((2u << sched.current) - 1);

        if (ready >> sched.current & 1)
                return sched.current;
        return __builtin_ctz(after ? after : ready);
}

int choose_who(bool clock)
{
        uint32_t ready = sched.ready & ~sched.spun;
        int usual, who;

        /* Others may be ready in turns for ever: whoever spins does not wait for all of them at once. */
        if (!ready || (++sched.passed_by > SPUN_MOST && sched.strategy.kind != SIM_EXHAUSTIVE)) {
                sched.spun = 0;
                sched.passed_by = 0;
                ready = sched.ready;
        }
        usual = who = next_in_turn(ready);
        if (sched.calm)
                return usual;
        switch (sched.strategy.kind) {
        case SIM_RANDOM:
                who = who_random(ready, clock);
                break;
        case SIM_PCT:
                pct_change();
                who = who_first(ready, clock);
                break;
        case SIM_EXHAUSTIVE:
                who = who_exhaustive(usual, ready, clock && sched_clock_can_run());
                break;
        case SIM_REPLAY:
                who = who_replayed(usual, clock && sched_clock_can_run());
                break;
        }
        if (who != usual)
                record(SIM_WHO, who);
        sched_hash((uint64_t)who + sched.steps * 64);
        return who;
}

int64_t choose_quantum(int who)
{
        if (sched.calm)
                return FOREVER;
        switch (sched.strategy.kind) {
        case SIM_RANDOM:
                return choice.mean == 1 ? 1 : 1 + below(2 * choice.mean);
        case SIM_PCT:
                return pct_quantum();
        case SIM_EXHAUSTIVE:
                return search.preemptions_left ? 1 : FOREVER;
        default:
                return quantum_replayed(who);
        }
}

void choose_spun(void)
{
        sched.spun |= 1u << sched.current;
        choice.priority[sched.current] = --choice.lowest;
}

void choose_readied(int number)
{
        if (sched.strategy.kind == SIM_PCT && sim.current != &sched.driver &&
            choice.priority[number] > choice.priority[sched.current])
                sched_ask_soon();
}

unsigned sim_choose(enum sim_choice_kind kind, unsigned count)
{
        unsigned taken = 0;

        if (count <= 1 || sched.calm)
                return 0;
        switch (sched.strategy.kind) {
        case SIM_EXHAUSTIVE:
                if (kind != SIM_SPURIOUS)
                        taken = decide(0, (1u << count) - 1);
                break;
        case SIM_REPLAY: {
                int listed = taken_in_list(kind);

                taken = listed < 0 || (unsigned)listed >= count ? 0 : (unsigned)listed;
                break;
        }
        default:
                if (below(kind == SIM_SPURIOUS ? 64 : choice.value_chance) == 0)
                        taken = 1 + below(count - 1);
        }
        if (taken) {
                record(kind, (int)taken);
                sched_hash(taken);
        }
        return taken;
}
