#!/usr/bin/env bash
# Does the project install and run, and with which versions? For each Python and each set of versions, creates a new
# environment (5 GB), imports everything, runs some tests, runs the network's tests again with torchaudio out of reach,
# prints a row of a table, and deletes the environment. Not part of ./test.sh.
#
#     tests/checkInstall.sh [PYTHON]...      # python3.10 python3.13 /opt/python3.14/bin/python3 ...; default: python3
#
# Sets, all of them unless SETS in the environment names some:
#     constraints  the versions of constraints.txt, as ./test.sh installs them
#     torch        constraints.txt, but the newest torch and torchaudio
#     newest       the newest of everything
#     lowest       the lower bounds of requirements.txt (Python 3.10 to 3.12 only: older packages have no others)
# TESTS: arguments of pytest, by default files that between them use every dependency. TMPDIR: where environments and
# logs go. The logs of what failed are kept. INSTALLER: pip (default), or "uv pip", which needs a tenth of the time.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
read -ra sets <<<"${SETS:-constraints torch newest lowest}"
read -ra tests <<<"${TESTS:-tests/test_mel_spectrogram.py tests/test_oracle.py tests/test_checkpoints.py \
tests/test_sound_files.py tests/test_figures.py tests/test_calibration.py}"
[ $# -gt 0 ] || set -- python3
folder=$(mktemp -d)
failed=0
mkdir "$folder/without"
echo 'raise ImportError("out of reach")' >"$folder/without/torchaudio.py"

requirements() { # SET: prints the arguments of pip install, one per line
    printf '%s\n' -r requirements-dev.txt
    case $1 in
        constraints) printf '%s\n' -c constraints.txt ;;
        torch)
            grep -vE '^torch(audio)?==' constraints.txt >"$folder/constraints.txt"
            printf '%s\n' -c "$folder/constraints.txt"
            ;;
        newest) ;;
        lowest)
            sed -nE 's/^([a-z0-9-]+)>=([0-9.]+).*/\1==\2.*/p' requirements.txt >"$folder/constraints.txt"
            printf '%s\n' -c "$folder/constraints.txt"
            ;;
        *) echo "checkInstall.sh: unknown set $1" >&2 && return 1 ;;
    esac
}

import_all() {
    "$1" - <<'END'
import importlib
import pkgutil

import syncnet

names = [*syncnet.COMMANDS, "SyncNetDist", "DatasetLoader"]
names += [module.name for module in pkgutil.walk_packages(syncnet.__path__, "syncnet.")]
for name in names:
    importlib.import_module(name)
print(f"imported {len(names)} modules")
END
}

install() { # PYTHON ARGUMENT...
    if [ "${INSTALLER:-pip}" = pip ]; then
        "$1" -m pip install --disable-pip-version-check "${@:2}"
    else
        $INSTALLER install --python "$@"
    fi
}

attempt() { # LOG COMMAND...: prints "yes" or "no"
    if "${@:2}" >>"$1" 2>&1 </dev/null; then echo yes; else echo no; fi
}

row() { printf '| %-8s | %-11s | %-8s | %-7s | %-5s | %-18s | %-18s | %s\n' "$@"; }

row Python versions installs imports tests "without torchaudio" "mel filterbank" "with |"
row --- --- --- --- --- --- --- "--- |"
for python in "$@"; do
    number=$("$python" -c 'import platform; print(platform.python_version())') || exit 1
    for set in "${sets[@]}"; do
        environment=$folder/environment log=$folder/$number-$set.txt
        arguments=$(requirements "$set") || exit 1
        "$python" -m venv "$environment" || exit 1
        own=$environment/bin/python imports=- passed=- without=- filterbank=- with=-
        # shellcheck disable=SC2086 # no argument contains a space
        installs=$(attempt "$log" install "$own" $arguments)
        if [ "$installs" = yes ]; then
            imports=$(attempt "$log" import_all "$own")
            passed=$(OMP_NUM_THREADS=1 attempt "$log" "$own" -m pytest -n 0 -q -rs "${tests[@]}")
            without=$(PYTHONPATH=$folder/without OMP_NUM_THREADS=1 attempt "$log" "$own" -m pytest -n 0 -q \
                tests/test_oracle.py tests/test_mel_spectrogram.py)
            said=$("$own" trainSyncNet.py --version 2>>"$log")
            filterbank=$(sed -nE 's/^mel filterbank: ([^ ]+).*/\1/p' <<<"$said" | xargs -r basename)
            with=$(sed -nE '1s/.*, (torch .*)\)/\1/p' <<<"$said")
        fi
        row "$number" "$set" "$installs" "$imports" "$passed" "$without" "$filterbank" "$with |"
        if [ "$installs$imports$passed$without" = yesyesyesyes ]; then rm -f "$log"; else failed=1 && echo "  see $log" >&2; fi
        rm -rf "$environment"
    done
done
rm -rf "$folder/constraints.txt" "$folder/without"
rmdir "$folder" 2>/dev/null
exit $failed
