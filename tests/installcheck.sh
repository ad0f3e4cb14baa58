#!/bin/bash
# installcheck.sh PREFIX LIBDIR PKGCONFIGDIR SOURCE - builds and runs programs against what "make install" put in place,
# found through pkg-config as an embedder finds it: shared, static, and from C++. DESTDIR is obeyed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/support/lib.sh
. "$here/support/lib.sh"

prefix=$1 libdir=$2 pkgconfigdir=$3
root=${DESTDIR:-}
make_scratch

export PKG_CONFIG_PATH=$root$pkgconfigdir
pkg=${PKG_CONFIG:-pkg-config}

# flags PACKAGE WHAT...: what pkg-config says, with the folders moved below DESTDIR.
flags()
{
    local package=$1
    shift
    "$pkg" --define-variable=prefix="$root$prefix" --define-variable=libdir="$root$libdir" "$@" "$package"
}

# runs COMPILER PACKAGE WHAT...: builds tests/installed.c and runs it.
runs()
{
    local compiler=$1 package=$2 source=$here/installed.c
    shift 2

    if [ "$compiler" = "${CXX:-}" ]; then
        cp "$source" "$scratch/installed.cpp"
        source=$scratch/installed.cpp
    fi
    # shellcheck disable=SC2046,SC2086 # lists of options
    $compiler ${CFLAGS:-} "$source" -o "$scratch/program" ${LIDO_LDFLAGS:-} $(flags "$package" "$@") &&
        LD_LIBRARY_PATH=$root$libdir "$scratch/program" >/dev/null
}

# static: the archive named instead of -llido, and whatever pkg-config says that it needs.
runs_static()
{
    # shellcheck disable=SC2046,SC2086 # lists of options
    $CC ${CFLAGS:-} "$here/installed.c" -o "$scratch/program" ${LIDO_LDFLAGS:-} $(flags lido --cflags) \
        "$root$libdir/liblido.a" $(flags lido --static --libs-only-l --libs-only-other | sed 's/-llido\>//') &&
        "$scratch/program" >/dev/null
}

check 'a C program builds with pkg-config --cflags --libs lido' runs "$CC" lido --cflags --libs
if [ -n "${CXX:-}" ]; then
    check 'a C++ program does' runs "$CXX" lido --cflags --libs
fi
if [ -f "$root$libdir/liblido.a" ]; then
    check 'a C program links statically' runs_static
fi
if [ -f "$root$pkgconfigdir/lido-pg.pc" ]; then
    check 'a C program builds with pkg-config --cflags --libs lido-pg' runs "$CC" lido-pg --cflags --libs
fi
checks_done
