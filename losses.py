"""The two losses of the 2020 baseline, for a whole batch at once.

Nagrani et al., "Disentangled Speech Embeddings using Cross-Modal Self-Supervision", ICASSP 2020,
section 2, with the baseline's similarity: a learned scale and bias on the cosine.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LossScale(nn.Module):
    """Learned scale and bias of the cosine similarities: logits = cos * w + b (I identity, C content)."""

    def __init__(self, wI: float = 10.0, bI: float = -5.0, wC: float = 10.0, bC: float = -5.0):
        super().__init__()
        self.wI = nn.Parameter(torch.tensor(wI))
        self.bI = nn.Parameter(torch.tensor(bI))
        self.wC = nn.Parameter(torch.tensor(wC))
        self.bC = nn.Parameter(torch.tensor(bC))


def unit(x: Tensor) -> Tensor:
    """Unit vectors along dimension 1, in float32, with the eps of torch's cosine_similarity."""
    return F.normalize(x.float(), dim=1, eps=1e-8)


def matching(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and top-1 accuracy of matching row i to column i.

    logits: (..., N, N) float32. Returns two scalars, means over all rows; the accuracy is a fraction.
    """
    rows = logits.flatten(0, -2)
    target = torch.arange(logits.shape[-1], device=logits.device).expand(logits.shape[:-1]).flatten()
    return F.cross_entropy(rows, target), (rows.detach().argmax(1) == target).float().mean()


def content_loss(video: Tensor, audio: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Which moment of the voice belongs to a moment of the face, within each clip.

    video, audio: content embeddings, (B, nOut, T'). Returns (loss, top-1), means over the clips.
    """
    return matching(torch.bmm(unit(video).transpose(1, 2), unit(audio)) * w + b)


def identity_loss(face: Tensor, voice: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Which voice of the batch belongs to a face.

    face, voice: one identity vector a clip, (B, nOut). Returns (loss, top-1), means over the faces.
    """
    return matching(unit(face) @ unit(voice).T * w + b)
