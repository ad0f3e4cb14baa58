#!/usr/bin/env bash
# Measures lido inside the larger harness, which has rivals in other languages too and is no part of this project.
#
#   LIDO_PEERS=FOLDER adapters/run.sh PART [STEP...]
#
# FOLDER holds the harness, one folder for each PART; STEP is what its run.sh takes (default: what it does by itself).
# LIDO_BUILD is lido's build folder (default: an installed lido is used), OUT where the harness works.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

part=${1:-}
if [[ -z ${LIDO_PEERS:-} || ! -f ${LIDO_PEERS:-}/$part/run.sh || -z $part ]]; then
        echo 'usage: LIDO_PEERS=FOLDER run.sh PART [STEP...]; PART is a folder of FOLDER that has a run.sh' >&2
        exit 2
fi
shift
peers=$(cd "$LIDO_PEERS/$part" && pwd)
export OUT=${OUT:-${TMPDIR:-/tmp}/lido-bench-$part}
mkdir -p "$OUT/bin"

# The flags of a build folder (its lido-uninstalled.pc comes first) or of what is installed.
flags() {
        PKG_CONFIG_PATH=${LIDO_BUILD:+$LIDO_BUILD/lib:}${PKG_CONFIG_PATH:-} pkg-config --cflags --libs "$1"
}

case $part in
pools)
        read -ra lido <<<"$(flags lido)"
        ${CC:-cc} -std=gnu11 -O2 -g -pthread -Wall -Wextra -I"$peers/native" "$here/pools.c" -o "$OUT/bin/lido" "${lido[@]}"
        export EXTRA_PEERS="lido:30:$OUT/bin/lido${EXTRA_PEERS:+;$EXTRA_PEERS}"
        ;;
*)
        echo "run.sh: there is no adapter for $part yet" >&2
        exit 2
        ;;
esac
exec bash "$peers/run.sh" "$@"
