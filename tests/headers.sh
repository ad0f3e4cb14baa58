#!/bin/bash
# headers.sh - every public header compiles alone, as C99 and C11 and as C++11, without a warning; a C++ program that
# includes them all links against the library.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/support/lib.sh
. "$here/support/lib.sh"

build=${LIDO_BUILD:?run me by make check}
make_scratch

# Headers of others count as system headers: their warnings are not ours.
flags=(-Wall -Wextra -Werror -pedantic -Wconversion "-I$lido_source/include" "-I$build/include")
system=()
for flag in ${LIDO_TEST_CFLAGS:-}; do
    case $flag in
    -I/*) system+=(-isystem "${flag#-I}") ;;
    -fsanitize=*) sanitize=$flag ;;
    esac
done

# compiles STANDARD HEADER
compiles()
{
    case $1 in
    c++*)
        printf '#include "%s"\nint main() { return 0; }\n' "$2" >"$scratch/alone.cpp"
        $CXX -std="$1" "${flags[@]}" "${system[@]}" -fsyntax-only "$scratch/alone.cpp"
        ;;
    *)
        printf '#include "%s"\nint main(void) { return 0; }\n' "$2" >"$scratch/alone.c"
        $CC -std="$1" "${flags[@]}" "${system[@]}" -fsyntax-only "$scratch/alone.c"
        ;;
    esac
}

# The generated header lies in the build folder, and in the source folder too when they are the same.
headers=$(
    for tree in "$lido_source/include" "$build/include"; do
        (cd "$tree" && find . -name '*.h')
    done | sed 's,^\./,,' | sort -u
)

standards=(c99 c11)
if [ -n "${CXX:-}" ]; then
    standards+=(c++11 c++20)
fi
for header in $headers; do
    if [[ "$header" = lido/pg*.h ]] && [ ! -f "$build/lib/liblido-pg.la" ]; then
        continue
    fi
    for standard in "${standards[@]}"; do
        check "$header stands alone as $standard" compiles "$standard" "$header"
    done
done

printf 'int f(void) { int unused; return 0; }\n' >"$scratch/warns.h"
refuse 'a header that warns is refused' compiles c11 "$scratch/warns.h" 2>/dev/null

# links_in_cxx: all the headers in one C++ program, linked against the library as it was built.
links_in_cxx()
{
    local includes=() header

    for header in $headers; do
        [[ "$header" = lido/pg*.h ]] || includes+=(-include "$header")
    done
    # shellcheck disable=SC2086 # CXX may hold options
    $CXX -std=c++11 "${flags[@]}" "${includes[@]}" "$here/headers.cpp" -o "$scratch/headers" ${sanitize:-} \
        "-L$build/lib/.libs" -llido "-Wl,-rpath,$build/lib/.libs" && "$scratch/headers" >/dev/null
}

if [ -n "${CXX:-}" ] && [ -f "$build/lib/.libs/liblido.so" ]; then
    check 'a C++ program uses the library' links_in_cxx
fi
checks_done
