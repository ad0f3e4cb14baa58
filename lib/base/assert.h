/* base/assert.h - our own broken invariants crash loudly, also in release builds; what the world can cause never does. */
#ifndef LIDO_BASE_ASSERT_H
#define LIDO_BASE_ASSERT_H

#define lido_assert(condition)                                                                                 \
        do {                                                                                                   \
                if (__builtin_expect(!(condition), 0))                                                         \
                        assert_failed(#condition, __FILE__, __LINE__);                                         \
        } while (0)

/* Checks that are too dear for the hot paths of a release build. */
#ifdef LIDO_DEBUG
#define debug_assert(condition) lido_assert(condition)
#else
#define debug_assert(condition) ((void)0)
#endif

void assert_failed(const char *condition, const char *file, int line) __attribute__((noreturn, cold));

#endif
