"""The picture in the README: parts drawn by this script itself, so that it is free of any licence.

    python benchmarks/heatmap_figure.py docs/images/heatmap.jpg

Fits on 40 drawn flanges and shows three new ones: good, scratched, and with a bolt missing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import fapm
from fapm.pictures.codec import encode_jpeg
from fapm.reports.heatmap import overlay

EDGE = 400
GOOD = 40
_SCALE = 4  # drawn larger and reduced, for smooth edges
_CENTRE = EDGE // 2
_BOLT_CIRCLE = 125


def draw_flange(
    rng: np.random.Generator, *, scratched: bool = False, missing_bolt: int | None = None
) -> NDArray[np.uint8]:
    """A brushed flange with six bolts under slightly varying light, uint8 ``[EDGE, EDGE, 3]``."""
    shift = rng.normal(0, 1.5, 2)
    size = EDGE * _SCALE
    canvas = np.full((size, size), 38.0, np.float32)
    centre = _CENTRE + shift

    def disc(x: float, y: float, radius: float, grey: float) -> None:
        at = (round(x * _SCALE), round(y * _SCALE))
        cv2.circle(canvas, at, round(radius * _SCALE), grey, cv2.FILLED)

    disc(*centre, 170, 150)
    disc(*centre, 166, 168)
    disc(*centre, 70, 120)
    disc(*centre, 66, 30)
    for bolt in range(6):
        angle = np.pi / 3 * bolt + rng.normal(0, 0.01)
        x, y = centre + _BOLT_CIRCLE * np.array([np.cos(angle), np.sin(angle)])
        disc(x, y, 22, 135)
        if bolt == missing_bolt:
            disc(x, y, 14, 45)
            continue
        disc(x, y, 18, 198)
        turn = rng.uniform(0, np.pi / 3)
        corners = [
            (x + 10 * np.cos(turn + np.pi / 3 * k), y + 10 * np.sin(turn + np.pi / 3 * k))
            for k in range(6)
        ]
        cv2.fillPoly(canvas, [np.int32(np.array(corners) * _SCALE)], 70)
    if scratched:
        steps = np.linspace(0, 1, 8)
        line = np.stack([250 + 70 * steps, 75 + 55 * steps + rng.normal(0, 2, 8)], axis=1)
        cv2.polylines(canvas, [np.int32(line * _SCALE)], False, 235, 2 * _SCALE)
    grey = cv2.resize(canvas, (EDGE, EDGE), interpolation=cv2.INTER_AREA)

    brushing = cv2.GaussianBlur(rng.normal(0, 1, (EDGE, EDGE)), (31, 1), 9)
    slope = np.linspace(-1, 1, EDGE)[None, :] * rng.normal(0, 4)
    grey = grey * (1 + 0.16 * brushing) + slope + rng.normal(0, 2, grey.shape) + rng.normal(0, 3)
    tint = np.array([0.97, 1.0, 1.04])
    return np.clip(grey[:, :, None] * tint, 0, 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figure", type=Path, help="the JPEG to write")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    detector = fapm.fit([draw_flange(rng) for _ in range(GOOD)])
    shown = [
        draw_flange(rng),
        draw_flange(rng, scratched=True),
        draw_flange(rng, missing_bolt=4),
    ]
    columns = []
    for picture, prediction in zip(shown, detector.predict(shown), strict=True):
        painted = overlay(picture, prediction.anomaly_map, prediction.map_threshold)
        print(f"{prediction.verdict}, {prediction.score:.2f} (threshold {detector.threshold_:.2f})")
        columns.append(np.vstack([picture, painted]))
    gap = np.full((2 * EDGE, 8, 3), 255, np.uint8)
    figure = np.hstack([columns[0], gap, columns[1], gap, columns[2]])
    arguments.figure.write_bytes(encode_jpeg(figure, quality=88))


if __name__ == "__main__":
    main()
