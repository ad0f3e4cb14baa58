/* lido/buffer.h - memory buffers: of one size or of any, with a cache per thread, a hard cap, and decay.
 *
 * A buffer is a plain pointer. Acquire and release on one thread touch nothing that is shared: no lock, no
 * clock, no system call. Behind the caches stands a depot per size class, behind the depots the operating
 * system, to which goes back what has not been used for a while. A buffer may be released on any thread, and
 * knows its pool.
 *
 *      struct lido_buffer_options options = LIDO_BUFFER_OPTIONS_INIT;
 *      struct lido_buffer_pool *pool;
 *      void *buffer;
 *
 *      options.max_bytes = 64 << 20;
 *      lido_buffer_pool_open(&pool, &options);
 *      if (lido_buffer_acquire(pool, 4000, &buffer) == LIDO_OK) {
 *              use(buffer, lido_buffer_bytes(buffer));
 *              lido_buffer_release(buffer);
 *      }
 *      lido_buffer_pool_free(pool);
 *
 * Misuse. A pointer that is no buffer (NULL, foreign, into the middle of one) is refused without being
 * followed. Releasing a buffer twice is refused as LIDO_EDOUBLE, from any number of racing threads, as long
 * as nobody has acquired it again in between; once somebody has, a raw pointer cannot tell the two apart, and
 * only LIDO_BUFFER_GUARD, LIDO_BUFFER_POISON, ASan and Valgrind can. Every refusal leaves the pool as it was
 * and is reported as LIDO_EVENT_MISUSE.
 *
 * No function may be called from a signal handler. In a child made by fork(2) every call on an inherited pool
 * answers LIDO_EFORKED; the contents of inherited buffers may be read there, and new pools opened.
 */
#ifndef LIDO_BUFFER_H
#define LIDO_BUFFER_H

#include "lido/loop.h"
#include "lido/pool.h"
#include "lido/service.h"

#ifdef __cplusplus
extern "C" {
#endif

struct lido_buffer_pool;
struct lido_buffer_cache;
struct uv_buf_t;
struct uv_handle_s;

/* ---- where the memory comes from -------------------------------------------------------------------------
 */

/* A source of memory, in whole pages of 4096 bytes. Every hook may be called from any thread, by several at
 * once, and never with a lock held. */
struct lido_buffer_source {
        size_t size;
        /* `bytes` of memory on a boundary of `alignment` (a power of two, at least 4096); NULL when there is
         * none. */
        void *(*map)(size_t bytes, size_t alignment, void *context);
        /* Take back what map gave, whole. */
        void (*unmap)(void *memory, size_t bytes, void *context);
        /* Drop the contents of these pages, but keep them mapped; NULL: that cannot be done. Returns: 0 when
         * done. */
        int (*purge)(void *memory, size_t bytes, void *context);
        /* Much has been given back to unmap by the decay or a trim; malloc_trim could follow. NULL: nothing.
         */
        void (*trimmed)(void *context);
        void *context;
};
#define LIDO_BUFFER_SOURCE_INIT LIDO_SIZED(lido_buffer_source)

/* The two sources that come along: mmap(2), the default, and the process's malloc. Constant. */
LIDO_API extern const struct lido_buffer_source lido_buffer_source_mmap;
LIDO_API extern const struct lido_buffer_source lido_buffer_source_malloc;

/* ---- options ---------------------------------------------------------------------------------------------
 */

/* CACHE keeps what is released warm. RESERVE keeps nothing: each acquire asks the source first, `reserve`
 * buffers are set aside for when that fails, and a release fills the reserve before anything else. */
enum lido_buffer_mode { LIDO_BUFFER_MODE_CACHE = 0, LIDO_BUFFER_MODE_RESERVE = 1 };

#define LIDO_BUFFER_ZERO_ON_ACQUIRE 0x001u /* every buffer comes cleared */
#define LIDO_BUFFER_ZERO_ON_RELEASE 0x002u /* contents are wiped on release: for secrets */
#define LIDO_BUFFER_POISON 0x004u          /* fill on release, look for writes since then on acquire */
#define LIDO_BUFFER_COOKIES 0x008u         /* look for writes past the bytes asked for, on release */
#define LIDO_BUFFER_GUARD 0x010u /* use after release and overrun fault at once; a mapping for each buffer \
                                  */
#define LIDO_BUFFER_LEAKS 0x020u /* remember the call site of one acquire in leak_sample */
#define LIDO_BUFFER_HUGE_PAGES 0x040u    /* ask for huge pages, from regions of 2 MiB */
#define LIDO_BUFFER_CALLER_MEMORY 0x080u /* only memory given by lido_buffer_pool_populate */
#define LIDO_BUFFER_NO_TOOLS 0x100u      /* do not tell ASan and Valgrind which buffers are lent */

/* How a pool behaves. Zero means the default in every field. Append only. */
struct lido_buffer_options {
        size_t size;
        const char *name; /* for reports; copied; default "buffer" */

        size_t buffer_bytes;  /* one size for all buffers; default 0: any size, by classes */
        size_t largest_bytes; /* of the classes; above, each buffer has a mapping of its own; default 1 MiB */
        uint32_t per_doubling;     /* classes per doubling of size: 1, 2, 4 or 8; default 4 */
        uint32_t named_count;      /* sizes in named_bytes, up to 16: they get a class without waste */
        const size_t *named_bytes; /* copied */
        size_t alignment_bytes;    /* of every buffer; a power of two up to 2 MiB; default 16 */

        size_t max_bytes;           /* of all buffers that exist, lent or kept; default 0: no cap */
        int64_t acquire_timeout_ms; /* how long lido_buffer_acquire waits at the cap; default 5 s */
        uint32_t queue_limit;       /* waiters at most, then LIDO_EQUEUEFULL; default LIDO_UNLIMITED */

        int mode;         /* enum lido_buffer_mode */
        uint32_t reserve; /* buffers set aside for when memory fails; only with buffer_bytes; default 0 */
        uint32_t flags;   /* LIDO_BUFFER_... */

        uint32_t numa_node; /* prefer this node for new memory, counted from 1; default 0: as the system likes
                             */
        size_t cache_bytes; /* how much a thread's cache may grow beyond its 32 KiB a class; default 1 MiB */
        size_t warm_bytes;  /* buffers above the classes that are kept for reuse; default 64 MiB */
        int64_t decay_ms;   /* what is unused for so long goes back; LIDO_NEVER: only by trim; default 1 s */

        struct lido_loop *loop; /* where the decay runs; it must stay open until the pool is drained or freed.
                                 * Default: none, the embedder calls lido_buffer_pool_upkeep */
        struct lido_service *service; /* the same on this service's loop, instead of `loop`; it must not be stopped
                                       * until the pool is drained or freed. Default: none */
        const struct lido_buffer_source *source; /* copied; default lido_buffer_source_mmap */

        /* Buffers that keep a constructed state from one borrower to the next; only with buffer_bytes.
         * construct runs once before a buffer is first lent (0: done; else the acquire fails with
         * LIDO_EFACTORY), destruct before its memory goes. No lock is held. */
        int (*construct)(void *buffer, size_t bytes, void *context);
        void (*destruct)(void *buffer, size_t bytes, void *context);
        void *construct_context;

        uint32_t leak_sample;  /* default 128; 1: every acquire */
        int64_t leak_after_ms; /* a sampled buffer lent for so long is reported as LIDO_EVENT_LEAK; default
                                  LIDO_NEVER */

        /* Called for events in event_mask (lido/events.h): MISUSE, LEAK, LEAK_ENDED. Outside any lock. */
        void (*on_event)(const struct lido_event *event, void *event_context);
        void *event_context;
        uint64_t event_mask; /* default: all */
};
#define LIDO_BUFFER_OPTIONS_INIT LIDO_SIZED(lido_buffer_options)

/* ---- the life of a pool ----------------------------------------------------------------------------------
 */

/* Open a pool. NULL options are the defaults.
 * Threads: any. Blocks: no. Owns: the pool is the caller's, to be given to lido_buffer_pool_free.
 * Returns: LIDO_OK; LIDO_EINVAL for an option out of range or options that exclude each other; LIDO_E2NEW;
 * LIDO_ENOMEM, also when the reserve cannot be had; LIDO_EFACTORY when construct refused the reserve; LIDO_EFORKED
 * for a service of the parent's. */
LIDO_API int lido_buffer_pool_open(struct lido_buffer_pool **ret_pool,
                                   const struct lido_buffer_options *options);

/* Give memory of the caller's to a pool of one size. Whole pages of 4096 bytes are used.
 * Threads: any. Blocks: no. Owns: the memory stays the caller's, who may free it once the pool is drained.
 * Returns: LIDO_OK; LIDO_EINVAL when no buffer fits or the pool has classes; LIDO_ENOMEM; LIDO_EEXHAUSTED
 * beyond max_bytes; LIDO_ECLOSED; LIDO_EFORKED. */
LIDO_API int lido_buffer_pool_populate(struct lido_buffer_pool *pool, void *memory, size_t bytes);

/* Begin to close: acquire is refused, waiters fail with LIDO_ECLOSED, free memory goes back now, that of lent
 * buffers when they are released. Calling it again is harmless. Threads: any. Blocks: no. Owns: the pool
 * stays the caller's. Returns: LIDO_OK; LIDO_EINVAL; LIDO_EFORKED. */
LIDO_API int lido_buffer_pool_close(struct lido_buffer_pool *pool);

/* Wait until every buffer of a closed pool has been released.
 * Threads: any. Blocks: until the deadline. Owns: nobody.
 * Returns: LIDO_OK; LIDO_ETIMEDOUT; LIDO_EINVAL when it is not closed or the timeout is none; LIDO_EFORKED.
 */
LIDO_API int lido_buffer_pool_drain(struct lido_buffer_pool *pool, int64_t timeout_ms);

/* Give the pool back. It is closed if it was not. Buffers still lent stay valid, and the last release ends
 * the rest. Threads: any, while no other thread is inside a call on this pool other than lido_buffer_release.
 * Blocks: no. Owns: the pool is lido's again. Returns: nothing; NULL is allowed. */
LIDO_API void lido_buffer_pool_free(struct lido_buffer_pool *pool);

/* Give everything that is not lent back to the source now, the thread caches included.
 * Threads: any. Blocks: no, but it makes system calls. Owns: nobody. *ret_bytes (may be NULL): what went
 * back. Returns: LIDO_OK; LIDO_EINVAL; LIDO_EFORKED. */
LIDO_API int lido_buffer_pool_trim(struct lido_buffer_pool *pool, size_t *ret_bytes);

/* One step of the decay, for an embedder who gave no loop: call it every decay_ms / 4.
 * Threads: any. Blocks: no, but it makes system calls. Owns: nobody.
 * Returns: 1 when there is more to decay, 0 when nothing is kept any more and calls may pause; LIDO_EINVAL;
 * LIDO_EFORKED. */
LIDO_API int lido_buffer_pool_upkeep(struct lido_buffer_pool *pool);

/* ---- acquire and release ---------------------------------------------------------------------------------
 */

/* Acquire a buffer of at least `bytes`, waiting in line at the cap for up to the pool's acquire_timeout_ms.
 * Threads: any. Blocks: at the cap, until the deadline. Owns: the buffer is the caller's until release, on
 * any thread. *ret_buffer is written on LIDO_OK only; it is a `void *`. Returns: LIDO_OK; LIDO_ETIMEDOUT;
 * LIDO_EQUEUEFULL; LIDO_ENOMEM; LIDO_ECLOSED; LIDO_EFACTORY when construct refused; LIDO_EDEADLK when it
 * would wait on the loop that runs the decay; LIDO_EINVAL for 0 bytes or more than the pool can ever give;
 * LIDO_EFORKED. */
#define lido_buffer_acquire(pool, bytes, ret_buffer) \
        lido_buffer_acquire_at(pool, bytes, ret_buffer, LIDO_HERE)
LIDO_API int lido_buffer_acquire_at(struct lido_buffer_pool *pool, size_t bytes, void **ret_buffer,
                                    const char *site);

/* Acquire without waiting: at the cap, or while others wait, LIDO_EEXHAUSTED.
 * Threads: any. Blocks: no. Owns, Returns: as lido_buffer_acquire otherwise. */
#define lido_buffer_try_acquire(pool, bytes, ret_buffer) \
        lido_buffer_try_acquire_at(pool, bytes, ret_buffer, LIDO_HERE)
LIDO_API int lido_buffer_try_acquire_at(struct lido_buffer_pool *pool, size_t bytes, void **ret_buffer,
                                        const char *site);

/* Acquire with a timeout of the call's own: 0 does not wait, LIDO_TIMEOUT_DEFAULT is the pool's, LIDO_NEVER
 * has no end. Threads, Blocks, Owns, Returns: as lido_buffer_acquire; LIDO_EINVAL for a timeout that is none.
 */
LIDO_API int lido_buffer_timed_acquire(struct lido_buffer_pool *pool, size_t bytes, int64_t timeout_ms,
                                       void **ret_buffer);

/* Release a buffer. Cannot fail but by misuse.
 * Threads: any. Blocks: no. Owns: the buffer is the pool's again.
 * Returns: LIDO_OK; LIDO_EDOUBLE when it is not lent; LIDO_EFOREIGN for a pointer that is no buffer;
 * LIDO_EINVAL for NULL; LIDO_EFORKED. Damage that a debugging pool finds is reported as LIDO_EVENT_MISUSE
 * with LIDO_ESTALE, and the buffer used on. */
#define lido_buffer_release(buffer) lido_buffer_release_at(buffer, LIDO_HERE)
LIDO_API int lido_buffer_release_at(void *buffer, const char *site);

/* Acquire `count` buffers of at least `bytes` each, all or none, without waiting.
 * Threads: any. Blocks: no. Owns: as lido_buffer_acquire, for each. Returns: as lido_buffer_try_acquire. */
LIDO_API int lido_buffer_acquire_bulk(struct lido_buffer_pool *pool, size_t bytes, uint32_t count,
                                      void **ret_buffers);

/* Release `count` buffers, of one pool or of several. Cheaper than one by one, when neighbours are of one
 * kind. Threads: any. Blocks: no. Owns: the buffers are their pools' again. Returns: LIDO_OK; else the code
 * of the first that was refused, as lido_buffer_release; the others are released. */
LIDO_API int lido_buffer_release_bulk(void *const *buffers, uint32_t count);

/* How many bytes of a lent buffer may be used: at least those asked for; 0 for what is no lent buffer.
 * Threads: any. Blocks: no. Owns: nobody. */
LIDO_API size_t lido_buffer_bytes(const void *buffer);

/* The pool of a lent buffer; NULL for what is none. Threads: any. Blocks: no. Owns: nobody. */
LIDO_API struct lido_buffer_pool *lido_buffer_pool_of(const void *buffer);

/* ---- acquire from an event loop --------------------------------------------------------------------------
 */

struct lido_buffer_request;
typedef void (*lido_buffer_acquired_cb)(struct lido_buffer_request *request, int status, void *buffer);

/* One acquire under way on an event loop, in the caller's memory. Clear it before its first use. */
struct lido_buffer_request {
        void *data;             /* the caller's */
        struct lido_loop *loop; /* where the callback is called; set it before each use */
        int64_t timeout_ms;     /* 0: the pool's; LIDO_NEVER */
        uint64_t own[28];       /* lido's */
};

/* Acquire without blocking. The callback is called exactly once on the thread of request->loop, never before
 * this function has returned, with LIDO_OK and a buffer, or with a code of lido_buffer_acquire or
 * LIDO_ECANCELED and NULL. Threads and loops stand in one line. Threads: the loop's. Blocks: no. Owns: the
 * request is lido's until the callback. Returns: LIDO_OK; LIDO_EBUSY when it is pending already; LIDO_EINVAL;
 * LIDO_EFORKED. On an error there is no callback. */
LIDO_API int lido_buffer_acquire_async(struct lido_buffer_pool *pool, struct lido_buffer_request *request,
                                       size_t bytes, lido_buffer_acquired_cb callback);

/* Cancel a pending request: unless it has its outcome already, its callback gets LIDO_ECANCELED.
 * Threads: any. Blocks: no. Owns: the request is lido's until the callback.
 * Returns: LIDO_OK when the callback will say LIDO_ECANCELED; LIDO_EBUSY when another outcome was first;
 * LIDO_EINVAL when it is not pending. */
LIDO_API int lido_buffer_cancel(struct lido_buffer_request *request);

/* ---- a cache of one's own --------------------------------------------------------------------------------
 */

/* Open a cache that belongs to no thread: for coroutines, or a thread that must not have thread-local state.
 * Threads: any. Blocks: no. Owns: the caller's, to be given to lido_buffer_cache_close before the pool is
 * freed. Returns: LIDO_OK; LIDO_EINVAL; LIDO_ENOMEM; LIDO_ECLOSED; LIDO_EFORKED. */
LIDO_API int lido_buffer_cache_open(struct lido_buffer_cache **ret_cache, struct lido_buffer_pool *pool);

/* As lido_buffer_try_acquire, through this cache. Threads: one at a time for a cache. */
LIDO_API int lido_buffer_cache_acquire(struct lido_buffer_cache *cache, size_t bytes, void **ret_buffer);

/* As lido_buffer_release, into this cache when the buffer is of its pool. Threads: one at a time for a cache.
 */
LIDO_API int lido_buffer_cache_release(struct lido_buffer_cache *cache, void *buffer);

/* Give its buffers to the pool and end it. Threads: one at a time for a cache. Blocks: no. NULL is allowed.
 */
LIDO_API void lido_buffer_cache_close(struct lido_buffer_cache *cache);

/* ---- shared buffers --------------------------------------------------------------------------------------
 */

/* A part of a shared buffer, and one reference to it. A small value: copy it only to hand it on; each one
 * made by share, ref or sub is ended by one lido_slice_release. The bytes may be written only while the
 * reference is the only one. */
typedef struct lido_slice {
        char *data;
        size_t bytes;
        struct lido_shared *shared;
} lido_slice;

/* Make a lent buffer shared: the slice is its first `bytes`, and the first reference.
 * Threads: any. Blocks: no. Owns: the buffer passes to the slice, unless an error is returned; do not release
 * it. Returns: LIDO_OK; LIDO_EINVAL when it is no lent buffer or shorter; LIDO_ENOMEM for the 64 bytes of the
 * count, which are beside the buffer and not charged to max_bytes. */
LIDO_API int lido_slice_share(void *buffer, size_t bytes, lido_slice *ret_slice);

/* One more reference to the same bytes. Threads: any. Blocks: no. Owns: the new slice is the caller's. */
LIDO_API lido_slice lido_slice_ref(lido_slice slice);

/* One more reference, to a part. Threads: any. Blocks: no. Owns: the new slice is the caller's.
 * Returns: LIDO_OK; LIDO_EINVAL when the part is not inside the slice. */
LIDO_API int lido_slice_sub(lido_slice slice, size_t offset, size_t bytes, lido_slice *ret_slice);

/* Is this the only reference, so that the bytes may be written? Threads: any. Blocks: no. Returns: 1 or 0. */
LIDO_API int lido_slice_is_unique(lido_slice slice);

/* Make the bytes the caller's alone: as they are if the reference is the only one, else by a copy into a new
 * buffer. Threads: any. Blocks: no. Owns: *slice is replaced; on an error it is as it was. Returns: LIDO_OK;
 * or as lido_buffer_try_acquire. */
LIDO_API int lido_slice_unique(lido_slice *slice);

/* End one reference; the last one releases the buffer.
 * Threads: any. Blocks: no. Owns: the slice is used up. Returns: LIDO_OK; LIDO_EDOUBLE when the buffer has
 * been released already, which is noticed as long as its count has not been used again; LIDO_EINVAL for an
 * empty slice. */
LIDO_API int lido_slice_release(lido_slice slice);

/* ---- libuv -----------------------------------------------------------------------------------------------
 */

/* Where lido_buffer_uv_alloc takes its buffers from: uv_handle_t.data points to a struct that begins with one
 * of these. */
struct lido_buffer_uv {
        struct lido_buffer_pool *pool;
        size_t bytes; /* of each read; 0: what libuv suggests, 64 KiB */
};

/* A uv_alloc_cb: libuv reads straight into a lent buffer, which the read callback owns. When there is none
 * the read callback gets UV_ENOBUFS. Threads: the loop's. Blocks: no. */
LIDO_API void lido_buffer_uv_alloc(struct uv_handle_s *handle, size_t suggested, struct uv_buf_t *ret_buf);

/* The same for an alloc callback of one's own. Threads: any. Blocks: no.
 * Returns: LIDO_OK; else *ret_buf is empty: as lido_buffer_try_acquire. */
LIDO_API int lido_buffer_uv_buf(struct lido_buffer_pool *pool, size_t bytes, struct uv_buf_t *ret_buf);

/* Release the buffer of a uv_buf_t that a read callback was given; an empty one is left alone. Threads: any.
 * Blocks: no. */
LIDO_API void lido_buffer_uv_release(const struct uv_buf_t *buf);

/* ---- stats and leaks -------------------------------------------------------------------------------------
 */

struct lido_buffer_stats {
        size_t size;
        /* how it is now, counted buffer by buffer: mapped == lent + cached + kept + clean, up to calls under
         * way */
        size_t mapped_bytes; /* of all buffers that exist; at most max_bytes */
        size_t lent_bytes;   /* with borrowers */
        size_t cached_bytes; /* in thread caches and depots */
        size_t kept_bytes;   /* free, and warm: it will decay */
        size_t clean_bytes;  /* free, and without memory behind it */
        size_t huge_bytes;   /* of mapped: buffers above the classes */
        uint64_t lent, caches;
        uint32_t waiting, classes;
        uint32_t reserve_left, reserved;
        /* what has happened */
        uint64_t acquired; /* buffers lent */
        uint64_t huge;     /* of these, above the classes */
        uint64_t waited, timed_out, refused;
        uint64_t grown, grown_bytes;       /* regions taken from the source */
        uint64_t returned, returned_bytes; /* and given back, or purged */
        uint64_t from_reserve;
        uint64_t misused, damaged, leaked;
        uint64_t contended; /* trips to a depot */
};
#define LIDO_BUFFER_STATS_INIT LIDO_SIZED(lido_buffer_stats)

/* Read the stats. Threads: any. Blocks: no. Owns: the struct is the caller's.
 * Returns: LIDO_OK; LIDO_EINVAL; LIDO_E2NEW; LIDO_EFORKED. */
LIDO_API int lido_buffer_pool_stats(struct lido_buffer_pool *pool, struct lido_buffer_stats *stats);

/* The size of class `index`, counted from 0; 0 when there is no such class. Threads: any. Blocks: no. */
LIDO_API size_t lido_buffer_class_bytes(const struct lido_buffer_pool *pool, uint32_t index);

/* The bytes that a buffer for `bytes` really takes. Threads: any. Blocks: no. Returns: 0 when the pool cannot
 * give it. */
LIDO_API size_t lido_buffer_pool_bytes_for(const struct lido_buffer_pool *pool, size_t bytes);

/* A sampled buffer that is lent. */
struct lido_buffer_trace {
        size_t size;
        void *buffer;
        size_t bytes;
        const char *site;      /* where it was acquired; "?" when not known */
        const char *last_site; /* where it was last touched (lido_buffer_touch), or NULL */
        uint32_t thread;       /* kernel id of the thread that acquired it */
        uint32_t last_thread;
        uint64_t held_ns;
};
#define LIDO_BUFFER_TRACE_INIT LIDO_SIZED(lido_buffer_trace)

/* Write on a sampled buffer's record that it passed here; nothing for others. Threads: any. Blocks: no. */
#define lido_buffer_touch(buffer) lido_buffer_touch_at(buffer, LIDO_HERE)
LIDO_API void lido_buffer_touch_at(const void *buffer, const char *site);

/* List the sampled buffers that are lent for at least `age_ms`; `each` gets a copy, outside any lock.
 * Threads: any. Blocks: no. Returns: how many; LIDO_EINVAL without LIDO_BUFFER_LEAKS; LIDO_EFORKED. */
LIDO_API int lido_buffer_pool_leaks(struct lido_buffer_pool *pool, int64_t age_ms,
                                    void (*each)(const struct lido_buffer_trace *trace, void *context),
                                    void *context);

#ifdef __cplusplus
}
#endif
#endif
