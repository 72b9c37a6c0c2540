"""The losses of the 2020 baseline, and two losses of the paper that the baseline omits, for whole batches.

Nagrani, Chung, Albanie, Zisserman, "Disentangled Speech Embeddings using Cross-Modal Self-Supervision",
ICASSP 2020, section 2. Two tasks match faces to voices. Content: which of the T' time steps of a clip's voice matches
a time step of its face. Identity: which of the B voices in the batch matches a face. Each is a softmax over the rows
of a matrix of logits, T' x T' for each clip, or B x B.

Logits by distance:
    cosine     cos(x, y) * w + b with a learned scale w and bias b for each task, as in the baseline
    euclidean  1 / |x - y|, without scale and bias: Chung, Chung, Kang, "Perfect match: improved cross-modal
               embeddings for audio-visual synchronisation", ICASSP 2019, section 2
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MIN_DISTANCE = 1e-4  # keeps 1 / distance finite


class LossScale(nn.Module):
    """Learned scale and bias of the cosine similarities: logits = cos * w + b (I identity, C content)."""

    def __init__(self, wI: float = 10.0, bI: float = -5.0, wC: float = 10.0, bC: float = -5.0):
        super().__init__()
        self.wI = nn.Parameter(torch.tensor(wI))
        self.bI = nn.Parameter(torch.tensor(bI))
        self.wC = nn.Parameter(torch.tensor(wC))
        self.bC = nn.Parameter(torch.tensor(bC))


def unit(x: Tensor) -> Tensor:
    """Normalize to unit vectors along dimension 1, in float32, with the eps of torch's cosine_similarity."""
    return F.normalize(x.float(), dim=1, eps=1e-8)


def inverse_distance(x: Tensor, y: Tensor) -> Tensor:
    """Compute 1 / Euclidean distance from every row of x to every row of y: (..., N, D), (..., M, D) -> (..., N, M).

    Computed in float32 from differences: the faster |x|^2 + |y|^2 - 2xy is inaccurate for small distances.
    """
    distance = torch.cdist(x.float(), y.float(), compute_mode="donot_use_mm_for_euclid_dist")
    return 1 / distance.clamp(min=MIN_DISTANCE)


def content_logits(video: Tensor, audio: Tensor, w: Tensor, b: Tensor, distance: str = "cosine") -> Tensor:
    """Compute logits of every time step of a face (rows) and its voice (columns).

    video, audio: (B, nOut, T'). Returns (B, T', T').
    """
    if distance == "euclidean":
        return inverse_distance(video.transpose(1, 2), audio.transpose(1, 2))
    return torch.bmm(unit(video).transpose(1, 2), unit(audio)) * w + b


def identity_logits(face: Tensor, voice: Tensor, w: Tensor, b: Tensor, distance: str = "cosine") -> Tensor:
    """Compute logits of every face (rows) and every voice (columns). face, voice: (B, nOut). Returns (B, B)."""
    if distance == "euclidean":
        return inverse_distance(face, voice)
    return unit(face) @ unit(voice).T * w + b


def matching(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Compute cross-entropy and top-1 accuracy (0..1) of matching row i to column i.

    logits: (..., N, N) float32. Returns two scalars, means over all rows.
    """
    rows = logits.flatten(0, -2)
    target = torch.arange(logits.shape[-1], device=logits.device).expand(logits.shape[:-1]).flatten()
    return F.cross_entropy(rows, target), (rows.detach().argmax(1) == target).float().mean()


def confusion(logits: Tensor) -> Tensor:
    """Compute cross-entropy between the uniform distribution and the softmax p of each row: -1/N sum_j log p_ij.

    logits: (..., N, N) float32. Returns a scalar, the mean over all rows. The minimum, log N, is reached when all
    logits in each row are equal; the gradient with respect to logit_ij is (p_ij - 1/N) / number of rows.
    """
    return -logits.log_softmax(-1).mean()


def content_loss(
    video: Tensor, audio: Tensor, w: Tensor, b: Tensor, distance: str = "cosine"
) -> tuple[Tensor, Tensor]:
    """Loss for matching each time step of a face to a time step of the voice in the same clip.

    video, audio: content embeddings, (B, nOut, T'). Returns (loss, top-1 accuracy), means over the clips.
    """
    return matching(content_logits(video, audio, w, b, distance))


def identity_loss(
    face: Tensor, voice: Tensor, w: Tensor, b: Tensor, distance: str = "cosine"
) -> tuple[Tensor, Tensor]:
    """Loss for matching each face to a voice in the batch.

    face, voice: one identity vector per clip, (B, nOut). Returns (loss, top-1 accuracy), means over the faces.
    """
    return matching(identity_logits(face, voice, w, b, distance))


def content_confusion(video: Tensor, audio: Tensor, w: Tensor, b: Tensor, distance: str = "cosine") -> Tensor:
    """First half of the disentanglement loss: identity embeddings must not reveal the time step.

    Our reading of the paper's section 2, where C is the confusion above, v and a are face and voice embeddings of one
    kind, i and j are time steps, r is a random time step, m and n are clips, and s are the logits of a task:

        L_D = C_ij[ s_C(v_identity(m, i), a_identity(m, j)) ]                  (this function)
            + C_mn[ s_I(v_content(m, r), mean over j of a_content(n, j)) ]     (identity_confusion)

    Embeddings of each kind are used for the task of the other kind, and the softmax is pushed toward the uniform
    distribution. The task's scale and bias are used but not trained, because w = 0 would minimize this loss.
    video, audio: identity embeddings, (B, nOut, T'). Returns a scalar.
    """
    return confusion(content_logits(video, audio, w.detach(), b.detach(), distance))


def identity_confusion(face: Tensor, voice: Tensor, w: Tensor, b: Tensor, distance: str = "cosine") -> Tensor:
    """Second half of the disentanglement loss (see content_confusion): content embeddings must not reveal identity.

    face, voice: one content vector per clip, (B, nOut): a single time step of the face, the mean over time of the
    voice. Returns a scalar.
    """
    return confusion(identity_logits(face, voice, w.detach(), b.detach(), distance))
