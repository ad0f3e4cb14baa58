/* bench/pools/libzdb.c - libzdb's connection pool, over SQLite in memory, which is the least work it can be
 * given.
 *
 * It cannot wait, and its objects are its own: the generator polls, and does not see a connection lent twice.
 */
#define RIVAL_NAME "libzdb"
#define RIVAL_WAITS 0
#define RIVAL_TRIES 1
#define RIVAL_TIMES 0
#define RIVAL_COUNTS 0

#include "bench/pools/rival.h"

#include <zdb.h>

typedef Connection_T grip;

struct zdb {
        URL_T url;
        ConnectionPool_T connections;
};

/* A libzdb built without SQLite ends the process here, with a message of its own. */
static void *rival_open(unsigned handles)
{
        struct zdb *self = calloc(1, sizeof *self);

        if (!self)
                return NULL;
        self->url = URL_new("sqlite:///:memory:");
        if (!self->url)
                return NULL;
        self->connections = ConnectionPool_new(self->url);
        ConnectionPool_setInitialConnections(self->connections, (int)handles);
        ConnectionPool_setMaxConnections(self->connections, (int)handles);
        ConnectionPool_start(self->connections);
        return self;
}

static inline bool rival_try(void *pool, grip *ret_grip)
{
        struct zdb *self = pool;

        return (*ret_grip = ConnectionPool_getConnection(self->connections)) != NULL;
}

static inline void rival_release(void *pool, grip grip)
{
        (void)pool;
        Connection_close(grip);
}

static void rival_close(void *pool)
{
        struct zdb *self = pool;

        ConnectionPool_stop(self->connections);
        ConnectionPool_free(&self->connections);
        URL_free(&self->url);
        free(self);
}

#include "bench/pools/load.h"
