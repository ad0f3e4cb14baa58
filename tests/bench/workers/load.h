/* bench/workers/load.h - the load generator: included by every adapter (bench/workers/rival.h) once struct
 * own is known.
 *
 *      PROGRAM                         lists the workloads
 *      PROGRAM WORKLOAD MILLISECONDS   runs one; each phase (bench/base/phases.h) is so long
 *
 * Every task counts how often it was run: once for each submit, or the run is shown as DOUBLE-USE.
 */
#ifndef BENCH_WORKERS_LOAD_H
#define BENCH_WORKERS_LOAD_H

enum act { ACT_IDLE, ACT_FLOOD, ACT_CANCEL, ACT_LOOP };

struct workload {
        const char *name;
        const char *length;
        const char *says;
        enum act act;
        unsigned producers;
        unsigned workers;
        unsigned lot; /* tasks of a producer submitted at once */
};

static const struct workload workloads[] = {
        {"J1", "long", "a task each millisecond for 4 idle workers; the wait is until it begins", ACT_IDLE, 1,
         4, 1},
        {"J2", "short", "1 producer, 2 workers, 50000 empty tasks at a time", ACT_FLOOD, 1, 2, 50000},
        {"J3", "short", "1 producer, 8 workers, 50000 empty tasks at a time", ACT_FLOOD, 1, 8, 50000},
        {"J4", "short", "8 producers, 2 workers, 10000 empty tasks at a time each", ACT_FLOOD, 8, 2, 10000},
        {"J5", "short", "8 producers, 8 workers, 10000 empty tasks at a time each", ACT_FLOOD, 8, 8, 10000},
        {"J6", "short", "10000 empty tasks for 4 idle workers; the wait is the submit", ACT_FLOOD, 1, 4,
         10000},
        {"J7", "short", "submit and cancel while all workers are busy; the wait is the cancel", ACT_CANCEL, 1,
         2, 2048},
        {"J8", "short", "from a loop to 4 workers and back, 256 under way", ACT_LOOP, 1, 4, 256},
};

#define WORKLOADS (sizeof workloads / sizeof workloads[0])
#define REAP_NS 20000 /* between two looks whether a task has run */
#define PAUSE_NS 1000000

struct task {
        struct own own;
        void (*run)(struct task *task);
        uint64_t submitted, runs; /* the producer's and the worker's count */
        uint64_t begun_ns;
        atomic_bool is_busy;
} __attribute__((aligned(64)));

enum tally { TALLY_WRONG }; /* tasks that did not run once for each submit */

static inline void run_task(struct task *task);
static inline void task_is_free(struct task *task);
static inline void task_is_back(struct task *task);

/* What the adapter defines. */
static void rival_open(unsigned workers);
static void rival_begin(void);
static inline void rival_submit(struct task *task);
static inline void rival_reap(void);
static void rival_end(void);
#if RIVAL_CANCELS
static inline bool rival_cancel(struct task *task);
#endif
#if RIVAL_LOOPS
static inline void rival_submit_from_loop(uv_loop_t *loop, struct task *task);
static void rival_loop_end(uv_loop_t *loop);
#endif

static const struct workload *work;
static atomic_bool gate_is_open;

#ifndef RIVAL_FREES_EARLY
#define RIVAL_FREES_EARLY 0
#endif

static inline void task_is_free(struct task *task)
{
        atomic_store_explicit(&task->is_busy, false, memory_order_release);
}

static inline void run_task(struct task *task)
{
        task->run(task);
        if (RIVAL_FREES_EARLY)
                task_is_free(task);
}

static void count(struct task *task)
{
        task->runs++;
}

static void stamp(struct task *task)
{
        task->begun_ns = now_ns();
        task->runs++;
}

static void wait_at_gate(struct task *task)
{
        while (!atomic_load(&gate_is_open))
                sleep_ns(PAUSE_NS);
        task->runs++;
}

static inline bool is_busy(struct task *task)
{
        return atomic_load_explicit(&task->is_busy, memory_order_acquire);
}

static inline void submit(struct task *task)
{
        while (is_busy(task))
                rival_reap();
        atomic_store_explicit(&task->is_busy, true, memory_order_relaxed);
        task->submitted++;
        rival_submit(task);
}

static struct task *tasks_new(unsigned count, void (*run)(struct task *task))
{
        struct task *tasks = must_have(aligned_alloc(64, count * sizeof *tasks));

        memset(tasks, 0, count * sizeof *tasks);
        for (unsigned i = 0; i < count; i++)
                tasks[i].run = run;
        return tasks;
}

/* Wait for the last of them, count those that went wrong, and give the memory back. */
static void tasks_free(struct worker *self, struct task *tasks, unsigned count)
{
        for (unsigned i = 0; i < count; i++) {
                while (is_busy(&tasks[i]))
                        rival_reap();
                self->tally[TALLY_WRONG] += tasks[i].runs != tasks[i].submitted;
        }
        free(tasks);
}

/* ---- the workloads ---------------------------------------------------------------------------------------
 */

static uint64_t to_idle_workers(struct worker *self, enum phase phase)
{
        struct task *task = tasks_new(1, stamp);
        uint64_t done = 0;

        for (; !is_over(phase); done++) {
                uint64_t asked;

                sleep_ns(PAUSE_NS);
                asked = now_ns();
                submit(task);
                while (is_busy(task))
                        rival_reap();
                if (phase == PHASE_CLOCK)
                        histogram_count(self->waits, task->begun_ns - asked);
        }
        tasks_free(self, task, 1);
        return done;
}

/* Submit many, wait until all have run, and again. */
static uint64_t flood(struct worker *self, enum phase phase)
{
        struct task *tasks = tasks_new(work->lot, count);
        uint64_t done = 0;

        for (; !is_over(phase); done += work->lot) {
                uint64_t asked = now_ns();

                for (unsigned i = 0; i < work->lot; i++)
                        submit(&tasks[i]);
                if (phase == PHASE_CLOCK)
                        histogram_count(self->waits, (now_ns() - asked) / work->lot);
                for (unsigned i = work->lot; i-- > 0;)
                        while (is_busy(&tasks[i]))
                                rival_reap();
        }
        tasks_free(self, tasks, work->lot);
        return done;
}

static uint64_t cancel(struct worker *self, enum phase phase)
{
        uint64_t done = 0;
#if RIVAL_CANCELS
        struct task *guards = tasks_new(work->workers, wait_at_gate), *tasks = tasks_new(work->lot, count);

        atomic_store(&gate_is_open, false);
        for (unsigned i = 0; i < work->workers; i++)
                submit(&guards[i]);
        sleep_ns(PAUSE_NS);
        while (!is_over(phase)) {
                for (unsigned i = 0; i < work->lot; i++)
                        submit(&tasks[i]);
                for (unsigned i = 0; i < work->lot; i++, done++) {
                        uint64_t asked = phase == PHASE_CLOCK ? now_ns() : 0;
                        bool is_mine = rival_cancel(&tasks[i]);

                        if (phase == PHASE_CLOCK)
                                histogram_count(self->waits, now_ns() - asked);
                        tasks[i].submitted -= is_mine;
                }
        }
        atomic_store(&gate_is_open, true);
        tasks_free(self, tasks, work->lot);
        tasks_free(self, guards, work->workers);
#else
        (void)self, (void)phase, (void)wait_at_gate;
#endif
        return done;
}

/* ---- round trips from a loop -----------------------------------------------------------------------------
 */

#if RIVAL_LOOPS

static struct {
        struct worker *worker;
        enum phase phase;
        uv_loop_t loop;
        uint64_t done;
        unsigned out;
} trips;

static void send_off(struct task *task)
{
        if (trips.phase == PHASE_CLOCK)
                task->begun_ns = now_ns();
        task->submitted++;
        trips.out++;
        rival_submit_from_loop(&trips.loop, task);
}

static inline void task_is_back(struct task *task)
{
        if (trips.phase == PHASE_CLOCK)
                histogram_count(trips.worker->waits, now_ns() - task->begun_ns);
        trips.done++;
        trips.out--;
        if (!is_over(trips.phase))
                send_off(task);
}

static uint64_t round_trips(struct worker *self, enum phase phase)
{
        struct task *tasks = tasks_new(work->lot, count);

        trips.worker = self;
        trips.phase = phase;
        trips.done = 0;
        (void)uv_loop_init(&trips.loop);
        for (unsigned i = 0; i < work->lot; i++)
                send_off(&tasks[i]);
        while (trips.out)
                (void)uv_run(&trips.loop, UV_RUN_ONCE);
        rival_loop_end(&trips.loop);
        (void)uv_run(&trips.loop, UV_RUN_DEFAULT);
        if (uv_loop_close(&trips.loop))
                abort();
        for (unsigned i = 0; i < work->lot; i++)
                self->tally[TALLY_WRONG] += tasks[i].runs != tasks[i].submitted;
        free(tasks);
        return trips.done;
}

#else

static inline void task_is_back(struct task *task)
{
        (void)task;
}

static uint64_t round_trips(struct worker *self, enum phase phase)
{
        (void)self, (void)phase, (void)task_is_back;
        return 0;
}

#endif

/* ---- a run -----------------------------------------------------------------------------------------------
 */

static uint64_t load(struct worker *self, enum phase phase)
{
        static uint64_t (*const acts[])(struct worker *, enum phase) = {
                [ACT_IDLE] = to_idle_workers,
                [ACT_FLOOD] = flood,
                [ACT_CANCEL] = cancel,
                [ACT_LOOP] = round_trips,
        };
        uint64_t done;

        rival_begin();
        done = acts[work->act](self, phase);
        rival_end();
        return done;
}

static int run(unsigned ms)
{
        struct outcome outcome;

        (void)quiet_begin(false, 0);
        rival_open(work->workers);
        outcome = phases_run(work->producers, ms, load);
        outcome_print(&outcome, RIVAL_NAME, work->name,
                      outcome_tally(&outcome, TALLY_WRONG) ? "DOUBLE-USE" : "ok", "-");
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
        if ((work->act == ACT_CANCEL && !RIVAL_CANCELS) || (work->act == ACT_LOOP && !RIVAL_LOOPS)) {
                (void)printf("none\t%s\t%s\t%s\n", RIVAL_NAME, work->name,
                             work->act == ACT_CANCEL ? "it has no cancel" : "it knows no loop");
                return 0;
        }
        return run((unsigned)ms);
}

#endif
