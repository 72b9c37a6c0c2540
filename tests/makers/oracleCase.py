"""The oracle: networks with the recipe's weights, and the numbers that the 2020 program gave for them."""

import json
from pathlib import Path

import numpy as np
import torch
from oracle import recipe

from syncnet.media.crops import WINDOW_TAIL
from SyncNetDist import SyncNet

FOLDER = Path(__file__).parents[1] / "oracle"


def load_case(name: str) -> tuple[dict, dict[str, np.ndarray]]:
    """Settings and results of a case, and its arrays."""
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return json.loads((FOLDER / f"{name}.json").read_text()), dict(arrays)


def oracle_state(case: dict, arrays: dict, shapes: dict) -> dict[str, torch.Tensor]:
    """The case's checkpoint, without the front end's constants."""
    state = {}
    for key, shape in shapes.items():
        if f"bn/{key}" in arrays:
            value = arrays[f"bn/{key}"]
        elif key.endswith("num_batches_tracked"):
            value = np.int64(0)
        else:
            value = recipe.weight(case["seed"], key, tuple(shape))
        state[key] = torch.as_tensor(value)
    return state


def oracle_network(case: dict, arrays: dict, device: str = "cpu", **settings) -> SyncNet:
    """A network with the case's weights; shapes are those of the training cases."""
    shapes = case.get("shapes") or load_case("train_stride2")[0]["shapes"]
    network = SyncNet(
        nOut=case["nOut"],
        maxFrames=case["maxFrames"],
        temporal_stride=case["temporal_stride"],
        learning_rate=case.get("lr", 1e-4),
        device=device,
        **settings,
    )
    _, unexpected = network.load_state_dict(oracle_state(case, arrays, shapes), strict=False)
    assert not unexpected
    return network


def inputs(case: dict, *key) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch as the loader gives it: video a uint8 view of (B, T, 224, 224, 3), audio on the int16 scale."""
    frames = case["maxFrames"]
    video = recipe.video((case["seed"], *key), case["batch"], frames)
    audio = recipe.audio((case["seed"], *key), case["batch"], frames * 640 + WINDOW_TAIL)
    return torch.from_numpy(video).permute(0, 4, 1, 2, 3), torch.from_numpy(audio)


class Steps:
    """The batches of an oracle epoch, as a loader."""

    def __init__(self, case: dict):
        self.batch_size = case["batch"]
        self.nFiles = case["batch"] * case["steps"]
        self.batches = [inputs(case, "step", step) for step in range(case["steps"])]

    def __iter__(self):
        return iter(self.batches)


def figures(tensor: torch.Tensor) -> np.ndarray:
    """[sum, sum of |x|, L2 norm, first, last] in float64."""
    x = tensor.detach().cpu().double().flatten()
    return torch.stack((x.sum(), x.abs().sum(), x.norm(), x[0], x[-1])).numpy()


def without_gradient(name: str) -> bool:
    """Is the true gradient zero? A batch norm takes out the bias before it, the softmax that of the logits."""
    if name.startswith("__L__"):
        return name in ("__L__.bI", "__L__.bC")
    network, index, what = name.split(".")[-3:]
    return what == "bias" and int(index) in ((0,) if "netfc" in network else (0, 4, 8, 11, 14, 18))


def relative_error(found: torch.Tensor, expected: np.ndarray) -> float:
    """Relative L2 error."""
    expected = torch.as_tensor(expected).double()
    return float((found.detach().cpu().double() - expected).norm() / expected.norm())
