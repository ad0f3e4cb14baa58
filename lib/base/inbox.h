/* base/inbox.h - a mailbox of intrusive letters: any thread sends, one reader takes all there is, oldest first.
 *
 * Sending never allocates, never blocks, and says whether the box was empty: only that sender wakes the reader. The
 * reader takes everything at once; a letter belongs to the reader from then on. One sent again before that would make a
 * circle of the box, in which the reader would go round for ever: a debug build finds it.
 */
#ifndef LIDO_BASE_INBOX_H
#define LIDO_BASE_INBOX_H

#include <stdbool.h>
#include <stddef.h>

#include "base/assert.h"
#include "base/atomic.h"

struct letter {
        struct letter *next;
};

struct inbox {
        _Atomic(struct letter *) newest;
};

static inline void inbox_init(struct inbox *inbox)
{
        store_relaxed(&inbox->newest, NULL);
}

/* Returns: true when the box was empty, so that the reader is to be woken. Pairs with inbox_take. */
static inline bool inbox_send(struct inbox *inbox, struct letter *letter)
{
        struct letter *seen = load_relaxed(&inbox->newest);

        do {
                debug_assert(seen != letter);
                letter->next = seen;
        } while (!cas_acq_rel(&inbox->newest, &seen, letter));
        return seen == NULL;
}

/* Does the list end? Of two who walk it, one twice as fast, he catches up with the other only in a circle. */
static inline bool inbox_ends(const struct letter *newest)
{
        const struct letter *fast = newest;

        while (fast && fast->next) {
                newest = newest->next;
                fast = fast->next->next;
                if (fast == newest)
                        return false;
        }
        return true;
}

/* Returns: the letters, oldest first, linked by next; NULL when there is none. Pairs with inbox_send. */
static inline struct letter *inbox_take(struct inbox *inbox)
{
        struct letter *newest = exchange_acq_rel(&inbox->newest, NULL);
        struct letter *oldest = NULL;

        debug_assert(inbox_ends(newest));
        while (newest) {
                struct letter *next = newest->next;

                newest->next = oldest;
                oldest = newest;
                newest = next;
        }
        return oldest;
}

static inline bool inbox_is_empty(struct inbox *inbox)
{
        return load_acquire(&inbox->newest) == NULL;
}

#endif
