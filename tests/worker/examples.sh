#!/bin/bash
# examples.sh - the examples of workers from outside: job_server under load gives every answer, and once it is warm a request
# allocates nothing; worker_from_uv_queue_work says of each file what it should.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/support/lib.sh
. "$here/../support/lib.sh"

build=${LIDO_BUILD:?run me by make check}
server=$build/examples/job_server load=$build/tests/worker/job_load adder=$build/examples/worker_from_uv_queue_work
for program in "$server" "$load" "$adder"; do
    if [ ! -x "$program" ]; then
        echo "there is no $program"
        exit 77
    fi
done
make_scratch
out=$scratch/server.out

"$server" 0 >"$out" &
pid=$!
end_server()
{
    kill "$pid" 2>/dev/null || :
    drop_scratch
}
at_exit end_server

hear "$pid" "$out" '^listening on ' || die "the server does not listen: $(cat "$out")"
port=$(sed -n 's/^listening on //p' "$out")

check 'every answer is right, for 8 clients at once' "$load" "$port" 8 1000
kill -USR1 "$pid"
check 'half-time is marked before the second half begins' hear "$pid" "$out" '^half-time at request '
check 'and again, once it is warm' "$load" "$port" 8 2000
kill -TERM "$pid"
check 'the server ends clean' wait "$pid"
at_exit drop_scratch
cat "$out"

# Nothing per request: what was allocated is the memory of 8 connections, and what libuv needs for one now and then.
few()
{
    awk '/since half-time/ { sub(/.*since half-time /, ""); gsub(/,/, ""); exit !($2 >= 16000 && $4 <= 64) }' "$out"
}
check 'a warm request allocates nothing' few

printf 'abc' >"$scratch/abc"
: >"$scratch/empty"
adds_up()
{
    "$adder" "$scratch/abc" "$scratch/empty" "$scratch/none" | sort >"$scratch/sums"
    diff "$scratch/sums" - <<END
$scratch/abc: 3 bytes, sum 294
$scratch/empty: 0 bytes, sum 0
$scratch/none: cannot be read
END
}
check 'the program converted from uv_queue_work does its work' adds_up
checks_done
