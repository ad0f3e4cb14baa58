/* A factory of an embedder's own, in each of the ways in which one can be written, put through the suite in contract.c. */
#include "contract/contract.h"

#include "support/fixture.h"

enum { BLOCKING = 1, ELSEWHERE = 2, INLINE = 4 };

struct custom {
        unsigned ways, hooks;
        struct fixture *f;
};

static struct lido_pool *open_custom(struct contract *contract, struct lido_pool_options *options)
{
        struct custom *custom = contract->data;
        struct fixture *f = custom->f = fixture_new();

        f->options = *options;
        f->options.open_inline = custom->ways & INLINE ? 1 : 0;
        fake_add_hooks(&f->fake, custom->hooks);
        if (custom->ways & BLOCKING)
                f->fake.factory.flags |= LIDO_FACTORY_BLOCKING;
        for (int hook = 0; hook < FAKE_HOOKS; hook++)
                if (custom->ways & ELSEWHERE)
                        fake_always(&f->fake, (enum fake_hook)hook, (struct fake_step){ .way = FAKE_THREAD });
        fixture_open(f);
        return f->pool;
}

static void end_custom(struct contract *contract)
{
        struct custom *custom = contract->data;

        custom->f->pool = NULL; /* the suite has freed it */
        fixture_end(custom->f);
}

static void use(void *object)
{
        struct fake_object *o = object;

        must(!atomic_load(&o->is_broken));
        fake_use(o);
        fake_unuse(o);
}

static void soil(void *object)
{
        struct fake_object *o = object;

        atomic_store(&o->is_dirty, true);
}

static bool is_clean(void *object)
{
        struct fake_object *o = object;

        return !atomic_load(&o->is_dirty);
}

static void kill_it(void *object)
{
        fake_break(object);
}

static void part(struct contract *contract)
{
        struct custom *custom = contract->data;

        fake_forget(&custom->f->fake);
}

static void drop(struct contract *contract, void *object)
{
        (void)contract;
        fake_drop(object);
}

static void refuse(struct contract *contract, bool refuses)
{
        struct custom *custom = contract->data;
        struct fake_step step = { .way = custom->ways & ELSEWHERE ? FAKE_THREAD : FAKE_NOW };

        if (refuses) {
                step.status = LIDO_EFACTORY;
                step.failure = LIDO_FAILURE_NETWORK;
        }
        fake_always(&custom->f->fake, FAKE_OPEN, step);
}

static uint32_t alive(struct contract *contract)
{
        struct custom *custom = contract->data;

        return atomic_load(&custom->f->fake.alive);
}

#define CUSTOM(title, of_ways, of_hooks)                                                                       \
        {                                                                                                      \
                .name = title, .most = 64, .data = &(struct custom){ .ways = of_ways, .hooks = of_hooks },     \
                .open = open_custom, .end = end_custom, .use = use, .soil = soil, .is_clean = is_clean,        \
                .kill = kill_it, .part = part, .drop = drop, .refuse = refuse, .alive = alive                  \
        }

/* Without a peek or a verdict nobody notices what is dead or dirty. */
static struct contract plain = { .name = "open and close alone", .most = 64, .data = &(struct custom){ .ways = 0 },
                                 .open = open_custom, .end = end_custom, .use = use, .part = part, .drop = drop,
                                 .refuse = refuse, .alive = alive };
/* A borrower who opens itself is told so at once when that fails; it has nothing to wait for. */
static struct contract inlined = { .name = "opened by the borrower", .most = 64, .data = &(struct custom){ .ways = INLINE, .hooks = FAKE_HAS_PEEK | FAKE_HAS_VERDICT },
                                   .open = open_custom, .end = end_custom, .use = use, .soil = soil, .is_clean = is_clean,
                                   .kill = kill_it, .part = part, .drop = drop, .alive = alive };
static struct contract on_the_loop = CUSTOM("on the loop", 0, FAKE_HAS_PEEK | FAKE_HAS_VERDICT);
static struct contract watched = CUSTOM("watched", 0, FAKE_HAS_ALL);
static struct contract elsewhere = CUSTOM("answered from another thread", ELSEWHERE, FAKE_HAS_ALL);
static struct contract blocking = CUSTOM("blocking", BLOCKING, FAKE_HAS_ALL);
static struct contract both = CUSTOM("blocking, answered from another thread", BLOCKING | ELSEWHERE, FAKE_HAS_ALL);

int main(void)
{
        return contract_run("contract/custom", (struct contract *const[]){ &plain, &on_the_loop, &watched, &elsewhere,
                                                                           &blocking, &both, &inlined, NULL });
}
