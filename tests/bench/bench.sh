#!/usr/bin/env bash
# Runs every pool on every workload, interleaved, and reports medians: "make bench" and "make bench-quick".
#
#   bench.sh [--quick] [--set NAME] [--out FOLDER] [--missing NAME]... [--preload LIBRARY]... PROGRAM...
#
# Each PROGRAM is one rival of the set NAME (pools, the default: pools/load.h). --missing names one that could not be
# built here, so that the report says so. --preload runs the program "malloc" once more with that allocator below it.
# A program without arguments lists its workloads.
# The environment chooses a part or another length: BENCH_REPETITIONS, BENCH_WORKLOADS ("W1 W5"), BENCH_RIVALS ("lido
# textbook"), BENCH_SHORT_MS and BENCH_LONG_MS (the phases of short and of long workloads). README.md tells the rest.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

out=bench-out set=pools repetitions=5 short_ms=150 long_ms=1000 tries=2
missing=() preload=() programs=()
while (($#)); do
        case $1 in
        --quick) repetitions=3 short_ms=40 long_ms=150 tries=1 ;;
        --out) out=$2 && shift ;;
        --set) set=$2 && shift ;;
        --preload) preload+=("$2") && shift ;;
        --missing) missing+=("$2") && shift ;;
        *) programs+=("$1") ;;
        esac
        shift
done
repetitions=${BENCH_REPETITIONS:-$repetitions}
short_ms=${BENCH_SHORT_MS:-$short_ms}
long_ms=${BENCH_LONG_MS:-$long_ms}
limit=0.10 # a run in which other processes had more of the machine than this is repeated, and the quietest counts

# Who runs, and how: the programs, and "malloc" with other allocators below it, as far as BENCH_RIVALS wants them.
wanted=() && declare -A run_as=()
want() {
        [[ -z ${BENCH_RIVALS:-} || " $BENCH_RIVALS " == *" $1 "* ]] || return 0
        wanted+=("$1") && run_as[$1]=$2
}
for program in "${programs[@]}"; do
        want "${program##*/}" "$program"
        [[ ${program##*/} == malloc ]] || continue
        for library in "${preload[@]}"; do
                name=${library#lib} && name=${name%%.so*}
                path=$(ldconfig -p 2>/dev/null | awk -v library="$library" '$1 == library && !n++ { print $NF }')
                if [[ -n $path ]]; then
                        want "$name" "env LD_PRELOAD=$path BENCH_NAME=$name $program"
                else
                        missing+=("$name")
                fi
        done
done
if ((${#wanted[@]} == 0)); then
        echo "bench.sh: no program to run" >&2
        exit 2
fi

mkdir -p "$out"
rm -f "$out"/*.tsv "$out"/*.txt "$out"/*.dat "$out"/*.png
runs=$out/runs.tsv waits=$out/waits.tsv failures=$out/failures.tsv
{
        printf 'repetition\trival\tworkload\tdone\telapsed_ns\tp50_ns\tp99_ns\tp999_ns\tlongest_ns\tleast\tmost\t'
        printf 'cpu_ns\tvoluntary\tinvoluntary\tforeign\tremarks\tmeasures\n'
} >"$runs"
printf 'repetition\trival\tworkload\tquantile\tns\n' >"$waits"
: >"$failures"

"${programs[0]}" >"$out/workloads.tsv"
workloads=() && declare -A ms=()
while IFS=$'\t' read -r name length _; do
        [[ -z ${BENCH_WORKLOADS:-} || " $BENCH_WORKLOADS " == *" $name "* ]] || continue
        workloads+=("$name")
        if [[ $length == long ]]; then ms[$name]=$long_ms; else ms[$name]=$short_ms; fi
done <"$out/workloads.tsv"

# On a terminal, say how far it is.
progress() { [[ ! -t 2 ]] || printf '\r%-40s\r' "$1" >&2; }

# Run one rival once on one workload; disturbed runs are repeated.
measure() {
        local repetition=$1 rival=$2 workload=$3 try text best='' foreign least=9 command
        read -ra command <<<"${run_as[$rival]}"
        for ((try = 0; try < tries; try++)); do
                if ! text=$(timeout 60 "${command[@]}" "$workload" "${ms[$workload]}" 2>&1 </dev/null); then
                        printf '%s\t%s\t%s\t%s\n' "$repetition" "$rival" "$workload" "${text//$'\n'/; }" >>"$failures"
                        return
                fi
                foreign=$(awk -F'\t' '$1 == "run" { print $14 }' <<<"$text")
                if [[ -z $best ]] || awk "BEGIN { exit !(${foreign:-0} < $least) }"; then
                        best=$text least=${foreign:-0}
                fi
                awk "BEGIN { exit !($least <= $limit) }" && break
        done
        sed -n "s/^run\t/$repetition\t/p" <<<"$best" >>"$runs"
        sed -n "s/^wait\t/$repetition\t/p" <<<"$best" >>"$waits"
        sed -n "s/^none\t/none\t/p" <<<"$best" >>"$failures"
}

# The rivals take turns in another order each time, so that none always runs after the same neighbour.
count=${#wanted[@]}
for ((repetition = 1; repetition <= repetitions; repetition++)); do
        for workload in "${workloads[@]}"; do
                progress "repetition $repetition of $repetitions: $workload"
                for ((i = 0; i < count; i++)); do
                        measure "$repetition" "${wanted[(i + repetition) % count]}" "$workload"
                done
        done
done
progress ''

bash "$here/machine.sh" >"$out/machine.txt"
for name in "${missing[@]}"; do
        echo "NOT MEASURED: $name, its library was not found" >>"$out/machine.txt"
done
awk -F'\t' -v set="$set" -v summary="$out/summary.tsv" -v distributions="$out" -f "$here/report.awk" \
        "$out/workloads.tsv" "$here/$set/goals.tsv" "$failures" "$runs" "$waits" >"$out/report.txt"
cat "$out/machine.txt" "$out/report.txt"

if command -v gnuplot >/dev/null; then
        loads=$(printf '%s ' "${workloads[@]}")
        gnuplot -e "out='$out'; loads='${loads% }'" "$here/pictures.gp"
        echo "pictures: $out/throughput.png $out/waits.png $out/fairness.png"
else
        echo 'NO PICTURES: gnuplot is not installed' >&2
fi
echo "figures: $out/runs.tsv $out/summary.tsv $out/waits.tsv"

# A rival that fails is reported; that we fail, or lend a handle twice, is an error.
if awk -F'\t' '$2 == "lido" && $1 != "none" { bad = 1 } END { exit !bad }' "$failures" ||
        awk -F'\t' '$2 == "lido" && $16 ~ /DOUBLE-USE/ { bad = 1 } END { exit !bad }' "$runs"; then
        echo 'bench.sh: lido failed; see the report' >&2
        exit 1
fi
