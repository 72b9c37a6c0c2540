"""The losses compared with slow, literal implementations."""

import math

import pytest
import torch

from syncnet.networks.losses import (
    MIN_DISTANCE,
    LossScale,
    confusion,
    content_confusion,
    content_logits,
    content_loss,
    identity_confusion,
    identity_logits,
    identity_loss,
    inverse_distance,
    unit,
)

CLIPS, SIZE, MOMENTS = 3, 6, 5
W, B = torch.tensor(7.0), torch.tensor(-2.0)


def embeddings(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


VIDEO, AUDIO = embeddings(1, CLIPS, SIZE, MOMENTS), embeddings(2, CLIPS, SIZE, MOMENTS)
CLIPS_OF_BOTH = list(zip(VIDEO, AUDIO, strict=True))
FACE, VOICE = embeddings(3, CLIPS, SIZE), embeddings(4, CLIPS, SIZE)


def logit(x: torch.Tensor, y: torch.Tensor, distance: str) -> float:
    """Of two vectors, from the definition."""
    x, y = x.tolist(), y.tolist()
    if distance == "euclidean":
        return 1 / math.sqrt(sum((p - q) ** 2 for p, q in zip(x, y, strict=True)))
    size = math.sqrt(sum(p * p for p in x) * sum(q * q for q in y))
    return sum(p * q for p, q in zip(x, y, strict=True)) / size * W.item() + B.item()


def softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(value) for value in row)
    return [math.exp(value) / total for value in row]


def tasks(distance: str) -> dict[str, list[list[float]]]:
    """Rows of probabilities of both tasks: content over all clips, identity over the batch."""
    content = [
        softmax([logit(VIDEO[clip, :, i], AUDIO[clip, :, j], distance) for j in range(MOMENTS)])
        for clip in range(CLIPS)
        for i in range(MOMENTS)
    ]
    identity = [softmax([logit(FACE[a], VOICE[b], distance) for b in range(CLIPS)]) for a in range(CLIPS)]
    return {"content": content, "identity": identity}


LOSSES = {"content": (content_loss, VIDEO, AUDIO), "identity": (identity_loss, FACE, VOICE)}
CONFUSIONS = {"content": (content_confusion, VIDEO, AUDIO), "identity": (identity_confusion, FACE, VOICE)}


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_logits_against_the_definition(distance):
    """Of a face or a moment of it in each row, of a voice in each column."""
    found = identity_logits(FACE, VOICE, W, B, distance)
    expected = [[logit(face, voice, distance) for voice in VOICE] for face in FACE]
    torch.testing.assert_close(found, torch.tensor(expected))
    found = content_logits(VIDEO, AUDIO, W, B, distance)
    expected = [[[logit(x, y, distance) for y in audio.T] for x in video.T] for video, audio in CLIPS_OF_BOTH]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_vectors_shorter_than_1e_8_are_not_scaled_to_unit_length():
    """As torch's cosine_similarity: they are divided by 1e-8."""
    assert unit(torch.tensor([[3e-9, 4e-9], [3.0, 4.0]])).tolist() == [
        pytest.approx([0.3, 0.4]),
        pytest.approx([0.6, 0.8]),
    ]


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("task", ["content", "identity"])
def test_matching_against_the_definition(task, distance):
    rows = tasks(distance)[task]
    right = [k % len(rows[0]) for k in range(len(rows))]
    loss, top1 = LOSSES[task][0](*LOSSES[task][1:], W, B, distance)
    expected = -sum(math.log(row[k]) for row, k in zip(rows, right, strict=True)) / len(rows)
    hits = sum(max(row) == row[k] for row, k in zip(rows, right, strict=True)) / len(rows)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert top1.item() == pytest.approx(hits)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("task", ["content", "identity"])
def test_confusion_against_the_definition(task, distance):
    rows = tasks(distance)[task]
    expected = -sum(math.log(p) / len(row) for row in rows for p in row) / len(rows)
    found = CONFUSIONS[task][0](*CONFUSIONS[task][1:], W, B, distance)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_confusion_has_its_minimum_at_the_uniform_distribution():
    uniform = torch.full((2, 4, 4), 3.0, requires_grad=True)
    loss = confusion(uniform)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(4))
    assert uniform.grad.abs().max() < 1e-7

    same = embeddings(5, CLIPS, SIZE, 1).expand(-1, -1, MOMENTS).clone().requires_grad_()
    content_confusion(same, AUDIO[:, :, :1].expand(-1, -1, MOMENTS), W, B).backward()
    assert same.grad.abs().max() < 1e-7


def test_confusion_pushes_towards_the_uniform_distribution():
    logits = 3 * embeddings(6, 2, 4, 4)
    logits.requires_grad_()
    confusion(logits).backward()
    p = logits.detach().softmax(-1)
    torch.testing.assert_close(logits.grad, (p - 1 / 4) / 8)  # eight rows; what is too likely goes down

    face, voice = FACE.clone().requires_grad_(), VOICE.clone().requires_grad_()
    descent = torch.optim.SGD([face, voice], lr=0.4)
    losses = []
    for _ in range(100):
        descent.zero_grad()
        losses.append(identity_confusion(face, voice, W, B))
        losses[-1].backward()
        descent.step()
    assert losses[0] > math.log(CLIPS) + 0.5
    assert losses[-1].item() == pytest.approx(math.log(CLIPS), abs=0.01)
    assert identity_logits(face, voice, W, B).softmax(1).sub(1 / CLIPS).abs().max() < 0.05


def test_confusion_does_not_train_the_scales():
    w, b = W.clone().requires_grad_(), B.clone().requires_grad_()
    face = FACE.clone().requires_grad_()
    (identity_confusion(face, VOICE, w, b) + content_confusion(VIDEO, AUDIO, w, b)).backward()
    assert w.grad is None and b.grad is None and face.grad.abs().max() > 0


def test_euclidean_logits_have_no_scale_and_are_finite():
    w, b = W.clone().requires_grad_(), B.clone().requires_grad_()
    for loss, x, y in LOSSES.values():
        assert not loss(x, y, w, b, "euclidean")[0].requires_grad
    x = FACE.clone().requires_grad_()
    logits = inverse_distance(x, FACE)
    assert logits.diagonal().tolist() == pytest.approx([1 / MIN_DISTANCE] * CLIPS)
    logits.sum().backward()
    assert x.grad.isfinite().all()


def test_distances_of_close_vectors_far_from_the_origin():
    x = 100 + embeddings(7, 40, 64)
    y = x + 1e-2
    assert inverse_distance(x, y).diagonal() == pytest.approx(1 / (x - y).norm(dim=1), rel=1e-3)


def test_half_precision_embeddings_are_compared_in_float32():
    video, audio = VIDEO.bfloat16(), AUDIO.bfloat16()
    for distance in ("cosine", "euclidean"):
        found = content_logits(video, audio, W, B, distance)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, content_logits(video.float(), audio.float(), W, B, distance))


def test_the_scales_begin_as_in_the_2020_baseline():
    values = {name: value.item() for name, value in LossScale().named_parameters()}
    assert values == {"wI": 10, "bI": -5, "wC": 10, "bC": -5}
