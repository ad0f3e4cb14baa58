#!/bin/bash
# includes.sh - who may include whom: base <- pool <- keeper, watch <- pg, buffer, worker, and the factories go through
# the public headers. Each rule is also shown to catch what it forbids, on a copy of the tree with a planted line.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/support/lib.sh
. "$here/support/lib.sh"

# What a folder of lib/ may include by "folder/x.h". Public headers ("lido.h", "lido/x.h") are open to all. base has a
# second platform below it, the model scheduler of tests/sim.
layers_of()
{
    case $1 in
    base) echo base sim ;;
    pool) echo base pool ;;
    keeper) echo base pool keeper ;;
    keyed) echo base pool keeper keyed ;;
    watch) echo base pool watch ;;
    pg | buffer | worker) echo "base $1" ;;
    esac
}

# Who may see <uv.h> and <libpq-fe.h>.
may_see()
{
    case $1:$2 in
    uv.h:lib/keeper/* | uv.h:lib/watch/admin* | uv.h:lib/pg/* | uv.h:lib/buffer/* | uv.h:lib/worker/*) ;;
    libpq-fe.h:lib/pg/* | libpq-fe.h:include/lido/pg.h) ;;
    *) return 1 ;;
    esac
}

# judge FILE INCLUDE: prints what is wrong with one include line, given as <x.h> or "x.h".
judge()
{
    local file=$1 name=${2:1:-1} layer=${1#lib/}

    layer=${layer%%/*}
    case $name in
    uv.h | uv/* | libpq-fe.h | libpq/* | libpq-*)
        may_see "${name/libpq*/libpq-fe.h}" "$file" || echo "$file: may not see <$name>"
        return 0
        ;;
    esac
    case $2 in
    '<'*) return 0 ;;
    esac
    case $name in
    ../* | */../*) echo "$file: \"$name\" is not named from the top" ;;
    lido.h | lido/*) ;;
    config.h) echo "$file: config.h comes by itself, and never into a header that is installed" ;;
    */*)
        case $file:" $(layers_of "$layer") " in
        lib/*:*" ${name%%/*} "*) ;;
        *) echo "$file: may not include \"$name\"" ;;
        esac
        ;;
    *) echo "$file: \"$name\" is not named from the top" ;;
    esac
}

# Who may take memory from the C library itself: the allocator of last resort, and a source of buffers that is named after it.
allocators()
{
    grep -rnE '(^|[^_.>[:alnum:]])(malloc|calloc|realloc|reallocarray|free|strn?dup|posix_memalign|memalign|aligned_alloc|v?asprintf)\(' \
        lib --include='*.[ch]' | grep -vE '^(lib/base/memory\.c|lib/buffer/os\.c):|^[^:]*:[0-9]*: *(/?\*|//)' |
        sed -E 's/^([^:]*):.*/\1: allocates past base\/mem.h/' || true
}

# judge_tree TREE: prints every violation in TREE's include/ and lib/; succeeds when there is none.
judge_tree()
{
    local file name own wrong

    wrong=$(
        cd "$1"
        grep -rEo '^[[:space:]]*#[[:space:]]*include[[:space:]]+["<][^">]+[">]' lib include --include='*.[ch]' \
            --include='*.in' | sed -E 's/:[[:space:]]*#[[:space:]]*include[[:space:]]+/ /' |
            while read -r file name; do
                judge "$file" "$name"
            done
        # A source includes its own header first, which proves that the header stands alone.
        find lib -name '*.c' | while read -r file; do
            own=${file#lib/} && own=${own%.c}.h
            if [ -f "lib/$own" ] && [ "$(grep -m 1 -E '^#include' "$file")" != "#include \"$own\"" ]; then
                echo "$file: its own header \"$own\" is not its first include"
            fi
        done
        allocators
    )
    [ -z "$wrong" ] || printf '%s\n' "$wrong"
    [ -z "$wrong" ]
}

# caught FILE LINE: whether the tree with LINE at the top of FILE is refused, and for that file.
caught()
{
    local copy=$scratch/planted said

    rm -rf "$copy"
    mkdir -p "$copy/lib" "$copy/include/lido" "$(dirname "$copy/$1")"
    printf '%s\n' "$2" >"$copy/$1"
    said=$(judge_tree "$copy") && return 1
    case $said in
    "$1: "*) ;;
    *) return 1 ;;
    esac
}

# clean FILE LINE: whether such a tree is accepted.
clean()
{
    local copy=$scratch/planted

    rm -rf "$copy"
    mkdir -p "$copy/lib" "$copy/include/lido" "$(dirname "$copy/$1")"
    printf '%s\n' "$2" >"$copy/$1"
    judge_tree "$copy"
}

make_scratch

check 'the tree keeps to its layers' judge_tree "$lido_source"

check 'base may not know the pool' caught lib/base/x.c '#include "pool/slots.h"'
check 'the pool may not know the model scheduler' caught lib/pool/x.c '#include "sim/atomic.h"'
check 'the pool may not know the keeper' caught lib/pool/x.h '#include "keeper/service.h"'
check 'the keeper may not know of keys' caught lib/keeper/x.c '#include "keyed/keyed.h"'
check 'the pool may not know a statistic' caught lib/pool/x.c '#include "watch/stats.h"'
check 'a factory has no private door to the pool' caught lib/pg/x.c '#include "pool/slots.h"'
check 'a factory does not know another' caught lib/buffer/x.c '#include "worker/thread.h"'
check 'an installed header shows nothing of lib' caught include/lido/x.h '#include "base/list.h"'
check 'an installed header does not include config.h' caught include/lido/x.h '#include "config.h"'
check 'the pool does not see libuv' caught lib/pool/x.c '#include <uv.h>'
check 'base does not see libuv' caught lib/base/x.c '  #  include <uv.h>'
check 'an installed header does not need libuv' caught include/lido/x.h '#include <uv.h>'
check 'statistics do not see libuv' caught lib/watch/stats.c '#include <uv.h>'
check 'the keeper does not see libpq' caught lib/keeper/x.c '#include <libpq-fe.h>'
check 'the core header does not need libpq' caught include/lido/pool.h '#include <libpq-fe.h>'
check 'a path does not climb' caught lib/pool/x.c '#include "../base/list.h"'
check 'a header is named with its folder' caught lib/pool/x.c '#include "slots.h"'

check 'memory comes from base/mem.h' caught lib/pool/x.c 'void *f(void) { return malloc(1); }'
check 'memory goes back to base/mem.h' caught lib/pg/x.c '        free(memory);'
check 'a hook that is called free is no matter' clean lib/pool/x.c '        source->free(memory);'
check 'a comment may speak of malloc' clean lib/pool/x.c ' * malloc(3) says'

mkdir -p "$scratch/own/lib/pool" "$scratch/own/include"
touch "$scratch/own/lib/pool/x.h"
printf '%s\n' '#include <stdio.h>' '#include "pool/x.h"' >"$scratch/own/lib/pool/x.c"
refuse 'a source includes its own header first' judge_tree "$scratch/own" >/dev/null

check 'what is allowed stays allowed: the keeper and libuv' clean lib/keeper/x.c '#include <uv.h>'
check 'what is allowed stays allowed: pg and libpq' clean lib/pg/x.c '#include <libpq-fe.h>'
check 'what is allowed stays allowed: the keeper and the pool' clean lib/keeper/x.c '#include "pool/slots.h"'
check 'what is allowed stays allowed: base in a factory' clean lib/worker/x.c '#include "base/list.h"'
checks_done
