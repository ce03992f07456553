"""What befalls pictures on a line: moved parts, other light, blur, compression, noise.

Each takes a picture, RGB uint8 ``[H, W, 3]``, an amount, and the picture's number, which seeds what
is random.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]

EDGE = 224  # pixels of the encoder's frame, in which shifts and blur are counted


class Axis(NamedTuple):
    """One disturbance: its name and unit, the amount that changes nothing, and others.

    ``orders`` of the training pictures are averaged over: a fit depends on it by a point.
    """

    label: str
    usual: float
    amounts: tuple[float, ...]
    change: Callable[[Picture, float, int], Picture]
    remedies: tuple[str, ...]
    orders: int = 1


def moved(picture: Picture, angle: float, scale: float, shift: float) -> Picture:
    """Turned and scaled about the centre, shifted right and down, the border reflected.

    Real pictures of moved parts do not have that border: there the real background goes on.
    """
    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, scale)
    matrix[:, 2] += np.array([width, height]) * shift / EDGE
    return np.asarray(
        cv2.warpAffine(
            picture, matrix, (width, height), flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REFLECT_101,
        ),
        np.uint8,
    )  # fmt: skip


def levels(values: NDArray[np.floating]) -> Picture:
    """Rounded and clipped, as a camera does."""
    return values.round().clip(0, 255).astype(np.uint8)


def curve(picture: Picture, exponent: float) -> Picture:
    """Another gamma: above 1 the middle is darker, black and white stay."""
    return cv2.LUT(picture, levels(255 * (np.arange(256) / 255) ** exponent))


def cast(picture: Picture, factor: float) -> Picture:
    """Warmer light: red times ``factor``, blue divided by it."""
    return levels(picture * np.array([factor, 1, 1 / factor]))


def blurred(picture: Picture, sigma: float) -> Picture:
    """Out of focus: Gaussian, sigma in pixels of a frame of 224."""
    height, width = picture.shape[:2]
    return np.asarray(
        cv2.GaussianBlur(
            picture, (0, 0), sigmaX=sigma * width / EDGE, sigmaY=sigma * height / EDGE,
            borderType=cv2.BORDER_REFLECT_101,
        ),
        np.uint8,
    )  # fmt: skip


def compressed(picture: Picture, quality: float) -> Picture:
    """Through a JPEG file, colour at half the resolution, as cameras write it."""
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=int(quality))
    return np.array(Image.open(buffer))


def noisy(picture: Picture, deviation: float, number: int) -> Picture:
    """Gaussian noise in grey levels, independent in each pixel of the picture as it came.

    In colour pictures it differs by channel, in grey ones it does not.
    """
    grey = (picture == picture[..., :1]).all()
    rng = np.random.default_rng(number)
    return levels(picture + deviation * rng.normal(size=(*picture.shape[:2], 1 if grey else 3)))


# "Usual" for JPEG is not compressed again.
AXES = {
    "shift": Axis(
        "shift, px at 224", 0, (4, 8, 16, 24, 32),
        lambda p, x, _: moved(p, 0, 1, x), ("align auto", "align rigid"),
    ),
    "rotation": Axis(
        "rotation, degrees", 0, (5, 10, 20, 45, 90, 135, 180),
        lambda p, x, _: moved(p, x, 1, 0),
        ("align auto", "rotations 12", "rotations 36", "align rigid"),
    ),
    "scale": Axis(
        "scale", 1, (0.8, 0.9, 1.1, 1.2), lambda p, x, _: moved(p, 0, x, 0),
        ("align auto", "align rigid"),
    ),
    "brightness": Axis(
        "brightness, x", 1, (0.7, 0.8, 0.9, 1.1, 1.2, 1.3),
        lambda p, x, _: levels(p * x), ("light gain",), 3,
    ),
    "gamma": Axis(
        "gamma", 1, (0.7, 0.8, 0.9, 1.1, 1.25, 1.4), lambda p, x, _: curve(p, x), ("light gain",), 3
    ),
    "cast": Axis(
        "red x, blue divided by", 1, (0.9, 0.95, 1.05, 1.1),
        lambda p, x, _: cast(p, x), ("light gain",), 3,
    ),
    "blur": Axis(
        "blur, sigma in px at 224", 0, (0.5, 1, 1.5, 2), lambda p, x, _: blurred(p, x),
        ("roi auto", "augment 4"),
    ),
    "jpeg": Axis(
        "JPEG quality", 100, (5, 10, 20, 40, 70),
        lambda p, x, _: compressed(p, x), ("roi auto", "augment 4"),
    ),
    "noise": Axis(
        "noise, grey levels", 0, (2, 5, 10, 20), noisy, ("roi auto", "augment 4")
    ),
}  # fmt: skip
