#!/usr/bin/env bash
# Writes constraints.txt: one exact version of every package that Plimsoll, its tests and its build can pull in,
# for Python 3.11 to 3.13. Versions that still fit are kept; `rm constraints.txt` first takes the newest of all.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -s constraints.txt ] || rm -f constraints.txt
new=$(mktemp)
trap 'rm -f "$new"' EXIT
[ ! -f constraints.txt ] || cp constraints.txt "$new"
echo editables | .venv/bin/uv pip compile pyproject.toml - --extra all --universal --python-version 3.11 \
    --fork-strategy fewest --no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet --output-file "$new" >/dev/null
{
    echo '# The versions Plimsoll is tested with, on Python 3.11 to 3.13. Made by `make constraints`.'
    cat "$new"
} | awk '!/^#/ || NR == 1' >constraints.txt
