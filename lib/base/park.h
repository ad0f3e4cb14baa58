/* base/park.h - put a thread to sleep on a word of its own, and wake it.
 *
 * The sleeper waits while the word still has the value it saw; the waker changes the word and then wakes. A wake
 * that comes before the wait is not lost, because the word no longer has that value. Wakes may be spurious, and may
 * arrive at an address whose owner is gone: the word is never read by park_wake.
 *
 * On Linux a futex; elsewhere, with LIDO_NO_FUTEX, or by a clock of the embedder's (lido/clock.h), a table of condition
 * variables hashed by address, which is no place for a signal handler.
 */
#ifndef LIDO_BASE_PARK_H
#define LIDO_BASE_PARK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Sleep while *word == value, until woken or until the deadline (CLOCK_NEVER: none). Not a cancellation point.
 * Returns: false when the deadline has passed, true otherwise (which may be spurious). */
bool park_wait(_Atomic uint32_t *word, uint32_t value, uint64_t deadline_ns);

/* Wake the threads asleep on `word`, at most `count`. */
void park_wake(_Atomic uint32_t *word, int count);

#endif
