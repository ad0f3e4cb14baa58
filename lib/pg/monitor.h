/* pg/monitor.h - the thread that keeps an eye on the hosts of a list: one connection to each, one question each time.
 *
 * A failover shows nowhere else: an idle session is not told that its server has become another, and one to the old primary works
 * as before while another is promoted beside it. The thread never blocks but in poll(2), for all hosts at once, so that a
 * silent one delays no other. What it learns goes to hosts.h.
 */
#ifndef LIDO_PG_MONITOR_H
#define LIDO_PG_MONITOR_H

#include "pg/connect.h"

struct pg_monitor;

/* Start. The tools, with hosts, must live until monitor_free. Returns: LIDO_OK; LIDO_ENOMEM; LIDO_ETHREAD; LIDO_EFACTORY. */
int monitor_new(struct pg_monitor **ret_monitor, const struct connect_tools *tools);

/* Look now, at all of them. Threads: any. Blocks: no. */
void monitor_poke(struct pg_monitor *monitor);

/* Stop. Threads: any but its own. Blocks: until the thread has ended, at once. */
void monitor_free(struct pg_monitor *monitor);

#endif
