/* lido/pg_keyed.h - a pool of PostgreSQL connections for each key: one for each database, each user, each search_path.
 *
 * The key says how its connections differ from the others, in libpq's own words: "dbname=shop", "user=alice dbname=shop", or
 * "options='-c search_path=tenant_7'". It is laid over options->conninfo, which says where the servers are. All keys share
 * one limit; when that is reached, an idle connection of the key that was used least lately is closed for whoever waits.
 *
 *      struct lido_keyed_options options = LIDO_KEYED_OPTIONS_INIT;
 *
 *      pg.conninfo = "host=db1";
 *      options.total = 50;
 *      lido_pg_keyed_open(&tenants, service, &pg, &options);
 *      if (lido_keyed_acquire(tenants, LIDO_WISH("dbname=shop", 11, 1000), &lease) == LIDO_OK) {
 *              lido_pg_query_on(lease, "select ...", NULL, 0, NULL, &rows);
 *              ...
 *              lido_release(lease);
 *      }
 *
 * A lease of such a connection is like any other: what lido/pg.h does on a lease is done on it too. Two keys are the same when their
 * bytes are, so spell them alike.
 */
#ifndef LIDO_PG_KEYED_H
#define LIDO_PG_KEYED_H

#include "lido/keyed.h"
#include "lido/pg.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Open keyed pools of connections. Connector threads, the addresses of names, and what is known of several hosts are shared by all keys.
 *
 * A key may say anything of a conninfo but where to connect (host, hostaddr, port, service, target_session_attrs) and what is secret
 * (password, sslpassword): a key shows in errors and dumps. Passwords come from conninfo, where all users have one, or the passfile, which knows
 * databases and users. One that libpq cannot parse, or that says more, fails its borrowers with LIDO_EPERMANENT and no others, and so does
 * a database that is not there.
 *
 * After an error that tells of a server going down, sessions of other keys are not checked ahead of time, as a single pool has it: each
 * is looked at before it is lent, as always. Nor are connections spread anew when a host comes back.
 *
 * Threads, Blocks: as lido_keyed_open. Owns: the keyed pools are the caller's, to be given to lido_keyed_free; the options are
 * copied. Returns: as lido_keyed_open; LIDO_EINVAL also as lido_pg_pool_open; LIDO_ENOTSUP for pg_options->credentials, which knows no keys;
 * LIDO_ETHREAD. */
LIDO_API int lido_pg_keyed_open(struct lido_keyed **ret_keyed, struct lido_service *service,
                                const struct lido_pg_options *pg_options, const struct lido_keyed_options *options);

#ifdef __cplusplus
}
#endif
#endif
