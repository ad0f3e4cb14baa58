/* What a factory has to say about one of its objects while somebody else may own it. */
#include "pool/op.h"

/* The owner of the slot may have let go of it since, and the pool have ended. */
static void tell(struct lido_pool *pool, lido_handle handle, const char *reason)
{
        struct lido_event event = { .type = LIDO_EVENT_BROKEN, .reason = reason };

        pool_emit_late(pool, handle.slot, handle.life, &event);
}

/* An object that nobody uses is claimed and sent on its way; one in use is marked, for its owner to find. The word is read
 * before the life and claimed after it, so it is that life's object which is claimed. */
static int report(lido_handle handle, uint64_t mark, const char *reason)
{
        struct lido_slot *slot = handle.slot;
        uint64_t word, generation;
        struct lido_pool *pool;

        if (!region_has(slot) || handle.life == 0)
                return LIDO_EINVAL;
        for (;;) {
                word = load_acquire(&slot->word);
                if (load_relaxed(&slot->life) != handle.life)
                        return LIDO_ESTALE;
                pool = load_acquire(&slot->pool);
                switch (word_state(word)) {
                case SLOT_IDLE:
                case SLOT_RESTED:
                        if (!slots_claim_this(slot, word, &generation))
                                continue;
                        tell(pool, handle, reason);
                        if (mark == MARK_RETIRE)
                                op_want_close(pool, slot, generation, LIDO_CLOSE_BROKEN);
                        else
                                op_want(pool, slot, generation, SLOT_CHECKING);
                        return LIDO_OK;
                case SLOT_LEASED:
                case SLOT_CHECKING:
                case SLOT_RESETTING:
                        if (mark == MARK_RETIRE)
                                store_relaxed(&slot->retire_reason, LIDO_CLOSE_BROKEN);
                        if (!slot_mark(slot, word_generation(word), word_state(word), mark))
                                continue;
                        tell(pool, handle, reason);
                        return LIDO_OK;
                default:
                        return word_state(word) == SLOT_CLOSING ? LIDO_OK : LIDO_ESTALE;
                }
        }
}

int lido_handle_broken(lido_handle handle, const char *reason)
{
        return report(handle, MARK_RETIRE, reason);
}

int lido_handle_suspect(lido_handle handle, const char *reason)
{
        return report(handle, MARK_SUSPECT, reason);
}
