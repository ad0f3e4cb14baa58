/* sim/point.h - the switching point: the little that the code under test sees of the scheduler. */
#ifndef LIDO_SIM_POINT_H
#define LIDO_SIM_POINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sim_order { SIM_RELAXED, SIM_ACQUIRE, SIM_RELEASE, SIM_ACQ_REL, SIM_SEQ_CST };

enum sim_kind {
        SIM_OP_LOAD,
        SIM_OP_STORE,
        SIM_OP_CAS,
        SIM_OP_ADD,
        SIM_OP_SUB,
        SIM_OP_OR,
        SIM_OP_AND,
        SIM_OP_EXCHANGE,
        SIM_OP_WAKE,
        SIM_OP_OTHER, /* a lock, a park, a clock */
};

/* One operation in the source. */
struct sim_site {
        const char *file, *function, *what;
        int line;
        int kind;      /* enum sim_kind */
        int order;     /* enum sim_order */
        uint64_t hits; /* counted only when something special is asked for */
        int mutation;  /* enum sim_mutation; set between runs */
};

/* A way to break the program at one site, for tests of the tests. */
enum sim_mutation {
        SIM_INTACT,
        SIM_WEAKER,   /* the next weaker order: seq_cst becomes acq_rel, acquire or release */
        SIM_NO_ORDER, /* relaxed */
        SIM_DROPPED,  /* a store, wake or read-modify-write that does not happen */
        SIM_BLIND,    /* a compare-and-swap that does not compare */
};

struct coroutine;

/* What the inlined part of a point needs; the rest of the scheduler is private to it. */
struct sim_front {
        struct coroutine *current;
        struct sim_site **at; /* where the current coroutine is */
        int64_t quantum;      /* points until the scheduler is asked again */
        bool special;         /* weak memory, trace or mutation */
        bool traced;
};
extern struct sim_front sim;

void sim_point_slow(void);

/* Others may run here. */
static inline void sim_point(struct sim_site *site, const volatile void *address)
{
        (void)address;
        *sim.at = site;
        if (__builtin_expect(--sim.quantum <= 0, 0))
                sim_point_slow();
}

/* A point of a spin loop: others should run here. */
void sim_spin(void);

uint64_t sim_load(struct sim_site *site, const volatile void *address, size_t size);
void sim_store(struct sim_site *site, volatile void *address, size_t size, uint64_t value);
bool sim_cas(struct sim_site *site, volatile void *address, size_t size, uint64_t *seen, uint64_t value);
uint64_t sim_rmw(struct sim_site *site, volatile void *address, size_t size, uint64_t operand);

#endif
