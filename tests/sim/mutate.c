#include "sim/mutate.h"

#include <string.h>

extern struct sim_site *const __start_sim_sites[];
extern struct sim_site *const __stop_sim_sites[];

static bool any;

static bool is_same(const struct sim_site *a, const struct sim_site *b)
{
        return a->line == b->line && a->kind == b->kind && a->order == b->order &&
               strcmp(a->what, b->what) == 0 && strcmp(a->file, b->file) == 0;
}

#define for_each_site(s) for (struct sim_site *const *s = __start_sim_sites; s < __stop_sim_sites; s++)

unsigned mutate_sites(struct sim_site **sites, unsigned max)
{
        unsigned count = 0;

        for_each_site(s)
        {
                unsigned i = 0;

                while (i < count && !is_same(sites[i], *s))
                        i++;
                if (i == count && count < max)
                        sites[count++] = *s;
        }
        return count;
}

bool mutate_applies(const struct sim_site *site, enum sim_mutation mutation)
{
        switch (mutation) {
        case SIM_WEAKER:
                return site->order == SIM_SEQ_CST;
        case SIM_NO_ORDER:
                return site->order != SIM_RELAXED;
        case SIM_DROPPED:
                return site->kind != SIM_OP_LOAD && site->kind != SIM_OP_CAS && site->kind != SIM_OP_OTHER;
        case SIM_BLIND:
                return site->kind == SIM_OP_CAS;
        default:
                return false;
        }
}

void mutate_site(const struct sim_site *site, enum sim_mutation mutation)
{
        any = mutation != SIM_INTACT;
        for_each_site(s) if (is_same(*s, site))(*s)->mutation = mutation;
}

unsigned mutate_named(const char *function, int kind, const char *what, enum sim_mutation mutation)
{
        unsigned count = 0;

        for_each_site(s)
        {
                if ((*s)->kind != kind || strcmp((*s)->function, function) != 0 ||
                    (what && strcmp((*s)->what, what) != 0))
                        continue;
                (*s)->mutation = mutation;
                any = true;
                count++;
        }
        return count;
}

void mutate_nothing(void)
{
        for_each_site(s)(*s)->mutation = SIM_INTACT;
        any = false;
}

bool mutate_any(void)
{
        return any;
}

const char *mutate_name(enum sim_mutation mutation)
{
        static const char *const names[] = {"intact", "weaker order", "no order", "dropped", "blind"};

        return names[mutation];
}
