#!/bin/sh
# Makes ./configure from configure.ac and Makefile.am. Needs autoconf, automake, libtool and pkg-config.
set -eu
cd "$(dirname "$0")"
mkdir -p m4

# autoreconf writes a file of ten random letters here, and leaves it when it is interrupted.
before=$(ls)
interrupted()
{
    for file in *; do
        case $file in
        *[!A-Za-z0-9_]*) ;;
        ??????????) echo "$before" | grep -qx "$file" || rm -f "$file" ;;
        esac
    done
    trap - "$1"
    kill -s "$1" $$
}
trap 'interrupted INT' INT
trap 'interrupted TERM' TERM
trap 'interrupted HUP' HUP

autoreconf --install --force "$@"
