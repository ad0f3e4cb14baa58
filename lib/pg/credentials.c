#include "pg/credentials.h"

#include <limits.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/mutex.h"
#include "base/sized.h"
#include "pg/failure.h"

struct credentials {
        void (*provide)(struct lido_pg_ask *ask, void *context); /* constant */
        void *context;
        struct mutex lock;
        struct secret *kept;     /* guarded by lock; NULL: none */
        uint64_t fresh_ns;       /* guarded by lock: until when it counts */
        uint64_t known_ns;       /* guarded by lock: when it came */
        unsigned last_number;    /* guarded by lock */
        unsigned refused_number; /* guarded by lock: the newest that the server has refused; 0: none */
        unsigned era;            /* guarded by lock: ends with each expiry; an answer counts in that of its question */
        bool is_asked;           /* guarded by lock: a question is out */
        uint64_t refused_ns;     /* guarded by lock: when the provider last refused; 0: never */
        struct lido_error error; /* guarded by lock: and why */
        struct list waiting;     /* guarded by lock: of struct news */
        _Atomic uint32_t users;  /* atomic: the pool, each question */
};

/* A question. It is the provider's until he answers it, and then gone. */
struct lido_pg_ask {
        struct credentials *credentials; /* a share */
        bool is_refused;                 /* constant: what was given last was refused by the server */
        unsigned era;                    /* constant: in which it was put */
};

/* ---- secrets --------------------------------------------------------------------------------------------- */

static void wipe(char *text)
{
        if (text)
                mem_wipe(text, strlen(text));
        mem_free(text);
}

void secret_unref(struct secret *secret)
{
        if (!secret || sub_acq_rel(&secret->users, 1) != 1)
                return;
        wipe(secret->user);
        wipe(secret->password);
        mem_free(secret);
}

static struct secret *secret_new(const struct lido_pg_credentials *given)
{
        struct secret *secret = mem_zalloc(sizeof *secret);

        if (!secret)
                return NULL;
        store_relaxed(&secret->users, 1);
        secret->user = given->user ? mem_strdup(given->user) : NULL;
        secret->password = given->password ? mem_strdup(given->password) : NULL;
        if ((secret->user || !given->user) && (secret->password || !given->password))
                return secret;
        secret_unref(secret);
        return NULL;
}

/* ---- life ------------------------------------------------------------------------------------------------ */

struct credentials *credentials_new(const struct lido_pg_options *given)
{
        struct credentials *credentials = mem_zalloc(sizeof *credentials);

        if (!credentials)
                return NULL;
        credentials->provide = given->credentials;
        credentials->context = given->credentials_context;
        mutex_init(&credentials->lock);
        list_init(&credentials->waiting);
        store_relaxed(&credentials->users, 1);
        return credentials;
}

static void unref(struct credentials *credentials)
{
        if (sub_acq_rel(&credentials->users, 1) != 1)
                return;
        secret_unref(credentials->kept);
        mutex_fini(&credentials->lock);
        mem_free(credentials);
}

void credentials_free(struct credentials *credentials)
{
        if (!credentials)
                return;
        credentials_expire(credentials);
        unref(credentials);
}

/* Keep nothing, if what is kept is not newer than this number. */
static struct secret *forget(struct credentials *credentials, unsigned number) REQUIRES(credentials->lock)
{
        struct secret *old = credentials->kept;

        if (!old || old->number > number)
                return NULL;
        credentials->kept = NULL;
        return old;
}

void credentials_expire(struct credentials *credentials)
{
        mutex_lock(&credentials->lock);
        struct secret *old = forget(credentials, UINT_MAX);
        credentials->era++;
        mutex_unlock(&credentials->lock);
        secret_unref(old);
}

void credentials_refused(struct credentials *credentials, unsigned number)
{
        mutex_lock(&credentials->lock);
        struct secret *old = forget(credentials, number);
        credentials->refused_number = number > credentials->refused_number ? number : credentials->refused_number;
        mutex_unlock(&credentials->lock);
        secret_unref(old);
}

/* ---- asking ---------------------------------------------------------------------------------------------- */

/* What is there already. Returns: LIDO_EBUSY when there is nothing. */
static int look(struct credentials *credentials, unsigned refused, const struct news *news, struct secret **ret_secret,
                struct lido_error *error) REQUIRES(credentials->lock)
{
        struct secret *kept = credentials->kept;
        bool is_fresh = kept && (clock_now_ns() < credentials->fresh_ns || credentials->known_ns >= news->since_ns);

        if (is_fresh && kept->number > refused) {
                add_relaxed(&kept->users, 1u);
                *ret_secret = kept;
                return LIDO_OK;
        }
        if (!credentials->is_asked && credentials->refused_ns && credentials->refused_ns >= news->since_ns) {
                *error = credentials->error;
                return error->code;
        }
        return LIDO_EBUSY;
}

static struct lido_pg_ask *ask_new(struct credentials *credentials) REQUIRES(credentials->lock)
{
        struct lido_pg_ask *ask = mem_zalloc(sizeof *ask);

        if (!ask)
                return NULL;
        ask->credentials = credentials;
        ask->is_refused = credentials->last_number > 0 && credentials->refused_number == credentials->last_number;
        ask->era = credentials->era;
        add_relaxed(&credentials->users, 1u);
        return ask;
}

int credentials_ask(struct credentials *credentials, unsigned refused, struct news *news, struct secret **ret_secret,
                    struct lido_error *error)
{
        struct lido_pg_ask *ask = NULL;
        bool must_ask = false;
        int rc = news_expect(news) == 0 ? LIDO_EBUSY : LIDO_ENOMEM;

        if (rc == LIDO_EBUSY) {
                mutex_lock(&credentials->lock);
                list_unlink(&news->link);
                rc = look(credentials, refused, news, ret_secret, error);
                must_ask = rc == LIDO_EBUSY && !credentials->is_asked;
                if (must_ask)
                        ask = ask_new(credentials);
                if (must_ask && !ask)
                        rc = LIDO_ENOMEM;
                if (rc == LIDO_EBUSY) {
                        credentials->is_asked = true;
                        list_push_back(&credentials->waiting, &news->link);
                }
                mutex_unlock(&credentials->lock);
        }
        if (rc == LIDO_ENOMEM)
                failure_set(error, rc, LIDO_FAILURE_TRANSIENT, "out of memory");
        if (ask)
                credentials->provide(ask, credentials->context);
        return rc;
}

void credentials_forget(struct credentials *credentials, struct news *news)
{
        mutex_lock(&credentials->lock);
        list_unlink(&news->link);
        mutex_unlock(&credentials->lock);
}

/* ---- answering ------------------------------------------------------------------------------------------- */

int lido_pg_ask_was_refused(const struct lido_pg_ask *ask)
{
        return ask->is_refused;
}

/* The question is over: whoever waits looks again. */
static void settle(struct lido_pg_ask *ask, struct secret *secret, uint64_t fresh_ns, const struct lido_error *error)
{
        struct credentials *credentials = ask->credentials;
        uint64_t now = clock_now_ns();
        struct secret *old = NULL;

        mutex_lock(&credentials->lock);
        credentials->is_asked = false;
        if (secret && ask->era != credentials->era) {
                old = secret; /* it may be what has been changed since */
        } else if (secret) {
                old = credentials->kept;
                secret->number = ++credentials->last_number;
                credentials->kept = secret;
                credentials->known_ns = now;
                credentials->fresh_ns = fresh_ns;
        } else {
                credentials->refused_ns = now;
                credentials->error = *error;
        }
        news_tell(&credentials->waiting);
        mutex_unlock(&credentials->lock);
        secret_unref(old);
        mem_free(ask);
        unref(credentials);
}

int lido_pg_answer(struct lido_pg_ask *ask, const struct lido_pg_credentials *credentials)
{
        struct lido_pg_credentials mine;
        struct lido_error error;
        struct secret *secret;
        int rc = ask ? sized_take(&mine, sizeof mine, credentials) : LIDO_EINVAL;

        if (rc == LIDO_OK && mine.valid_ms < LIDO_NEVER)
                rc = LIDO_EINVAL;
        if (rc != LIDO_OK)
                return rc;
        secret = secret_new(&mine);
        failure_set(&error, LIDO_ENOMEM, LIDO_FAILURE_TRANSIENT, "out of memory");
        settle(ask, secret, clock_after_ms(clock_now_ns(), mine.valid_ms), &error);
        return secret ? LIDO_OK : LIDO_ENOMEM;
}

int lido_pg_refuse(struct lido_pg_ask *ask, const char *reason)
{
        struct lido_error error;

        if (!ask)
                return LIDO_EINVAL;
        failure_set(&error, LIDO_EFACTORY, LIDO_FAILURE_TRANSIENT, reason ? reason : "no credentials are to be had");
        settle(ask, NULL, 0, &error);
        return LIDO_OK;
}
