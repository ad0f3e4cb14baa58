#!/bin/bash
# pgserver.sh - a throw-away PostgreSQL server for tests and examples, on a Unix socket and a free loopback port.
set -eu
# shellcheck source=tests/support/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

usage()
{
    cat <<'END'
pgserver.sh run [OPTION]... -- COMMAND...   run a command beside a server, which goes when the command ends
pgserver.sh start DIR [OPTION]...           start a server that lives in DIR (made if missing); print how to connect
pgserver.sh stop DIR [MODE]                 end the server; DIR and its data stay, and start brings it back
pgserver.sh restart DIR [MODE]              end the server, if it still runs, and start it again on the same port
pgserver.sh standby DIR PRIMARY             start a standby in DIR of the server that lives in PRIMARY, a copy of it
pgserver.sh promote DIR                     make a primary of a standby
pgserver.sh rejoin DIR PRIMARY              end the server in DIR, wind its data back, and start it as a standby of PRIMARY
pgserver.sh remove DIR                      end the server at once and remove DIR
pgserver.sh find                            print the folder of PostgreSQL's programs

  --tls             a certificate, and no TCP connection without TLS
  --scram           TCP connections need a password (SCRAM-SHA-256); the socket stays open to all who reach it
  --replicas        it may have standbys
  --set NAME=VALUE  a setting for postgresql.conf

MODE is immediate (unless said otherwise), fast, smart, or kill: SIGKILL to every process of the server.

"run" tells the command by its environment:
  LIDO_PG_CONNINFO      how to connect by the socket            LIDO_PG_DIR    DIR, for stop and restart
  LIDO_PG_TCP_CONNINFO  how to connect by TCP, with the         LIDO_PGSERVER  the path of this script
                        password and certificate if any         PGHOST, PGPORT, PGUSER, PGDATABASE  for psql and pgbench

The newest version under /usr/lib/postgresql is taken, or the one in $PGBIN. PostgreSQL refuses to run as root; for root
the server runs as the user postgres, or nobody. DIR/log is what the server says. There is no fsync: the data is to be lost.
END
}

# ---- where and who --------------------------------------------------------------------------------------------

find_bin()
{
    if [ -n "${PGBIN:-}" ]; then
        bin=$PGBIN
    else
        bin=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -t/ -k5,5n | tail -n 1)
    fi
    [ -x "$bin/initdb" ] && [ -x "$bin/pg_ctl" ]
}

need_bin()
{
    find_bin || die "no PostgreSQL server found in /usr/lib/postgresql or \$PGBIN (Debian: postgresql)"
}

# The user that the server runs as, when we are root; otherwise ourselves.
server_user=
if [ "$(id -u)" -eq 0 ]; then
    server_user=nobody
    if getent passwd postgres >/dev/null; then
        server_user=postgres
    fi
fi

# as_server COMMAND...: runs it as that user, in DIR, with nothing of the caller's PostgreSQL environment.
as_server()
{
    local run=(env -u PGHOST -u PGPORT -u PGUSER -u PGDATABASE -u PGDATA -u PGOPTIONS LC_ALL=C TZ=UTC "$@")

    if [ -n "$server_user" ]; then
        run=(setpriv --reuid="$server_user" --regid="$(id -g "$server_user")" --clear-groups -- "${run[@]}")
    fi
    (cd "$dir" && exec "${run[@]}")
}

# ---- start ----------------------------------------------------------------------------------------------------

# A port below the range that the kernel gives to clients (32768 and up), so that no connection takes it meanwhile.
random_port()
{
    echo $((10000 + (RANDOM * 32768 + RANDOM) % 22000))
}

make_cluster()
{
    local initdb=("$bin/initdb" -D "$dir/data" -U postgres -E UTF8 --no-locale --no-sync --no-instructions --auth=trust)

    if [ "$scram" = yes ]; then
        password=lido-$RANDOM$RANDOM
        printf '%s\n' "$password" >"$dir/password"
        initdb+=(--auth-host=scram-sha-256 --pwfile="$dir/password")
        give "$dir/password" 600
    fi
    as_server "${initdb[@]}" >"$dir/initdb.log" 2>&1 || {
        cat "$dir/initdb.log" >&2
        die "initdb failed"
    }

    {
        echo "listen_addresses = '127.0.0.1'"
        echo "unix_socket_directories = '$dir'"
        echo "max_connections = 200"
        echo "shared_buffers = 32MB"
        # Kept in the data folder, so that nothing is left in /dev/shm by a server that is killed.
        echo "dynamic_shared_memory_type = mmap"
        printf '%s = off\n' fsync synchronous_commit full_page_writes autovacuum jit
        if [ "$replicas" = yes ]; then
            echo "full_page_writes = on"
            echo "wal_log_hints = on"
            echo "max_wal_senders = 10"
            echo "wal_keep_size = 256MB"
            echo "wal_retrieve_retry_interval = 100ms"
        else
            echo "wal_level = minimal"
            echo "max_wal_senders = 0"
        fi
        if [ "$tls" = yes ]; then
            echo "ssl = on"
            echo "ssl_cert_file = '$dir/server.crt'"
            echo "ssl_key_file = '$dir/server.key'"
        fi
        [ ${#settings[@]} -eq 0 ] || printf '%s\n' "${settings[@]}"
    } >>"$dir/data/postgresql.conf"

    if [ "$tls" = yes ]; then
        make_certificate
        sed -i 's/^host /hostssl /' "$dir/data/pg_hba.conf"
        give "$dir/data/pg_hba.conf" 600
    fi
}

# place_of PRIMARY: how to connect to it.
place_of()
{
    echo "host=$1 port=$(cat "$1/port") user=postgres"
}

# Its files are those of the primary, settings included.
settle_in()
{
    echo "unix_socket_directories = '$dir'" >>"$dir/data/postgresql.conf"
}

make_standby()
{
    as_server "$bin/pg_basebackup" -D "$dir/data" -d "$(place_of "$primary")" -c fast -X stream -R --no-sync \
        >"$dir/basebackup.log" 2>&1 || {
        cat "$dir/basebackup.log" >&2
        die "pg_basebackup failed"
    }
    settle_in
}

# A server that was a primary may have written what its successor has not. Where that cannot be undone, it is copied anew.
rejoin_as_standby()
{
    stop_server fast
    if as_server "$bin/pg_rewind" -D "$dir/data" --source-server="$(place_of "$primary") dbname=postgres" -R --no-sync \
        >"$dir/rewind.log" 2>&1; then
        settle_in
        touch "$dir/data/standby.signal"
        give "$dir/data/standby.signal" 600
    else
        rm -rf "$dir/data"
        make_standby
    fi
}

make_certificate()
{
    openssl req -new -x509 -nodes -days 3650 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 \
        -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
        -out "$dir/server.crt" -keyout "$dir/server.key" >"$dir/openssl.log" 2>&1 || {
        cat "$dir/openssl.log" >&2
        die "openssl made no certificate"
    }
    give "$dir/server.crt" 644
    give "$dir/server.key" 600
}

# give FILE MODE: the server's user owns it from now on.
give()
{
    if [ -n "$server_user" ]; then
        chown "$server_user" "$1"
    fi
    chmod "$2" "$1"
}

pg_ctl_start()
{
    as_server "$bin/pg_ctl" -s -w -t 120 -D "$dir/data" -l "$dir/log" -o "-p $port" start >"$dir/pg_ctl.log" 2>&1
}

start_server()
{
    local attempts=0

    if [ -f "$dir/port" ]; then
        port=$(cat "$dir/port")
        pg_ctl_start || give_up
        return 0
    fi
    while [ "$attempts" -lt 10 ]; do
        attempts=$((attempts + 1))
        port=$(random_port)
        : >"$dir/log"
        give "$dir/log" 600
        if pg_ctl_start; then
            echo "$port" >"$dir/port"
            write_conninfo
            return 0
        fi
        # Somebody has that port: try another.
        grep -q 'Address already in use' "$dir/log" || break
    done
    give_up
}

give_up()
{
    tail -n 20 "$dir/pg_ctl.log" "$dir/log" >&2 || true
    die "the server did not start"
}

write_conninfo()
{
    local tcp="host=127.0.0.1 port=$port user=postgres dbname=postgres"

    [ "$scram" = no ] || tcp="$tcp password=$password"
    [ "$tls" = no ] || tcp="$tcp sslmode=verify-full sslrootcert=$dir/server.crt"
    echo "host=$dir port=$port user=postgres dbname=postgres" >"$dir/conninfo"
    echo "$tcp" >"$dir/conninfo.tcp"
}

# ---- stop -----------------------------------------------------------------------------------------------------

# Every process of the server, and of a start that is under way, works in DIR or below it.
server_pids()
{
    local proc comm

    find /proc -maxdepth 2 -path '/proc/[0-9]*' -name cwd \( -lname "$dir" -o -lname "$dir/*" \) -printf '%h\n' \
        2>/dev/null | while read -r proc; do
        comm=$(cat "$proc/comm" 2>/dev/null) || continue
        case $comm in
        postgres | initdb | pg_ctl) echo "${proc#/proc/}" ;;
        esac
    done || true
}

signal_server()
{
    # shellcheck disable=SC2086 # a list of numbers
    [ -z "$2" ] || kill -s "$1" $2 2>/dev/null || true
}

# stop_server MODE: returns when no process of it is left.
stop_server()
{
    local postmaster waits=0 patience=50 pids

    postmaster=$(head -n 1 "$dir/data/postmaster.pid" 2>/dev/null || true)
    pids=$(server_pids)
    # The pid file of a server that was killed may name a process of somebody else.
    case " ${pids//$'\n'/ } " in
    *" $postmaster "*) ;;
    *) postmaster= ;;
    esac
    case $1 in
    immediate) signal_server QUIT "$postmaster" ;;
    fast) patience=600 && signal_server INT "$postmaster" ;;
    smart) patience=600 && signal_server TERM "$postmaster" ;;
    kill) signal_server KILL "$pids" ;;
    *) die "stop how? immediate, fast, smart or kill" ;;
    esac
    # One that was stopped by SIGSTOP hears the signal only when it goes on.
    signal_server CONT "$pids"

    while pids=$(server_pids) && [ -n "$pids" ]; do
        waits=$((waits + 1))
        if [ "$waits" -ge "$patience" ] || [ -z "$postmaster" ]; then
            signal_server KILL "$pids"
        fi
        sleep 0.1
    done
    clear_lock
}

# A server that was killed leaves its lock files, which bar a start while a zombie still has their number, and a small
# segment of shared memory, named in line 7 of its pid file.
clear_lock()
{
    local segment

    segment=$(sed -n '7s/.* //p' "$dir/data/postmaster.pid" 2>/dev/null || true)
    if [ -n "$segment" ]; then
        ipcrm -m "$segment" 2>/dev/null || true
    fi
    rm -f "$dir/data/postmaster.pid" "$dir"/.s.PGSQL.*
}

# remove_server: ends what runs and removes DIR.
remove_server()
{
    stop_server immediate
    # A start that was under way may still have added a file; then there is a second try.
    rm -rf "$dir" 2>/dev/null || { stop_server kill && rm -rf "$dir"; }
}

# ---- run ------------------------------------------------------------------------------------------------------

# The socket's path may have 107 bytes, and the server's user must be able to reach it.
make_run_dir()
{
    local base=${TMPDIR:-/tmp}

    if [ ${#base} -gt 70 ] || ! (dir=/ && as_server test -x "$base"); then
        base=/tmp
    fi
    dir=$(mktemp -d "$base/lido-pg.XXXXXX")
    take_dir
}

take_dir()
{
    dir=$(cd "$dir" && pwd -P)
    give "$dir" 700
}

# The guard waits for the end of this script, however it ends (SIGKILL too), and then removes the server: it reads
# from a pipe that nobody but this script holds the other end of. It has a session of its own, away from Ctrl-C.
run_beside_server()
{
    local early='' status=0

    trap 'early=INT' INT
    trap 'early=TERM' TERM
    trap 'early=HUP' HUP
    make_run_dir
    exec 9> >(
        trap '' INT TERM HUP
        exec setsid "$lido_source/tests/support/pgserver.sh" guard "$dir" >/dev/null 2>&1
    )
    guard=$!
    at_exit release_guard
    [ -z "$early" ] || leave_as "$early" 1

    # Not "start_server 9>&-": while that runs, bash keeps a copy of the descriptor, and a signal then finds it open.
    (
        exec 9>&-
        make_cluster
        start_server
    ) || exit 1
    port=$(cat "$dir/port")

    LIDO_PG_CONNINFO=$(cat "$dir/conninfo")
    LIDO_PG_TCP_CONNINFO=$(cat "$dir/conninfo.tcp")
    export LIDO_PG_CONNINFO LIDO_PG_TCP_CONNINFO
    export LIDO_PG_DIR=$dir LIDO_PGSERVER=$lido_source/tests/support/pgserver.sh
    export PGHOST=$dir PGPORT=$port PGUSER=postgres PGDATABASE=postgres

    run_child "$@" || status=$?
    leave_as "$child_signal" "$status"
}

release_guard()
{
    exec 9>&-
    ends_within 60 "$guard" || true
    # A signal to the whole group may have ended the guard before it had a session of its own.
    remove_server
}

# ---- the command line -----------------------------------------------------------------------------------------

tls=no
scram=no
replicas=no
settings=()
rest=()

parse_options()
{
    while [ $# -gt 0 ]; do
        case $1 in
        --tls) tls=yes ;;
        --scram) scram=yes ;;
        --replicas) replicas=yes ;;
        --set) settings+=("${2:?--set NAME=VALUE}") && shift ;;
        --) shift && rest=("$@") && break ;;
        *) die "unknown option: $1 (see --help)" ;;
        esac
        shift
    done
}

need_primary()
{
    primary=${1:?of which PRIMARY?}
    [ -f "$primary/port" ] || die "no server lives in $primary"
    primary=$(cd "$primary" && pwd -P)
}

need_dir()
{
    dir=${1:?which DIR?}
    [ -d "$dir" ] || die "no such folder: $dir"
    dir=$(cd "$dir" && pwd -P)
}

command=${1:-}
[ $# -eq 0 ] || shift
case $command in
run)
    need_bin
    parse_options "$@"
    [ ${#rest[@]} -gt 0 ] || die "run what? (see --help)"
    run_beside_server "${rest[@]}"
    ;;
start)
    need_bin
    dir=${1:?which DIR?}
    shift
    parse_options "$@"
    mkdir -p "$dir"
    if [ ! -f "$dir/port" ]; then
        [ -z "$(ls -A "$dir")" ] || die "$dir holds something else"
        take_dir
        make_cluster
    fi
    need_dir "$dir"
    start_server
    cat "$dir/conninfo"
    ;;
standby)
    need_bin
    dir=${1:?which DIR?}
    need_primary "${2:-}"
    mkdir -p "$dir"
    if [ ! -f "$dir/port" ]; then
        [ -z "$(ls -A "$dir")" ] || die "$dir holds something else"
        take_dir
        make_standby
    fi
    need_dir "$dir"
    start_server
    cat "$dir/conninfo"
    ;;
promote)
    need_bin
    need_dir "$@"
    as_server "$bin/pg_ctl" -s -w -t 120 -D "$dir/data" promote
    ;;
rejoin)
    need_bin
    need_dir "$@"
    need_primary "${2:-}"
    rejoin_as_standby
    start_server
    ;;
stop)
    need_dir "$@"
    stop_server "${2:-immediate}"
    ;;
restart)
    need_bin
    need_dir "$@"
    stop_server "${2:-immediate}"
    start_server
    ;;
remove)
    need_dir "$@"
    remove_server
    ;;
guard)
    need_dir "$@"
    cat >/dev/null
    remove_server
    ;;
find)
    need_bin
    echo "$bin"
    ;;
--help | -h) usage ;;
*)
    usage >&2
    exit 2
    ;;
esac
