#!/bin/bash
# with-server.sh PROGRAM [ARGUMENT...]: runs a unit test, under a PostgreSQL server of its own if LIDO_SERVER_TESTS
# names it. Where PostgreSQL is not installed such a test is skipped, or fails if LIDO_REQUIRE_SERVER is set.
set -eu
# shellcheck source=tests/support/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

server=$lido_source/tests/support/pgserver.sh
case " ${LIDO_SERVER_TESTS:-} " in
*" ${1#./} "*) ;;
*) exec ${LIDO_TEST_WRAPPER:-} "$@" ;;
esac

if ! "$server" find >/dev/null 2>&1; then
    echo "no PostgreSQL server on this machine (Debian: postgresql)"
    [ -n "${LIDO_REQUIRE_SERVER:-}" ] && exit 1
    exit 77
fi
# shellcheck disable=SC2086 # the wrapper is a command with its options
exec "$server" run -- ${LIDO_TEST_WRAPPER:-} "$@"
