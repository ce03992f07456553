"""Frames of pictures and the way back, for a square layout that is named by its two numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fapm.config import Config
from fapm.frames.layout import Axis, Layout, layout_of
from fapm.frames.light import Light
from fapm.frames.preparation import Failure, Frame, Preparation
from fapm.frames.stage import Sample
from fapm.pictures.resize import Interpolation
from fapm.pictures.sources import Picture


def square(resize: int, crop: int | None = None) -> Layout:
    """The centre ``crop`` of a picture that is resized to a square."""
    axis = Axis.whole(crop or resize, resize)
    return Layout(axis, axis)


def prepare(
    picture: NDArray[np.uint8], resize: int, crop: int | None, interpolation: Interpolation
) -> NDArray[np.uint8]:
    return square(resize, crop).frame(picture, interpolation)


def prepare_mask(mask: NDArray[np.bool_], resize: int, crop: int | None) -> NDArray[np.bool_]:
    return square(resize, crop).mask(mask)


def restore_map(
    anomaly_map: NDArray[np.float32], height: int, width: int, resize: int, crop: int | None
) -> NDArray[np.float32]:
    return square(resize, crop).restore(anomaly_map, (height, width))


def read_frame(
    picture: Picture,
    config: Config,
    interpolation: Interpolation,
    *,
    layout: Layout | None = None,
    **reading: Any,
) -> Frame | Failure:
    """A picture's frame before any stage."""
    return Preparation(layout or layout_of(config), interpolation).read(picture, **reading)


def learn_light(frames: list[NDArray[np.uint8]]) -> Light:
    config = Config.create(light="gain")
    return Light.learn(Sample(config, layout_of(config), "bicubic", frames))
