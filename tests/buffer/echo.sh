#!/bin/bash
# echo.sh - examples/buffer_echo under load from outside: every byte comes back, and once it is warm a request allocates nothing.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/support/lib.sh
. "$here/../support/lib.sh"

build=${LIDO_BUILD:?run me by make check}
server=$build/examples/buffer_echo load=$build/tests/buffer/echo_load
for program in "$server" "$load"; do
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

check 'every byte comes back, to 8 clients at once' "$load" "$port" 8 1500
kill -USR1 "$pid"
check 'half-time is marked before the second half begins' hear "$pid" "$out" '^half-time at request '
check 'and again, once it is warm' "$load" "$port" 8 3000
kill -TERM "$pid"
check 'the server ends clean' wait "$pid"
at_exit drop_scratch
cat "$out"

# Nothing per request. A new connection may cost libuv something once; 8 came since half-time.
few()
{
    awk '/since half-time/ { sub(/.*since half-time /, ""); gsub(/,/, ""); exit !($2 >= 24000 && $4 <= 64) }' "$out"
}
check 'a warm request allocates nothing' few
checks_done
