#!/bin/bash
# run.sh - installs what is missing, builds lido in build/, runs all the tests. Run it again at will.
set -eu
# shellcheck source=tests/support/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/support/lib.sh"

usage()
{
    cat <<'END'
tests/run.sh [--quick] [--programs] [--build DIR] [--no-install] [--configure OPTION]...

Installs the Debian packages that are missing (as root or by sudo; neither is needed when nothing is missing), builds
lido and runs all its tests. Ends with "N passed, N failed" and fails when a test failed.

  --quick             shorter storms (LIDO_QUICK=1 for the tests)
  --programs          the test programs without the test scripts
  --build DIR         build in DIR, below the top of the tree (build)
  --no-install        go without what is missing
  --configure OPTION  an option for configure, for example --configure --enable-sanitize=thread
END
}

build=build
install=yes
make_check=(check)
configure=(--enable-werror)
while [ $# -gt 0 ]; do
    case $1 in
    --quick) export LIDO_QUICK=1 ;;
    --programs) make_check+=('TESTS=$(check_PROGRAMS)') ;;
    --build) build=${2:?--build DIR} && shift ;;
    --no-install) install=no ;;
    --configure) configure+=("${2:?--configure OPTION}") && shift ;;
    --help | -h) usage && exit 0 ;;
    *) die "unknown option: $1 (see --help)" ;;
    esac
    shift
done

own_temporary_files
started=$SECONDS

if [ "$install" = yes ]; then
    install_missing "${packages_to_build[@]}" "${packages_to_test[@]}"
    # What was just installed is there, so a test that finds it missing has failed.
    export LIDO_REQUIRE_SERVER=1
fi
prepare_build "$build" "${configure[@]}"
if [ "$install" = yes ] && grep -q '^S\["HAVE_CHECK_TRUE"\]="#"' "$build_dir/config.status"; then
    die "configure did not find Check, so no unit test would run (log: $build_dir/config.log)"
fi

jobs=$(nproc)
say "building in $build_dir"
run_tree make -C "$build_dir" --no-print-directory -j "$jobs" all || leave_as "$child_signal" 1
say "testing"
find "$build_dir/tests" \( -name '*.trs' -o -name '*.log' \) -delete 2>/dev/null || true
failed_make=0
run_tree make -C "$build_dir" --no-print-directory -j "$jobs" -k "${make_check[@]}" || failed_make=1
[ -z "$child_signal" ] || leave_as "$child_signal" 1

# ---- the summary: Check's closing lines, added up -------------------------------------------------------------

say "summary of $((SECONDS - started)) s"
passed=0 failed=0 skipped=0 programs=0
failures=()
while read -r trs; do
    name=${trs#"$build_dir/"}
    name=${name%.trs}
    result=$(sed -n 's/^:test-result: //p' "$trs")
    programs=$((programs + 1))
    made=0 wrong=0
    while read -r checks fails errors; do
        made=$((made + checks))
        wrong=$((wrong + fails + errors))
    done < <(sed -nE 's/^[0-9]+%: Checks: ([0-9]+), Failures: ([0-9]+), Errors: ([0-9]+)$/\1 \2 \3/p' "${trs%.trs}.log")
    case $result in
    PASS) ;;
    SKIP)
        skipped=$((skipped + 1))
        say "skipped: $name: $(tail -n 1 "${trs%.trs}.log")"
        ;;
    *)
        # A program that died before its closing line is one failure.
        if [ "$wrong" -eq 0 ]; then
            wrong=1
            made=$((made + 1))
        fi
        failures+=("$name")
        ;;
    esac
    passed=$((passed + made - wrong))
    failed=$((failed + wrong))
done < <(find "$build_dir/tests" -name '*.trs' | sort)

if [ ${#failures[@]} -gt 0 ]; then
    say "failed: ${failures[*]} (logs: $build_dir/tests/...log)"
fi
# make fails for more than a failed test: a test that does not compile, a target that does not exist.
if [ "$failed" -eq 0 ] && [ "$failed_make" -ne 0 ]; then
    say "make check failed"
    failed=1
fi
printf '%d programs, %d skipped\n' "$programs" "$skipped"
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
