#!/bin/bash
# examples.sh - the examples of workers from outside: job_server under load gives every answer, and once it is warm a request
# allocates nothing; worker_from_uv_queue_work says of each file what it should.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/support/lib.sh
. "$here/../support/lib.sh"
# shellcheck source=tests/support/warm.sh
. "$here/../support/warm.sh"

build=${LIDO_BUILD:?run me by make check}
server=$build/examples/job_server load=$build/tests/worker/job_load adder=$build/examples/worker_from_uv_queue_work
require_programs "$server" "$load" "$adder"
make_scratch
warm_requests "$server" "$load" 1000 'every answer is right, for 8 clients at once'

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
