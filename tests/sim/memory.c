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

#define LOCATIONS 1024
#define HISTORY 8
#define BUCKETS 4096
#define STRIDE 16 /* views are copied and joined in whole pieces, which the processor does at a stroke */

/* Beyond the locations there are it is zero. Signed, for that is what processors compare fastest. */
struct view {
        int16_t oldest[LOCATIONS] __attribute__((aligned(32)));
};

/* Small, for each read looks one up; the views lie elsewhere. */
struct location {
        const volatile void *address;
        uint32_t newest;
        uint32_t seq_cst; /* the newest store that a seq_cst access has read or written */
        uint64_t value[HISTORY];
        uint32_t joined[HISTORY]; /* who has seen all that its view says: a bit per coroutine */
        uint16_t length[HISTORY]; /* of its view; 0: it has none */
};

static struct {
        bool weak;
        unsigned count;           /* locations */
        unsigned length;          /* of what views say something about: count, in whole strides */
        uint16_t bucket[BUCKETS]; /* index of a location plus one */
        struct location location[LOCATIONS];
        struct view left[LOCATIONS][HISTORY]; /* beside the values */
        struct view view[SIM_COROUTINES];
        struct view beyond; /* of all who wrote where there was no room to follow */
} memory;

typedef int16_t piece __attribute__((vector_size(STRIDE * sizeof(int16_t)), may_alias));

static void join(struct view *to, const struct view *from, unsigned length)
{
        for (unsigned i = 0; i < length; i += STRIDE) {
                piece *t = (piece *)(void *)&to->oldest[i];
                const piece *f = (const piece *)(const void *)&from->oldest[i];
                piece newer = *f > *t;

                *t = (*f & newer) | (*t & ~newer);
        }
}

/* A view that may hold anything becomes a copy. */
static void copy_view(struct view *to, const struct view *from, unsigned length)
{
        memcpy(to->oldest, from->oldest, length * sizeof to->oldest[0]);
}

/* Nobody has seen anything of the locations to come. */
static void lengthen(void)
{
        for (int i = 0; i < sched.count; i++)
                memset(memory.view[i].oldest + memory.length, 0, STRIDE * sizeof(int16_t));
        memset(memory.beyond.oldest + memory.length, 0, STRIDE * sizeof(int16_t));
        memory.length += STRIDE;
}

/* Alone and in calm only the newest values are read. */
static bool is_followed(void)
{
        return memory.weak && !sched.alone && !sched.calm;
}

/* Most words are of 4 or 8 bytes, whatever their type. */
typedef uint64_t __attribute__((may_alias)) any64;
typedef uint32_t __attribute__((may_alias)) any32;

static uint64_t read_plain(const volatile void *address, size_t size)
{
        uint64_t value = 0;

        switch (size) {
        case sizeof(uint64_t):
                return *(const volatile any64 *)address;
        case sizeof(uint32_t):
                return *(const volatile any32 *)address;
        default:
                memcpy(&value, (const void *)(uintptr_t)address, size);
                return value;
        }
}

static void write_plain(volatile void *address, size_t size, uint64_t value)
{
        switch (size) {
        case sizeof(uint64_t):
                *(volatile any64 *)address = value;
                break;
        case sizeof(uint32_t):
                *(volatile any32 *)address = (uint32_t)value;
                break;
        default:
                memcpy((void *)(uintptr_t)address, &value, size);
        }
}

static uint16_t *bucket_of(const volatile void *address)
{
        uint64_t hash = ((uint64_t)(uintptr_t)address >> 2) * UINT64_C(0x9e3779b97f4a7c15) >> 32;
        uint64_t i = hash % BUCKETS;

        while (memory.bucket[i] && memory.location[memory.bucket[i] - 1].address != address)
                i = (i + 1) % BUCKETS;
        return &memory.bucket[i];
}

/* Where there is no room for a location, whoever comes there hands on all he has seen, and takes all that was. That is more
 * than it would do, so less is found, but nothing that is not there. */
static void meet_beyond(void)
{
        if (memory.count < LOCATIONS)
                return;
        join(&memory.view[sched.current], &memory.beyond, memory.length);
        join(&memory.beyond, &memory.view[sched.current], memory.length);
}

/* NULL: nobody has written there, so that there is nothing old to be read; or there is no room. */
static struct location *find(const volatile void *address)
{
        uint16_t *bucket;

        if (!is_followed())
                return NULL;
        bucket = bucket_of(address);
        if (*bucket)
                return &memory.location[*bucket - 1];
        meet_beyond();
        return NULL;
}

/* Before it is written to. NULL: there is no room to follow one more. */
static struct location *locate(const volatile void *address, size_t size)
{
        struct location *location;
        uint16_t *bucket;

        if (!is_followed())
                return NULL;
        bucket = bucket_of(address);
        if (*bucket)
                return &memory.location[*bucket - 1];
        if (memory.count == LOCATIONS) {
                meet_beyond();
                return NULL;
        }
        if (memory.count == memory.length)
                lengthen();
        location = &memory.location[memory.count++];
        *bucket = (uint16_t)memory.count;
        location->address = address;
        location->newest = location->seq_cst = 0;
        location->value[0] = size ? read_plain(address, size) : 0;
        location->length[0] = 0;
        return location;
}

static unsigned index_of(const struct location *location)
{
        return (unsigned)(location - memory.location);
}

static struct view *left_beside(const struct location *location, uint32_t store)
{
        return &memory.left[index_of(location)][store % HISTORY];
}

static int16_t *seen_by(int coroutine, const struct location *location)
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
        uint32_t place = index % HISTORY, self = 1u << sched.current;

        *seen_by(sched.current, location) = (int16_t)index;
        if (acquires(order) && location->length[place] && !(location->joined[place] & self)) {
                join(&memory.view[sched.current], left_beside(location, index), location->length[place]);
                location->joined[place] |= self;
        }
        if (order == SIM_SEQ_CST && location->seq_cst < index)
                location->seq_cst = index;
}

/* `follows`: the store is the half of a read-modify-write, and passes on the view of what was read. */
static void write_message(struct location *location, uint64_t value, int order, bool follows)
{
        uint16_t passed_on = follows ? location->length[location->newest % HISTORY] : 0;
        const struct view *last = left_beside(location, location->newest);
        uint32_t place = ++location->newest % HISTORY;
        struct view *left = left_beside(location, location->newest);

        lido_assert(location->newest < INT16_MAX);
        *seen_by(sched.current, location) = (int16_t)location->newest;
        location->value[place] = value;
        location->joined[place] = 0;
        location->length[place] = passed_on;
        if (releases(order)) {
                location->length[place] = (uint16_t)memory.length;
                copy_view(left, &memory.view[sched.current], memory.length);
                join(left, last, passed_on);
        } else {
                copy_view(left, last, passed_on);
        }
        if (order == SIM_SEQ_CST)
                location->seq_cst = location->newest;
}

/* The oldest store that may be read. */
static uint32_t oldest(struct location *location, int order)
{
        uint32_t first = (uint32_t)*seen_by(sched.current, location);

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
        struct location *location = find(address);
        uint64_t value;

        site->hits++;
        if (!location) {
                value = read_plain(address, size);
                trace(site, address, "", value);
                return value;
        }
        uint32_t index = choose_store(location, order_of(site));

        read_message(location, index, order_of(site));
        value = location->value[index % HISTORY];
        trace(site, address, index == location->newest ? "" : "old ", value);
        return value;
}

void sim_store(struct sim_site *site, volatile void *address, size_t size, uint64_t value)
{
        struct location *location = locate(address, size);

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
        struct location *location = find(address);
        uint64_t newest = read_plain(address, size);

        site->hits++;
        if (site->mutation == SIM_BLIND)
                newest = *seen;
        if (location) {
                uint32_t index = choose_store(location, SIM_RELAXED);
                uint64_t old = location->value[index % HISTORY];

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
        location = locate(address, size);
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
        struct location *location = locate(address, size);
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

static void forget(void)
{
        memory.count = memory.length = 0;
        memset(memory.bucket, 0, sizeof memory.bucket);
}

void memory_start(bool weak)
{
        memory.weak = weak;
        if (weak)
                forget();
}

/* Whatever is old by now everybody has seen. */
void memory_calmed(void)
{
        if (memory.weak)
                forget();
}

void memory_spawned(int parent, int child)
{
        if (memory.weak && parent >= 0)
                copy_view(&memory.view[child], &memory.view[parent], memory.length);
}

void memory_joined(int child, int parent)
{
        if (memory.weak)
                join(&memory.view[parent], &memory.view[child], memory.length);
}

void memory_locked(const void *mutex)
{
        struct location *location = find(mutex);

        if (location)
                read_message(location, location->newest, SIM_ACQUIRE);
}

void memory_unlocked(const void *mutex)
{
        struct location *location = locate(mutex, 0);

        if (location)
                write_message(location, 0, SIM_RELEASE, false);
}

void memory_woken(int waker, int sleeper)
{
        if (memory.weak && waker != sleeper)
                join(&memory.view[sleeper], &memory.view[waker], memory.length);
}
