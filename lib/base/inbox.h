/* base/inbox.h - a mailbox of intrusive letters: any thread sends, one reader takes all there is, oldest first.
 *
 * Sending never allocates, never blocks, and says whether the box was empty: only that sender wakes the reader. The
 * reader takes everything at once; a letter belongs to the reader from then on.
 */
#ifndef LIDO_BASE_INBOX_H
#define LIDO_BASE_INBOX_H

#include <stdbool.h>
#include <stddef.h>

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

        do
                letter->next = seen;
        while (!cas_acq_rel(&inbox->newest, &seen, letter));
        return seen == NULL;
}

/* Returns: the letters, oldest first, linked by next; NULL when there is none. Pairs with inbox_send. */
static inline struct letter *inbox_take(struct inbox *inbox)
{
        struct letter *newest = exchange_acq_rel(&inbox->newest, NULL);
        struct letter *oldest = NULL;

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
