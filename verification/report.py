"""Speaker verification with a trial list: scores, their files and figures, score normalisation.

What `trainSyncNet.py --eval` does, and what --test_interval does during training.
"""

import hashlib
import json
import math
import os
import platform
from importlib.metadata import version

import numpy as np
import torch
from torch import Tensor

from media.clips import MediaError, text_lines
from media.wav import WavFormatError
from support import distributed
from support.errors import UserError
from support.files import replace_file
from SyncNetDist import SyncNet
from tuneThreshold import P_TARGETS, eer_interpolated, min_dcf, plot_det, tuneThresholdfromScore
from verification.voices import Trials, check_wavs, read_trials, score_trials

LIBRARIES = ("torch", "torchaudio", "numpy", "scipy", "scikit-learn")
COSINES_AT_ONCE = 2**24  # of utterances and cohort; 64 MiB


def check_labels(trials: Trials, path: str) -> None:
    """Raise MediaError for trials that have no EER."""
    if trials.labels is None or len(set(trials.labels)) < 2:
        raise MediaError(
            f"{path}: an EER needs trials of the same speaker (label 1) and of different ones (label 0)"
        )


def check_trials(test_list: str, test_path: str, maxFrames: int) -> Trials:
    """The trials of a list, of which all that can be known without reading the wavs is right. Raises MediaError."""
    trials = read_trials(test_list)
    if trials.labels is not None:
        check_labels(trials, test_list)
    check_wavs([os.path.join(test_path, file) for file in trials.files], maxFrames)
    return trials


class TrialTest:
    """A trial list that is scored again and again during training.

    Raises MediaError at once for a list without an EER or an utterance that cannot be read later.
    """

    def __init__(self, network: SyncNet, test_list: str, test_path: str, num_eval: int = 10):
        self.network, self.test_path, self.num_eval = network, test_path, num_eval
        self.trials = read_trials(test_list)
        check_labels(self.trials, test_list)
        files = [os.path.join(test_path, file) for file in self.trials.files]
        check_wavs(files, network.maxFrames, test_path)

    def run(self) -> dict[str, float]:
        """EER in percent and minDCFs of the network as it is now; prints them."""
        scores = self.network.score_trials(self.trials, self.test_path, self.num_eval)
        figures = measure(scores, self.trials.labels)
        print(f"  {'test':10s} EER {figures['eer']:2.4f}  {in_words(figures)}")
        return {name: figures[name] for name in ("eer", *(f"min_dcf_{p:g}" for p in P_TARGETS))}


def measure(scores: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    """The figures of scored trials by name: EERs in percent, minDCF, thresholds (None where infinite).

    `eer` is the 2020 baseline's. Raises ValueError; see tuneThreshold.
    """
    figures: dict[str, float | None] = {"eer": tuneThresholdfromScore(scores, labels, [])[1]}
    figures["eer_interpolated"], figures["eer_threshold"] = eer_interpolated(scores, labels)
    for p in P_TARGETS:
        cost, threshold = min_dcf(scores, labels, p)
        figures[f"min_dcf_{p:g}"] = cost
        figures[f"min_dcf_{p:g}_threshold"] = threshold if math.isfinite(threshold) else None
    return figures


def in_words(figures: dict[str, float | None]) -> str:
    return ", ".join(f"minDCF({p:g}) {figures[f'min_dcf_{p:g}']:.4f}" for p in P_TARGETS)


def file_hash(path: str) -> str:
    """SHA-256 of a file, as sha256sum prints it."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def weights_hash(network: SyncNet) -> str:
    """SHA-256 of the network's weights, wherever they came from."""
    digest = hashlib.sha256()
    for name, tensor in network.__S__.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


# ---------------------------------------------------------------- kept embeddings


def embedding_settings(network: SyncNet, num_eval: int) -> dict[str, str]:
    """What kept embeddings must agree on to be used again."""
    return {
        "maxFrames": str(network.maxFrames),
        "num_eval": str(num_eval),
        "precision": network.precision,
        "weights": weights_hash(network),
    }


def save_embeddings(path: str, vectors: dict[str, Tensor], settings: dict[str, str]) -> None:
    """Write vectors (nOut,) by name as an npz: `files`, `vectors` (files, nOut) and the settings. Raises OSError."""
    with replace_file(path, "wb") as file:
        np.savez(file, files=list(vectors), vectors=torch.stack(list(vectors.values())).numpy(), **settings)


def load_embeddings(path: str, settings: dict[str, str]) -> dict[str, Tensor]:
    """The vectors of save_embeddings by name. Raises MediaError when they were made with other settings."""
    if not os.path.isfile(path):
        raise MediaError(f"{path}: no such file; --save_embeddings makes it")
    try:
        with np.load(path, allow_pickle=False) as kept:
            for name, value in settings.items():
                if kept[name] != value:
                    raise MediaError(
                        f"{path}: made with {name} {kept[name]}, this evaluation has {value}; make it again"
                    )
            return dict(zip(kept["files"].tolist(), torch.from_numpy(kept["vectors"]).float(), strict=True))
    except MediaError:
        raise
    except Exception as error:  # a damaged file fails in as many ways as it can be damaged
        raise MediaError(f"{path}: not written by --save_embeddings ({error})") from None


# ---------------------------------------------------------------- score normalisation


def read_cohort(path: str, folder: str, size: int = 0, seed: int = 0) -> dict[str, str]:
    """The utterances of a cohort: path on disk by name, in the list's order.

    Lines are wav names relative to `folder`, or clips as makeFileList.py lists them, of which the wav is taken.
    size: draw so many at random, with this seed; 0 takes all. Raises MediaError.
    """
    names: dict[str, str] = {}
    for _, line in text_lines(path, "Lines are wav names relative to --cohort_path."):
        line = line.strip()
        fields = line.split("\t") if "\t" in line else line.split()
        if len(fields) == 4 and fields[3].isdigit():
            names[fields[1]] = fields[1]
        else:
            names[line] = os.path.join(folder, line)
    if size and size < len(names):
        drawn = np.random.default_rng(seed).choice(len(names), size, replace=False)
        every = list(names)
        names = {every[n]: names[every[n]] for n in sorted(drawn)}
    if len(names) < 2:
        raise MediaError(
            f"{path}: {len(names)} utterances, a cohort needs at least 2 (some hundreds are usual)"
        )
    return names


def cohort_statistics(vectors: Tensor, cohort: Tensor, top_n: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the top_n highest scores of each utterance against the cohort.

    vectors: (files, nOut), cohort: (N, nOut), scored as in score_trials. Returns two (files,) float64.
    Raises ValueError when the scores do not differ.
    """
    rows = max(1, COSINES_AT_ONCE // len(cohort))
    top = torch.cat([(part @ cohort.T).topk(min(top_n, len(cohort))).values for part in vectors.split(rows)])
    mean, deviation = top.double().mean(1), top.double().std(1, correction=0)
    if deviation.min() < 1e-9:
        raise UserError("an utterance has the same score with all of its nearest cohort: is it one file?")
    return mean, deviation


def as_norm(scores: np.ndarray, trials: Trials, vectors: Tensor, cohort: Tensor, top_n: int) -> np.ndarray:
    """Adaptive symmetric score normalisation: (trials,) float64.

    s' = ((s - m(e)) / d(e) + (s - m(t)) / d(t)) / 2, with m and d the mean and standard deviation of the
    scores of the utterance (e: first, t: second) against its own top_n nearest cohort utterances: AS-norm1 of
    Matejka et al., "Analysis of score normalization in multilingual speaker recognition", Interspeech 2017,
    section 2.3. vectors: (files, nOut) of trials.files; cohort: (N, nOut). Raises ValueError.
    """
    mean, deviation = (statistic.numpy() for statistic in cohort_statistics(vectors, cohort, top_n))
    scores = scores.astype(np.float64)
    sides = [(scores - mean[side]) / deviation[side] for side in (trials.first, trials.second)]
    return (sides[0] + sides[1]) / 2


# ---------------------------------------------------------------- a whole evaluation


def write_scores(path: str, scores: np.ndarray, trials: Trials) -> None:
    """Write `score label fileA fileB` (or `score fileA fileB`) lines; tabs where a name has a space.

    Scores have the digits that give back the same number. Raises OSError.
    """
    separator = "\t" if any(c.isspace() for file in trials.files for c in file) else " "
    digits = 9 if scores.dtype == np.float32 else 17
    labels = [[]] * len(scores) if trials.labels is None else [[str(label)] for label in trials.labels]
    with replace_file(path) as file:
        for score, label, a, b in zip(scores, labels, trials.first, trials.second, strict=True):
            file.write(
                separator.join([f"{score:.{digits}g}", *label, trials.files[a], trials.files[b]]) + "\n"
            )


def embed_names(
    network: SyncNet, names: dict[str, str], num_eval: int, kept: dict[str, Tensor]
) -> dict[str, Tensor]:
    """A vector (see SyncNet.embed) for each name, from `kept` or else from its file. Raises MediaError."""
    new = [name for name in names if name not in kept]
    made = network.embed([names[name] for name in new], num_eval) if new else []
    found = {name: kept[name] for name in names if name in kept} | dict(zip(new, made, strict=True))
    return {name: found[name] for name in names}


def evaluate_list(
    network: SyncNet,
    test_list: str,
    test_path: str,
    result_folder: str,
    checkpoint: str | None = None,
    settings: dict[str, object] | None = None,
    num_eval: int = 10,
    cohort: dict[str, str] | None = None,
    top_n: int = 300,
    save_to: str | None = None,
    load_from: str | None = None,
) -> dict:
    """Score a trial list, with or without labels; print the figures and write them to result_folder.

    eval_scores.txt: the scores; eval_scores_asnorm.txt: normalised, when there is a cohort (see read_cohort);
    eval_det.png; eval.json: all of what is returned (by the first of several processes). The last line
    printed is `EER %2.4f`, of the normalised scores when there are any; lists without labels have none.
    save_to, load_from: npz of kept embeddings. Raises MediaError, ValueError (scores that are not finite),
    OSError.
    """
    trials = read_trials(test_list)
    if trials.labels is not None:
        check_labels(trials, test_list)
    names = {file: os.path.join(test_path, file) for file in trials.files}
    if cohort and (shared := set(cohort.values()) & set(names.values())):
        raise MediaError(
            f"{len(shared)} utterances of the cohort are in the trials ({min(shared)}); "
            "a cohort has to be of other speakers"
        )
    agree = embedding_settings(network, num_eval) if save_to or load_from else {}
    kept = load_embeddings(load_from, agree) if load_from else {}
    try:
        vectors = embed_names(network, names | (cohort or {}), num_eval, kept)
    except WavFormatError as error:
        raise (error.for_all_in(test_path) if error.path in names.values() else error) from None
    if save_to and distributed.is_main():
        save_embeddings(save_to, vectors, agree)
    tested = torch.stack([vectors[file] for file in trials.files])
    scores = {"raw": score_trials(tested, trials)}
    if not np.isfinite(scores["raw"]).all():
        raise UserError(f"{checkpoint}: gives scores that are not finite; its training has failed")
    if cohort:
        others = torch.stack([vectors[name] for name in cohort])
        scores["asnorm"] = as_norm(scores["raw"], trials, tested, others, top_n)

    if not distributed.is_main():
        return {}
    same = (
        "without labels" if trials.labels is None else f"{trials.labels.sum()} of them with the same speaker"
    )
    print(f"{len(trials.first)} trials, {same}, {len(trials.files)} files")
    if load_from:
        print(f"{sum(name in kept for name in vectors)} of {len(vectors)} embeddings from {load_from}")
    report = {
        "trials": len(trials.first),
        "targets": None if trials.labels is None else int(trials.labels.sum()),
        "files": len(trials.files),
        "cohort": len(cohort) if cohort else 0,
        "checkpoint": {"path": checkpoint, "sha256": file_hash(checkpoint)} if checkpoint else None,
        "maxFrames": network.maxFrames,
        "num_eval": num_eval,
        "settings": settings or {},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
    }
    written = []
    for kind, values in scores.items():
        written.append("eval_scores.txt" if kind == "raw" else f"eval_scores_{kind}.txt")
        write_scores(os.path.join(result_folder, written[-1]), values, trials)
    if trials.labels is not None:
        report["figures"] = {kind: measure(values, trials.labels) for kind, values in scores.items()}
        report |= report["figures"][kind]  # of the last, normalised where there is a cohort
        written.append("eval_det.png")
        title = os.path.basename(checkpoint) if checkpoint else "untrained"
        curves = {f"{title}, {kind}": (values, trials.labels) for kind, values in scores.items()}
        plot_det(curves, os.path.join(result_folder, written[-1]))
    with replace_file(os.path.join(result_folder, "eval.json")) as file:
        json.dump(report, file, indent=2, allow_nan=False)
    print(f"In {result_folder}: {', '.join(written)}, eval.json")
    for kind, figures in report.get("figures", {}).items():
        print({"raw": "", "asnorm": "as-norm: "}[kind] + in_words(figures))
        print(f"EER {figures['eer']:2.4f}")
    return report
