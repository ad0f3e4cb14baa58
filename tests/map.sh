#!/bin/bash
# map.sh - tests/README.md maps each promise, and each mistake not to be made, to the tests that show it: every row is there, once;
# each names tests, or says `none:` and why; and each test that is named exists, in the file that is named.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/support/lib.sh
. "$here/support/lib.sh"

# What there must be: 35 features of a pool, 20 traps, 3 things for operators; 12 of buffers, 12 of workers; 21 of PostgreSQL
# connections, 25 mistakes with libpq.
wanted_rows()
{
    local i

    for i in $(seq 35); do echo "C$i"; done
    for i in $(seq 20); do echo "T$i"; done
    for i in $(seq 3); do echo "X$i"; done
    for i in $(seq 12); do echo "B$i"; done
    for i in $(seq 12); do echo "W$i"; done
    for i in $(seq 21); do echo "P$i"; done
    for i in $(seq 25); do echo "M$i"; done
}

# rows PAGE: prints "row<TAB>shown by" for each row of the table.
rows()
{
    sed -nE 's/^\| ([BCMPTWX][0-9]+) \| [^|]+ \| (.*) \|$/\1\t\2/p' "$1"
}

# judge PAGE TESTS: prints what is wrong with the map in PAGE, the tests being in the folder TESTS; succeeds when nothing is.
judge()
{
    local page=$1 tests=$2 row shown named file claim wrong

    wrong=$(
        diff <(wanted_rows | sort) <(rows "$page" | cut -f 1 | sort) | sed -nE 's/^< (.*)/\1 is not in the table/p; s/^> (.*)/\1 is in the table too often, or is none/p'
        rows "$page" | while IFS=$'\t' read -r row shown; do
            case $shown in
            'none: '?*) continue ;;
            *'`'*) ;;
            *) echo "$row names no test" ;;
            esac
            grep -oE '`[^`]+`' <<<"$shown" | tr -d '`' | while IFS= read -r named; do
                file=${named%%: *}
                claim=${named#*: }
                grep -qE "^START_TEST\($claim\)" "$tests/$file.c" 2>/dev/null || echo "$row names \"$claim\", which is not in tests/$file.c"
            done
        done
    )
    [ -z "$wrong" ] || printf '%s\n' "$wrong"
    [ -z "$wrong" ]
}

# planted SED: whether the page, changed like this, is refused.
planted()
{
    sed -E "$1" "$here/README.md" >"$scratch/page.md"
    ! judge "$scratch/page.md" "$here" >/dev/null
}

make_scratch

check 'every promise is mapped to tests that exist' judge "$here/README.md" "$here"

check 'a row that is missing is found' planted '/^\| C7 /d'
check 'a row that is there twice is found' planted '/^\| C7 /p'
check 'a row that names nothing is found' planted 's/^\| C7 \| .*/| C7 | opens | |/'
check 'a test that does not exist is found' planted 's/`keeper\/grow: a_burst/`keeper\/grow: no_burst/'
check 'a test in another file is found' planted 's/`keeper\/grow: a_burst/`keeper\/pass: a_burst/'

shown_by_none=$(rows "$here/README.md" | grep -c $'\tnone: ' || true)
say "$shown_by_none of $(wanted_rows | wc -l) rows are shown by no test:"
rows "$here/README.md" | sed -nE 's/\tnone: (.*)/: \1/p'
checks_done
