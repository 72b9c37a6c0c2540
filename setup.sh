# Sourced by demo.sh and test.sh in the project's folder: creates .venv once, and reinstalls when requirements or
# constraints have changed. Usage: source setup.sh REQUIREMENTS_FILE
setup() {
    local requirements=$1 python="" candidate
    local stamp=.venv/installed-$requirements
    if [ ! -x .venv/bin/python ]; then
        # python3 first, then every python3.N on the PATH, the newest first.
        for candidate in python3 $(compgen -c python3. | grep -xE 'python3\.[0-9]+' | sort -u -t. -k2,2nr); do
            if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
                python=$candidate
                break
            fi
        done
        if [ -z "$python" ]; then
            echo "Python 3.10 or newer with the venv module is needed; found: $(python3 --version 2>&1)." >&2
            echo "On Debian and Ubuntu: apt install python3-venv" >&2
            return 1
        fi
        "$python" -m venv .venv
    fi
    if ! cat constraints.txt requirements.txt "$requirements" | cmp -s - "$stamp"; then
        echo "Installing $requirements into .venv (PyTorch and more: 5 GB of disk, two to ten minutes) ..."
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$requirements" -c constraints.txt
        cat constraints.txt requirements.txt "$requirements" >"$stamp"
    fi
}
setup "$1"
