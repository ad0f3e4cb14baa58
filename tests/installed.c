/* installed.c - the smallest program of an embedder, built against an installed lido by tests/installcheck.sh. */
#include <stdio.h>
#include <string.h>

#include <lido/version.h>

int main(void)
{
        printf("%s\n", lido_version());
        return strcmp(lido_version(), LIDO_VERSION_STRING) == 0 ? 0 : 1;
}
