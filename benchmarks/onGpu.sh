#!/usr/bin/env bash
# All that only a GPU can show, in one command: the tests' CUDA variants, then speed and memory of training, evaluation
# and lip sync there, one process and two. The tables go to data/onGpu/figures.md too.
#
#     benchmarks/onGpu.sh [LIST]     # of clips for the loader; without one, that of demo.sh, which runs first
#
# DEVICE, FRAMES, BATCH and THREADS in the environment stand for cuda, 50, 30 and a decoding thread a core.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source ./setup.sh requirements-dev.txt
python=.venv/bin/python
device=${DEVICE:-cuda} frames=${FRAMES:-50} batch=${BATCH:-30} threads=${THREADS:-$(nproc)}
out=data/onGpu
mkdir -p "$out"
$python - "$device" <<'END'
import sys

from syncnet.support.errors import UserError
from syncnet.compute.device import choose_device

try:
    choose_device(sys.argv[1])
except UserError as error:
    sys.exit(f"onGpu.sh: {error}")
END

list=${1:-data/demo/dev.txt}
[ -f "$list" ] || [ $# = 1 ] || ./demo.sh

failed=()
part() { # TITLE COMMAND...: a part that fails does not take the others with it
    printf '\n## %s\n\n`%s`\n' "$1" "${*:2}" | tee -a "$out/figures.md"
    "${@:2}" 2>>"$out/errors.txt" | tee -a "$out/figures.md" || failed+=("$1")
}

: >"$out/figures.md"
: >"$out/errors.txt"
part "Tests" $python -m pytest -q -m gpu
part "Training step" $python benchmarks/benchTrain.py --device "$device" --maxFrames "$frames" --batch "$batch" \
    --temporal_stride 2 --layouts channels_last contiguous --profile
part "Training step, compiled" $python benchmarks/benchTrain.py --device "$device" --maxFrames "$frames" --batch "$batch" \
    --temporal_stride 2 --precisions bf16 --compile
part "Loader" $python benchmarks/benchLoader.py --list "$list" --maxFrames "$frames" --batch "$batch"
# The loader and the step overlap where training is as fast as the slower of them.
part "Processes" $python benchmarks/benchDistributed.py --list "$list" --device "$device" --maxFrames "$frames" \
    --batch "$batch" --clips $((4 * batch)) --threads "$threads" --precision bf16 --processes 1 2
part "Evaluation" $python benchmarks/benchEvaluate.py --device "$device" --short 1000
part "Lip sync" $python benchmarks/benchLipSync.py --device "$device"

echo
echo "Figures: $out/figures.md    What was said on stderr: $out/errors.txt"
if [ ${#failed[@]} -gt 0 ]; then
    printf 'Failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
