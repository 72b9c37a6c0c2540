"""Use a checkpoint: embeddings, scores of pairs, audio-video offsets, lip sync, face-voice matching, export.

    python inferSyncNet.py embed  --initial_model x.model a.wav folder/ --output voices.npz
    python inferSyncNet.py verify --initial_model x.model a.wav b.wav
    python inferSyncNet.py offset --initial_model x.model clip.mp4 --plot offset.png
    python inferSyncNet.py lse    --initial_model syncnet_v2.model tracks/ --csv lse.csv
    python inferSyncNet.py show   --initial_model syncnet_v2.model --tracks tracks --video a.mp4 --output seen.mp4
    python inferSyncNet.py match  --initial_model x.model list.txt
    python inferSyncNet.py export --initial_model x.model --stream voice --head identity --output voice.onnx
    python inferSyncNet.py average a.model b.model c.model --output mean.model

Each has its own --help, and all but the last a Python function of the same name.
"""

import syncnet  # noqa: F401  # isort: skip

import argparse
import csv
import math
import os
import sys
from collections import Counter
from dataclasses import asdict, replace

from syncnet.inference.flags import parse_args
from syncnet.support.commands import answer_flags, command, in_words
from syncnet.support.errors import UserError

if __name__ == "__main__":
    answer_flags(parse_args)

import numpy as np
import torch
from tqdm import tqdm

from syncnet.checkpoints.averaging import average_checkpoints
from syncnet.checkpoints.by_name import at_every_frame
from syncnet.checkpoints.checkpoints import choose_settings, save_state_dict
from syncnet.checkpoints.torch_files import CheckpointError
from syncnet.compute.memory import keep_memory
from syncnet.inference.embedding_files import EmbeddingFiles, recorded_precision
from syncnet.inference.embeddings import count_frames, iter_embeddings, verify
from syncnet.inference.embeddings import embed as embed
from syncnet.inference.export import INPUTS, export, import_packages
from syncnet.inference.lip_sync import lse
from syncnet.inference.lip_sync_report import (
    HEADER,
    Row,
    line_of,
    mean_line,
    remark,
    write_frames,
    write_table,
)
from syncnet.inference.match import match
from syncnet.inference.offset import Offset, offset, plot_offsets
from syncnet.inference.show import show
from syncnet.inference.sources import Source, find_sources, with_wavs
from syncnet.media.clips import Clip, MediaError, format_list_line
from syncnet.media.file_type import SOUND_FILES, VIDEO_FILES
from syncnet.networks.choices import AUTO
from syncnet.networks.settings import default_settings
from syncnet.support.files import check_output, names_of_one_file, replace_file
from syncnet.support.names import counted
from syncnet.support.progress import progress_bar
from syncnet.support.version import VERSION
from syncnet.verification.calibration import posterior, read_calibration
from syncnet.verification.results import file_hash, read_threshold, tell_precision
from SyncNetDist import SyncNet


def load(
    path: str, device: str | torch.device | None = None, precision: str = "fp32", **given: object
) -> SyncNet:
    """The network of a checkpoint, as embed, verify, offset, lse and match take it.

    path: checkpoint. device, precision: see SyncNet. given: settings (networks/settings.py) that override the
    checkpoint's; where it has none, as the published ones, they are those of the 2020 baseline.
    Says on stderr what was given and differs. Raises CheckpointError, and UserError for settings that make no sense.
    """
    settings, told = choose_settings(path, given)
    network = SyncNet(**asdict(settings), device=device, precision=precision)
    network.loadParameters(path, strict=True)
    for line in told + [network.precision_found] * bool(network.precision_found):
        print(line, file=sys.stderr)
    return network


def load_network(args: argparse.Namespace, every_frame: bool = False) -> SyncNet:
    """The network that a command's flags ask for; with every_frame, content at every frame is set up once for all."""
    network = load(args.initial_model, args.device, args.precision, **given_settings(args))
    if every_frame:
        network.__S__ = at_every_frame(network)
        network.settings = replace(network.settings, temporal_stride=1)
    return network


def given_settings(args: argparse.Namespace) -> dict[str, object]:
    """The settings among a command's flags by name; None for what was not given."""
    return {name: getattr(args, name, None) for name in default_settings()}


# ---------------------------------------------------------------- commands


class Problems:
    """Says what is wrong with a file, in one line, and goes on; the exit status tells that there was something."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, error: Exception) -> None:
        self.count += 1
        tqdm.write(f"inferSyncNet.py: {in_words(error)}", file=sys.stderr)  # beside a bar, not into it


def embed_command(args: argparse.Namespace, problems: Problems) -> None:
    sources = find_sources(args.inputs, VIDEO_FILES if args.face else SOUND_FILES, unread=problems)
    one_file = args.output.endswith(".npz")
    check_output("--output", args.output, folder=not one_file)
    names = [os.path.splitext(source.name)[0] + ".npy" for source in sources]
    if not one_file and names_of_one_file(args.output, names):
        raise MediaError(
            f"--output {args.output}: two inputs would have the same .npy; write an .npz instead"
        )
    if args.precision == AUTO:  # which measures again, and may choose another
        args.precision = recorded_precision(args.output) or AUTO
    network = load_network(args)
    settings = embedding_settings(args, network)
    output = EmbeddingFiles(args.output, dict(zip((s.path for s in sources), names, strict=True)), settings)
    of_all = f"of {counted(len(sources), 'file')}"
    if output.others:
        print(f"{args.output}: computed again: {'; '.join(output.others)}", file=sys.stderr)
    if output.done:
        print(f"{args.output}: {len(output.done)} {of_all} are embedded already")
    if missing := output.missing():
        options = (args.face, args.num_eval, args.per_crop, args.nBatchSize, args.allow_resize)
        try:
            output.write_all(iter_embeddings(network, missing, *options, problems))
        except KeyboardInterrupt:
            said = f"{args.output}: {len(output.done)} {of_all} are embedded; the same command resumes"
            tqdm.write(said, file=sys.stderr)
            raise
    if output.done:
        files, shape = output.finish()
        size = " x ".join(map(str, (files, *shape)))
        print(
            f"{args.output}: {'face' if args.face else 'voice'} embeddings of {counted(files, 'file')} ({size})"
        )


def embedding_settings(args: argparse.Namespace, network: SyncNet) -> dict[str, object]:
    """All that decides what `embed` writes for a recording."""
    return {
        "program": VERSION,
        "checkpoint": file_hash(args.initial_model)[:16],
        **asdict(network.settings),
        "precision": network.precision,
        "stream": "face" if args.face else "voice",
        "num_eval": args.num_eval,
        "per_crop": args.per_crop,
    }


def find_threshold(given: str, args: argparse.Namespace, network: SyncNet) -> float:
    """A number, or the threshold at the EER in an eval.json of this checkpoint. Raises UserError."""
    try:
        if math.isfinite(number := float(given)):
            return number
    except ValueError:
        pass
    if not os.path.isfile(given):
        raise UserError(f"--threshold {given}: neither a number nor an eval.json")
    threshold, report = read_threshold(given, args.initial_model, network.settings, args.num_eval)
    tell_precision(f"--threshold {given}", report, "the score", {"precision": network.precision})
    return threshold


def verify_command(args: argparse.Namespace, _: Problems) -> None:
    network = load_network(args)
    threshold = None if args.threshold is None else find_threshold(args.threshold, args, network)
    if args.calibration is not None:
        calibration, made_of = read_calibration(
            args.calibration, args.initial_model, network.settings, args.num_eval
        )
        tell_precision(
            f"--calibration {args.calibration}", made_of, "the score", {"precision": network.precision}
        )
    score = verify(network, args.a, args.b, args.num_eval, args.nBatchSize)
    print(f"score {score:.6f}")
    if os.path.samefile(args.a, args.b):
        print(
            "(a file with itself: its crops differ from each other, so that the mean of their scores is below 1)"
        )
    if threshold is not None:
        print(f"{'same speaker' if score >= threshold else 'different speakers'} (threshold {threshold:.6f})")
    if args.calibration is not None:
        llr = float(calibration.llr(score))
        print(f"log-likelihood ratio {llr:.6f} (natural logarithm)")
        print(f"probability of the same speaker {posterior(llr, args.prior):.6g} (prior {args.prior:g})")


Measured = tuple[Source, str | None, Offset]  # a clip, its wav (None: its own sound track), and its offset
NO_OFFSET = "in which no offset was found"


def is_found(measured: Offset) -> bool:
    return measured.found == "yes"


def offset_command(args: argparse.Namespace, problems: Problems) -> None:
    sources = find_sources(args.inputs, VIDEO_FILES, args.wav is None, problems)
    clips = with_wavs(sources, args.wav)
    for flag in ("plot", "csv", "write_list"):
        if getattr(args, flag) is not None:
            check_output(f"--{flag}", getattr(args, flag))
    if args.write_list and not all(wav for _, wav in clips):
        raise MediaError(
            "--write_list: a list names a wav for every clip; give a list, or a folder with --wav"
        )
    if args.write_list is None and (args.min_confidence or args.max_shift is not None):
        print("not used: --min_confidence and --max_shift, for --write_list alone", file=sys.stderr)
    network = load_network(args, every_frame=True)
    rows: list[Measured] = []
    several = len(clips) > 1
    if several:
        print("offset     ms  confidence   found  listed  clip")
    with progress_bar(total=len(clips), unit="clip", desc="offset", leave=False) as bar:
        for source, wav in clips:
            try:
                found = offset(network, source.path, wav, args.max_offset, args.allow_resize)
            except MediaError as error:
                problems(error)
            else:
                rows.append((source, wav, found))
                said = source.clip.offset if source.clip else "-"
                figures = f"{found.frames:6d} {found.milliseconds:6d} {found.confidence:11.3f}"
                figures += f" {found.found:>7} {said:>7}"
                bar.write(f"{figures}  {source.path}" if several else f"{source.path}: {found}")
            bar.update()
    if not rows:
        if args.write_list:
            problems(
                UserError(f"{args.write_list}: not written, none of the {len(clips)} clips can be measured")
            )
        return
    if several:
        print("offset: frames by which the picture is later than the sound, as a list's third field")
    nothing = sum(not is_found(found) for _, _, found in rows)
    if several and nothing:
        print(
            f"found: in {nothing} of {len(rows)} clips no offset was found, or it may lie beyond --max_offset"
        )
    listed = [f.frames - source.clip.offset for source, _, f in rows if source.clip and is_found(f)]
    if listed:
        apart = np.abs(listed)
        print(
            f"of {len(listed)} clips, {(apart == 0).sum()} are as listed, {(apart <= 1).sum()} within a frame"
        )
    if args.plot:
        plot_offsets([(source.path, found) for source, _, found in rows], args.plot)
    if args.csv:
        write_offset_table(rows, args.csv)
    if args.write_list:
        write_checked_list(args, rows, len(clips))


def write_offset_table(rows: list[Measured], path: str) -> None:
    """Write the CSV with a row a clip. Raises OSError."""
    with replace_file(path) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["clip", "wav", "offset", "milliseconds", "confidence", "listed", "found"])
        for source, wav, found in rows:
            said = source.clip.offset if source.clip else ""
            row = [found.frames, found.milliseconds, f"{found.confidence:.6f}", said, found.found]
            table.writerow([source.path, wav or "", *row])


def write_checked_list(args: argparse.Namespace, rows: list[Measured], clips: int) -> None:
    """Write --write_list: the clips with the offsets found. Raises UserError where none is left, OSError.

    clips: how many there are, with those that could not be measured.
    """
    kept: list[Measured] = []
    left_out = Counter({"that cannot be read": clips - len(rows)})
    for row in rows:
        reason = reason_to_leave_out(row[2], args)
        if reason:
            left_out[reason] += 1
        else:
            kept.append(row)
    if not kept:
        counts = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
        raise UserError(f"{args.write_list}: not written, no clip is left: of {clips} clips, {counts}")
    with replace_file(args.write_list) as file:
        for source, wav, measured in kept:
            frames = source.clip.frames if source.clip else count_frames(source.path)
            file.write(format_list_line(Clip(source.path, wav or "", measured.frames, frames)) + "\n")
    without = f" ({left_out[NO_OFFSET]} left out because no offset was found)" if left_out[NO_OFFSET] else ""
    print(f"{args.write_list}: {len(kept)} of {counted(clips, 'clip')}{without}")


def reason_to_leave_out(measured: Offset, args: argparse.Namespace) -> str:
    """Why --write_list leaves a clip out; "" for one that it takes."""
    if not is_found(measured):
        return NO_OFFSET
    if not measured.confidence >= args.min_confidence:
        return f"with less confidence than --min_confidence {args.min_confidence:g}"
    if args.max_shift is not None and abs(measured.frames) > args.max_shift:
        return f"further apart than --max_shift {args.max_shift}"
    return ""


def lse_command(args: argparse.Namespace, problems: Problems) -> None:
    sources = find_sources(args.inputs, VIDEO_FILES, args.wav is None, problems)
    clips = with_wavs(sources, args.wav)
    names = [os.path.splitext(source.name)[0] + ".csv" for source, _ in clips]
    if args.frames and names_of_one_file(args.frames, names):
        raise MediaError(
            f"--frames {args.frames}: two inputs would have the same .csv; give the folder they are in"
        )
    if args.csv is not None:
        check_output("--csv", args.csv)
    if args.frames is not None:
        check_output("--frames", args.frames, folder=True)
    network = load_network(args, every_frame=True)
    rows: list[Row] = []
    print(HEADER)
    with progress_bar(total=len(clips), unit="track", desc="lip sync", leave=False) as bar:
        for (source, wav), name in zip(clips, names, strict=True):
            try:
                found = lse(network, source.path, wav, args.max_offset, args.nBatchSize, args.allow_resize)
            except MediaError as error:
                problems(error)
            else:
                rows.append((source.path, wav, found))
                bar.write(line_of(source.path, found))
                if args.frames:
                    write_frames(found, os.path.join(args.frames, name))
            bar.update()
    if not rows:
        return
    print(mean_line(rows))
    if note := remark(network, args.initial_model):
        print(note)
    if args.csv:
        write_table(rows, args.csv)


def show_command(args: argparse.Namespace, problems: Problems) -> None:
    check_output("--output", args.output)
    network = load_network(args, every_frame=True)
    measured = show(
        network,
        args.tracks,
        args.video,
        args.output,
        args.in_sync,
        args.max_offset,
        args.nBatchSize,
        problems,
    )
    print(HEADER)
    for clip, found in measured:
        if found:
            print(line_of(clip, found))
    print(f"{args.output}: {args.video} with {counted(len(measured), 'face track')}")


def match_command(args: argparse.Namespace, problems: Problems) -> None:
    sources = find_sources([args.list], VIDEO_FILES, with_sound=True)
    clips = [source.clip for source in sources if source.clip]
    if len(clips) < len(sources):
        raise MediaError(
            f"{args.list}: needs lines `mp4path wavpath offset frames`, made by makeFileList.py from the face "
            "tracks that makeFaceTracks.py makes of videos"
        )
    network = load_network(args)
    there, back, speakers = match(
        network, clips, args.ways, args.num_eval, args.nBatchSize, args.allow_resize, problems
    )
    print(f"{len(speakers)} clips of {len(set(speakers))} speakers; accuracy in %, with the 95 % interval")
    print("ways  chance  face finds voice        voice finds face")
    for one, other in zip(there, back, strict=True):
        cells = [f"{m.accuracy:6.2f} ({m.low:.2f} - {m.high:.2f})" for m in (one, other)]
        print(f"{one.ways:4d}  {100 / one.ways:6.2f}  {cells[0]:<22}  {cells[1]}")


def export_command(args: argparse.Namespace, _: Problems) -> None:
    check_output("--output", args.output)
    import_packages()  # before anything is computed
    network = load(args.initial_model, "cpu", "fp32", **given_settings(args))
    checkpoint = {"checkpoint_sha256": file_hash(args.initial_model)}
    difference = export(network, args.stream, args.head, args.output, checkpoint)
    print(
        f"{args.output}: {INPUTS[args.stream]} to {args.stream} {args.head} embeddings of {network.nOut}; largest "
        f"difference from PyTorch {difference:.2g}"
    )


def average_command(args: argparse.Namespace, _: Problems) -> None:
    check_output("--output", args.output)
    places: dict[str, str] = {}
    for path in args.checkpoints:
        if (place := os.path.realpath(path)) in places:
            raise UserError(f"{path}: is given twice (as {places[place]}); give each checkpoint once")
        places[place] = path
    if os.path.realpath(args.output) in places:
        raise UserError(f"--output {args.output}: is one of the checkpoints; write to another file")
    weights, settings = average_checkpoints(args.checkpoints)
    save_state_dict(weights, args.output, settings)
    print(f"{args.output}: the mean of {len(args.checkpoints)} checkpoints")


COMMANDS = {
    "embed": embed_command,
    "verify": verify_command,
    "offset": offset_command,
    "lse": lse_command,
    "show": show_command,
    "match": match_command,
    "export": export_command,
    "average": average_command,
}


@command
def main(argv: list[str] | None = None) -> int:
    """The command. Exit status: 0; 1 when something could not be used or written; 130 after Ctrl-C."""
    args = parse_args(argv)
    keep_memory()
    problems = Problems()
    try:
        COMMANDS[args.command](args, problems)
    except CheckpointError as error:
        first, *more = str(error).splitlines()
        raise CheckpointError(first + (f" {more[0].strip()}" if more else "")) from None
    return 1 if problems.count else 0


if __name__ == "__main__":
    sys.exit(main())
