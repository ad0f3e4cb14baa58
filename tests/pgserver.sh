#!/bin/bash
# pgserver.sh - the server of the tests comes up, does what its options say, and leaves nothing behind, however the
# script that started it ends.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/support/lib.sh
. "$here/support/lib.sh"
server=$here/support/pgserver.sh

if ! bin=$("$server" find 2>/dev/null); then
    echo "no PostgreSQL server on this machine (Debian: postgresql)"
    [ -n "${LIDO_REQUIRE_SERVER:-}" ] && exit 1
    exit 77
fi
psql=$bin/psql
export psql server

make_scratch
export TMPDIR=$scratch
chmod 755 "$scratch"

# nothing_left: no folder of a server, and no process that works in one.
nothing_left()
{
    local left

    left=$(
        find "$scratch" -mindepth 1 -maxdepth 1 -name 'lido-pg.*'
        find /proc -maxdepth 2 -path '/proc/[0-9]*' -name cwd -lname "$scratch/*" 2>/dev/null || true
    )
    [ -z "$left" ] || echo "left: $left"
    [ -z "$left" ]
}

# nothing_left_soon: the same, for a script that could not wait for its guard.
nothing_left_soon()
{
    local tenths=150

    until nothing_left >/dev/null; do
        tenths=$((tenths - 1))
        [ "$tenths" -gt 0 ] || break
        sleep 0.1
    done
    nothing_left
}

# --- a command beside a server

# shellcheck disable=SC2016 # the command expands them
check 'a command finds the server by its environment' \
    "$server" run --set work_mem=3MB -- bash -c '
        [ "$("$psql" -Atc "show work_mem")" = 3MB ] &&
        [ "$("$psql" -Atc "select 1" "$LIDO_PG_TCP_CONNINFO")" = 1 ] &&
        "$server" restart "$LIDO_PG_DIR" kill &&
        [ "$("$psql" -Atc "select 2" "$LIDO_PG_CONNINFO")" = 2 ] &&
        "$server" stop "$LIDO_PG_DIR" fast &&
        ! "$psql" -Atc "select 3" 2>/dev/null &&
        "$server" restart "$LIDO_PG_DIR" &&
        [ "$("$psql" -Atc "select 4")" = 4 ]'
check 'and leaves nothing' nothing_left

status=0
"$server" run -- bash -c 'exit 7' || status=$?
check 'the status of the command is passed on' [ "$status" -eq 7 ]
check 'a command that fails leaves nothing' nothing_left

# --- TLS and passwords

# shellcheck disable=SC2016
check 'with --tls --scram a TCP connection has both' \
    "$server" run --tls --scram -- bash -c '
        [ "$("$psql" -Atc "select ssl from pg_stat_ssl where pid = pg_backend_pid()" "$LIDO_PG_TCP_CONNINFO")" = t ] &&
        ! "$psql" -Atc "select 1" "$LIDO_PG_TCP_CONNINFO password=wrong" 2>/dev/null &&
        ! "$psql" -Atc "select 1" "$LIDO_PG_TCP_CONNINFO sslmode=disable" 2>/dev/null &&
        [ "$("$psql" -Atc "select 1")" = 1 ]'

# --- a folder of one's own

mkdir "$scratch/mine"
check 'start makes a server in a folder' "$server" start "$scratch/mine" >/dev/null
check 'start twice is harmless after a stop' \
    bash -c '"$server" stop "$1" && "$server" start "$1" >/dev/null' - "$scratch/mine"
check 'remove ends it' "$server" remove "$scratch/mine"
refuse 'and its folder is gone' [ -e "$scratch/mine" ]
mkdir "$scratch/full" && touch "$scratch/full/something"
refuse 'start does not touch a folder that holds something else' "$server" start "$scratch/full" 2>/dev/null

# --- a standby

make_replicas()
{
    "$server" start "$scratch/first" --replicas && "$server" standby "$scratch/second" "$scratch/first"
} >/dev/null
in_recovery()
{
    "$psql" -Atc 'select pg_is_in_recovery()' -d "$(cat "$scratch/$1/conninfo")"
}
# A rejoined server may be asked before it lets anybody in.
is_standby_soon()
{
    local tenths=150

    until [ "$(in_recovery "$1" 2>/dev/null)" = t ]; do
        tenths=$((tenths - 1))
        [ "$tenths" -gt 0 ] || return 1
        sleep 0.1
    done
}
mkdir "$scratch/first" "$scratch/second"
check 'a server with --replicas has a standby' make_replicas
check 'which is one' is_standby_soon second
check 'promote makes a primary of it' "$server" promote "$scratch/second"
check 'which it is' [ "$(in_recovery second)" = f ]
check 'rejoin makes a standby of the other' bash -c '"$server" rejoin "$1" "$2" >/dev/null' - "$scratch/first" "$scratch/second"
check 'which it is too' is_standby_soon first
check 'both are removed' bash -c '"$server" remove "$1" && "$server" remove "$2"' - "$scratch/first" "$scratch/second"

# --- signals: to the whole foreground group as Ctrl-C sends it, to the script alone, and the one that nobody catches

# ended_by SIGNAL WHOM: starts a server with a command, signals them, and waits for the end of both.
ended_by()
{
    local pid

    rm -f "$scratch/up"
    # A background child ignores SIGINT, as may this whole test; a terminal's foreground child does not.
    env --default-signal=INT,TERM,HUP setsid "$server" run -- bash -c 'touch "$TMPDIR/up"; exec sleep 300' &
    pid=$!
    while [ ! -e "$scratch/up" ]; do
        kill -0 "$pid" 2>/dev/null || return 1
        sleep 0.1
    done
    if [ "$2" = group ]; then
        kill -s "$1" -- "-$pid"
    else
        kill -s "$1" "$pid"
    fi
    # bash announces a job that died by a signal; that is what is wanted here.
    { wait "$pid" || true; } 2>/dev/null
    if [ "$1" = KILL ]; then
        # With the script alone killed, nobody can tell the command.
        kill -s KILL -- "-$pid" 2>/dev/null || true
        return 0
    fi
    # Orphans are reaped in their own time.
    local tenths=100
    while kill -0 -- "-$pid" 2>/dev/null; do
        tenths=$((tenths - 1))
        if [ "$tenths" -eq 0 ]; then
            echo "the command still runs"
            return 1
        fi
        sleep 0.1
    done
}

for case in 'INT group' 'INT alone' 'TERM group' 'TERM alone' 'HUP alone'; do
    # shellcheck disable=SC2086 # two words
    check "SIG$case ends it" ended_by $case
    check "SIG$case leaves nothing" nothing_left
done
for case in 'KILL group' 'KILL alone'; do
    # shellcheck disable=SC2086 # two words
    check "SIG$case ends it" ended_by $case
    check "SIG$case leaves nothing" nothing_left_soon
done
checks_done
