#!/bin/sh
# Makes the environment that `make` works in, or leaves it alone if it is whole.
#
#   scripts/environment.sh FOLDER [PYTHON]
#
# Two files in FOLDER keep account. `.mlx-router-made`: this script made the folder, so it may remove it; it holds the
# Python and the place it was made for. `.mlx-router-installed`: the installation came to its end.
set -eu
cd "$(dirname "$0")/.."

folder=$1
wanted=${2:-}
made=$folder/.mlx-router-made
installed=$folder/.mlx-router-installed

fail() {
    echo "Error: $*" >&2
    exit 2
}

# Prints the interpreter behind a candidate, which may be a shim or live in an environment; or exits with what is
# wrong. Even a Python 2 must understand it.
probe='
import os, platform, sys
if not (3, 11) <= sys.version_info[:2] <= (3, 14):
    sys.exit("is Python %d.%d" % sys.version_info[:2])
if os.environ["SYSTEM"] == "Darwin" and platform.machine() == "x86_64":
    sys.exit("is an x86 Python on Apple Silicon")
libc, version = platform.libc_ver()
if libc == "glibc" and [int(part) for part in version.split(".")[:2]] < [2, 35]:
    sys.exit("runs on glibc %s, and MLX needs 2.35" % version)
try:
    import ensurepip, venv
except ImportError:
    sys.exit("lacks venv (Debian, Ubuntu: sudo apt install python%d.%d-venv)" % sys.version_info[:2])
print(sys._base_executable)
'

# Prints the Python that an environment belongs to; also what the Python itself prints.
base='
import os, sys
print("%s %s" % (os.path.realpath(sys.base_prefix), sys.version.split()[0]))
'

# Prints what an environment was made for: its place and its Python; fails if it does not work.
identify='
import os, pip, sys
assert (3, 11) <= sys.version_info[:2] <= (3, 14)
print(os.path.realpath(sys.prefix))
'$base

check_system() {
    SYSTEM=$(uname -s)
    export SYSTEM
    case $SYSTEM in
    Linux) ;;
    Darwin)
        [ "$(sysctl -n hw.optional.arm64 2>/dev/null)" = 1 ] || fail "MLX needs a Mac with Apple Silicon, and this one has an Intel processor."
        version=$(sw_vers -productVersion)
        [ "${version%%.*}" -ge 14 ] || fail "MLX needs macOS 14 or newer, and this is macOS $version: update it in System Settings."
        ;;
    *) fail "MLX runs on macOS and Linux, not on $SYSTEM." ;;
    esac
}

# Sets `python` to the interpreter behind candidate $1, or `answer` to why it is unfit.
try() {
    answer="does not exist"
    command -v "$1" >/dev/null 2>&1 || return 1
    if answer=$("$1" -c "$probe" 2>&1); then
        python=$answer
        return 0
    fi
    case $answer in
    *"
"* | "") answer="does not run" ;; # a shim without its Python, or a broken installation
    esac
    reasons="$reasons; $1 $answer"
    return 1
}

find_python() {
    reasons=
    versions='>=3.11,<3.15'
    if [ -n "$wanted" ]; then
        try "$wanted" || fail "PYTHON=$wanted $answer."
        return
    fi
    for candidate in python3.14 python3.13 python3.12 python3.11 python3 python \
        "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.1[1-4]*/bin/python; do
        ! try "$candidate" || return 0
    done
    if command -v uv >/dev/null 2>&1; then
        # The interpreter that uv has, or fetches.
        uv python find --system "$versions" >/dev/null 2>&1 || uv python install 3.13 >&2 || true
        ! try "$(uv python find --system "$versions" 2>/dev/null)" || return 0
    fi
    fail "no Python 3.11 to 3.14 with venv was found$reasons. Install one (macOS: brew install python@3.13; Debian, Ubuntu: sudo apt install python3-venv) or name one: make PYTHON=/path/to/python3."
}

# Tells whether the folder holds a working environment, at the place and with the Python it was made for.
is_whole() {
    identity=$("$folder/bin/python" -c "$identify" 2>/dev/null) || return 1
    [ ! -e "$made" ] || [ "$identity" = "$(cat "$made")" ] || return 1
    [ -z "$wanted" ] || [ "$("$folder/bin/python" -c "$base")" = "$("$python" -c "$base")" ]
}

make_anew() {
    if [ -e "$made" ]; then
        rm -rf "$folder"
    elif [ -n "$(ls -A "$folder" 2>/dev/null)" ]; then
        fail "$folder is no environment for this Python, and make did not make it: remove it, or name another one with VENV=."
    fi
    echo "Making the environment $folder with $python" >&2
    mkdir -p "$folder"
    : >"$made"
    "$python" -m venv "$folder" || fail "$python could not make it, see above; name another Python with PYTHON=."
    "$folder/bin/python" -c "$identify" >"$made"
}

install() {
    echo "Installing mlx-router and what it needs into $folder" >&2
    rm -f "$installed"
    "$folder/bin/python" -m pip install --disable-pip-version-check --editable '.[dev]' ||
        fail "the installation failed, see above; the same command takes it up again."
    : >"$installed"
}

if [ -n "$wanted" ]; then
    check_system
    find_python
fi
if ! is_whole; then
    check_system
    if [ -z "$wanted" ]; then find_python; fi
    make_anew
fi
if ! [ "$installed" -nt pyproject.toml ]; then install; fi
