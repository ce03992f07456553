"""What a fit leaves: everything a detector knows, and what a bundle holds. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fapm.align import Template
from fapm.appearance import Baseline
from fapm.calibration import Calibration
from fapm.config import Config
from fapm.images import Interpolation
from fapm.layout import Layout
from fapm.light import Light
from fapm.memory.bank import MemoryBank
from fapm.prediction import Failure

# What an encoder can be compiled to; a config may leave the choice to the fit.
Precision = Literal["fp32", "bf16", "int8"]


@dataclass(frozen=True)
class EncoderSpec:
    """What is needed to build an encoder again, besides its weights.

    Attributes
    ----------
    name
        timm's model name (or ``efficientnet_lite0``).
    layers
        timm's names of the taps, from shallow to deep.
    input_size
        height and width of what it sees, in pixels.
    mean, std
        normalisation of the frames after division by 255, per RGB channel.
    interpolation
        how pictures were resized when the encoder was trained, and so are here.
    """

    name: str
    layers: tuple[str, ...]
    input_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation


@dataclass(frozen=True)
class FrozenEncoder:
    """An encoder as a graph that engines run: RGB uint8 ``[1, h, w, 3]`` in, feature maps out.

    It sees a frame, or one tile of it.

    Attributes
    ----------
    precision
        what the memory was fitted with. The features of another precision are other features.
    shapes
        per layer ``C, H, W`` of its feature map.
    files
        ``encoder.onnx`` for fp32 and bf16, with ``encoder.safetensors`` beside it for torch in
        fp32; ``encoder.xml`` and ``encoder.bin`` of OpenVINO for int8.
    """

    spec: EncoderSpec
    precision: Precision
    shapes: tuple[tuple[int, int, int], ...]
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Roi:
    """What of a frame is inspected.

    Attributes
    ----------
    inside
        bool ``[h, w]``, in the frame.
    drawn_on
        height and width of the pictures it was drawn on; pictures of another shape cannot have it.
        None: learned from frames.
    """

    inside: NDArray[np.bool_]
    drawn_on: tuple[int, int] | None = None


@dataclass(frozen=True)
class Change:
    """What was learned or forgotten after the fit.

    Attributes
    ----------
    action
        ``update`` or ``forget``.
    pictures
        names of the pictures that came or went.
    keys, threshold
        before and after; a threshold is None where there is none.
    when
        as whoever changed it said; no clock is read, so that the same input gives the same bytes.
    warnings
        what a person should look at, one sentence each.
    """

    action: Literal["update", "forget"]
    pictures: tuple[str, ...]
    keys: tuple[int, int]
    threshold: tuple[float | None, float | None]
    when: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Alignment:
    """What frames are registered to, and where the training pictures lay.

    Attributes
    ----------
    matrices
        float64 ``[N, 2, 3]``, :attr:`fapm.align.Registration.matrix` of each training picture.
    """

    template: Template
    matrices: NDArray[np.float64]


@dataclass(frozen=True)
class Fitted:
    """Everything a detector knows after fit.

    Attributes
    ----------
    layout
        what pictures are brought to.
    pictures
        names of the training pictures; keys refer to them by position.
    thumbnails
        JPEG by position in ``pictures``, for those that own keys.
    skipped
        training pictures that could not be read.
    remarks
        what the fit decided on its own, one sentence each.
    roi
        what is inspected; None: everything. The banks' ``inside`` are its cells.
    history
        what was changed since, oldest first.
    light
        how bright frames are made; None where they are taken as they come.
    alignment
        None where frames are taken as they come.
    baseline
        how the good pictures looked, for :mod:`fapm.drift`; None after a fit on one.
    """

    config: Config
    layout: Layout
    encoder: FrozenEncoder
    banks: tuple[MemoryBank, ...]
    calibration: Calibration
    pictures: tuple[str, ...]
    thumbnails: dict[int, bytes]
    skipped: tuple[Failure, ...]
    remarks: tuple[str, ...] = ()
    roi: Roi | None = None
    history: tuple[Change, ...] = ()
    light: Light | None = None
    alignment: Alignment | None = None
    baseline: Baseline | None = None

    @property
    def inspected_tiles(self) -> NDArray[np.bool_]:
        """Which tiles of a frame have cells that are inspected, bool ``[T]``."""
        return self.layout.inspected_tiles(
            [bank.inside for bank in self.banks], [(b.height, b.width) for b in self.banks]
        )

    @property
    def frame_roi(self) -> NDArray[np.bool_] | None:
        """What is inspected of a frame, bool ``[h, w]``; None: everything."""
        return None if self.roi is None else self.roi.inside
