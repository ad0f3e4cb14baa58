/* lido/admin.h - for those who run it: is a pool healthy, and commands as text.
 *
 * Both are made to be wired to whatever port the embedder has: a health check of an orchestrator, an admin socket, a
 * signal. The commands are those of pgbouncer's console where the two have the same.
 */
#ifndef LIDO_ADMIN_H
#define LIDO_ADMIN_H

#include "lido/pool.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- health ------------------------------------------------------------------------------------------------ */

/* HEALTHY: nothing is wrong. DEGRADED: borrowers are served, and somebody should look. UNHEALTHY: they are not. */
enum lido_health_status { LIDO_HEALTHY = 0, LIDO_DEGRADED = 1, LIDO_UNHEALTHY = 2 };

/* Why, as bits. Append only. */
enum lido_health_reason {
        LIDO_HEALTH_CLOSED = 1,  /* unhealthy: closed or closing, or its service is gone */
        LIDO_HEALTH_PAUSED = 2,  /* unhealthy */
        LIDO_HEALTH_DOWN = 4,    /* the latest open failed; unhealthy when nothing is open, else degraded */
        LIDO_HEALTH_SHORT = 8,   /* degraded: fewer objects are open than min */
        LIDO_HEALTH_QUEUE = 16,  /* degraded: somebody has waited for more than half of acquire_timeout_ms */
        LIDO_HEALTH_STUCK = 32,  /* degraded: a hook has not answered by its deadline */
        LIDO_HEALTH_LEAK = 64,   /* degraded: a lease that was reported as leaked is still out */
        LIDO_HEALTH_FAILED = 128 /* unhealthy: an object could not be had, or did not pass its check */
};

struct lido_health {
        size_t size;
        int status;        /* enum lido_health_status */
        uint32_t reasons;  /* enum lido_health_reason */
        int code;          /* with FAILED: what the acquire returned, or LIDO_EFACTORY for a check that failed, LIDO_ETIMEDOUT
                            * for one that was not answered */
        uint32_t reserved;
        char text[236];    /* one line for people, "degraded: 2 of min 5 open"; always ended by a NUL */
};
#define LIDO_HEALTH_INIT LIDO_SIZED(lido_health)

/* How is the pool? With a timeout of 0 by looking at it, which costs as much as its stats. With another, and unless a look says
 * enough, also by having one object for real: it is acquired, opened if none is idle, and checked, all within the timeout
 * (LIDO_TIMEOUT_DEFAULT, LIDO_NEVER as for lido_acquire).
 * Threads: any; with a timeout not the service's loop thread. Blocks: no; with a timeout until the deadline.
 * Owns: the struct is the caller's.
 * Returns: LIDO_OK and *health is filled, whatever it says; LIDO_EINVAL; LIDO_EDEADLK on the loop thread or
 * in a hook of the pool; LIDO_EFORKED. */
LIDO_API int lido_pool_health(struct lido_pool *pool, int64_t timeout_ms, struct lido_health *health);

/* ---- commands ---------------------------------------------------------------------------------------------- */

#define LIDO_COMMANDS_READ_ONLY 1u /* nothing but SHOW */

/* On what commands work. */
struct lido_commands {
        size_t size;
        struct lido_pool *const *pools; /* known by their names */
        uint32_t count;
        uint32_t flags;          /* LIDO_COMMANDS_... */
        int64_t wait_timeout_ms; /* of WAIT_CLOSE; default 10 s */
};
#define LIDO_COMMANDS_INIT LIDO_SIZED(lido_commands)

/* Carry out one line, in any case, with or without ";", and write the answer. `name` is that of a pool; without it, all are meant:
 *
 *      PAUSE [name]        lend nothing more, let borrowers wait in line (lido_pool_pause, HOLD)
 *      RESUME [name]       end that
 *      RECONNECT [name]    replace every object by a new one, without having fewer (lido_pool_rotate over 0)
 *      WAIT_CLOSE [name]   wait until what RECONNECT has replaced is closed
 *      CLEAR [name]        close idle objects now, lent ones when they return (lido_pool_clear)
 *      SET name option=value ...      put other options into force as a whole (lido_pool_reconfigure)
 *      SHOW POOLS | HANDLES | WAITERS | STATS | HEALTH [name]     a table
 *      SHOW CONFIG [name]  options in force; SHOW OPTIONS, SHOW VERSION, SHOW HELP
 *
 * The answer to a command is its first word, to SHOW a line of column names and then lines of values, parted by tabs; what went
 * wrong begins with "ERROR: ". Each line ends in a newline. Of a line of waiters the first 64 are shown.
 * Threads: any; WAIT_CLOSE not the service's loop thread. Blocks: no; WAIT_CLOSE until wait_timeout_ms.
 * Owns: the buffer is the caller's. Returns: the length of the whole answer, even if `size` was too small for it; the buffer
 * always ends in a NUL. 0 when `on` is not valid. */
LIDO_API size_t lido_command(const struct lido_commands *on, const char *line, char *text, size_t size);

#ifdef __cplusplus
}
#endif
#endif
