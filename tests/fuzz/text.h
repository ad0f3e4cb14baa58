/* fuzz/text.h - the input as text, in memory of its very size, so that one byte too far is seen. */
#ifndef LIDO_TESTS_FUZZ_TEXT_H
#define LIDO_TESTS_FUZZ_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Called by libFuzzer. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline void must(int holds)
{
        if (!holds)
                abort();
}

static inline char *text_of(const uint8_t *data, size_t size)
{
        char *text = malloc(size + 1);

        must(text != NULL);
        if (size > 0)
                memcpy(text, data, size);
        text[size] = '\0';
        return text;
}

#endif
