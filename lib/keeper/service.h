/* keeper/service.h - a uv loop with its keeper; the public half is lido/service.h. */
#ifndef LIDO_KEEPER_SERVICE_H
#define LIDO_KEEPER_SERVICE_H

#include "lido/service.h"
#include "pool/pool.h"

struct pool_host *service_host(struct lido_service *service);

/* Is the calling thread the loop's? */
bool service_is_self(struct lido_service *service);

/* Is it the parent's, seen in a child? */
bool service_is_forked(struct lido_service *service);

/* Take a pool in. Returns: false when the service is stopping. */
bool service_add(struct lido_service *service, struct lido_pool *pool);

#endif
