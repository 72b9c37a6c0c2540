"""Draw synthetic faces for an identity, with a mouth that follows the speech."""

import cv2
import numpy as np

from syncnet.demo.voice import Identity
from syncnet.media.clips import FRAME_SIZE


def mix(low: tuple, high: tuple, share: float) -> np.ndarray:
    """Interpolate linearly between two BGR colors. share: 0 for low, 1 for high."""
    return np.array(low) + (np.array(high, float) - np.array(low)) * share


class DrawnFace:
    """A face with constant lighting, a slowly swaying head, blinking eyes and a moving mouth."""

    CIRCLE = np.stack([f(np.linspace(0, 2 * np.pi, 48, endpoint=False)) for f in (np.cos, np.sin)], axis=1)
    SUBPIXEL = 4  # fractional bits of OpenCV's drawing coordinates

    def __init__(self, identity: Identity, rng: np.random.Generator):
        self.identity = identity
        self.radius = FRAME_SIZE * (0.25 + 0.15 * identity.size)
        self.skin = mix((45, 70, 120), (195, 220, 255), identity.brightness)
        self.hair = mix((40, 150, 20), (190, 20, 200), identity.tempo)
        self.background = mix((220, 60, 20), (10, 130, 255), identity.pitch)
        self.center = FRAME_SIZE * np.array([0.5, 0.5]) + rng.uniform(-6, 6, 2)
        side = np.linspace(-1, 1, FRAME_SIZE)[None, :, None] * rng.uniform(-0.1, 0.1)
        light = np.clip(rng.uniform(0.85, 0.95) + side, 0, 1) * np.ones((FRAME_SIZE, 1, 3))
        self.light = (255 * light).astype(np.uint8)
        # Slow sway: amplitude, frequency (Hz) and phase (turns) of x, y (pixels) and roll (radians).
        self.sway = np.stack([[3.0, 2.5, 0.05], rng.uniform(0.2, 0.7, 3), rng.random(3)])
        self.blink = rng.uniform(0.5, 3.0)

    def pose(self, time: float) -> np.ndarray:
        """Return x, y (pixels) and roll (radians) of the head at `time` seconds."""
        amplitude, frequency, phase = self.sway
        return amplitude * np.sin(2 * np.pi * (frequency * time + phase))

    def draw(self, time: float, opening: float, spread: float) -> np.ndarray:
        """Draw the frame at `time` seconds: (FRAME_SIZE, FRAME_SIZE, 3) uint8 BGR.

        opening, spread: shape of the mouth, 0..1.
        """
        image = np.empty((FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
        image[:] = self.background
        x, y, roll = self.pose(time)
        turn = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]]) * self.radius
        origin = self.center + (x, y)

        def blob(center: tuple, axes: tuple, color: np.ndarray) -> None:
            """Draw an ellipse, in units of the head's radius relative to its center."""
            points = (self.CIRCLE * axes + center) @ turn + origin
            points = np.round(points * 2**self.SUBPIXEL).astype(np.int32)
            cv2.fillPoly(image, [points], tuple(map(float, color)), cv2.LINE_AA, self.SUBPIXEL)

        size, dark, white = self.identity.size, self.hair * 0.4, np.full(3, 255.0)
        blob((0, 1.95), (1.5, 0.85), self.hair)  # shirt
        blob((0, -0.15), (1.0, 1.18), self.hair)
        blob((0, 1.0), (0.4, 0.5), self.skin * 0.8)  # neck
        blob((0, 0.1), (0.82, 1.05), self.skin)
        blink = abs((time - self.blink + 1.5) % 3.0 - 1.5) < 0.06  # every three seconds
        for eye in (-0.34, 0.34):
            blob((eye, -0.22), (0.17, 0.02 if blink else 0.13 - 0.04 * size), white)
            blob((eye, -0.22), (0.08, 0.02 if blink else 0.08), dark)
            blob((eye, -0.46), (0.21, 0.03 + 0.03 * size), dark)
        blob((0, 0.12), (0.08, 0.14), self.skin * 0.85)  # nose
        width = 0.2 + 0.26 * spread
        blob((0, 0.6), (width + 0.08, 0.08 + 0.34 * opening), np.array([40, 20, 215]))  # lips
        blob((0, 0.6), (width, 0.34 * opening), np.array([15, 0, 25]))
        if opening > 0.15:
            blob((0, 0.6 - 0.2 * opening), (0.7 * width, 0.07 * opening), white)  # upper teeth
        return np.asarray(cv2.multiply(image, self.light, scale=1 / 255), np.uint8)
