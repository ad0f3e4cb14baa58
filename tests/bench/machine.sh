#!/usr/bin/env bash
# Describes the machine and the libraries that a measurement ran on, as text.
set -uo pipefail

field() { sed -n "s/^$1[[:space:]]*: *//p" /proc/cpuinfo 2>/dev/null | head -n 1; }
version() { pkg-config --modversion "$1" 2>/dev/null || echo none; }

echo "processor   $(field 'model name'), $(nproc) cores online, $(field 'cpu MHz') MHz"
grep -qw hypervisor /proc/cpuinfo 2>/dev/null && echo 'virtual     yes: a halted core wakes by way of the hypervisor'
echo "governor    $(cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor 2>/dev/null || echo 'not told')"
echo "memory      $(awk '/^MemTotal/ { printf "%.1f GiB", $2 / 1048576 }' /proc/meminfo 2>/dev/null)"
echo "system      $(uname -srm), $(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release 2>/dev/null)"
echo "C library   $(getconf GNU_LIBC_VERSION 2>/dev/null || echo other)"
echo "compiler    $(${CC:-cc} --version 2>/dev/null | head -n 1); ${BENCH_CFLAGS:-flags not told}"
echo "libraries   apr $(version apr-1), apr-util $(version apr-util-1), ck $(version ck), glib $(version glib-2.0)," \
        "libzdb $(version zdb), sqlite $(version sqlite3), libuv $(version libuv), libpq $(version libpq)"
echo "load        $(cut -d' ' -f1-3 /proc/loadavg 2>/dev/null) (1, 5 and 15 minutes)"
echo "date        $(date -u '+%Y-%m-%d %H:%M UTC')"
