/* pool/slots.h - the truth of a pool: one word per slot says what is going on with its object.
 *
 *          +------------------------------ VACANT <-----------------------------+
 *          | slots_claim_vacant            ^   ^                                |
 *          v                     open fails|   |                                | keeper: closed
 *       OPENING -------------------------->+   |                                |
 *          | opened                            |                                |
 *          v        acquire                    |         discard, dead, retired |
 *   +--> IDLE <----------------------------> LEASED --------------------------> CLOSING
 *   |      |         release                 ^ |  ^                            ^ ^ ^
 *   |      | keeper: a pass found it unused  | |  | acquire, after a peek      | | |
 *   |      v                                 | |  |                            | | |
 *   |    RESTED -----------------------------+-|--+  idle too long, too old ---+ | |
 *   |      | keeper: due, or doubted           | verdict RESET, doubted          | |
 *   |      v                                   v                                 | |
 *   +-- CHECKING                            RESETTING ------- failed ------------+ |
 *          +----------------------- failed ----------------------------------------+
 *
 * The word is  generation << 12 | marks | state.  Arrows and the function that takes each:
 *
 *      VACANT    -> OPENING    slots_claim_vacant      keeper, or a borrower of an open_inline pool
 *      OPENING   -> LEASED     op_finish               the keeper's own lease on what it opened, see below
 *      OPENING   -> VACANT     op_finish               the open failed
 *      IDLE      -> LEASED     slots_claim, and the inlined same in lease.c
 *      IDLE      -> RESTED     keeper_pass             same generation as on the last pass
 *      RESTED    -> LEASED     slots_claim
 *      IDLE, RESTED -> LEASED  slots_claim_this        the keeper claims like any borrower, and then owns a lease
 *      LEASED    -> IDLE       lido_release_at (hot), give_back, pool_offer
 *      LEASED    -> RESTED     doubt_rest: put back with a doubt
 *      LEASED    -> IDLE, RESTED   slot_unclaim: put back as it was, under the same generation, which nobody has seen as a lease
 *      LEASED    -> LEASED     slot_pass_on            a new generation: the old lease has ended, the slot has not been
 *                                                      free in between. So a slot is handed from hand to hand.
 *      LEASED    -> CHECKING, RESETTING, CLOSING       op_want
 *      CHECKING, RESETTING -> LEASED                   op_finish
 *      CHECKING, RESETTING -> CLOSING                  op_finish
 *      CLOSING   -> VACANT     op_finish
 *
 * What holds in each state:
 *
 *      VACANT             object is NULL; nobody owns the slot
 *      OPENING            the open op owns the slot; object is NULL until it is answered
 *      IDLE, RESTED       object is whole; nobody owns the slot; whoever wins the CAS out of it does
 *      LEASED             the holder of {slot, generation} owns slot and object; marks may be added by others
 *      CHECKING, RESETTING, CLOSING    the op, or the keeper on whose desk it lies, owns slot and object
 *
 * Law 1: whoever wins the CAS out of IDLE, RESTED or VACANT owns slot and object alone until it stores the next state.
 *
 * The generation grows by one at every end of a lease and at every start of an op, and never goes back, whatever pools
 * the slot serves. Hence a lease or an op ticket is spent by the compare-and-swap that ends it, exactly once, however
 * many threads race; and "idle with the generation of the last pass" means "not touched since".
 *
 * Marks are set on a slot that somebody else owns, and make its owner's next compare-and-swap fail into the slow path:
 * the hot path pays nothing for them.
 */
#ifndef LIDO_POOL_SLOTS_H
#define LIDO_POOL_SLOTS_H

#include "base/assert.h"
#include "base/atomic.h"
#include "base/clock.h"
#include "base/inbox.h"
#include "lido/pool.h"
#include "pool/region.h"

/* An open is answered to the keeper, or, while the borrower that began it is still inside the hook, to that borrower. */
enum op_inline { OP_TO_KEEPER, OP_TO_BORROWER, OP_TAKEN_INLINE };

enum slot_state {
        SLOT_VACANT,
        SLOT_OPENING,
        SLOT_IDLE,
        SLOT_RESTED,
        SLOT_LEASED,
        SLOT_CHECKING,
        SLOT_RESETTING,
        SLOT_CLOSING,
        SLOT_STATES
};

#define MARK_RETIRE UINT64_C(0x010)       /* to be closed when its owner lets go of it */
#define MARK_SUSPECT UINT64_C(0x020)      /* to be checked before it is lent again */
#define MARK_LEAKED UINT64_C(0x040)       /* its lease was reported as leaked */
#define MARK_REVOKED UINT64_C(0x080)      /* its lease was taken back; the holder may not know yet */
#define MARK_ANSWERED UINT64_C(0x100)     /* its op has been answered */
#define MARK_OVERDUE UINT64_C(0x200)      /* its op was told to hurry */
#define MARK_INTERRUPTING UINT64_C(0x400) /* a hook is at work on it beside its owner: do not free the object */
#define MARKS UINT64_C(0xff0)
#define STATE_MASK UINT64_C(0x00f)
#define GENERATION_SHIFT 12
#define GENERATION_ONE (UINT64_C(1) << GENERATION_SHIFT)

static inline enum slot_state word_state(uint64_t word)
{
        return (enum slot_state)(word & STATE_MASK);
}

/* The generation, in its place: what a lease and an op ticket carry. */
static inline uint64_t word_generation(uint64_t word)
{
        return word & ~(MARKS | STATE_MASK);
}

static inline uint64_t word_make(uint64_t generation, enum slot_state state)
{
        return generation | (uint64_t)state;
}

/* The word after this one's generation, without marks. */
static inline uint64_t word_next(uint64_t word, enum slot_state state)
{
        return word_generation(word) + GENERATION_ONE + (uint64_t)state;
}

struct lido_slot {
        /* First line: touched by every acquire and release. */
        _Atomic uint64_t word;                 /* atomic; the truth */
        _Atomic(struct lido_pool *) pool;      /* written while the slot belongs to no pool, before its word */
        _Atomic(void *) object;                /* owner of the slot writes; atomic because a stale lease may look */
        _Atomic(const char *) site;            /* where it was acquired last; owner writes, reports read */
        _Atomic(const char *) released_site;   /* where it was released last; likewise */
        _Atomic(const char *) tag;             /* on whose behalf; likewise */
        _Atomic uint64_t leases;               /* how often it was lent, ever; likewise */
        _Atomic uint64_t holder;               /* thread that has it, under which generation: see slot_holder; likewise */

        /* From here on touched once in a while: upkeep and waiting. */
        struct letter letter __attribute__((aligned(64))); /* owner of the slot: on its way to the keeper */
        _Atomic uint64_t first_generation; /* constant while it belongs to a pool: leases before it are another pool's */
        _Atomic uint64_t life;      /* owner writes: the ticket of its open, which names it in a lido_handle */
        _Atomic uint64_t born_ns;   /* owner writes: when the object was opened */
        _Atomic uint64_t acquired_ns; /* owner writes, where the pool keeps time: when it was acquired */
        _Atomic uint32_t index;     /* constant while it belongs to a pool */
        uint32_t leases_at_birth;   /* owner: the low half */
        uint64_t expires_ns;        /* owner: end of its lifetime, drawn once */
        uint64_t contended_ns;      /* owner: when it was given back last while somebody waited */
        _Atomic uint64_t order;     /* owner writes: place in the order of releases, for FIFO pools */
        _Atomic uint64_t op_due_ns; /* owner writes: deadline of its op */
        _Atomic uint64_t op_began_ns; /* owner writes */
        _Atomic uint32_t retire_reason; /* enum lido_close_reason, written before MARK_RETIRE */
        int status;                 /* owner: how its op was answered */
        uint8_t failure;            /* owner: enum lido_failure, when its open failed */
        _Atomic uint32_t op_inline; /* who takes the answer of an open: enum op_inline */
        uint8_t reason;             /* owner: enum lido_close_reason, in CLOSING */
        uint8_t quota;              /* owner: the quota that its lease uses; 0: none */
        uint8_t is_detached;        /* owner: CLOSING, and the object is somebody else's now */
        uint8_t is_stolen;          /* owner: CLOSING, because another pool of the budget needs the permit */
        _Atomic uint32_t is_chosen; /* its object is to be replaced (lido_pool_rotate_if): whoever has claimed or holds it writes */

        _Atomic(void *) data;       /* the borrower's, as long as the object */
        _Atomic(void *) lease_data; /* the borrower's, as long as the lease of lease_data_of */
        _Atomic uint64_t lease_data_of;
        _Atomic uint64_t label;     /* the borrowers', as long as the object */
        _Atomic uint64_t lease_due_ns; /* when the lease of lease_due_of is revoked */
        _Atomic uint64_t lease_due_of;

        /* Of the keeper alone. */
        _Atomic uint64_t seen_word; /* as the last pass found it; reports read it */
        _Atomic uint64_t seen_ns;   /* since when it has been as seen_word says; reports read it */
        _Atomic uint64_t checked_ns; /* owner writes: when it was known to be alive */
        uint32_t seen_leases;       /* as the last pass found `leases`, the low half */
        uint8_t is_aged;            /* it is near the end of its lifetime, and a replacement was asked for if need be */
        uint8_t is_watched;         /* watch was called and unwatch was not */
} __attribute__((aligned(SLOT_SIZE)));

/* What lies on a slot's first line, what a lease shows. */
_Static_assert(sizeof(struct lido_slot) == SLOT_SIZE, "a slot is as long as the region believes");
_Static_assert(offsetof(struct lido_slot, letter) == 64, "acquire and release touch one line");

/* The slots of one pool, in chunks that never move. */
struct slots {
        _Atomic(struct lido_slot *) chunk[CHUNKS]; /* set when it grows, then constant until slots_fini */
        _Atomic uint32_t capacity;                 /* slots there are; grows only, under the pool's lock */
        _Atomic uint32_t high;                     /* scans look at slots below this; grows only */
};

/* What the one who begins a lease writes into `holder`: the low half of the generation's number, and his thread. */
static inline uint64_t holder_make(uint64_t generation, uint32_t thread)
{
        return generation << (32 - GENERATION_SHIFT) | thread;
}

/* The thread that has the slot as a lease of this word's generation; 0 while it is not known: between the claim and the note of
 * it, and while somebody has claimed it who is no borrower (the keeper, a reporting factory). */
static inline uint32_t slot_holder(const struct lido_slot *slot, uint64_t word)
{
        uint64_t holder = load_acquire(&slot->holder);

        return (holder ^ holder_make(word_generation(word), 0)) >> 32 == 0 ? (uint32_t)holder : 0;
}

/* May a slot go from one state to the other? The picture above, as a table. */
bool slot_may_move(enum slot_state from, enum slot_state to);

/* The one way in which a word changes. `seen` is updated on failure. Order: seq_cst, because a release must be visible
 * before its reader looks for waiters (law 2, waitq.h); whoever claims needs acquire only, and uses slot_claim. */
static inline bool slot_move(struct lido_slot *slot, uint64_t *seen, uint64_t next)
{
        debug_assert(slot_may_move(word_state(*seen), word_state(next)));
        return cas_seq_cst(&slot->word, seen, next);
}

static inline bool slot_claim(struct lido_slot *slot, uint64_t *seen, uint64_t next)
{
        debug_assert(slot_may_move(word_state(*seen), word_state(next)));
        return cas_acquire(&slot->word, seen, next);
}

/* Move a slot that the caller owns; marks that others add meanwhile are kept in mind by the loop and returned. */
uint64_t slot_pass_on(struct lido_slot *slot, uint64_t generation, enum slot_state to);

/* Add marks to a slot if its word still has this generation and state. Returns: false if not. Threads: any. */
bool slot_mark(struct lido_slot *slot, uint64_t generation, enum slot_state state, uint64_t marks);

/* Keep whoever owns a slot from letting go of its object (he waits) while something that does not block is done with it
 * beside him: interrupt, describe. One at a time. Returns: false when the word has moved on. Threads: any. */
bool slot_hold(struct lido_slot *slot, uint64_t generation, enum slot_state state);
void slot_let_go(struct lido_slot *slot);

/* Make room for `count` slots. Returns: LIDO_OK; LIDO_ENOMEM. Threads: one at a time, by the pool's lock. */
int slots_grow(struct slots *slots, struct lido_pool *pool, uint32_t count);

/* Give all slots back. Every one is VACANT. */
void slots_fini(struct slots *slots);

/* In which chunk a slot of this index is, and where in it. */
static inline unsigned slots_chunk_of(uint32_t index, uint32_t *ret_place)
{
        unsigned k = 31u - (unsigned)__builtin_clz(index / CHUNK_SLOTS + 1);

        *ret_place = index - CHUNK_SLOTS * ((1u << k) - 1);
        return k;
}

/* The slot of an index below capacity. */
struct lido_slot *slots_at(const struct slots *slots, uint32_t index);

/* Is this slot one of these now? It may have been another pool's, whose memory this one has. Threads: any. */
bool slots_has(const struct slots *slots, const struct lido_slot *slot);

/* Which slots at rest are doubted: those so marked; those that have slept for `after_ms` (negative: however long); and all when
 * the machine has been suspended since `suspended_ns` (base/clock.h). The clocks are read when they are needed first. */
struct slots_doubt {
        bool by_clock; /* not only by marks */
        bool is_suspended;
        int64_t after_ms;
        uint64_t suspended_ns;
        uint64_t now_ns; /* 0: not read yet */
};
#define SUSPEND_NS NS_PER_S /* a shorter suspend is none that a peer would notice */
bool slot_is_doubted(const struct lido_slot *slot, uint64_t word, struct slots_doubt *doubt);

/* May a slot with this word be claimed? *ret_is_passed_over is set when it may not because it is doubted; `doubt` NULL: nothing is. */
bool slot_is_claimable(const struct lido_slot *slot, uint64_t word, struct slots_doubt *doubt, bool *ret_is_passed_over);

/* Claim an idle slot, or else a rested one: the lowest, so that load gathers there and the high ones fall idle. One at rest
 * that is doubted is passed over; without a `doubt` (NULL) none is.
 * Returns: the slot, now LEASED, its generation in *ret_generation and whether it had rested; NULL: none, and *ret_had_rested
 * tells whether one was passed over. */
struct lido_slot *slots_claim(struct slots *slots, struct slots_doubt *doubt, uint64_t *ret_generation, bool *ret_had_rested);

/* As slots_claim, but the one that was given back longest ago. */
struct lido_slot *slots_claim_oldest(struct slots *slots, struct slots_doubt *doubt, uint64_t *ret_generation,
                                     bool *ret_had_rested);

/* Claim this slot out of IDLE or RESTED, if it is still as `word` says. */
bool slots_claim_this(struct lido_slot *slot, uint64_t word, uint64_t *ret_generation);

/* Put one back that was claimed so and has been lent to nobody, to be again as `word` says; then the caller looks at the gate
 * (law 2). Returns: false when it was marked meanwhile, and is the caller's still. */
bool slot_unclaim(struct lido_slot *slot, uint64_t word);

/* Claim the lowest vacant slot for an open. Returns: the slot, now OPENING; NULL: none. */
struct lido_slot *slots_claim_vacant(struct slots *slots, uint64_t *ret_ticket);

/* Is any slot idle or rested at this moment? */
bool slots_any_free(const struct slots *slots);

/* Count the slots in each state. */
void slots_count(const struct slots *slots, uint32_t count[SLOT_STATES]);

/* Walk the chunks: for (k...) for (slot...); `high` is read once. */
#define slots_for_each(slot, slots)                                                                            \
        for (uint32_t slot##_i = 0, slot##_high = load_acquire(&(slots)->high), slot##_k = 0,                  \
                      slot##_end = CHUNK_SLOTS;                                                                \
             slot##_i < slot##_high; slot##_end += CHUNK_SLOTS << ++slot##_k)                                  \
                for (struct lido_slot *slot = load_acquire(&(slots)->chunk[slot##_k]);                         \
                     slot##_i < slot##_high && slot##_i < slot##_end; slot##_i++, slot++)

#endif
