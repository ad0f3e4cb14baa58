/* base/fault.h - the world refuses: a counted place at which a fallible call can be told to fail.
 *
 * In a normal build fault_hit is the constant false. With LIDO_FAULTS the tests arm it: `fault_arm(n, FAULT_ONCE)`
 * fails the n-th hit from now on, FAULT_FROM also all that follow.
 */
#ifndef LIDO_BASE_FAULT_H
#define LIDO_BASE_FAULT_H

#include <stdbool.h>
#include <stdint.h>

#ifdef LIDO_FAULTS
enum fault_mode { FAULT_OFF, FAULT_ONCE, FAULT_FROM };

/* Count this call; true when it is to fail. Threads: any. */
bool fault_hit(void);

/* From now on fail the n-th hit (counted from 1). Threads: any, before the threads that hit. */
void fault_arm(uint64_t n, enum fault_mode mode);

/* Stop failing. Returns: the hits since fault_arm. */
uint64_t fault_disarm(void);
#else
#define fault_hit() false
#endif

#endif
