/* pg/addresses.h - the addresses of one host, looked up where blocking is allowed (resolver.h). */
#ifndef LIDO_PG_ADDRESSES_H
#define LIDO_PG_ADDRESSES_H

#include <stdbool.h>

#include "lido/error.h"

#define ADDRESSES_MAX 16   /* of one host; more are left out */
#define ADDRESS_LENGTH 64  /* an IPv6 address with its scope */

struct addresses {
        unsigned count;
        char text[ADDRESSES_MAX][ADDRESS_LENGTH];
};

/* Is it the name of something to look up? Not a folder of sockets, and not NULL. */
bool addresses_are_needed(const char *host);

struct addrinfo;

/* Those of a list that getaddrinfo gave; NULL: none. */
void addresses_take(struct addresses *addresses, const struct addrinfo *list);

/* Why there are none. */
void addresses_explain(const char *host, const char *why, int native, struct lido_error *error);

/* Look a host up, in the order of getaddrinfo(3). Blocks as long as the resolver does.
 * Returns: LIDO_OK; else a code, with *error filled in. */
int addresses_resolve(struct addresses *addresses, const char *host, struct lido_error *error);

#endif
