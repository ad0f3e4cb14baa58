#include "pg/mux_sql.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#define WORD_MOST 64 /* PostgreSQL itself cuts names there */

/* The words of a statement, in lower case, one after the other. */
struct words {
        const char *at;
        char word[WORD_MOST];
        bool is_odd; /* a name written with escapes */
        bool is_first;       /* the next word is the statement's first, which is taken whatever it is */
        bool is_after_other; /* words that cannot tell were passed over before this one */
};

static bool begins_name(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (unsigned char)c >= 128;
}

static bool continues_name(char c)
{
        return begins_name(c) || (c >= '0' && c <= '9') || c == '$';
}

static const char *after_comment(const char *at)
{
        unsigned depth = 0;

        do {
                if (at[0] == '/' && at[1] == '*') {
                        depth++;
                        at += 2;
                } else if (at[0] == '*' && at[1] == '/') {
                        depth--;
                        at += 2;
                } else {
                        at++;
                }
        } while (depth > 0 && *at);
        return at;
}

/* Past a string or a quoted name, which a doubled quote does not end, nor in E'' an escaped one. */
static const char *after_quoted(const char *at, bool has_escapes)
{
        char quote = *at++;

        for (; *at; at++) {
                if (has_escapes && *at == '\\' && at[1])
                        at++;
                else if (*at == quote && at[1] == quote)
                        at++;
                else if (*at == quote)
                        return at + 1;
        }
        return at;
}

/* Past $tag$ ... $tag$, or past the dollar of a parameter. */
static const char *after_dollar(const char *at)
{
        const char *end = at + 1, *close;
        size_t length;

        while (continues_name(*end) && *end != '$')
                end++;
        if (*end != '$' || (at[1] >= '0' && at[1] <= '9'))
                return at + 1;
        length = (size_t)(end + 1 - at);
        for (close = end + 1; (close = strchr(close, '$')) != NULL; close++)
                if (strncmp(close, at, length) == 0)
                        return close + length;
        return end + strlen(end);
}

static void skip_name(struct words *words)
{
        while (continues_name(*words->at))
                words->at++;
}

/* Might a word that begins so be one of those that tell? Most are not, and need not be looked at. */
static bool may_tell(char c)
{
        switch (c | 32) {
        case 'c': /* currval */
        case 'd': /* dblink */
        case 'e': /* E'' */
        case 'i': /* insert, into */
        case 'l': /* lastval, lo_ */
        case 'm': /* merge */
        case 'p': /* pg_ */
        case 's': /* set_config */
        case 'u': /* U&"" */
                return true;
        default:
                return false;
        }
}

static void take_word(struct words *words)
{
        size_t length = 0;

        for (; continues_name(*words->at); words->at++)
                if (length < WORD_MOST - 1)
                        words->word[length++] = (char)(*words->at >= 'A' && *words->at <= 'Z' ? *words->at | 32 : *words->at);
        words->word[length] = '\0';
}

/* A quoted name is a name. What is in it is taken for a word, up to the first character that is none. */
static void take_quoted_word(struct words *words)
{
        const char *end = after_quoted(words->at, false);

        words->at++;
        take_word(words);
        words->at = end;
}

/* Returns: false at the end. */
static bool next_word(struct words *words)
{
        for (;;) {
                const char *at = words->at;

                switch (*at) {
                case '\0':
                        return false;
                case '\'':
                        words->at = after_quoted(at, false);
                        break;
                case '"':
                        take_quoted_word(words);
                        return true;
                case '$':
                        words->at = after_dollar(at);
                        break;
                case '-':
                        words->at = at[1] == '-' ? at + strcspn(at, "\n") : at + 1;
                        break;
                case '/':
                        words->at = at[1] == '*' ? after_comment(at) : at + 1;
                        break;
                default:
                        if (*at >= '0' && *at <= '9') { /* so that 1e5 has no word in it */
                                skip_name(words);
                        } else if (!begins_name(*at)) {
                                words->at++;
                        } else if (!words->is_first && !may_tell(*at)) {
                                skip_name(words);
                                words->is_after_other = true;
                        } else {
                                take_word(words);
                                if (*words->at == '\'' && strcmp(words->word, "e") == 0)
                                        words->at = after_quoted(words->at, true);
                                words->is_odd |= *words->at == '&' && strcmp(words->word, "u") == 0 && words->at[1] == '"';
                                return true;
                        }
                }
        }
}

static bool is_one_of(const char *word, const char *const *list)
{
        for (; *list; list++)
                if (word[0] == (*list)[0] && strcmp(word, *list) == 0)
                        return true;
        return false;
}

/* Names that stand for a change of the session; all that begins so. Those of a transaction alone do not count. */
static bool is_telling(const char *word)
{
        static const char *const names[] = { "set_config",   "setseed",     "pg_advisory_",           "pg_try_advisory_",
                                             "pg_create_",   "pg_copy_",    "pg_replication_origin_", "dblink",
                                             "lo_",          "loread",      "lowrite",                "currval",
                                             "lastval",      "pg_export_",  "pg_logical_",            NULL };

        for (const char *const *name = names; *name; name++)
                if (word[0] == (*name)[0] && strncmp(word, *name, strlen(*name)) == 0)
                        return strncmp(word, "pg_advisory_xact_", 17) != 0 && strncmp(word, "pg_try_advisory_xact_", 21) != 0;
        return false;
}

enum sql_kind mux_sql_kind(const char *sql)
{
        static const char *const shared[] = { "select", "insert", "update", "delete", "merge", "values", "table", "with", "show", NULL };
        static const char *const refused[] = { "begin",    "start",   "commit",     "end",     "abort",   "rollback", "savepoint",
                                               "release",  "set",     "reset",      "listen",  "unlisten", "copy",    "declare",
                                               "fetch",    "move",    "close",      "prepare", "execute", "deallocate", "discard",
                                               "lock",     "load",    NULL };
        struct words words = { .at = sql, .is_first = true };
        bool may_be_into = false;

        if (!next_word(&words))
                return SQL_SHARED; /* nothing */
        if (is_one_of(words.word, refused))
                return SQL_REFUSED;
        if (!is_one_of(words.word, shared))
                return SQL_ALONE;
        words.is_first = false;
        do {
                may_be_into = may_be_into && !words.is_after_other;
                if (is_telling(words.word) || (strcmp(words.word, "into") == 0 && !may_be_into) || words.is_odd)
                        return SQL_ALONE;
                may_be_into = strcmp(words.word, "insert") == 0 || strcmp(words.word, "merge") == 0;
                words.is_after_other = false;
        } while (next_word(&words));
        return SQL_SHARED;
}
