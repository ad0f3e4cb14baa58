/* The adapter of lido for the benches of buffers: to be included in their backend.h as
 *      #elif defined(B_LIDO) || defined(B_LIDOCLASS)
 *      #include "buffers_lido.h"
 * and in churn.c, with C_LIDO, in the place of a backend. */
#include <lido/buffer.h>

#if defined(C_LIDO)
static struct lido_buffer_pool *lido_pool;
static void *get(size_t n)
{
	void *p = NULL;
	lido_buffer_try_acquire(lido_pool, n, &p);
	return p;
}
static void put(void *p, size_t n)
{
	(void)n;
	lido_buffer_release(p);
}
static void thread_end(void) {}
static void start(void)
{
	struct lido_buffer_options o = LIDO_BUFFER_OPTIONS_INIT;
	o.decay_ms = 400;
	lido_buffer_pool_open(&lido_pool, &o);
}
static void tick(void) { lido_buffer_pool_upkeep(lido_pool); }
#define TICKS 1
static void giveback(void) { lido_buffer_pool_trim(lido_pool, NULL); }
#else
#define CAP_CROSS 1
#define HAVE_BULK 1
static struct lido_buffer_pool *lido_pool;
static void b_setup(size_t n, size_t count)
{
	struct lido_buffer_options o = LIDO_BUFFER_OPTIONS_INIT;
	(void)count;
#ifdef B_LIDO
	o.buffer_bytes = n;
#else
	(void)n;
#endif
	lido_buffer_pool_open(&lido_pool, &o);
}
#ifdef B_LIDO
#define NAME "lido-fixed"
#else
#define NAME "lido-class"
#endif
static void b_teardown(void) { lido_buffer_pool_free(lido_pool); }
static void b_in(bth *t) { (void)t; }
static void b_out(bth *t) { (void)t; }
static inline void *b_get(bth *t, size_t n)
{
	void *p = NULL;
	(void)t;
	lido_buffer_try_acquire(lido_pool, n, &p);
	return p;
}
static inline void b_put(bth *t, void *p, size_t n)
{
	(void)t;
	(void)n;
	lido_buffer_release(p);
}
static inline void b_get_bulk(bth *t, void **v, int k, size_t n)
{
	(void)t;
	lido_buffer_acquire_bulk(lido_pool, n, (uint32_t)k, v);
}
static inline void b_put_bulk(bth *t, void **v, int k, size_t n)
{
	(void)t;
	(void)n;
	lido_buffer_release_bulk(v, (uint32_t)k);
}
#endif
