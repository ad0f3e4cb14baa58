/* base/atomic.h - the only door to shared words: every operation names its memory order.
 *
 * A seq_cst order is used only where a law of lib/pool needs it; the site then says what it pairs with.
 * With LIDO_SIM the same names are switching points of the model scheduler (tests/sim/atomic.h).
 *
 *      static _Atomic uint64_t word;
 *      uint64_t seen = load_acquire(&word);
 *      if (cas_acquire(&word, &seen, seen | 1)) ...
 */
#ifndef LIDO_BASE_ATOMIC_H
#define LIDO_BASE_ATOMIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef LIDO_SIM
#include "sim/atomic.h"
#else

#define load_relaxed(p) atomic_load_explicit(p, memory_order_relaxed)
#define load_acquire(p) atomic_load_explicit(p, memory_order_acquire)
#define load_seq_cst(p) atomic_load_explicit(p, memory_order_seq_cst)
#define store_relaxed(p, v) atomic_store_explicit(p, v, memory_order_relaxed)
#define store_release(p, v) atomic_store_explicit(p, v, memory_order_release)
#define store_seq_cst(p, v) atomic_store_explicit(p, v, memory_order_seq_cst)

/* On failure *seen is what the word held; the failing load is relaxed. */
#define cas_relaxed(p, seen, v)                                                                                \
        atomic_compare_exchange_strong_explicit(p, seen, v, memory_order_relaxed, memory_order_relaxed)
#define cas_acquire(p, seen, v)                                                                                \
        atomic_compare_exchange_strong_explicit(p, seen, v, memory_order_acquire, memory_order_relaxed)
#define cas_release(p, seen, v)                                                                                \
        atomic_compare_exchange_strong_explicit(p, seen, v, memory_order_release, memory_order_relaxed)
#define cas_acq_rel(p, seen, v)                                                                                \
        atomic_compare_exchange_strong_explicit(p, seen, v, memory_order_acq_rel, memory_order_relaxed)
#define cas_seq_cst(p, seen, v)                                                                                \
        atomic_compare_exchange_strong_explicit(p, seen, v, memory_order_seq_cst, memory_order_relaxed)

#define add_relaxed(p, v) atomic_fetch_add_explicit(p, v, memory_order_relaxed)
#define add_acq_rel(p, v) atomic_fetch_add_explicit(p, v, memory_order_acq_rel)
#define add_seq_cst(p, v) atomic_fetch_add_explicit(p, v, memory_order_seq_cst)
#define sub_relaxed(p, v) atomic_fetch_sub_explicit(p, v, memory_order_relaxed)
#define sub_acq_rel(p, v) atomic_fetch_sub_explicit(p, v, memory_order_acq_rel)
#define sub_seq_cst(p, v) atomic_fetch_sub_explicit(p, v, memory_order_seq_cst)
#define or_seq_cst(p, v) atomic_fetch_or_explicit(p, v, memory_order_seq_cst)
#define and_seq_cst(p, v) atomic_fetch_and_explicit(p, v, memory_order_seq_cst)
#define exchange_acquire(p, v) atomic_exchange_explicit(p, v, memory_order_acquire)
#define exchange_acq_rel(p, v) atomic_exchange_explicit(p, v, memory_order_acq_rel)

#endif

/* Pause the core for a moment inside a spin. */
static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ __volatile__("yield");
#endif
}

#endif
