/* pg/options.h - the options of a pool of connections, taken in once and constant from then on.
 *
 * A conninfo is split by libpq, so every option that libpq knows is passed through untouched. Only host, hostaddr, port
 * and target_session_attrs are taken apart here, so that each attempt is one PGconn to one address with its own
 * deadline, to a server that hosts.h has chosen; libpq's connect_timeout has no effect on its asynchronous interface. A
 * conninfo that names a service, or whose lists do not match, goes to libpq as it is, which knows better or says what is
 * wrong.
 */
#ifndef LIDO_PG_OPTIONS_H
#define LIDO_PG_OPTIONS_H

#include <libpq-fe.h>
#include <stdbool.h>

#include "lido/pg.h"

/* One entry of the host list. */
struct pg_host {
        char *host;     /* a name, an address, a folder of sockets, or NULL: libpq's own default */
        char *hostaddr; /* its address if it was given, or NULL: to be looked up */
        char *port;     /* or NULL: libpq's own default */
};

struct pg_options {
        struct lido_pg_options given;   /* with its defaults filled in; its strings point to the fields below */
        PQconninfoOption *conninfo;     /* what conninfo says; libpq's memory */
        struct pg_host *hosts;          /* empty: libpq sees to the hosts itself */
        unsigned host_count;
        char *session_attrs;            /* target_session_attrs, or NULL */
        char *application_name, *fallback_name, *setup;
        char *environment_password;     /* to be kept out of texts */
        bool is_gssencmode_set;
        bool is_template;               /* application_name has a % */
        bool is_clustered;              /* several hosts, and it matters which */
        struct uv_loop_s *loop;         /* where connections are opened; NULL: on threads. Not set by options_init */
};

/* Take the options in. `name` is the pool's, the fallback application name. On failure options->given.error is filled.
 * Owns: *options is to be given to options_fini on success. Returns: LIDO_OK; LIDO_EINVAL; LIDO_E2NEW; LIDO_ENOMEM. */
int options_init(struct pg_options *options, const struct lido_pg_options *theirs, const char *name);
void options_fini(struct pg_options *options);

/* What conninfo says of a keyword; NULL when it is silent. */
const char *options_value(const struct pg_options *options, const char *keyword);

#define OPTIONS_PARAMETERS 144 /* room for every keyword of libpq (46 in version 18) twice, ours, and the NULL */

/* What differs from attempt to attempt, and what PQconnectStartParams takes for it. */
struct options_attempt {
        const struct pg_host *host; /* NULL: libpq sees to the hosts */
        const char *session_attrs;
        const PQconninfoOption *key;  /* what the pool's key says; NULL: nothing */
        const char *user, *password;  /* that count instead of conninfo's; NULL: conninfo's */
        const char *application_name; /* likewise, the template filled in */
        const char *keywords[OPTIONS_PARAMETERS], *values[OPTIONS_PARAMETERS];
};

/* What a key says, which must be how connections differ and not where they go. Owns: *ret_key is to be given to PQconninfoFree, on
 * success. Returns: LIDO_OK; LIDO_EPERMANENT and *ret_error. */
int options_parse_key(const void *key, size_t size, PQconninfoOption **ret_key, struct lido_error *ret_error);

/* Fill the arrays. */
void options_parameters(const struct pg_options *options, struct options_attempt *attempt);

/* Fill in the template of application_name for the connection of this number. */
void options_expand_name(const struct pg_options *options, uint32_t number, char *text, size_t size);

/* Keep every password that we know of out of an error's text. */
void options_redact(const struct pg_options *options, struct lido_error *error);

#endif
