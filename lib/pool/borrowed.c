/* What a borrower can ask of, or say about, a lease that it holds. */
#include "base/clock.h"
#include "pool/lease.h"

static inline __attribute__((always_inline)) bool is_current(lido_lease lease)
{
        if (!region_has(lease.slot) || !lease_is_whole(lease))
                return false;
        return (load_acquire(&lease.slot->word) & (~MARKS | MARK_REVOKED)) == word_make(lease.generation, SLOT_LEASED);
}

/* Why a lease is not current, without counting it as misuse. */
static int check(lido_lease lease)
{
        uint64_t revoked = word_make(lease.generation, SLOT_LEASED) | MARK_REVOKED;

        if (!region_has(lease.slot))
                return LIDO_EINVAL;
        if (is_current(lease))
                return load_relaxed(&load_relaxed(&lease.slot->pool)->gate) & GATE_FORKED ? LIDO_EFORKED : LIDO_OK;
        return (load_acquire(&lease.slot->word) & (~MARKS | MARK_REVOKED)) == revoked ? LIDO_EREVOKED : LIDO_ESTALE;
}

_Static_assert(SLOT_SIZE == 256 && GENERATION_ONE == 4096 && SLOT_LEASED == 4, "lido_object_inline");
_Static_assert(offsetof(struct lido_slot, word) == offsetof(struct lido_slot_face, word), "lido_object_inline");
_Static_assert(offsetof(struct lido_slot, object) == offsetof(struct lido_slot_face, object), "lido_object_inline");

/* hot: measured by tests/bench */
HOT void *(lido_object)(lido_lease lease)
{
        return is_current(lease) ? load_relaxed(&lease.slot->object) : NULL;
}

struct lido_pool *lido_lease_pool(lido_lease lease)
{
        return is_current(lease) ? load_relaxed(&lease.slot->pool) : NULL;
}

int lido_transfer_at(lido_lease lease, const char *site)
{
        int rc = check(lease);

        if (rc != LIDO_OK)
                return rc;
        store_relaxed(&lease.slot->holder, holder_make(lease.generation, thread_id()));
        store_relaxed(&lease.slot->site, site);
        return LIDO_OK;
}

int lido_lease_set_deadline(lido_lease lease, int64_t timeout_ms)
{
        int rc = check(lease);

        if (timeout_ms < LIDO_NEVER)
                return LIDO_EINVAL;
        if (rc != LIDO_OK)
                return rc;
        store_relaxed(&lease.slot->lease_due_ns, clock_after_ms(clock_now_ns(), timeout_ms));
        store_release(&lease.slot->lease_due_of, lease.generation); /* pairs with pass.c: the time is this lease's */
        pool_look_again(load_relaxed(&lease.slot->pool));
        return LIDO_OK;
}

int lido_revoke(lido_lease lease)
{
        int rc = check(lease);

        if (rc != LIDO_OK)
                return rc;
        store_relaxed(&lease.slot->lease_due_ns, 0);
        store_release(&lease.slot->lease_due_of, lease.generation);
        if (!slot_mark(lease.slot, lease.generation, SLOT_LEASED, MARK_REVOKED))
                return LIDO_ESTALE;
        pool_look_again(load_relaxed(&lease.slot->pool)); /* the keeper interrupts it */
        return LIDO_OK;
}

int lido_set_object_data(lido_lease lease, void *data)
{
        int rc = check(lease);

        if (rc == LIDO_OK)
                store_relaxed(&lease.slot->data, data);
        return rc;
}

void *lido_object_data(lido_lease lease)
{
        return is_current(lease) ? load_relaxed(&lease.slot->data) : NULL;
}

int lido_set_lease_data(lido_lease lease, void *data)
{
        int rc = check(lease);

        if (rc == LIDO_OK) {
                store_relaxed(&lease.slot->lease_data, data);
                store_relaxed(&lease.slot->lease_data_of, lease.generation);
        }
        return rc;
}

void *lido_lease_data(lido_lease lease)
{
        if (!is_current(lease) || load_relaxed(&lease.slot->lease_data_of) != lease.generation)
                return NULL;
        return load_relaxed(&lease.slot->lease_data);
}

int lido_set_label(lido_lease lease, uint64_t label)
{
        int rc = check(lease);

        if (rc == LIDO_OK)
                store_relaxed(&lease.slot->label, label);
        return rc;
}

uint64_t lido_label(lido_lease lease)
{
        return is_current(lease) ? load_relaxed(&lease.slot->label) : 0;
}
