#include "support/clock.h"

#include <stdatomic.h>

#include "support/patience.h"

#define FROZEN_AT (UINT64_C(1000000) * NS_PER_S)

static _Atomic uint64_t frozen; /* 0: it runs */
static _Atomic uint64_t suspended;

uint64_t clock_now_ns(void)
{
        uint64_t now = atomic_load_explicit(&frozen, memory_order_relaxed);

        return now ? now : real_now_ns();
}

uint64_t clock_real_ns(void)
{
        return real_now_ns();
}

bool clock_is_theirs(void)
{
        return false;
}

uint64_t clock_boot_ns(void)
{
        return clock_now_ns() + atomic_load(&suspended);
}

void clock_suspend(uint64_t ns)
{
        atomic_fetch_add(&suspended, ns);
}

void clock_freeze(void)
{
        atomic_store(&frozen, FROZEN_AT);
}

void clock_advance(uint64_t ns)
{
        ck_assert_uint_ne(atomic_load(&frozen), 0);
        atomic_fetch_add(&frozen, ns);
}

void clock_thaw(void)
{
        atomic_store(&frozen, 0);
}
