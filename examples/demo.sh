#!/bin/bash
# demo.sh - the main job of lido, from nothing: installs what is missing, builds, starts a PostgreSQL server that nobody
# else uses, and lets many threads and an event loop share a few connections while the server is mistreated.
set -eu
# shellcheck source=tests/support/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../tests/support/lib.sh"

usage()
{
    cat <<'END'
examples/demo.sh [--seconds N] [--threads N] [--connections N] [--conninfo TEXT]

Many worker threads and one event loop share a few PostgreSQL connections and move money between accounts, while idle and
busy connections are killed and the server is restarted. The last line says what became of it all.

  --seconds N      how long (20)
  --threads N      worker threads (32)
  --connections N  connections in the pool (8)
  --conninfo TEXT  use that server, which must have pgbench's tables ("pgbench -i"; they are changed), and which is not
                   restarted. Without it a server of our own is started in a temporary folder and removed at the end.
END
}

seconds=20 threads=32 connections=8 conninfo=''
# What this script says to itself when it goes on beside its server.
demo=''
while [ $# -gt 0 ]; do
    case $1 in
    --seconds) seconds=${2:?--seconds N} && shift ;;
    --threads) threads=${2:?--threads N} && shift ;;
    --connections) connections=${2:?--connections N} && shift ;;
    --conninfo) conninfo=${2:?--conninfo TEXT} && shift ;;
    --beside-server) demo=${2:?} && shift ;;
    --help | -h) usage && exit 0 ;;
    *) die "unknown option: $1 (see --help)" ;;
    esac
    shift
done
for number in "$seconds" "$threads" "$connections"; do
    case $number in
    '' | *[!0-9]* | 0*) die "not a positive number: $number" ;;
    esac
done
options=(--seconds "$seconds" --threads "$threads" --connections "$connections")

if [ -n "$demo" ]; then
    say "pgbench -i: its tables, 100000 accounts"
    "$("$LIDO_PGSERVER" find)/pgbench" -i -q -s 1 >"$LIDO_PG_DIR/pgbench.log" 2>&1 || {
        cat "$LIDO_PG_DIR/pgbench.log" >&2
        die "pgbench -i failed"
    }
    say "running the demo for $seconds s"
    exec "$demo" --conninfo "$LIDO_PG_CONNINFO" --server-dir "$LIDO_PG_DIR" "${options[@]}"
fi

own_temporary_files
packages=("${packages_to_build[@]}")
[ -n "$conninfo" ] || packages+=("${packages_to_demo[@]}")
install_missing "${packages[@]}"
prepare_build build --enable-werror
say "building in $build_dir"
run_tree make -C "$build_dir" --no-print-directory -j "$(nproc)" all >&2 || leave_as "$child_signal" 1
demo=$build_dir/examples/demo

status=0
if [ -n "$conninfo" ]; then
    say "running the demo for $seconds s"
    run_tree "$demo" --conninfo "$conninfo" "${options[@]}" || status=$?
else
    say "starting a PostgreSQL server"
    # What is acknowledged must outlive the server: the throw-away default does not promise that.
    run_tree "$lido_source/tests/support/pgserver.sh" run --set synchronous_commit=on -- \
        "$lido_source/examples/demo.sh" --beside-server "$demo" "${options[@]}" || status=$?
fi
leave_as "$child_signal" "$status"
