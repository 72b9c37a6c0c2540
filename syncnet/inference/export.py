"""inferSyncNet.py export: export a stream with one head to ONNX, including the front end."""

from __future__ import annotations

import argparse

from syncnet.inference.command_flags import COMMAND, MODEL, PUBLISHED, LoadNetwork, Problems, add_checkpoint
from syncnet.support.commands import Parser
from syncnet.support.files import check_output, file_hash

HELP = (
    "Export a stream with one head to ONNX, including the front end, for use in other programs. Needs the packages "
    "onnx, onnxscript and onnxruntime; the file is checked against PyTorch."
)
EXAMPLE = [
    f"{COMMAND} export {MODEL} --stream voice --head identity --output voice.onnx",
    f"{COMMAND} export {PUBLISHED} --stream face --head content --output lips.onnx",
]


def add_flags(parser: Parser) -> None:
    add_checkpoint(parser)
    parser.set_defaults(device="cpu", precision="fp32")
    parser.add_argument(
        "--stream",
        required=True,
        choices=("voice", "face"),
        help="voice: waveform (batch, samples) float32 at 16 kHz, -32768 to 32767; face: frames (batch, frames, 224, "
        "224, 3) uint8, BGR, 25 per second",
    )
    parser.add_argument(
        "--head",
        required=True,
        choices=("identity", "content"),
        help="identity: one unit vector per clip, (batch, nOut); content: one vector per "
        "time step, (batch, steps, nOut)",
    )
    parser.add_argument("--output", required=True, metavar="ONNX", help="file to write")


def run(args: argparse.Namespace, load_network: LoadNetwork, _problems: Problems) -> None:
    from syncnet.inference.onnx_file import INPUTS, export, import_packages

    check_output("--output", args.output)
    import_packages()  # fail before anything is computed
    network = load_network(args)
    checkpoint = {"checkpoint_sha256": file_hash(args.initial_model)}
    difference = export(network, args.stream, args.head, args.output, checkpoint)
    print(
        f"{args.output}: {INPUTS[args.stream]} to {args.stream} {args.head} embeddings of {network.nOut}; largest "
        f"difference from PyTorch {difference:.2g}"
    )
