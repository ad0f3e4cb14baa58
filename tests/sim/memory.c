/* Shared words when something special is asked for: a trace, a mutation, or weak memory.
 *
 * Weak memory is the view machine of the literature, for C11 without load buffering. A location is a history
 * of stores, newest last, in the order in which they ran. A coroutine has a view: the oldest store of each
 * location that it may still read. A store with release leaves the writer's view beside the value; a load
 * with acquire that reads it joins that view to the reader's. A read-modify-write always reads the newest
 * store and passes on the view that it read (a release sequence). A seq_cst access reads nothing older than
 * what any seq_cst access of the location has read or written. A lock hands over the view of the last holder,
 * a wake that of the waker, spawn and join likewise.
 */
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "sim/sched.h"

#define LOCATIONS 512
#define HISTORY 8
#define BUCKETS 2048

struct view {
        uint16_t oldest[LOCATIONS];
};

struct message {
        uint64_t value;
        bool has_view;
        struct view view;
};

struct location {
        const volatile void *address;
        uint32_t newest;
        uint32_t seq_cst; /* the newest store that a seq_cst access has read or written */
        struct message ring[HISTORY];
};

static struct {
        bool weak;
        unsigned count;           /* locations */
        uint16_t bucket[BUCKETS]; /* index of a location plus one */
        struct location location[LOCATIONS];
        struct view view[SIM_COROUTINES];
} memory;

static void join(struct view *to, const struct view *from)
{
        for (unsigned i = 0; i < memory.count; i++)
                if (to->oldest[i] < from->oldest[i])
                        to->oldest[i] = from->oldest[i];
}

static uint64_t read_plain(const volatile void *address, size_t size)
{
        uint64_t value = 0;

        memcpy(&value, (const void *)(uintptr_t)address, size);
        return value;
}

static void write_plain(volatile void *address, size_t size, uint64_t value)
{
        memcpy((void *)(uintptr_t)address, &value, size);
}

/* NULL: there is no room to follow one more, which then behaves as if it were sequentially consistent. */
static struct location *locate(const volatile void *address, size_t size)
{
        uint64_t hash = ((uint64_t)(uintptr_t)address >> 2) * UINT64_C(0x9e3779b97f4a7c15) >> 32;
        struct location *location;

        for (uint64_t i = hash % BUCKETS;; i = (i + 1) % BUCKETS) {
                if (memory.bucket[i] == 0) {
                        if (memory.count == LOCATIONS)
                                return NULL;
                        location = &memory.location[memory.count++];
                        memory.bucket[i] = (uint16_t)memory.count;
                        break;
                }
                location = &memory.location[memory.bucket[i] - 1];
                if (location->address == address)
                        return location;
        }
        for (int i = 0; i < SIM_COROUTINES; i++)
                memory.view[i].oldest[memory.count - 1] = 0;
        location->address = address;
        location->newest = location->seq_cst = 0;
        location->ring[0].value = size ? read_plain(address, size) : 0;
        location->ring[0].has_view = false;
        return location;
}

static unsigned index_of(const struct location *location)
{
        return (unsigned)(location - memory.location);
}

static struct message *message(struct location *location, uint32_t index)
{
        return &location->ring[index % HISTORY];
}

static uint16_t *seen_by(int coroutine, const struct location *location)
{
        return &memory.view[coroutine].oldest[index_of(location)];
}

static bool acquires(int order)
{
        return order == SIM_ACQUIRE || order == SIM_ACQ_REL || order == SIM_SEQ_CST;
}

static bool releases(int order)
{
        return order == SIM_RELEASE || order == SIM_ACQ_REL || order == SIM_SEQ_CST;
}

static int order_of(const struct sim_site *site)
{
        if (site->mutation == SIM_NO_ORDER)
                return SIM_RELAXED;
        if (site->mutation == SIM_WEAKER && site->order == SIM_SEQ_CST)
                return site->kind == SIM_OP_LOAD    ? SIM_ACQUIRE
                       : site->kind == SIM_OP_STORE ? SIM_RELEASE
                                                    : SIM_ACQ_REL;
        return site->order;
}

static void read_message(struct location *location, uint32_t index, int order)
{
        const struct message *m = message(location, index);

        *seen_by(sched.current, location) = (uint16_t)index;
        if (acquires(order) && m->has_view)
                join(&memory.view[sched.current], &m->view);
        if (order == SIM_SEQ_CST && location->seq_cst < index)
                location->seq_cst = index;
}

/* `follows`: the store is the half of a read-modify-write, and passes on the view of what was read. */
static void write_message(struct location *location, uint64_t value, int order, bool follows)
{
        const struct message *last = message(location, location->newest);
        struct message *m = message(location, ++location->newest);

        lido_assert(location->newest < UINT16_MAX);
        *seen_by(sched.current, location) = (uint16_t)location->newest;
        m->value = value;
        m->has_view = false;
        if (follows && last->has_view) {
                memcpy(m->view.oldest, last->view.oldest, memory.count * sizeof m->view.oldest[0]);
                memset(m->view.oldest + memory.count, 0,
                       sizeof m->view - memory.count * sizeof m->view.oldest[0]);
                m->has_view = true;
        }
        if (releases(order)) {
                if (m->has_view)
                        join(&m->view, &memory.view[sched.current]);
                else
                        m->view = memory.view[sched.current];
                m->has_view = true;
        }
        if (order == SIM_SEQ_CST)
                location->seq_cst = location->newest;
}

/* The oldest store that may be read. */
static uint32_t oldest(struct location *location, int order)
{
        uint32_t first = *seen_by(sched.current, location);

        if (order == SIM_SEQ_CST && first < location->seq_cst)
                first = location->seq_cst;
        if (location->newest >= HISTORY && first < location->newest - HISTORY + 1)
                first = location->newest - HISTORY + 1;
        return first;
}

/* Which store is read: a choice. */
static uint32_t choose_store(struct location *location, int order)
{
        uint32_t count = location->newest - oldest(location, order) + 1;
        uint32_t age;

        if (count == 1 || sched.stale_left == 0)
                return location->newest;
        age = sim_choose(SIM_VALUE, count);
        if (age)
                sched.stale_left--;
        return location->newest - age;
}

/* ---- the operations --------------------------------------------------------------------------------------
 */

static void trace(const struct sim_site *site, const volatile void *address, const char *result,
                  uint64_t value)
{
        if (sched.strategy.trace && !sched.alone)
                trace_step(site, address, result, value);
}

uint64_t sim_load(struct sim_site *site, const volatile void *address, size_t size)
{
        struct location *location = memory.weak && !sched.alone ? locate(address, size) : NULL;
        uint64_t value;

        site->hits++;
        if (!location) {
                value = read_plain(address, size);
                trace(site, address, "", value);
                return value;
        }
        uint32_t index = choose_store(location, order_of(site));

        read_message(location, index, order_of(site));
        value = message(location, index)->value;
        trace(site, address, index == location->newest ? "" : "old ", value);
        return value;
}

void sim_store(struct sim_site *site, volatile void *address, size_t size, uint64_t value)
{
        struct location *location = memory.weak && !sched.alone ? locate(address, size) : NULL;

        site->hits++;
        trace(site, address, site->mutation == SIM_DROPPED ? "dropped " : "", value);
        if (site->mutation == SIM_DROPPED)
                return;
        write_plain(address, size, value);
        if (location)
                write_message(location, value, order_of(site), false);
}

/* A compare-and-swap that fails is a relaxed load, and may see an old value as one. */
bool sim_cas(struct sim_site *site, volatile void *address, size_t size, uint64_t *seen, uint64_t value)
{
        struct location *location = memory.weak && !sched.alone ? locate(address, size) : NULL;
        uint64_t newest = read_plain(address, size);

        site->hits++;
        if (site->mutation == SIM_BLIND)
                newest = *seen;
        if (location) {
                uint32_t index = choose_store(location, SIM_RELAXED);
                uint64_t old = message(location, index)->value;

                if (index != location->newest && old != *seen && site->mutation != SIM_BLIND) {
                        read_message(location, index, SIM_RELAXED);
                        *seen = old;
                        trace(site, address, "lost, old ", old);
                        return false;
                }
        }
        if (newest != *seen) {
                if (location)
                        read_message(location, location->newest, SIM_RELAXED);
                *seen = newest;
                trace(site, address, "lost, ", newest);
                return false;
        }
        write_plain(address, size, value);
        if (location) {
                read_message(location, location->newest, order_of(site));
                write_message(location, value, order_of(site), true);
        }
        trace(site, address, "won ", value);
        return true;
}

uint64_t sim_rmw(struct sim_site *site, volatile void *address, size_t size, uint64_t operand)
{
        struct location *location = memory.weak && !sched.alone ? locate(address, size) : NULL;
        uint64_t old = read_plain(address, size), value = 0;

        site->hits++;
        switch (site->kind) {
        case SIM_OP_ADD:
                value = old + operand;
                break;
        case SIM_OP_SUB:
                value = old - operand;
                break;
        case SIM_OP_OR:
                value = old | operand;
                break;
        case SIM_OP_AND:
                value = old & operand;
                break;
        default:
                value = operand;
                break;
        }
        trace(site, address, site->mutation == SIM_DROPPED ? "dropped, was " : "was ", old);
        if (site->mutation == SIM_DROPPED)
                return old;
        write_plain(address, size, value);
        if (location) {
                read_message(location, location->newest, order_of(site));
                write_message(location, read_plain(address, size), order_of(site), true);
        }
        return old;
}

/* ---- what locks, wakes and the lives of coroutines hand over ---------------------------------------------
 */

void memory_start(bool weak)
{
        memory.weak = weak;
        if (!weak)
                return;
        memory.count = 0;
        memset(memory.bucket, 0, sizeof memory.bucket);
}

void memory_spawned(int parent, int child)
{
        if (!memory.weak)
                return;
        if (parent < 0)
                memset(&memory.view[child], 0, sizeof memory.view[child]);
        else
                memory.view[child] = memory.view[parent];
}

void memory_joined(int child, int parent)
{
        if (memory.weak)
                join(&memory.view[parent], &memory.view[child]);
}

void memory_locked(const void *mutex)
{
        struct location *location = memory.weak && !sched.alone ? locate(mutex, 0) : NULL;

        if (location)
                read_message(location, location->newest, SIM_ACQUIRE);
}

void memory_unlocked(const void *mutex)
{
        struct location *location = memory.weak && !sched.alone ? locate(mutex, 0) : NULL;

        if (location)
                write_message(location, 0, SIM_RELEASE, false);
}

void memory_woken(int waker, int sleeper)
{
        if (memory.weak && waker != sleeper)
                join(&memory.view[sleeper], &memory.view[waker]);
}
