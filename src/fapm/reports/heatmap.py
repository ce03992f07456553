"""Draw anomaly maps as heatmaps, on one scale for all pictures.

The scale depends on the threshold, never on the picture. So a good part is not painted, however
small its largest value is, and a colour means the same in every picture.
"""

from __future__ import annotations

import math
from io import BytesIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fapm.inspection.prediction import Box
from fapm.inspection.rendering import SATURATION, full_scale
from fapm.pictures.resize import resize_image

THUMBNAIL_EDGE = 256

_STEPS = 512
# Multiples of the threshold, and the opacity of the paint there. It is 0 up to one half, small
# while a map is normal, and clearly visible at the threshold; above it the picture still shows.
_OPACITY = ((0.5, 0.75, 1.0, SATURATION), (0.0, 0.1, 0.6, 0.7))

_CONTOUR = (255, 255, 255)
_INSPECTED = (150, 190, 150)
_TRUTH = (0, 229, 255)  # cyan, which the colour ramp does not contain
_CELL = (255, 255, 255)

_CROP_CELLS = 5.0  # edge of a crop, in cells
_MIN_CROP = 0.22  # and at least this share of the picture's shorter edge
_CROP_EDGE = 128


def overlay(
    image: NDArray[np.uint8], anomaly_map: NDArray[np.float32], threshold: float
) -> NDArray[np.uint8]:
    """Paint the map over its picture, with a contour around the places above the threshold.

    Up to half the threshold nothing is painted. The colour saturates at twice the threshold. If no
    threshold is known (NaN), the scale ends at the map's own maximum and there is no contour. Such
    colours cannot be compared between pictures.

    Parameters
    ----------
    image
        uint8 ``[H, W, 3]``, RGB.
    anomaly_map
        float32 ``[H, W]``, raw.

    Returns
    -------
    uint8 ``[H, W, 3]``, RGB; ``image`` is not changed.
    """
    known = not math.isnan(threshold)
    top = full_scale(anomaly_map, threshold)
    # Clipped before the division, which could overflow.
    share = np.clip(anomaly_map, 0, top) / np.float32(top)
    step = (share * (_STEPS - 1)).astype(np.intp)  # [H, W]
    painted = image * (1 - _PAINT_OPACITY[step]) + _PAINT[step]
    result = np.asarray(painted.round(), dtype=np.uint8)
    if known:
        _outline(result, anomaly_map > threshold, _CONTOUR)
    return result


def draw_mask_contour(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Draw the outline of the ground truth as a thin cyan line, on a copy.

    Parameters
    ----------
    image
        uint8 ``[H, W, 3]``, RGB.
    mask
        bool ``[H, W]``.
    """
    result: NDArray[np.uint8] = image.copy()
    _outline(result, mask, _TRUTH)
    return result


def draw_inspected(image: NDArray[np.uint8], inspected: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Draw the outline of the inspected area as a thin light line, on a copy.

    Parameters
    ----------
    image
        uint8 ``[H, W, 3]``, RGB.
    inspected
        bool, of any size.
    """
    result: NDArray[np.uint8] = image.copy()
    size = image.shape[1], image.shape[0]
    fitting = cv2.resize(inspected.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT)
    _outline(result, fitting > 0, _INSPECTED)
    return result


def decode_jpeg(data: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG to uint8 ``[H, W, 3]``, RGB."""
    with Image.open(BytesIO(data), formats=("JPEG",)) as picture:
        return np.array(picture.convert("RGB"), dtype=np.uint8)


def thumbnails(
    image: NDArray[np.uint8],
    anomaly_map: NDArray[np.float32],
    mask: NDArray[np.bool_] | None,
    edge: int = THUMBNAIL_EDGE,
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_] | None]:
    """Shrink a picture, its map and its mask until their longer edge is at most ``edge`` pixels.

    Parameters
    ----------
    image, anomaly_map, mask
        uint8 ``[H, W, 3]``, float32 ``[H, W]`` and bool ``[H, W]``.

    Returns
    -------
    The same three as ``[h, w, 3]``, ``[h, w]`` and ``[h, w]``. Small pictures are not enlarged.
    """
    height, width = image.shape[:2]
    scale = min(1.0, edge / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small_map = cv2.resize(anomaly_map, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    # By area and not nearest neighbour, which would lose defects of a few pixels.
    small_mask = (
        None
        if mask is None
        else cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
    )
    return resize_image(image, size[1], size[0]), small_map, small_mask


def crop_around(image: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """Cut out a square around one cell of a picture, with a frame around the cell.

    Parameters
    ----------
    image
        uint8 ``[H, W, 3]``.
    box
        the cell.

    Returns
    -------
    uint8 ``[128, 128, 3]``. Near the border of the picture the cell is off centre.
    """
    height, width = image.shape[:2]
    x, y, w, h = box.x * width, box.y * height, box.width * width, box.height * height
    shorter = min(height, width)
    edge = round(min(shorter, max(_CROP_CELLS * max(w, h), _MIN_CROP * shorter, 2)))
    left = round(min(max(x + (w - edge) / 2, 0), width - edge))
    top = round(min(max(y + (h - edge) / 2, 0), height - edge))
    window = image[top : top + edge, left : left + edge]
    size = (_CROP_EDGE, _CROP_EDGE)
    crop = np.asarray(cv2.resize(window, size, interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
    scale = _CROP_EDGE / edge
    first = round((x - left) * scale), round((y - top) * scale)
    last = round((x + w - left) * scale) - 1, round((y + h - top) * scale) - 1
    # A dark line lies below the white one, so that the frame is visible on any part.
    cv2.rectangle(crop, first, last, (0, 0, 0), 3)
    cv2.rectangle(crop, first, last, _CELL, 1)
    return crop


def _outline(
    image: NDArray[np.uint8], region: NDArray[np.bool_], colour: tuple[int, int, int]
) -> None:
    contours, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    # The line looks as thin in a whole picture as in a thumbnail.
    thickness = max(1, round(max(image.shape[:2]) / (1.5 * THUMBNAIL_EDGE)))
    cv2.drawContours(image, contours, -1, colour, thickness)


def _paint() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Colour times opacity ``[STEPS, 3]``, and opacity ``[STEPS, 1]``, from 0 to saturation.

    The colours are the middle of inferno, from purple to yellow: its dark end would vanish on dark
    parts and its white end on bright ones. They become steadily brighter, so they also work for the
    colour-blind and in grey prints.
    """
    level = np.linspace(0, SATURATION, _STEPS)
    index = np.interp(level, (_OPACITY[0][0], SATURATION), (88, 226)).round().astype(np.uint8)
    colours = cv2.applyColorMap(index[:, None], cv2.COLORMAP_INFERNO)[:, 0, ::-1]  # BGR to RGB
    opacity = np.interp(level, *_OPACITY).astype(np.float32)[:, None]
    return colours * opacity, opacity


_PAINT, _PAINT_OPACITY = _paint()
