#include "sim/face.h"

#include "sim/keyed.h"

#include <string.h>

#include "base/random.h"
#include "keyed/keyed.h"
#include "sim/factory.h"
#include "sim/service.h"

#define THREADS 4
#define ROUNDS 4
#define LONG_MS 100000

static struct {
        struct lido_service service;
        struct factory factory;
        struct program program;
        struct lido_keyed *keyed;
        uint32_t keys, threads, total;
        uint64_t seed;
        struct thief {
                int index, coroutine;
        } thread[THREADS];
        struct keyed_books books;
} the;

static void draw(uint64_t seed)
{
        struct random random = {seed ^ UINT64_C(0x6b65796564)};

        random_next(&random);
        the.seed = seed;
        the.threads = 2 + (uint32_t)random_below(&random, THREADS - 1);
        the.keys = 1 + (uint32_t)random_below(&random, 3);
        the.total = 1 + (uint32_t)random_below(&random, 3);
        program_plain(&the.program, the.total, 0);
        the.program.overtake_us = random_below(&random, 2) ? -1 : 500;
        the.program.open[0].us = random_below(&random, 2) ? 0 : 150;
        the.program.close_us = random_below(&random, 2) ? 0 : 100;
        the.program.idle_ms = random_below(&random, 2) ? 0 : 1;
        the.program.rest_ms = random_below(&random, 2) ? 0 : 1;
        if (random_below(&random, 4) == 0) {
                the.program.opens = 3;
                the.program.open[1] = the.program.open[2] = the.program.open[0];
                the.program.open[1].failure = LIDO_FAILURE_TRANSIENT;
        }
}

static void set_up(void)
{
        struct lido_pool_options each = LIDO_POOL_OPTIONS_INIT;
        struct lido_keyed_options options = LIDO_KEYED_OPTIONS_INIT;
        struct random random = {the.seed ^ UINT64_C(0x6f7074)};

        service_init(&the.service);
        factory_init(&the.factory, &the.program);
        the.factory.is_keyed = true;
        each.max = 1 + (uint32_t)random_below(&random, the.total);
        each.overtake_us = the.program.overtake_us;
        each.idle_timeout_ms = the.program.idle_ms ? (int64_t)the.program.idle_ms : LIDO_NEVER;
        each.rest_after_ms = the.program.rest_ms ? (int64_t)the.program.rest_ms : LIDO_NEVER;
        each.backoff_min_ms = 1;
        each.backoff_max_ms = 4;
        options.each = &each;
        options.total = the.total;
        options.spare_keys = 1;
        options.forget_after_ms = random_below(&random, 2) ? 1 : 20;
        if (lido_keyed_open(&the.keyed, &the.service, &the.factory.hooks, &options) != LIDO_OK)
                sim_fail("keyed pools cannot be opened");
}

static void check_lease(lido_lease lease, const struct object *object, char key)
{
        size_t size;
        const char *of = lido_lease_key(lease, &size);

        if (!of || size != 1 || *of != key || object->key != key)
                sim_fail("an object of key %c is lent for key %c", object->key, key);
}

/* Borrow by a key and give back. */
static void visit(struct thief *self, struct random *random)
{
        char key = (char)('a' + random_below(random, the.keys));
        uint32_t us = random_below(random, 3) ? 0 : random_below(random, 2) ? 1000 : 5000;
        uint64_t deadline, earliest;
        struct object *object;
        lido_lease lease;
        int rc;

        sim_deadline_in(us ? us * NS_PER_US : CLOCK_NEVER);
        rc = lido_keyed_acquire(the.keyed, lido_wish_at(&key, 1, us ? (int64_t)(us / 1000) : LIDO_NEVER, "keyed"), &lease);
        deadline = sim_deadline(&earliest);
        sim_deadline_in(CLOCK_NEVER);
        sim_note("%s: key %c says %s", sim_name(self->coroutine), key, lido_err_name(rc));
        if (rc == LIDO_ETIMEDOUT && us) {
                if (sim_now() < earliest || sim_now() > deadline)
                        sim_fail("an acquire by key times out at the wrong time");
                the.books.timed_out++;
                return;
        }
        if (rc != LIDO_OK)
                sim_fail("an acquire by key says %s", lido_err_name(rc));
        the.books.acquired++;
        object = lido_object(lease);
        if (!object)
                sim_fail("a lease that has just been given is not valid");
        factory_taken(object, self->coroutine);
        check_lease(lease, object, key);
        if (random_below(random, 2))
                sim_sleep(sim_now() + (1 + random_below(random, 3000)) * NS_PER_US);
        check_lease(lease, object, key);
        factory_returned(object, self->coroutine);
        rc = random_below(random, 5) ? lido_release_at(lease, "keyed") : lido_discard_at(lease, "keyed");
        if (rc != LIDO_OK)
                sim_fail("release says %s", lido_err_name(rc));
}

static void borrow(void *context)
{
        struct thief *self = context;
        struct random random = {the.seed * 77 + (uint64_t)self->index};
        unsigned rounds = 1 + (unsigned)random_below(&random, ROUNDS);

        for (unsigned i = 0; i < rounds; i++) {
                if (random_below(&random, 3) == 0)
                        sim_sleep(sim_now() + random_below(&random, 30000) * NS_PER_US);
                visit(self, &random);
        }
}

static void look(void *context)
{
        (void)context;
        budget_check(the.keyed->budget);
        if (the.factory.alive > the.total)
                sim_fail("%u objects of all keys where there may be %u", the.factory.alive, the.total);
}

static void tear_down(void)
{
        struct lido_keyed_stats stats = LIDO_KEYED_STATS_INIT;
        int rc;

        sim_on_quiet(NULL, NULL);
        lido_keyed_stats(the.keyed, &stats);
        the.books.forgotten = stats.forgotten;
        the.books.stolen = stats.budget.stolen;
        lido_keyed_close(the.keyed, LIDO_NEVER);
        rc = lido_keyed_drain(the.keyed, LONG_MS);
        if (rc != LIDO_OK)
                sim_fail("when all leases are back, drain says %s", lido_err_name(rc));
        lido_keyed_free(the.keyed);
        sim_sleep(sim_now() + 10 * NS_PER_MS);
        if (the.factory.ended != 1)
                sim_fail("the keyed pools have ended, the factory has not");
        for (unsigned i = 0; i < the.factory.objects; i++)
                if (the.factory.object[i].state != OBJECT_CLOSED)
                        sim_fail("object %d was never closed", the.factory.object[i].number);
}

static void live(void *context)
{
        static const char *const names[] = {"A", "B", "C", "D"};

        (void)context;
        sim_alone();
        set_up();
        service_spawn(&the.service);
        the.factory.server = sim_spawn("server", factory_serve, &the.factory, true);
        for (uint32_t i = 0; i < the.threads; i++) {
                the.thread[i].index = (int)i;
                the.thread[i].coroutine = sim_spawn(names[i], borrow, &the.thread[i], false);
        }
        sim_on_quiet(look, NULL);
        sim_together();
        for (uint32_t i = 0; i < the.threads; i++)
                sim_join(the.thread[i].coroutine);
        sim_calm(true);
        tear_down();
}

struct sim_result keyed_run(uint64_t seed, unsigned stale, bool trace)
{
        struct sim_strategy strategy = {.kind = seed % 2 ? SIM_RANDOM : SIM_PCT,
                                        .depth = 1 + (unsigned)(seed / 2 % 4),
                                        .stale = stale,
                                        .trace = trace};

        draw(seed);
        memset(&the.books, 0, sizeof the.books);
        return sim_run(&strategy, seed, live, NULL);
}

struct keyed_books keyed_books(void)
{
        return the.books;
}
