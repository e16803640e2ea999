#!/bin/sh
# Creates an environment from a hash-locked list of requirements, with the first working Python >= 3.12.
#     sh setup.sh [.venv [requirements.lock]]
# An interpreter on PATH may be a broken shim, so each is tried before it is chosen.
set -eu
cd "$(dirname "$0")"
environment=${1:-.venv}
lock=${2:-requirements.lock}

runs() {
    "$1" -c 'import ensurepip, sqlite3, ssl, sys, venv; sys.exit(not (3, 12) <= sys.version_info[:2] < (3, 15))' \
        >/dev/null 2>&1
}

find_python() {
    for version in 3.12 3.13 3.14; do # 3.12 first: the lock is compiled and tested with it
        for python in "python$version" "$HOME/.pyenv/versions/$version"*/bin/python3 \
            "$HOME/.local/share/uv/python/cpython-$version"*/bin/python3 \
            "/usr/local/bin/python$version" "/opt/homebrew/bin/python$version"; do
            if runs "$python"; then
                echo "$python"
                return
            fi
        done
    done
    for python in python3 python; do
        if runs "$python"; then
            echo "$python"
            return
        fi
    done
}

if [ -n "${PYTHON:-}" ]; then
    runs "$PYTHON" || { echo "setup: PYTHON=$PYTHON is not a working Python 3.12 to 3.14. Name another." >&2; exit 2; }
    python=$PYTHON
else
    python=$(find_python)
fi

if [ -n "$python" ]; then
    echo "setup: creating $environment with $("$python" -c 'import sys; print(sys.executable, sys.version.split()[0])')"
    rm -rf "$environment"
    "$python" -m venv "$environment"
elif command -v uv >/dev/null 2>&1; then
    echo "setup: no Python >= 3.12 found; uv provides one"
    rm -rf "$environment"
    uv venv --quiet --seed --python 3.12 "$environment"
else
    echo "setup: no Python 3.12 to 3.14 found. Install one (from your system, pyenv or uv) and run make again," >&2
    echo "setup: or give its path: make PYTHON=/path/to/python3.12" >&2
    exit 2
fi
echo "setup: installing the locked requirements (takes a few minutes, once)"
export PIP_DISABLE_PIP_VERSION_CHECK=1
"$environment/bin/pip" install --quiet --require-hashes -r "$lock"
"$environment/bin/pip" install --quiet --no-deps --no-build-isolation -e .
touch "$environment/ready"
