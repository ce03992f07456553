"""The region of the part in frames, learned from good pictures on a plain background."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from fapm.errors import RoiError
from fapm.frames.roi import Roi, intersection

_RING = 0.02  # of the frame's shorter edge: where the background shows
_PLAIN = 0.8  # share of the ring's pixels that must be background, in all pictures together
_SEEN = 0.02  # share of the pictures in which a place must be foreground
_SPECK = 0.002  # of the frame: smaller pieces are dirt
_MARGIN = 0.05  # of the frame's shorter edge, around what was found
_MOST = 0.9  # of the frame; where more is foreground, leaving out the rest gains nothing


def learned_roi(
    frames: Sequence[NDArray[np.uint8]], drawn: Roi | None = None
) -> tuple[Roi | None, str]:
    """The foreground of good pictures, inside ``drawn``, and a sentence on what was found.

    Parameters
    ----------
    frames
        RGB uint8 ``[h, w, 3]`` each.

    Raises
    ------
    RoiError
        Nothing of the foreground is inside ``drawn``.
    """
    found = foreground(frames)
    if found is None:
        return drawn, (
            "roi auto: no plain background around the part was found, so nothing was left out"
        )
    learned = Roi(found)
    try:
        roi = learned if drawn is None else intersection(learned, drawn)
    except RoiError:
        raise RoiError(
            "ignore: covers all of the foreground that --roi auto found; draw it anew"
        ) from None
    share = 100 * roi.inside.mean()
    return roi, f"roi auto: the part and a margin around it take {share:.0f} % of the frame"


def foreground(frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.bool_] | None:
    """Pixels where some of the frames show something else than the plain background.

    The background's colour is the median of each frame's border. Otsu's level parts the distances
    from it, of all frames together; a place is foreground if it is so in :data:`_SEEN` of the
    frames. Specks are dropped, holes are filled, and a margin is added.

    Parameters
    ----------
    frames
        RGB uint8 ``[h, w, 3]`` each.

    Returns
    -------
    bool ``[h, w]``; None where there is no plain background.
    """
    distances = np.stack([_from_border(frame) for frame in frames])  # [N, h, w]
    level, _ = cv2.threshold(distances.reshape(len(frames), -1), 0, 255, cv2.THRESH_OTSU)
    apart = distances > level
    if apart[:, _ring(*apart.shape[1:])].mean() > 1 - _PLAIN:
        return None
    seen = apart.mean(axis=0) > _SEEN  # [h, w]
    pieces = _without_specks(seen)
    if not pieces.any():
        return None
    outlines, _ = cv2.findContours(
        pieces.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    filled = cv2.drawContours(np.zeros(pieces.shape, np.uint8), outlines, -1, 1, cv2.FILLED)
    reach = round(_MARGIN * min(pieces.shape))
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    found = np.asarray(cv2.dilate(filled, brush), np.bool_)
    return found if found.mean() <= _MOST else None


def _from_border(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Distance of each pixel's colour from that of the border, uint8 ``[h, w]``."""
    height, width = frame.shape[:2]
    smooth = cv2.GaussianBlur(frame, (0, 0), min(height, width) / 224)
    background = np.median(smooth[_ring(height, width)], axis=0)
    distance = np.abs(smooth.astype(np.float32) - background.astype(np.float32)).max(axis=2)
    return np.asarray(distance, np.uint8)


def _ring(height: int, width: int) -> NDArray[np.bool_]:
    thickness = max(1, round(_RING * min(height, width)))
    ring = np.ones((height, width), np.bool_)
    ring[thickness:-thickness, thickness:-thickness] = False
    return ring


def _without_specks(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    _, numbers, found, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    kept = found[:, cv2.CC_STAT_AREA] >= _SPECK * mask.size
    kept[0] = False  # the background
    return np.asarray(kept[numbers])
