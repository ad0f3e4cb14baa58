/* What is accepted, printed and parsed again is the same; what is refused changes nothing. */
#include "fuzz/text.h"

#include "lido/pool.h"

static void print(const struct lido_pool_options *options, char *text, size_t size)
{
        size_t length = lido_options_print(options, text, size);

        must(length < size && strlen(text) == length);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct lido_pool_options options = LIDO_POOL_OPTIONS_INIT, again = LIDO_POOL_OPTIONS_INIT;
        char before[4096], first[4096], second[4096], *text = text_of(data, size);
        struct lido_error error = { 0 };
        int rc;

        print(&options, before, sizeof before);
        rc = lido_options_parse(&options, text, &error);
        print(&options, first, sizeof first);
        if (rc == LIDO_OK) {
                must(lido_options_parse(&again, first, &error) == LIDO_OK);
                print(&again, second, sizeof second);
                must(strcmp(first, second) == 0);
        } else {
                must(rc == LIDO_EINVAL && error.text[0] != '\0' && strcmp(first, before) == 0);
        }
        free(text);
        return 0;
}
