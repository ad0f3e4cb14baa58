/* Is a pool healthy? By a look, or by having one object of it for real. */
#include <string.h>

#include "base/clock.h"
#include "base/park.h"
#include "base/sized.h"
#include "lido/admin.h"
#include "pool/lease.h"
#include "watch/text.h"

/* What a look has found. */
struct look {
        uint32_t open, leaks, stuck;
        uint64_t oldest_ns; /* how long somebody has waited */
};

static struct look look_at(struct lido_pool *pool)
{
        struct look look = { .open = 0 };
        uint64_t since_ns = waitq_oldest_ns(pool), now = clock_now_ns();

        look.oldest_ns = since_ns < now ? now - since_ns : 0;
        slots_for_each (slot, &pool->slots) {
                uint64_t word = load_acquire(&slot->word);
                enum slot_state state = word_state(word);

                look.open += state != SLOT_VACANT && state != SLOT_OPENING && state != SLOT_CLOSING;
                look.leaks += state == SLOT_LEASED && (word & MARK_LEAKED);
                look.stuck += state != SLOT_LEASED && (word & MARK_OVERDUE);
        }
        return look;
}

/* One reason more. */
static void note(struct lido_health *health, struct text *text, int status, uint32_t reason)
{
        if (health->status < status)
                health->status = status;
        if (health->reasons != 0)
                text_add(text, "; ");
        health->reasons |= reason;
}

static void note_down(struct lido_pool *pool, struct lido_health *health, struct text *text, uint32_t open)
{
        struct lido_error error;
        uint64_t age_ns;

        mutex_lock(&pool->waitq.lock);
        error = pool->last_error;
        age_ns = clock_now_ns() - pool->last_error_ns;
        mutex_unlock(&pool->waitq.lock);
        note(health, text, open == 0 ? LIDO_UNHEALTHY : LIDO_DEGRADED, LIDO_HEALTH_DOWN);
        text_add(text, "opening fails (%s%s%s, %.1f s ago)", error.sqlstate, error.sqlstate[0] ? " " : "", error.text,
                 (double)age_ns / 1e9);
}

static void judge_by_look(struct lido_pool *pool, struct lido_health *health, struct text *text)
{
        const struct lido_pool_options *options = pool_options(pool);
        uint64_t gate = load_seq_cst(&pool->gate);
        struct look look = look_at(pool);

        if (gate & (GATE_CLOSED | GATE_ORPHANED)) {
                note(health, text, LIDO_UNHEALTHY, LIDO_HEALTH_CLOSED);
                text_add(text, "it is closed");
                return;
        }
        if (gate & GATE_PAUSED) {
                note(health, text, LIDO_UNHEALTHY, LIDO_HEALTH_PAUSED);
                text_add(text, "it is paused");
        }
        if (load_relaxed(&pool->is_failing))
                note_down(pool, health, text, look.open);
        if (look.open < options->min) {
                note(health, text, LIDO_DEGRADED, LIDO_HEALTH_SHORT);
                text_add(text, "%u of min %u open", look.open, options->min);
        }
        if (options->acquire_timeout_ms > 0 && look.oldest_ns / NS_PER_MS > (uint64_t)options->acquire_timeout_ms / 2) {
                note(health, text, LIDO_DEGRADED, LIDO_HEALTH_QUEUE);
                text_add(text, "somebody has waited for %.1f s", (double)look.oldest_ns / 1e9);
        }
        if (look.stuck > 0) {
                note(health, text, LIDO_DEGRADED, LIDO_HEALTH_STUCK);
                text_add(text, "%u hooks have not answered in time", look.stuck);
        }
        if (look.leaks > 0) {
                note(health, text, LIDO_DEGRADED, LIDO_HEALTH_LEAK);
                text_add(text, "%u leases are held for too long", look.leaks);
        }
}

/* The lease is returned with a doubt, so that the object is checked before anybody has it; from then on it is told by its life and
 * by when it was last known to be alive. Returns: LIDO_OK; LIDO_EFACTORY when it is gone; LIDO_ETIMEDOUT. */
static int check_and_return(struct lido_pool *pool, lido_lease lease, uint64_t deadline_ns)
{
        struct lido_slot *slot = lease.slot;
        uint64_t life = load_relaxed(&slot->life), began_ns = clock_now_ns();

        slot_mark(slot, lease.generation, SLOT_LEASED, MARK_SUSPECT);
        if (lido_release_at(lease, LIDO_HERE) != LIDO_OK)
                return LIDO_EFACTORY; /* revoked, perhaps */
        for (;;) {
                uint32_t changes = load_seq_cst(&pool->changes); /* before the look: pairs with pool_changed */
                uint64_t word = load_seq_cst(&slot->word);

                if (load_relaxed(&slot->life) != life || word_state(word) == SLOT_CLOSING || word_state(word) == SLOT_VACANT)
                        return LIDO_EFACTORY;
                if (load_relaxed(&slot->checked_ns) >= began_ns)
                        return LIDO_OK;
                if (!park_wait(&pool->changes, changes, deadline_ns))
                        return LIDO_ETIMEDOUT;
        }
}

static void judge_by_having_one(struct lido_pool *pool, int64_t timeout_ms, struct lido_health *health, struct text *text)
{
        struct want want = { .site = LIDO_HERE, .tag = "health", .priority = LIDO_PRIORITY_CRITICAL };
        lido_lease lease;

        want.timeout_ms = timeout_ms == LIDO_TIMEOUT_DEFAULT ? pool_options(pool)->acquire_timeout_ms : timeout_ms;
        want.deadline_ns = clock_after_ms(clock_now_ns(), want.timeout_ms);
        health->code = lease_acquire(pool, &want, &lease);
        if (health->code != LIDO_OK) {
                note(health, text, LIDO_UNHEALTHY, LIDO_HEALTH_FAILED);
                text_add(text, "no object could be had: %s", lido_strerror(health->code));
                return;
        }
        health->code = check_and_return(pool, lease, want.deadline_ns);
        if (health->code != LIDO_OK) {
                note(health, text, LIDO_UNHEALTHY, LIDO_HEALTH_FAILED);
                text_add(text, health->code == LIDO_EFACTORY ? "an object did not pass its check" : "a check is not answered");
        }
}

int lido_pool_health(struct lido_pool *pool, int64_t timeout_ms, struct lido_health *health)
{
        static const char *const words[] = { "healthy", "degraded: ", "unhealthy: " };
        struct lido_health ours = LIDO_HEALTH_INIT;
        char found[sizeof ours.text];
        struct text text;
        size_t room;

        if (!pool || !health || health->size < sizeof health->size || timeout_ms < LIDO_TIMEOUT_DEFAULT)
                return LIDO_EINVAL;
        if (load_seq_cst(&pool->gate) & GATE_FORKED)
                return LIDO_EFORKED;
        if (timeout_ms != 0 && pool_must_not_wait(pool))
                return LIDO_EDEADLK;
        text_init(&text, found, sizeof found);
        pool_enter(pool);
        judge_by_look(pool, &ours, &text);
        if (timeout_ms != 0 && ours.status != LIDO_UNHEALTHY)
                judge_by_having_one(pool, timeout_ms, &ours, &text);
        pool_leave(pool);
        text_init(&text, ours.text, sizeof ours.text);
        text_add(&text, "%s%s", words[ours.status], found);
        room = sized_room(health->size, sizeof ours);
        ours.size = room;
        memcpy(health, &ours, room);
        return LIDO_OK;
}
