/* sim/mutate.h - break the program at one site while it runs: no source is changed, none is compiled again.
 *
 * A site is named by the function it stands in, its operation and the text of the word, and may be narrowed
 * to a file. All its copies (a static inline function has one in each file) are broken together.
 */
#ifndef LIDO_SIM_MUTATE_H
#define LIDO_SIM_MUTATE_H

#include "sim/point.h"

/* Every site that there is, copies once. Returns: how many; at most `max` are written. */
unsigned mutate_sites(struct sim_site **sites, unsigned max);

/* Can this site be broken in this way? */
bool mutate_applies(const struct sim_site *site, enum sim_mutation mutation);

/* Break the site and its copies; SIM_INTACT mends it. */
void mutate_site(const struct sim_site *site, enum sim_mutation mutation);

/* Break a site by name. `what` may be NULL: any word. Returns: how many sites it was. */
unsigned mutate_named(const char *function, int kind, const char *what, enum sim_mutation mutation);

void mutate_nothing(void);
const char *mutate_name(enum sim_mutation mutation);

/* Is anything broken now? */
bool mutate_any(void);

#endif
