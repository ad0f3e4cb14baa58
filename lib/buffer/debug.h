/* buffer/debug.h - what a pool does beyond moving entries when it is asked to: clear, poison, cookies,
 * traces, ASan, Valgrind.
 *
 * ASan and Valgrind are told in every build: ASan's functions are weak references, which an instrumented
 * program resolves, and Valgrind's requests are a few instructions that do nothing outside of it. lido itself
 * need not be built for either.
 */
#ifndef LIDO_BUFFER_DEBUG_H
#define LIDO_BUFFER_DEBUG_H

#include "buffer/types.h"

#define COOKIE_BYTES \
        ((size_t)16) /* at the end of a buffer: how many bytes were asked for, mixed with a secret, twice */

/* Which of the tools is this process running under? Returns: CHECK_ASAN, CHECK_VALGRIND, or 0. */
uint32_t debug_tools(void);

/* A region begins and ends: nobody may touch it until lent; anybody after. */
void debug_region_new(struct span *span);
void debug_region_end(struct span *span);

/* Before it is handed out: make it reachable, look at the poison, clear, set cookies, trace. The buffer is
 * LENT. */
void debug_lend(struct lido_buffer_pool *pool, const struct entry *entry, size_t bytes, const char *site);

/* After it came back, and before it is an entry: look at the cookies, wipe, poison, make it unreachable. */
void debug_take_back(struct lido_buffer_pool *pool, struct span *span, void *buffer, const char *site);

/* The bytes that its borrower may use. */
size_t debug_bytes(struct span *span, const void *buffer);

/* Report a release that was refused. */
void debug_misuse(struct lido_buffer_pool *pool, const void *buffer, int code, const char *site);

/* A traced buffer has come back. */
void debug_untrace(struct lido_buffer_pool *pool, const void *buffer);

/* Report what has been lent for too long. Returns: true when any trace is kept. */
bool debug_leak_tick(struct lido_buffer_pool *pool);

int debug_init(struct lido_buffer_pool *pool);
void debug_fini(struct lido_buffer_pool *pool);

#endif
