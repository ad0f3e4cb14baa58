#include "pg/params.h"

#include <string.h>

#include "base/mem.h"

#define PARAMS_ON_STACK 16

static struct lido_pg_param number_of(uint64_t bits, int length, Oid type)
{
        struct lido_pg_param param = { .length = length, .format = 1, .type = type };
        unsigned char bytes[sizeof param.own] = { 0 };

        for (int i = 0; i < length; i++)
                bytes[i] = (unsigned char)(bits >> (8 * (length - 1 - i)));
        memcpy(&param.own, bytes, sizeof bytes);
        return param;
}

struct lido_pg_param lido_pg_int4(int32_t number)
{
        return number_of((uint32_t)number, 4, 23);
}

struct lido_pg_param lido_pg_int8(int64_t number)
{
        return number_of((uint64_t)number, 8, 20);
}

struct lido_pg_param lido_pg_float8(double number)
{
        uint64_t bits;

        memcpy(&bits, &number, sizeof bits);
        return number_of(bits, 8, 701);
}

struct lido_pg_param lido_pg_bool(int is_true)
{
        return number_of(is_true != 0, 1, 16);
}

static const char *value_of(const struct lido_pg_param *param)
{
        return param->value || param->length <= 0 ? param->value : (const char *)&param->own;
}

bool params_are_valid(const struct lido_pg_param *params, uint32_t count)
{
        if (count > PARAMS_MOST || (count > 0 && !params))
                return false;
        for (uint32_t i = 0; i < count; i++)
                if (params[i].length < 0 || params[i].format < 0 || params[i].format > 1)
                        return false;
        return true;
}

/* libpq wants four arrays. */
int params_send(PGconn *conn, const struct params_statement *statement)
{
        const struct lido_pg_param *params = statement->params;
        uint32_t count = statement->count;
        struct arrays {
                const char *value;
                Oid type;
                int length, format;
        };
        size_t bytes = count * sizeof(struct arrays);
        union {
                const char *aligned;
                char bytes[PARAMS_ON_STACK * sizeof(struct arrays)];
        } small;
        char *memory = count <= PARAMS_ON_STACK ? small.bytes : mem_zalloc(bytes);
        int sent;

        if (!memory)
                return -1;

        const char **values = (const char **)(void *)memory;
        Oid *types = (Oid *)(void *)(values + count);
        int *lengths = (int *)(void *)(types + count), *formats = lengths + count;

        for (uint32_t i = 0; i < count; i++) {
                values[i] = value_of(&params[i]);
                types[i] = params[i].type;
                lengths[i] = params[i].length;
                formats[i] = params[i].format;
        }
        if (statement->name)
                sent = PQsendQueryPrepared(conn, statement->name, (int)count, values, lengths, formats, statement->result_format);
        else
                sent = PQsendQueryParams(conn, statement->sql, (int)count, types, values, lengths, formats,
                                         statement->result_format);
        if (memory != small.bytes)
                mem_free(memory);
        return sent;
}

/* Bytes behind a parameter's pointer. */
static size_t size_of(const struct lido_pg_param *param)
{
        if (!param->value)
                return 0;
        return param->format == 1 ? (size_t)param->length : strlen(param->value) + 1;
}

size_t params_copy_size(const struct lido_pg_param *params, uint32_t count, const char *sql)
{
        size_t total = count * sizeof *params + strlen(sql) + 1;

        for (uint32_t i = 0; i < count; i++)
                total += size_of(&params[i]);
        return total;
}

struct lido_pg_param *params_copy_to(void *memory, const struct lido_pg_param *params, uint32_t count, const char *sql,
                                     const char **ret_sql)
{
        struct lido_pg_param *copy = memory;
        size_t text = strlen(sql) + 1;
        char *at = (char *)(copy + count);

        *ret_sql = memcpy(at, sql, text);
        at += text;
        for (uint32_t i = 0; i < count; i++) {
                size_t size = size_of(&params[i]);

                copy[i] = params[i];
                if (!params[i].value)
                        continue;
                copy[i].value = memcpy(at, params[i].value, size);
                at += size;
        }
        return copy;
}

struct lido_pg_param *params_copy(const struct lido_pg_param *params, uint32_t count, const char *sql, const char **ret_sql)
{
        void *memory = mem_zalloc(params_copy_size(params, count, sql));

        return memory ? params_copy_to(memory, params, count, sql, ret_sql) : NULL;
}
