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
from fapm.encoder.weights import create_encoder
from fapm.engines.base import EncoderRunner
from fapm.engines.opening import open_encoder
from fapm.errors import ConfigError
from fapm.fitting.preparing import Prepared, prepare
from fapm.frames.preparation import Frame, Preparation, layout_for
from fapm.frames.roi import EVERYTHING
from fapm.memory.patches import side_by_side
from fapm.system.parallel import batched, ordered_map
from fapm.training.features import BATCH

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
    def preparation(self) -> Preparation:
        """How pictures become frames before they are scored; known after fit."""

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
        self.note = method.note
        self._prepared: Prepared | None = None
        self._runner: EncoderRunner | None = None
        self._matrices: dict[tuple[int, int], list[Tensor]] = {}  # by the number of cells

    def fit(self, pictures: Sequence[Path]) -> None:
        """Learn from good pictures.

        Raises
        ------
        ConfigError
            The features of so many pictures take too much memory.
        """
        self._prepared = learn_preparation(pictures, self._setting)
        self._runner = open_encoder(self._prepared.encoder, self._setting.runtime)
        frames = read_frames(pictures, self._setting, self.preparation)
        self._method.fit((self._features(batch) for batch in batched(frames, BATCH)), len(pictures))

    @torch.inference_mode()
    def score(self, frames: Sequence[NDArray[np.uint8]]) -> Judged:
        """Judge frames, RGB uint8 ``[S, S, 3]`` each."""
        scores, cells = self._method.score(self._features(frames))
        return Judged(scores.numpy(), self._smooth(cells).numpy())

    @property
    def preparation(self) -> Preparation:
        """The same as FAPM's, learned from the good pictures."""
        assert self._prepared is not None  # after fit
        return self._prepared.preparation

    @property
    def memory_bytes(self) -> int:
        """Size of the learned model in bytes."""
        return sum(tensor.nbytes for tensor in self._method.state())

    def _features(self, frames: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        assert self._runner is not None  # after fit
        layout = self.preparation.layout
        tiles = [tile for frame in frames for tile in layout.cut(frame)]
        layers = map(torch.from_numpy, self._runner.features(tiles))
        return [side_by_side(layer, layout.tiling) for layer in layers]

    def _smooth(self, cells: Tensor) -> Tensor:
        height, width = cells.shape[1:]
        if (height, width) not in self._matrices:
            sigma = self._setting.config.map_sigma
            both = self.preparation.layout.smoothing((height, width), sigma)
            self._matrices[height, width] = [torch.from_numpy(m).float() for m in both]
        rows, columns = self._matrices[height, width]
        return rows @ cells @ columns.T


def learn_preparation(pictures: Sequence[Path], setting: Setting) -> Prepared:
    """How good pictures become frames, as FAPM learns it; and the encoder in fp32."""
    config = setting.config.model_copy(update={"precision": "fp32"})
    layout = layout_for(config, pictures)
    return prepare(
        pictures,
        config,
        create_encoder(config, layout.tile_shape),
        setting.runtime,
        layout=layout,
        regions=EVERYTHING,
        max_pixels=setting.max_pixels,
    )


def read_frames(
    pictures: Sequence[Path], setting: Setting, preparation: Preparation
) -> Iterator[NDArray[np.uint8]]:
    """Read the frames of pictures, RGB uint8 ``[S, S, 3]``; unreadable ones are left out."""

    def read(picture: Path) -> object:
        return preparation.read(picture, max_pixels=setting.max_pixels)

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
