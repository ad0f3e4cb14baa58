/* lido/error.h - every code that a lido function returns, and what a factory says when it fails.
 *
 * A function returns 0 (LIDO_OK) or one of the negative codes below. They come in four families, kept apart:
 * an expected outcome (time passed, the pool is closed), the caller's mistake, a resource that ran out, and
 * a factory that failed. There is no thread-local "last error": what belongs to a failure is handed over
 * with it, in a struct lido_error or a struct lido_blame on the caller's stack.
 */
#ifndef LIDO_ERROR_H
#define LIDO_ERROR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef LIDO_API
#if defined(__GNUC__)
#define LIDO_API __attribute__((visibility("default")))
#else
#define LIDO_API
#endif
#endif

/* XX(number, name, sentence). Append only; a number is never used again. */
#define LIDO_ERROR_MAP(XX)                                                                                     \
        /* expected outcomes */                                                                                \
        XX(1, ETIMEDOUT, "the deadline passed before an object was free")                                      \
        XX(2, EEXHAUSTED, "no object is idle, and the caller did not want to wait")                            \
        XX(3, ECANCELED, "the request was cancelled")                                                          \
        XX(4, ECLOSED, "the pool is closed or closing")                                                        \
        XX(5, EPAUSED, "the pool is paused and refuses new borrowers")                                         \
        XX(6, EQUEUEFULL, "as many borrowers wait already as the pool allows")                                 \
        XX(7, ESHED, "the request was shed because the queue has stood too long")                              \
        XX(8, EBUSY, "somebody still uses it")                                                                 \
        XX(9, EQUOTA, "the tag has as many objects as its quota allows")                                       \
        /* the caller's mistake */                                                                             \
        XX(20, EINVAL, "an argument is not valid")                                                             \
        XX(21, ESTALE, "the lease ended before: its object may belong to somebody else now")                   \
        XX(22, EDOUBLE, "the lease was released twice")                                                        \
        XX(23, EFOREIGN, "the lease was never one of this object")                                             \
        XX(24, EREVOKED, "the lease was taken back; the object is closed now that it has returned")            \
        XX(25, EDEADLK, "waiting here could never end")                                                        \
        XX(26, EFORKED, "the pool belongs to the parent process")                                              \
        XX(27, E2NEW, "the caller was built against a newer lido and uses an option that this one lacks")      \
        XX(28, ENOTSUP, "the factory cannot do this")                                                          \
        /* a resource ran out */                                                                               \
        XX(40, ENOMEM, "out of memory")                                                                        \
        XX(41, ETHREAD, "a thread could not be started")                                                       \
        XX(42, ELOOP, "the event loop refused a handle")                                                       \
        /* the factory failed */                                                                               \
        XX(60, EFACTORY, "the factory failed")                                                                 \
        XX(61, EUNAVAIL, "objects cannot be opened at present")                                                \
        XX(62, EPERMANENT, "objects cannot be opened, and trying again will not help")                         \
        XX(63, EDEADLINE, "the factory did not finish in time")                                                \
        XX(64, EUNKNOWN, "no answer came: whether it was done is not known")

enum {
        LIDO_OK = 0,
#define XX(number, name, sentence) LIDO_##name = -(number),
        LIDO_ERROR_MAP(XX)
#undef XX
};

/* What kind of failure a factory reports; it decides how the pool goes on. Passed as int, append only. */
enum lido_failure {
        LIDO_FAILURE_TRANSIENT = 0, /* nothing known: back off and try again */
        LIDO_FAILURE_PERMANENT = 1, /* wrong password, no such database: fail the waiters at once, back off long */
        LIDO_FAILURE_CAPACITY = 2,  /* the server takes no more: use fewer, and keep what is open */
        LIDO_FAILURE_NOT_READY = 3, /* the server is starting: try again soon */
        LIDO_FAILURE_NETWORK = 4,   /* refused, unreachable, timed out */
};

/* A failure with its detail. The text is one line without secrets, always ended by a NUL. */
struct lido_error {
        int code;          /* LIDO_E... */
        int failure;       /* enum lido_failure, when a factory failed */
        int native;        /* errno, a libuv code, or 0 */
        char sqlstate[6];  /* five characters and a NUL, or "" */
        char text[250];
};

/* The name of a code, "LIDO_ETIMEDOUT"; "LIDO_E?" for a number that is none.
 * Threads: any, also in a signal handler. Blocks: no. Owns: nobody, the text is constant. */
LIDO_API const char *lido_err_name(int code);

/* The sentence of a code. Threads: any, also in a signal handler. Blocks: no. Owns: nobody, the text is constant. */
LIDO_API const char *lido_strerror(int code);

#ifdef __cplusplus
}
#endif
#endif
