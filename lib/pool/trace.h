/* pool/trace.h - where the borrower was when it acquired: backtraces of one lease in `backtrace_every`.
 *
 * Each slot has room for one, beside the slots so that they stay as small as they are, and made only for pools that have
 * the option. A lease writes its own trace as it begins and nobody else writes there; a reader tells by the generation,
 * read before and after, whether what it read is of one lease and of which.
 */
#ifndef LIDO_POOL_TRACE_H
#define LIDO_POOL_TRACE_H

#include "lido/events.h"
#include "pool/region.h"

#define TRACE_FRAMES 24

struct lido_pool;

struct lease_trace {
        _Atomic uint64_t generation; /* holder writes: of which lease; 1, which is no generation: of none */
        _Atomic uint32_t count;      /* holder writes */
        _Atomic(void *) frame[TRACE_FRAMES];
};

struct traces {
        _Atomic(struct lease_trace *) chunk[CHUNKS]; /* as the slots' own; set once, then constant until traces_fini */
};

/* Make room for as many as there are slots, if the pool's options ask for traces. Returns: LIDO_OK; LIDO_ENOMEM. The pool's
 * lock is held. */
int traces_grow(struct lido_pool *pool, uint32_t every);

/* Nobody looks any more. */
void traces_fini(struct lido_pool *pool);

/* If it is this lease's turn, keep the stack of the calling thread, who has begun it. */
void trace_note(struct lido_pool *pool, struct lido_slot *slot, uint64_t generation);

/* The trace of a lease. Returns: how many frames, `most` at most; 0: it has none. Threads: any. */
uint32_t trace_read(const struct lido_pool *pool, const struct lido_slot *slot, uint64_t generation, void **ret_frame,
                    uint32_t most);

/* Tell of a lease with its trace, if it has one. No lock held. */
void trace_emit(struct lido_pool *pool, const struct lido_slot *slot, uint64_t generation, struct lido_event *event);

#endif
