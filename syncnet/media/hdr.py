"""Tone mapping of HDR pictures (HLG and PQ, ITU-R BT.2100) to SDR."""

from functools import cache

import av
import cv2
import numpy as np

from syncnet.media.open_media import HLG, ONE_THREAD

BT2020 = 9  # color primaries, as numbered in ITU-T H.273
PEAK = 1000.0  # cd/m2: peak of the HLG reference display; anything brighter is clipped
WHITE = 100.0  # cd/m2: SDR white, the usual value in HDR to SDR conversion
KNEE = 0.7  # fraction of SDR white up to which brightness is not compressed
TO_BT709 = np.array(  # from BT.2020 primaries, in RGB order (ITU-R BT.2087)
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
LUMINANCE = np.array([[0.2627, 0.6780, 0.0593]], np.float32)  # BT.2020
STEPS = 4096  # entries of the lookup table, over the square root of brightness


def sdr_picture(frame: av.VideoFrame, size: tuple[int, int], transfer: int, primaries: int) -> np.ndarray:
    """Convert an HDR frame to SDR, scaled to size (width, height): (height, width, 3) uint8 in BGR order."""
    coded = frame.reformat(*size, format="rgb48le", interpolation="AREA", **ONE_THREAD).to_ndarray()
    light = _brightness(transfer)[coded]
    if transfer == HLG:  # the display's OOTF (BT.2100, table 5)
        shown = np.maximum(cv2.transform(light, LUMINANCE), 1e-6) * (WHITE / PEAK)
        light *= np.power(shown, 0.2)[..., None]
    if primaries == BT2020:
        light = cv2.transform(light, TO_BT709)
    index = np.sqrt(np.clip(light, 0, PEAK / WHITE), out=light)
    index *= (STEPS - 1) / np.sqrt(PEAK / WHITE)
    return np.ascontiguousarray(_shown()[index.astype(np.uint16)][..., ::-1])


@cache
def _brightness(transfer: int) -> np.ndarray:
    """Lookup table from 16-bit signal to light, where 1 is WHITE (for HLG, before the OOTF): (65536,) float32."""
    signal = np.arange(65536) / 65535
    if transfer == HLG:  # inverse OETF
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12) * PEAK
    else:  # EOTF
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        power = signal ** (1 / m2)
        light = 10000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)
    return (light / WHITE).astype(np.float32)


@cache
def _shown() -> np.ndarray:
    """Lookup table from the square root of brightness, 0 to PEAK, to 8-bit SDR (ITU-R BT.1886): (STEPS,) uint8.

    Above KNEE, brightness is compressed so that PEAK becomes white (Reinhard's curve).
    """
    most = PEAK / WHITE
    light = (np.arange(STEPS) / (STEPS - 1)) ** 2 * most
    above, top = np.maximum(light - KNEE, 0) / (1 - KNEE), (most - KNEE) / (1 - KNEE)
    compressed = KNEE + (1 - KNEE) * above * (1 + above / top**2) / (1 + above)
    return np.rint(255 * np.where(light > KNEE, compressed, light) ** (1 / 2.4)).astype(np.uint8)
