#!/usr/bin/env bash
# Counts the instructions of the hot paths under callgrind and compares them with budget.tsv; part of "make check".
# A count does not depend on how busy or how fast the machine is, so it can be checked at every commit.
#
#   budget.sh [PROGRAM]         default: tests/bench/hot in the build folder
#
# Exit: 0 within budget; 1 over it; 77 where it cannot be told: no valgrind, a build with sanitizers or without -O.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
program=${1:-${LIDO_BUILD:-.}/tests/bench/hot}
walks=10000

skip() {
        echo "SKIPPED, the instructions of the hot paths are NOT checked: $1"
        exit 77
}

[[ -x $program ]] || skip "$program is not built"
[[ ${LIDO_TEST_CFLAGS:-} != *-fsanitize* ]] || skip 'the build has a sanitizer in it'
command -v valgrind >/dev/null || skip 'valgrind is not installed (Debian: valgrind)'
paths=$("$program") && status=0 || status=$?
((status == 77)) && skip "$paths"
((status == 0)) || { echo "$program fails: $paths"; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Copies without debugging information, which a valgrind older than the compiler may fail to read.
strip_into() { strip --strip-debug -o "$folder/${1##*/}" "$1" 2>/dev/null || cp "$1" "$folder/"; }
strip_into "$program"
ldd "$program" | awk '/liblido/ { print $1, $3 }' | while read -r name library; do
        strip_into "$library"
        [[ -e $folder/$name ]] || ln -s "${library##*/}" "$folder/$name"
done

# Instructions of one walk, with two digits behind the point.
count() {
        LD_LIBRARY_PATH=$folder valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect="hot_$1" \
                "$folder/${program##*/}" "$1" "$walks" >"$folder/out" 2>&1 || { cat "$folder/out" >&2; return 1; }
        awk -v walks="$walks" '/Collected/ { printf "%.2f", $NF / walks; found = 1 } END { exit !found }' "$folder/out"
}

over=0 checked=0
while IFS=$'\t' read -r path budget margin goal; do
        [[ -z $path || $path == \#* ]] && continue
        grep -qx "$path" <<<"$paths" || { echo "budget.tsv names a path that the program lacks: $path"; exit 1; }
        counted=$(count "$path") || { echo "callgrind fails on $path"; exit 1; }
        limit=$(awk "BEGIN { printf \"%.1f\", $budget * (1 + $margin / 100) }")
        verdict=ok
        if awk "BEGIN { exit !($counted > $limit) }"; then
                verdict=OVER over=$((over + 1))
        fi
        checked=$((checked + 1))
        printf '%-22s %8s instructions, budget %s + %s %% = %s: %s (aim %s)\n' \
                "$path" "$counted" "$budget" "$margin" "$limit" "$verdict" "$goal"
done <"$here/budget.tsv"

((checked > 0)) || { echo 'budget.tsv is empty: nothing was checked'; exit 1; }
if ((over > 0)); then
        cat <<END
$over hot path(s) over budget. To see where the instructions go:
  valgrind --tool=callgrind --callgrind-out-file=callgrind.out --toggle-collect=hot_PATH --dump-instr=yes $program PATH $walks
  callgrind_annotate callgrind.out
A budget in tests/bench/budget.tsv is raised only in a commit that says what the instructions buy.
END
        exit 1
fi
