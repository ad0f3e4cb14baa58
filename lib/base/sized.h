/* base/sized.h - take in a struct that begins with its size, from a caller built against another version.
 *
 * A shorter struct is an older one: what it lacks is zero, the default. A longer one is newer: it is taken if what we do
 * not know is zero, and refused if not, for the caller asks for something that would silently not happen.
 */
#ifndef LIDO_BASE_SIZED_H
#define LIDO_BASE_SIZED_H

#include <stddef.h>

/* Copy `theirs` (NULL: all default) into `ours`, which is `size` bytes and ends up with its own size in front.
 * Returns: LIDO_OK; LIDO_EINVAL when their size is impossible; LIDO_E2NEW. */
int sized_take(void *ours, size_t size, const void *theirs);

/* How many bytes of an output struct the caller has room for, its own size being `theirs`, ours `size`. */
size_t sized_room(size_t theirs, size_t size);

#endif
