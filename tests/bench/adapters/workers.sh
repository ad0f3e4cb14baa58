#!/bin/sh
# Run lido's executor in the worker benches, beside their own engines.
#   BENCH=dir tests/bench/adapters/workers.sh WORKLOAD WORKERS PRODUCERS [ENGINE...]
# BENCH   the folder with wb.c and engine.h
# LIDO    flags that find lido's headers and library; default: the sources of this tree, compiled with -O2
# OUT     where the programs go (default: a new folder, removed at the end)
# REPS    repetitions, interleaved (5)
# BEST    1: the least of each figure in place of the median, on a machine that others disturb
# Prints the median of each figure, and in brackets lido's figure over it: below 1 lido is better, all figures being costs. Engines: LIDO (always), COND, UV, PROTO, GLIB, APR,
# THPOOL, ASIO, TBB as far as their packages are installed.
# shellcheck disable=SC2046 # what pkg-config prints is words
# shellcheck disable=SC2046 # what pkg-config prints is words
set -eu
root=$(cd "$(dirname "$0")/../../.." && pwd)
bench=${BENCH:?the folder of the worker benches}
work=${OUT:-$(mktemp -d)}
[ -n "${OUT:-}" ] || trap 'rm -rf "$work"' EXIT
mkdir -p "$work/src"
workload=${1:?workload} workers=${2:?workers} producers=${3:?producers}
shift 3
[ $# -gt 0 ] || set -- COND UV PROTO

# their engine.h, with ours in it: the job first in a task, the adapter before the end of the list
cp "$bench/common.h" "$bench/wb.c" "$work/src"
awk -v adapter="$root/tests/bench/adapters/workers_lido.h" '
/^typedef struct task \{/ { print "#ifdef E_LIDO\n#include \"lido/worker.h\"\n#endif"; print; print "#ifdef E_LIDO\n\tstruct lido_job lido;\n#endif"; next }
/#error "choose an engine"/ { sub(/.*/, ""); }
{ lines[++n] = $0; print }
' "$bench/engine.h" | awk -v adapter="$root/tests/bench/adapters/workers_lido.h" '
/^#if defined\(E_UV\)/ && !done { print "#if defined(E_LIDO)\n#include \"" adapter "\"\n#elif defined(E_UV)"; done = 1; next }
{ print }' >"$work/src/engine.h"

flags="-O2 -g -std=gnu11 -pthread $(pkg-config --cflags libuv)"
lido=${LIDO:-"-I$root/include -I$root/lib -D_GNU_SOURCE"}
build() {
	[ -x "$work/wb-$1" ] && return
	case $1 in
	LIDO*)
		# shellcheck disable=SC2086 # flags are words
		gcc $flags $lido ${LIDO_DEFINES:-} -DE_LIDO "$work/src/wb.c" ${LIDO_LIBS:-"$root"/lib/worker/*.c "$root"/lib/base/*.c $(ls "$root"/lib/keeper/loop.c)} ${LIDO_EXTRA:-} -o "$work/wb-$1" $(pkg-config --libs libuv) -lm ;;
	GLIB) gcc $flags -DE_GLIB "$work/src/wb.c" -o "$work/wb-$1" $(pkg-config --cflags --libs glib-2.0 libuv) -lm ;;
	APR) gcc $flags -DE_APR "$work/src/wb.c" -o "$work/wb-$1" $(pkg-config --cflags --libs apr-util-1 apr-1 libuv) -lm ;;
	THPOOL)
		header=$(dpkg -L cthreadpool-dev | grep '/thpool\.h$')
		gcc $flags "-I${header%/*}" -DE_THPOOL "$work/src/wb.c" "$(dpkg -L cthreadpool-dev | grep '/thpool\.c$')" -o "$work/wb-$1" $(pkg-config --libs libuv) -lm ;;
	ASIO | TBB)
		library=
		[ "$1" = TBB ] && library=-ltbb
		g++ -O2 -g -std=gnu++17 -w -pthread -x c++ "-DE_$1" "$work/src/wb.c" -o "$work/wb-$1" -x none $library $(pkg-config --libs libuv) -lm ;;
	*) gcc $flags "-DE_$1" "$work/src/wb.c" -o "$work/wb-$1" $(pkg-config --libs libuv) -lm ;;
	esac
}
for engine in LIDO "$@"; do build "$engine" || echo "$engine cannot be built" >&2; done
: >"$work/raw.tsv"
rep=0
while [ "$rep" -lt "${REPS:-5}" ]; do
	for engine in LIDO "$@"; do
		[ ! -x "$work/wb-$engine" ] || timeout 60 "$work/wb-$engine" "$workload" "$workers" "$producers" >>"$work/raw.tsv" || echo "$engine failed" >&2
	done
	rep=$((rep + 1))
done
sort -t "$(printf '\t')" -k2,5 -k6,6g "$work/raw.tsv" | awk -F '\t' -v best="${BEST:-0}" '
function slot(key, who) { return key SUBSEP who }
{
	key = $3 " " $4 " " $5
	if (!(key in seen)) { seen[key] = 1; order[++keys] = key }
	if (!($2 in known)) { known[$2] = 1; names[++people] = $2 }
	at = slot(key, $2)
	n = ++count[at]
	value[at SUBSEP n] = $6
}
function median(key, who,    at, n) { at = slot(key, who); n = count[at]; return n ? value[at SUBSEP (best ? 1 : int((n + 1) / 2))] : "" }
END {
	for (k = 1; k <= keys; k++) {
		ours = median(order[k], "lido")
		if (ours == "") ours = median(order[k], "lido linger")
		printf "%-48s", order[k]
		for (p = 1; p <= people; p++) {
			m = median(order[k], names[p])
			if (m != "") printf "  %s %.4g (%.2f)", names[p], m, (m > 0 ? ours / m : 0)
		}
		printf "\n"
	}
}'
