/* keeper/bell.h - have a loop come round, from any thread.
 *
 * It is an eventfd that the loop polls, and no uv_async_t: in libuv 1.44 the loop's thread spins until who is inside
 * uv_async_send has come out of it, and he is still inside when the loop is told. On a busy machine the loop takes his
 * processor at that very moment, and then spins until he gets it back: 12 ms of CPU in one turn were seen. Here nobody waits
 * for anybody.
 */
#ifndef LIDO_KEEPER_BELL_H
#define LIDO_KEEPER_BELL_H

#include <uv.h>

struct bell {
        uv_poll_t poll; /* loop thread */
        int fd;         /* constant while it is open */
        void (*on_ring)(void *context);
        void (*on_closed)(void *context);
        void *context;
};

/* From now on `on_ring` is called on the loop's thread, once at least after each ring, and once for many perhaps. The handle keeps
 * the loop going unless it is unreferenced. Returns: 0; else what libuv says, and it is not open. */
int bell_open(struct bell *bell, uv_loop_t *loop, void (*on_ring)(void *context), void *context);

/* Threads: any, as long as it is open. Blocks: no. */
void bell_ring(struct bell *bell);

/* Nobody is ringing, or will. The memory is the caller's again when `on_closed` is called. Loop thread. */
void bell_close(struct bell *bell, void (*on_closed)(void *context));

/* Does it keep the loop going? Loop thread. */
void bell_ref(struct bell *bell);
void bell_unref(struct bell *bell);

#endif
