/* sim/factory.h - a factory whose objects know who has them, and whose answers follow a script.
 *
 * An answer comes inside the hook, or later from the "server", a coroutine of its own.
 */
#ifndef LIDO_SIM_FACTORY_H
#define LIDO_SIM_FACTORY_H

#include "lido/pool.h"
#include "sim/program.h"

#define FACTORY_OBJECTS 64
#define NOBODY (-1)
#define KEEPER (-2)

enum object_state { OBJECT_NONE, OBJECT_OPEN, OBJECT_CLOSING, OBJECT_CLOSED, OBJECT_DETACHED };

struct object {
        int number;
        int state;         /* enum object_state */
        int holder;        /* a coroutine, NOBODY or KEEPER */
        bool is_contested; /* several may release the lease */
        bool is_watched;
        char key; /* of its pool, in keyed pools */
        lido_handle handle;
};

struct answer {
        uint64_t due_ns;
        lido_op op;
        struct object *object;
        int kind; /* enum answer_kind */
        char key;
        int failure;
};

struct factory {
        const struct program *program;
        struct lido_factory hooks;
        uint32_t most; /* objects at once at most, by the options */
        uint32_t alive, peak;
        uint32_t detaching; /* objects no longer in `alive`, whose detach may yet be refused */
        uint32_t opens, peeks, checks; /* so far, to find the place in the script */
        uint64_t opened, closed, failed;
        uint32_t answers;
        int server, keeper; /* coroutines */
        int ended;
        bool is_keyed; /* its pools have keys, of one letter */
        bool at_once; /* no delays: the pool is being set up */
        unsigned objects; /* places of the next in use; beyond them they hold anything */
        struct object object[FACTORY_OBJECTS];
        struct answer answer[FACTORY_OBJECTS];
};

void factory_init(struct factory *factory, const struct program *program);

/* The server's coroutine. */
void factory_serve(void *factory);

/* A borrower has got it. */
void factory_taken(struct object *object, int holder);

/* A borrower is about to give it back. */
void factory_returned(struct object *object, int holder);

/* When does the server answer next? */
uint64_t factory_due(const struct factory *factory);

#endif
