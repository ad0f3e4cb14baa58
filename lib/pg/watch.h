/* pg/watch.h - sessions on the service's loop: the watch on idle ones, and the check and reset that run there.
 *
 * Why on the loop: both are a few hundred bytes that go out and come back, libpq parses them in microseconds, and a
 * backend that does not answer costs nothing while one waits for it. On a connector thread each would hold up the
 * others for the whole of its deadline. What takes milliseconds of CPU (name resolution, SCRAM, TLS) does not
 * happen here.
 *
 * The watched descriptor is the session's line, a dup: libpq closes its own inside PQconsumeInput, and the number may
 * be taken by another file at once. The watch asks for UV_DISCONNECT alone, so it is silent while a borrower talks to
 * the server, and fires when the server hangs up; during a check or reset it asks for what that waits for. Its
 * handle is on the heap, and line and handle go in the callback of uv_close. No timer: what takes too long is
 * interrupted by the pool, which shuts the line down, and that is an event here.
 */
#ifndef LIDO_PG_WATCH_H
#define LIDO_PG_WATCH_H

#include <uv.h>

#include "pg/cancel.h"
#include "pg/session.h"

/* All on the loop's thread, by the hooks of the same name. */
void watch_start(struct pg_session *session, lido_handle handle, uv_loop_t *loop);
void watch_stop(struct pg_session *session, struct cancels *cancels);
void watch_check(struct pg_session *session, struct cancels *cancels, lido_op op);
void watch_reset(struct pg_session *session, struct cancels *cancels, lido_op op);

#endif
