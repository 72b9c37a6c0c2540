# Sourced by demo.sh and test.sh, from the project's folder: makes .venv once, and again when
# what it needs has changed. Usage: source setup.sh REQUIREMENTS_FILE
setup() {
    local requirements=$1 python="" candidate
    local stamp=.venv/installed-$requirements
    if [ ! -x .venv/bin/python ]; then
        for candidate in python3 python3.13 python3.12 python3.11 python3.10; do
            if command -v "$candidate" >/dev/null &&
                "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null; then
                python=$candidate
                break
            fi
        done
        if [ -z "$python" ]; then
            echo "Python 3.10 to 3.13 with the venv module is needed; found: $(python3 --version 2>&1)." >&2
            echo "On Debian and Ubuntu: apt install python3-venv" >&2
            return 1
        fi
        "$python" -m venv .venv
    fi
    if ! cat constraints.txt requirements.txt "$requirements" | cmp -s - "$stamp"; then
        echo "Installing $requirements into .venv (downloads PyTorch and more, about 5 GB on the disk; two to ten minutes) ..."
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$requirements" -c constraints.txt
        cat constraints.txt requirements.txt "$requirements" >"$stamp"
    fi
}
setup "$1"
