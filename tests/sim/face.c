/* The functions of lib/base under the model scheduler, and its memory: an arena that is empty again at each
 * run. */
#define LIDO_SIM_BODY
#include "sim/face.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "base/mem.h"
#include "lido/error.h"
#include "sim/sched.h"

#define ARENA_AT ((char *)UINT64_C(0x100000000000)) /* the same in each process, so that traces are */
#define ARENA_SIZE ((size_t)64 << 20)
#define RELAX_NS 50 /* what one turn of a spin loop takes */
#define LENT UINT32_C(0x6c656e74)
#define FREED UINT32_C(0x66726565)

static struct {
        char *base;
        size_t used;
        size_t lent; /* blocks */
        uint64_t run;
} arena;

extern char __executable_start; /* the linker's */
#define EXECUTABLE_MOST (UINT64_C(16) << 20)

static void note(struct sim_site *site, const volatile void *address, const char *what, uint64_t value)
{
        site->hits++;
        if (sched.strategy.trace && !sched.alone)
                trace_step(site, address, what, value);
}

/* ---- locks -----------------------------------------------------------------------------------------------
 */

#define BORN_IN_A_RUN UINT64_MAX /* and gone with its memory */

void mutex_init(struct mutex *mutex)
{
        mutex->sim_owner = NULL;
        mutex->sim_run = BORN_IN_A_RUN;
}

static bool is_of_this_run(const struct mutex *mutex)
{
        return mutex->sim_run == BORN_IN_A_RUN || mutex->sim_run == arena.run;
}

bool sim_mutex_renew(struct mutex *mutex)
{
        if (is_of_this_run(mutex))
                return false;
        mutex->sim_run = arena.run;
        mutex->sim_owner = NULL;
        return true;
}

void mutex_fini(struct mutex *mutex)
{
        if (mutex->sim_owner && is_of_this_run(mutex))
                sim_fail("a lock ends while it is held");
}

/* Locks never nest, but for the ones of shelves of memory, under which nothing else is ever locked. */
static bool is_leaf(const struct sim_site *site)
{
        const char *file = strrchr(site->file, '/');

        return file && (strcmp(file, "/region.c") == 0 || strcmp(file, "/shelf.c") == 0);
}

void sim_mutex_lock(struct sim_site *site, struct mutex *mutex)
{
        struct coroutine *c;

        sim_point(site, mutex);
        c = sim.current;
        sim_mutex_renew(mutex);
        note(site, mutex, "lock", 0);
        if (c->locks && !is_leaf(site))
                sim_fail("%s:%d locks while it holds a lock", site->file, site->line);
        while (mutex->sim_owner)
                sched_block(COROUTINE_LOCKING, mutex, CLOCK_NEVER);
        mutex->sim_owner = c;
        c->locks++;
        memory_locked(mutex);
}

void sim_mutex_unlock(struct sim_site *site, struct mutex *mutex)
{
        struct coroutine *c = sim.current;

        note(site, mutex, "unlock", 0);
        if (mutex->sim_owner != c || !is_of_this_run(mutex))
                sim_fail("%s:%d unlocks what it has not locked", site->file, site->line);
        memory_unlocked(mutex);
        mutex->sim_owner = NULL;
        c->locks--;
        for (uint32_t left = sched.waiting[COROUTINE_LOCKING]; left; left &= left - 1)
                if (sched.coroutine[__builtin_ctz(left)].blocked_on == mutex)
                        sched_ready(__builtin_ctz(left));
}

/* ---- sleep -----------------------------------------------------------------------------------------------
 */

bool sim_park_wait(struct sim_site *site, _Atomic uint32_t *word, uint32_t value, uint64_t deadline_ns)
{
        uint32_t now_there;

        sim_point(site, word);
        if (sim.current->locks)
                sim_fail("%s:%d sleeps while it holds a lock", site->file, site->line);
        now_there =
                atomic_load_explicit(word, memory_order_relaxed); /* as the kernel does: the newest value */
        if (now_there != value) {
                note(site, word, "sleeps not, for it is", now_there);
                return true;
        }
        if (deadline_ns <= sched.now) {
                note(site, word, "sleeps not, for time has passed", now_there);
                return false;
        }
        if (sched.spurious_left && sim_choose(SIM_SPURIOUS, 2)) {
                sched.spurious_left--;
                note(site, word, "wakes for no reason", now_there);
                return true;
        }
        note(site, word, "sleeps", now_there);
        sim.current->slept_on = value;
        sched_block(COROUTINE_PARKED, word, deadline_ns);
        note(site, word, sim.current->timed_out ? "wakes, for time has passed" : "wakes", 0);
        return !sim.current->timed_out;
}

void sim_park_wake(struct sim_site *site, _Atomic uint32_t *word, int count)
{
        sim_point(site, word);
        note(site, word, site->mutation == SIM_DROPPED ? "dropped wake" : "wake", 0);
        if (sim.current->locks)
                sim_fail("%s:%d wakes while it holds a lock", site->file, site->line);
        if (site->mutation == SIM_DROPPED)
                return;
        for (uint32_t left = sched.waiting[COROUTINE_PARKED]; left && count > 0; left &= left - 1) {
                int i = __builtin_ctz(left);

                if (sched.coroutine[i].blocked_on == word) {
                        memory_woken(sched.current, i);
                        sched_ready(i);
                        count--;
                }
        }
}

/* ---- time and threads ------------------------------------------------------------------------------------
 */

uint64_t sim_clock(struct sim_site *site)
{
        sim_point(site, NULL);
        note(site, NULL, "clock", sched.now - SIM_START);
        sched_clock_seen(false);
        return sched.now;
}

/* Time goes on while somebody spins, or a spin that is bounded by time would not end. */
void sim_relax(struct sim_site *site)
{
        *sim.at = site;
        note(site, NULL, "spins", 0);
        sched_clock_seen(true);
        sched_tick(RELAX_NS);
        sim_spin();
}

uint64_t clock_now_ns(void)
{
        static struct sim_site outside = {"sim", "clock_now_ns", "", 0, SIM_OP_OTHER, SIM_RELAXED, 0, 0};

        return sim_clock(&outside);
}

uint64_t clock_boot_ns(void)
{
        return clock_now_ns();
}

struct thread_self *thread_self(void)
{
        return &sim.current->self;
}

uint32_t thread_id(void)
{
        return sim.current->self.id;
}

int thread_start(struct thread *thread, const char *name, size_t stack_size, void (*run)(void *),
                 void *argument)
{
        (void)stack_size;
        thread->run = run;
        thread->argument = argument;
        strncpy(thread->name, name, sizeof thread->name - 1);
        thread->name[sizeof thread->name - 1] = '\0';
        thread->sim_number = sim_spawn(thread->name, run, argument, false);
        return LIDO_OK;
}

void thread_join(struct thread *thread)
{
        sim_join(thread->sim_number);
}

int thread_is_self(const struct thread *thread)
{
        return thread->sim_number == sim_self();
}

void thread_yield(void)
{
        sim_spin();
}

uint64_t random_seed(void)
{
        return random_next(&sched.random);
}

/* ---- memory ----------------------------------------------------------------------------------------------
 */

void *mem_zalloc_aligned(size_t alignment, size_t size)
{
        size_t at = arena.used + 16;
        uint32_t *head;

        at = (at + alignment - 1) & ~(alignment - 1);
        if (at + size > ARENA_SIZE)
                return NULL;
        arena.used = at + size;
        arena.lent++;
        memset(arena.base + at, 0, size);
        head = (uint32_t *)(void *)(arena.base + at - 8);
        head[0] = LENT;
        head[1] = (uint32_t)size;
        return arena.base + at;
}

void *mem_zalloc(size_t size)
{
        return mem_zalloc_aligned(16, size);
}

char *mem_strdup(const char *string)
{
        size_t size = strlen(string) + 1;
        char *copy = mem_zalloc(size);

        if (copy)
                memcpy(copy, string, size);
        return copy;
}

/* What was freed is never lent again in the same run, and is full of a pattern that no word of the core may
 * show. */
void mem_free(void *memory)
{
        uint32_t *head;

        if (!memory)
                return;
        head = (uint32_t *)(void *)((char *)memory - 8);
        if (head[0] != LENT)
                sim_fail(head[0] == FREED ? "memory is freed twice" : "what is freed was never lent");
        head[0] = FREED;
        memset(memory, 0xdb, head[1]);
        arena.lent--;
}

void mem_wipe(void *memory, size_t size)
{
        memset(memory, 0, size);
}

/* Blocks that were lent in this run and not given back. */
size_t sim_lent(void)
{
        return arena.lent;
}

struct sim_block face_memory(void)
{
        return (struct sim_block){arena.base, (arena.used + 7) & ~(size_t)7};
}

struct sim_block face_books(void)
{
        return (struct sim_block){&arena, sizeof arena};
}

const char *sim_place(const volatile void *address, uint64_t *ret_offset)
{
        uintptr_t at = (uintptr_t)address;

        *ret_offset = 0;
        if (at - (uintptr_t)arena.base < ARENA_SIZE) {
                *ret_offset = at - (uintptr_t)arena.base;
                return "heap";
        }
        if (sched_place(at, ret_offset))
                return "stack";
        if (sim_region_place(at, ret_offset))
                return "slots";
        *ret_offset = at - (uintptr_t)&__executable_start;
        return *ret_offset < EXECUTABLE_MOST ? "static" : NULL;
}

void face_start(void)
{
        if (!arena.base) {
                arena.base = mmap(ARENA_AT, ARENA_SIZE, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
                lido_assert(arena.base != MAP_FAILED);
        }
        arena.used = 0;
        arena.lent = 0;
        arena.run++;
        pools_start();
}

void assert_failed(const char *condition, const char *file, int line)
{
        if (sim.current == NULL || sim.current == &sched.driver) {
                fprintf(stderr, "broken invariant at %s:%d: %s\n", file, line, condition);
                abort();
        }
        sim_fail("broken invariant at %s:%d: %s", file, line, condition);
}
