/* pg/params.h - parameters as libpq wants them, and a copy of them for those who go on after the caller has returned. */
#ifndef LIDO_PG_PARAMS_H
#define LIDO_PG_PARAMS_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#include "lido/pg.h"

#define PARAMS_MOST 65535 /* of the protocol */

/* Send a statement: the prepared one of this name, or `sql` when name is NULL. Returns: what libpq's function does, 1 or 0; -1
 * when there is no memory. */
struct params_statement {
        const char *name, *sql;
        const struct lido_pg_param *params;
        uint32_t count;
        int result_format;
};
int params_send(PGconn *conn, const struct params_statement *statement);

/* A copy of text and parameters in one piece of memory, that begins with the parameters and is given to mem_free. Returns: NULL
 * when there is no memory. */
struct lido_pg_param *params_copy(const struct lido_pg_param *params, uint32_t count, const char *sql, const char **ret_sql);

/* The same into memory of the caller's, aligned as malloc does, of params_copy_size bytes. */
size_t params_copy_size(const struct lido_pg_param *params, uint32_t count, const char *sql);
struct lido_pg_param *params_copy_to(void *memory, const struct lido_pg_param *params, uint32_t count, const char *sql,
                                     const char **ret_sql);

/* Do they make sense? */
bool params_are_valid(const struct lido_pg_param *params, uint32_t count);

#endif
