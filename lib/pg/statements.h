/* pg/statements.h - which statements a session has prepared: a small cache, the latest used in front.
 *
 * A statement is its text and the types of its parameters. It is remembered from its first use, and prepared by whoever
 * finds that it has been used often enough. What the server really has may differ, for a borrower may DEALLOCATE: then the
 * entries are kept, but count as not prepared, and get a new name when they are prepared again.
 */
#ifndef LIDO_PG_STATEMENTS_H
#define LIDO_PG_STATEMENTS_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

struct lido_pg_param;

struct statement {
        struct list link;
        uint64_t hash;
        uint32_t uses;
        bool is_prepared;
        char name[24];
        uint32_t type_count;
        const char *sql; /* behind the types */
        Oid types[];
};

/* All of it belongs to the owner of the session. */
struct statements {
        struct list used; /* of struct statement, the latest first */
        uint32_t count;
        uint64_t names; /* given so far */
};

void statements_init(struct statements *statements);
void statements_fini(struct statements *statements);

/* The statement, remembered if it was not, with its use counted. Returns: NULL when there is no memory. */
struct statement *statements_use(struct statements *statements, const char *sql, const struct lido_pg_param *params,
                                 uint32_t count);

/* If there are more than `limit`, take the one whose last use is longest ago off. Returns: it, to be freed by mem_free; or NULL. */
struct statement *statements_take_surplus(struct statements *statements, uint32_t limit);

/* Is it to be prepared now? `prepare` is enum lido_pg_prepare, not NEVER. */
bool statements_is_worth_preparing(const struct statement *statement, int prepare);

/* Name a statement that is about to be prepared. */
void statements_name(struct statements *statements, struct statement *statement);

/* The server has forgotten them. */
void statements_forget(struct statements *statements);

#endif
