"""One process of a test: loss, figures, gradients and weights on fixed batches, and scores of a trial list.

torchrun ... distributedCase.py OUTPUT TRIALS WAVS
"""

import random
import sys

import torch
from torch import nn

from syncnet.compute import distributed
from syncnet.support.errors import UserError
from syncnet.training.state import sync_from_rank_zero
from SyncNetDist import SyncNet

BATCH, STEPS, T = 6, 2, 9


class Batches:
    """This process's share of the same batches."""

    batch_size, nFiles = BATCH, BATCH * STEPS

    def __iter__(self):
        draws = torch.Generator().manual_seed(0)
        for _ in range(STEPS):
            squares = torch.randint(0, 256, (BATCH, 3, T, 7, 7), dtype=torch.uint8, generator=draws)
            video = squares.repeat_interleave(32, -1).repeat_interleave(32, -2)
            audio = 3000 * torch.randn(BATCH, T * 640 + 240, generator=draws)
            yield tuple(x.chunk(distributed.processes())[distributed.rank()] for x in (video, audio))


def make_network() -> SyncNet:
    torch.manual_seed(0)
    network = SyncNet(model="tinyModel", nOut=8, maxFrames=T, learning_rate=0.01, device="cpu")
    train = network.train

    def train_with_frozen_norms(mode: bool = True) -> SyncNet:
        train(mode)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eval()
        return network

    network.train = train_with_frozen_norms
    return network


def check_that_differences_are_named() -> None:
    """Of several processes the last one differs; each of them says which, and in what."""
    last = distributed.processes() - 1
    try:
        distributed.check_same({"lists": "same", "weights": str(distributed.rank() == last)})
    except UserError as error:
        assert f"process {last} does not have the same weights as process 0" in str(error)
    else:
        assert last == 0
    assert distributed.on_rank_zero(distributed.rank) == 0


def check_that_counts_are_shared() -> None:
    counted = [distributed.add_one("counted", here=1) for _ in range(3)]
    distributed.wait_for_all()
    shared = distributed.processes() > 1
    assert not shared or counted[0] < counted[1] < counted[2] <= 3 * distributed.processes()
    assert not shared or distributed.add_one("counted", here=1) > 3 * distributed.processes()


def main(output: str, trials: str, wavs: str) -> None:
    distributed.setup("cpu")
    random.seed(0)
    network = make_network()
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor += distributed.rank()  # until they are those of the first
    sync_from_rank_zero(network, {"lists": "the same"})
    check_that_differences_are_named()
    check_that_counts_are_shared()
    gradients = []
    step = network.__optimizer__.step

    def keep_gradients() -> None:
        gradients.append({name: p.grad.clone() for name, p in network.named_parameters()})
        step()

    network.__optimizer__.step = keep_gradients
    scores, _ = network.evaluateFromListSave(trials, test_path=wavs, num_eval=2)
    result = network.run_epoch(Batches(), alpC=0.7, alpI=1.3)
    checked = network.run_epoch(Batches(), evalmode=True)
    if distributed.is_main():
        found = {
            "rows": torch.tensor(result.rows),
            "checked": torch.tensor(checked.rows),
            "gradients": gradients[0],
            "weights": dict(network.state_dict()),
            "scores": torch.tensor(scores),
        }
        torch.save(found, output)
    distributed.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
