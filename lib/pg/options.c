#include "pg/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/sized.h"
#include "pg/failure.h"

static const struct lido_pg_options defaults = {
        .attempt_timeout_ms = 5000,
        .connectors = 4,
        .reset = LIDO_PG_RESET_AUTO,
        .drain_bytes = 1u << 20,
        .statement_cache = 100,
        .fat_bytes = 8u << 20,
        .balance = LIDO_PG_BALANCE_ORDER,
        .host_check_ms = 1000,
        .dns_ttl_ms = 15000,
};

const char *options_value(const struct pg_options *options, const char *keyword)
{
        for (PQconninfoOption *option = options->conninfo; option->keyword; option++)
                if (strcmp(option->keyword, keyword) == 0)
                        return option->val && option->val[0] ? option->val : NULL;
        return NULL;
}

static const char *value_or_environment(const struct pg_options *options, const char *keyword, const char *variable)
{
        const char *value = options_value(options, keyword);

        if (!value)
                value = getenv(variable);
        return value && value[0] ? value : NULL;
}

/* ---- the host list --------------------------------------------------------------------------------------- */

static unsigned list_length(const char *list)
{
        unsigned length = list ? 1 : 0;

        for (; list && *list; list++)
                length += *list == ',';
        return length;
}

/* A copy of the index-th item of a comma-separated list; NULL in *ret_item when it is empty or the list is NULL. */
static bool list_item(const char *list, unsigned index, char **ret_item)
{
        *ret_item = NULL;
        if (!list)
                return true;
        while (index-- > 0)
                list = strchr(list, ',') + 1;

        size_t length = strcspn(list, ",");
        if (length == 0)
                return true;
        *ret_item = mem_zalloc(length + 1);
        if (*ret_item)
                memcpy(*ret_item, list, length);
        return *ret_item != NULL;
}

static int take_hosts(struct pg_options *options)
{
        const char *hosts = value_or_environment(options, "host", "PGHOST");
        const char *addresses = value_or_environment(options, "hostaddr", "PGHOSTADDR");
        const char *ports = value_or_environment(options, "port", "PGPORT");
        unsigned count = list_length(addresses ? addresses : hosts);
        unsigned port_count = list_length(ports);

        if (count == 0)
                count = 1;
        if (value_or_environment(options, "service", "PGSERVICE") || (addresses && hosts && list_length(hosts) != count) ||
            (port_count > 1 && port_count != count))
                return LIDO_OK; /* libpq's affair */
        options->hosts = mem_zalloc(count * sizeof *options->hosts);
        if (!options->hosts)
                return LIDO_ENOMEM;
        options->host_count = count;
        for (unsigned i = 0; i < count; i++) {
                struct pg_host *host = &options->hosts[i];

                if (!list_item(hosts, i, &host->host) || !list_item(addresses, i, &host->hostaddr) ||
                    !list_item(ports, port_count > 1 ? i : 0, &host->port))
                        return LIDO_ENOMEM;
        }
        return LIDO_OK;
}

/* ---- taking in ------------------------------------------------------------------------------------------- */

/* libpq's words about a conninfo that it cannot parse may quote a part of the password, so they are passed on only if
 * there is none. */
static int parse(struct pg_options *options, const char *conninfo)
{
        char *words = NULL;

        options->conninfo = PQconninfoParse(conninfo ? conninfo : "", &words);
        if (options->conninfo)
                return LIDO_OK;
        if (!words)
                return LIDO_ENOMEM;
        if (options->given.error) {
                bool has_secret = strstr(conninfo, "pass") || strchr(conninfo, '@');

                failure_set(options->given.error, LIDO_EINVAL, LIDO_FAILURE_PERMANENT,
                            has_secret ? "conninfo cannot be parsed (libpq's words are withheld: they may quote a password)"
                                       : words);
        }
        PQfreemem(words);
        return LIDO_EINVAL;
}

static bool copy_string(char **ret_copy, const char *string)
{
        *ret_copy = string ? mem_strdup(string) : NULL;
        return *ret_copy || !string;
}

static int take_strings(struct pg_options *options, const char *name)
{
        const char *attributes = value_or_environment(options, "target_session_attrs", "PGTARGETSESSIONATTRS");

        if (!copy_string(&options->session_attrs, attributes) ||
            !copy_string(&options->application_name, options->given.application_name) ||
            !copy_string(&options->fallback_name, name) || !copy_string(&options->setup, options->given.setup) ||
            !copy_string(&options->environment_password, getenv("PGPASSWORD")))
                return LIDO_ENOMEM;
        options->given.conninfo = NULL; /* the caller's memory */
        options->given.application_name = options->application_name;
        options->given.setup = options->setup;
        options->is_gssencmode_set = value_or_environment(options, "gssencmode", "PGGSSENCMODE") != NULL;
        return LIDO_OK;
}

static int refuse(struct pg_options *options, const char *words)
{
        if (options->given.error)
                failure_set(options->given.error, LIDO_EINVAL, LIDO_FAILURE_PERMANENT, words);
        return LIDO_EINVAL;
}

static int fill_host_defaults(struct pg_options *options)
{
        struct lido_pg_options *given = &options->given;

        if (given->balance < LIDO_PG_BALANCE_DEFAULT || given->balance > LIDO_PG_BALANCE_NEAREST)
                return refuse(options, "balance is none of enum lido_pg_balance");
        if (given->host_check_ms < LIDO_NEVER)
                return refuse(options, "host_check_ms is no duration");
        if (given->dns_ttl_ms < LIDO_NEVER)
                return refuse(options, "dns_ttl_ms is no duration");
        if (given->balance == LIDO_PG_BALANCE_DEFAULT)
                given->balance = defaults.balance;
        if (given->host_check_ms == 0)
                given->host_check_ms = defaults.host_check_ms;
        if (given->dns_ttl_ms == 0)
                given->dns_ttl_ms = defaults.dns_ttl_ms;
        return LIDO_OK;
}

static int fill_defaults(struct pg_options *options)
{
        struct lido_pg_options *given = &options->given;
        const char *seconds = value_or_environment(options, "connect_timeout", "PGCONNECT_TIMEOUT");

        if (given->attempt_timeout_ms < LIDO_NEVER)
                return refuse(options, "attempt_timeout_ms is no duration");
        if (given->connectors > 1000)
                return refuse(options, "connectors is above 1000");
        if (given->reset < LIDO_PG_RESET_DEFAULT || given->reset > LIDO_PG_RESET_STRICT)
                return refuse(options, "reset is none of enum lido_pg_reset");
        if (given->attempt_timeout_ms == 0 && seconds && atoi(seconds) > 0)
                given->attempt_timeout_ms = 1000 * (int64_t)atoi(seconds);
        if (given->attempt_timeout_ms == 0)
                given->attempt_timeout_ms = defaults.attempt_timeout_ms;
        if (given->connectors == 0)
                given->connectors = defaults.connectors;
        if (given->reset == LIDO_PG_RESET_DEFAULT)
                given->reset = defaults.reset;
        if (given->drain_bytes == 0)
                given->drain_bytes = defaults.drain_bytes;
        if (given->statement_cache == 0)
                given->statement_cache = defaults.statement_cache;
        if (given->fat_bytes == 0)
                given->fat_bytes = defaults.fat_bytes;
        return fill_host_defaults(options);
}

/* Several hosts of which any will do, in the order of the list, need no watching. */
static void see_what_matters(struct pg_options *options)
{
        bool has_role = options->session_attrs && strcmp(options->session_attrs, "any") != 0;

        options->is_clustered = options->host_count > 1 && (has_role || options->given.balance != LIDO_PG_BALANCE_ORDER ||
                                                            options->given.lag_limit_bytes > 0);
        options->is_template = options->application_name && strchr(options->application_name, '%');
}

int options_init(struct pg_options *options, const struct lido_pg_options *theirs, const char *name)
{
        int rc;

        memset(options, 0, sizeof *options);
        rc = sized_take(&options->given, sizeof options->given, theirs);
        if (rc == LIDO_OK)
                rc = parse(options, options->given.conninfo);
        if (rc == LIDO_OK)
                rc = fill_defaults(options);
        if (rc == LIDO_OK)
                rc = take_strings(options, name);
        if (rc == LIDO_OK)
                rc = take_hosts(options);
        if (rc == LIDO_OK)
                see_what_matters(options);
        if (rc != LIDO_OK)
                options_fini(options);
        return rc;
}

static void free_secret(char *secret)
{
        if (secret)
                mem_wipe(secret, strlen(secret));
        mem_free(secret);
}

static bool is_secret(const PQconninfoOption *option)
{
        return option->dispchar && option->dispchar[0] == '*';
}

void options_fini(struct pg_options *options)
{
        for (PQconninfoOption *option = options->conninfo; option && option->keyword; option++)
                if (is_secret(option) && option->val)
                        mem_wipe(option->val, strlen(option->val));
        PQconninfoFree(options->conninfo);
        for (unsigned i = 0; i < options->host_count; i++) {
                mem_free(options->hosts[i].host);
                mem_free(options->hosts[i].hostaddr);
                mem_free(options->hosts[i].port);
        }
        mem_free(options->hosts);
        mem_free(options->session_attrs);
        mem_free(options->application_name);
        mem_free(options->fallback_name);
        mem_free(options->setup);
        free_secret(options->environment_password);
        options->conninfo = NULL;
        options->hosts = NULL;
        options->host_count = 0;
}

/* ---- one attempt ----------------------------------------------------------------------------------------- */

struct parameters {
        const char **keywords, **values;
        unsigned count;
};

static void put(struct parameters *parameters, const char *keyword, const char *value)
{
        if (!value || parameters->count >= OPTIONS_PARAMETERS - 1)
                return;
        parameters->keywords[parameters->count] = keyword;
        parameters->values[parameters->count++] = value;
}

/* Keywords that stand in the attempt's own parameters when the host list is ours. */
static bool is_ours(const char *keyword)
{
        return strcmp(keyword, "host") == 0 || strcmp(keyword, "hostaddr") == 0 || strcmp(keyword, "port") == 0 ||
               strcmp(keyword, "target_session_attrs") == 0;
}

/* Those that are a secret, or say where to connect. */
static const char *misplaced_in_key(const PQconninfoOption *option)
{
        for (; option->keyword; option++)
                if (option->val && (is_ours(option->keyword) || is_secret(option) || strcmp(option->keyword, "service") == 0))
                        return option->keyword;
        return NULL;
}

int options_parse_key(const void *key, size_t size, PQconninfoOption **ret_key, struct lido_error *ret_error)
{
        char *text = mem_zalloc(size + 1), *words = NULL, complaint[128];
        PQconninfoOption *options = NULL;
        const char *misplaced = NULL;

        if (text && size > 0)
                memcpy(text, key, size);
        if (text && strlen(text) == size)
                options = PQconninfoParse(text, &words);
        if (options)
                misplaced = misplaced_in_key(options);
        if (misplaced)
                snprintf(complaint, sizeof complaint, "the key says %s, which is the conninfo's to say", misplaced);
        else if (!options) /* libpq's words might quote a password that has no business there */
                snprintf(complaint, sizeof complaint, "the key is not such as libpq's conninfo");
        mem_free(text);
        PQfreemem(words);
        if (options && !misplaced) {
                *ret_key = options;
                return LIDO_OK;
        }
        PQconninfoFree(options);
        failure_set(ret_error, LIDO_EPERMANENT, LIDO_FAILURE_PERMANENT, complaint);
        return LIDO_EPERMANENT;
}

void options_parameters(const struct pg_options *options, struct options_attempt *attempt)
{
        /* A peer that is gone without a word is noticed in a minute, not after the two hours of the system's default. */
        static const char *const injected[][2] = {
                {"keepalives_idle", "30"},
                {"keepalives_interval", "10"},
                {"keepalives_count", "3"},
                {"tcp_user_timeout", "30000"},
        };
        const struct pg_host *host = attempt->host;
        struct parameters parameters = {attempt->keywords, attempt->values, 0};

        for (PQconninfoOption *option = options->conninfo; option->keyword; option++)
                if (!host || !is_ours(option->keyword))
                        put(&parameters, option->keyword, option->val);
        for (size_t i = 0; i < sizeof injected / sizeof *injected; i++)
                if (!options_value(options, injected[i][0]))
                        put(&parameters, injected[i][0], injected[i][1]);
        if (!options->is_gssencmode_set) /* the default asks for Kerberos tickets at each connect */
                put(&parameters, "gssencmode", "disable");
        if (!options_value(options, "fallback_application_name"))
                put(&parameters, "fallback_application_name", options->fallback_name);
        put(&parameters, "application_name", attempt->application_name ? attempt->application_name : options->application_name);
        for (const PQconninfoOption *option = attempt->key; option && option->keyword; option++) /* the last one counts */
                put(&parameters, option->keyword, option->val);
        put(&parameters, "user", attempt->user);
        put(&parameters, "password", attempt->password);
        if (host) {
                put(&parameters, "host", host->host);
                put(&parameters, "hostaddr", host->hostaddr);
                put(&parameters, "port", host->port);
                put(&parameters, "target_session_attrs", attempt->session_attrs);
        }
        attempt->keywords[parameters.count] = attempt->values[parameters.count] = NULL;
}

static void append(char *text, size_t size, const char *more, size_t length)
{
        size_t used = strlen(text);

        for (size_t i = 0; i < length && used + 1 < size; i++)
                text[used++] = more[i];
        text[used] = '\0';
}

void options_expand_name(const struct pg_options *options, uint32_t number, char *text, size_t size)
{
        text[0] = '\0';
        for (const char *at = options->application_name; *at; at++) {
                char piece[256] = "%";

                if (*at != '%' || !at[1]) {
                        append(text, size, at, 1);
                        continue;
                }
                switch (*++at) {
                case 'p':
                        snprintf(piece, sizeof piece, "%ld", (long)getpid());
                        break;
                case 'c':
                        snprintf(piece, sizeof piece, "%u", (unsigned)number);
                        break;
                case 'n':
                        snprintf(piece, sizeof piece, "%s", options->fallback_name);
                        break;
                case 'h':
                        if (gethostname(piece, sizeof piece - 1) != 0)
                                strcpy(piece, "localhost");
                        break;
                default: /* %% too */
                        break;
                }
                append(text, size, piece, strlen(piece));
        }
}

void options_redact(const struct pg_options *options, struct lido_error *error)
{
        for (PQconninfoOption *option = options->conninfo; option->keyword; option++)
                if (is_secret(option))
                        failure_redact(error, option->val);
        failure_redact(error, options->environment_password);
}
