/* sim/program.h - what the threads of a run do, as data: drawn from a seed, printed as text, made smaller step by step.
 */
#ifndef LIDO_SIM_PROGRAM_H
#define LIDO_SIM_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROGRAM_THREADS 6
#define PROGRAM_OPS 8
#define PROGRAM_OPENS 8
#define PROGRAM_POOLS 2

/* XX(name, what its argument is) */
#define PROGRAM_OP_MAP(XX)                                                                                     \
        XX(NOTHING, "")                                                                                        \
        XX(ACQUIRE, "us to wait at most, 0: for ever")                                                         \
        XX(TRY, "")                                                                                            \
        XX(RELEASE, "")                                                                                        \
        XX(DISCARD, "")                                                                                        \
        XX(DETACH, "")                                                                                         \
        XX(HOLD, "us to go by")                                                                                \
        XX(STALE, "release a lease that has ended")                                                            \
        XX(SHARE, "let others release the lease too")                                                          \
        XX(STEAL, "release a lease that another shares")                                                       \
        XX(REQUEST, "us to wait at most, 0: for ever; on the loop")                                            \
        XX(CANCEL, "the latest request")                                                                       \
        XX(AWAIT, "the outcome of all requests")                                                               \
        XX(RESIZE, "new max")                                                                                  \
        XX(PAUSE, "0: hold, 1: reject")                                                                                          \
        XX(RESUME, "")                                                                                         \
        XX(TRIM, "objects to keep")                                                                            \
        XX(CLEAR, "")                                                                                          \
        XX(ROTATE, "us to take for it")                                                                        \
        XX(ROTATE_SOME, "us to take for it; every other object")                                               \
        XX(DOUBT, "every object")                                                                              \
        XX(REVOKE, "")                                                                                         \
        XX(BROKEN, "an object is found dead")                                                                  \
        XX(SUSPECT, "an object is doubted")                                                                    \
        XX(OTHER, "number of the pool to borrow from now on")                                                  \
        XX(CLASS, "to wait in from now on")                                                                    \
        XX(TAG, "1: borrow under the quota from now on, 0: under none")                                        \
        XX(MANY, "us to wait at most; two leases at once")                                                     \
        XX(QUOTA, "new limit of the quota")                                                                    \
        XX(BUDGET, "new total of the budget")                                                                  \
        XX(CLOSE, "us until holders are interrupted")

enum program_op {
#define XX(name, argument) OP_##name,
        PROGRAM_OP_MAP(XX)
#undef XX
        PROGRAM_OP_COUNT
};

struct step {
        uint8_t op;
        uint32_t argument;
};

/* How the factory answers an open: in turn, the last for ever. */
struct open_script {
        uint32_t us;    /* 0: inside the hook */
        int8_t failure; /* -1: it succeeds; enum lido_failure */
};

struct program {
        uint32_t max, min, min_idle, filled, open_limit;
        int64_t overtake_us;
        uint32_t order, queue_limit, max_uses;
        uint32_t idle_ms, lifetime_ms, rest_ms, check_after_ms, check_interval_ms; /* 0: never */
        uint32_t close_us, check_us, reset_us; /* how long the hook takes */
        uint32_t pools;     /* alike, of one service */
        uint32_t budget;    /* that they share; 0: none */
        uint32_t quota;     /* of each, for those who borrow under it; 0: none */
        uint32_t ageing_ms; /* of classes */
        uint8_t has_blocking; /* hooks run on helpers, and take their time there */
        uint8_t has_peek, has_verdict, has_check, has_reset, has_interrupt;
        uint8_t bad_peek, bad_check; /* every n-th answer is bad; 0: none */
        uint32_t opens;
        struct open_script open[PROGRAM_OPENS];
        uint32_t roam_s; /* not 0: the threads follow no steps, but come and go at random for so many seconds */
        uint32_t threads;
        struct step step[PROGRAM_THREADS][PROGRAM_OPS];
};

/* A program of 2 to 5 threads, out of a seed. */
void program_draw(struct program *program, uint64_t seed);

/* 4 threads that acquire and release twice, on a pool of 2: the measure of speed. */
void program_typical(struct program *program);

/* A day of a small server: 6 threads that come and go, idle timeouts, lifetimes, checks, opens that fail. */
void program_day(struct program *program);

/* Everything plain: no upkeep, opens at once. */
void program_plain(struct program *program, uint32_t max, uint32_t filled);

unsigned program_ops(const struct program *program);
void program_print(const struct program *program);
const char *program_op_name(int op);

/* Candidate number n of what a smaller program could be. Returns: false when there are no more. */
bool program_smaller(const struct program *program, unsigned n, struct program *ret_smaller);

#endif
