#include "support/gate.h"

#include "support/patience.h"

void gate_init(struct gate *gate, bool is_open)
{
        pthread_mutex_init(&gate->lock, NULL);
        pthread_cond_init(&gate->changed, NULL);
        gate->is_open = is_open;
        gate->waiting = gate->passed = 0;
}

void gate_fini(struct gate *gate)
{
        pthread_cond_destroy(&gate->changed);
        pthread_mutex_destroy(&gate->lock);
}

void gate_wait(struct gate *gate)
{
        pthread_mutex_lock(&gate->lock);
        gate->waiting++;
        while (!gate->is_open)
                pthread_cond_wait(&gate->changed, &gate->lock);
        gate->waiting--;
        gate->passed++;
        pthread_mutex_unlock(&gate->lock);
}

static void set(struct gate *gate, bool is_open)
{
        pthread_mutex_lock(&gate->lock);
        gate->is_open = is_open;
        pthread_cond_broadcast(&gate->changed);
        pthread_mutex_unlock(&gate->lock);
}

void gate_open(struct gate *gate)
{
        set(gate, true);
}

void gate_shut(struct gate *gate)
{
        set(gate, false);
}

static unsigned waiting_at(struct gate *gate)
{
        unsigned waiting;

        pthread_mutex_lock(&gate->lock);
        waiting = gate->waiting;
        pthread_mutex_unlock(&gate->lock);
        return waiting;
}

void gate_await(struct gate *gate, unsigned count)
{
        ck_eventually(waiting_at(gate) >= count);
}
