#!/bin/bash
# driver.sh - runs one test for "make check" (the test driver that automake asks for; its options are automake's).
# It ends a test that hangs, and prints the test's result and its closing line ("100%: Checks: 12, Failures: 0, ...").
# What the test wrote is in its .log, and on the console as well when it failed.
set -u
# shellcheck source=tests/support/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

test_name='' log_file='' trs_file='' expect_failure=no color=no
while [ $# -gt 0 ]; do
    case $1 in
    --test-name) test_name=$2 && shift ;;
    --log-file) log_file=$2 && shift ;;
    --trs-file) trs_file=$2 && shift ;;
    --expect-failure) expect_failure=$2 && shift ;;
    --color-tests) color=$2 && shift ;;
    --enable-hard-errors) shift ;;
    --) shift && break ;;
    *) break ;;
    esac
    shift
done
test_name=${test_name#./}

# A test is done in seconds; under a sanitizer or valgrind in minutes. Whatever takes longer hangs.
limit=${LIDO_TEST_TIMEOUT:-600}
export CK_DEFAULT_TIMEOUT=${CK_DEFAULT_TIMEOUT:-120}

started=${EPOCHREALTIME/./}
run_child timeout --foreground -k 20 "$limit" "$@" >"$log_file" 2>&1 </dev/null
status=$?
took=$(((${EPOCHREALTIME/./} - started) / 1000))

if [ -n "$child_signal" ]; then
    rm -f "$trs_file"
    leave_as "$child_signal" 1
fi

case $status in
0) result=PASS ;;
77) result=SKIP ;;
99) result=ERROR ;;
124 | 137) result=FAIL && echo "the test did not end within $limit s, or was killed" >>"$log_file" ;;
*) result=FAIL ;;
esac
if [ "$expect_failure" = yes ]; then
    case $result in
    PASS) result=XPASS ;;
    FAIL) result=XFAIL ;;
    esac
fi

{
    echo ":test-result: $result"
    echo ":recheck: $([ $result = PASS ] && echo no || echo yes)"
    echo ":copy-in-global-log: $([ $result = PASS ] && echo no || echo yes)"
    echo ":test-global-result: $result"
} >"$trs_file"

shown=$result
if [ "$color" = yes ]; then
    case $result in
    PASS) shown=$'\033[32mPASS\033[m' ;;
    SKIP) shown=$'\033[1;34mSKIP\033[m' ;;
    *) shown=$'\033[31m'$result$'\033[m' ;;
    esac
fi

# One write for each test: tests run side by side, and their lines must not mix.
case $result in
PASS | XFAIL) detail=$(grep -E '^[0-9]+%: Checks: ' "$log_file" | tail -n 1) ;;
SKIP) detail=$(tail -n 1 "$log_file") ;;
*) detail=$(tail -n 200 "$log_file") ;;
esac
printf '%s: %s (%d ms, exit %d)\n%s' "$shown" "$test_name" "$took" "$status" "${detail:+$detail$'\n'}"
