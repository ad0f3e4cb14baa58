/* watch/text.h - text that is written into a caller's buffer and counts what did not fit. */
#ifndef LIDO_WATCH_TEXT_H
#define LIDO_WATCH_TEXT_H

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

struct text {
        char *at;
        size_t size, length; /* length counts what did not fit, too */
};

static inline void text_init(struct text *text, char *at, size_t size)
{
        *text = (struct text){ at, size, 0 };
        if (size > 0)
                at[0] = '\0';
}

static inline __attribute__((format(printf, 2, 3))) void text_add(struct text *text, const char *format, ...)
{
        size_t room = text->length < text->size ? text->size - text->length : 0;
        va_list arguments;
        int length;

        va_start(arguments, format);
        length = vsnprintf(room > 0 ? text->at + text->length : NULL, room, format, arguments);
        va_end(arguments);
        if (length > 0)
                text->length += (size_t)length;
}

#endif
