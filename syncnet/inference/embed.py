"""inferSyncNet.py embed: voice or face embeddings of files, one unit vector each."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from syncnet.inference.command_flags import (
    COMMAND,
    MODEL,
    LoadNetwork,
    Problems,
    add_crops,
    add_network,
    add_resize,
)
from syncnet.media.clips import MediaError
from syncnet.media.file_type import SOUND_FILES, VIDEO_FILES
from syncnet.networks.choices import AUTO
from syncnet.support.commands import Parser
from syncnet.support.files import check_output, file_hash
from syncnet.support.names import counted, repeated
from syncnet.support.version import VERSION

if TYPE_CHECKING:
    from syncnet.networks.interface import Network

HELP = "Voice or face embeddings of files, one unit vector each."
EXAMPLE = [
    f"{COMMAND} embed {MODEL} folder/ --output voices.npz",
    f"{COMMAND} embed {MODEL} tracks/ --face --output faces",
]


def add_flags(parser: Parser) -> None:
    add_network(parser)
    add_crops(parser)
    add_resize(parser)
    parser.add_argument(
        "inputs",
        nargs="+",
        help="sound files (wav, m4a, mp4, flac, mp3, ogg, ...; converted to 16 kHz mono) or, with --face, face "
        "tracks; folders of them; or lists, with one path per line or made by makeFileList.py",
    )
    parser.add_argument("--face", action="store_true", help="embed the faces of 224x224 mp4 face tracks")
    parser.add_argument(
        "--output",
        required=True,
        help="x.npz: a file with the arrays files and vectors (files, nOut); any other name: a folder with one .npy "
        "per input",
    )
    parser.add_argument(
        "--per_crop", action="store_true", help="keep the num_eval vectors of each file instead of their mean"
    )


def run(args: argparse.Namespace, load_network: LoadNetwork, problems: Problems) -> None:
    from tqdm import tqdm

    from syncnet.inference.embedding_files import EmbeddingFiles, recorded_precision
    from syncnet.inference.embeddings import iter_embeddings
    from syncnet.inference.sources import find_sources

    sources = find_sources(args.inputs, VIDEO_FILES if args.face else SOUND_FILES, unread=problems)
    one_file = args.output.endswith(".npz")
    check_output("--output", args.output, folder=not one_file)
    names = [os.path.splitext(source.name)[0] + ".npy" for source in sources]
    if not one_file and repeated(names):
        raise MediaError(
            f"--output {args.output}: two inputs would have the same .npy; write an .npz instead"
        )
    if args.precision == AUTO:  # reuse the choice of an earlier run
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
            message = f"{args.output}: {len(output.done)} {of_all} are embedded; the same command resumes"
            tqdm.write(message, file=sys.stderr)
            raise
    if output.done:
        files, shape = output.finish()
        size = " x ".join(map(str, (files, *shape)))
        print(
            f"{args.output}: {'face' if args.face else 'voice'} embeddings of {counted(files, 'file')} ({size})"
        )


def embedding_settings(args: argparse.Namespace, network: Network) -> dict[str, object]:
    """Everything that determines what `embed` writes for a recording."""
    return {
        "program": VERSION,
        "checkpoint": file_hash(args.initial_model)[:16],
        **asdict(network.settings),
        "precision": network.precision,
        "stream": "face" if args.face else "voice",
        "num_eval": args.num_eval,
        "per_crop": args.per_crop,
    }
