#include "sim/exhaustive.h"

#include <stdio.h>
#include <string.h>

#include "sim/world.h"

/* Two operations each; what is still held at its end a thread releases, and it waits for its requests. */
struct table {
        const char *name;
        uint32_t max, filled;
        int64_t overtake_us;
        uint32_t rest_ms, idle_ms, lifetime_ms;
        struct step step[3][3];
};

#define ACQUIRE(us) { OP_ACQUIRE, us }
#define RELEASE { OP_RELEASE, 0 }
#define DISCARD { OP_DISCARD, 0 }
#define DETACH { OP_DETACH, 0 }
#define TRY { OP_TRY, 0 }
#define HOLD(us) { OP_HOLD, us }
#define REQUEST(us) { OP_REQUEST, us }
#define CANCEL { OP_CANCEL, 0 }
#define CLOSE { OP_CLOSE, 1000 }
#define RESIZE(max) { OP_RESIZE, max }
#define BROKEN { OP_BROKEN, 0 }
#define SHARE { OP_SHARE, 0 }
#define STEAL { OP_STEAL, 0 }

static const struct table table[] = {
        { "1 object, hand to hand", 1, 1, -1, 0, 0, 0,
          { { ACQUIRE(0), RELEASE }, { ACQUIRE(0), RELEASE }, { ACQUIRE(0), RELEASE } } },
        { "2 objects, hand to hand", 2, 2, -1, 0, 0, 0,
          { { ACQUIRE(0), RELEASE }, { ACQUIRE(0), RELEASE }, { ACQUIRE(0), RELEASE } } },
        { "1 object, poked", 1, 1, 500, 0, 0, 0,
          { { ACQUIRE(0), RELEASE }, { ACQUIRE(0), RELEASE }, { ACQUIRE(0), RELEASE } } },
        { "2 objects, poked", 2, 2, 500, 0, 0, 0,
          { { ACQUIRE(0), RELEASE }, { ACQUIRE(0), RELEASE }, { ACQUIRE(0), RELEASE } } },
        { "1 object, timeouts", 1, 1, -1, 0, 0, 0,
          { { ACQUIRE(0), HOLD(1000) }, { ACQUIRE(1000), RELEASE }, { ACQUIRE(1000), RELEASE } } },
        { "1 object, timeouts of the poked", 1, 1, 500, 0, 0, 0,
          { { ACQUIRE(0), RELEASE }, { ACQUIRE(1000), RELEASE }, { ACQUIRE(1000), RELEASE } } },
        { "2 objects, timeouts", 2, 2, -1, 0, 0, 0,
          { { ACQUIRE(1000), HOLD(1000) }, { ACQUIRE(1000), HOLD(1000) }, { ACQUIRE(1000), RELEASE } } },
        { "1 object, a request is cancelled", 1, 1, -1, 0, 0, 0,
          { { ACQUIRE(0), RELEASE }, { REQUEST(5000), CANCEL }, { ACQUIRE(0), RELEASE } } },
        { "1 object, a request times out", 1, 1, 500, 0, 0, 0,
          { { ACQUIRE(0), HOLD(1000) }, { REQUEST(1000) }, { ACQUIRE(0), RELEASE } } },
        { "2 objects, a request is cancelled", 2, 2, -1, 0, 0, 0,
          { { ACQUIRE(0), RELEASE }, { REQUEST(5000), CANCEL }, { ACQUIRE(0), RELEASE } } },
        { "1 object, the pool is closed", 1, 1, -1, 0, 0, 0,
          { { ACQUIRE(0), RELEASE }, { ACQUIRE(0), RELEASE }, { CLOSE } } },
        { "2 objects, the pool is closed", 2, 2, -1, 0, 0, 0,
          { { ACQUIRE(0), DETACH }, { ACQUIRE(0), DISCARD }, { CLOSE } } },
        { "1 object, discarded and opened again", 1, 1, -1, 0, 0, 0,
          { { ACQUIRE(0), DISCARD }, { ACQUIRE(0), RELEASE }, { TRY, RELEASE } } },
        { "1 object, found dead", 1, 1, -1, 0, 0, 0,
          { { ACQUIRE(0), RELEASE }, { ACQUIRE(0), RELEASE }, { BROKEN } } },
        { "1 object, evicted", 1, 1, -1, 1, 1, 1, { { HOLD(1000), ACQUIRE(0) }, { TRY }, { HOLD(1000), ACQUIRE(1000) } } },
        { "2 objects, evicted", 2, 2, -1, 1, 1, 1, { { HOLD(1000), ACQUIRE(0) }, { TRY }, { HOLD(1000), TRY } } },
        { "1 object, room for a second", 1, 1, -1, 0, 0, 0,
          { { ACQUIRE(0), HOLD(1000) }, { ACQUIRE(0), RELEASE }, { RESIZE(2) } } },
        { "2 objects, room for one", 2, 2, -1, 0, 0, 0,
          { { ACQUIRE(0), RELEASE }, { ACQUIRE(0), RELEASE }, { RESIZE(1) } } },
        { "1 object, one lease released by two", 1, 1, -1, 0, 0, 0,
          { { ACQUIRE(0), SHARE, RELEASE }, { STEAL, ACQUIRE(1000) }, { ACQUIRE(0), RELEASE } } },
        { "1 object, tries", 1, 1, 500, 0, 0, 0,
          { { TRY, RELEASE }, { TRY, RELEASE }, { TRY, RELEASE } } },
};

unsigned exhaustive_count(void)
{
        return sizeof table / sizeof table[0];
}

void exhaustive_get(unsigned number, struct exhaustive *ret)
{
        const struct table *t = &table[number];

        ret->name = t->name;
        program_plain(&ret->program, t->max, t->filled);
        ret->program.overtake_us = t->overtake_us;
        ret->program.rest_ms = t->rest_ms;
        ret->program.idle_ms = t->idle_ms;
        ret->program.lifetime_ms = t->lifetime_ms;
        ret->program.threads = 3;
        for (int i = 0; i < 3; i++)
                memcpy(ret->program.step[i], t->step[i], sizeof t->step[i]);
}

uint64_t exhaustive_run(const struct program *program, unsigned preemptions, unsigned stale, uint64_t limit,
                        struct sim_result *ret_failure, bool *ret_is_cut)
{
        struct sim_strategy strategy = { .kind = SIM_EXHAUSTIVE, .preemptions = preemptions, .stale = stale,
                                         .merges = stale == 0 };
        uint64_t runs = 0;
        bool is_more = true;

        sim_search_start();
        while (is_more && runs < limit) {
                *ret_failure = world_run(program, &strategy, 1);
                runs++;
                if (ret_failure->failed)
                        break;
                is_more = sim_search_next();
        }
        *ret_is_cut = is_more;
        return runs;
}

/* From the beginning, where the search has gone on from a copy: its choices lead there again. */
void exhaustive_tell(const struct program *program, unsigned preemptions)
{
        struct sim_strategy strategy = { .kind = SIM_EXHAUSTIVE, .preemptions = preemptions, .trace = true };
        struct sim_result result = world_run(program, &strategy, 1);

        printf("%s\n", result.failed ? result.message : "(it does not fail when it is run again)");
}
