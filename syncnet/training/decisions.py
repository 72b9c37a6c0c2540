"""Decide at the start what the flags leave open: the network's settings, the precision, the checkpoint."""

import os
from dataclasses import dataclass, field

from syncnet.checkpoints.checkpoints import choose_settings, merge_settings
from syncnet.checkpoints.recorded_settings import settings_of_flags
from syncnet.networks.choices import AUTO
from syncnet.networks.settings import Settings
from syncnet.support.errors import UserError
from syncnet.training.flags import Flags
from syncnet.training.resume import SavedRun, newest_readable
from syncnet.training.run_folder import RunFolder
from syncnet.verification.embedding_cache import cached_settings
from syncnet.verification.trials import read_checked_trials


@dataclass(frozen=True)
class Decisions:
    """settings: of the network. precision: may still be "auto". checkpoint: to evaluate. notes: to print."""

    settings: Settings
    precision: str
    checkpoint: str | None = None
    notes: list[str] = field(default_factory=list)


def decide_for_training(args: Flags, saved: SavedRun) -> Decisions:
    """Decide for training. With --precision auto, a resumed run keeps its precision.

    With --initial_model, the settings are those of the saved state, else of the newest checkpoint of the run, else of
    --initial_model.
    """
    precision = saved.settings.get("precision", AUTO) if args.precision == AUTO else args.precision
    if not args.initial_model:
        settings, notes = merge_settings({}, None, args.given)
    elif saved.state:
        settings, notes = merge_settings(settings_of_flags(saved.settings), saved.folder.state, args.given)
    else:
        settings, notes = choose_settings(
            newest_readable(saved.folder.model) or args.initial_model, args.given
        )
    return Decisions(settings, precision, notes=notes)


def decide_for_evaluation(args: Flags) -> Decisions:
    """Decide for --eval: the checkpoint and its settings. With --precision auto, reuses that of --load_embeddings."""
    checkpoint = checkpoint_to_evaluate(args)
    settings, notes = choose_settings(checkpoint, args.given)
    precision = args.precision
    if precision == AUTO and args.load_embeddings:
        cached = cached_settings(args.load_embeddings).get("precision")
        precision = cached if isinstance(cached, str) else AUTO
    return Decisions(settings, precision, checkpoint, notes)


def checkpoint_to_evaluate(args: Flags) -> str | None:
    """Return --initial_model, else the newest readable checkpoint in --save_path; None for --untrained.

    Raises UserError if there is none, after checking the trials.
    """
    if args.untrained:
        return None
    if args.initial_model:
        return args.initial_model
    folder = RunFolder(args.save_path).model
    path = newest_readable(folder)
    if path is None:
        read_checked_trials(args.test_list, args.test_path, args.maxFrames)
        raise UserError(
            f"--eval: no checkpoint in {folder}, and no --initial_model. Is --save_path right? "
            "(--untrained scores a network with random weights)"
        )
    return path


def result_folder(args: Flags) -> str:
    """Return the folder for the results of --eval: that of the run in --save_path.

    With --initial_model and without --save_path, it is named after the checkpoint, and is next to it or, if that is
    not writable, in the current folder. With --untrained, it is untrained_eval.
    """
    if args.save_path_given or not (args.initial_model or args.untrained):
        return RunFolder(args.save_path).result
    if args.untrained:
        return "untrained_eval"
    folder = os.path.splitext(args.initial_model)[0] + "_eval"
    writable = os.access(folder if os.path.isdir(folder) else os.path.dirname(folder) or os.curdir, os.W_OK)
    return folder if writable else os.path.basename(folder)
