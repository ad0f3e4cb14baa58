#include "pg/failure.h"

#include <stdio.h>
#include <string.h>

#include "lido/pg.h"

#define SQLSTATE_LENGTH 5

/* A whole class when the prefix has two characters. The first match counts. */
static const struct {
        const char *prefix;
        enum lido_failure failure;
} kinds[] = {
        {"28", LIDO_FAILURE_PERMANENT},    /* wrong password, no such role, pg_hba.conf */
        {"3D000", LIDO_FAILURE_PERMANENT}, /* no such database */
        {"42", LIDO_FAILURE_PERMANENT},    /* no right to connect, bad option, bad set-up statement */
        {"22023", LIDO_FAILURE_PERMANENT}, /* bad value of an option */
        {"53", LIDO_FAILURE_CAPACITY},     /* too many connections, out of memory or disk */
        {"57P03", LIDO_FAILURE_NOT_READY}, /* starting, stopping, recovering */
        {"57P01", LIDO_FAILURE_NOT_READY}, /* shut down while we connected */
        {"57P02", LIDO_FAILURE_NOT_READY}, /* crashed while we connected */
        {"08", LIDO_FAILURE_NETWORK},
};

enum lido_failure failure_kind(const char *sqlstate)
{
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
                if (strncmp(sqlstate, kinds[i].prefix, strlen(kinds[i].prefix)) == 0)
                        return kinds[i].failure;
        return LIDO_FAILURE_TRANSIENT;
}

static bool is_sqlstate(const char *text)
{
        size_t length = strspn(text, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ");

        return length == SQLSTATE_LENGTH && text[SQLSTATE_LENGTH] == ':' && text[SQLSTATE_LENGTH + 1] == ' ';
}

/* The server's own line reads `SEVERITY:  SQLSTATE: message`, with two spaces; nothing of libpq's does. */
const char *failure_find_sqlstate(const char *text)
{
        for (const char *at = strstr(text, ":  "); at; at = strstr(at + 1, ":  "))
                if (is_sqlstate(at + 3))
                        return at + 3;
        return NULL;
}

/* Append up to the end of the line, each control character as a space. */
static void append_line(struct lido_error *error, const char *from, const char *to)
{
        size_t at = strlen(error->text);

        for (; from < to && *from != '\n' && at < sizeof error->text - 1; from++)
                error->text[at++] = (unsigned char)*from < ' ' ? ' ' : *from;
        error->text[at] = '\0';
}

void failure_from_text(struct lido_error *error, const char *text)
{
        const char *state = failure_find_sqlstate(text);
        const char *end = text + strlen(text);
        const char *start = state ? state : text;

        while (start > text && start[-1] != '\n')
                start--;
        error->text[0] = '\0';
        error->sqlstate[0] = '\0';
        if (state) {
                memcpy(error->sqlstate, state, SQLSTATE_LENGTH);
                error->sqlstate[SQLSTATE_LENGTH] = '\0';
                append_line(error, start, state - 1); /* one of the two spaces */
                append_line(error, state + SQLSTATE_LENGTH + 2, end);
        } else {
                append_line(error, start, end);
        }
        error->failure = failure_kind(error->sqlstate);
}

void failure_from_result(struct lido_error *error, const PGresult *result)
{
        const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
        const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

        memset(error, 0, sizeof *error);
        error->code = LIDO_EFACTORY;
        if (state)
                snprintf(error->sqlstate, sizeof error->sqlstate, "%s", state);
        if (!message)
                message = PQresultErrorMessage(result);
        append_line(error, message, message + strlen(message));
        error->failure = failure_kind(error->sqlstate);
}

void failure_set(struct lido_error *error, int code, enum lido_failure failure, const char *text)
{
        memset(error, 0, sizeof *error);
        error->code = code;
        error->failure = failure;
        append_line(error, text, text + strlen(text));
}

/* Of a text that was cut, take the beginning of the secret off the end. */
static void cut_beginning(char *text, size_t size, const char *secret, size_t length)
{
        size_t end = strlen(text), at = end < length ? 0 : end - length;

        for (; end == size - 1 && at < end; at++)
                if (strncmp(text + at, secret, end - at) == 0)
                        text[at] = '\0';
}

void failure_redact(struct lido_error *error, const char *secret)
{
        static const char stars[] = "***";
        char clean[sizeof error->text] = "";
        size_t used = 0, length = secret ? strlen(secret) : 0;
        const char *from = error->text, *hit;

        if (length == 0)
                return;
        cut_beginning(error->text, sizeof error->text, secret, length);
        while ((hit = strstr(from, secret)) != NULL) {
                used += (size_t)snprintf(clean + used, sizeof clean - used, "%.*s%s", (int)(hit - from), from, stars);
                from = hit + length;
                if (used >= sizeof clean)
                        break;
        }
        if (from == error->text)
                return;
        if (used < sizeof clean)
                snprintf(clean + used, sizeof clean - used, "%s", from);
        memcpy(error->text, clean, sizeof clean);
}

bool failure_is_end(const PGresult *result)
{
        const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
        const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);

        return (severity && (strcmp(severity, "FATAL") == 0 || strcmp(severity, "PANIC") == 0)) ||
               (state && (strncmp(state, "08", 2) == 0 || strcmp(state, "57P01") == 0 || strcmp(state, "57P02") == 0));
}

int failure_fate(const char *sqlstate)
{
        static const struct {
                const char *prefix;
                int fate;
        } fates[] = {
                { "08", LIDO_PG_FATE_EVICT },      { "XX001", LIDO_PG_FATE_EVICT },
                { "XX002", LIDO_PG_FATE_EVICT },   { "57P01", LIDO_PG_FATE_SUSPECT },
                { "57P02", LIDO_PG_FATE_SUSPECT }, { "57P03", LIDO_PG_FATE_SUSPECT },
                { "25006", LIDO_PG_FATE_SUSPECT },
        };

        for (size_t i = 0; i < sizeof fates / sizeof *fates; i++)
                if (strncmp(sqlstate, fates[i].prefix, strlen(fates[i].prefix)) == 0)
                        return fates[i].fate;
        return LIDO_PG_FATE_KEEP;
}

bool failure_is_outdated(const PGresult *result)
{
        const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
        const char *function = PQresultErrorField(result, PG_DIAG_SOURCE_FUNCTION);

        if (!state || !function)
                return false;
        return (strcmp(state, "26000") == 0 && strcmp(function, "FetchPreparedStatement") == 0) ||
               (strcmp(state, "0A000") == 0 && strcmp(function, "RevalidateCachedQuery") == 0);
}
