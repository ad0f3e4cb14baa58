/* Commands as text: what an operator types, carried out by the same functions that an embedder calls. */
#include <ctype.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/park.h"
#include "base/sized.h"
#include "lido/admin.h"
#include "lido/stats.h"
#include "lido/version.h"
#include "pool/blame.h"
#include "pool/waitq.h"
#include "watch/states.h"
#include "watch/text.h"

#define WAIT_CLOSE_MS 10000
#define WAITERS_SHOWN 64

/* One line at work. */
struct job {
        const struct lido_commands *on;
        const char *rest; /* of the line */
        struct text *text;
};

struct command {
        const char *name; /* in capitals; a word of SHOW likewise */
        bool is_show;
        /* For each pool that is meant; NULL where that is not per pool. Returns: LIDO_OK; a code that ends the command. */
        int (*for_pool)(struct job *job, struct lido_pool *pool);
        void (*once)(struct job *job); /* first: the head of a table, or all there is to do */
        const char *help;
};

/* ---- words ------------------------------------------------------------------------------------------------- */

static size_t skip_space(const char **at)
{
        *at += strspn(*at, " \t\r\n");
        return strcspn(*at, " \t\r\n;");
}

static bool is_word(const char *word, size_t length, const char *name)
{
        return strlen(name) == length && strncasecmp(word, name, length) == 0;
}

/* Nothing behind it but a semicolon. */
static bool is_end(const char *at)
{
        at += strspn(at, " \t\r\n;");
        return *at == '\0';
}

static void fail(struct job *job, const char *what, const char *word, size_t length)
{
        text_add(job->text, "ERROR: %s%s%.*s%s\n", what, length > 0 ? " \"" : "", (int)length, word, length > 0 ? "\"" : "");
}

/* ---- what is done ------------------------------------------------------------------------------------------ */

static int do_pause(struct job *job, struct lido_pool *pool)
{
        (void)job;
        return lido_pool_pause(pool, LIDO_PAUSE_HOLD);
}

static int do_resume(struct job *job, struct lido_pool *pool)
{
        (void)job;
        return lido_pool_resume(pool);
}

static int do_reconnect(struct job *job, struct lido_pool *pool)
{
        (void)job;
        return lido_pool_rotate(pool, 0);
}

static int do_clear(struct job *job, struct lido_pool *pool)
{
        (void)job;
        return lido_pool_clear(pool);
}

/* Objects that a rotation has still to see off. */
static bool has_old(struct lido_pool *pool)
{
        uint64_t asked_ns = load_relaxed(&pool->rotate_asked_ns);

        slots_for_each (slot, &pool->slots) {
                enum slot_state state = word_state(load_acquire(&slot->word));

                if (state != SLOT_VACANT && state != SLOT_OPENING && load_relaxed(&slot->born_ns) < asked_ns)
                        return true;
        }
        return false;
}

static int do_wait_close(struct job *job, struct lido_pool *pool)
{
        int64_t timeout_ms = job->on->wait_timeout_ms != 0 ? job->on->wait_timeout_ms : WAIT_CLOSE_MS;
        uint64_t deadline_ns = clock_after_ms(clock_now_ns(), timeout_ms);

        if (pool_must_not_wait(pool))
                return LIDO_EDEADLK;
        for (;;) {
                uint32_t changes = load_seq_cst(&pool->changes); /* before the look: pairs with pool_changed */

                if (!has_old(pool))
                        return LIDO_OK;
                if (!park_wait(&pool->changes, changes, deadline_ns))
                        return LIDO_ETIMEDOUT;
        }
}

static int do_set(struct job *job, struct lido_pool *pool)
{
        struct lido_pool_options options = *pool_options(pool);
        struct lido_error error = { .code = LIDO_OK };
        int rc;

        options.max = load_relaxed(&pool->max); /* lido_pool_resize may have changed it since */
        rc = lido_options_parse(&options, job->rest, &error);
        if (rc == LIDO_OK)
                rc = lido_pool_reconfigure(pool, &options, &error);
        if (rc != LIDO_OK && error.text[0])
                fail(job, error.text, "", 0);
        return rc;
}

/* ---- what is shown ----------------------------------------------------------------------------------------- */

static void head_pools(struct job *job)
{
        text_add(job->text, "pool\tkind\tstate\tmax\tlive\tidle\tleased\topening\tchecking\tresetting\tclosing\twaiting\toldest_ms\n");
}

static const char *state_of(struct lido_pool *pool)
{
        uint64_t gate = load_seq_cst(&pool->gate);

        return gate & (GATE_CLOSED | GATE_ORPHANED) ? "closed" : gate & GATE_PAUSED ? "paused" : "active";
}

static int show_pool(struct job *job, struct lido_pool *pool)
{
        struct lido_stats stats = LIDO_STATS_INIT;
        uint64_t since_ns = waitq_oldest_ns(pool), now = clock_now_ns();

        lido_pool_stats(pool, &stats);
        text_add(job->text, "%s\t%s\t%s\t%u\t%u\t%u\t%u\t%u\t%u\t%u\t%u\t%u\t%" PRIu64 "\n", pool->name,
                 pool->factory.kind ? pool->factory.kind : "", state_of(pool), stats.max, stats.live, stats.idle,
                 stats.leased, stats.opening, stats.checking, stats.resetting, stats.closing, stats.waiting,
                 since_ns < now ? (now - since_ns) / NS_PER_MS : 0);
        return LIDO_OK;
}

static void head_handles(struct job *job)
{
        text_add(job->text, "pool\tslot\tstate\tage_ms\tleases\tthread\tsite\ttag\theld_ms\tobject\n");
}

/* What the factory says about an object in use; it stays whole meanwhile. */
static void describe(struct lido_pool *pool, struct lido_slot *slot, uint64_t word, char *line, size_t size)
{
        struct thread_self *self = thread_self();
        void *outer = self->in_hook;

        line[0] = '\0';
        if (!pool->factory.describe || !slot_hold(slot, word_generation(word), SLOT_LEASED))
                return;
        self->in_hook = pool;
        pool->factory.describe(load_relaxed(&slot->object), line, size, pool->factory.context);
        self->in_hook = outer;
        slot_let_go(slot);
        line[size - 1] = '\0';
        for (char *c = line; *c; c++)
                if (iscntrl((unsigned char)*c))
                        *c = ' ';
}

static void show_slot(struct job *job, struct lido_pool *pool, struct lido_slot *slot, uint64_t now)
{
        uint64_t word = load_acquire(&slot->word), born_ns = load_relaxed(&slot->born_ns);
        bool is_leased = word_state(word) == SLOT_LEASED, is_open = load_relaxed(&slot->life) != 0;
        const char *site = load_relaxed(&slot->site), *tag = load_relaxed(&slot->tag);
        char line[200];

        if (word_state(word) == SLOT_VACANT)
                return;
        text_add(job->text, "%s\t%u\t%s%s\t%" PRIu64 "\t%" PRIu64, pool->name, load_relaxed(&slot->index),
                 state_names[word_state(word)], word & MARK_SUSPECT ? ",doubted" : "",
                 is_open && born_ns < now ? (now - born_ns) / NS_PER_MS : 0, load_relaxed(&slot->leases));
        if (is_leased) {
                describe(pool, slot, word, line, sizeof line);
                text_add(job->text, "\t%u\t%s\t%s\t%" PRIu64 "\t%s\n", slot_holder(slot, word), site ? site : "?", tag ? tag : "",
                         blame_held_ns(pool, slot, word, now) / NS_PER_MS, line);
        } else {
                text_add(job->text, "\t\t\t\t\t\n");
        }
}

static int show_handles(struct job *job, struct lido_pool *pool)
{
        uint64_t now = clock_now_ns();

        slots_for_each (slot, &pool->slots)
                show_slot(job, pool, slot, now);
        return LIDO_OK;
}

static void head_waiters(struct job *job)
{
        text_add(job->text, "pool\tpriority\tthread\tsite\ttag\twaited_ms\n");
}

/* Copied under the lock, written without it. A thread's waiter lies on its stack; site and tag are constants. */
static int show_waiters(struct job *job, struct lido_pool *pool)
{
        static const char *const priorities[PRIORITIES] = { "normal", "high", "low", "critical" };
        struct pool_waiter shown[WAITERS_SHOWN];
        uint32_t count = 0;
        uint64_t now;

        mutex_lock(&pool->waitq.lock);
        for (int i = 0; i < PRIORITIES; i++)
                list_for_each (link, &pool->waitq.line[i]) {
                        const struct pool_waiter *w = list_entry(link, struct pool_waiter, waiter.link);

                        if (count < WAITERS_SHOWN) {
                                shown[count].priority = w->priority;
                                shown[count].thread = w->thread;
                                shown[count].site = w->site;
                                shown[count].tag = w->tag;
                                shown[count++].began_ns = w->began_ns;
                        }
                }
        mutex_unlock(&pool->waitq.lock);
        now = clock_now_ns();
        for (uint32_t i = 0; i < count; i++)
                text_add(job->text, "%s\t%s\t%u\t%s\t%s\t%" PRIu64 "\n", pool->name, priorities[shown[i].priority],
                         shown[i].thread, shown[i].site ? shown[i].site : "?", shown[i].tag ? shown[i].tag : "",
                         shown[i].began_ns < now ? (now - shown[i].began_ns) / NS_PER_MS : 0);
        return LIDO_OK;
}

static void head_stats(struct job *job)
{
        text_add(job->text, "pool\tacquired\twaited\ttimed_out\tcanceled\trefused\topened\topen_failed\tclosed\tchecked\treset\t"
                            "misused\tleaked\twait_p50_us\twait_p99_us\twait_max_us\topen_p50_us\n");
}

static int show_stats(struct job *job, struct lido_pool *pool)
{
        struct lido_stats stats = LIDO_STATS_INIT;
        uint64_t closed = 0;

        lido_pool_stats(pool, &stats);
        for (int i = 0; i < LIDO_CLOSE_REASONS; i++)
                closed += stats.closed[i];
        text_add(job->text, "%s\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64,
                 pool->name, stats.acquired, stats.waited, stats.timed_out, stats.canceled, stats.refused, stats.opened,
                 stats.open_failed);
        text_add(job->text, "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64, closed, stats.checked, stats.reset,
                 stats.misused, stats.leaked);
        text_add(job->text, "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\n",
                 lido_histogram_quantile_ns(&stats.wait, 0.5) / NS_PER_US,
                 lido_histogram_quantile_ns(&stats.wait, 0.99) / NS_PER_US, stats.wait.max_ns / NS_PER_US,
                 lido_histogram_quantile_ns(&stats.open_time, 0.5) / NS_PER_US);
        return LIDO_OK;
}

static void head_health(struct job *job)
{
        text_add(job->text, "pool\thealth\n");
}

static int show_health(struct job *job, struct lido_pool *pool)
{
        struct lido_health health = LIDO_HEALTH_INIT;

        lido_pool_health(pool, 0, &health);
        text_add(job->text, "%s\t%s\n", pool->name, health.text);
        return LIDO_OK;
}

static void head_config(struct job *job)
{
        text_add(job->text, "pool\toptions\n");
}

static int show_config(struct job *job, struct lido_pool *pool)
{
        struct lido_pool_options options = *pool_options(pool);
        char line[2000];

        options.max = load_relaxed(&pool->max);
        lido_options_print(&options, line, sizeof line);
        text_add(job->text, "%s\t%s\n", pool->name, line);
        return LIDO_OK;
}

static void show_options(struct job *job)
{
        char lines[6000];

        lido_options_describe(lines, sizeof lines);
        text_add(job->text, "%s", lines);
}

static void show_version(struct job *job)
{
        text_add(job->text, "version\nlido %s\n", lido_version());
}

static void show_help(struct job *job);

/* ---- the table --------------------------------------------------------------------------------------------- */

static const struct command table[] = {
        { "PAUSE", false, do_pause, NULL, "PAUSE [pool]: lend nothing more, let borrowers wait" },
        { "RESUME", false, do_resume, NULL, "RESUME [pool]: end a pause" },
        { "RECONNECT", false, do_reconnect, NULL, "RECONNECT [pool]: replace every object by a new one" },
        { "WAIT_CLOSE", false, do_wait_close, NULL, "WAIT_CLOSE [pool]: wait until what was replaced is closed" },
        { "CLEAR", false, do_clear, NULL, "CLEAR [pool]: close idle objects now, lent ones when they return" },
        { "SET", false, do_set, NULL, "SET pool option=value ...: put other options into force" },
        { "POOLS", true, show_pool, head_pools, "SHOW POOLS [pool]: gauges" },
        { "HANDLES", true, show_handles, head_handles, "SHOW HANDLES [pool]: each object, and who has it" },
        { "WAITERS", true, show_waiters, head_waiters, "SHOW WAITERS [pool]: who stands in line" },
        { "STATS", true, show_stats, head_stats, "SHOW STATS [pool]: counters and quantiles" },
        { "HEALTH", true, show_health, head_health, "SHOW HEALTH [pool]: whether something is wrong, by a look" },
        { "CONFIG", true, show_config, head_config, "SHOW CONFIG [pool]: options in force" },
        { "OPTIONS", true, NULL, show_options, "SHOW OPTIONS: what each option means" },
        { "VERSION", true, NULL, show_version, "SHOW VERSION" },
        { "HELP", true, NULL, show_help, "SHOW HELP" },
};
#define COMMANDS (sizeof table / sizeof table[0])

static void show_help(struct job *job)
{
        for (size_t i = 0; i < COMMANDS; i++)
                text_add(job->text, "%s\n", table[i].help);
}

static const struct command *find(const char *word, size_t length, bool is_show)
{
        for (size_t i = 0; i < COMMANDS; i++)
                if (table[i].is_show == is_show && is_word(word, length, table[i].name))
                        return &table[i];
        return NULL;
}

static bool is_named(const struct lido_pool *pool, const char *name, size_t length)
{
        return pool && strlen(pool->name) == length && memcmp(pool->name, name, length) == 0;
}

/* Returns: how many pools have the name. */
static uint32_t count_named(const struct lido_commands *on, const char *name, size_t length)
{
        uint32_t count = 0;

        for (uint32_t i = 0; i < on->count; i++)
                count += is_named(on->pools[i], name, length);
        return count;
}

/* Carry a command out for the pool of this name, or for all. */
static void run_on_pools(struct job *job, const struct command *command, const char *name, size_t length)
{
        size_t before = job->text->length;

        for (uint32_t i = 0; i < job->on->count; i++) {
                struct lido_pool *pool = job->on->pools[i];
                int rc;

                if (!pool || (length > 0 && !is_named(pool, name, length)))
                        continue;
                rc = load_seq_cst(&pool->gate) & GATE_FORKED ? LIDO_EFORKED : command->for_pool(job, pool);
                if (rc == LIDO_OK)
                        continue;
                if (job->text->length == before || command->is_show)
                        fail(job, lido_strerror(rc), pool->name, strlen(pool->name));
                return;
        }
        if (!command->is_show)
                text_add(job->text, "%s\n", command->name);
}

static void run(struct job *job, const struct command *command)
{
        const char *name = job->rest;
        size_t length = skip_space(&name);

        job->rest = name + length;
        if (command->for_pool == do_set ? length == 0 : !is_end(job->rest)) {
                fail(job, "it is used like this:", command->help, strlen(command->help));
        } else if (length > 0 && (!command->for_pool || count_named(job->on, name, length) == 0)) {
                fail(job, "there is no pool", name, length);
        } else {
                if (command->once)
                        command->once(job);
                if (command->for_pool)
                        run_on_pools(job, command, name, length);
        }
}

static void run_line(struct job *job)
{
        size_t length = skip_space(&job->rest);
        bool is_show = is_word(job->rest, length, "SHOW");
        const struct command *command;

        if (is_show) {
                job->rest += length;
                length = skip_space(&job->rest);
        }
        command = find(job->rest, length, is_show);
        if (!command)
                fail(job, is_show ? "there is nothing to show called" : "there is no command", job->rest, length);
        else if (!is_show && (job->on->flags & LIDO_COMMANDS_READ_ONLY))
                fail(job, "only SHOW is allowed here", "", 0);
        else {
                job->rest += length;
                run(job, command);
        }
}

size_t lido_command(const struct lido_commands *on, const char *line, char *text, size_t size)
{
        struct lido_commands ours;
        struct text answer;
        struct job job = { &ours, line, &answer };

        if (!on || !line || (!text && size > 0) || sized_take(&ours, sizeof ours, on) != LIDO_OK ||
            (ours.count > 0 && !ours.pools) || (ours.flags & ~LIDO_COMMANDS_READ_ONLY) || ours.wait_timeout_ms < LIDO_NEVER)
                return 0;
        text_init(&answer, text, size);
        run_line(&job);
        return answer.length;
}
