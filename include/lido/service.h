/* lido/service.h - the event loop on which pools are kept: one service is shared by many pools.
 *
 * A service either owns a loop thread, or lives on a uv loop that the embedder runs. An idle service makes no
 * wake-ups. Hooks of blocking factories run on helper threads of the service, never on libuv's process-wide four.
 */
#ifndef LIDO_SERVICE_H
#define LIDO_SERVICE_H

#include "lido/loop.h"
#include "lido/pool.h"

#ifdef __cplusplus
extern "C" {
#endif

struct lido_service_options {
        size_t size;
        const char *name;  /* of its threads, up to 11 characters; copied; default "lido" */
        uint32_t helpers;  /* helper threads at most, started when there is work for them; default 4 */
        uint32_t reserved; /* 0 */
        uint64_t seed;     /* what jitter and back-off of its pools are drawn from, so that a run can be repeated; default 0:
                            * from the system, another each time */
};
#define LIDO_SERVICE_OPTIONS_INIT LIDO_SIZED(lido_service_options)

/* Start a service on a loop thread of its own, with every signal blocked. NULL options are the defaults.
 * Threads: any. Blocks: no. Owns: the service is the caller's, to be given to lido_service_stop.
 * Returns: LIDO_OK; LIDO_EINVAL; LIDO_E2NEW; LIDO_ENOMEM; LIDO_ETHREAD; LIDO_ELOOP. */
LIDO_API int lido_service_start(struct lido_service **ret_service, const struct lido_service_options *options);

/* Make a service of a uv loop that the caller runs. Its handles are unreferenced: they do not keep uv_run going.
 * Threads: the loop's. Blocks: no. Owns: the loop stays the caller's; the service is to be given to
 * lido_service_detach. Returns: as lido_service_start. */
LIDO_API int lido_service_attach(struct lido_service **ret_service, struct uv_loop_s *loop,
                                 const struct lido_service_options *options);

/* The service's loop, as one that borrows and to which anybody may post: pools of buffers are kept on it (lido/buffer.h),
 * and so may be what an embedder wants done there. It is open until the service has stopped: whoever posts to it, or has
 * a timer on it, ends that before he has the service stopped. With an attached service a timer on it keeps uv_run going.
 * Threads: any. Blocks: no. Owns: the service; do not close it. Returns: NULL for no service, and in a child made by fork. */
LIDO_API struct lido_loop *lido_service_loop(struct lido_service *service);

/* Stop a service that was started: close its pools, wait for their leases until the deadline, interrupt what is still
 * lent, end its threads. Leases that are out even then stay valid; the last one to return ends its object itself.
 * Threads: any but the service's own. Blocks: until the deadline; then until the hooks at work, told to hurry, have
 * answered.
 * Owns: the service is gone on every return but LIDO_EINVAL and LIDO_EDEADLK; its pools are still to be given to
 * lido_pool_free, now or before.
 * Returns: LIDO_OK; LIDO_ETIMEDOUT when leases were still out; LIDO_EDEADLK on its own loop or helper thread; LIDO_EINVAL
 * for an attached service or a timeout that is none; LIDO_EFORKED in a child. */
LIDO_API int lido_service_stop(struct lido_service *service, int64_t timeout_ms);

/* End a service that was attached, in the same way but without blocking: keep the loop running until `detached` has
 * been called with `context` and LIDO_OK or LIDO_ETIMEDOUT. Then the service is gone and the loop free of its handles.
 * Threads: the loop's. Blocks: no. Owns: as lido_service_stop. Returns: LIDO_OK; LIDO_EINVAL; LIDO_EBUSY when
 * it is being detached already. */
LIDO_API int lido_service_detach(struct lido_service *service, int64_t timeout_ms,
                                 void (*detached)(int status, void *context), void *context);

#ifdef __cplusplus
}
#endif
#endif
