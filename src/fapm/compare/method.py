"""Interface of the compared methods, and the base of those that use our encoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fapm.compare.setting import Setting
from fapm.encoders import create_encoder
from fapm.encoding import BATCH
from fapm.engines import open_encoder
from fapm.errors import ConfigError
from fapm.frames import Frame, read_frame
from fapm.freeze import freeze
from fapm.images import Interpolation
from fapm.memory import geometry
from fapm.pipeline import batched, ordered_map

# A method that would hold more than this in memory gives up in one line instead of being killed.
MOST_BYTES = 4_000_000_000


class Judged(NamedTuple):
    """Raw image scores float32 ``[B]`` and anomaly maps float32 ``[B, S, S]`` of ``B`` frames."""

    scores: NDArray[np.float32]
    maps: NDArray[np.float32]


class Method(Protocol):
    """A detector to compare.

    Attributes
    ----------
    note
        a remark that a reader of its figures must know.
    """

    note: str

    @property
    def interpolation(self) -> Interpolation:
        """Interpolation used to resize pictures before they are scored; known after fit."""

    def fit(self, pictures: Sequence[Path]) -> None:
        """Learn from good pictures, beginning with their files."""

    def score(self, frames: Sequence[NDArray[np.uint8]]) -> Judged:
        """Judge frames, RGB uint8 ``[S, S, 3]`` each."""

    @property
    def memory_bytes(self) -> int:
        """Size of the learned model in bytes, without the encoder."""


class FeatureMethod(Protocol):
    """A method on the feature maps of a frozen encoder: per layer float32 ``[B, C, H, W]``."""

    note: str

    def fit(self, batches: Iterable[list[Tensor]], pictures: int) -> None:
        """Learn from the feature maps of ``pictures`` good pictures, batch by batch."""

    def score(self, layers: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Compute image scores ``[B]`` and distances of the finest layer's cells ``[B, H, W]``."""

    def state(self) -> list[Tensor]:
        """Tensors of the learned model."""


class OnEncoder:
    """A :class:`FeatureMethod` as a :class:`Method`, with the frames, encoder and map of FAPM.

    The encoder runs in fp32 on the engine of the comparison. The method behind it runs on torch.
    Maps are upsampled bilinearly and smoothed with the Gaussian of ``config.sigma``.
    """

    def __init__(self, method: FeatureMethod, setting: Setting) -> None:
        self._method = method
        self._setting = setting
        encoder = create_encoder(setting.config)
        self._interpolation = encoder.spec.interpolation
        self.note = method.note
        self._matrices: dict[int, Tensor] = {}  # by the number of cells
        self._runner = open_encoder(freeze(encoder, "fp32"), setting.runtime)

    def fit(self, pictures: Sequence[Path]) -> None:
        """Learn from good pictures.

        Raises
        ------
        ConfigError
            The features of so many pictures take too much memory.
        """
        frames = read_frames(pictures, self._setting, self._interpolation)
        self._method.fit((self._features(batch) for batch in batched(frames, BATCH)), len(pictures))

    @torch.inference_mode()
    def score(self, frames: Sequence[NDArray[np.uint8]]) -> Judged:
        """Judge frames, RGB uint8 ``[S, S, 3]`` each."""
        scores, cells = self._method.score(self._features(frames))
        return Judged(scores.numpy(), self._smooth(cells).numpy())

    @property
    def interpolation(self) -> Interpolation:
        """Interpolation of the encoder."""
        return self._interpolation

    @property
    def memory_bytes(self) -> int:
        """Size of the learned model in bytes."""
        return sum(tensor.nbytes for tensor in self._method.state())

    def _features(self, frames: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        return [torch.from_numpy(layer) for layer in self._runner.features(frames)]

    def _smooth(self, cells: Tensor) -> Tensor:
        for count in cells.shape[1:]:
            if count not in self._matrices:
                config = self._setting.config
                matrix = geometry.smoothing_matrix(count, config.input_size, config.map_sigma)
                self._matrices[count] = torch.from_numpy(matrix).float()
        rows, columns = (self._matrices[count] for count in cells.shape[1:])
        return rows @ cells @ columns.T


def read_frames(
    pictures: Sequence[Path], setting: Setting, interpolation: Interpolation
) -> Iterator[NDArray[np.uint8]]:
    """Read the frames of pictures, RGB uint8 ``[S, S, 3]``; unreadable ones are left out."""

    def read(picture: Path) -> object:
        return read_frame(picture, setting.config, interpolation, max_pixels=setting.max_pixels)

    return (frame.pixels for frame in ordered_map(read, pictures) if isinstance(frame, Frame))


def collect(parts: Iterable[Tensor], rows: int) -> Tensor:
    """Join ``parts [B, ...]`` to one tensor of at most ``rows`` rows.

    Raises
    ------
    ConfigError
        The tensor would take more than :data:`MOST_BYTES`.
    """
    whole, filled = torch.empty(0), 0
    for part in parts:
        if not filled:
            refuse_too_large(rows * part[0].nbytes, f"the features of {rows:,} pictures")
            whole = torch.empty(rows, *part.shape[1:], dtype=part.dtype)
        whole[filled : filled + len(part)] = part
        filled += len(part)
    return whole[:filled]


def refuse_too_large(size: int, what: str) -> None:
    """Raise :class:`ConfigError` if ``what`` would take more than :data:`MOST_BYTES`."""
    if size > MOST_BYTES:
        raise ConfigError(
            f"resize: {what} take {size / 1e9:.1f} GB, the limit is {MOST_BYTES / 1e9:.0f} GB; "
            "use a smaller --resize, fewer --layers or a smaller --encoder"
        )
