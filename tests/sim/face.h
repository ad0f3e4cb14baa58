/* sim/face.h - the second face of lib/base: clock, lock, park and yield as switching points that know where they stand.
 *
 * Every source of the core is compiled with `-DLIDO_SIM -include sim/face.h`: the real headers are read first, then the
 * names become macros over the functions below. Nothing of this shows in lib/.
 */
#ifndef LIDO_SIM_FACE_H
#define LIDO_SIM_FACE_H

#include "base/atomic.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/park.h"
#include "base/random.h"
#include "base/shelf.h"
#include "base/thread.h"
#include "sim/point.h"

void sim_mutex_lock(struct sim_site *site, struct mutex *mutex);
void sim_mutex_unlock(struct sim_site *site, struct mutex *mutex);
bool sim_park_wait(struct sim_site *site, _Atomic uint32_t *word, uint32_t value, uint64_t deadline_ns);
void sim_park_wake(struct sim_site *site, _Atomic uint32_t *word, int count);
uint64_t sim_clock(struct sim_site *site);
void sim_relax(struct sim_site *site);
/* One that lives longer than a run, and has not been seen in this one: it is free. Returns: true when it was so. */
bool sim_mutex_renew(struct mutex *mutex);
void *sim_shelf_take(struct shelf *shelf, int *ret_is_new);

#ifndef LIDO_SIM_BODY
#define mutex_lock(m)                                                                                          \
        __extension__({                                                                                        \
                SIM_HERE(SIM_OP_OTHER, SIM_RELAXED, #m);                                                        \
                sim_mutex_lock(&here_, m);                                                                     \
        })
#define mutex_unlock(m)                                                                                        \
        __extension__({                                                                                        \
                SIM_HERE(SIM_OP_OTHER, SIM_RELAXED, #m);                                                        \
                sim_mutex_unlock(&here_, m);                                                                   \
        })
#define park_wait(word, value, deadline)                                                                       \
        __extension__({                                                                                        \
                SIM_HERE(SIM_OP_OTHER, SIM_RELAXED, #word);                                                     \
                sim_park_wait(&here_, word, value, deadline);                                                  \
        })
#define park_wake(word, count)                                                                                 \
        __extension__({                                                                                        \
                SIM_HERE(SIM_OP_WAKE, SIM_RELAXED, #word);                                                      \
                sim_park_wake(&here_, word, count);                                                            \
        })
#define clock_now_ns()                                                                                         \
        __extension__({                                                                                        \
                SIM_HERE(SIM_OP_OTHER, SIM_RELAXED, "clock");                                                    \
                sim_clock(&here_);                                                                             \
        })
#define clock_boot_ns() clock_now_ns()
#define cpu_relax()                                                                                            \
        __extension__({                                                                                        \
                SIM_HERE(SIM_OP_OTHER, SIM_RELAXED, "relax");                                                    \
                sim_relax(&here_);                                                                             \
        })
#define thread_yield() cpu_relax()
#ifndef LIDO_SIM_SHELF
#define shelf_take(shelf, ret_is_new) sim_shelf_take(shelf, ret_is_new)
#endif
#endif

#endif
