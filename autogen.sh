#!/bin/sh
# Makes ./configure from configure.ac and Makefile.am. Needs autoconf, automake, libtool and pkg-config.
set -eu
cd "$(dirname "$0")"
mkdir -p m4
exec autoreconf --install --force "$@"
