#!/bin/bash
# readme.sh - what README.md shows is what there is: its programs are the files under examples, its links lead somewhere.
set -eu
source=${LIDO_SOURCE:-$(cd "$(dirname "$0")/.." && pwd)}
cd "$source"
checks=0
failures=0

check()
{
    checks=$((checks + 1))
    if ! eval "$2"; then
        echo "README.md: $1"
        failures=$((failures + 1))
    fi
}

# The n-th block of C.
block()
{
    awk -v n="$1" '/^```c$/ { i++; on = i == n; next } /^```$/ { on = 0 } on' README.md
}

check "its first program is not examples/threads.c" 'cmp -s <(block 1) examples/threads.c'
check "its second program is not examples/loop.c" 'cmp -s <(block 2) examples/loop.c'
while read -r link; do
    check "$link does not exist" '[ -e "$link" ]'
done < <(grep -oE '\]\([^)#:]+\)' README.md | tr -d '()]' | sort -u)

[ "$failures" -eq 0 ] && result=100 || result=$(((checks - failures) * 100 / checks))
echo "$result%: Checks: $checks, Failures: $failures, Errors: 0"
[ "$failures" -eq 0 ]
