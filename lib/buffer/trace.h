/* buffer/trace.h - who has the buffers: a record of one acquire in leak_sample, with its call site. */
#ifndef LIDO_BUFFER_TRACE_H
#define LIDO_BUFFER_TRACE_H

#include "buffer/types.h"

int trace_init(struct lido_buffer_pool *pool);
void trace_fini(struct lido_buffer_pool *pool);

/* A buffer is lent; every so often it is remembered, and LENT_TRACED from then on. */
void trace_lend(struct lido_buffer_pool *pool, const struct entry *entry, size_t bytes, const char *site);

/* A LENT_TRACED buffer has come back. */
void trace_end(struct lido_buffer_pool *pool, const void *buffer);

/* Report those lent for leak_after_ms, once each. Returns: true when ticks must go on for it. */
bool trace_tick(struct lido_buffer_pool *pool);

#endif
