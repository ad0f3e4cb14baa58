/* pg/mux_sql.h - may a statement share its connection with others? Judged by its text alone, before it is sent.
 *
 * A list of what may, not of what may not: whatever is not known to leave the session as it found it gets a lease to
 * itself. In a statement that may, some names mean that it does not: functions that change the session, and INTO of SELECT
 * INTO. A name counts wherever it stands outside of strings and comments: wrongly taken for such a function, a column costs
 * its statement a lease, and no more.
 */
#ifndef LIDO_PG_MUX_SQL_H
#define LIDO_PG_MUX_SQL_H

enum sql_kind {
        SQL_SHARED,  /* leaves nothing behind */
        SQL_ALONE,   /* may leave something, which the pool's reset undoes */
        SQL_REFUSED, /* is nothing but a change of the session, so on its own it has no sense; or COPY */
};

enum sql_kind mux_sql_kind(const char *sql);

#endif
