/* Whatever a server sends, a query ends by its deadline, and the pool serves the next one. The first byte says when the server
 * begins to send it: at once, when it was logged in to, or as the answer to a query; then it hangs up, or goes on listening. */
#include "fuzz/text.h"

#include <stdio.h>
#include <sys/socket.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "lido/pg.h"
#include "lido/pool.h"
#include "lido/service.h"
#include "support/fakepg.h"

#define DEADLINE_MS 50
#define GRACE_MS 20000 /* the machine may be busy; a hang is longer */

enum when { AT_ONCE, LOGGED_IN, ASKED };

static struct fakepg server;
static struct lido_service *service;
static struct {
        const uint8_t *bytes;
        size_t size;
        enum when when;
        bool lingers;
        _Atomic bool is_armed; /* for one connection */
} script;

static void speak(int fd)
{
        if (script.size > 0)
                (void)send(fd, script.bytes, script.size, MSG_NOSIGNAL);
        while (script.lingers && fakepg_take_message(fd) > 0)
                continue;
}

/* A good server, but for the one connection that the script is for. */
static void behave(struct fakepg *fake, int fd, unsigned nth)
{
        bool is_scripted = atomic_exchange(&script.is_armed, false);
        char type;

        (void)nth;
        if (is_scripted && script.when == AT_ONCE) {
                speak(fd);
                return;
        }
        if (!fakepg_take_startup(fake, fd) || !fakepg_let_in(fd))
                return;
        if (is_scripted && script.when == LOGGED_IN) {
                speak(fd);
                return;
        }
        while ((type = fakepg_take_message(fd)) > 0 && type != 'X') {
                if (is_scripted) {
                        speak(fd);
                        return;
                }
                if (type == 'P' && !(fakepg_send(fd, '1', "", 0) && fakepg_send(fd, '2', "", 0) && fakepg_send(fd, 'n', "", 0)))
                        return;
                if ((type == 'Q' || type == 'S') && !fakepg_send_complete(fd, "SELECT 0"))
                        return;
        }
}

static int ask(struct lido_pool *pool, int64_t timeout_ms)
{
        struct lido_pg_query_options options = LIDO_PG_QUERY_OPTIONS_INIT;
        struct lido_pg_rows *rows;
        struct lido_pg_row row;
        int rc;

        options.timeout_ms = timeout_ms;
        rc = lido_pg_query(pool, "select 1; select 2", NULL, 0, &options, &rows);
        if (rc != LIDO_OK)
                return rc;
        while ((rc = lido_pg_next_row(rows, &row)) == 1)
                continue;
        lido_pg_rows_close(rows);
        return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT;
        struct lido_pg_options pg = LIDO_PG_OPTIONS_INIT;
        struct lido_pool *pool;
        char conninfo[256];
        uint64_t began;
        int rc;

        if (size < 1)
                return 0;
        if (!service)
                must(lido_service_start(&service, NULL) == LIDO_OK);
        script.bytes = data + 1;
        script.size = size - 1;
        script.when = data[0] % 3;
        script.lingers = data[0] & 0x80;
        atomic_store(&script.is_armed, true);
        fakepg_start(&server, behave);
        pg.conninfo = fakepg_conninfo(&server, "", conninfo, sizeof conninfo);
        options.max = 1;
        options.backoff_min_ms = options.backoff_max_ms = 1;
        must(lido_pg_pool_open(&pool, service, &pg, &options) == LIDO_OK);
        began = clock_now_ns();
        (void)ask(pool, DEADLINE_MS);
        must(clock_now_ns() - began < (DEADLINE_MS + GRACE_MS) * NS_PER_MS);
        atomic_store(&script.is_armed, false);
        rc = ask(pool, GRACE_MS);
        must(rc != LIDO_EDEADLINE && rc != LIDO_ETIMEDOUT);
        lido_pool_free(pool);
        fakepg_stop(&server);
        return 0;
}
