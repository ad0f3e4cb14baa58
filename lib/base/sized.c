#include "base/sized.h"

#include <string.h>

#include "lido/error.h"

/* No version of any struct is as long as this; a size beyond it is memory that was never set. */
#define SIZE_LIMIT 65536

int sized_take(void *ours, size_t size, const void *theirs)
{
        const unsigned char *bytes = theirs;
        size_t their_size = 0;

        memset(ours, 0, size);
        if (theirs) {
                memcpy(&their_size, theirs, sizeof their_size);
                if (their_size < sizeof their_size || their_size > SIZE_LIMIT)
                        return LIDO_EINVAL;
                for (size_t i = size; i < their_size; i++)
                        if (bytes[i] != 0)
                                return LIDO_E2NEW;
                memcpy(ours, theirs, their_size < size ? their_size : size);
        }
        memcpy(ours, &size, sizeof size);
        return LIDO_OK;
}

size_t sized_room(size_t theirs, size_t size)
{
        return theirs < size ? theirs : size;
}
