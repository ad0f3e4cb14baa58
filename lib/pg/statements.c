#include "pg/statements.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "lido/pg.h"

#define PREPARE_AT_USE 3 /* a statement seen so often will be seen again */

void statements_init(struct statements *statements)
{
        list_init(&statements->used);
        statements->count = 0;
        statements->names = 0;
}

void statements_fini(struct statements *statements)
{
        list_for_each_safe(it, &statements->used)
                mem_free(list_entry(it, struct statement, link));
        statements_init(statements);
}

/* FNV-1a. */
static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t size)
{
        const unsigned char *at = bytes;

        for (size_t i = 0; i < size; i++)
                hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
        return hash;
}

static uint64_t hash_of(const char *sql, const struct lido_pg_param *params, uint32_t count)
{
        uint64_t hash = hash_bytes(UINT64_C(0xcbf29ce484222325), sql, strlen(sql));

        for (uint32_t i = 0; i < count; i++)
                hash = hash_bytes(hash, &params[i].type, sizeof params[i].type);
        return hash;
}

static bool is_same(const struct statement *statement, const char *sql, const struct lido_pg_param *params, uint32_t count)
{
        if (statement->type_count != count || strcmp(statement->sql, sql) != 0)
                return false;
        for (uint32_t i = 0; i < count; i++)
                if (statement->types[i] != params[i].type)
                        return false;
        return true;
}

static struct statement *remember(struct statements *statements, const char *sql, const struct lido_pg_param *params,
                                  uint32_t count)
{
        size_t types = count * sizeof(Oid), length = strlen(sql) + 1;
        struct statement *statement = mem_zalloc(sizeof *statement + types + length);

        if (!statement)
                return NULL;
        statement->type_count = count;
        for (uint32_t i = 0; i < count; i++)
                statement->types[i] = params[i].type;
        statement->sql = memcpy((char *)statement->types + types, sql, length);
        list_init(&statement->link);
        statements->count++;
        return statement;
}

struct statement *statements_use(struct statements *statements, const char *sql, const struct lido_pg_param *params,
                                 uint32_t count)
{
        uint64_t hash = hash_of(sql, params, count);
        struct statement *found = NULL;

        list_for_each(it, &statements->used) {
                struct statement *statement = list_entry(it, struct statement, link);

                if (statement->hash == hash && is_same(statement, sql, params, count)) {
                        found = statement;
                        break;
                }
        }
        if (!found)
                found = remember(statements, sql, params, count);
        if (!found)
                return NULL;
        found->hash = hash;
        found->uses++;
        list_unlink(&found->link);
        list_push_front(&statements->used, &found->link);
        return found;
}

struct statement *statements_take_surplus(struct statements *statements, uint32_t limit)
{
        struct list *last = list_back(&statements->used);

        if (statements->count <= limit || !last)
                return NULL;
        list_unlink(last);
        statements->count--;
        return list_entry(last, struct statement, link);
}

bool statements_is_worth_preparing(const struct statement *statement, int prepare)
{
        return prepare == LIDO_PG_PREPARE_AT_ONCE || statement->uses >= PREPARE_AT_USE;
}

void statements_name(struct statements *statements, struct statement *statement)
{
        snprintf(statement->name, sizeof statement->name, "lido_%llu", (unsigned long long)++statements->names);
}

void statements_forget(struct statements *statements)
{
        list_for_each(it, &statements->used)
                list_entry(it, struct statement, link)->is_prepared = false;
}
