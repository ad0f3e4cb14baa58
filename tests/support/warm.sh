# shellcheck shell=bash
# warm.sh - an example that serves, from outside: its answers are right under load, and once it is warm a request allocates
# nothing. To be sourced after lib.sh, in a test that has called make_scratch.

# warm_requests SERVER LOAD REQUESTS CLAIM: starts SERVER (an example that takes a port and counts its allocations), puts it under
# LOAD by 8 clients with so many requests each, which CLAIM is about, marks half-time and does twice as much again: a warm
# request allocates nothing. A new connection may cost something once; 8 come after half-time.
warm_requests()
{
    # shellcheck disable=SC2154 # make_scratch has set it
    local server=$1 load=$2 requests=$3 claim=$4 out=$scratch/server.out port

    "$server" 0 >"$out" &
    server_pid=$!
    at_exit end_server
    hear "$server_pid" "$out" '^listening on ' || die "the server does not listen: $(cat "$out")"
    port=$(sed -n 's/^listening on //p' "$out")

    check "$claim" "$load" "$port" 8 "$requests"
    kill -USR1 "$server_pid"
    check 'half-time is marked before the second half begins' hear "$server_pid" "$out" '^half-time at request '
    check 'and again, once it is warm' "$load" "$port" 8 $((2 * requests))
    kill -TERM "$server_pid"
    check 'the server ends clean' wait "$server_pid"
    at_exit drop_scratch
    cat "$out"
    check 'a warm request allocates nothing' allocated_little "$out" $((8 * 2 * requests))
}

end_server()
{
    kill "$server_pid" 2>/dev/null || :
    drop_scratch
}

allocated_little()
{
    awk -v least="$2" '/since half-time/ { sub(/.*since half-time /, ""); gsub(/,/, ""); exit !($2 >= least && $4 <= 64) }' "$1"
}

# require_programs PROGRAM...: skips the test where one of them was not built.
require_programs()
{
    local program

    for program; do
        if [ ! -x "$program" ]; then
            echo "there is no $program"
            exit 77
        fi
    done
}
