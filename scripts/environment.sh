# Sourced by the other scripts: makes .venv and installs into it what constraints.txt pins.
# Needs bash and Python 3.11+ with its venv module, nothing else. Safe to run again and again.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1

# Where the sources may not be kept compiled, each of the many processes of a run compiles them anew.
unset PYTHONDONTWRITEBYTECODE

say() { printf '%s\n' "$*" >&2; }

# Prints the interpreter to use. STEMMATA_PYTHON decides if it is set.
find_python() {
    local candidate old="" bare=""
    for candidate in ${STEMMATA_PYTHON:-python3.13 python3.12 python3.11 python3 python}; do
        command -v "$candidate" >/dev/null 2>&1 || continue
        if ! "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            old="$old $candidate"
        elif ! "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            bare="$bare $candidate"
        else
            command -v "$candidate"
            return 0
        fi
    done
    if [ -n "$bare" ]; then
        say "error:$bare cannot make virtual environments: the modules venv and ensurepip are missing."
        say "Install them (on Debian and Ubuntu: apt install python3-venv), then run this again."
    elif [ -n "$old" ]; then
        say "error: Python 3.11 or newer is needed; found only older ones:$old."
        say "Install a newer Python, or name one: STEMMATA_PYTHON=/path/to/python3.12 $0"
    else
        say "error: no Python found. Install Python 3.11 or newer,"
        say "or name one: STEMMATA_PYTHON=/path/to/python3.12 $0"
    fi
    return 1
}

# What an installation depends on: a moved checkout counts, for the editable install holds its path.
fingerprint() {
    "$1" - "$root" pyproject.toml constraints.txt hatch_build.py src/stemmata/codecs/kernels*.[ch] <<'P'
import hashlib, pathlib, sys
whole = hashlib.sha256(sys.argv[1].encode() + sys.version.encode())
for name in sys.argv[2:]:
    whole.update(pathlib.Path(name).read_bytes())
print(whole.hexdigest())
P
}

# ensure_environment EXTRA: .venv exists and holds the extra. `dev` includes every other one in use.
ensure_environment() {
    local extra=$1 python=.venv/bin/python made found
    if ! "$python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        made=$(find_python) || return 1
        say "Making a virtual environment in .venv with $made"
        "$made" -m venv --clear .venv || return 1
    fi
    found=$(fingerprint "$python") || return 1
    for made in "$extra" dev; do
        if [ "$(cat ".venv/installed-$made" 2>/dev/null)" = "$found" ]; then
            return 0
        fi
    done
    say "Installing stemmata[$extra] with the versions of constraints.txt (the first time this takes minutes)"
    # What is installed is compiled when it is imported: most of it never is, and all of it takes minutes.
    if ! "$python" -m pip install --disable-pip-version-check --quiet --no-compile \
        --constraint constraints.txt --editable ".[$extra]"; then
        say "error: the installation failed; what pip says stands above. Nothing outside .venv was changed."
        return 1
    fi
    printf '%s\n' "$found" >".venv/installed-$extra"
}
