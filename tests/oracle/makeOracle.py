"""Makes the oracle again: runs the original 2020 program on the recipe's inputs, on the CPU.

    git clone https://github.com/joonson/syncnet_trainer original
    git -C original checkout 15e5cfcbe150da8ed5c04cfe74a011319ae60d06
    python tests/oracle/makeOracle.py original --check

--check compares with the numbers in this folder and prints the largest difference of each kind; without it, --out
names the folder that they are written to. The original's code runs as it is, except that

    .cuda() of tensors and modules changes nothing
    .view() of a tensor whose strides do not allow it (an error on a current PyTorch) makes a copy
    random.randint is seeded with the case's seed before each pass
    batches come from the recipe, not from its loader
    for the *_float64 figures, network and inputs are float64

Weights are the recipe's. The batch norms' running statistics are inputs too, and are read from this folder.
"""

import argparse
import contextlib
import importlib
import io
import json
import random
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import recipe
import torch
from scipy.io import wavfile

HERE = Path(__file__).parent
CASES = ("train_stride2", "train_stride1")
Numbers = tuple[dict, dict[str, np.ndarray]]  # a case's settings and results, and its arrays


def import_original(clone: Path) -> tuple[ModuleType, ModuleType]:
    """The original's SyncNetDist and tuneThreshold, with what a CPU and a current PyTorch need."""
    torch.Tensor.cuda = lambda self: self
    torch.nn.Module.cuda = lambda self: self
    view = torch.Tensor.view

    def view_or_copy(self: torch.Tensor, *shape) -> torch.Tensor:
        try:
            return view(self, *shape)
        except RuntimeError:
            return self.reshape(*shape)

    torch.Tensor.view = view_or_copy
    sys.path.insert(0, str(clone))
    modules = tuple(importlib.import_module(name) for name in ("SyncNetDist", "tuneThreshold"))
    for module in modules:
        if Path(module.__file__).resolve().parent != clone.resolve():
            sys.exit(f"makeOracle.py: imported {module.__file__}, which is not in {clone}")
    return modules


class Batches:
    """Batches of the recipe, with what the original's epoch asks of its loader."""

    maxQueueSize = 10

    def __init__(self, case: dict, keys: list[tuple], dtype: torch.dtype = torch.float32):
        self.batch_size = case["batch"]
        self.nFiles = case["batch"] * len(keys)
        self.batches = [tuple(x.to(dtype) for x in inputs(case, *key)) for key in keys]

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        return iter(self.batches)

    def qsize(self) -> int:
        return 0


def inputs(case: dict, *key) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch as the original's loader gives it: video (B, 3, T, 224, 224), audio (B, T*640 + 240), float32."""
    frames, key = case["maxFrames"], (case["seed"], *key)
    video = torch.from_numpy(recipe.video(key, case["batch"], frames)).permute(0, 4, 1, 2, 3)
    return video.float().contiguous(), torch.from_numpy(recipe.audio(key, case["batch"], frames * 640 + 240))


def figures(tensor: torch.Tensor) -> np.ndarray:
    """[sum, sum of |x|, L2 norm, first, last] in float64."""
    x = tensor.detach().double().flatten()
    return torch.stack((x.sum(), x.abs().sum(), x.norm(), x[0], x[-1])).numpy()


def make_network(original: ModuleType, case: dict, arrays: dict[str, np.ndarray]) -> torch.nn.Module:
    """The original's network with the case's weights and batch-norm statistics."""
    network = original.SyncNet(
        model="models.SyncNetModelFBank",
        maxFrames=case["maxFrames"],
        learning_rate=case.get("lr", 1e-4),
        nOut=case["nOut"],
        temporal_stride=case["temporal_stride"],
    )
    for name, tensor in network.state_dict().items():
        if f"bn/{name}" in arrays:
            tensor.copy_(torch.from_numpy(arrays[f"bn/{name}"]))
        elif not name.endswith("num_batches_tracked") and ".torchfb." not in name:
            tensor.copy_(torch.as_tensor(recipe.weight(case["seed"], name, tuple(tensor.shape))))
    return network


def epoch(network: torch.nn.Module, case: dict, loader: Batches, **how) -> dict:
    """What one call of the original's train_network returns and prints."""
    random.seed(case["seed"])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        loss, top1 = network.train_network(loader, **how)
    progress = [line.strip() for line in printed.getvalue().split("\r")[1:]]
    return {"loss": float(loss), "identity_top1": float(top1), "progress": progress}


def gradients(network: torch.nn.Module) -> dict[str, np.ndarray]:
    return {f"grad/{name}": figures(parameter.grad) for name, parameter in network.named_parameters()}


def outputs(network: torch.nn.Module, batch: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
    """The four embeddings in evaluation mode, and the front end's features."""
    video, audio = batch
    found = {}
    network.eval()
    hook = network.__S__.netcnnaud.register_forward_pre_hook(lambda _, x: found.update(features=x[0][:, 0]))
    with torch.no_grad():
        found["aud_content"], found["aud_identity"] = network.__S__.forward_aud(audio)
        found["vid_content"], found["vid_identity"] = network.__S__.forward_vid(video)
    hook.remove()
    return found


def training_case(original: ModuleType, case: dict, arrays: dict[str, np.ndarray]) -> Numbers:
    """Features, embeddings, a batch's loss and gradients, an evaluation and a training epoch; float32."""
    found: dict[str, np.ndarray] = {}
    results: dict[str, dict] = {}
    network = make_network(original, case, arrays)
    found["mel_fb"] = network.__S__.torchfb.mel_scale.fb.numpy()
    found["window"] = network.__S__.torchfb.spectrogram.window.numpy()
    batch = Batches(case, [("in",)])
    found |= {name: tensor.numpy() for name, tensor in outputs(network, batch.batches[0]).items()}
    results["one_batch"] = epoch(network, case, batch)
    del results["one_batch"]["progress"]
    found |= gradients(network)

    network = make_network(original, case, arrays)
    steps = Batches(case, [("step", step) for step in range(case["steps"])])
    for name, how in (
        ("eval_epoch", {"evalmode": True}),
        ("train_epoch", {key: case["train_epoch"]["alpha" + key[-1]] for key in ("alpC", "alpI")}),
    ):
        results[name] = epoch(network, case, steps, **how)
    found |= {
        f"after/{name}": figures(tensor)
        for name, tensor in network.state_dict().items()
        if ".torchfb." not in name
    }
    return results, found


def float64_case(original: ModuleType, case: dict, arrays: dict[str, np.ndarray]) -> Numbers:
    """Embeddings and a batch's loss and gradients in float64, where rounding and its consequences vanish."""
    network = make_network(original, case, arrays).double()
    batch = Batches(case, [("in",)], torch.float64)
    found = {name: figures(tensor) for name, tensor in outputs(network, batch.batches[0]).items()}
    results = {"one_batch": epoch(network, case, batch)}
    del results["one_batch"]["progress"]
    return results, found | gradients(network)


def verification_case(original: ModuleType, tuning: ModuleType, case: dict, arrays: dict) -> Numbers:
    """Scores of all pairs of the recipe's utterances, and their EER and thresholds."""
    draws = recipe.rng("trials", case["seed"])
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        names = []
        for speaker in range(case["speakers"]):
            for utterance in range(case["utterances"]):
                samples = int(16000 * (2.2 + 3 * draws.rand()))
                audio = recipe.audio((case["seed"], "spk", speaker, "utt", utterance), 1, samples)[0]
                names.append(f"id{speaker:05d}_{utterance}.wav")
                wavfile.write(Path(folder, names[-1]), 16000, audio.astype(np.int16))
        trials = [(int(a[:7] == b[:7]), a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        Path(folder, "trials.txt").write_text("".join(f"{label} {a} {b}\n" for label, a, b in trials))
        with torch.no_grad():  # the original keeps the graph of every file
            scores, labels = make_network(original, case, arrays).evaluateFromListSave(
                str(Path(folder, "trials.txt")), test_path=folder, num_eval=case["num_eval"]
            )
    tuned, eer, _, _ = tuning.tuneThresholdfromScore(scores, labels, [1, 0.1])
    results = {"eer": float(eer), "thresholds": np.asarray(tuned, float).tolist()}
    return results, {"scores": np.asarray(scores, np.float64), "labels": np.asarray(labels)}


def threshold_cases(tuning: ModuleType, cases: list[dict]) -> list[dict]:
    """EER and tuned points of drawn scores."""
    made = []
    for case in cases:
        draws = np.random.RandomState(case["seed"])
        labels = draws.rand(case["n"]) < 0.4
        scores = draws.randn(case["n"]) + case["shift"] * labels
        scores = np.round(scores, 1) if case["ties"] else scores
        low, eer, _, _ = tuning.tuneThresholdfromScore(scores, labels, [1, 0.1])
        both, _, _, _ = tuning.tuneThresholdfromScore(scores, labels, [5], [5, 2])
        points = {"fa_1_01": np.asarray(low).tolist(), "fr5_fr2_fa5": np.asarray(both).tolist()}
        made.append(case | {"eer": float(eer)} | points)
    return made


def numbers(value: object) -> np.ndarray:
    """All numbers of nested results, in order; of a progress line, all but its rate (Hz)."""
    if isinstance(value, str):
        return np.array([float(x) for x in re.findall(r"[\d.]+", re.sub(r"[\d.]+Hz", "", value))])
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value)]
    if isinstance(value, list):
        return np.concatenate([numbers(part) for part in value])
    return np.ravel(np.asarray(value, np.float64))


def difference(kind: str, found: np.ndarray, stored: np.ndarray) -> tuple[float, str]:
    """How far two are apart, and the measure of it, as the tests measure."""
    found, stored = (np.asarray(x, np.float64) for x in (found, stored))
    if kind in ("grad", "after"):  # five figures
        sums = abs(found[0] - stored[0]) / (stored[1] or 1)
        return max(sums, abs(found[2] - stored[2]) / (stored[2] or 1)), "of the norm or the sum of |x|"
    if kind == "scores":
        return float(np.abs(found - stored).max()), "absolute"
    apart = np.subtract(
        found, stored, out=np.zeros_like(stored), where=found != stored
    )  # infinities are equal
    size = np.linalg.norm(stored[np.isfinite(stored)])
    return float(np.linalg.norm(apart) / (size or 1)), "relative L2"


def without_gradient(name: str) -> bool:
    """Is the true gradient zero? A batch norm takes out the bias before it, the softmax that of the logits."""
    if "__L__" in name:
        return name.endswith(("bI", "bC"))
    network, index, what = name.split(".")[-3:]
    return what == "bias" and int(index) in ((0,) if "netfc" in network else (0, 4, 8, 11, 14, 18))


def compare(name: str, made: Numbers, stored: Numbers) -> None:
    """Print the largest difference of each kind of figure. Gradients whose true value is 0 are skipped."""
    print(name)
    largest: dict[str, tuple[float, str, str]] = {}
    for key, value in made[1].items():
        kind = key.split("/")[0]
        if kind == "grad" and without_gradient(key):
            continue
        apart, measure = difference(kind, value, stored[1][key])
        largest[kind] = max(largest.get(kind, (-1.0, "", "")), (apart, measure, key))
    for key, value in made[0].items():
        largest[key] = (
            *difference(
                key,
                numbers(value),
                numbers({k: stored[0][key][k] for k in value} if isinstance(value, dict) else stored[0][key]),
            ),
            key,
        )
    for kind, (apart, measure, key) in largest.items():
        print(f"  {kind:14s} {apart:.1e} {measure}{'' if key == kind else ', ' + key}")


def load(name: str) -> Numbers:
    with np.load(HERE / f"{name}.npz") as arrays:
        return json.loads((HERE / f"{name}.json").read_text()), dict(arrays)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clone", type=Path, help="folder of the original program")
    parser.add_argument("--check", action="store_true", help="compare with the numbers here; write nothing")
    parser.add_argument("--out", type=Path, help="folder to write the numbers to")
    parser.add_argument(
        "--threads", type=int, default=2, help="of PyTorch; 2 when the numbers here were made"
    )
    args = parser.parse_args()
    if args.check == bool(args.out):
        parser.error("either --check or --out FOLDER")
    original, tuning = import_original(args.clone)
    torch.set_num_threads(args.threads)

    made: dict[str, Numbers] = {}
    for name in CASES:
        case, arrays = load(name)
        made[name] = training_case(original, case, arrays)
        made[f"{name}_float64"] = float64_case(original, case, arrays)
    case, arrays = load("verify")
    made["verify"] = verification_case(original, tuning, case, arrays)
    thresholds = json.loads((HERE / "thresholds.json").read_text())
    tuned = threshold_cases(tuning, thresholds)

    if args.check:
        for name, numbers_made in made.items():
            compare(name, numbers_made, load(name))
        compare("thresholds", ({"all": tuned}, {}), ({"all": thresholds}, {}))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    for name, (results, found) in made.items():
        case, arrays = ({}, {}) if name.endswith("_float64") else load(name)
        merged = {
            key: {**case[key], **value} if isinstance(value, dict) and key in case else value
            for key, value in results.items()
        }
        (args.out / f"{name}.json").write_text(json.dumps({**case, **merged}, indent=1))
        np.savez_compressed(args.out / f"{name}.npz", **(arrays | found))
    (args.out / "thresholds.json").write_text(json.dumps(tuned, indent=1))


if __name__ == "__main__":
    main()
