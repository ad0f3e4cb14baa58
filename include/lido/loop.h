/* lido/loop.h - a uv loop that borrows: where callbacks of lido arrive.
 *
 * A borrower on an event loop opens one lido_loop on its uv loop and names it in each request. Every callback comes on
 * that loop's thread. The same door is open to the embedder: lido_loop_post runs a function on the loop from any
 * thread, without allocating, and wakes the loop only for the first of a burst.
 */
#ifndef LIDO_LOOP_H
#define LIDO_LOOP_H

#include "lido/pool.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Let a uv loop borrow. It gets one async and one timer handle, which keep uv_run going only while something is
 * pending on them.
 * Threads: the thread of `loop`. Blocks: no. Owns: the caller keeps the uv loop, and gives *ret_loop to
 * lido_loop_close. Returns: LIDO_OK; LIDO_ENOMEM; LIDO_ELOOP. */
LIDO_API int lido_loop_open(struct lido_loop **ret_loop, struct uv_loop_s *loop);

/* The loop borrows no more. Its pending requests are cancelled and called back; when the last has been and the handles
 * are closed, `closed` (may be NULL) is called with `context` and the memory is gone. Run the uv loop until then.
 * Threads: the loop's. Blocks: no. Owns: lido's again. Returns: nothing; NULL is allowed. */
LIDO_API void lido_loop_close(struct lido_loop *loop, void (*closed)(void *context), void *context);

/* The uv loop under it. Threads: any. Blocks: no. Owns: the caller of lido_loop_open. */
LIDO_API struct uv_loop_s *lido_loop_uv(const struct lido_loop *loop);

/* Is the calling thread the loop's? Threads: any. Blocks: no. */
LIDO_API int lido_loop_is_self(const struct lido_loop *loop);

/* Keep the uv loop running, and lido_loop_close waiting, for something that will be posted: each hold needs one
 * release. Threads: the loop's. Blocks: no. */
LIDO_API void lido_loop_hold(struct lido_loop *loop);
LIDO_API void lido_loop_unhold(struct lido_loop *loop);

/* A function to be run on a loop; the memory is the poster's, and free for reuse once `run` is called. */
struct lido_post {
        struct lido_post *next; /* lido's */
        void (*run)(struct lido_post *post);
};

/* Run post->run on the loop's thread, in the order of posting. At most one wake-up is under way however many post.
 * Threads: any, also the loop's own. Blocks: no. Owns: the post is lido's until it runs. Whoever posts from another
 * thread must know that the loop is not closed before it runs: hold it (above) beforehand. */
LIDO_API void lido_loop_post(struct lido_loop *loop, struct lido_post *post);

/* A function to be run on a loop at a time. Clear it before its first use. */
struct lido_timer {
        void (*run)(struct lido_timer *timer);
        uint64_t own[6];
};

/* Run timer->run on the loop's thread once due_ns (nanoseconds of lido_now_ns, lido/clock.h) has come; setting it again moves it.
 * An armed timer keeps uv_run going. Threads: the loop's. Blocks: no. Owns: the timer is lido's while armed. */
LIDO_API void lido_timer_set(struct lido_loop *loop, struct lido_timer *timer, uint64_t due_ns);

/* Disarm a timer. Harmless if it is not armed. Threads: the loop's. Blocks: no. */
LIDO_API void lido_timer_clear(struct lido_loop *loop, struct lido_timer *timer);

#ifdef __cplusplus
}
#endif
#endif
