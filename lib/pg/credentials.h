/* pg/credentials.h - a password asked for when it is needed, kept while it counts, and wiped when it does not.
 *
 * The provider is the embedder's: it is asked once however many connects wait, and answers when it can. An answer counts until it
 * expires, or until the server refuses it: then the provider is asked once more, for one that is newer, and only if that is
 * refused too the connect has failed for good. A secret is in memory of ours while a connect uses it or while it is kept; libpq has a
 * copy in each PGconn.
 */
#ifndef LIDO_PG_CREDENTIALS_H
#define LIDO_PG_CREDENTIALS_H

#include "base/atomic.h"
#include "lido/pg.h"
#include "pg/news.h"

struct credentials;

struct secret {
        _Atomic uint32_t users; /* atomic: who keeps it, and each connect */
        unsigned number;        /* constant: each is newer than the one before, from 1 */
        char *user;             /* constant; NULL: conninfo's */
        char *password;         /* constant; NULL: conninfo's */
};

struct credentials *credentials_new(const struct lido_pg_options *given);

/* Questions that are out may still be answered: it will be to nobody. */
void credentials_free(struct credentials *credentials);

/* A secret newer than number `refused` (0: any). Calls the provider if it must. Threads: any. Blocks: no.
 * Returns: LIDO_OK and a share of a secret; LIDO_EBUSY when news will come; else a code, with *error filled in. */
int credentials_ask(struct credentials *credentials, unsigned refused, struct news *news, struct secret **ret_secret,
                    struct lido_error *error);

/* No more news, please. */
void credentials_forget(struct credentials *credentials, struct news *news);

/* The server has refused the secret of this number: it does not count any more. */
void credentials_refused(struct credentials *credentials, unsigned number);

/* What is kept does not count any more, nor does the answer to a question that is out: whoever waits for it asks anew. */
void credentials_expire(struct credentials *credentials);

void secret_unref(struct secret *secret);

#endif
