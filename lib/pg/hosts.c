#include "pg/hosts.h"

#include <string.h>

#include "base/atomic.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/mutex.h"

struct host {
        bool is_known;             /* guarded by lock: it has said who it is */
        bool is_down;              /* guarded by lock: it did not answer last time */
        bool is_behind;            /* guarded by lock: a standby, too far behind */
        struct probe probe;        /* guarded by lock: what it said last */
        uint64_t rtt_ns;           /* guarded by lock: smoothed; 0: not measured */
        _Atomic uint32_t state;    /* atomic: FITS and CUT; written under lock */
        _Atomic uint32_t sessions; /* atomic: sessions there, those being opened too */
};

#define FITS 1u
#define CUT 2u

struct pg_hosts {
        const struct pg_options *options; /* constant */
        void (*on_change)(void *context, unsigned changes);
        void *context;
        unsigned count;         /* constant */
        _Atomic uint32_t users; /* atomic: the pool, each session */
        struct mutex lock;
        bool has_connected; /* guarded by lock: the pool has had a connection, whose cluster counts */
        uint64_t system_id; /* guarded by lock: that of the cluster; 0: not known */
        uint32_t timeline;  /* guarded by lock: the highest that a primary of it had */
        uint64_t position;  /* guarded by lock: the furthest that it has written */
        unsigned turn;      /* guarded by lock: who is first, in turns */
        struct host host[];
};

struct pg_hosts *hosts_new(const struct pg_options *options, void (*on_change)(void *context, unsigned changes), void *context)
{
        struct pg_hosts *hosts = mem_zalloc(sizeof *hosts + options->host_count * sizeof *hosts->host);

        if (!hosts)
                return NULL;
        hosts->options = options;
        hosts->on_change = on_change;
        hosts->context = context;
        hosts->count = options->host_count;
        store_relaxed(&hosts->users, 1);
        mutex_init(&hosts->lock);
        for (unsigned i = 0; i < hosts->count; i++)
                store_relaxed(&hosts->host[i].state, FITS);
        return hosts;
}

struct pg_hosts *hosts_ref(struct pg_hosts *hosts)
{
        if (hosts)
                add_relaxed(&hosts->users, 1u);
        return hosts;
}

void hosts_unref(struct pg_hosts *hosts)
{
        if (!hosts || sub_acq_rel(&hosts->users, 1) != 1)
                return;
        mutex_fini(&hosts->lock);
        mem_free(hosts);
}

/* ---- who fits -------------------------------------------------------------------------------------------- */

bool hosts_role_is_wrong(const char *attrs, const struct probe *probe)
{
        if (!attrs || !probe->has_role)
                return false;
        if (strcmp(attrs, "primary") == 0)
                return probe->is_standby;
        if (strcmp(attrs, "read-write") == 0)
                return probe->is_standby || probe->is_read_only;
        if (strcmp(attrs, "standby") == 0)
                return !probe->is_standby;
        if (strcmp(attrs, "read-only") == 0)
                return !probe->is_standby && !probe->is_read_only;
        return false;
}

static bool is_of_another_cluster(const struct pg_hosts *hosts, const struct probe *probe)
{
        return hosts->system_id && probe->system_id && probe->system_id != hosts->system_id;
}

static bool was_replaced(const struct pg_hosts *hosts, const struct probe *probe)
{
        return probe->has_role && !probe->is_standby && probe->timeline && probe->timeline < hosts->timeline;
}

static bool is_refused(const struct pg_hosts *hosts, const struct probe *probe)
{
        return is_of_another_cluster(hosts, probe) || was_replaced(hosts, probe);
}

/* Twice the limit apart, so that a standby at the limit does not come and go. */
static bool is_too_far_behind(const struct pg_hosts *hosts, const struct host *host)
{
        uint64_t limit = hosts->options->given.lag_limit_bytes;

        if (limit == 0 || !host->probe.is_standby || host->probe.position == 0 || host->probe.position >= hosts->position)
                return false;
        return hosts->position - host->probe.position > (host->is_behind ? limit / 2 : limit);
}

static void be_of_cluster(struct pg_hosts *hosts, uint64_t system_id) REQUIRES(hosts->lock)
{
        if (system_id == 0 || system_id == hosts->system_id)
                return;
        hosts->system_id = system_id;
        hosts->timeline = 0;
        hosts->position = 0;
        for (unsigned i = 0; i < hosts->count; i++) {
                const struct probe *probe = &hosts->host[i].probe;

                if (probe->system_id == system_id && probe->has_role && !probe->is_standby && probe->timeline > hosts->timeline)
                        hosts->timeline = probe->timeline;
        }
}

/* Which is the cluster? Until the pool has a connection, that of the first in the list that has said; from then on that of the
 * connection, unless all say otherwise. */
static void find_cluster(struct pg_hosts *hosts) REQUIRES(hosts->lock)
{
        uint64_t first = 0;
        bool is_unanimous = true;

        for (unsigned i = 0; i < hosts->count; i++) {
                uint64_t system_id = hosts->host[i].probe.system_id;

                if (first == 0)
                        first = system_id;
                is_unanimous = is_unanimous && system_id && system_id == first;
        }
        if (!hosts->has_connected || is_unanimous)
                be_of_cluster(hosts, first);
}

static void take_past(struct pg_hosts *hosts, const struct probe *probe) REQUIRES(hosts->lock)
{
        find_cluster(hosts);
        if (is_refused(hosts, probe) || probe->is_standby || !probe->has_role)
                return;
        if (probe->timeline > hosts->timeline)
                hosts->timeline = probe->timeline;
        if (probe->position > hosts->position)
                hosts->position = probe->position;
}

/* Judge each anew. Returns: what has changed. */
static unsigned judge(struct pg_hosts *hosts) REQUIRES(hosts->lock)
{
        unsigned changes = 0;

        for (unsigned i = 0; i < hosts->count; i++) {
                struct host *host = &hosts->host[i];
                uint32_t was = load_relaxed(&host->state), is = FITS;

                host->is_behind = is_too_far_behind(hosts, host);
                if (host->is_known && is_refused(hosts, &host->probe))
                        is = host->probe.is_standby ? 0 : CUT;
                else if (host->is_known && (host->is_behind || hosts_role_is_wrong(hosts->options->session_attrs, &host->probe)))
                        is = 0;
                if ((was & FITS) && !(is & FITS))
                        changes |= HOSTS_LEFT;
                if (!(was & FITS) && (is & FITS))
                        changes |= HOSTS_CAME;
                if (!(was & CUT) && (is & CUT))
                        changes |= HOSTS_CUT;
                store_release(&host->state, is);
        }
        return changes;
}

/* A word about the role alone takes nothing away, unless it is another role. */
static void take_probe(struct host *host, const struct probe *probe)
{
        struct probe old = host->probe;

        host->probe = *probe;
        if (probe->is_told || (old.has_role && probe->has_role && old.is_standby != probe->is_standby))
                return;
        host->probe.system_id = old.system_id;
        host->probe.timeline = old.timeline;
        host->probe.position = old.position;
}

static unsigned learn(struct pg_hosts *hosts, unsigned index, const struct probe *probe, uint64_t rtt_ns) REQUIRES(hosts->lock)
{
        struct host *host = &hosts->host[index];
        bool was_down = host->is_down;
        unsigned changes;

        host->is_known = true;
        host->is_down = false;
        take_probe(host, probe);
        if (rtt_ns)
                host->rtt_ns = host->rtt_ns ? (7 * host->rtt_ns + rtt_ns) / 8 : rtt_ns;
        take_past(hosts, &host->probe);
        changes = judge(hosts);
        if (was_down && (load_relaxed(&host->state) & FITS))
                changes |= HOSTS_CAME;
        return changes;
}

static void tell(struct pg_hosts *hosts, unsigned changes)
{
        if (changes && hosts->on_change)
                hosts->on_change(hosts->context, changes);
}

void hosts_learn(struct pg_hosts *hosts, unsigned host, const struct probe *probe, uint64_t rtt_ns)
{
        mutex_lock(&hosts->lock);
        unsigned changes = learn(hosts, host, probe, rtt_ns);
        mutex_unlock(&hosts->lock);
        tell(hosts, changes);
}

void hosts_lose(struct pg_hosts *hosts, unsigned host)
{
        mutex_lock(&hosts->lock);
        hosts->host[host].is_down = true;
        mutex_unlock(&hosts->lock);
}

void hosts_forget_past(struct pg_hosts *hosts)
{
        mutex_lock(&hosts->lock);
        hosts->has_connected = false;
        hosts->system_id = 0;
        hosts->timeline = 0;
        hosts->position = 0;
        for (unsigned i = 0; i < hosts->count; i++) {
                hosts->host[i].is_known = false;
                hosts->host[i].probe = (struct probe){ 0 };
        }
        unsigned changes = judge(hosts);
        mutex_unlock(&hosts->lock);
        tell(hosts, changes);
}

static const char *complaint(const struct pg_hosts *hosts, unsigned index, const char *attrs)
{
        const struct host *host = &hosts->host[index];

        if (is_of_another_cluster(hosts, &host->probe))
                return "the server is of another cluster: its system identifier is not that of the others";
        if (was_replaced(hosts, &host->probe))
                return "the server is a primary that was replaced: another one has a newer timeline";
        if (hosts_role_is_wrong(attrs, &host->probe))
                return "the server has another role";
        return host->is_behind ? "the standby is too far behind" : NULL;
}

const char *hosts_admit(struct pg_hosts *hosts, unsigned host, const struct probe *probe, const char *attrs)
{
        mutex_lock(&hosts->lock);
        unsigned changes = learn(hosts, host, probe, 0);
        const char *against = complaint(hosts, host, attrs);
        if (!against && hosts->system_id)
                hosts->has_connected = true;
        mutex_unlock(&hosts->lock);
        tell(hosts, changes);
        return against;
}

bool hosts_fits(const struct pg_hosts *hosts, unsigned host)
{
        return load_acquire(&hosts->host[host].state) & FITS;
}

bool hosts_is_cut(const struct pg_hosts *hosts, unsigned host)
{
        return load_acquire(&hosts->host[host].state) & CUT;
}

unsigned hosts_fit_count(struct pg_hosts *hosts)
{
        unsigned count = 0;

        mutex_lock(&hosts->lock);
        for (unsigned i = 0; i < hosts->count; i++)
                count += !hosts->host[i].is_down && (load_relaxed(&hosts->host[i].state) & FITS);
        mutex_unlock(&hosts->lock);
        return count;
}

void hosts_describe(struct pg_hosts *hosts, unsigned index, struct lido_pg_host *ret_host)
{
        const struct host *host = &hosts->host[index];
        const struct pg_host *place = &hosts->options->hosts[index];

        mutex_lock(&hosts->lock);
        ret_host->host = place->host ? place->host : place->hostaddr;
        ret_host->port = place->port;
        ret_host->is_known = host->is_known;
        ret_host->is_down = host->is_down;
        ret_host->is_standby = host->probe.is_standby;
        ret_host->is_read_only = host->probe.is_read_only;
        ret_host->is_refused = host->is_known && is_refused(hosts, &host->probe);
        ret_host->fits = load_relaxed(&host->state) & FITS;
        ret_host->connections = load_relaxed(&host->sessions);
        ret_host->timeline = host->probe.timeline;
        ret_host->system_id = host->probe.system_id;
        ret_host->round_trip_ns = host->rtt_ns;
        ret_host->lag_bytes = 0;
        if (host->probe.is_standby && host->probe.position && host->probe.position < hosts->position)
                ret_host->lag_bytes = hosts->position - host->probe.position;
        mutex_unlock(&hosts->lock);
}

void hosts_count(struct pg_hosts *hosts, unsigned host, int change)
{
        if (change > 0)
                add_relaxed(&hosts->host[host].sessions, 1u);
        else
                sub_relaxed(&hosts->host[host].sessions, 1u);
}

/* ---- where to connect ------------------------------------------------------------------------------------ */

static bool spreads(const struct pg_hosts *hosts)
{
        return hosts->options->given.balance == LIDO_PG_BALANCE_ROUND_ROBIN || hosts->options->given.balance == LIDO_PG_BALANCE_LEAST;
}

/* Lower comes first. To spread is to find out: a host that has said nothing yet is as good as one that fits. Otherwise it comes
 * after those. A host that does not fit may have been promoted a moment ago, so it is tried, but late; one that is down may
 * be silent, which costs a whole attempt, so it is tried after all others. */
static unsigned class_of(const struct pg_hosts *hosts, unsigned index, const char *attrs)
{
        const struct host *host = &hosts->host[index];

        if (host->is_known && is_refused(hosts, &host->probe))
                return 4;
        if (host->is_down)
                return 3;
        if (!host->is_known)
                return spreads(hosts) ? 0 : 1;
        return host->is_behind || hosts_role_is_wrong(attrs, &host->probe) ? 2 : 0;
}

/* Within a class: how much speaks against it. */
static uint64_t rank_of(const struct pg_hosts *hosts, unsigned index)
{
        unsigned turn = (index + hosts->count - hosts->turn % hosts->count) % hosts->count;

        switch (hosts->options->given.balance) {
        case LIDO_PG_BALANCE_ROUND_ROBIN:
                return turn;
        case LIDO_PG_BALANCE_LEAST: /* among equals, in turns */
                return (uint64_t)load_relaxed(&hosts->host[index].sessions) * hosts->count + turn;
        case LIDO_PG_BALANCE_NEAREST: /* what was not measured is taken for far */
                return hosts->host[index].rtt_ns ? hosts->host[index].rtt_ns : CLOCK_NEVER;
        default:
                return index;
        }
}

static bool is_before(const struct pg_hosts *hosts, unsigned a, unsigned b, const char *attrs)
{
        unsigned class_a = class_of(hosts, a, attrs), class_b = class_of(hosts, b, attrs);

        return class_a != class_b ? class_a < class_b : rank_of(hosts, a) < rank_of(hosts, b);
}

unsigned hosts_order(struct pg_hosts *hosts, const char *attrs, unsigned *order)
{
        mutex_lock(&hosts->lock);
        for (unsigned i = 0; i < hosts->count; i++) {
                unsigned at = i;

                for (; at > 0 && is_before(hosts, i, order[at - 1], attrs); at--)
                        order[at] = order[at - 1];
                order[at] = i;
        }
        hosts->turn++;
        mutex_unlock(&hosts->lock);
        return hosts->count;
}
