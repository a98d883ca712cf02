#!/bin/sh
# Makes a virtual environment, or checks the one that is there.
# Usage: tools/make_venv.sh FOLDER [PYTHON]
# Without PYTHON it takes the first of the candidates that runs, is of a version the
# project supports and can make environments (Debian's needs python3-venv for that).
set -eu

folder=$1
asked=${2-}
candidates="python3 python3.13 python3.12 python3.11 python3.10"
supported="Python 3.10, 3.11, 3.12 or 3.13"

fail() {
    echo "error: $1" >&2
    exit 1
}

# Prints the version of an interpreter; fails if it does not run.
version() {
    "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2> /dev/null
}

is_supported() {
    case $(version "$1") in
        3.10.* | 3.11.* | 3.12.* | 3.13.*) ;;
        *) return 1 ;;
    esac
}

makes_environments() {
    "$1" -c 'import ensurepip, venv' 2> /dev/null
}

if [ -n "$asked" ]; then
    version "$asked" > /dev/null || fail "PYTHON=$asked does not run; give the path of $supported"
    is_supported "$asked" || fail "PYTHON=$asked is Python $(version "$asked"); it must be $supported"
fi

if [ -e "$folder" ]; then
    there=$(version "$folder/bin/python") ||
        fail "the Python that $folder was made with does not run any more: run \`make clean\` first"
    is_supported "$folder/bin/python" ||
        fail "$folder was made with Python $there; it must be $supported: run \`make clean\` first"
    if [ -n "$asked" ] && [ "$there" != "$(version "$asked")" ]; then
        fail "$folder was made with Python $there, not with PYTHON=$asked ($(version "$asked")): run \`make clean\` first"
    fi
    exit 0
fi

if [ -n "$asked" ]; then
    makes_environments "$asked" || fail "PYTHON=$asked lacks venv or ensurepip; on Debian install python3-venv"
else
    for python in $candidates; do
        if is_supported "$python" && makes_environments "$python"; then
            asked=$python
            break
        fi
    done
    [ -n "$asked" ] || fail "no $supported found that runs and has venv (tried $candidates); install one, or give PYTHON=/path/to/one"
fi
echo "making $folder with $asked, Python $(version "$asked")"
trap 'rm -rf "$folder"; exit 1' HUP INT TERM
"$asked" -m venv "$folder" || { rm -rf "$folder"; exit 1; }
