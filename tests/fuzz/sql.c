/* A comment before a statement changes nothing; one that begins a transaction, or sets or listens, never shares a connection. */
#include "fuzz/text.h"

#include <stdio.h>
#include <strings.h>

#include "pg/mux_sql.h"

/* Is the first word this one? */
static bool begins_with(const char *sql, const char *word)
{
        size_t length = strlen(word);

        sql += strspn(sql, " \t\r\n\f\v;");
        return strncasecmp(sql, word, length) == 0 && (sql[length] == '\0' || sql[length] == ' ' || sql[length] == ';');
}

static void judge(const char *sql)
{
        static const char *const words[] = { "begin", "start", "set", "reset", "listen", "unlisten", "discard", "prepare", "deallocate",
                                             "copy", "lock", "declare", "savepoint", "commit", "rollback", "abort", "end", "load", "do" };
        enum sql_kind kind = mux_sql_kind(sql);

        must(kind == SQL_SHARED || kind == SQL_ALONE || kind == SQL_REFUSED);
        for (size_t i = 0; i < sizeof words / sizeof *words; i++)
                must(!begins_with(sql, words[i]) || kind != SQL_SHARED);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        char *sql = text_of(data, size), *behind = malloc(size + 64);

        must(behind != NULL);
        judge(sql);
        snprintf(behind, size + 64, "/* select /* 'nested */ \" */ -- set\n%s", sql);
        must(mux_sql_kind(behind) == mux_sql_kind(sql));
        free(behind);
        free(sql);
        return 0;
}
