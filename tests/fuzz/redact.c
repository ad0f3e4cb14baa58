/* The secret is not in what is told, nor its beginning at the end of a text that was cut. The first byte is the secret's length. */
#include "fuzz/text.h"

#include "pg/failure.h"

/* Its stars are what stands for it, and a line has no control characters. */
static bool is_fair(const char *secret)
{
        for (const char *c = secret; *c; c++)
                if ((unsigned char)*c < ' ' || *c == '*')
                        return false;
        return secret[0] != '\0';
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct lido_error error;
        char *secret, *text;
        size_t length;

        if (size < 2 || (length = data[0] % 16) >= size)
                return 0;
        secret = text_of(data + 1, length);
        text = text_of(data + 1 + length, size - 1 - length);
        failure_set(&error, LIDO_EFACTORY, LIDO_FAILURE_TRANSIENT, text);
        failure_redact(&error, secret);
        must(memchr(error.text, '\0', sizeof error.text) != NULL);
        must(!is_fair(secret) || strstr(error.text, secret) == NULL);
        failure_from_text(&error, text);
        failure_redact(&error, secret);
        must(!is_fair(secret) || strstr(error.text, secret) == NULL);
        free(secret);
        free(text);
        return 0;
}
