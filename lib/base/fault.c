#include "base/fault.h"

#ifdef LIDO_FAULTS
#include <stdatomic.h>

static _Atomic uint64_t hits;
static _Atomic uint64_t chosen;
static _Atomic int mode_now;

bool fault_hit(void)
{
        uint64_t hit = atomic_fetch_add(&hits, 1) + 1;
        int mode = atomic_load(&mode_now);

        return (mode == FAULT_ONCE && hit == atomic_load(&chosen)) || (mode == FAULT_FROM && hit >= atomic_load(&chosen));
}

void fault_arm(uint64_t n, enum fault_mode mode)
{
        atomic_store(&hits, 0);
        atomic_store(&chosen, n);
        atomic_store(&mode_now, mode);
}

uint64_t fault_disarm(void)
{
        atomic_store(&mode_now, FAULT_OFF);
        return atomic_load(&hits);
}
#else
typedef int fault_is_off; /* ISO C wants a declaration in every file */
#endif
