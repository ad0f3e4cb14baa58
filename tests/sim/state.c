/* What the rest of a run depends on: all memory that the code under test may read, what each coroutine has on its stack, and
 * what the scheduler knows of it. As one number, in which how often anything happened so far is no part; and as a copy, from
 * which the search goes on where it has left a choice.
 *
 * Two runs that come to the same state go on in the same ways, so the exhaustive search follows one of them only. What is
 * dead on a stack may differ where nothing else does; then both are followed. Two states have the same number by chance
 * once in 2^60 pairs.
 *
 * The shelves and locks outside of heap and world are no part of it: in the programs of the search they change only when the
 * pool is made and when it ends, and what its end leaves on a shelf nobody takes in the same run.
 */
#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "sim/sched.h"

#define BLOCKS 40
#define PLACES (UINT64_C(1) << 24) /* states remembered: three quarters of it */
#define LEFT UINT64_C(15)          /* the low bits of a place: preemptions left + 1 */

static sim_blocks *test_memory;

static struct {
        uint64_t *place; /* 0: free */
        uint64_t count;
} seen;

void sim_state_of(sim_blocks *blocks)
{
        test_memory = blocks;
}

static uint64_t fold(uint64_t a, uint64_t b)
{
        __extension__ typedef unsigned __int128 wide;
        wide product = (wide)a * b;

        return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t word_at(const char *at)
{
        uint64_t word;

        memcpy(&word, at, sizeof word);
        return word;
}

/* All of these blocks are of whole words. */
static uint64_t add(uint64_t hash, const void *memory, size_t size)
{
        const char *at = memory;
        uint64_t other = hash ^ UINT64_C(0x8bb84b93962eacc9);

        for (; size >= 32; size -= 32, at += 32) {
                hash = fold(word_at(at) ^ UINT64_C(0x2d358dccaa6c78a5), word_at(at + 8) ^ hash);
                other = fold(word_at(at + 16) ^ UINT64_C(0x4b33a62ed433d4a3), word_at(at + 24) ^ other);
        }
        for (; size >= 8; size -= 8, at += 8)
                hash = fold(word_at(at) ^ UINT64_C(0x2d358dccaa6c78a5), hash ^ UINT64_C(0x9e3779b97f4a7c15));
        return fold(hash ^ UINT64_C(0x4d5a2da51de1aa47), other);
}

static uint64_t add_coroutine(uint64_t hash, const struct coroutine *c)
{
        uint64_t facts[] = {
                (uint64_t)c->state | (uint64_t)c->is_based << 8 | (uint64_t)c->timed_out << 9 |
                        (uint64_t)(c->spun_at == c->points) << 10 | (uint64_t)c->locks << 16,
                (uint64_t)(uintptr_t)c->blocked_on,
                c->due,
                c->deadline,
                c->earliest,
                c->deadline_in,
        };

        hash = add(hash, facts, sizeof facts);
        if (c->state == COROUTINE_DONE)
                return hash;
        hash = add(hash, &c->self, sizeof c->self);
        return add(hash, c->stack_pointer, (size_t)((const char *)c->stack_top - (const char *)c->stack_pointer));
}

/* All but what only reports read. */
static uint64_t add_heap(uint64_t hash, const struct sim_block *heap, const struct sim_block *reports)
{
        const char *begin = heap->memory, *end = begin + heap->size, *gap = reports->memory;

        if (!gap)
                return add(hash, begin, heap->size);
        hash = add(hash, begin, (size_t)(gap - begin));
        return add(hash, gap + reports->size, (size_t)(end - gap) - reports->size);
}

uint64_t state_hash(void)
{
        uint64_t facts[] = { sched.now,
                             (uint64_t)sched.ready | (uint64_t)sched.spun << 32,
                             (uint64_t)sched.current | (uint64_t)sched.count << 8,
                             sched.random.state };
        uint64_t hash = add(0, facts, sizeof facts);
        struct sim_block block[BLOCKS], reports = { NULL, 0 }, heap = face_memory();
        unsigned blocks = test_memory ? test_memory(block, BLOCKS, &reports) : 0;

        for (int i = 0; i < sched.count; i++)
                hash = add_coroutine(hash, &sched.coroutine[i]);
        for (unsigned i = 0; i < blocks; i++)
                hash = add(hash, block[i].memory, block[i].size);
        return add_heap(hash, &heap, &reports);
}

/* ---- copies ------------------------------------------------------------------------------------------------- */

#define COPIES 4096                     /* choices on one path */
#define COPIES_SIZE (UINT64_C(1) << 30) /* of all of them */

static struct {
        char *memory;
        size_t at[COPIES + 1]; /* where each begins */
} copies;

/* Everything that a copy holds. */
static unsigned all_blocks(struct sim_block *list)
{
        struct sim_block reports;
        unsigned count = 0;

        list[count++] = (struct sim_block){ &sched, offsetof(struct scheduler, coroutine) +
                                                            (size_t)sched.count * sizeof sched.coroutine[0] };
        list[count++] = (struct sim_block){ &sim, sizeof sim };
        list[count++] = face_books();
        list[count++] = face_memory();
        list[count++] = region_memory();
        count += test_memory(list + count, BLOCKS, &reports);
        for (int i = 0; i < sched.count; i++) {
                const struct coroutine *c = &sched.coroutine[i];

                if (c->state != COROUTINE_DONE || i == sched.current) /* one that is done may still choose who is next */
                        list[count++] = (struct sim_block){
                                c->stack_pointer, (size_t)((const char *)c->stack_top - (const char *)c->stack_pointer)
                        };
        }
        return count;
}

/* Each block behind its address and size. */
void state_save(unsigned number)
{
        struct sim_block list[2 * BLOCKS];
        unsigned count = all_blocks(list);
        size_t at = copies.at[number];

        lido_assert(number < COPIES);
        for (unsigned i = 0; i < count; i++) {
                lido_assert(at + sizeof list[i] + list[i].size <= COPIES_SIZE);
                memcpy(copies.memory + at, &list[i], sizeof list[i]);
                memcpy(copies.memory + at + sizeof list[i], list[i].memory, list[i].size);
                at += sizeof list[i] + list[i].size;
        }
        copies.at[number + 1] = at;
}

void state_restore(unsigned number)
{
        size_t at = copies.at[number];

        while (at < copies.at[number + 1]) {
                struct sim_block block;

                memcpy(&block, copies.memory + at, sizeof block);
                memcpy((void *)(uintptr_t)block.memory, copies.memory + at + sizeof block, block.size);
                at += sizeof block + block.size;
        }
}

/* ---- those seen --------------------------------------------------------------------------------------------- */

void state_start(void)
{
        if (!copies.memory)
                copies.memory = mmap(NULL, COPIES_SIZE, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        lido_assert(copies.memory != MAP_FAILED);
        if (seen.place)
                munmap(seen.place, PLACES * sizeof *seen.place);
        seen.place = mmap(NULL, PLACES * sizeof *seen.place, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        lido_assert(seen.place != MAP_FAILED);
        seen.count = 0;
}

bool state_is_seen(uint64_t hash, unsigned preemptions_left)
{
        uint64_t key = hash & ~LEFT, left = preemptions_left + 1;

        for (uint64_t i = hash >> 40;; i = (i + 1) % PLACES) {
                uint64_t there = seen.place[i];

                if (there == 0) {
                        if (seen.count < PLACES / 4 * 3) {
                                seen.place[i] = key | left;
                                seen.count++;
                        }
                        return false;
                }
                if ((there & ~LEFT) == key) {
                        if ((there & LEFT) >= left)
                                return true;
                        seen.place[i] = key | left;
                        return false;
                }
        }
}

uint64_t state_count(void)
{
        return seen.count;
}
