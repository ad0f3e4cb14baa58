#include "pool/turnstile.h"

#include "base/waiter.h"

void turnstile_init(struct turnstile *turnstile)
{
        mutex_init(&turnstile->lock);
        list_init(&turnstile->line);
        turnstile->is_taken = false;
}

bool turnstile_try(struct turnstile *turnstile)
{
        bool is_in;

        mutex_lock(&turnstile->lock);
        is_in = !turnstile->is_taken;
        turnstile->is_taken = true;
        mutex_unlock(&turnstile->lock);
        return is_in;
}

bool turnstile_enter(struct turnstile *turnstile, uint64_t deadline_ns)
{
        struct waiter w;
        bool is_in;

        waiter_init(&w, NULL);
        mutex_lock(&turnstile->lock);
        is_in = !turnstile->is_taken;
        turnstile->is_taken = true;
        if (!is_in)
                list_push_back(&turnstile->line, &w.link);
        mutex_unlock(&turnstile->lock);
        if (is_in || waiter_sleep(&w, deadline_ns) == WAITER_GIVEN || !waiter_settle(&w, WAITER_TIMED_OUT))
                return true;
        mutex_lock(&turnstile->lock);
        list_unlink(&w.link);
        mutex_unlock(&turnstile->lock);
        return false;
}

/* One who has just timed out is passed over, and unlinks himself under the lock. */
void turnstile_leave(struct turnstile *turnstile)
{
        _Atomic uint32_t *word = NULL;

        mutex_lock(&turnstile->lock);
        turnstile->is_taken = false;
        for (struct list *front; !word && (front = list_front(&turnstile->line)) != NULL;) {
                struct waiter *w = list_entry(front, struct waiter, link);

                list_unlink(front);
                if (waiter_settle(w, WAITER_GIVEN))
                        word = &w->state;
        }
        turnstile->is_taken = word != NULL;
        mutex_unlock(&turnstile->lock);
        if (word)
                park_wake(word, 1);
}
