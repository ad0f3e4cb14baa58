#!/bin/bash
# proxies.sh - lido behind pgbouncer, in session and in transaction mode, and behind HAProxy in front of a primary and its standby,
# one of which is lost on the way. Each run books its entries exactly once. make check runs it; by hand:
#
#   LIDO_BUILD=build examples/proxies.sh
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/support/lib.sh
. "$here/../tests/support/lib.sh"

build=${LIDO_BUILD:?run me by make check, or say where the build is}
program=$build/examples/proxied
server=$here/../tests/support/pgserver.sh
PATH=$PATH:/usr/sbin

lacks()
{
    echo "there is no $1 on this machine (Debian: $2)"
    [ -n "${LIDO_REQUIRE_SERVER:-}" ] && exit 1
    exit 77
}
[ -x "$program" ] || { echo "there is no $program" && exit 77; }
bin=$("$server" find 2>/dev/null) || lacks PostgreSQL postgresql
command -v pgbouncer >/dev/null || lacks pgbouncer pgbouncer
command -v haproxy >/dev/null || lacks HAProxy haproxy

make_scratch
chmod 755 "$scratch"
mkdir -m 777 "$scratch/proxies"
pids=() booking=''

end_all()
{
    local pid

    for pid in "${pids[@]}" $booking; do
        kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || :
    done
    for dir in "$scratch/first" "$scratch/second"; do
        [ ! -d "$dir" ] || "$server" remove "$dir" || :
    done
    drop_scratch
}
at_exit end_all

# Neither proxy wants to be root; those who are give it the user that they give to the server.
unprivileged()
{
    local user=nobody

    if [ "$(id -u)" -ne 0 ]; then
        exec "$@"
    fi
    if getent passwd postgres >/dev/null; then
        user=postgres
    fi
    exec setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups -- "$@"
}

sql()
{
    "$bin/psql" -XAtq -d "$1" -c "$2"
}

# answers CONNINFO: whether somebody answers there, soon.
answers()
{
    local tenths=300

    until sql "$1" 'select 1' >/dev/null 2>&1; do
        tenths=$((tenths - 1))
        [ "$tenths" -gt 0 ] || return 1
        sleep 0.1
    done
}

random_port()
{
    echo $((10000 + (RANDOM * 32768 + RANDOM) % 22000))
}

# start_proxy NAME COMMAND...: starts one that listens at $port, which is written into its configuration by write_NAME.
start_proxy()
{
    local name=$1 attempt pid

    shift
    for attempt in 1 2 3 4 5; do
        port=$(random_port)
        "write_$name" >"$scratch/proxies/$name.conf"
        (cd / && unprivileged "$@") >"$scratch/proxies/$name.log.$attempt" 2>&1 &
        pid=$!
        if answers "host=127.0.0.1 port=$port $who connect_timeout=5" && kill -0 "$pid" 2>/dev/null; then
            pids+=("$pid")
            proxy_pid=$pid
            return 0
        fi
        kill "$pid" 2>/dev/null || :
        cat "$scratch/proxies/$name.log.$attempt" >&2
    done
    die "$name did not start"
}

end_proxy()
{
    kill "$proxy_pid" 2>/dev/null || :
    wait "$proxy_pid" 2>/dev/null || :
}

who="user=postgres dbname=postgres"
first=$scratch/first second=$scratch/second
"$server" start "$first" --replicas >/dev/null
sql "$(cat "$first/conninfo")" 'create table ledger (entry int primary key)'

empty_ledger()
{
    sql "$(cat "$first/conninfo")" 'truncate ledger'
}

# ---- pgbouncer ------------------------------------------------------------------------------------------------

write_pgbouncer()
{
    cat <<CONF
[databases]
postgres = host=$first port=$(cat "$first/port") user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $port
unix_socket_dir =
auth_type = any
pool_mode = $pool_mode
default_pool_size = $pool_size
max_client_conn = 100
CONF
}

pool_mode=transaction pool_size=3
start_proxy pgbouncer pgbouncer "$scratch/proxies/pgbouncer.conf"
check 'behind pgbouncer in transaction mode 8 connections share 3 backends and nothing is lost' \
    "$program" "host=127.0.0.1 port=$port $who" 16 2000 transaction
backends=$(sql "$(cat "$first/conninfo")" "select count(*) from pg_stat_activity where application_name = 'proxied'")
check 'and there were no more' [ "$backends" -le 3 ]
end_proxy

empty_ledger
pool_mode=session pool_size=8
start_proxy pgbouncer pgbouncer "$scratch/proxies/pgbouncer.conf"
check 'behind pgbouncer in session mode each of the 8 connections has a backend and nothing is lost' \
    "$program" "host=127.0.0.1 port=$port $who" 16 2000 session
end_proxy

# ---- HAProxy --------------------------------------------------------------------------------------------------

# It balances over all servers that answer, knowing nothing of roles: lido asks each new session, and goes on until it has the
# primary.
write_haproxy()
{
    cat <<CONF
defaults
    mode tcp
    timeout connect 2s
    timeout client 1h
    timeout server 1h
    option pgsql-check user postgres
listen postgres
    bind 127.0.0.1:$port
    balance roundrobin
    default-server check inter 200ms fall 1 rise 1 on-marked-down shutdown-sessions
    server first 127.0.0.1:$(cat "$first/port")
    server second 127.0.0.1:$(cat "$second/port")
CONF
}

empty_ledger
"$server" standby "$second" "$first" >/dev/null
start_proxy haproxy haproxy -db -f "$scratch/proxies/haproxy.conf"
through="host=127.0.0.1 port=$port $who target_session_attrs=read-write"
check 'behind HAProxy in front of a primary and a standby all goes to the primary' "$program" "$through" 16 2000 session

# How many there are when the first is lost does not matter: each that was told to be booked is on the second too, for a commit
# waits for it.
empty_ledger
sql "$(cat "$first/conninfo")" "alter system set synchronous_commit = remote_apply" >/dev/null
sql "$(cat "$first/conninfo")" "alter system set synchronous_standby_names = '*'" >/dev/null
sql "$(cat "$first/conninfo")" "select pg_reload_conf()" >/dev/null
"$program" "$through" 16 20000 session >"$scratch/failover.out" 2>&1 &
booking=$!
until [ "$(sql "$(cat "$second/conninfo")" 'select count(*) from ledger')" -ge 500 ]; do
    kill -0 "$booking"
done
"$server" stop "$first" immediate
"$server" promote "$second"
sql "$(cat "$second/conninfo")" "alter system set synchronous_standby_names = ''" >/dev/null
sql "$(cat "$second/conninfo")" "select pg_reload_conf()" >/dev/null
check 'the primary is lost and the standby promoted: every entry is booked' wait "$booking"
booking=''
cat "$scratch/failover.out"
end_proxy
checks_done
