/* Is the model's memory the one of C11? Small programs whose possible outcomes are known, run exhaustively: what may be
 * seen must be seen, and nothing else. */
#include "sim/face.h"

#include "sim/litmus.h"

#include <stdio.h>
#include <string.h>

#include "sim/sim.h"

static _Atomic uint32_t x, y, z;
static unsigned seen[4];
static const struct litmus *now;

/* store buffering: each writes its own word, then reads the other's */
static void sb_relaxed_one(void *arg)
{
        (void)arg;
        store_relaxed(&x, 1);
        seen[0] = load_relaxed(&y);
}
static void sb_relaxed_two(void *arg)
{
        (void)arg;
        store_relaxed(&y, 1);
        seen[1] = load_relaxed(&x);
}
static void sb_release_one(void *arg)
{
        (void)arg;
        store_release(&x, 1);
        seen[0] = load_acquire(&y);
}
static void sb_release_two(void *arg)
{
        (void)arg;
        store_release(&y, 1);
        seen[1] = load_acquire(&x);
}
static void sb_seq_cst_one(void *arg)
{
        (void)arg;
        store_seq_cst(&x, 1);
        seen[0] = load_seq_cst(&y);
}
static void sb_seq_cst_two(void *arg)
{
        (void)arg;
        store_seq_cst(&y, 1);
        seen[1] = load_seq_cst(&x);
}
static void sb_rmw_two(void *arg)
{
        (void)arg;
        add_seq_cst(&y, 1);
        seen[1] = load_seq_cst(&x);
}

/* message passing: write the letter, then the flag; read the flag, then the letter */
static void mp_release(void *arg)
{
        (void)arg;
        store_relaxed(&x, 1);
        store_release(&y, 1);
}
static void mp_relaxed(void *arg)
{
        (void)arg;
        store_relaxed(&x, 1);
        store_relaxed(&y, 1);
}
static void mp_acquire(void *arg)
{
        (void)arg;
        seen[0] = load_acquire(&y);
        seen[1] = load_relaxed(&x);
}
static void mp_read_relaxed(void *arg)
{
        (void)arg;
        seen[0] = load_relaxed(&y);
        seen[1] = load_relaxed(&x);
}

/* a release sequence: a relaxed read-modify-write by a third passes the view on */
static void sequence_middle(void *arg)
{
        (void)arg;
        add_relaxed(&y, 1);
}
static void sequence_read(void *arg)
{
        (void)arg;
        seen[0] = load_acquire(&y);
        seen[1] = load_relaxed(&x);
}

/* coherence: two reads of one word do not go back */
static void coherence_write(void *arg)
{
        (void)arg;
        store_relaxed(&x, 1);
        store_relaxed(&x, 2);
}
static void coherence_read(void *arg)
{
        (void)arg;
        seen[0] = load_relaxed(&x);
        seen[1] = load_relaxed(&x);
}

/* independent reads of independent writes */
static void write_x(void *arg)
{
        (void)arg;
        store_release(&x, 1);
}
static void write_y(void *arg)
{
        (void)arg;
        store_release(&y, 1);
}
static void read_xy(void *arg)
{
        (void)arg;
        seen[0] = load_acquire(&x);
        seen[1] = load_acquire(&y);
}
static void read_yx(void *arg)
{
        (void)arg;
        seen[2] = load_acquire(&y);
        seen[3] = load_acquire(&x);
}
static void write_x_seq_cst(void *arg)
{
        (void)arg;
        store_seq_cst(&x, 1);
}
static void write_y_seq_cst(void *arg)
{
        (void)arg;
        store_seq_cst(&y, 1);
}
static void read_xy_seq_cst(void *arg)
{
        (void)arg;
        seen[0] = load_seq_cst(&x);
        seen[1] = load_seq_cst(&y);
}
static void read_yx_seq_cst(void *arg)
{
        (void)arg;
        seen[2] = load_seq_cst(&y);
        seen[3] = load_seq_cst(&x);
}

/* a lock hands over what was written under it */
static struct mutex lock = MUTEX_INIT;
static void locked_write(void *arg)
{
        (void)arg;
        mutex_lock(&lock);
        store_relaxed(&x, 1);
        store_relaxed(&y, 1);
        mutex_unlock(&lock);
}
static void locked_read(void *arg)
{
        (void)arg;
        mutex_lock(&lock);
        seen[0] = load_relaxed(&y);
        seen[1] = load_relaxed(&x);
        mutex_unlock(&lock);
}

/* two read-modify-writes never read the same store */
static void count_up(void *arg)
{
        seen[*(int *)arg] = add_relaxed(&z, 1);
}
static void count_up_one(void *arg)
{
        static int i = 0;

        (void)arg;
        count_up(&i);
}
static void count_up_two(void *arg)
{
        static int i = 1;

        (void)arg;
        count_up(&i);
}

const struct litmus litmus_tests[] = {
        { "store buffering, relaxed: both may read 0", { sb_relaxed_one, sb_relaxed_two }, 2, "00 01 10 11" },
        { "store buffering, release and acquire: both may read 0", { sb_release_one, sb_release_two }, 2, "00 01 10 11" },
        { "store buffering, seq_cst: one of them sees the other", { sb_seq_cst_one, sb_seq_cst_two }, 2, "01 10 11" },
        { "store buffering, seq_cst against a seq_cst add", { sb_seq_cst_one, sb_rmw_two }, 2, "01 10 11" },
        { "store buffering, one side weak: both may read 0", { sb_seq_cst_one, sb_release_two }, 2, "00 01 10 11" },
        { "message passing, release to acquire: no flag without its letter", { mp_release, mp_acquire }, 2, "00 01 11" },
        { "message passing, relaxed store: the letter may lag", { mp_relaxed, mp_acquire }, 2, "00 01 10 11" },
        { "message passing, relaxed load: the letter may lag", { mp_release, mp_read_relaxed }, 2, "00 01 10 11" },
        { "a relaxed add passes a release on",
          { mp_release, sequence_middle, sequence_read }, 2, "00 01 10 11 21" },
        { "two reads of one word do not go back", { coherence_write, coherence_read }, 2, "00 01 02 11 12 22" },
        { "independent writes, acquire: readers may differ in their order",
          { write_x, write_y, read_xy, read_yx }, 4,
          "0000 0001 0010 0011 0100 0101 0110 0111 1000 1001 1010 1011 1100 1101 1110 1111" },
        { "independent writes, seq_cst: readers agree on their order",
          { write_x_seq_cst, write_y_seq_cst, read_xy_seq_cst, read_yx_seq_cst }, 4,
          "0000 0001 0010 0011 0100 0101 0110 0111 1000 1001 1011 1100 1101 1110 1111" },
        { "a lock hands over what was written under it", { locked_write, locked_read }, 2, "00 11" },
        { "two adds never read the same", { count_up_one, count_up_two }, 2, "01 10" },
};
const unsigned litmus_count = sizeof litmus_tests / sizeof litmus_tests[0];

static void first(void *context)
{
        int number[4], count = 0;

        (void)context;
        sim_alone();
        store_relaxed(&x, 0);
        store_relaxed(&y, 0);
        store_relaxed(&z, 0);
        memset(seen, 0, sizeof seen);
        for (int i = 0; i < 4 && now->thread[i]; i++)
                number[count++] = sim_spawn("reader", now->thread[i], NULL, false);
        sim_together();
        for (int i = 0; i < count; i++)
                sim_join(number[i]);
}

uint64_t litmus_run(const struct litmus *test, char *ret_outcomes, size_t size)
{
        struct sim_strategy strategy = { .kind = SIM_EXHAUSTIVE, .preemptions = 4, .stale = 4 };
        bool happened[10000] = { false };
        uint64_t runs = 0;
        size_t length = 0;

        now = test;
        sim_search_start();
        do {
                unsigned outcome = 0;

                sim_run(&strategy, 0, first, NULL);
                for (unsigned i = 0; i < test->digits; i++)
                        outcome = outcome * 10 + seen[i];
                happened[outcome] = true;
                runs++;
        } while (sim_search_next());
        ret_outcomes[0] = '\0';
        for (unsigned i = 0; i < 10000; i++)
                if (happened[i] && length + 8 < size)
                        length += (size_t)snprintf(ret_outcomes + length, size - length, "%s%0*u", length ? " " : "",
                                                   (int)test->digits, i);
        return runs;
}
