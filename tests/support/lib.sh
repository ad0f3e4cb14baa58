# shellcheck shell=bash
# lib.sh - what the scripts of the tree share: saying, installing, building, waiting for a child, counting checks.
# Sourced by bash scripts.

lido_source=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

say()
{
    printf '== %s\n' "$*" >&2
}

die()
{
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# ---- packages -------------------------------------------------------------------------------------------------

# shellcheck disable=SC2034 # used by those who source this
packages_to_build=(autoconf automake libtool pkg-config make gcc libc6-dev libuv1-dev libpq-dev)
# shellcheck disable=SC2034
packages_to_test=(check g++ haproxy openssl pgbouncer postgresql valgrind)
# shellcheck disable=SC2034
packages_to_demo=(postgresql)

# install_missing PACKAGE...: installs what is not there yet, as root or by sudo. Needs neither when nothing is missing.
install_missing()
{
    local package missing=()

    if ! command -v dpkg-query >/dev/null; then
        say "not a Debian system; needed, by their Debian names: $*"
        return 0
    fi
    for package; do
        # One line for each architecture; dpkg also knows packages that are "not-installed".
        if ! dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed; then
            missing+=("$package")
        fi
    done
    if [ ${#missing[@]} -eq 0 ]; then
        return 0
    fi

    say "installing: ${missing[*]}"
    become=()
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null || ! { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
            die "these packages are missing, and neither root nor sudo is at hand; as root, run:
    apt-get install ${missing[*]}"
        fi
        become=(sudo)
    fi

    local status=0 outer=$cleanup
    install_log=$(mktemp)
    cleanup=end_install
    # The postgresql package would start a server of its own; we need its programs alone.
    case " ${missing[*]} " in
    *" postgresql "*)
        "${become[@]}" mkdir -p "${no_main_cluster%/*}"
        echo 'create_main_cluster = false' | "${become[@]}" tee "$no_main_cluster" >/dev/null
        ;;
    esac

    {
        # apt drops to a user that may not write in our folder for temporary files.
        "${become[@]}" env -u TMPDIR apt-get update -q &&
            "${become[@]}" env -u TMPDIR DEBIAN_FRONTEND=noninteractive \
                apt-get install -q -y --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}"
    } </dev/null 2>&1 | tee "$install_log" | {
        grep --line-buffered -E '^(Get:|Setting up|E:|Err)' >&2 || true
    }
    status=${PIPESTATUS[0]}
    [ "$status" -eq 0 ] || cat "$install_log" >&2
    end_install
    cleanup=$outer
    [ "$status" -eq 0 ] || die "apt-get failed (above is what it said)"
}

no_main_cluster=/etc/postgresql-common/createcluster.d/lido-no-main-cluster.conf

end_install()
{
    rm -f "$install_log"
    [ ! -e "$no_main_cluster" ] || "${become[@]}" rm -f "$no_main_cluster"
}

# ---- leaving --------------------------------------------------------------------------------------------------

cleanup=true

# at_exit FUNCTION: called once when this shell ends, by itself or by a signal. (bash skips an EXIT trap when a signal
# ends it whose own trap was reset.)
at_exit()
{
    cleanup=$1
    trap '$cleanup' EXIT
    leave_on_signals
}

leave_on_signals()
{
    trap 'leave_as INT 1' INT
    trap 'leave_as TERM 1' TERM
    trap 'leave_as HUP 1' HUP
}

# leave_as SIGNAL STATUS: ends this shell the way it was asked to end, so that the caller sees it too; "" is no signal.
leave_as()
{
    if [ -n "$1" ]; then
        trap '' INT TERM HUP
        trap - EXIT
        $cleanup || true
        trap - "$1"
        kill -s "$1" "$BASHPID"
    fi
    exit "$2"
}

leave_on_signals

# For a script that needs a folder to work in: scratch is made, and goes with the script.
make_scratch()
{
    at_exit drop_scratch
    scratch=$(mktemp -d "${TMPDIR:-/tmp}/lido.XXXXXX")
}

scratch=

# What a signal ended may still be adding a file, so there is a second try.
drop_scratch()
{
    [ -z "$scratch" ] || rm -rf "$scratch" 2>/dev/null || rm -rf "$scratch"
}

# For a script that runs a whole build: whatever the compilers and tests put into their folder for temporary files goes
# with the script, also what they had no time to remove. The server of a test runs as another user and has to get there.
own_temporary_files()
{
    make_scratch
    chmod 711 "$scratch"
    export TMPDIR=$scratch
}

# ---- children -------------------------------------------------------------------------------------------------

# run_child COMMAND...: like running it, but a signal to this shell reaches the child at once and the shell waits for
# it to end; afterwards child_signal tells which signal came ("" for none), so that the caller can clean up and leave.
# Descriptor 9 is what a script keeps to itself.
run_child()
{
    local status=0

    child_signal=''
    child_pid=''
    trap 'pass_on INT' INT
    trap 'pass_on TERM' TERM
    trap 'pass_on HUP' HUP
    (
        # A background child of a script starts with SIGINT ignored.
        trap - INT TERM HUP QUIT
        exec "$@" 9>&-
    ) <&0 &
    child_pid=$!
    # A signal that came before there was a child to tell.
    [ -z "$child_signal" ] || pass_on "$child_signal"

    # wait returns early when a signal comes. It is not asked again: bash may have reaped the child meanwhile and would
    # then wait for ever. A caller that was signalled has no use for the status.
    wait "$child_pid" || status=$?
    if [ -n "$child_signal" ]; then
        while child_runs; do
            sleep 0.05
        done
    fi
    leave_on_signals
    return "$status"
}

# run_tree COMMAND...: run_child, and after a signal the wait is for all that the command started as well. make leaves
# before the tests that it ran, and those take a moment to clean up. All of them hold descriptor 8, the end of a pipe
# that closes with the last of them.
run_tree()
{
    local status=0 reader

    exec 8> >(
        trap '' INT TERM HUP
        exec cat >/dev/null
    )
    reader=$!
    run_child "$@" || status=$?
    exec 8>&-
    if [ -n "$child_signal" ]; then
        ends_within 30 "$reader" || true
    fi
    kill -s KILL "$reader" 2>/dev/null || true
    return "$status"
}

# child_runs: whether child_pid is a process, ours, and no zombie.
child_runs()
{
    local stat

    { read -r stat <"/proc/$child_pid/stat"; } 2>/dev/null || return 1
    # After the name, in brackets, come the state and the parent.
    stat=${stat##*) }
    [[ $stat != Z* && $stat == ?" $BASHPID "* ]]
}

# pass_on SIGNAL: tells the child, in the background, as this may be a trap that interrupts anything. Ctrl-C goes to the
# whole foreground group, so the child has had that one and gets two seconds before it is told again. It ends by itself
# when the child has.
pass_on()
{
    child_signal=$1
    [ -n "$child_pid" ] || return 0
    (
        trap '' INT TERM HUP
        exec 8>&- 9>&-
        if [ "$1" = INT ]; then
            ends_within 2 "$child_pid" || kill -s TERM "$child_pid"
        else
            kill -s "$1" "$child_pid"
        fi
        ends_within 10 "$child_pid" || kill -s KILL "$child_pid"
    ) </dev/null >/dev/null 2>&1 &
}

# ends_within SECONDS PID: waits for a process to end, without reaping it. A zombie has ended.
ends_within()
{
    local until=$((SECONDS + $1))

    while kill -0 "$2" 2>/dev/null && ! grep -q '^State:.*Z' "/proc/$2/status" 2>/dev/null; do
        [ "$SECONDS" -lt "$until" ] || return 1
        sleep 0.05
    done
}

# ---- waiting for what a program says --------------------------------------------------------------------------

# Seconds until a condition is given up: far longer than anything takes on a loaded machine.
patience=60

# eventually COMMAND...: looks again and again until the command succeeds; fails when patience ends.
eventually()
{
    local until=$((SECONDS + patience))

    until "$@"; do
        [ "$SECONDS" -lt "$until" ] || return 1
        sleep 0.02
    done
}

# hear PID FILE PATTERN: waits until the program, which writes to FILE, has said a line like PATTERN; fails when it ends
# without.
hear()
{
    eventually has_said_or_ended "$@" && grep -qE "$3" "$2"
}

has_said_or_ended()
{
    grep -qE "$3" "$2" || ! kill -0 "$1" 2>/dev/null
}

# ---- building -------------------------------------------------------------------------------------------------

# may_build_in BUILD: whether this user may write all that a build of the tree in BUILD writes.
may_build_in()
{
    local path

    [ -w "$lido_source" ] || return 1
    for path in "$1" "$1/config.status" "$1/lib" "$lido_source/autom4te.cache" "$lido_source/configure" \
        "$lido_source/m4"; do
        if [ -e "$path" ] && [ ! -w "$path" ]; then
            return 1
        fi
    done
}

# prepare_build BUILD CONFIGURE-ARGUMENT...: makes configure and BUILD/Makefile where they are missing or old. Sets
# build_dir. BUILD is relative to the top of the tree. A tree that this user may not write is built from a copy among the
# script's temporary files, and lido_source then names that copy.
prepare_build()
{
    local build=$1
    shift

    if ! may_build_in "$lido_source/$build"; then
        say "this user may not write here: building in a private copy"
        local copy
        copy=$(mktemp -d "${TMPDIR:-/tmp}/lido-copy.XXXXXX")
        chmod 711 "$copy"
        tar -C "$lido_source" --exclude=./.git --exclude='./build*' --exclude=./autom4te.cache -cf - . |
            tar -C "$copy" --no-same-owner -xf -
        lido_source=$copy
    fi

    build_dir=$lido_source/$build
    mkdir -p "$build_dir"
    if [ ! -x "$lido_source/configure" ] || [ "$lido_source/configure.ac" -nt "$lido_source/configure" ] ||
        [ "$lido_source/Makefile.am" -nt "$lido_source/Makefile.in" ]; then
        say "autogen.sh"
        "$lido_source/autogen.sh" >"$build_dir/autogen.log" 2>&1 || {
            cat "$build_dir/autogen.log" >&2
            die "autogen.sh failed"
        }
    fi

    # The build is made of these: a library that was installed since is to be found.
    local wanted module
    wanted="$* with"
    for module in libuv libpq check apr-1 apr-util-1 ck glib-2.0 zdb; do
        wanted="$wanted $module $(pkg-config --modversion "$module" 2>/dev/null || echo none),"
    done
    if [ ! -f "$build_dir/Makefile" ] || [ "$lido_source/configure" -nt "$build_dir/config.status" ] ||
        [ "$wanted" != "$(cat "$build_dir/configured" 2>/dev/null)" ]; then
        say "configure $*"
        (cd "$build_dir" && "$lido_source/configure" "$@") >"$build_dir/configure.log" 2>&1 </dev/null || {
            tail -n 30 "$build_dir/configure.log" >&2
            die "configure failed (log: $build_dir/configure.log)"
        }
        printf '%s\n' "$wanted" >"$build_dir/configured"
    fi
}

# ---- checks of a test script ----------------------------------------------------------------------------------
# A test script states its claims with these and ends with the same closing line as a Check program, so that one
# reader counts both.

checks_made=0
checks_failed=0

# check CLAIM COMMAND...: the claim holds when the command succeeds.
check()
{
    local claim=$1
    shift

    checks_made=$((checks_made + 1))
    if "$@"; then
        return 0
    fi
    checks_failed=$((checks_failed + 1))
    printf 'FAILED: %s\n' "$claim"
}

# refuse CLAIM COMMAND...: the claim holds when the command fails.
refuse()
{
    local claim=$1
    shift

    checks_made=$((checks_made + 1))
    if ! "$@"; then
        return 0
    fi
    checks_failed=$((checks_failed + 1))
    printf 'FAILED: %s\n' "$claim"
}

# Prints the closing line and ends the script.
checks_done()
{
    local passed=$((checks_made - checks_failed))

    [ "$checks_made" -gt 0 ] || die "no check was made"
    printf '%d%%: Checks: %d, Failures: %d, Errors: 0\n' $((passed * 100 / checks_made)) "$checks_made" "$checks_failed"
    [ "$checks_failed" -eq 0 ] || exit 1
    exit 0
}
