/* How an object comes to be doubted while others look at it. That the doubted are checked before they are lent, and how many at
 * a time: tests/keeper/pass.c, tests/keeper/operate.c. A suspend of the machine: tests/keeper/pass.c. */
#include "pool/doubt.h"

#include "support/crew.h"
#include "support/fixture.h"
#include "support/suite.h"

struct meeting {
        struct fixture *f;
        struct lido_slot *slot;
        uint64_t generation; /* of the claim */
        _Atomic bool was_let_go;
};

/* One is at work on the object, as a hook that describes or interrupts it is; the other, who has claimed it, lets it rest. */
static void meet(void *context, unsigned number)
{
        struct meeting *m = context;

        if (number == 1) {
                doubt_rest(m->f->pool, m->slot, m->generation);
        } else if (slot_hold(m->slot, m->generation, SLOT_LEASED)) {
                for (int i = 0; i < 200; i++) {
                        uint64_t word = load_acquire(&m->slot->word);

                        if (word_generation(word) != m->generation || !(word & MARK_INTERRUPTING))
                                atomic_store(&m->was_let_go, true);
                        if (i % 50 == 0)
                                thread_yield();
                }
                slot_let_go(m->slot);
        }
}

START_TEST(an_object_that_a_hook_is_at_work_on_is_not_let_go_of)
{
        struct meeting m = { .f = pool_of(1) };
        lido_lease lease;

        lease = must_acquire(m.f);
        m.slot = lease.slot;
        must_release(lease);
        for (int i = 0; i < 500; i++) {
                ck_eventually(slots_claim_this(m.slot, load_relaxed(&m.slot->word), &m.generation));
                crew_run(2, meet, &m);
                ck_assert(!atomic_load(&m.was_let_go));
                ck_assert(!(load_relaxed(&m.slot->word) & MARK_INTERRUPTING));
        }
        fixture_end(m.f);
}
END_TEST

int main(void)
{
        return suite_run("pool/doubt", (const TTest *[]){ an_object_that_a_hook_is_at_work_on_is_not_let_go_of, NULL });
}
