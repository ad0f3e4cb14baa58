/* sim/atomic.h - the second face of base/atomic.h: every operation on a shared word is a switching point.
 *
 * Each use of a macro has a `struct sim_site` of its own, which names it in a trace and lets a mutation find it
 * (mutate.h). As long as nothing special is asked for, an operation is a countdown and the plain access: one thread of
 * the system runs all coroutines, so any order will do. With SIM_SPECIAL (weak memory, a trace, a mutation) it goes
 * through memory.c.
 */
#ifndef LIDO_SIM_ATOMIC_H
#define LIDO_SIM_ATOMIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "sim/point.h"

/* The type of what a pointer to an atomic points to, without its qualifiers. */
#define SIM_TYPE(p) __typeof__(((void)0, *(p)))

#define SIM_HERE(kind, order, text)                                                                               \
        static struct sim_site here_ = { __FILE__, __func__, text, __LINE__, kind, order, 0, 0 };                \
        static struct sim_site *const list_ __attribute__((section("sim_sites"), used)) = &here_

#define SIM_LOAD(p, order, text)                                                                                     \
        __extension__({                                                                                        \
                SIM_HERE(SIM_OP_LOAD, order, text);                                                               \
                __typeof__(p) at_ = (p);                                                                       \
                SIM_TYPE(at_) value_;                                                                          \
                sim_point(&here_, at_);                                                                        \
                if (__builtin_expect(sim.special, 0)) {                                                        \
                        uint64_t bits_ = sim_load(&here_, at_, sizeof value_);                                 \
                        memcpy(&value_, &bits_, sizeof value_);                                                \
                } else {                                                                                       \
                        value_ = atomic_load_explicit(at_, memory_order_relaxed);                              \
                }                                                                                              \
                value_;                                                                                        \
        })

#define SIM_STORE(p, v, order, text)                                                                                 \
        __extension__({                                                                                        \
                SIM_HERE(SIM_OP_STORE, order, text);                                                              \
                __typeof__(p) at_ = (p);                                                                       \
                SIM_TYPE(at_) value_ = (v);                                                                    \
                sim_point(&here_, at_);                                                                        \
                if (__builtin_expect(sim.special, 0)) {                                                        \
                        uint64_t bits_ = 0;                                                                    \
                        memcpy(&bits_, &value_, sizeof value_);                                                \
                        sim_store(&here_, at_, sizeof value_, bits_);                                          \
                } else {                                                                                       \
                        atomic_store_explicit(at_, value_, memory_order_relaxed);                              \
                }                                                                                              \
        })

#define SIM_CAS(p, seen, v, order, text)                                                                             \
        __extension__({                                                                                        \
                SIM_HERE(SIM_OP_CAS, order, text);                                                                \
                __typeof__(p) at_ = (p);                                                                       \
                SIM_TYPE(at_) *seen_ = (seen);                                                                 \
                SIM_TYPE(at_) value_ = (v);                                                                    \
                bool won_;                                                                                     \
                sim_point(&here_, at_);                                                                        \
                if (__builtin_expect(sim.special, 0)) {                                                        \
                        uint64_t old_ = 0, new_ = 0;                                                           \
                        memcpy(&old_, seen_, sizeof value_);                                                   \
                        memcpy(&new_, &value_, sizeof value_);                                                 \
                        won_ = sim_cas(&here_, at_, sizeof value_, &old_, new_);                               \
                        memcpy(seen_, &old_, sizeof value_);                                                   \
                } else {                                                                                       \
                        won_ = atomic_compare_exchange_strong_explicit(at_, seen_, value_, memory_order_relaxed, \
                                                                       memory_order_relaxed);                  \
                }                                                                                              \
                won_;                                                                                          \
        })

#define SIM_RMW(p, v, order, kind, plain, text)                                                                      \
        __extension__({                                                                                        \
                SIM_HERE(kind, order, text);                                                                      \
                __typeof__(p) at_ = (p);                                                                       \
                SIM_TYPE(at_) value_ = (v), old_;                                                              \
                sim_point(&here_, at_);                                                                        \
                if (__builtin_expect(sim.special, 0)) {                                                        \
                        uint64_t bits_ = 0;                                                                    \
                        memcpy(&bits_, &value_, sizeof value_);                                                \
                        bits_ = sim_rmw(&here_, at_, sizeof value_, bits_);                                    \
                        memcpy(&old_, &bits_, sizeof value_);                                                  \
                } else {                                                                                       \
                        old_ = plain(at_, value_, memory_order_relaxed);                                       \
                }                                                                                              \
                old_;                                                                                          \
        })

#define load_relaxed(p) SIM_LOAD(p, SIM_RELAXED, #p)
#define load_acquire(p) SIM_LOAD(p, SIM_ACQUIRE, #p)
#define load_seq_cst(p) SIM_LOAD(p, SIM_SEQ_CST, #p)
#define store_relaxed(p, v) SIM_STORE(p, v, SIM_RELAXED, #p)
#define store_release(p, v) SIM_STORE(p, v, SIM_RELEASE, #p)
#define store_seq_cst(p, v) SIM_STORE(p, v, SIM_SEQ_CST, #p)

#define cas_relaxed(p, seen, v) SIM_CAS(p, seen, v, SIM_RELAXED, #p)
#define cas_acquire(p, seen, v) SIM_CAS(p, seen, v, SIM_ACQUIRE, #p)
#define cas_release(p, seen, v) SIM_CAS(p, seen, v, SIM_RELEASE, #p)
#define cas_acq_rel(p, seen, v) SIM_CAS(p, seen, v, SIM_ACQ_REL, #p)
#define cas_seq_cst(p, seen, v) SIM_CAS(p, seen, v, SIM_SEQ_CST, #p)

#define add_relaxed(p, v) SIM_RMW(p, v, SIM_RELAXED, SIM_OP_ADD, atomic_fetch_add_explicit, #p)
#define add_acq_rel(p, v) SIM_RMW(p, v, SIM_ACQ_REL, SIM_OP_ADD, atomic_fetch_add_explicit, #p)
#define add_seq_cst(p, v) SIM_RMW(p, v, SIM_SEQ_CST, SIM_OP_ADD, atomic_fetch_add_explicit, #p)
#define sub_relaxed(p, v) SIM_RMW(p, v, SIM_RELAXED, SIM_OP_SUB, atomic_fetch_sub_explicit, #p)
#define sub_acq_rel(p, v) SIM_RMW(p, v, SIM_ACQ_REL, SIM_OP_SUB, atomic_fetch_sub_explicit, #p)
#define sub_seq_cst(p, v) SIM_RMW(p, v, SIM_SEQ_CST, SIM_OP_SUB, atomic_fetch_sub_explicit, #p)
#define or_seq_cst(p, v) SIM_RMW(p, v, SIM_SEQ_CST, SIM_OP_OR, atomic_fetch_or_explicit, #p)
#define and_seq_cst(p, v) SIM_RMW(p, v, SIM_SEQ_CST, SIM_OP_AND, atomic_fetch_and_explicit, #p)
#define exchange_acquire(p, v) SIM_RMW(p, v, SIM_ACQUIRE, SIM_OP_EXCHANGE, atomic_exchange_explicit, #p)
#define exchange_acq_rel(p, v) SIM_RMW(p, v, SIM_ACQ_REL, SIM_OP_EXCHANGE, atomic_exchange_explicit, #p)

#endif
