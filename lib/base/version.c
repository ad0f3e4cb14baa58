#include "lido/version.h"

const char *lido_version(void)
{
        return LIDO_VERSION_STRING;
}

unsigned lido_version_number(void)
{
        return LIDO_VERSION_NUMBER;
}
