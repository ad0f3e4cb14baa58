/* libuv reads straight into lent buffers. */
#include <uv.h>

#include "buffer/types.h"

int lido_buffer_uv_buf(struct lido_buffer_pool *pool, size_t bytes, struct uv_buf_t *ret_buf)
{
        void *buffer;
        int rc = lido_buffer_try_acquire(pool, bytes, &buffer);

        *ret_buf = rc == LIDO_OK ? uv_buf_init(buffer, (unsigned)lido_buffer_bytes(buffer))
                                 : uv_buf_init(NULL, 0);
        return rc;
}

void lido_buffer_uv_alloc(struct uv_handle_s *handle, size_t suggested, struct uv_buf_t *ret_buf)
{
        const struct lido_buffer_uv *from = handle->data;

        lido_buffer_uv_buf(from ? from->pool : NULL, from && from->bytes ? from->bytes : suggested, ret_buf);
}

void lido_buffer_uv_release(const struct uv_buf_t *buf)
{
        if (buf && buf->base)
                lido_buffer_release(buf->base);
}
