"""Training settings recorded in a checkpoint or implied by its weights."""

import re

from torch import Tensor

from syncnet.networks.settings import default_settings
from syncnet.networks.two_streams import settings_of_heads

PUBLISHED_HEADS = ("netfcaud", "netfclip")


def trained_with(state: dict[str, Tensor]) -> dict[str, object]:
    """Return the settings (see syncnet/networks/settings.py) that the weights were trained with, as far as known.

    If none are recorded, the shapes of the weights give the embedding size and identify the published lip-sync
    network.
    """
    recorded = recorded_settings(state)
    return published_settings(state) or settings_of_heads(state) if recorded is None else recorded


def recorded_settings(state: dict[str, Tensor]) -> dict[str, object] | None:
    """Return the settings in the metadata of a state dict, or None if there are none."""
    metadata = getattr(state, "_metadata", None)
    recorded = metadata.get("settings") if isinstance(metadata, dict) else None
    if not isinstance(recorded, dict):
        return None
    return {name: recorded[name] for name in default_settings() if name in recorded}


def settings_of_flags(flags: object) -> dict[str, object]:
    """Return the network settings among the flags in a training state, which are stored as text."""
    if not isinstance(flags, dict):
        return {}
    settings: dict[str, object] = {}
    for name, default in default_settings().items():
        if isinstance(value := flags.get(name), str):
            is_number = isinstance(default, int) and re.fullmatch(r"\d{1,9}", value)
            settings[name] = int(value) if is_number else value
    return settings


def published_settings(state: dict[str, Tensor]) -> dict[str, object]:
    """Return the settings of the published lip-sync network, with any name prefix; {} for any other network.

    It has linear heads (2-D weights); the other networks have convolutional ones.
    """
    heads = [
        tensor
        for name, tensor in state.items()
        if name.endswith(tuple(f"{head}.0.weight" for head in PUBLISHED_HEADS))
    ]
    sizes = [len(tensor) for name, tensor in state.items() if name.endswith(f"{PUBLISHED_HEADS[0]}.3.weight")]
    if len(heads) != len(PUBLISHED_HEADS) or len(sizes) != 1 or any(head.dim() != 2 for head in heads):
        return {}
    return {"model": "models.SyncNetV2", "nOut": sizes[0], "temporal_stride": 1}
