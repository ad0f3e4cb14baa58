#!/usr/bin/env bash
# PostgreSQL end to end, lido beside other pools: "make bench-pg", part of "make bench" and "make bench-quick".
#
#   LIDO_PEERS=FOLDER bench.sh [--quick] [--out FOLDER]
#
# FOLDER holds the harness, in its folder pg; it is no part of this project, and without it there is a note and no figures.
# It is copied into --out, where lido's adapter and variants (lido.c, variants.py) are put beside its own; the rivals in C
# are built there, and those in other languages are measured where the harness's own "run.sh setup" has built them into --out/work.
#
#   LIDO_BUILD        lido's build folder (default: an installed lido)
#   BENCH_WORKLOADS   of q1..q9 (default all; --quick q1,q2,q4)      BENCH_REPETITIONS   default 7 (--quick 1)
#   BENCH_RIVALS      who is measured (default below)                BENCH_SECONDS       window of q1..q4, default 2 (--quick 1)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

out=bench-out/pg workloads=q1,q2,q3,q4,q5,q6,q7,q8,q9 repetitions=7 seconds=2
while (($#)); do
        case $1 in
        --quick) workloads=q1,q2,q4 repetitions=1 seconds=1 ;;
        --out) out=$2 && shift ;;
        *) echo "bench.sh: what is $1?" >&2 && exit 2 ;;
        esac
        shift
done
workloads=${BENCH_WORKLOADS:-$workloads}
workloads=${workloads// /,}
repetitions=${BENCH_REPETITIONS:-$repetitions}
rivals=${BENCH_RIVALS:-lido lido-query lido-mux lido-loop lido-loop-mux libpq-mutex libpq-mutex-fifo libpq-async libpq-muxN-each libpq-combN \
        libzdb apr soci hikari pgx tokio-mux2 postgres.js pgbouncer+libpq}
rivals=${rivals// /,}

if [[ ! -f ${LIDO_PEERS:-}/pg/drive.py ]]; then
        echo 'NOT MEASURED: PostgreSQL end to end, for LIDO_PEERS names no folder with its harness (pg/drive.py)' >&2
        exit 0
fi
mkdir -p "$out/work/bin"
out=$(cd "$out" && pwd)
export OUT=$out/work SECS=${BENCH_SECONDS:-$seconds}
chmod 755 "$OUT"

# The harness with lido in it: the variants go in before it starts.
rm -rf "$out/harness"
cp -r "$LIDO_PEERS/pg" "$out/harness"
awk -v variants="$here/variants.py" '$0 == "main()" { while ((getline line <variants) > 0) print line; print "" } { print }' \
        "$LIDO_PEERS/pg/drive.py" >"$out/harness/drive.py"

# ---- build -------------------------------------------------------------------------------------------------------

missing=() log=$out/build.log
: >"$log"
# build NAME SOURCE LIBRARIES...: a program of the harness's core and one adapter.
build() {
        local name=$1 source=$2
        shift 2
        ${CC:-cc} -std=gnu11 -O2 -g -pthread -I"$out/harness/c" -o "$OUT/bin/$name" "$source" "$out/harness/c/bench.c" "$@" >>"$log" 2>&1 ||
                missing+=("$name")
}
read -ra libpq <<<"$(pkg-config --cflags --libs libpq)"
for name in libpq_direct libpq_mutex libpq_async libpq_mux libpq_comb; do
        build "$name" "$out/harness/c/$name.c" "${libpq[@]}"
done
# build_with PACKAGES NAME
build_with() {
        local packages flags
        read -ra packages <<<"$1"
        if pkg-config --exists "${packages[@]}"; then
                read -ra flags <<<"$(pkg-config --cflags --libs "${packages[@]}")"
                build "$2" "$out/harness/c/$2.c" "${flags[@]}"
        else
                missing+=("$2")
        fi
}
build_with zdb libzdb
build_with 'apr-1 apr-util-1' apr
command -v pgbouncer >/dev/null || missing+=(pgbouncer)

# The flags of a build folder (its lido-pg-uninstalled.pc comes first) or of what is installed.
read -ra lido <<<"$(PKG_CONFIG_PATH=${LIDO_BUILD:+$LIDO_BUILD/lib:}${PKG_CONFIG_PATH:-} pkg-config --cflags --libs lido-pg lido libuv)"
for name in lido lido_loop; do
        [[ ! -f $here/$name.c ]] || build "$name" "$here/$name.c" "${lido[@]}" "${libpq[@]}"
done
if [[ ! -x $OUT/bin/lido ]]; then
        cat "$log" >&2
        exit 1
fi

# ---- run ---------------------------------------------------------------------------------------------------------

wanted=()
for rival in ${rivals//,/ }; do
        case $rival in
        pgbouncer*) command -v pgbouncer >/dev/null || continue ;;
        hikari) [[ -d $OUT/java ]] || continue ;;
        postgres.js) [[ -d $OUT/node/node_modules ]] || continue ;;
        esac
        wanted+=("$rival")
done
names=$(printf '%s,' "${wanted[@]}")
rm -f "$OUT/results.jsonl" "$out"/*.tsv "$out"/*.txt "$out"/*.png
trap 'bash "$out/harness/run.sh" stop' EXIT
bash "$out/harness/run.sh" bench "$workloads" "$repetitions" "${names%,}" 2>"$out/runs.txt" || { tail -n 5 "$out/runs.txt" >&2; exit 1; }
bash "$out/harness/run.sh" report >"$out/report.txt"

# ---- show --------------------------------------------------------------------------------------------------------

bash "$here/../machine.sh" >"$out/machine.txt"
for name in "${missing[@]}"; do
        echo "NOT MEASURED: $name, which could not be built here" >>"$out/machine.txt"
done
awk -F'\t' 'NR == 1 || $2 ~ /^q[1-4]$/' "$out/report.txt" >"$out/summary.tsv"
for q in q5 q6 q7 q8 q9; do
        awk -F'\t' -v q="$q" '$1 == q' "$out/report.txt" >"$out/$q.tsv"
        [[ $(wc -l <"$out/$q.tsv") -gt 1 ]] || rm "$out/$q.tsv"
done
cat "$out/machine.txt" "$out/report.txt"
if command -v gnuplot >/dev/null; then
        loads=$(awk -F'\t' 'NR > 1 { print $2 }' "$out/summary.tsv" | sort -u | tr '\n' ' ')
        [[ -z ${loads// /} ]] || gnuplot -e "out='$out'; loads='${loads% }'" "$here/pictures.gp"
        echo "pictures: $out/throughput.png $out/latency.png"
else
        echo 'NO PICTURES: gnuplot is not installed' >&2
fi
echo "figures: $out/summary.tsv (q1 to q4), $out/q5.tsv and so on"

# A rival that fails is reported; that we fail, or leave a caller hanging, is an error.
if grep -qE '"peer": "lido[^"]*".*("fail"|"hung": [1-9])' "$OUT/results.jsonl"; then
        echo 'bench.sh: lido failed; see report.txt' >&2
        exit 1
fi
