/* pg/hosts.h - what is known of each server of a host list, and what follows: where to connect next, and whose sessions may
 * not be lent any more.
 *
 * One pool has one line of borrowers and connections to several hosts, all of them to servers that fit: those of the role that the
 * pool wants (target_session_attrs), not too far behind, and of the right past. Who wants to write somewhere and to read
 * elsewhere opens two pools, under one budget if he likes. So a waiter is served by whichever host is first, and nobody
 * waits for a server that has gone while another is there.
 *
 * Who tells: the monitor, which asks each host in turn (monitor.h), and each connect. Who asks: a connect, in which order to
 * try; the peek at a session about to be lent, and the check of an idle one, by one atomic load.
 *
 *   - A host *fits* when it has the role. Unknown ones do, for a connect finds out. A host that is down keeps what was known
 *     of it; its sessions say themselves that they are dead.
 *   - A host is *refused* when it is of another cluster (system identifier), or a primary whose timeline is older than that of
 *     another primary seen: it was replaced by a promotion, and what is written there is lost. Its sessions are cut off, those that
 *     are lent too. One identity and one timeline, the highest, count for the pool: those of its first connection, and before there
 *     is one, of the first in the list that has said. When every host shows another identity, that one counts (a cluster
 *     restored or upgraded).
 *   - What two primaries of one timeline would mean cannot be told apart from here: the first host of them in the list goes on.
 */
#ifndef LIDO_PG_HOSTS_H
#define LIDO_PG_HOSTS_H

#include <stdbool.h>
#include <stdint.h>

#include "pg/options.h"
#include "pg/probe.h"

struct pg_hosts;

#define HOSTS_LEFT 1u /* a host does not fit any more: no session of it is to be lent */
#define HOSTS_CAME 2u /* a host fits that did not, or was down */
#define HOSTS_CUT 4u  /* a host is refused: its sessions are to be cut off */

/* The options must live as long as anybody learns or asks. `on_change` is called with HOSTS_... bits on the thread that
 * brought the news, with no lock held. Returns: NULL when there is no memory. */
struct pg_hosts *hosts_new(const struct pg_options *options, void (*on_change)(void *context, unsigned changes), void *context);
struct pg_hosts *hosts_ref(struct pg_hosts *hosts);
void hosts_unref(struct pg_hosts *hosts);

/* A host has said who it is, or at least its role; `rtt_ns` is how long it took, 0: not measured. */
void hosts_learn(struct pg_hosts *hosts, unsigned host, const struct probe *probe, uint64_t rtt_ns);

/* A host does not answer. */
void hosts_lose(struct pg_hosts *hosts, unsigned host);

/* Forget the identity and the timeline that count, so that a primary refused so far is taken. */
void hosts_forget_past(struct pg_hosts *hosts);

/* In which order to try them. `attrs` is the role that this connect wants. Returns: how many, at most the number of hosts. */
unsigned hosts_order(struct pg_hosts *hosts, const char *attrs, unsigned *order);

/* Learn it, and say what stands against a session there. Returns: a constant phrase; NULL: nothing. */
const char *hosts_admit(struct pg_hosts *hosts, unsigned host, const struct probe *probe, const char *attrs);

/* How many hosts fit and are not known to be down. */
unsigned hosts_fit_count(struct pg_hosts *hosts);

/* Fill in what is known of a host. */
void hosts_describe(struct pg_hosts *hosts, unsigned index, struct lido_pg_host *ret_host);

/* May a session of this host be lent? hot: one load. */
bool hosts_fits(const struct pg_hosts *hosts, unsigned host);

/* Must it be cut off? */
bool hosts_is_cut(const struct pg_hosts *hosts, unsigned host);

/* One more session of this host, or one less; one that is being opened counts. */
void hosts_count(struct pg_hosts *hosts, unsigned host, int change);

/* Does this role say no to a server? What it does not tell is believed. */
bool hosts_role_is_wrong(const char *attrs, const struct probe *probe);

#endif
