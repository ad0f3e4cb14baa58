#!/bin/bash
# symbols.sh - what the shared libraries show to the linker: names of their own only; and what they take from the C
# library: nothing that prints, ends the process or changes what belongs to the whole process.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/support/lib.sh
. "$here/support/lib.sh"

build=${LIDO_BUILD:?run me by make check}
nm=${NM:-nm}

if [ ! -f "$build/lib/.libs/liblido.so" ]; then
    echo 'no shared library was built'
    exit 77
fi

# defines_only LIBRARY PREFIX: an absolute symbol (A) is the name of a version, not a thing to link.
defines_only()
{
    local others

    others=$($nm -D --defined-only "$1" | awk -v prefix="$2" '$2 != "A" && index($3, prefix) != 1 { print $3 }')
    [ -z "$others" ] || echo "$1 shows: $others"
    [ -z "$others" ]
}

shows()
{
    $nm -D --defined-only "$1" | grep -qw "$2"
}

denied='printf|vprintf|puts|putchar|exit|_exit|_Exit|quick_exit|atexit|at_quick_exit|setlocale|setenv|putenv|unsetenv'
denied="$denied|clearenv|signal|sigaction|system|chdir|umask|srand|rand|strtok|__printf_chk|__vprintf_chk"

# takes_nothing_denied LIBRARY
takes_nothing_denied()
{
    local taken

    taken=$($nm -D --undefined-only "$1" | awk '{ sub(/@.*/, "", $2); print $2 }' | grep -xE "$denied" || true)
    [ -z "$taken" ] || echo "$1 takes: $taken"
    [ -z "$taken" ]
}

check 'liblido exports its interface' shows "$build/lib/.libs/liblido.so" lido_version
check 'liblido exports lido_ names only' defines_only "$build/lib/.libs/liblido.so" lido_
check 'liblido leaves the process alone' takes_nothing_denied "$build/lib/.libs/liblido.so"
if [ -f "$build/lib/.libs/liblido-pg.so" ]; then
    check 'liblido-pg exports lido_pg_ names only' defines_only "$build/lib/.libs/liblido-pg.so" lido_pg_
    check 'liblido-pg leaves the process alone' takes_nothing_denied "$build/lib/.libs/liblido-pg.so"
fi

# The checks above can fail: a library that shows and takes what it should not.
make_scratch
cat >"$scratch/bad.c" <<'END'
#include <stdlib.h>
void slots_leak(void);
void slots_leak(void) { exit(1); }
END
# shellcheck disable=SC2086 # CC may hold options
$CC -shared -fPIC -o "$scratch/bad.so" "$scratch/bad.c"
refuse 'a foreign name is noticed' defines_only "$scratch/bad.so" lido_ >/dev/null
refuse 'exit() is noticed' takes_nothing_denied "$scratch/bad.so" >/dev/null
checks_done
