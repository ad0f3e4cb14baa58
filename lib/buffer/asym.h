/* buffer/asym.h - a fence whose cost lies on one side: the owner of a cache pays nothing, whoever comes to
 * empty it pays for both.
 *
 *      owner:    busy = 1; fence_light(); if (open) ...; busy = 0 (release)
 *      visitor:  open = NULL; fence_heavy(); wait until busy == 0 (acquire)
 *
 * Either the visitor sees busy, or the owner sees that it is shut: the store of one side and the load after
 * it cannot both be passed by. On Linux the heavy side is membarrier(2), 0.4 us alone and 11 us beside a
 * running thread. Where the system refuses it, fence_is_asymmetric says so, and the light side has to pay a
 * real fence (the caller's choice).
 */
#ifndef LIDO_BUFFER_ASYM_H
#define LIDO_BUFFER_ASYM_H

#include <stdbool.h>

#include "base/atomic.h"

#ifdef LIDO_SIM
/* The model scheduler is sequentially consistent. */
#define fence_light() ((void)0)
#else
#define fence_light() __asm__ __volatile__("" ::: "memory")
#endif

/* Register this process with the kernel, once. Returns: true when fence_heavy works here. */
bool fence_is_asymmetric(void);

/* Every thread of the process has run a full fence between the call and the return. */
void fence_heavy(void);

#endif
