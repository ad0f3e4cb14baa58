/* keeper/helpers.h - threads on which the hooks of blocking factories run. */
#ifndef LIDO_KEEPER_HELPERS_H
#define LIDO_KEEPER_HELPERS_H

#include "base/list.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "pool/slots.h"

#define HELPERS_MOST 64

struct helpers {
        struct mutex lock;         /* guards what follows */
        struct letter *first, *last; /* slots whose op is to begin, by their letter */
        uint32_t queued;           /* of these */
        uint32_t busy;             /* threads with a hook at work */
        uint32_t idle;             /* threads asleep or about to be */
        uint32_t started;
        bool is_stopping;
        _Atomic uint32_t bell;     /* slept on; counts rings */
        uint32_t limit;            /* constant */
        char name[16];             /* constant */
        struct thread thread[HELPERS_MOST];
};

void helpers_init(struct helpers *helpers, uint32_t limit, const char *name);

/* Begin the slot's op on a helper thread; one is started if all are busy. Keeper's thread.
 * Returns: LIDO_OK; LIDO_ETHREAD when there is no thread at all, and the slot is still the caller's. */
int helpers_submit(struct helpers *helpers, struct lido_slot *slot);

/* Wait for the hooks at work and end the threads. What is still queued is begun and answered before. */
void helpers_stop(struct helpers *helpers);

/* Is the calling thread one of them? */
bool helpers_has_self(struct helpers *helpers);

#endif
