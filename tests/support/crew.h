/* crew.h - some threads that do the same, started together. */
#ifndef LIDO_TESTS_CREW_H
#define LIDO_TESTS_CREW_H

#include <pthread.h>

#define CREW_MOST 64

struct crew;

struct crew_member {
        struct crew *crew;
        unsigned number;
        pthread_t thread;
};

struct crew {
        void (*work)(void *context, unsigned number);
        void *context;
        unsigned count;
        pthread_barrier_t start;
        struct crew_member member[CREW_MOST];
};

/* Run work(context, 0..count-1), each on a thread, none before all are there. */
void crew_start(struct crew *crew, unsigned count, void (*work)(void *context, unsigned number), void *context);

/* Wait for all of them. */
void crew_join(struct crew *crew);

/* Both. */
void crew_run(unsigned count, void (*work)(void *context, unsigned number), void *context);

#endif
