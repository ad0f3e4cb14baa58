/* pg/resolver.h - host names looked up on threads of their own, and kept for a while.
 *
 * Who needs addresses asks: what is known and fresh is there at once, for anything else there will be news. A name
 * is looked up once however many ask. getaddrinfo(3) knows no deadline, so a thread may be stuck in it: it keeps the
 * memory it will still touch, and is left behind when the pool ends.
 *
 *   - What was found counts for `ttl_ms`, then it is looked up again when somebody asks.
 *   - A failure counts for a second. When there was an answer before, that goes on counting: a resolver that is down
 *     takes nothing away.
 *   - An address that did not answer goes to the end of the list for ten seconds.
 */
#ifndef LIDO_PG_RESOLVER_H
#define LIDO_PG_RESOLVER_H

#include <stdint.h>

#include "pg/addresses.h"
#include "pg/news.h"

struct resolver;
struct uv_loop_s;

/* `loop`: no threads, uv_getaddrinfo there; then all calls are of its thread, but for resolver_free. NULL: threads. */
struct resolver *resolver_new(int64_t ttl_ms, struct uv_loop_s *loop);

/* Threads: any. Blocks: until those that are not in getaddrinfo have ended, at once. */
void resolver_free(struct resolver *resolver);

/* The addresses of a host, those that answer first. Threads: any. Blocks: no.
 * Returns: LIDO_OK and *ret_addresses; LIDO_EBUSY when news will come; else a code, with *error filled in. */
int resolver_ask(struct resolver *resolver, const char *host, struct news *news, struct addresses *ret_addresses,
                 struct lido_error *error);

/* No more news, please. */
void resolver_forget(struct resolver *resolver, struct news *news);

/* Did an address answer? */
void resolver_note(struct resolver *resolver, const char *host, const char *address, bool is_alive);

#endif
