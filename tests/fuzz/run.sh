#!/bin/bash
# run.sh SECONDS PROGRAM... - lets each fuzzer run for so long, from its seeds (a line each, escaped as for printf); what it learns
# stays in the build folder.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/support/lib.sh
. "$here/../support/lib.sh"

seconds=$1
shift
failed=()
for program; do
    name=${program##*/}
    mkdir -p "$program.corpus"
    number=0
    while IFS= read -r seed; do
        number=$((number + 1))
        printf '%b' "$seed" >"$program.corpus/seed-$number"
    done <"$here/seeds/$name"
    say "$name for $seconds s"
    "./$program" -max_total_time="$seconds" -timeout=60 -print_final_stats=1 -verbosity=0 -artifact_prefix="$program-" \
        "$program.corpus" 2>"$program.log" || failed+=("$name")
    grep -E 'number_of_executed_units|SUMMARY|Test unit written' "$program.log" || true
done
if [ ${#failed[@]} -gt 0 ]; then
    for name in "${failed[@]}"; do
        tail -n 40 "tests/fuzz/$name.log"
    done
    die "failed: ${failed[*]}"
fi
