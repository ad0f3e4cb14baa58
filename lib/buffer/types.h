/* buffer/types.h - what a pool of buffers is made of. Start here, then cache.h, depot.h, span.h.
 *
 *      thread cache --refill, flush--> depot of a class --carve, give back--> spans --map, unmap, purge--> source
 *
 *      entry   a free buffer and where its state stands
 *      rack    the entries of one class in one cache: a stack, used by the owner of the cache alone
 *      depot   the entries of one class that no cache has: a stack under the class's lock, the coldest at the bottom
 *      span    a region of memory, cut into buffers of one size; above 16 KiB one buffer; its states stand beside, not
 *              inside
 *
 * Every buffer has one state byte. The arrows, and who takes them:
 *
 *      CLEAN -----> CACHED   span_carve (class lock)         free in its span, no memory behind it, not constructed
 *      KEPT ------> CACHED   span_carve (class lock)         free in its span, warm
 *      CLEAN -----> RAW      span_carve, when the pool constructs; RAW -> CACHED by whoever carved, RAW -> CLEAN if
 *                            that fails
 *      CACHED ----> LENT     the one who has its entry (acquire); in a pool that checks more LENT_CHECKED, or
 *                            LENT_TRACED when the acquire was sampled: so the hot release, which knows LENT alone,
 *                            need not ask about checks
 *      LENT ------> CACHED   release: exactly one compare-and-swap wins; the winner alone makes an entry of it
 *      CACHED ----> KEPT     span_give_back (class lock)
 *      KEPT ------> CLEAN    span_purge, on a span that is out of the lists
 *      any free --> NONE     the span ends
 *
 * Invariants. (1) A buffer has at most one entry, and has one exactly while it is CACHED. (2) An entry is in
 * one place: a rack, a depot, a reserve, a waiter's gift, or a local variable. (3) span->free == its buffers
 * in KEPT or CLEAN. (4) A span with a buffer in LENT or CACHED is not destroyed. (5) pool->mapped_bytes is
 * the sum over its spans of count * bytes, and at most max_bytes. buffers_check() in tests/buffer asserts
 * them when the pool is at rest.
 */
#ifndef LIDO_BUFFER_TYPES_H
#define LIDO_BUFFER_TYPES_H

#include <stddef.h>
#include <stdint.h>

#include "base/atomic.h"
#include "base/list.h"
#include "base/mutex.h"
#include "lido/buffer.h"
#include "lido/events.h"

#define PAGE_BYTES ((size_t)4096)
#define CLASSES_MAX 192
#define CLASS_HUGE 255 /* of a buffer above the classes */
#define DEPOT_MAX 4096 /* entries of a depot; what is more goes back to its span */
#define RACK_MAX 64    /* entries of a rack */
#define RACK_BYTES \
        ((size_t)32768) /* that a class may always have in a cache; PEERS: 128 KiB leave 20 MiB stranded */
#define SINGLE_FROM                                                                                        \
        ((size_t)16384) /* above, a span holds one buffer: map and unmap are cheap against its page faults \
                         */
#define SPAN_BYTES ((size_t)65536)
#define SPAN_BYTES_LARGE ((size_t)131072) /* of classes above 8 KiB, so that a span holds at least 8 */
#define CACHE_SLOTS 32 /* thread-local places for caches; pools that share one look in a list instead */
#define FULLNESS 4     /* lists of spans by how full they are */

enum buffer_state {
        STATE_NONE = 0,
        STATE_CLEAN,
        STATE_KEPT,
        STATE_RAW,
        STATE_CACHED,
        STATE_LENT,
        STATE_LENT_CHECKED,
        STATE_LENT_TRACED,
};

typedef _Atomic(uint8_t) state_byte;
typedef _Atomic(uint64_t) state_word __attribute__((may_alias)); /* several of them; see bulk.c */

struct entry {
        void *buffer;
        state_byte *state;
};

/* ---- span ---- */

struct span {
        /* read by every release; set in span_new, then constant */
        uintptr_t base;
        size_t bytes;        /* of a buffer */
        uint32_t reciprocal; /* 2^32 / bytes, rounded up; 0 for a single buffer */
        uint32_t count;      /* of buffers */
        struct lido_buffer_pool *pool;
        size_t rack;         /* its offset in a cache */
        void *region;        /* what the source gave; base lies in it */
        uint32_t flags;      /* SPAN_... */
        uint8_t class_index; /* CLASS_HUGE: none */
        uint8_t slot;        /* pool->slot */
        uint8_t bucket;      /* of the metadata */
        uint8_t stride;      /* states stand 1 << stride bytes apart; see span_stride */

        /* guarded by the class's lock, or the pool's huge_lock */
        struct list link __attribute__((aligned(64)));
        struct list member;  /* of the class's all, or the pool's huge_all */
        size_t region_bytes; /* constant */
        uint32_t free;
        uint32_t kept;     /* of free: warm */
        uint32_t hint;     /* no free buffer below */
        uint32_t stamp;    /* the class's tick when it last changed */
        uint32_t detached; /* 1: out of the lists, span_purge is at work */

        state_byte state[] __attribute__((aligned(64)));
};
_Static_assert(sizeof(struct span) == 128, "one line that is read, one that is written");

#define SPAN_CALLERS 1u /* the memory is the caller's: never unmapped, never purged */

/* ---- class, with its depot ---- */

struct buffer_class {
        struct mutex lock;
        _Atomic uint32_t held; /* a hint: somebody is on a short trip under the lock; see trip_lock */
        size_t bytes;          /* set in open, then constant */
        uint32_t span_count;   /* buffers in a span; constant */
        uint32_t rack_base;    /* entries a cache may always have; constant */
        uint32_t rack_cap;     /* entries it may grow to; constant */
        struct entry *entries; /* guarded by lock, as all below */
        uint32_t count;
        uint32_t low; /* least count since the last tick: what nobody needed */
        uint32_t tick;
        uint64_t contended;
        uint64_t acquired;           /* by caches that are gone, and without a cache */
        struct list spans[FULLNESS]; /* with free buffers; [0] the fullest */
        struct list all;             /* every span of the class */
} __attribute__((aligned(128)));

/* ---- cache ---- */

struct rack {                      /* 32 bytes; every field is the owner's, inside, or a visitor's */
        struct entry *top;         /* where the next one goes; base == top: empty */
        struct entry *base;        /* constant */
        struct entry *end;         /* base + limit; top == end: full */
        _Atomic uint64_t acquired; /* read by others */
};

struct rack_more {       /* what the slow paths keep of a rack */
        uint32_t misses; /* owner, inside: trips to the depot since it grew */
        uint32_t spare;
        uint64_t seen; /* registry lock: acquired at the last tick */
};

struct lido_buffer_cache {
        _Atomic(struct lido_buffer_pool *)
                open;          /* == pool: the owner may use the racks; NULL: shut. See cache.h */
        _Atomic uint32_t busy; /* the owner is inside */
        size_t last_rack;      /* owner only: offset of the rack of the last release */
        _Atomic(struct lido_buffer_pool *) pool; /* written under registry lock; NULL: the pool is gone */
        struct rack_more *more;                  /* constant */
        struct lido_buffer_cache *next;          /* owner only: the thread's list */
        struct list link;                        /* registry lock: pool->caches */
        uint64_t pass;                           /* registry lock: visited by this pass */
        uint32_t drained;                        /* registry lock: it is shut, and empty */
        uint32_t handle;                         /* 1: opened by lido_buffer_cache_open; constant */
        size_t extra;                            /* owner, inside: bytes of limits above rack_base */
        struct rack racks[]
                __attribute__((aligned(64))); /* class_count, and one always empty and full, for CLASS_HUGE */
};

#define RACK_OFFSET(class_index) \
        (offsetof(struct lido_buffer_cache, racks) + (size_t)(class_index) * sizeof(struct rack))

static inline struct rack *rack_at(struct lido_buffer_cache *cache, size_t offset)
{
        return (struct rack *)(void *)((char *)cache + offset);
}

static inline uint32_t rack_count(const struct rack *rack)
{
        return (uint32_t)(rack->top - rack->base);
}

static inline uint32_t rack_limit(const struct rack *rack)
{
        return (uint32_t)(rack->end - rack->base);
}

/* ---- pool ---- */

struct lido_buffer_pool {
        /* read by every call; set in open, then constant */
        size_t plain;      /* sizes up to this one need no more than to move an entry; 0: none does, there are
                              checks */
        size_t only_rack;  /* offset of the rack of the one class; 0: many */
        size_t only_bytes; /* of the one class; 0: many */
        uint32_t slot;
        uint32_t class_count;
        uint32_t checks; /* CHECK_...: more to do than to move an entry */
        uint32_t flags;  /* LIDO_BUFFER_... */
        size_t largest;
        struct buffer_class *classes;
        uint32_t epoch;      /* fork_epoch at open */
        uint8_t map[8 * 24]; /* classes.h */
        uint32_t sizes[CLASSES_MAX + 1];

        /* constant as well */
        struct lido_buffer_options options;
        char name[32];
        size_t max_bytes; /* SIZE_MAX: none */
        size_t alignment;
        struct lido_buffer_source source;
        struct lido_loop *loop;
        uint64_t cookie;
        uint64_t tick_ms;

        struct list caches;   /* registry lock */
        uint32_t cache_count; /* registry lock */
        bool forgotten;       /* registry lock: given to lido_buffer_pool_free; it gets no cache any more */
        uint64_t pass;        /* registry lock */

        _Atomic uint32_t
                attention; /* > 0: caches stay shut, every release looks for those who wait; see line.h */
        _Atomic uint32_t closed;
        _Atomic uint32_t
                refs; /* the user, each span, each call that outlives its buffer, a post on its way */
        _Atomic uint32_t spans;
        _Atomic size_t mapped_bytes;
        _Atomic size_t huge_bytes;

        /* reserve: guarded by classes[0].lock */
        struct entry *reserve;
        uint32_t reserve_count;
        uint32_t reserve_target;
        bool reserve_short; /* attention has been raised for it */

        struct mutex huge_lock;
        struct list huge_warm; /* guarded by huge_lock, as below; newest first */
        struct list huge_all;  /* also those lent, and those of guard mode */
        size_t huge_warm_bytes;
        uint32_t huge_tick;

        _Atomic(struct lido_buffer_pool *) counts; /* of slices; NULL until the first share */

        struct mutex wait_lock;
        struct list waiters; /* guarded by wait_lock, as below; oldest first */
        uint32_t waiter_count;

        struct mutex guard_lock;
        struct list guarded; /* guarded by guard_lock: regions in quarantine, oldest first */
        uint32_t guard_count;

        struct mutex trace_lock;
        struct trace *traces; /* guarded by trace_lock */
        _Atomic uint32_t trace_next;

        _Atomic uint32_t armed; /* 1: the keeper's timer is set, or about to be; see decay.c */
        struct lido_post post;
        struct lido_post stop;
        struct lido_timer timer; /* loop thread */
        bool timer_is_set;       /* loop thread */

        _Atomic uint64_t huge_acquired, waited, timed_out, refused, grown, grown_bytes, returned,
                returned_bytes, from_reserve, misused, damaged, leaked, acquired_directly;
};

#define CHECK_ZERO_ACQUIRE 0x01u
#define CHECK_ZERO_RELEASE 0x02u
#define CHECK_POISON 0x04u
#define CHECK_COOKIES 0x08u
#define CHECK_GUARD 0x10u
#define CHECK_LEAKS 0x20u
#define CHECK_ASAN 0x40u
#define CHECK_VALGRIND 0x80u
#define CHECK_FENCE 0x100u   /* no asymmetric fence here: the owner of a cache pays for a real one */
#define CHECK_RESERVE 0x200u /* no caches: RESERVE mode, guard mode */

/* The compiler forgets where the value comes from. */
#define opaque(value) __asm__("" : "+r"(value))
#define always_inline __attribute__((always_inline))
#define buffer_hot __attribute__((hot))
#define buffer_cold __attribute__((cold, noinline))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#endif
