/* bench/buffers/load.h - the load generator: the last line of every adapter (bench/buffers/rival.h).
 *
 *      PROGRAM                         lists the workloads
 *      PROGRAM WORKLOAD MILLISECONDS   runs one; each phase (bench/base/phases.h) is so long
 *
 * The waits are the acquires alone. In the environment BENCH_NAME gives the rival another name, for an
 * allocator that was put below the program by LD_PRELOAD.
 */
#ifndef BENCH_BUFFERS_LOAD_H
#define BENCH_BUFFERS_LOAD_H

#include <math.h>

enum act { ACT_PAIR, ACT_BATCH, ACT_HAND_OVER, ACT_CHURN };

struct workload {
        const char *name;
        const char *length;
        const char *says;
        enum act act;
        unsigned threads;
        size_t bytes; /* 0: any */
};

static const struct workload workloads[] = {
        {"B1", "short", "1 thread, 64 B", ACT_PAIR, 1, 64},
        {"B2", "short", "1 thread, 4 KiB", ACT_PAIR, 1, 4096},
        {"B3", "short", "1 thread, 64 KiB", ACT_PAIR, 1, 65536},
        {"B4", "short", "1 thread, 64 B, 32 of them at a time", ACT_BATCH, 1, 64},
        {"B5", "short", "2 threads, 4 KiB, each its own", ACT_PAIR, 2, 4096},
        {"B6", "short", "1 thread acquires 4 KiB, another releases; an operation is one of the two",
         ACT_HAND_OVER, 2, 4096},
        {"B7", "long", "8 threads, 16 B to 1 MiB at random, lent for a random time", ACT_CHURN, 8, 0},
};

#define WORKLOADS (sizeof workloads / sizeof workloads[0])
#define BATCH 32
#define RING 256    /* buffers under way from one thread to the other; a power of two */
#define TABLE 1024  /* places of the churn: 97 MB in all */
#define SIZES 65536 /* drawn sizes, a power of two */
#define SMALLEST 16.0
#define LARGEST 1048576.0
#define PAGE 4096
#define LOOKS_EVERY 256 /* operations of the first thread between two looks at the resident memory */

enum tally { TALLY_DAMAGED, TALLY_RESIDENT, TALLY_LIVE };

static const struct workload *work;

static struct {
        void *buffer[RING];
        _Atomic uint64_t sent __attribute__((aligned(128)));
        _Atomic uint64_t received __attribute__((aligned(128)));
} ring;

static struct {
        void *_Atomic place[TABLE];
        size_t size[SIZES];
        _Atomic int64_t live;
        int64_t resident_before;
} churn;

/* Keep the compiler from leaving out a pair that nobody uses. */
static inline void used(void *buffer)
{
        __asm__ __volatile__("" : : "r"(buffer) : "memory");
}

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#endif
}

/* ---- pairs and batches -----------------------------------------------------------------------------------
 */

static inline uint64_t pairs(struct worker *self, enum phase phase)
{
        uint64_t done = 0;
        size_t bytes = work->bytes;

        if (phase != PHASE_CLOCK) {
                for (; !is_over(phase); done++) {
                        void *buffer = rival_acquire(bytes);

                        used(buffer);
                        rival_release(buffer, bytes);
                }
                return done;
        }
        for (; !is_over(phase); done++) {
                uint64_t asked = now_ns();
                void *buffer = rival_acquire(bytes);

                histogram_count(self->waits, now_ns() - asked);
                used(buffer);
                rival_release(buffer, bytes);
        }
        return done;
}

static inline void take_batch(void **buffers)
{
#ifdef RIVAL_BULK
        rival_acquire_bulk(work->bytes, BATCH, buffers);
#else
        for (unsigned i = 0; i < BATCH; i++)
                buffers[i] = rival_acquire(work->bytes);
#endif
}

static inline void give_batch(void **buffers)
{
#ifdef RIVAL_BULK
        rival_release_bulk(work->bytes, BATCH, buffers);
#else
        for (unsigned i = 0; i < BATCH; i++)
                rival_release(buffers[i], work->bytes);
#endif
}

static uint64_t batches(struct worker *self, enum phase phase)
{
        void *buffers[BATCH];
        uint64_t done = 0;

        for (; !is_over(phase); done += BATCH) {
                uint64_t asked = phase == PHASE_CLOCK ? now_ns() : 0;

                take_batch(buffers);
                if (phase == PHASE_CLOCK)
                        histogram_count(self->waits, now_ns() - asked);
                used(buffers);
                give_batch(buffers);
        }
        return done;
}

/* ---- from one thread to another --------------------------------------------------------------------------
 */

static uint64_t send(struct worker *self, enum phase phase)
{
        uint64_t done = 0, sent = atomic_load_explicit(&ring.sent, memory_order_relaxed);

        while (!is_over(phase)) {
                uint64_t asked;

                if (sent - atomic_load_explicit(&ring.received, memory_order_acquire) == RING) {
                        relax();
                        continue;
                }
                asked = phase == PHASE_CLOCK ? now_ns() : 0;
                ring.buffer[sent % RING] = rival_acquire(work->bytes);
                if (phase == PHASE_CLOCK)
                        histogram_count(self->waits, now_ns() - asked);
                atomic_store_explicit(&ring.sent, ++sent, memory_order_release);
                done++;
        }
        return done;
}

static uint64_t receive(enum phase phase)
{
        uint64_t done = 0, received = atomic_load_explicit(&ring.received, memory_order_relaxed);

        while (!is_over(phase)) {
                if (atomic_load_explicit(&ring.sent, memory_order_acquire) == received) {
                        relax();
                        continue;
                }
                rival_release(ring.buffer[received % RING], work->bytes);
                atomic_store_explicit(&ring.received, ++received, memory_order_release);
                done++;
        }
        return done;
}

/* ---- churn -----------------------------------------------------------------------------------------------
 */

/* What a buffer of the churn begins with: a size, and an address that only this buffer can have. */
struct stamp {
        size_t bytes;
        void *self;
};

static int64_t resident_bytes(void)
{
        long size = 0, resident = 0;
        FILE *file = fopen("/proc/self/statm", "re");

        if (file) {
                if (fscanf(file, "%ld %ld", &size, &resident) != 2)
                        resident = 0;
                (void)fclose(file);
        }
        return (int64_t)resident * sysconf(_SC_PAGESIZE);
}

static inline uint64_t draw(uint64_t *state)
{
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        return *state;
}

static void drop(struct worker *self, struct stamp *stamp)
{
        size_t bytes = stamp->bytes;

        self->tally[TALLY_DAMAGED] += stamp->self != stamp;
        stamp->self = NULL;
        atomic_fetch_sub_explicit(&churn.live, (int64_t)bytes, memory_order_relaxed);
        rival_release(stamp, bytes);
}

static void *lend(struct worker *self, enum phase phase, size_t bytes)
{
        uint64_t asked = phase == PHASE_CLOCK ? now_ns() : 0;
        struct stamp *stamp = rival_acquire(bytes);

        if (phase == PHASE_CLOCK)
                histogram_count(self->waits, now_ns() - asked);
        for (size_t i = PAGE; i < bytes; i += PAGE)
                ((char *)stamp)[i] = 1;
        *stamp = (struct stamp){bytes, stamp};
        atomic_fetch_add_explicit(&churn.live, (int64_t)bytes, memory_order_relaxed);
        return stamp;
}

static void look_at_memory(struct worker *self)
{
        int64_t resident = resident_bytes() - churn.resident_before;

        self->tally[TALLY_RESIDENT] += resident > 0 ? (uint64_t)resident : 0;
        self->tally[TALLY_LIVE] += (uint64_t)atomic_load_explicit(&churn.live, memory_order_relaxed);
}

/* Each turn empties a place of the table and fills it anew, so about as much is lent at any time. */
static uint64_t replace(struct worker *self, enum phase phase)
{
        uint64_t done = 0, state = 0x9e3779b97f4a7c15u * (self->index + 1) + phase;

        for (; !is_over(phase); done++) {
                void *_Atomic *place = &churn.place[draw(&state) % TABLE];
                void *old = atomic_exchange(place, lend(self, phase, churn.size[draw(&state) % SIZES]));

                if (old)
                        drop(self, old);
                if (self->index == 0 && phase == PHASE_COUNT && done % LOOKS_EVERY == 0)
                        look_at_memory(self);
        }
        return done;
}

static void prepare_churn(void)
{
        for (size_t i = 0; i < SIZES; i++)
                churn.size[i] = (size_t)(SMALLEST * pow(LARGEST / SMALLEST, ((double)i + 0.5) / SIZES));
        churn.resident_before = resident_bytes();
        for (size_t i = 0; i < TABLE; i++)
                churn.place[i] = lend(NULL, PHASE_WARM, churn.size[i * (SIZES / TABLE)]);
}

/* ---- a run -----------------------------------------------------------------------------------------------
 */

static uint64_t load(struct worker *self, enum phase phase)
{
        switch (work->act) {
        case ACT_PAIR:
                return pairs(self, phase);
        case ACT_BATCH:
                return batches(self, phase);
        case ACT_HAND_OVER:
                return self->index == 0 ? send(self, phase) : receive(phase);
        default:
                return replace(self, phase);
        }
}

/* What is still under way or in the table. Returns: how many buffers were not as their borrower left them. */
static uint64_t release_rest(struct outcome *outcome)
{
        struct worker rest = {0};

        while (ring.received < ring.sent)
                rival_release(ring.buffer[ring.received++ % RING], work->bytes);
        for (unsigned i = 0; i < TABLE; i++)
                if (churn.place[i])
                        drop(&rest, churn.place[i]);
        return outcome_tally(outcome, TALLY_DAMAGED) + rest.tally[TALLY_DAMAGED];
}

static int run(unsigned ms)
{
        const char *name = getenv("BENCH_NAME");
        bool real_time = quiet_begin(work->threads <= 2, 0);
        char remarks[64], measures[64] = "-";
        struct outcome outcome;
        uint64_t live;

        rival_open(work->bytes);
        if (work->act == ACT_CHURN)
                prepare_churn();
        outcome = phases_run(work->threads, ms, load);
        (void)snprintf(remarks, sizeof remarks, "%s%s", release_rest(&outcome) ? "DOUBLE-USE" : "ok",
                       work->threads <= 2 && !real_time ? ",not-real-time" : "");
        live = outcome_tally(&outcome, TALLY_LIVE);
        if (live)
                (void)snprintf(measures, sizeof measures, "rss_over_live=%.3f",
                               (double)outcome_tally(&outcome, TALLY_RESIDENT) / (double)live);
        outcome_print(&outcome, name ? name : RIVAL_NAME, work->name, remarks, measures);
        rival_close();
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
        return run((unsigned)ms);
}

#endif
