/* sim/sched.h - the scheduler's inside, shared by sched.c, choose.c, memory.c, face.c and trace.c. */
#ifndef LIDO_SIM_SCHED_H
#define LIDO_SIM_SCHED_H

#include "base/random.h"
#include "sim/sim.h"

enum coroutine_state {
        COROUTINE_READY,
        COROUTINE_LOCKING,
        COROUTINE_PARKED,
        COROUTINE_JOINING,
        COROUTINE_DONE
};

struct coroutine {
        void *stack_pointer, *stack_top;
        struct sim_site *at;
        int state;
        bool is_daemon;
        bool timed_out;
        unsigned locks;
        uint32_t spun_at;       /* points passed when it spun last */
        uint32_t points;        /* passed so far, up to the last quantum */
        const void *blocked_on; /* the mutex, the word, or NULL */
        uint32_t slept_on;      /* the value of the word */
        uint64_t due;           /* when parked: CLOCK_NEVER or a time */
        uint64_t deadline;      /* sim_deadline_in */
        bool is_based;          /* the deadline counts from a look at the clock */
        uint64_t earliest;      /* what it would be, counted from the first look */
        uint64_t deadline_in;   /* not begun yet: CLOCK_NEVER when it has */
        const char *name;
        void (*run)(void *);
        void *argument;
        struct thread_self self;
};

struct scheduler {
        struct sim_strategy strategy;
        struct random random;
        uint64_t now;
        uint64_t steps, step_limit;
        int64_t given; /* the quantum last given, for counting steps */
        uint64_t hash;
        uint32_t ready; /* bit per coroutine */
        uint32_t spun;  /* of these, the ones that asked to let others go first */
        uint32_t passed_by; /* choices made since nobody was among those */
        uint32_t waiting[COROUTINE_DONE]; /* by what they wait for: bit per coroutine */
        uint64_t due;   /* when the first of the parked is due, unless somebody was woken since */
        bool is_due_known;
        uint32_t hurried; /* have a deadline: bit per coroutine */
        int count;      /* coroutines */
        int current;
        bool alone, calm;
        bool asks_driver; /* what the state is: the driver answers, for then all registers lie on the stack */
        bool is_seen;
        bool has_choice;
        unsigned preemptions_left, number; /* asked about */
        bool is_watched; /* a trace is wanted, or something is broken */
        unsigned stale_left, spurious_left;
        void (*quiet)(void *);
        void *quiet_context;
        struct sim_result result;
        struct coroutine driver;
        struct coroutine coroutine[SIM_COROUTINES];
};
extern struct scheduler sched;

/* choose.c */
void choose_start(uint64_t seed);
/* Who goes on: a ready coroutine, or SIM_CLOCK if `clock` says that time can. */
int choose_who(bool clock);
/* EXHAUSTIVE: does this run go on from the latest choice of the search, instead of from the beginning? */
bool choose_resume(unsigned *ret_number);
/* Points until the strategy wants to be asked again. */
int64_t choose_quantum(int who);
/* The current coroutine lets others go first. */
void choose_spun(void);
/* One more is ready. */
void choose_readied(int number);

/* sched.c */
void sched_block(int state, const void *on, uint64_t due);
void sched_ready(int number);
bool sched_clock_can_run(void);
void sched_tick(uint64_t ns); /* time goes on, though not past what is due */
void sched_clock_seen(
        bool is_final); /* the current coroutine looks at the clock; final: it spins or sleeps */
void sched_hash(uint64_t value);
void sched_ask_soon(void);   /* the strategy is asked again at the next point */
uint32_t sched_points(void); /* that the current coroutine has passed */

/* Has the search been here? If not, and there is a choice, the state is kept under its number. */
bool sched_state_is_seen(unsigned preemptions_left, bool has_choice, unsigned number);
void sched_merge(void) __attribute__((noreturn));    /* it has: the run ends */

/* state.c */
uint64_t state_hash(void);
void state_start(void);
void state_save(unsigned number);
void state_restore(unsigned number);
bool state_is_seen(uint64_t hash, unsigned preemptions_left);

/* memory.c */
void memory_start(bool weak);
void memory_calmed(void); /* a time of calm is over */
void memory_spawned(int parent, int child);
void memory_joined(int child, int parent);
void memory_locked(const void *mutex);
void memory_unlocked(const void *mutex);
void memory_woken(int waker, int sleeper);

/* face.c */
void face_start(void);
struct sim_block face_memory(void);
struct sim_block face_books(void);

/* region.c */
struct sim_block region_memory(void);

/* pools.c */
void pools_start(void);
/* The name of a region that lies at the same address in each process, and the offset in it; NULL: none. */
const char *sim_place(const volatile void *address, uint64_t *ret_offset);
bool sim_region_place(uintptr_t address, uint64_t *ret_offset);
bool sched_place(uintptr_t address, uint64_t *ret_offset);

/* trace.c */
void trace_step(const struct sim_site *site, const volatile void *address, const char *result,
                uint64_t value);
void trace_line(const char *text);

#endif
