"""The mouth crop of face track frames."""

import torch
import torch.nn.functional as F
from torch import Tensor

# The mouth box, in fractions of the frame: a square with half the side length. In VoxCeleb2's tracks the center of
# the lips is between 0.30 and 0.62 of the width (near either end in profile) and between 0.48 and 0.63 of the height.
# The box also contains the tip of the nose and the jaw, which moves with speech, but not the eyes, the hair or most
# of the background. Tracks with another kind of crop need other numbers.
MOUTH_LEFT = 0.25
MOUTH_TOP = 0.35
MOUTH_SIZE = 0.5


def crop_mouth(video: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Crop the mouth box from every frame and scale it up to the size of the frame (bilinear).

    video: (B, 3, T, S, S) uint8 or float. Returns the same shape in `dtype`, a view of (B, T, S, S, 3) memory.
    Clips are scaled one by one, so only one clip at a time needs float32 memory.
    """
    side = video.shape[-1]
    mouths = mouth_box(video)
    scaled = torch.empty((*mouths.shape[:2], side, side, 3), dtype=dtype, device=video.device)
    for mouth, place in zip(mouths, scaled.permute(0, 1, 4, 2, 3), strict=True):
        place.copy_(enlarge(mouth, side))
    return scaled.permute(0, 4, 1, 2, 3)


def mouth_box(video: Tensor) -> Tensor:
    """Return a view of the mouth box of every frame: (B, 3, T, S, S) to (B, T, 3, size, size)."""
    side = video.shape[-1]
    left, top, size = (round(side * part) for part in (MOUTH_LEFT, MOUTH_TOP, MOUTH_SIZE))
    return video[..., top : top + size, left : left + size].transpose(1, 2)


def enlarge(mouths: Tensor, side: int) -> Tensor:
    """Scale boxes to the size of a frame: (N, 3, size, size) to (N, 3, side, side) float32."""
    pixels = mouths.float().contiguous(memory_format=torch.channels_last)
    return F.interpolate(pixels, size=(side, side), mode="bilinear", align_corners=False)
