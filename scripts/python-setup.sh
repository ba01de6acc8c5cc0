#!/usr/bin/env bash
# Make .venv hold exactly what requirements.lock names, and this package, editable. Quick when nothing changed.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
stamp=.venv/.installed
want=$( (cat requirements.lock pyproject.toml; pwd) | sha256sum | cut -d' ' -f1)
[ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && exit 0

command -v "$python" >/dev/null || scripts/debian.sh "Trunkline" python3
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "Python 3.11 or later is needed, $python is $("$python" -V 2>&1): set PYTHON=..." >&2
    exit 1
fi
if [ ! -x .venv/bin/python ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    "$python" -c 'import venv, ensurepip' 2>/dev/null || scripts/debian.sh "a virtual environment" python3-venv
    "$python" -m venv --clear .venv
fi
pip=(.venv/bin/python -m pip --disable-pip-version-check --quiet)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "installing what requirements.lock names into .venv" >&2
if ! "${pip[@]}" install --require-hashes --only-binary :all: -r requirements.lock >"$log" 2>&1 ||
    ! "${pip[@]}" install --no-deps --no-build-isolation --editable . >>"$log" 2>&1; then
    tail -n 5 "$log" >&2
    echo "pip could not install the packages (last lines above): is a package index reachable?" >&2
    exit 1
fi
# Else the first start compiles it; without a compiler the media engine does without.
.venv/bin/python -m trunkline.media.native 2>/dev/null || true
echo "$want" >"$stamp"
