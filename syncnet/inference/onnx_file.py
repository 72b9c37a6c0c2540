"""Export a stream with one head to ONNX: sound or frames in, embeddings out, including the front end."""

import contextlib
import copy
import importlib
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from syncnet.inference.lip_sync import is_published
from syncnet.media.clips import FRAME_SIZE, LIP_FRAMES
from syncnet.media.crops import crop_samples
from syncnet.networks.face_crop import enlarge, mouth_box
from syncnet.networks.interface import Network, Streams
from syncnet.networks.losses import unit
from syncnet.networks.output_check import require_content, require_identity
from syncnet.networks.two_streams import content_of, identity_of
from syncnet.support.errors import UserError
from syncnet.support.files import replace_file
from syncnet.support.version import VERSION

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
MOST_DIFFERENCE = 1e-3  # between elements of ONNX and PyTorch embeddings; 1e-6 is usual
CHECKED = ((1, 50), (3, 20))  # (clips, video frames) of the inputs for the comparison
INPUTS = {"voice": "waveform", "face": "frames"}
LENGTHS = {"voice": "samples", "face": "frames"}


class Exported(nn.Module):
    """The module that is exported: from a batch of one stream to embeddings of one head.

    network: the two streams. stream: "voice", whose input is (B, samples) float32 on the int16 scale, or "face",
    (B, T, 224, 224, 3) uint8 BGR. head: "identity" gives (B, nOut), the mean over time at unit length; "content"
    gives (B, T', nOut), at unit length if `as_unit`.
    """

    def __init__(self, network: Streams, stream: str, head: str, as_unit: bool):
        super().__init__()
        self.network, self.stream, self.head, self.as_unit = network, stream, head, as_unit

    def forward(self, batch: Tensor) -> Tensor:
        if self.stream == "voice":
            outputs = self.network.forward_aud(batch)
        else:
            outputs = self.network.forward_vid(self.pixels(batch.permute(0, 4, 1, 2, 3)))
        if self.head == "identity":
            return unit(identity_of(outputs).float().mean(2))
        content = content_of(outputs)
        return (unit(content) if self.as_unit else content).transpose(1, 2)

    def pixels(self, video: Tensor) -> Tensor:
        return video


class ExportedMouth(Exported):
    """Like Exported, for a network with mouth crops: crops all frames at once, for any number of clips."""

    def __init__(self, network: Streams, stream: str, head: str, as_unit: bool):
        super().__init__(copy.deepcopy(network), stream, head, as_unit)
        self.network.crop = "face"

    def pixels(self, video: Tensor) -> Tensor:
        mouths = mouth_box(video)
        scaled = enlarge(mouths.flatten(0, 1), FRAME_SIZE)
        return scaled.unflatten(0, mouths.shape[:2]).transpose(1, 2)


def export(
    network: Network, stream: str, head: str, output: str, about: dict[str, str] | None = None
) -> float:
    """Write the ONNX file `output` and return the largest difference of its embeddings from PyTorch's.

    network: on any device; a copy on the CPU is exported. stream: "voice" or "face". head: "identity" or "content".
    For inputs and outputs, see Exported; the number of clips and their length are dynamic. Content embeddings have
    unit length, except those of the published lip-sync network, whose distances are measured without normalization.
    about: further metadata for the file.
    The model is checked with onnxruntime on other inputs than it was exported with, and written only if it agrees
    with PyTorch. Raises UserError if it does not, for a network without that head, and for missing packages;
    OSError.
    """
    onnxruntime = import_packages()
    if head == "identity":
        require_identity(network)
    else:
        require_content(network)
    as_unit = not is_published(network)
    streams = copy.deepcopy(network.__S__).cpu().eval()
    original = Exported(streams, stream, head, as_unit)
    batches = [example(stream, clips, frames) for clips, frames in CHECKED]
    with torch.inference_mode():
        expected = [original(batch).numpy() for batch in batches]
    kind = ExportedMouth if stream == "face" and network.settings.crop == "mouth" else Exported
    data = to_onnx(
        kind(streams, stream, head, as_unit).eval(),
        stream,
        # Three embeddings or more: torch.export would treat a dimension of size 1 as static.
        example(stream, 2, max(CHECKED[-1][1], LIP_FRAMES + 2 * network.settings.temporal_stride)),
        {"stream": stream, "head": head, "program": f"SyncNet trainer {VERSION}"}
        | {"settings": json.dumps(asdict(network.settings))}
        | (about or {}),
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    found = [session.run(None, {INPUTS[stream]: batch.numpy()})[0] for batch in batches]
    difference = largest_difference(found, expected)
    if not difference <= MOST_DIFFERENCE:
        raise UserError(
            f"{output}: not written, its embeddings differ from PyTorch's by up to {difference:.2g}, more than "
            f"{MOST_DIFFERENCE:g}; try other versions of {', '.join(PACKAGES)}"
        )
    with replace_file(output, "wb") as file:
        file.write(data)
    return difference


def import_packages() -> ModuleType:
    """Import all packages that export needs; return onnxruntime. Raises UserError naming what to install."""
    missing = []
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise UserError(f"export: needs {', '.join(missing)}; install with: pip install {' '.join(PACKAGES)}")
    return importlib.import_module("onnxruntime")


def to_onnx(module: Exported, stream: str, batch: Tensor, about: dict[str, str]) -> bytes:
    """The bytes of an ONNX file in which the number of clips and their length are dynamic."""
    dynamic = {0: torch.export.Dim("batch"), 1: torch.export.Dim(LENGTHS[stream])}
    try:
        with quiet():
            program = torch.onnx.export(
                module,
                (batch,),
                dynamo=True,
                input_names=[INPUTS[stream]],
                output_names=["embedding"],
                dynamic_shapes=(dynamic,),
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise UserError(
            f"PyTorch cannot export the {stream} stream of this network to ONNX: {reason}"
        ) from error
    assert program is not None  # None only without dynamo
    proto = program.model_proto
    for name, value in about.items():
        proto.metadata_props.add(key=name, value=value)
    return proto.SerializeToString()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporter's remarks about packages that it does not need."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def example(stream: str, clips: int, frames: int) -> Tensor:
    """A reproducible random input of a stream: noise that swells and fades, or frames."""
    draws = torch.Generator().manual_seed(clips * frames)
    if stream == "face":
        shape = (clips, frames, FRAME_SIZE, FRAME_SIZE, 3)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=draws)
    samples = crop_samples(frames)
    loudness = torch.linspace(0, 8, samples).sin().clamp(min=0) * 8000
    return (torch.randn(clips, samples, generator=draws) * loudness).round()


def largest_difference(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """The largest difference between elements; NaN if an array has a NaN, infinite if shapes differ."""
    if [one.shape for one in found] != [one.shape for one in expected]:
        return float("inf")
    largest = [np.abs(one - other).max() for one, other in zip(found, expected, strict=True)]
    return float(np.max(largest))  # Python's max may ignore a NaN
