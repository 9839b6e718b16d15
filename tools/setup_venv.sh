#!/usr/bin/env bash
# Makes the virtual environment FOLDER (first argument) and installs Plimsoll with everything for development into it.
# Safe to run again: what is there and fits is kept. Needs only Python 3.11 to 3.13 with venv.
set -euo pipefail
venv=${1:?the folder of the virtual environment}

fits='import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'

find_python() {
    local name
    for name in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if command -v "$name" >/dev/null && "$name" -c "$fits" 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    return 1
}

explain_missing() {
    local found line
    found=$(python3 --version 2>/dev/null || echo 'no python3')
    python3 -c 'import venv, ensurepip' 2>/dev/null || found="$found without venv"
    command -v python3 >/dev/null || found='no python3'
    if command -v apt-get >/dev/null; then
        line='sudo apt-get install -y python3 python3-venv'
    elif command -v dnf >/dev/null; then
        line='sudo dnf install -y python3.12'
    elif command -v brew >/dev/null; then
        line='brew install python@3.12'
    else
        line='install Python 3.11, 3.12 or 3.13 with its venv module'
    fi
    cat >&2 <<END
Plimsoll needs Python 3.11, 3.12 or 3.13 with the venv module; this machine has $found.
Type this, then run make again (or name another Python: make PYTHON=/path/to/python3.12 ...):

    $line

END
}

if ! { [ -x "$venv/bin/python" ] && "$venv/bin/python" -c "$fits" 2>/dev/null; }; then
    python=$(find_python) || { explain_missing; exit 1; }
    echo "-- $venv: a virtual environment with $("$python" --version)"
    "$python" -m venv --clear "$venv"
fi

echo "-- $venv: uv"
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$venv/bin/python" -m ensurepip >/dev/null
if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv; then
    echo "uv could not be installed: see the lines above; a package index must be reachable, or pip told of one." >&2
    exit 1
fi

echo "-- $venv: plimsoll and what it needs (constraints.txt says which versions)"
if ! "$venv/bin/uv" pip install --python "$venv/bin/python" \
    --constraint constraints.txt --build-constraint constraints.txt --editable '.[all]'; then
    echo "-- uv did not get through; pip, which reads other settings of this machine, is slower but may"
    "$venv/bin/python" -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[all]'
fi
