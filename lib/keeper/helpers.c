#include "keeper/helpers.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/park.h"
#include "pool/op.h"

/* Law: `bell` is read under the lock before a thread goes to sleep on it, and rung under the lock after a slot was queued;
 * so a slot queued after the look rings a bell that no longer has the value seen. */

void helpers_init(struct helpers *helpers, uint32_t limit, const char *name)
{
        helpers->first = helpers->last = NULL;
        helpers->queued = helpers->busy = helpers->idle = helpers->started = 0;
        helpers->is_stopping = false;
        helpers->limit = limit < HELPERS_MOST ? limit : HELPERS_MOST;
        snprintf(helpers->name, sizeof helpers->name, "%.11s-hlp", name);
}

/* Returns: a slot; NULL when stopping and none is left. */
static struct lido_slot *next_slot(struct helpers *helpers)
{
        for (;;) {
                struct letter *letter;
                uint32_t bell;
                bool is_stopping;

                mutex_lock(&helpers->lock);
                letter = helpers->first;
                if (letter) {
                        helpers->first = letter->next;
                        if (!helpers->first)
                                helpers->last = NULL;
                        helpers->queued--;
                        helpers->busy++;
                        mutex_unlock(&helpers->lock);
                        return list_entry(letter, struct lido_slot, letter);
                }
                helpers->idle++;
                bell = load_relaxed(&helpers->bell);
                is_stopping = helpers->is_stopping;
                mutex_unlock(&helpers->lock);
                if (!is_stopping)
                        park_wait(&helpers->bell, bell, CLOCK_NEVER);
                mutex_lock(&helpers->lock);
                helpers->idle--;
                mutex_unlock(&helpers->lock);
                if (is_stopping)
                        return NULL;
        }
}

static void run(void *argument)
{
        struct helpers *helpers = argument;
        struct lido_slot *slot;

        while ((slot = next_slot(helpers)) != NULL) {
                op_begin(load_relaxed(&slot->pool), slot, word_generation(load_acquire(&slot->word)));
                mutex_lock(&helpers->lock);
                helpers->busy--;
                mutex_unlock(&helpers->lock);
        }
}

static void ring(struct helpers *helpers)
{
        add_acq_rel(&helpers->bell, 1);
}

int helpers_submit(struct helpers *helpers, struct lido_slot *slot)
{
        bool needs_thread, must_wake;

        mutex_lock(&helpers->lock);
        /* A thread that is not busy may have been counted on already, by one who queued a moment ago. */
        needs_thread = helpers->queued >= helpers->started - helpers->busy && helpers->started < helpers->limit;
        mutex_unlock(&helpers->lock);
        if (needs_thread) {
                int rc = thread_start(&helpers->thread[helpers->started], helpers->name, 0, run, helpers);

                if (rc != LIDO_OK && helpers->started == 0)
                        return rc;
                mutex_lock(&helpers->lock);
                helpers->started += rc == LIDO_OK; /* by the keeper's thread alone */
                mutex_unlock(&helpers->lock);
        }
        mutex_lock(&helpers->lock);
        helpers->queued++;
        slot->letter.next = NULL;
        if (helpers->last)
                helpers->last->next = &slot->letter;
        else
                helpers->first = &slot->letter;
        helpers->last = &slot->letter;
        must_wake = helpers->idle > 0;
        ring(helpers);
        mutex_unlock(&helpers->lock);
        if (must_wake)
                park_wake(&helpers->bell, 1);
        return LIDO_OK;
}

void helpers_stop(struct helpers *helpers)
{
        mutex_lock(&helpers->lock);
        helpers->is_stopping = true;
        ring(helpers);
        mutex_unlock(&helpers->lock);
        park_wake(&helpers->bell, INT32_MAX);
        for (uint32_t i = 0; i < helpers->started; i++)
                thread_join(&helpers->thread[i]);
        helpers->started = 0;
}

bool helpers_has_self(struct helpers *helpers)
{
        bool has_self = false;

        mutex_lock(&helpers->lock);
        for (uint32_t i = 0; i < helpers->started; i++)
                if (thread_is_self(&helpers->thread[i]))
                        has_self = true;
        mutex_unlock(&helpers->lock);
        return has_self;
}
