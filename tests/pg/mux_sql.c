/* Which statements may share a connection, judged by their text. That the judgement holds on a server is in tests/pg/mux.c. */
#include "pg/mux_sql.h"

#include "support/suite.h"

static void judged(const char *sql, enum sql_kind kind)
{
        ck_assert_msg(mux_sql_kind(sql) == kind, "%s", sql);
}

START_TEST(what_reads_or_writes_rows_may_share)
{
        static const char *const statements[] = {
                "select 1", "  SELECT now()", "insert into t values (1)", "Update t set x = 1", "delete from t", "values (1)",
                "table t", "with x as (insert into t values (1) returning *) select * from x", "(select 1) union (select 2)",
                "-- why\nselect 1", "/* a /* nested */ one */ select 1", "merge into t using u on true when matched then delete",
                "show work_mem", "", ";", "select 'set_config'", "select $$ into $$, $1", "select $a$ set_config $b$ $a$",
                "select E'it\\'s into' ", "select 'a''set_config''b'", "select pg_advisory_xact_lock(1)", "select 1e5 -- into",
                "select intonation from t", NULL,
        };

        for (const char *const *sql = statements; *sql; sql++)
                judged(*sql, SQL_SHARED);
}
END_TEST

START_TEST(what_may_change_the_session_is_kept_alone)
{
        static const char *const statements[] = {
                "select set_config('a.b', 'c', false)", "SELECT pg_catalog.SET_CONFIG('a.b', 'c', false)",
                "insert x into t select 1", "select \"set_config\"('a.b', 'c', false)", "select pg_advisory_lock(1)", "select pg_try_advisory_lock_shared(1)",
                "select 1 into temp t", "create temp table t ()", "call p()", "do $$ begin end $$", "explain select 1",
                "with x as (select 1) select * into t from x", "vacuum", "select * from dblink('x', 'y')", "select 'x' /* */ , setseed(1)",
                "select U&\"set\\005fconfig\"('a.b', 'c', false)", "grant select on t to u", "no such statement", "select lo_open(1, 2)", NULL,
        };

        for (const char *const *sql = statements; *sql; sql++)
                judged(*sql, SQL_ALONE);
}
END_TEST

START_TEST(what_has_no_sense_on_its_own_is_refused)
{
        static const char *const statements[] = {
                "begin", "START TRANSACTION", "commit", "/* x */ rollback", "set work_mem = 1", "reset all", "listen a", "unlisten *",
                "copy t from stdin", "declare c cursor for select 1", "fetch c", "prepare p as select 1", "execute p", "deallocate all",
                "discard all", "savepoint s", "lock t", "load 'x'", "-- x\n  begin;", NULL,
        };

        for (const char *const *sql = statements; *sql; sql++)
                judged(*sql, SQL_REFUSED);
}
END_TEST

START_TEST(unended_text_ends_the_judgement)
{
        static const char *const statements[] = { "select 'x", "select \"x", "select /* x", "select $a$ x", "select -- x",
                                                  "select E'\\", "select /*", "select $", "select -", NULL };

        for (const char *const *sql = statements; *sql; sql++)
                judged(*sql, SQL_SHARED);
}
END_TEST

int main(void)
{
        return suite_run("pg/mux_sql", (const TTest *[]){
                                               what_reads_or_writes_rows_may_share,
                                               what_may_change_the_session_is_kept_alone,
                                               what_has_no_sense_on_its_own_is_refused,
                                               unended_text_ends_the_judgement,
                                               NULL,
                                       });
}
