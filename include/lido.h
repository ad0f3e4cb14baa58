/* lido - a thread-safe pool of reusable handles: connections, buffers, threads, anything.
 *
 * This is the umbrella. Start reading at lido/pool.h; PostgreSQL is in lido/pg.h, which is not included here
 * because it needs liblido-pg.
 */
#ifndef LIDO_H
#define LIDO_H

#include "lido/admin.h"
#include "lido/buffer.h"
#include "lido/budget.h"
#include "lido/clock.h"
#include "lido/error.h"
#include "lido/events.h"
#include "lido/keyed.h"
#include "lido/loop.h"
#include "lido/memory.h"
#include "lido/pool.h"
#include "lido/service.h"
#include "lido/stats.h"
#include "lido/version.h"
#include "lido/worker.h"

#endif
