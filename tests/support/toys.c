#include "support/toys.h"

#include <sched.h>
#include <stdlib.h>
#include <time.h>

static void note_most(struct toys *toys, unsigned live)
{
        unsigned most = atomic_load(&toys->most);

        while (most < live && !atomic_compare_exchange_weak(&toys->most, &most, live))
                ;
}

static void answer(struct toys *toys, lido_op op)
{
        unsigned fails = atomic_load(&toys->fails);

        while (fails > 0)
                if (atomic_compare_exchange_weak(&toys->fails, &fails, fails - 1)) {
                        atomic_fetch_sub(&toys->live, 1);
                        lido_op_done(op, LIDO_EFACTORY);
                        return;
                }
        atomic_fetch_add(&toys->opened, 1);
        lido_op_opened(op, malloc(16));
}

static void toy_open(lido_op op, void *context)
{
        struct toys *toys = context;
        bool is_kept = false;

        note_most(toys, atomic_fetch_add(&toys->live, 1) + 1);
        atomic_fetch_add(&toys->asked, 1);
        pthread_mutex_lock(&toys->lock);
        if (atomic_load(&toys->is_held) && toys->held_count < 64) {
                toys->held[toys->held_count++] = op;
                is_kept = true;
        }
        pthread_mutex_unlock(&toys->lock);
        if (!is_kept)
                answer(toys, op);
}

static void toy_close(lido_op op, void *object, void *context)
{
        struct toys *toys = context;

        free(object);
        atomic_fetch_sub(&toys->live, 1);
        atomic_fetch_add(&toys->closed, 1);
        lido_op_done(op, LIDO_OK);
}

static void toys_end(void *context)
{
        atomic_fetch_add(&((struct toys *)context)->ended, 1);
}

struct lido_factory toys_factory(struct toys *toys)
{
        struct lido_factory factory = LIDO_FACTORY_INIT;

        *toys = (struct toys){ .held_count = 0 };
        pthread_mutex_init(&toys->lock, NULL);
        factory.kind = "toy";
        factory.context = toys;
        factory.open = toy_open;
        factory.close = toy_close;
        factory.end = toys_end;
        return factory;
}

void toys_let_go(struct toys *toys)
{
        lido_op ops[64];
        unsigned count;

        pthread_mutex_lock(&toys->lock);
        atomic_store(&toys->is_held, 0);
        count = toys->held_count;
        for (unsigned i = 0; i < count; i++)
                ops[i] = toys->held[i];
        toys->held_count = 0;
        pthread_mutex_unlock(&toys->lock);
        for (unsigned i = 0; i < count; i++)
                answer(toys, ops[i]);
}

long toys_now_ms(void)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void toys_yield(void)
{
        sched_yield();
}
