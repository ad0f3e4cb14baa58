/* Shared buffers: a count of references beside the buffer, never inside, so that a buffer that was read into
 * can be shared without a copy. Counts are buffers of 64 bytes of a small pool that each pool opens at its
 * first share; it has no cap, so that sharing works at the cap too, and its buffers come from the thread's
 * own cache.
 *
 * refs >= 1 while any slice is in somebody's hands. The one who takes it to 0 releases both. A release of a
 * slice that has ended finds its count no longer lent, and is refused, until the count is used again.
 */
#include <stddef.h>
#include <string.h>

#include "base/atomic.h"
#include "buffer/types.h"

struct lido_shared {
        _Atomic uint64_t refs;
        void *buffer;                  /* constant */
        struct lido_buffer_pool *pool; /* constant; the buffer is lent, so it lives */
};

#define COUNT_BYTES 64 /* one cache line, so that two counts are not written through one */
_Static_assert(sizeof(struct lido_shared) <= COUNT_BYTES, "a count fits its buffer");

/* The pool of counts, opened by whoever comes first. Returns: LIDO_OK; LIDO_ENOMEM. */
static int counts_of(struct lido_buffer_pool *pool, struct lido_buffer_pool **ret_counts)
{
        struct lido_buffer_options options = LIDO_BUFFER_OPTIONS_INIT;
        struct lido_buffer_pool *seen = load_acquire(&pool->counts), *fresh;
        int rc;

        if (!seen) {
                options.name = "slices";
                options.buffer_bytes = options.alignment_bytes = COUNT_BYTES;
                options.flags = LIDO_BUFFER_NO_TOOLS;
                rc = lido_buffer_pool_open(&fresh, &options);
                if (rc != LIDO_OK)
                        return rc;
                if (cas_acq_rel(&pool->counts, &seen, fresh))
                        seen = fresh;
                else
                        lido_buffer_pool_free(fresh);
        }
        *ret_counts = seen;
        return LIDO_OK;
}

int lido_slice_share(void *buffer, size_t bytes, lido_slice *ret_slice)
{
        struct lido_buffer_pool *pool = lido_buffer_pool_of(buffer);
        struct lido_buffer_pool *counts;
        struct lido_shared *shared;
        void *memory;
        int rc;

        if (!pool || bytes > lido_buffer_bytes(buffer))
                return LIDO_EINVAL;
        rc = counts_of(pool, &counts);
        if (rc == LIDO_OK)
                rc = lido_buffer_try_acquire(counts, COUNT_BYTES, &memory);
        if (rc != LIDO_OK)
                return rc;
        shared = memory;
        shared->buffer = buffer;
        shared->pool = pool;
        store_release(&shared->refs, 1);
        ret_slice->data = buffer;
        ret_slice->bytes = bytes;
        ret_slice->shared = shared;
        return LIDO_OK;
}

lido_slice lido_slice_ref(lido_slice slice)
{
        if (slice.shared)
                add_relaxed(&slice.shared->refs, 1); /* the caller has one, so it cannot end meanwhile */
        return slice;
}

int lido_slice_sub(lido_slice slice, size_t offset, size_t bytes, lido_slice *ret_slice)
{
        if (!slice.shared || offset > slice.bytes || bytes > slice.bytes - offset)
                return LIDO_EINVAL;
        slice = lido_slice_ref(slice);
        slice.data += offset;
        slice.bytes = bytes;
        *ret_slice = slice;
        return LIDO_OK;
}

int lido_slice_is_unique(lido_slice slice)
{
        return slice.shared &&
               load_acquire(&slice.shared->refs) == 1; /* pairs with the release of the others */
}

int lido_slice_unique(lido_slice *slice)
{
        lido_slice fresh;
        void *buffer;
        int rc;

        if (!slice || !slice->shared)
                return LIDO_EINVAL;
        if (lido_slice_is_unique(*slice))
                return LIDO_OK;
        rc = lido_buffer_try_acquire(slice->shared->pool, slice->bytes ? slice->bytes : 1, &buffer);
        if (rc != LIDO_OK)
                return rc;
        memcpy(buffer, slice->data, slice->bytes);
        rc = lido_slice_share(buffer, slice->bytes, &fresh);
        if (rc != LIDO_OK) {
                lido_buffer_release(buffer);
                return rc;
        }
        lido_slice_release(*slice);
        *slice = fresh;
        return LIDO_OK;
}

int lido_slice_release(lido_slice slice)
{
        struct lido_shared *shared = slice.shared;
        int rc;

        if (!shared)
                return LIDO_EINVAL;
        if (lido_buffer_bytes(shared) != COUNT_BYTES)
                return LIDO_EDOUBLE;
        if (sub_acq_rel(&shared->refs, 1) != 1)
                return LIDO_OK;
        rc = lido_buffer_release(shared->buffer);
        lido_buffer_release(shared);
        return rc;
}
