"""One process of a test: loss, figures, gradients and weights on fixed batches, and scores of a trial list.

torchrun ... distributedCase.py OUTPUT TRIALS WAVS
"""

import random
import sys

import torch
from torch import nn

from syncnet.compute import distributed, precision
from syncnet.support.errors import UserError
from syncnet.training.state import hash_of_tensors, sync_from_rank_zero
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


def make_network(frozen: bool = True) -> SyncNet:
    """frozen: batch norms use running statistics, with which the share of a process does not matter."""
    torch.manual_seed(0)
    network = SyncNet(model="tinyModel", nOut=8, maxFrames=T, learning_rate=0.01, device="cpu")
    train = network.train

    def train_with_frozen_norms(mode: bool = True) -> SyncNet:
        train(mode)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eval()
        return network

    if frozen:
        network.train = train_with_frozen_norms
    return network


def check_that_differences_are_named(network: SyncNet) -> None:
    """Of several processes the last one has another setting; each of them says so."""
    last = distributed.processes() - 1
    try:
        sync_from_rank_zero(network, {"same": "", "lists": str(distributed.rank() == last)})
    except UserError as error:
        assert f"process {last} does not have the same lists as process 0" in str(error)
    else:
        assert last == 0
    assert distributed.on_rank_zero(distributed.rank) == 0
    assert distributed.union([distributed.rank(), 7]) == [*range(last + 1), 7]


def check_that_all_take_the_precision_of_rank_zero() -> None:
    own = "fp32" if distributed.rank() else "bf16"
    precision.faster_precision = lambda _: (own, "")
    assert precision.choose_precision("auto", torch.device("cpu"))[0] == "bf16"


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
    check_that_differences_are_named(network)
    check_that_all_take_the_precision_of_rank_zero()
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
    norms = make_network(frozen=False)
    norms.update(norms.train()(*next(iter(Batches())), 1.0, 1.0)[0])
    means = norms.__S__.norm.running_mean
    distributed.check_same({"running statistics": hash_of_tensors([means])})
    if distributed.is_main():
        found = {
            "means": means,
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
