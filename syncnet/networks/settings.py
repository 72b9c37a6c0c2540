"""The settings of a network, used by training, evaluation, inference, embedding caches and thresholds."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from numbers import Integral

from syncnet.media.clips import LIP_FRAMES
from syncnet.networks.choices import CROPS, DISTANCES
from syncnet.support.errors import UserError

# Smallest and largest valid values. A damaged file may contain larger ones, which would exhaust memory.
RANGES = {"nOut": (1, 65536), "maxFrames": (LIP_FRAMES, 100_000), "temporal_stride": (1, 1000)}
CHOICES = {"crop": CROPS, "distance": DISTANCES}


@dataclass(frozen=True)
class Settings:
    """The settings that determine what a network computes; the defaults are those of the 2020 baseline.

    model: module with a SyncNetModel. nOut: embedding size. maxFrames: video frames (40 ms each) per crop.
    temporal_stride: frames between embeddings. crop: input of the lip stream (face_crop.py). distance: distance of
    embeddings in the losses (losses.py).
    Raises UserError, naming the setting, if a value is of the wrong type or out of range.
    """

    model: str = "models.SyncNetModelFBank"
    nOut: int = 1024
    maxFrames: int = 30
    temporal_stride: int = 1
    crop: str = "face"
    distance: str = "cosine"

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            check_setting(name, value)
            if name in RANGES:  # NumPy integers cannot be saved in a checkpoint
                object.__setattr__(self, name, int(value))


def check_setting(name: str, value: object) -> None:
    """Raise UserError if a setting is of the wrong type or out of range."""
    if name in RANGES:
        least, most = RANGES[name]
        if not isinstance(value, Integral) or isinstance(value, bool) or not least <= int(value) <= most:
            raise UserError(f"{name} {value!r:.80}, expected a whole number from {least} to {most}")
    elif name in CHOICES:
        if not isinstance(value, str) or value not in CHOICES[name]:
            raise UserError(f"{name} {value!r:.80}, expected one of {', '.join(CHOICES[name])}")
    elif not isinstance(value, str) or not value:
        raise UserError(f"{name} {value!r:.80}, expected the name of a module")


def differences(old: Mapping[str, object], new: Mapping[str, object]) -> list[tuple[str, object, object]]:
    """Return (name, old, new) for each setting that differs; a missing setting has its default value."""
    defaults = default_settings()
    found = []
    for name in dict.fromkeys([*old, *new]):
        before, now = (record.get(name, defaults.get(name)) for record in (old, new))
        if before != now:
            found.append((name, before, now))
    return found


def default_settings() -> dict[str, object]:
    """Return the settings of the 2020 baseline by name."""
    return {field.name: field.default for field in fields(Settings)}
