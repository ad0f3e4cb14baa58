#include "pg/reset.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lido/pg.h"

struct mark {
        const char *prefix;
        unsigned dirt;
};

static const struct mark tags[] = {
        { "SET", DIRT_SETTINGS },
        { "RESET", DIRT_SETTINGS },
        { "SELECT", DIRT_TEMP }, /* SELECT INTO and CREATE TABLE AS, for it comes without rows */
        { "CREATE", DIRT_TEMP },
        { "LISTEN", DIRT_LISTEN },
        { "LOAD", DIRT_OPAQUE },
        { "DECLARE CURSOR", DIRT_CURSORS },
        { "DEALLOCATE", DIRT_PLANS },
        { "DISCARD", DIRT_PLANS },
        { "DO", DIRT_ALL | DIRT_OPAQUE },
        { "CALL", DIRT_ALL | DIRT_OPAQUE },
};

static const struct mark functions[] = {
        { "set_config", DIRT_SETTINGS },
        { "setseed", DIRT_OPAQUE },
        { "setval", DIRT_SEQUENCES },
        { "nextval", DIRT_SEQUENCES },
        { "pg_advisory_", DIRT_LOCKS },
        { "pg_try_advisory_", DIRT_LOCKS },
        { "pg_create_", DIRT_OPAQUE }, /* replication slots */
        { "pg_copy_", DIRT_OPAQUE },
        { "dblink", DIRT_OPAQUE },
        { "lo_open", DIRT_OPAQUE },
};

static unsigned find(const struct mark *marks, size_t count, const char *name)
{
        for (size_t i = 0; i < count; i++)
                if (name[0] == marks[i].prefix[0] && strncmp(name, marks[i].prefix, strlen(marks[i].prefix)) == 0)
                        return marks[i].dirt;
        return 0;
}

unsigned reset_dirt_of(const PGresult *result)
{
        unsigned dirt = 0;

        switch (PQresultStatus(result)) {
        case PGRES_COMMAND_OK:
                return find(tags, sizeof tags / sizeof *tags, PQcmdStatus((PGresult *)result));
        case PGRES_TUPLES_OK:
        case PGRES_SINGLE_TUPLE:
                for (int column = 0; column < PQnfields(result); column++)
                        dirt |= find(functions, sizeof functions / sizeof *functions, PQfname(result, column));
                return dirt;
        default:
                return 0;
        }
}

/* Together in one message, which is one transaction: the order is that of DISCARD ALL, which undoes plans as well and
 * must stand alone. */
static void write_cleaning(char *sql, size_t size, unsigned dirt)
{
        static const struct mark cleaning[] = {
                { "CLOSE ALL;", DIRT_CURSORS },
                { "SET SESSION AUTHORIZATION DEFAULT;RESET ALL;", DIRT_SETTINGS },
                { "UNLISTEN *;", DIRT_LISTEN },
                { "SELECT pg_catalog.pg_advisory_unlock_all();", DIRT_LOCKS },
                { "DISCARD TEMP;", DIRT_TEMP },
                { "DISCARD SEQUENCES;", DIRT_SEQUENCES },
        };
        size_t used = 0;

        sql[0] = '\0';
        for (size_t i = 0; i < sizeof cleaning / sizeof *cleaning; i++)
                if (dirt & cleaning[i].dirt)
                        used += (size_t)snprintf(sql + used, size - used, "%s", cleaning[i].prefix);
}

void reset_make_plan(struct reset_plan *plan, int level, unsigned dirt, PGTransactionStatusType state, const char *setup)
{
        const char **step = plan->steps;

        plan->sql[0] = '\0';
        if (state != PQTRANS_IDLE) /* ROLLBACK and DISCARD ALL do not go together in one message */
                *step++ = "ROLLBACK";
        if (level == LIDO_PG_RESET_AUTO)
                write_cleaning(plan->sql, sizeof plan->sql, dirt);
        if (level >= LIDO_PG_RESET_FULL)
                *step++ = "DISCARD ALL";
        else if (plan->sql[0] != '\0')
                *step++ = plan->sql;
        if (level >= LIDO_PG_RESET_STRICT) /* so that nobody knows what random() will say to the next borrower */
                *step++ = "SELECT pg_catalog.setseed(('x' || substr(md5(clock_timestamp()::text || gen_random_uuid()::text), 1, "
                          "8))::bit(32)::int::float8 / 2147483648)";
        if (setup && (level >= LIDO_PG_RESET_FULL || (dirt & (DIRT_SETTINGS | DIRT_TEMP | DIRT_LISTEN))))
                *step++ = setup;
        if (step == plan->steps) /* a sign of life */
                *step++ = "";
        *step = NULL;
}
