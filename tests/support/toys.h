/* toys.h - objects that cost nothing, from a factory that counts them, does as it is told, and can be held up; and waiting for a
 * condition instead of sleeping. */
#ifndef LIDO_TESTS_TOYS_H
#define LIDO_TESTS_TOYS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "lido.h"

struct toys {
        _Atomic unsigned live, most; /* objects now, and at most at once: opening, open, closing */
        _Atomic unsigned opened, closed, asked; /* asked: opens begun */
        _Atomic unsigned is_held;    /* opens are not answered, but kept */
        _Atomic unsigned fails;      /* so many opens to come fail */
        _Atomic unsigned ended;      /* the end hook was called so often */
        pthread_mutex_t lock;
        lido_op held[64];            /* guarded by lock */
        unsigned held_count;
};

/* Factory and toys ready for a pool. */
struct lido_factory toys_factory(struct toys *toys);

/* Answer all opens that were kept, and keep no more. */
void toys_let_go(struct toys *toys);

/* Milliseconds of CLOCK_MONOTONIC. */
long toys_now_ms(void);

/* Wait until the condition holds; fail the test when it does not within 20 s. */
#define until(condition)                                                                                       \
        do {                                                                                                   \
                long until_end = toys_now_ms() + 20000;                                                        \
                while (!(condition)) {                                                                         \
                        ck_assert_msg(toys_now_ms() < until_end, "never: %s", #condition);                     \
                        toys_yield();                                                                          \
                }                                                                                              \
        } while (0)
void toys_yield(void);

#endif
