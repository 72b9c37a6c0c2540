"""Do the tests notice faults? mutmut changes one thing at a time in a copy of the project and runs the tests.

    .venv/bin/pip install mutmut==3.8.1
    .venv/bin/python tests/mutation.py                              # all modules: hours
    .venv/bin/python tests/mutation.py --every 3 rates calibration  # every third change, two modules

Prints the number of changes, of those that were noticed, and the others as diffs, which tests/mutation.md explains.
Strings are not changed: no test holds the wording of a message.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Module, in a room of syncnet/ or at the top -> the quick tests that cover it, which are run for each change.
MODULES = {
    "networks/losses": "test_losses test_devices",
    "networks/two_streams": "test_lip_trunk test_devices",
    "checkpoints/averaging": "test_averaging",
    "checkpoints/checkpoints": "test_checkpoints",
    "verification/rates": "test_tune_threshold",
    "verification/calibration": "test_calibration",
    "verification/bootstrap": "test_tune_threshold",
    "verification/normalization": "test_evaluation",
    "tracks/tracks": "test_face_tracks test_video_parts",
    "tracks/shots": "test_face_tracks test_transitions",
    "tracks/track_joining": "test_video_parts",
    "tracks/faces": "test_face_detectors",
    "inference/offset": "test_offset",
    "inference/lip_sync": "test_lip_sync test_sync_accuracy",
    "inference/match": "test_match",
    "inference/lse": "test_lse_protocols test_lip_sync_commands",
    "inference/protocols": "test_lse_protocols",
    "inference/accuracy": "test_sync_accuracy",
    "inference/speakers": "test_speakers",
    "verification/score_files": "test_tune_threshold test_calibration",
    "support/parts": "test_parts",
    "support/files": "test_outputs test_support",
    "tuneThreshold": "test_tune_threshold test_calibration",
    "makeFileList": "test_make_file_list test_shards",
    "loading/two_lists": "test_make_file_list",
    "training/state": "test_resume",
    "training/resume": "test_resume",
    "training/decisions": "test_resume test_precision test_checkpoints",
    "training/epoch": "test_figures",
    "SyncNetDist": "test_options test_precision test_resume",
    "media/clips": "test_dataset_loader test_make_file_list",
    "media/crops": "test_dataset_loader test_evaluation",
    "media/clock": "test_clock test_media_clock",
    "media/timeline": "test_media_clock test_face_tracks_clock test_video_parts",
    "DatasetLoader": "test_dataset_loader test_known_figures",
    "loading/augment": "test_augment",
    "loading/shards": "test_shards",
    "support/tar_members": "test_shards",
}


def file_of(module: str) -> str:
    return f"syncnet/{module}.py" if "/" in module else f"{module}.py"


def write_settings(folder: Path, module: str, tests: str) -> None:
    apart = ("tests", "syncnet", "pyproject.toml", file_of(module))
    copied = [path.name for path in folder.iterdir() if path.name not in apart]
    chosen = [
        str(path.relative_to(folder)) for name in tests.split() for path in folder.glob(f"tests/**/{name}.py")
    ]
    lists = {
        "source_paths": ["syncnet"] if "/" in module else ["syncnet", file_of(module)],
        "only_mutate": [file_of(module)],
        "also_copy": copied,
        "pytest_add_cli_args": ["-q", "-x", "-p", "no:cacheprovider", "--hypothesis-seed=0"],
        "pytest_add_cli_args_test_selection": chosen,
    }
    lines = "".join(f"{name} =\n" + "".join(f"    {value}\n" for value in lists[name]) for name in lists)
    (folder / "setup.cfg").write_text(
        f"[mutmut]\n{lines}timeout_constant = 10\ntimeout_multiplier = 3\ntrack_dependencies = false\n"
    )


def mutate(module: str, every: int) -> None:
    """In a copy of the project: change a module; print a line of the table, and the diffs that nothing noticed."""
    import mutmut.__main__ as program  # which reads setup.cfg at once
    from mutmut.mutation import mutators

    strings = (mutators.operator_string, mutators.operator_symmetric_string_methods_swap)
    mutators.mutation_operators[:] = [pair for pair in mutators.mutation_operators if pair[1] not in strings]
    real = program.collect_source_file_mutation_data

    def some(**settings):
        mutants, files = real(**settings)
        return mutants[::every], files

    program.collect_source_file_mutation_data = some
    program._run([], max_children=int(os.environ.get("MUTANTS_AT_ONCE", "2")))
    data = program.SourceFileMutationData(path=Path(file_of(module)))
    data.load()
    status = {name: program.status_by_exit_code[code] for name, code in data.exit_code_by_key.items()}
    tried = {name: found for name, found in status.items() if found != "not checked"}
    left = [name for name, found in tried.items() if found not in ("killed", "timeout")]
    counts = (len(status), len(tried), len(tried) - len(left), len(left))
    print("\n" + " | ".join(["RESULT", module, *map(str, counts)]))
    for name in left:
        print(f"{name} ({tried[name]})\n{program.get_diff_for_mutant(name)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="*", help="names without their room; default: all")
    parser.add_argument("--every", type=int, default=1, help="try one change of so many")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        mutate(args.inside, args.every)
        return
    for module, tests in MODULES.items():
        if args.modules and os.path.basename(module) not in args.modules:
            continue
        with tempfile.TemporaryDirectory() as folder:
            tracked = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
            for name in filter(None, tracked):
                target = Path(folder, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, target)
            write_settings(Path(folder), module, tests)
            inside = [sys.executable, __file__, "--inside", module, "--every", str(args.every)]
            subprocess.run(inside, cwd=folder, check=False)


if __name__ == "__main__":
    main()
