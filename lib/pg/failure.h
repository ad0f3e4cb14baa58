/* pg/failure.h - what a failure of libpq means: its SQLSTATE, one line of text without secrets, its kind.
 *
 * The SQLSTATE of a failed connect is no part of libpq's interface, but PQERRORS_VERBOSE puts it into the text:
 * `FATAL:  28P01: password ...`. The severity word is translated, the five characters are not.
 */
#ifndef LIDO_PG_FAILURE_H
#define LIDO_PG_FAILURE_H

#include <libpq-fe.h>
#include <stdbool.h>

#include "lido/error.h"

/* The kind of failure that an SQLSTATE stands for when a connection is opened; TRANSIENT for "". */
enum lido_failure failure_kind(const char *sqlstate);

/* Take the SQLSTATE out of a verbose text. Returns: the place of its five characters, or NULL. */
const char *failure_find_sqlstate(const char *text);

/* Fill in sqlstate, failure and text from the text of a failed connect, verbose or not: its first line that has an
 * SQLSTATE, or else its first line. */
void failure_from_text(struct lido_error *error, const char *text);

/* Fill an error from a result that is one. */
void failure_from_result(struct lido_error *error, const PGresult *result);

/* Fill an error of our own making. */
void failure_set(struct lido_error *error, int code, enum lido_failure failure, const char *text);

/* Put *** in place of a secret wherever it stands in the text. NULL and "" are no secret. */
void failure_redact(struct lido_error *error, const char *secret);

/* Has the server ended the session with this result or notice: FATAL, PANIC, an SQLSTATE of class 08, or a warning of
 * 57P01 or 57P02, after which an immediate shutdown hangs up without another word? */
bool failure_is_end(const PGresult *result);

/* Has the server forgotten the prepared statement, or has its result another shape now? Either is said before anything is done. */
bool failure_is_outdated(const PGresult *result);

/* What an error that is no end means for its connection: enum lido_pg_fate, never DEFAULT. */
int failure_fate(const char *sqlstate);

#endif
