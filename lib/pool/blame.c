#include "pool/blame.h"

#include <string.h>

#include "base/clock.h"
#include "base/sized.h"

uint64_t blame_held_ns(const struct lido_pool *pool, struct lido_slot *slot, uint64_t word, uint64_t now_ns)
{
        uint64_t since = now_ns;

        if (pool->factory.flags & LIDO_FACTORY_TIMED) {
                if (slot_holder(slot, word) != 0) /* else what is written down is of an earlier lease */
                        since = load_relaxed(&slot->acquired_ns);
        } else if (word_generation(load_relaxed(&slot->seen_word)) == word_generation(word))
                since = load_relaxed(&slot->seen_ns);
        return since < now_ns ? now_ns - since : 0;
}

/* Keep the longest holders, longest first. */
static void add_holder(struct lido_blame *blame, const struct lido_holder *holder)
{
        uint32_t place = blame->holders < LIDO_BLAME_HOLDERS ? blame->holders++ : LIDO_BLAME_HOLDERS;

        if (place == LIDO_BLAME_HOLDERS) {
                if (blame->holder[LIDO_BLAME_HOLDERS - 1].held_ns >= holder->held_ns)
                        return;
                place--;
        }
        while (place > 0 && blame->holder[place - 1].held_ns < holder->held_ns) {
                blame->holder[place] = blame->holder[place - 1];
                place--;
        }
        blame->holder[place] = *holder;
}

static void add_holders(struct lido_pool *pool, struct lido_blame *blame, uint64_t now)
{
        slots_for_each (slot, &pool->slots) {
                uint64_t word = load_acquire(&slot->word);
                struct lido_holder holder;

                if (word_state(word) != SLOT_LEASED)
                        continue;
                holder.slot = load_relaxed(&slot->index);
                holder.thread = slot_holder(slot, word);
                holder.site = load_relaxed(&slot->site);
                holder.tag = load_relaxed(&slot->tag);
                holder.held_ns = blame_held_ns(pool, slot, word, now);
                holder.frame_count = trace_read(pool, slot, word_generation(word), holder.frame, LIDO_HOLDER_FRAMES);
                holder.reserved = 0;
                if (word_generation(load_acquire(&slot->word)) == word_generation(word))
                        add_holder(blame, &holder);
        }
}

static int cause_of(struct lido_pool *pool, int code, const struct lido_blame *blame, const uint32_t count[SLOT_STATES])
{
        switch (code) {
        case LIDO_ECLOSED:
                return LIDO_CAUSE_CLOSED;
        case LIDO_EPAUSED:
                return LIDO_CAUSE_PAUSED;
        case LIDO_EQUEUEFULL:
                return LIDO_CAUSE_QUEUE_FULL;
        case LIDO_ESHED:
                return LIDO_CAUSE_SHED;
        case LIDO_EDEADLK:
                return LIDO_CAUSE_DEADLOCK;
        case LIDO_EPERMANENT:
        case LIDO_EUNAVAIL:
                return LIDO_CAUSE_BREAKER;
        default:
                break;
        }
        if (blame->idle > 0 && load_relaxed(&pool->has_quotas))
                return LIDO_CAUSE_QUOTA;
        if (load_relaxed(&pool->gate) & GATE_PAUSED)
                return LIDO_CAUSE_PAUSED;
        if (load_relaxed(&pool->is_failing) && blame->leased < blame->max)
                return LIDO_CAUSE_DOWN;
        if (blame->opening > 0)
                return LIDO_CAUSE_OPENING;
        if (blame->leased > 0)
                return LIDO_CAUSE_EXHAUSTED;
        if (count[SLOT_CHECKING] + count[SLOT_RESETTING] + count[SLOT_CLOSING] > 0)
                return LIDO_CAUSE_UPKEEP;
        return LIDO_CAUSE_NONE;
}

void blame_fill(struct lido_pool *pool, int code, struct lido_blame *blame)
{
        struct lido_blame ours = LIDO_BLAME_INIT;
        uint32_t count[SLOT_STATES];
        uint64_t now = clock_now_ns();
        size_t room = sized_room(blame->size, sizeof ours);

        slots_count(&pool->slots, count);
        ours.max = load_relaxed(&pool->max);
        ours.live = load_relaxed(&pool->live);
        ours.idle = count[SLOT_IDLE] + count[SLOT_RESTED];
        ours.leased = count[SLOT_LEASED];
        ours.opening = count[SLOT_OPENING];
        ours.waiting = (uint32_t)(load_relaxed(&pool->gate) & GATE_COUNT);
        if (code == LIDO_EFORKED) { /* the lock may be held by a thread that this process does not have */
                memcpy(blame, &ours, room);
                return;
        }
        mutex_lock(&pool->waitq.lock);
        if (pool->last_error_ns != 0) {
                ours.last_error_is_set = 1;
                ours.last_error = pool->last_error;
                ours.last_error_age_ns = now - pool->last_error_ns;
        }
        if (pool->last_discard.at_ns != 0) {
                memcpy(ours.discard_reason, pool->last_discard.reason, sizeof ours.discard_reason);
                ours.discard_site = pool->last_discard.site;
                ours.discard_age_ns = now > pool->last_discard.at_ns ? now - pool->last_discard.at_ns : 0;
        }
        mutex_unlock(&pool->waitq.lock);
        add_holders(pool, &ours, now);
        ours.cause = cause_of(pool, code, &ours, count);
        ours.size = room;
        memcpy(blame, &ours, room);
}
