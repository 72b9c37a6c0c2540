"""Check the outputs of a network on a small input before using it."""

import torch
from torch import Tensor

from syncnet.media.clips import FRAME_SIZE, LIP_FRAMES
from syncnet.media.crops import crop_samples
from syncnet.networks.interface import Network, Streams
from syncnet.networks.settings import Settings
from syncnet.networks.two_streams import TRUNK_CHANNELS, TwoStreams, num_embeddings
from syncnet.support.errors import UserError
from syncnet.support.remedies import ADD_A_NETWORK, NO_CONTENT, NO_IDENTITY

CLIPS = 2
HEADS = ("content", "identity")


def check_outputs(streams: Streams, settings: Settings, device: torch.device) -> tuple[bool, bool]:
    """Return whether a network has content heads and identity heads. Raises UserError if its outputs are malformed.

    forward_aud and forward_vid must return (content, identity), each (B, nOut, T') floating point, or None in both
    streams; T' = (T - 5) // temporal_stride + 1 for T frames. streams: on `device`. Their training mode and the
    random state are restored.
    """
    frames = min(settings.maxFrames, LIP_FRAMES + settings.temporal_stride)
    expected = (CLIPS, settings.nOut, num_embeddings(frames, settings.temporal_stride))
    form = (
        f"expected {expected}: clips, nOut, and (T - {LIP_FRAMES}) // temporal_stride + 1 embeddings of T = {frames} "
        f"frames with temporal_stride {settings.temporal_stride}; {ADD_A_NETWORK}"
    )
    audio = torch.zeros(CLIPS, crop_samples(frames), device=device)
    video = torch.zeros(CLIPS, frames, FRAME_SIZE, FRAME_SIZE, 3, dtype=torch.uint8, device=device)
    training = streams.training
    streams.eval()
    heads: dict[str, tuple[bool, bool]] = {}
    gpus = [device] if device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(gpus):
        if isinstance(streams, TwoStreams):
            check_trunk(streams, audio, (CLIPS, TRUNK_CHANNELS, 1, expected[2]), settings.model)
        for name, batch in (("forward_aud", audio), ("forward_vid", video.permute(0, 4, 1, 2, 3))):
            outputs = getattr(streams, name)(batch)
            where = f"model {settings.model!r}: {name}"
            if not isinstance(outputs, (tuple, list)) or len(outputs) != len(HEADS):
                raise UserError(
                    f"{where} returns {describe(outputs)}, expected a tuple of two, (content, identity); "
                    + ADD_A_NETWORK
                )
            for head, output in zip(HEADS, outputs, strict=True):
                right = isinstance(output, Tensor) and output.is_floating_point() and output.shape == expected
                if output is not None and not right:
                    raise UserError(f"{where} returns {head} of {describe(output)}, {form}")
            content, identity = (output is not None for output in outputs)
            heads[name] = (content, identity)
    streams.train(training)
    voices, faces = heads.values()
    if voices != faces or not any(voices):
        available = "; ".join(
            f"{name} has {' and '.join(h for h, there in zip(HEADS, found, strict=True) if there) or 'neither'}"
            for name, found in heads.items()
        )
        raise UserError(
            f"model {settings.model!r}: {available}; expected content, identity or both, alike in both streams; "
            + ADD_A_NETWORK
        )
    return faces


def check_trunk(streams: TwoStreams, audio: Tensor, expected: tuple[int, ...], model: str) -> None:
    """Raise UserError unless the shapes of a network's front end, audio trunk and heads match."""
    features = streams.features(audio)
    if not isinstance(features, Tensor) or features.dim() != 4 or len(features) != len(audio):
        raise UserError(
            f"model {model!r}: features returns {describe(features)} for audio of {tuple(audio.shape)}, expected 4 "
            f"dimensions: clips, 1, bands, time; {ADD_A_NETWORK}"
        )
    form = f"expected {expected}: clips, {TRUNK_CHANNELS} channels, 1, and one column per embedding; {ADD_A_NETWORK}"
    try:
        found = streams.netcnnaud(features)
    except RuntimeError as error:  # raised by a layer for a wrong input shape
        raise UserError(
            f"model {model!r}: the audio trunk fails on {describe(features)} from features ({error}); {form}"
        ) from error
    if not isinstance(found, Tensor) or found.shape != expected:
        raise UserError(
            f"model {model!r}: the audio trunk maps features of {describe(features)} to {describe(found)}, {form}"
        )


def describe(value: object) -> str:
    """Describe an output for a message: shape and dtype of a tensor, length of a tuple, otherwise its type."""
    if isinstance(value, Tensor):
        kind = "" if value.is_floating_point() else f" {str(value.dtype).removeprefix('torch.')}"
        return f"shape {tuple(value.shape)}{kind}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def require_identity(network: Network) -> None:
    """Raise UserError for a network without identity heads. To be called before any file is read."""
    if not network.has_identity:
        raise UserError(NO_IDENTITY)


def require_content(network: Network) -> None:
    """Raise UserError for a network without content heads. To be called before any file is read."""
    if not network.has_content:
        raise UserError(NO_CONTENT)
