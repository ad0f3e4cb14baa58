#!/bin/bash
# echo.sh - examples/buffer_echo under load from outside: every byte comes back, and once it is warm a request allocates nothing.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/support/lib.sh
. "$here/../support/lib.sh"
# shellcheck source=tests/support/warm.sh
. "$here/../support/warm.sh"

build=${LIDO_BUILD:?run me by make check}
server=$build/examples/buffer_echo load=$build/tests/buffer/echo_load
require_programs "$server" "$load"
make_scratch
warm_requests "$server" "$load" 1500 'every byte comes back, to 8 clients at once'
checks_done
