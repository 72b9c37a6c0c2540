"""The lip stream's layers: parameters of 3-D layers, computed in 2-D."""

import copy
import pickle

import pytest
import torch
from torch import nn

from syncnet.compute.precision import autocast
from syncnet.networks.two_streams import Conv3dAs2d, MaxPool3dAs2d, lip_features, lip_trunk, num_embeddings

CPU = torch.device("cpu")
LAYOUTS = {
    "frames": lambda x: x.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3),
    "planes": lambda x: x.contiguous(),
    "every second column": lambda x: x.repeat_interleave(2, 4)[..., ::2],
}


def results(layer: nn.Module, video: torch.Tensor) -> list[torch.Tensor]:
    """The output of a layer, and the gradients of its input and parameters."""
    video = video.detach().requires_grad_()
    output = layer(video)
    weights = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).view(output.shape)
    return [output, *torch.autograd.grad((output * weights).sum(), [video, *layer.parameters()])]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "layer",
    [
        Conv3dAs2d(3, 8, (5, 7, 7), (1, 2, 2)),
        Conv3dAs2d(3, 8, (5, 7, 7), (2, 2, 2)),
        Conv3dAs2d(4, 2, (2, 3, 3), (3, 1, 1), (0, 1, 1), bias=False),
        Conv3dAs2d(4, 2, (1, 3, 3), (3, 1, 1), (0, 1, 1)),
        Conv3dAs2d(4, 2, (1, 5, 5), (1, 2, 2), (0, 1, 1)),
        MaxPool3dAs2d((1, 3, 3), (1, 2, 2)),
        MaxPool3dAs2d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
    ],
    ids=str,
)
def test_layers_equal_3d_layers(layer, layout):
    layer = copy.deepcopy(layer).double()
    ordinary = copy.deepcopy(layer)
    ordinary.__class__ = type(layer).__mro__[1]
    draws = torch.Generator().manual_seed(0)
    channels = getattr(layer, "in_channels", 4)
    for clips, frames in ((2, 9), (1, 5)):
        video = torch.randn(clips, channels, frames, 15, 13, generator=draws).double()
        found = results(layer, LAYOUTS[layout](video))
        for one, other in zip(found, results(ordinary, video), strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("stride, frames", [(1, 5), (1, 6), (2, 9), (2, 12)])
def test_gradients_in_bfloat16_are_finite_for_short_clips(stride, frames):
    """oneDNN's 3-D convolutions gave NaN for 1 to 4 embeddings per clip, on processors with AMX."""
    torch.manual_seed(0)
    trunk = lip_trunk(stride)
    video = torch.randint(0, 256, (2, frames, 224, 224, 3), dtype=torch.uint8).permute(0, 4, 1, 2, 3)
    with autocast(CPU, "bf16"):
        found = lip_features(trunk, video, "face")
    assert found.shape == (2, 512, num_embeddings(frames, stride))
    found.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in trunk.parameters())


def test_parameters_and_initial_values_equal_those_of_3d_layers():
    torch.manual_seed(0)
    ours = lip_trunk(stride=2)
    torch.manual_seed(0)
    ordinary = [
        nn.Conv3d(layer.in_channels, layer.out_channels, layer.kernel_size)
        for layer in ours
        if isinstance(layer, nn.Conv3d)
    ]
    convolutions = [layer for layer in ours if isinstance(layer, nn.Conv3d)]
    for one, other in zip(convolutions, ordinary, strict=True):
        assert torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias)
    named = {name.split(".")[0] for name, _ in ours.named_parameters()}
    assert named == {str(number) for number in (0, 1, 4, 5, 8, 9, 11, 12, 14, 15, 18, 19)}


def test_a_trunk_behaves_like_any_sequential():
    video = torch.randint(0, 256, (1, 3, 7, 224, 224)).float()
    trunk = lip_trunk(stride=1).eval()
    with torch.no_grad():
        expected = trunk(video)
        assert expected.shape == (1, 512, 3, 1, 1)
        for same in (copy.deepcopy(trunk), pickle.loads(pickle.dumps(trunk))):
            assert torch.equal(same(video), expected)
        own = nn.Conv3d(96, 256, (1, 5, 5), (1, 2, 2), (0, 1, 1))  # a layer of the user's
        own.load_state_dict(trunk[4].state_dict())
        changed = copy.deepcopy(trunk)
        changed[4] = own
        torch.testing.assert_close(changed(video), expected)
        synced = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(trunk))
        assert isinstance(synced[1], nn.SyncBatchNorm)
        torch.testing.assert_close(synced(video), expected)


def test_too_few_frames_are_refused():
    with pytest.raises(RuntimeError, match="5"):
        lip_trunk(stride=1)(torch.zeros(1, 3, 4, 224, 224))
