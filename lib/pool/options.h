/* pool/options.h - one table describes every option: its name, unit, default and range. Validation, the text form, the
 * description and every error message come from it. */
#ifndef LIDO_POOL_OPTIONS_H
#define LIDO_POOL_OPTIONS_H

#include "lido/pool.h"

/* Take in the caller's options (NULL: all default), put the defaults in, and see that they are possible. ret_error may be
 * NULL; it names the option, the value and the range.
 * Returns: LIDO_OK; LIDO_EINVAL; LIDO_E2NEW. */
int options_take(struct lido_pool_options *ours, const struct lido_pool_options *theirs, struct lido_error *ret_error);

#endif
