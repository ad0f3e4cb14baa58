/* sim/sim.h - the model scheduler: threads as coroutines of one thread, time as a number, chance as a seed.
 *
 * A run starts one coroutine, which spawns others; it ends when all but the daemons are done, or at the first
 * violation. At each point (point.h) a strategy says who goes on, and whether time does. The same seed gives
 * the same run.
 *
 *      static void first(void *context) { sim_spawn("two", second, context); ... }
 *      struct sim_strategy strategy = { .kind = SIM_PCT, .depth = 3 };
 *      struct sim_result result = sim_run(&strategy, seed, first, context);
 */
#ifndef LIDO_SIM_SIM_H
#define LIDO_SIM_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/thread.h"
#include "sim/point.h"

#define SIM_COROUTINES 24
#define SIM_CLOCK SIM_COROUTINES    /* the choice "time goes on", beside those of coroutines */
#define SIM_START (1000 * NS_PER_S) /* what the clock shows at the start of a run */

enum sim_strategy_kind {
        SIM_RANDOM,     /* a random walk */
        SIM_PCT,        /* priorities, lowered at depth - 1 random points */
        SIM_EXHAUSTIVE, /* all runs with at most `preemptions` unforced switches and `stale` old values read
                         */
        SIM_REPLAY,     /* the choices of a list, where a coroutine has any, and the usual one elsewhere */
};

/* One choice that is not the usual one: named by the coroutine and by how many points it had passed, so that
 * it keeps its meaning when another one is taken out of the list. */
enum sim_choice_kind { SIM_WHO, SIM_VALUE, SIM_SPURIOUS };
struct sim_choice {
        uint32_t point;
        uint8_t coroutine, kind, taken;
};
#define SIM_CHOICES 4096
struct sim_choices {
        uint32_t count;
        struct sim_choice list[SIM_CHOICES];
};

struct sim_strategy {
        int kind;
        unsigned depth;       /* PCT */
        unsigned preemptions; /* EXHAUSTIVE: bound */
        unsigned stale; /* old values that may be read in one run; 0: the memory is sequentially consistent */
        bool merges;    /* EXHAUSTIVE: runs that come to the same state are followed once (state.c) */
        const struct sim_choices *replay;
        struct sim_choices *record; /* NULL, or where the unusual choices of the run are kept */
        bool trace;                 /* print each step */
        uint64_t steps;             /* at most so many; 0: as many as a short program may need */
};

struct sim_result {
        bool failed;
        bool merged; /* it came to where the search has been, and ended there */
        char message[400];
        uint64_t steps;
        uint64_t end_ns; /* the clock at the end */
        uint64_t hash;   /* of every choice: equal hashes, equal runs */
};

struct sim_result sim_run(const struct sim_strategy *strategy, uint64_t seed, void (*first)(void *),
                          void *context);

/* Exhaustive search: start it, then sim_run with SIM_EXHAUSTIVE while sim_next says that there is another
 * run. */
void sim_search_start(void);
bool sim_search_next(void);

/* Memory that is part of the state of a run, beside stacks and heap, in whole words: written to `list`, which has room for
 * `most`. *ret_reports: a piece of the heap that nothing depends on. Returns: how many. */
struct sim_block {
        const void *memory;
        size_t size;
};
typedef unsigned sim_blocks(struct sim_block *list, unsigned most, struct sim_block *ret_reports);
void sim_state_of(sim_blocks *blocks);

/* States that the search has come to. */
uint64_t state_count(void);

/* ---- inside a run ----------------------------------------------------------------------------------------
 */

/* A new coroutine. A daemon need not be done for the run to end. Returns: its number. */
int sim_spawn(const char *name, void (*run)(void *), void *argument, bool is_daemon);

/* Wait until it is done. */
void sim_join(int number);

int sim_self(void);

/* May old values be read in this run? */
bool sim_is_weak(void);
const char *sim_name(int number);

/* The clock, without a switching point. */
uint64_t sim_now(void);

/* Go on at `due_ns` or when sim_wake names this coroutine. Returns: true when woken. */
bool sim_sleep(uint64_t due_ns);
void sim_wake(int number);

/* What the calling coroutine has seen, this one sees as well: a letter was handed over. */
void sim_hand_over(int number);

/* The same by way of a place: who consults it sees what those had seen who published there. */
void sim_publish(const void *place);
void sim_consult(const void *place);

/* Time does not go beyond so many ns from now while the calling coroutine could run: what it does takes no
 * time of itself. "Now" is when it last looked at the clock before it spun or slept for the first time; until
 * it has looked, time does not go on at all, for nobody can keep a deadline that he does not know yet.
 * CLOCK_NEVER: no limit any more. */
void sim_deadline_in(uint64_t ns);

/* The time that this has come to, and what it would be if it counted from the first look. */
uint64_t sim_deadline(uint64_t *ret_earliest);

/* No other coroutine runs between these two; they do not nest. */
void sim_alone(void);
void sim_together(void);

/* As long as it is calm only the usual choices are made: this is not what the run is about. */
void sim_calm(bool is_calm);

/* Called whenever nobody can run and time is about to go on; and in which nobody switches. */
void sim_on_quiet(void (*quiet)(void *), void *context);

/* Blocks of memory lent in this run and not given back. */
size_t sim_lent(void);

/* Locks that the calling coroutine holds. */
unsigned sim_locks(void);

/* Is this coroutine asleep in park_wait or sim_sleep? */
bool sim_is_asleep(int number);

/* A word of memory as it is now, whatever the calling coroutine may see of it; no switching point. */
#define SIM_PEEK(p) atomic_load_explicit(p, memory_order_relaxed)

/* A line in the trace. Nothing is computed for it where there is none. */
#define sim_note(...)                               \
        do                                          \
                if (__builtin_expect(sim.traced, 0)) \
                        sim_note_traced(__VA_ARGS__); \
        while (0)
void sim_note_traced(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The run has broken a law: it ends here, with this message. */
void sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn, cold));

/* A choice of the strategy among `count`, of which 0 is the usual one. */
unsigned sim_choose(enum sim_choice_kind kind, unsigned count);

#endif
