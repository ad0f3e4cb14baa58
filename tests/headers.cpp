// headers.cpp - what is installed is usable from C++: every header compiles there, and its functions link.
// The headers are named on the command line (-include), so that a new one is in without a line here.
#include <cstdio>

#include "lido/version.h"

int main()
{
        std::printf("%s\n", lido_version());
        return lido_version_number() == LIDO_VERSION_NUMBER ? 0 : 1;
}
