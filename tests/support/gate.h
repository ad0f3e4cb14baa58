/* gate.h - hold a thread at a point until the test lets it go on. */
#ifndef LIDO_TESTS_GATE_H
#define LIDO_TESTS_GATE_H

#include <pthread.h>
#include <stdbool.h>

struct gate {
        pthread_mutex_t lock;
        pthread_cond_t changed;
        bool is_open;
        unsigned waiting; /* threads that stand at it */
        unsigned passed;  /* threads that went through, ever */
};

void gate_init(struct gate *gate, bool is_open);
void gate_fini(struct gate *gate);

/* Go through, once it is open. */
void gate_wait(struct gate *gate);

void gate_open(struct gate *gate);
void gate_shut(struct gate *gate);

/* Wait until `count` threads stand at it; the test fails when they have not come after a long while. */
void gate_await(struct gate *gate, unsigned count);

#endif
