"""The flags of inferSyncNet.py: those that its commands share, and those of each command."""

import argparse
from collections.abc import Sequence

from syncnet.inference.defaults import (
    FACES_AT_ONCE,
    MAX_OFFSET,
    NUM_EVAL,
    PRIOR,
    VOICES_AT_ONCE,
    WAYS,
    WINDOWS_AT_ONCE,
)
from syncnet.networks.choices import AUTO, CROPS, PRECISIONS
from syncnet.support.commands import Parser, at_least

DESCRIPTION = """Use a checkpoint: embeddings, scores of pairs, audio-video offsets, lip sync, face-voice matching,
export to ONNX, averages of checkpoints.

Each command has its own --help."""
COMMAND = "python inferSyncNet.py"
PUBLISHED = "--initial_model data/syncnet_v2.model"
MODEL = "--initial_model data/exp01/model/model000000500.model"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line of inferSyncNet.py; `command` names the command."""
    parser = Parser(
        description=DESCRIPTION,
        example=[
            f"{COMMAND} embed  {MODEL} a.wav folder/ --output voices.npz",
            f"{COMMAND} verify {MODEL} a.wav b.wav",
            f"{COMMAND} offset {MODEL} clip.mp4 --plot offset.png",
            f"{COMMAND} lse    {PUBLISHED} tracks/ --csv lse.csv",
            f"{COMMAND} show   {PUBLISHED} --tracks my_tracks --video my_videos/talk.mp4 --output seen.mp4",
            f"{COMMAND} match  {MODEL} data/test.txt",
            f"{COMMAND} export {MODEL} --stream voice --head identity --output voice.onnx",
            f"{COMMAND} average a.model b.model c.model --output mean.model",
        ],
    )
    commands = parser.add_subparsers(dest="command", required=True)
    checkpoint, machine, crops, video = checkpoint_flags(), machine_flags(), crop_flags(), video_flags()
    windows, tracks = window_flags(), track_flags()

    def add(name: str, help: str, example: Sequence[str], *parents: Parser) -> Parser:
        return commands.add_parser(name, parents=list(parents), help=help, description=help, example=example)

    common = (checkpoint, machine)

    command = add(
        "embed",
        "Voice or face embeddings of files, one unit vector each.",
        [
            f"{COMMAND} embed {MODEL} folder/ --output voices.npz",
            f"{COMMAND} embed {MODEL} tracks/ --face --output faces",
        ],
        *common,
        crops,
        video,
    )
    command.add_argument(
        "inputs",
        nargs="+",
        help="sound files (16 kHz mono wav as it is; other wav, m4a, mp4, flac, mp3, ogg decoded), face tracks with "
        "--face, folders of them, or lists: a path a line, or made by makeFileList.py",
    )
    command.add_argument("--face", action="store_true", help="embed the faces of 224x224 mp4 face tracks")
    command.add_argument(
        "--output",
        required=True,
        help="x.npz: arrays files and vectors (files, nOut); any other name: a folder, with one .npy a file",
    )
    command.add_argument(
        "--per_crop", action="store_true", help="keep the num_eval vectors of each file instead of their mean"
    )

    command = add(
        "verify",
        "Do two recordings have the same speaker? Scored as --eval: the mean over all pairs of the two files' crops, "
        "which differ, so that a file scores below 1 with itself.",
        [
            f"{COMMAND} verify {MODEL} a.wav b.wav",
            f"{COMMAND} verify {MODEL} a.wav b.wav --threshold data/exp01/result/eval.json",
            f"{COMMAND} verify {MODEL} a.wav b.wav --calibration data/exp01/result/cal.json --prior 0.5",
        ],
        *common,
        crops,
    )
    command.add_argument("a", help="sound file")
    command.add_argument("b", help="sound file")
    command.add_argument(
        "--threshold",
        help="decide: same speaker from this score on; or the eval.json of a run, for its EER's",
    )
    command.add_argument(
        "--calibration",
        metavar="JSON",
        help="give the score as a log-likelihood ratio, and the probability of the same speaker, by what "
        "tuneThreshold.py --calibrate made of this checkpoint's scores",
    )
    command.add_argument(
        "--prior",
        type=probability,
        metavar="P",
        help="with --calibration: how probable the same speaker is before anything is heard, between 0 and 1 "
        f"(default: {PRIOR})",
    )

    command = add(
        "offset",
        "By how many frames are picture and sound apart?",
        [
            f"{COMMAND} offset {MODEL} clip.mp4 --plot offset.png",
            f"{COMMAND} offset {MODEL} data/test.txt --csv offsets.csv --write_list data/checked.txt",
            f"{COMMAND} offset {PUBLISHED} my.txt --write_list checked.txt --min_confidence 3 --max_shift 5",
        ],
        *common,
        tracks,
        video,
    )
    command.add_argument(
        "--max_offset", type=at_least(int, 1), default=MAX_OFFSET, help="frames looked at either way"
    )
    command.add_argument("--plot", metavar="PNG", help="draw the similarity at every shift")
    command.add_argument("--csv", metavar="CSV", help="write a table")
    command.add_argument(
        "--write_list", metavar="TXT", help="write a list of the clips with the offsets found"
    )
    command.add_argument(
        "--min_confidence",
        type=float,
        default=0.0,
        help="--write_list leaves out clips below it. Usual of clips in sync: about 7 with syncnet_v2.model, where "
        "below 2 to 3 nothing was found; 0.3 to 0.7 with a network of this program, where below 0.2 nothing was",
    )
    command.add_argument(
        "--max_shift",
        type=at_least(int, 0),
        metavar="N",
        help="--write_list leaves out clips whose offset is larger, either way; by default none",
    )

    command = add(
        "lse",
        "Lip sync of face tracks: offset, LSE-D (distance, less is better) and LSE-C (confidence) of each, and their "
        "means. Comparable with published figures only with syncnet_v2.model, for which see docs/inference.md.",
        [
            f"{COMMAND} lse {PUBLISHED} tracks/ --csv lse.csv",
            f"{COMMAND} lse {PUBLISHED} my_tracks/mp4 --wav my_tracks/wav --frames frames",
        ],
        *common,
        tracks,
        windows,
        video,
    )
    command.add_argument(
        "--csv", metavar="CSV", help="write a table: clip, wav, frames, offset, lse_d, lse_c"
    )
    command.add_argument(
        "--frames",
        metavar="DIR",
        help="write a CSV a track with the confidence of every frame, median-filtered over 9",
    )

    command = add(
        "show",
        "Draw the face tracks of a video on it, each with its confidence: green where it speaks in sync, else red.",
        [f"{COMMAND} show {PUBLISHED} --tracks my_tracks --video my_videos/talk.mp4 --output seen.mp4"],
        *common,
        windows,
    )
    command.add_argument("--tracks", required=True, metavar="DIR", help="folder that makeFaceTracks.py wrote")
    command.add_argument("--video", required=True, help="the source of the tracks, of any kind and size")
    command.add_argument(
        "--output", required=True, metavar="MP4", help="the video to write, 25 frames a second"
    )
    command.add_argument(
        "--in_sync",
        type=float,
        metavar="CONFIDENCE",
        help="confidence of a frame from which on its box is green; by default 3 with syncnet_v2.model, else 0.15",
    )

    command = add(
        "match",
        "How well do faces find their voices among others?",
        [f"{COMMAND} match {MODEL} --ways 2 10 data/test.txt"],
        *common,
        crops,
        video,
    )
    command.add_argument(
        "list", help="list of clips made by makeFileList.py; <id>/<ref>/<utt>.mp4 tells who is who"
    )
    command.add_argument(
        "--ways",
        type=at_least(int, 2),
        nargs="+",
        default=list(WAYS),
        help="choices: 2 is one wrong, one right",
    )

    command = add(
        "export",
        "Write a stream with one head as an ONNX file, front end inside, for programs without this one. Needs the "
        "packages onnx, onnxscript and onnxruntime; the file is checked against PyTorch.",
        [
            f"{COMMAND} export {MODEL} --stream voice --head identity --output voice.onnx",
            f"{COMMAND} export {PUBLISHED} --stream face --head content --output lips.onnx",
        ],
        checkpoint,
    )
    command.add_argument(
        "--stream",
        required=True,
        choices=("voice", "face"),
        help="voice: waveform (batch, samples) float32 at 16 kHz, -32768 to 32767; face: frames (batch, frames, 224, "
        "224, 3) uint8, BGR, 25 a second",
    )
    command.add_argument(
        "--head",
        required=True,
        choices=("identity", "content"),
        help="identity: a unit vector a clip, (batch, nOut); content: a vector each moment, (batch, moments, nOut)",
    )
    command.add_argument("--output", required=True, metavar="ONNX", help="file to write")

    command = add(
        "average",
        "The mean of the weights of several checkpoints, usually of a run's last epochs, as one checkpoint.",
        [f"{COMMAND} average data/exp01/model/model0000004*.model --output data/exp01/mean.model"],
    )
    command.add_argument(
        "checkpoints", nargs="+", help="two checkpoints or more, of one network and settings"
    )
    command.add_argument("--output", required=True, metavar="MODEL", help="checkpoint to write")
    args = parser.parse_args(argv)
    if args.command == "verify":
        if args.prior is not None and args.calibration is None:
            parser.error("--prior goes with --calibration")
        args.prior = PRIOR if args.prior is None else args.prior
    if args.command == "average" and len(args.checkpoints) < 2:
        parser.error(f"average needs two checkpoints or more, found {args.checkpoints[0]} alone")
    return args


def probability(text: str) -> float:
    """An argparse type: a number between 0 and 1, and neither of them."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"found {text}, needs a number between 0 and 1")
    return value


def checkpoint_flags() -> Parser:
    """What the commands are given that use a network: its checkpoint."""
    checkpoint = Parser(add_help=False)
    add = checkpoint.add_argument_group("checkpoint").add_argument
    add("--initial_model", required=True, help="checkpoint to use")
    unless = "; by default as the checkpoint says, else as in training"
    add("--model", help="module in models/ that holds the network" + unless)
    add("--nOut", type=at_least(int, 1), help="size of the embeddings" + unless)
    add("--maxFrames", type=at_least(int, 5), help="video frames (40 ms) of a crop" + unless)
    add("--temporal_stride", type=at_least(int, 1), help="frames between embeddings" + unless)
    add("--crop", choices=CROPS, help="what the lip stream sees of a face track" + unless)
    return checkpoint


def machine_flags() -> Parser:
    """What the commands are given that compute with it: on what, and how exactly."""
    machine = Parser(add_help=False)
    add = machine.add_argument_group("machine").add_argument
    add("--device", help="cpu, cuda, cuda:1 ...; by default a GPU if there is one")
    add(
        "--precision",
        choices=(*PRECISIONS, AUTO),
        default="fp32",
        help="bf16 is less exact, and faster on most GPUs and some CPUs; auto: the faster, measured here",
    )
    return machine


def crop_flags() -> Parser:
    """What the commands are given that compute identity embeddings of crops."""
    crops = Parser(add_help=False)
    crops.add_argument(
        "--num_eval", type=at_least(int, 1), default=NUM_EVAL, help="evenly spread crops a file, as --eval"
    )
    crops.add_argument(
        "--nBatchSize",
        type=at_least(int, 1),
        help=f"crops computed at once (default: {VOICES_AT_ONCE} of voices, {FACES_AT_ONCE} of faces); changes "
        "memory and speed, not results",
    )
    return crops


def video_flags() -> Parser:
    """What the commands are given that read pictures."""
    video = Parser(add_help=False)
    video.add_argument(
        "--allow_resize",
        action="store_true",
        help="scale videos that are not 224x224 instead of refusing them",
    )
    return video


def window_flags() -> Parser:
    """What the commands are given that measure lip sync."""
    windows = Parser(add_help=False)
    windows.add_argument(
        "--max_offset", type=at_least(int, 1), default=MAX_OFFSET, help="frames looked at either way"
    )
    windows.add_argument(
        "--nBatchSize",
        type=at_least(int, 1),
        default=WINDOWS_AT_ONCE,
        help="windows computed at once; changes memory and speed, not results",
    )
    return windows


def track_flags() -> Parser:
    """What the commands are given that work on face tracks with their sound."""
    tracks = Parser(add_help=False)
    tracks.add_argument(
        "inputs", nargs="+", help="224x224 mp4 face tracks, folders of them, or lists of clips"
    )
    tracks.add_argument(
        "--wav",
        help="sound of the clip, or the folder of the wavs of a folder or list of clips: <wav>/id/a.wav for "
        "/data/mp4/id/a.mp4 of a list; by default the video's sound track",
    )
    return tracks
