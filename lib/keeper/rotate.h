/* keeper/rotate.h - new objects for old ones, without ever having fewer.
 *
 * A replacement is an open like any other, counted in kept.replacing; when it has succeeded, the oldest object that is to be
 * replaced goes. So while opening fails, nothing goes. Where max leaves no room for one more, the old one goes first.
 */
#ifndef LIDO_KEEPER_ROTATE_H
#define LIDO_KEEPER_ROTATE_H

#include "keeper/keeper.h"

/* Go on with a rotation, if one is under way. Returns: when the next object is due. */
uint64_t rotate(struct lido_pool *pool, uint64_t now);

/* An object was opened: the one that it replaces goes. */
void rotate_note_opened(struct lido_pool *pool);

/* This object will reach its lifetime soon: ask for a replacement if it is in demand. */
void rotate_replace_aged(struct lido_pool *pool, struct lido_slot *slot);

#endif
