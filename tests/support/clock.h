/* clock.h - the library's clock in the hands of the test.
 *
 * This file's object takes the place of lib/base/clock.c in every test program that links it (tests/base/clock excepted): the
 * linker looks here first. It is the real clock until it is frozen; from then on time passes only when the test says so.
 * Threads asleep in base/park.h sleep by the real clock, so with a frozen one a test lets nobody wait with a deadline but the
 * keeper, whose turns it takes itself.
 */
#ifndef LIDO_TESTS_CLOCK_H
#define LIDO_TESTS_CLOCK_H

#include <stdint.h>

#include "base/clock.h"

/* Stop the clock at a time well above zero. */
void clock_freeze(void);

/* Let time pass on a frozen clock. */
void clock_advance(uint64_t ns);

/* The machine sleeps: only the clock that goes on in a suspend goes on. Frozen or not. */
void clock_suspend(uint64_t ns);

/* Let it go on by itself. */
void clock_thaw(void);

#endif
