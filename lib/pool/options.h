/* pool/options.h - one table describes every option: its name, unit, default and range. */
#ifndef LIDO_POOL_OPTIONS_H
#define LIDO_POOL_OPTIONS_H

#include "lido/pool.h"

/* Take in the caller's options (NULL: all default), put the defaults in, and see that they are possible.
 * Returns: LIDO_OK; LIDO_EINVAL; LIDO_E2NEW. */
int options_take(struct lido_pool_options *ours, const struct lido_pool_options *theirs);

#endif
