#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>

void assert_failed(const char *condition, const char *file, int line)
{
        fprintf(stderr, "lido: broken invariant at %s:%d: %s\n", file, line, condition);
        abort();
}
