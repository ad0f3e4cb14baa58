/* pg/reset.h - what a borrower has left in a session, and what undoes it.
 *
 * libpq's event hook shows every result, so the command tags tell what kinds of state a session may carry: SET, LISTEN,
 * DECLARE CURSOR, CREATE, DO. Nothing is told for a function inside a SELECT; the few that matter most are known by the
 * name that PostgreSQL gives their column. A tag that is seen costs a statement more than nothing; one that is not seen
 * leaks, so when in doubt it counts.
 */
#ifndef LIDO_PG_RESET_H
#define LIDO_PG_RESET_H

#include <libpq-fe.h>

enum reset_dirt {
        DIRT_SETTINGS = 1,  /* SET, RESET, set_config: parameters, role, session authorization */
        DIRT_LISTEN = 2,    /* LISTEN */
        DIRT_CURSORS = 4,   /* DECLARE CURSOR WITH HOLD outlives its transaction */
        DIRT_TEMP = 8,      /* CREATE, SELECT INTO: perhaps temporary */
        DIRT_LOCKS = 16,    /* advisory locks of the session */
        DIRT_SEQUENCES = 32, /* currval, lastval */
        DIRT_OPAQUE = 64,   /* LOAD, dblink, replication slots, the seed: DISCARD ALL does not reach it */
        DIRT_PLANS = 128,   /* DEALLOCATE, DISCARD: prepared statements are no longer what we knew */
        DIRT_ALL = 63,      /* all that DISCARD ALL reaches, but for plans */
};

/* The dirt that a result stands for; 0 for nearly all. Threads: the owner of its connection. */
unsigned reset_dirt_of(const PGresult *result);

struct reset_plan {
        const char *steps[6]; /* for work_start */
        char sql[256];
};

/* What has to be run. `level` is of enum lido_pg_reset; setup, which the session has run when it was opened, is run again
 * when its effect is undone. NULL: there is none. */
void reset_make_plan(struct reset_plan *plan, int level, unsigned dirt, PGTransactionStatusType state, const char *setup);

#endif
