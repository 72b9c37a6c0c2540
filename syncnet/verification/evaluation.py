"""Speaker verification with a trial list: `trainSyncNet.py --eval`, and --test_interval during training."""

import os
from collections.abc import Mapping

import numpy as np
import torch

from syncnet.compute import distributed
from syncnet.media.clips import MediaError
from syncnet.media.wav import WavFormatError
from syncnet.networks.interface import Network
from syncnet.networks.output_check import require_identity
from syncnet.support.errors import UserError
from syncnet.support.files import file_hash
from syncnet.support.version import VERSION, versions
from syncnet.verification.embedding_cache import CachedEmbeddings, hash_of_recordings, save_vectors
from syncnet.verification.normalization import as_norm, check_overlap, distinct_recordings
from syncnet.verification.provenance import evaluated_with
from syncnet.verification.rates import ABOUT_MIN_DCF, P_TARGETS
from syncnet.verification.report import trial_list_id, write_results
from syncnet.verification.scores import format_costs, measure, score_vectors
from syncnet.verification.trials import check_folder, check_labels, read_checked_trials, read_trials
from syncnet.verification.utterances import utterance_paths


class TrialTest:
    """A trial list that is scored repeatedly during training.

    Raises MediaError at the start if the list gives no EER or an utterance cannot be read, and UserError for a
    network without identity embeddings of voices.
    """

    def __init__(self, network: Network, test_list: str, test_path: str, num_eval: int = 10):
        self.network, self.num_eval = network, num_eval
        self.trials, self.files = read_checked_trials(test_list, test_path, network.settings.maxFrames)
        if self.trials.labels is None:
            raise MediaError(f"{test_list}: an EER needs labels, lines `label fileA fileB`")
        self.labels = self.trials.labels
        require_identity(network)
        self.explained = False

    def run(self) -> dict[str, float]:
        """Print and return the network's current EER (in percent) and minDCFs."""
        scores = score_vectors(self.network.embed(self.files, self.num_eval), self.trials)
        figures = measure(scores, self.labels)
        explanation = "" if self.explained else f"  ({ABOUT_MIN_DCF})"
        self.explained = True
        print(f"  {'test':10s} EER {figures['eer']:2.4f}  {format_costs(figures)}{explanation}")
        rates = {"eer", *(f"min_dcf_{p:g}" for p in P_TARGETS)}
        return {name: value for name, value in figures.items() if name in rates and value is not None}


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

    Writes eval_scores.txt; eval_scores_asnorm.txt, normalized, if there is a cohort (see read_cohort); eval_det.png;
    and eval.json with everything that is returned. With several processes, rank 0 writes; the others return {}. If
    result_folder holds the results of another list, they go into a subfolder (see report.choose_folder). The last
    line printed is `EER %2.4f`, of the normalized scores if there are any; lists without labels have none.
    save_to, load_from: npz of embeddings. Raises MediaError, UserError (scores that are not finite), OSError.
    """
    trials = read_trials(test_list)
    check_labels(trials, test_list)
    check_folder(trials.files, test_list, test_path)
    given = cohort or {}
    cohort = distributed.on_rank_zero(lambda: distinct_recordings(given))
    files = [*trials.files, *cohort]
    paths = [*utterance_paths(trials.files, test_path), *cohort.values()]
    tested, others = slice(len(trials.files)), slice(len(trials.files), None)
    cache = None
    if distributed.is_main():
        cache = CachedEmbeddings(network, files, paths, num_eval, load_from)
        check_overlap(cache.recordings[others], cache.recordings[tested])
    missing = distributed.on_rank_zero(lambda: list(cache.missing.values()) if cache else [])
    try:
        computed = network.embed(missing, num_eval) if missing else torch.empty(0, network.settings.nOut)
    except WavFormatError as error:
        in_folder = error.path in paths[tested] and not os.path.isfile(test_path)
        raise (error.for_all_in(test_path) if in_folder else error) from None
    if cache is None:
        return {}
    vectors = cache.vectors(computed)
    if save_to:
        save_vectors(save_to, files, cache.recordings, vectors, cache.settings)
    scores = {"raw": score_vectors(vectors[tested], trials)}
    if not np.isfinite(scores["raw"]).all():
        raise UserError(f"{checkpoint}: gives scores that are not finite; its training has failed")
    if cohort:
        scores["asnorm"] = as_norm(scores["raw"], trials, vectors[tested], vectors[others], top_n)

    labels = "without labels"
    if trials.labels is not None:
        labels = f"{trials.labels.sum()} of them with the same speaker"
    print(f"{len(trials.first)} trials, {labels}, {len(trials.files)} files")
    if load_from:
        print(cache.summary())
    report: dict[str, object] = {
        "trials": len(trials.first),
        "targets": None if trials.labels is None else int(trials.labels.sum()),
        "files": len(trials.files),
        "cohort": len(cohort),
        "cohort_recordings": hash_of_recordings(cache.recordings[others]) if cohort else None,
        "trial_list": trial_list_id(test_list, test_path),
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
        report |= figures[list(scores)[-1]]  # normalized if there is a cohort
    write_results(report, result_folder, scores, trials)
    if trials.labels is not None:
        print(ABOUT_MIN_DCF)
    for kind, found in figures.items():
        print({"raw": "", "asnorm": "as-norm: "}[kind] + format_costs(found))
        print(f"EER {found['eer']:2.4f}")
    return report
