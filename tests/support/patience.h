/* patience.h - wait for a condition that another thread will bring about, and for nothing else.
 *
 * ck_eventually looks again and again until the condition holds; a test fails when it still does not after PATIENCE_MS,
 * which is far longer than anything takes on a loaded machine and under a sanitizer.
 */
#ifndef LIDO_TESTS_PATIENCE_H
#define LIDO_TESTS_PATIENCE_H

#include <check.h>
#include <stdint.h>

#define PATIENCE_MS 60000

/* Is this a build whose memory and time are not those of the library? */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define IS_SANITIZED 1
#endif
#endif
#ifndef IS_SANITIZED
#define IS_SANITIZED 0
#endif

/* As ck_assert, for places that threads pass often: Check's own notes down every place that is passed, under a lock of its own,
 * which would take the threads apart, and stay locked in a forked child. */
#define must(condition)                                                                                        \
        do {                                                                                                   \
                if (!(condition))                                                                              \
                        ck_abort_msg("not so: %s", #condition);                                                \
        } while (0)

/* The real time, whatever support/clock.h makes the library believe. */
uint64_t real_now_ns(void);

/* Give way for a moment. Only for loops that look at a condition. */
void give_way(void);

#define ck_eventually(condition)                                                                               \
        do {                                                                                                   \
                uint64_t until_ns_ = real_now_ns() + PATIENCE_MS * UINT64_C(1000000);                          \
                while (!(condition)) {                                                                         \
                        if (real_now_ns() > until_ns_)                                                         \
                                ck_abort_msg("never came true: %s", #condition);                               \
                        give_way();                                                                            \
                }                                                                                              \
        } while (0)

#endif
