"""Flat field: uneven light and vignetting taken out of frames. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from fapm.config import Config
from fapm.errors import ConfigError
from fapm.frames.layout import Layout
from fapm.frames.stage import Sample, Stage
from fapm.pictures.codec import read_image
from fapm.plain import Described, Tensors, require

# Shading is smooth: a field of so many pixels along its longer edge says it all.
_EDGE = 128
# No place is made brighter or darker than this: beyond, there is more noise than light.
_MOST = 4.0
# Means of a channel, in grey levels, between which a picture of a field can be believed.
_DARKEST, _BRIGHTEST = 16.0, 250.0


@dataclass(frozen=True)
class FlatField(Stage):
    """The stage that divides frames by a picture of an even surface (flat-field correction).

    Attributes
    ----------
    field
        float32 ``[h', w', 3]``: the light at each place, as a share of its channel's mean.
    shape
        height and width of frames.
    """

    name: ClassVar[str] = "flat_field"

    field: NDArray[np.float32]
    shape: tuple[int, int]

    @classmethod
    def wanted(cls, config: Config) -> bool:
        """With ``config.flat_field``."""
        return config.flat_field is not None

    def agrees(self, config: Config) -> bool:
        """With ``config.flat_field``."""
        return self.wanted(config)

    @classmethod
    def learn(cls, sample: Sample) -> FlatField:
        """The field in the picture that the config names.

        Raises
        ------
        ImageError
            The picture cannot be read.
        ConfigError
            It is too dark or too bright to tell the light, or has another shape.
        """
        path = sample.config.flat_field
        assert path is not None  # wanted
        picture = read_image(path)
        if reason := sample.layout.error((picture.shape[0], picture.shape[1])):
            raise ConfigError(f"flat_field: {path}: {reason}")
        frame = sample.layout.frame(picture, sample.interpolation).astype(np.float32)
        means = frame.mean(axis=(0, 1))
        if not (means.min() >= _DARKEST and means.max() <= _BRIGHTEST):
            raise ConfigError(
                f"flat_field: {path}: its mean grey level is {means.min():.0f} to "
                f"{means.max():.0f}, and {_DARKEST:.0f} to {_BRIGHTEST:.0f} is needed; take a "
                "picture of a plain surface, neither dark nor overexposed"
            )
        height, width = sample.layout.shape
        scale = min(1.0, _EDGE / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = cv2.resize(frame / means, size, interpolation=cv2.INTER_AREA)
        return cls(np.asarray(small, np.float32), sample.layout.shape)

    @cached_property
    def gain(self) -> NDArray[np.float32]:
        """Factor of each pixel, float32 ``[h, w, 3]``."""
        height, width = self.shape
        field = cv2.resize(self.field, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(1 / field.clip(1 / _MOST, _MOST), np.float32)

    def apply(self, frame: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], None]:
        """The frame as an even light would have shown it; there is no trace."""
        lit = np.rint(frame * self.gain).clip(0, 255)
        return lit.astype(np.uint8), None

    def described(self) -> Described:
        """The field."""
        return {}, {"field": self.field}

    @classmethod
    def restored(cls, described: Mapping[str, Any], tensors: Tensors, layout: Layout) -> FlatField:
        """As :meth:`Stage.restored`."""
        field = tensors["field"]
        require(
            field.dtype == np.float32
            and field.ndim == 3
            and field.shape[2] == 3
            and 1 <= min(field.shape[:2]) <= max(field.shape[:2]) <= _EDGE
            and bool(np.isfinite(field).all())
            and float(field.min()) >= 0,
            "its flat field contradicts itself",
        )
        return cls(field, layout.shape)
