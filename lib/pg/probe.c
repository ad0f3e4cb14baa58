#include "pg/probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pg/work.h"

/* Every name with its schema, and no operator: a search_path cannot put others in their place. A promotion in the midst of it is
 * an error, and the next question is answered. */
static const char question[] =
        "select pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('default_transaction_read_only'),"
        " (select system_identifier from pg_catalog.pg_control_system()),"
        " case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn()"
        " else pg_catalog.pg_current_wal_lsn() end,"
        " case when pg_catalog.pg_is_in_recovery() then null"
        " else pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) end";

bool probe_send(PGconn *conn, struct probe *probe)
{
        memset(probe, 0, sizeof *probe);
        return PQsendQuery(conn, question);
}

static bool is_on(const PGconn *conn, const char *parameter)
{
        const char *value = PQparameterStatus(conn, parameter);

        return value && strcmp(value, "on") == 0;
}

void probe_from_status(const PGconn *conn, struct probe *ret_probe)
{
        memset(ret_probe, 0, sizeof *ret_probe);
        ret_probe->has_role = PQparameterStatus(conn, "in_hot_standby") != NULL;
        ret_probe->is_standby = is_on(conn, "in_hot_standby");
        ret_probe->is_read_only = is_on(conn, "default_transaction_read_only");
}

/* Two hexadecimal halves, "16/B374D848". */
static uint64_t position_of(const char *text)
{
        unsigned high, low;

        return sscanf(text, "%8X/%8X", &high, &low) == 2 ? (uint64_t)high << 32 | low : 0;
}

static void take(const PGresult *result, struct probe *probe)
{
        probe->is_told = probe->has_role = true;
        probe->is_standby = PQgetvalue(result, 0, 0)[0] == 't';
        probe->is_read_only = strcmp(PQgetvalue(result, 0, 1), "on") == 0;
        probe->system_id = strtoull(PQgetvalue(result, 0, 2), NULL, 10);
        probe->position = position_of(PQgetvalue(result, 0, 3));
        probe->timeline = (uint32_t)strtoul(PQgetvalue(result, 0, 4), NULL, 16);
}

int probe_read(PGconn *conn, struct probe *probe)
{
        bool is_alive = work_consume(conn);

        while (!PQisBusy(conn)) {
                PGresult *result = PQgetResult(conn);

                if (!result && !probe->is_told)
                        probe_from_status(conn, probe);
                if (!result)
                        return PQstatus(conn) == CONNECTION_OK ? 1 : -1;
                if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1 && PQnfields(result) == 5)
                        take(result, probe);
                PQclear(result);
        }
        return is_alive ? 0 : -1;
}
