/* buffer/line.h - standing in line at the cap: threads and loops, first come first served, each with exactly
 * one outcome.
 *
 * Attention. While anybody waits (or a reserve is short, or the pool is closed) pool->attention is above 0:
 * every cache is shut and empty, so each release goes the slow way, puts its buffer down, and then serves the
 * line. The hot paths read nothing for it.
 *
 *      waiter:   enter the line; raise attention (registry lock); collect every cache; serve; sleep
 *      releaser: put the buffer down (class lock); read attention; serve
 *
 * One of them sees the other: if the waiter's look at the class came first, the class lock orders the raise
 * before the releaser's read; if it came second, it finds the buffer. A release on the hot path came before
 * the collecting fence, which finds its entry on the rack.
 *
 * Only line_serve gives, to the oldest alone: a large request at the head is not overtaken by small ones
 * behind it. It goes on until the line or the supply runs out, so that two servers at once are harmless. A
 * gift whose taker has just timed out goes to the next, or back. Whoever leaves the line without a gift
 * serves again, for the next one's wish may be smaller.
 */
#ifndef LIDO_BUFFER_LINE_H
#define LIDO_BUFFER_LINE_H

#include "base/waiter.h"
#include "buffer/types.h"

struct wait {
        struct waiter waiter;
        uint32_t class_index; /* what is wished; constant */
        size_t bytes;
        struct entry gift; /* written before GIVEN is settled */
};

/* From now on every release is told, until attention_drop; follow with line_serve. No lock held. */
void attention_raise(struct lido_buffer_pool *pool);
void attention_drop(struct lido_buffer_pool *pool);

/* Give what there is to those who wait. No lock held. */
void line_serve(struct lido_buffer_pool *pool);

/* After a buffer was put down: serve if anybody wants to be told. */
static inline void line_look_again(struct lido_buffer_pool *pool)
{
        if (unlikely(load_seq_cst(&pool->attention) != 0))
                line_serve(pool);
}

/* Is anybody in line, so that newcomers must not overtake? */
bool line_exists(struct lido_buffer_pool *pool);

/* Stand in line until the deadline. Returns: LIDO_OK with *ret_entry; LIDO_ETIMEDOUT; LIDO_EQUEUEFULL;
 * LIDO_ECLOSED; LIDO_EDEADLK. */
int line_wait(struct lido_buffer_pool *pool, uint32_t class_index, size_t bytes, uint64_t deadline_ns,
              struct entry *ret_entry);

/* Fail everybody in line. */
void line_fail_all(struct lido_buffer_pool *pool, int code);

#endif
