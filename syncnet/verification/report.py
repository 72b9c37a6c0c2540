"""Speaker verification with a trial list: what `trainSyncNet.py --eval` does, and --test_interval in training."""

import json
import os
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from syncnet.compute import distributed
from syncnet.media.clips import MediaError
from syncnet.media.wav import WavFormatError
from syncnet.networks.interface import Network
from syncnet.support.errors import UserError
from syncnet.support.files import replace_file
from syncnet.support.version import VERSION, versions
from syncnet.verification.det import plot_det
from syncnet.verification.embedding_cache import (
    Recording,
    find_recording,
    fingerprint,
    load_vectors,
    save_vectors,
)
from syncnet.verification.normalization import as_norm
from syncnet.verification.rates import ABOUT_MIN_DCF, P_TARGETS
from syncnet.verification.results import (
    REPORT,
    SCORE_FILES,
    evaluated_with,
    file_hash,
    place_for,
    weights_hash,
    what_is_tested,
)
from syncnet.verification.scores import costs_in_words, measure, score_vectors, write_scores
from syncnet.verification.trials import Trials, check_labels, check_place, read_checked_trials, read_trials
from syncnet.verification.utterances import utterance_paths

DET_PLOT = "eval_det.png"


class TrialTest:
    """A trial list that is scored again and again during training.

    Raises MediaError at once for a list without an EER or an utterance that cannot be read later, UserError for a
    network that has no voice identity.
    """

    def __init__(self, network: Network, test_list: str, test_path: str, num_eval: int = 10):
        self.network, self.num_eval = network, num_eval
        self.trials, self.files = read_checked_trials(test_list, test_path, network.settings.maxFrames)
        if self.trials.labels is None:
            raise MediaError(f"{test_list}: an EER needs labels, lines `label fileA fileB`")
        self.labels = self.trials.labels
        network.embed(self.files[:1], num_eval=1)  # a network without identity is told before it is trained
        self.explained = False

    def run(self) -> dict[str, float]:
        """EER in percent and minDCFs of the network as it is now; prints them."""
        scores = score_vectors(self.network.embed(self.files, self.num_eval), self.trials)
        figures = measure(scores, self.labels)
        explanation = "" if self.explained else f"  ({ABOUT_MIN_DCF})"
        self.explained = True
        print(f"  {'test':10s} EER {figures['eer']:2.4f}  {costs_in_words(figures)}{explanation}")
        rates = {"eer", *(f"min_dcf_{p:g}" for p in P_TARGETS)}
        return {name: value for name, value in figures.items() if name in rates and value is not None}


class Voices:
    """The vectors of an evaluation's recordings, computed or taken from a file of kept ones.

    files: the utterances by their names in the lists; paths: where each is. One recording has one vector,
    whatever its names. Raises MediaError.
    """

    def __init__(
        self,
        network: Network,
        files: Sequence[str],
        paths: Sequence[str],
        num_eval: int,
        load_from: str | None,
    ):
        self.files = files
        self.recordings = [find_recording(path) for path in paths]
        self.settings: dict[str, object] = evaluated_with(network.settings, num_eval)
        self.settings |= {"precision": network.precision, "weights": weights_hash(network.__S__)}
        self.kept = load_vectors(load_from, self.settings) if load_from else {}
        known = {recording.path for recording in self.kept}
        missing = {r: path for r, path in zip(self.recordings, paths, strict=True) if r not in self.kept}
        self.new = list(missing)
        self.changed = sum(recording.path in known for recording in missing)
        self.new_paths = list(missing.values())

    def vectors(self, made: Tensor) -> Tensor:
        """All vectors in the order of the files, (files, nOut); made: those of new_paths."""
        found = self.kept | dict(zip(self.new, made, strict=True))
        return torch.stack([found[recording] for recording in self.recordings])

    def told(self, load_from: str) -> str:
        """Where the vectors came from."""
        total = len(set(self.recordings))
        changed = f"; {self.changed} files have changed since, and are embedded again" if self.changed else ""
        return f"{total - len(self.new)} of {total} embeddings from {load_from}{changed}"


def check_overlap(cohort: Sequence[Recording], tested: Sequence[Recording]) -> None:
    """Raise MediaError when a recording, under whatever name, is in the cohort and in the trials."""
    if shared := {one.path for one in cohort} & {one.path for one in tested}:
        raise MediaError(
            f"{len(shared)} utterances of the cohort are in the trials ({min(shared)}); "
            "a cohort has to be of other speakers"
        )


def distinct_recordings(cohort: Mapping[str, str]) -> dict[str, str]:
    """A cohort without second names of a recording, which would count twice. Raises MediaError."""
    first: dict[Recording, str] = {}
    for name, path in cohort.items():
        first.setdefault(find_recording(path), name)
    if len(first) == 1 < len(cohort):
        raise MediaError(f"the cohort's {len(cohort)} utterances are one recording ({min(cohort.values())})")
    return {name: cohort[name] for name in first.values()}


def evaluate_list(
    network: Network,
    test_list: str,
    test_path: str,
    result_folder: str,
    checkpoint: str | None = None,
    settings: Mapping[str, object] | None = None,
    num_eval: int = 10,
    cohort: dict[str, str] | None = None,
    top_n: int = 300,
    save_to: str | None = None,
    load_from: str | None = None,
) -> dict:
    """Score a trial list, with or without labels; print the figures and write them to result_folder.

    eval_scores.txt: the scores; eval_scores_asnorm.txt: normalised, when there is a cohort (see read_cohort);
    eval_det.png; eval.json: all of what is returned (by the first of several processes). Where result_folder has
    the results of another list, they go into a folder of their own in it (see place_for). The last line printed is
    `EER %2.4f`, of the normalised scores when there are any; lists without labels have none.
    save_to, load_from: npz of kept vectors. Raises MediaError, UserError (scores that are not finite), OSError.
    """
    trials = read_trials(test_list)
    check_labels(trials, test_list)
    check_place(trials.files, test_list, test_path)
    given = cohort or {}
    cohort = distributed.of_first(lambda: distinct_recordings(given))
    files = [*trials.files, *cohort]
    paths = [*utterance_paths(trials.files, test_path), *cohort.values()]
    tested = slice(len(trials.files))
    voices = None
    if distributed.is_main():
        voices = Voices(network, files, paths, num_eval, load_from)
        check_overlap(voices.recordings[len(trials.files) :], voices.recordings[tested])
    new = distributed.of_first(lambda: voices.new_paths if voices else [])
    try:
        made = network.embed(new, num_eval) if new else torch.empty(0, network.settings.nOut)
    except WavFormatError as error:
        in_folder = error.path in paths[tested] and not os.path.isfile(test_path)
        raise (error.for_all_in(test_path) if in_folder else error) from None
    if voices is None:
        return {}
    vectors = voices.vectors(made)
    if save_to:
        save_vectors(save_to, files, voices.recordings, vectors, voices.settings)
    scores = {"raw": score_vectors(vectors[tested], trials)}
    if not np.isfinite(scores["raw"]).all():
        raise UserError(f"{checkpoint}: gives scores that are not finite; its training has failed")
    if cohort:
        others = vectors[len(trials.files) :]
        scores["asnorm"] = as_norm(scores["raw"], trials, vectors[tested], others, top_n)

    same = (
        "without labels" if trials.labels is None else f"{trials.labels.sum()} of them with the same speaker"
    )
    print(f"{len(trials.first)} trials, {same}, {len(trials.files)} files")
    if load_from:
        print(voices.told(load_from))
    report: dict[str, object] = {
        "trials": len(trials.first),
        "targets": None if trials.labels is None else int(trials.labels.sum()),
        "files": len(trials.files),
        "cohort": len(cohort),
        "cohort_recordings": fingerprint(voices.recordings[len(trials.files) :]) if cohort else None,
        "trial_list": what_is_tested(test_list, test_path),
        "checkpoint": {"path": checkpoint, "sha256": file_hash(checkpoint)} if checkpoint else None,
        "evaluated_with": evaluated_with(network.settings, num_eval),
        "precision": network.precision,
        "maxFrames": network.settings.maxFrames,
        "num_eval": num_eval,
        "settings": dict(settings or {}),
        "version": VERSION,
        "versions": versions(),
    }
    figures = {}
    if trials.labels is not None:
        figures = {kind: measure(values, trials.labels) for kind, values in scores.items()}
        report["figures"] = figures
        report |= figures[list(scores)[-1]]  # normalised where there is a cohort
    write_results(report, result_folder, scores, trials)
    if trials.labels is not None:
        print(ABOUT_MIN_DCF)
    for kind, found in figures.items():
        print({"raw": "", "asnorm": "as-norm: "}[kind] + costs_in_words(found))
        print(f"EER {found['eer']:2.4f}")
    return report


def write_results(report: dict, result_folder: str, scores: dict[str, np.ndarray], trials: Trials) -> None:
    """Write the scores, the DET plot and, when they are whole, eval.json to their place; say what was there."""
    folder, before = place_for(result_folder, report["trial_list"])
    if folder != result_folder:
        print(f"{os.path.join(result_folder, REPORT)} is of other trials, and stays")
    if before is not None:
        old, new = before.get("checkpoint") or {}, report["checkpoint"] or {}
        how = [name for name in ("evaluated_with", "precision") if before.get(name) != report[name]]
        if how or old.get("sha256") != new.get("sha256"):
            other = ", with other settings" if how else ""
            print(
                f"Replacing the results of {old.get('path', 'an untrained network')} on these trials{other}"
            )
        for name in (REPORT, DET_PLOT, *SCORE_FILES.values()):
            if os.path.exists(path := os.path.join(folder, name)):
                os.remove(path)
    written = []
    for kind, values in scores.items():
        written.append(SCORE_FILES[kind])
        write_scores(os.path.join(folder, SCORE_FILES[kind]), values, trials)
    if trials.labels is not None:
        written.append(DET_PLOT)
        title = os.path.basename(report["checkpoint"]["path"]) if report["checkpoint"] else "untrained"
        curves = {f"{title}, {kind}": (values, trials.labels) for kind, values in scores.items()}
        plot_det(curves, os.path.join(folder, DET_PLOT))
    with replace_file(os.path.join(folder, REPORT)) as file:
        json.dump(report, file, indent=2, allow_nan=False)
    print(f"In {folder}: {', '.join(written)}, {REPORT}")
