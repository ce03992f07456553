"""The look of the good pictures: the baseline that drift is measured from. No torch here."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from fapm.frames.look import PATCHES, SMALL, Look, patch_means
from fapm.plain import Tensors, require

# Of the frame as a whole, behind the patches' values: means, and where the picture lies.
WHOLE = ("distance", "brightness", "detail", "x", "y")
VALUES = 3 * PATCHES + len(WHOLE)
_BLUR = 2.0  # of a small frame: moves of some pixels then change it about linearly
# Less than this says nothing: rounding, JPEG, a lamp's noise. Grey levels; small pixels; shares.
_LEVELS, _PIXELS, _SHARE = 2.0, 0.05, 0.05
_TENSORS = ("drift.count", "drift.grey", "drift.means", "drift.deviations")  # in a bundle


@dataclass(frozen=True)
class Baseline:
    """The look of the good pictures at fit.

    Values are, in this order: per patch the mean of the anomaly map, the brightness (grey levels)
    and the detail; then :data:`WHOLE`, with ``x`` and ``y`` in shares of the frame's edge.

    Attributes
    ----------
    count
        pictures, at least 2.
    grey
        mean of their small grey frames, float32 ``[64, 64]``.
    means, deviations
        of their values, float32 ``[152]``; distances are leave-one-out. A patch that is not
        inspected has the mean distance 0.
    """

    count: int
    grey: NDArray[np.float32]
    means: NDArray[np.float32]
    deviations: NDArray[np.float32]

    @classmethod
    def of(cls, looks: Sequence[Look], distances: Sequence[NDArray[np.float32]]) -> Baseline | None:
        """The baseline of ``N`` good pictures; None for fewer than 2.

        Parameters
        ----------
        distances
            :func:`patch_means` of their leave-one-out maps, ``N`` of float32 ``[49]``.
        """
        if len(looks) < 2:
            return None
        grey = np.stack([seen.grey for seen in looks]).mean(axis=0).astype(np.float32)
        blank = np.zeros(VALUES, np.float32)
        rough = cls(len(looks), grey, blank, blank)
        values = np.stack([rough.values(seen, d) for seen, d in zip(looks, distances, strict=True)])
        means, deviations = values.mean(axis=0), values.std(axis=0, ddof=1)
        return cls(len(looks), grey, means.astype(np.float32), deviations.astype(np.float32))

    def tensors(self) -> Tensors:
        """Describe it for a bundle."""
        values = (np.array([self.count]), self.grey, self.means, self.deviations)
        return dict(zip(_TENSORS, values, strict=True))

    @classmethod
    def restored(cls, tensors: Tensors, count: int) -> Baseline | None:
        """The baseline of a fit on ``count`` pictures from its :meth:`tensors`; None for 1.

        Raises
        ------
        BundleError
            It contradicts itself or the count.
        """
        if count == 1:
            return None
        held, grey, means, deviations = (tensors[name] for name in _TENSORS)
        require(
            held.dtype == np.int64
            and held.shape == (1,)
            and int(held[0]) == count > 1
            and grey.shape == (SMALL, SMALL)
            and grey.dtype == means.dtype == deviations.dtype == np.float32
            and means.shape == deviations.shape == (VALUES,)
            and bool(np.isfinite(means).all() and np.isfinite(deviations).all())
            and bool((grey >= 0).all() and (grey <= 255).all())
            and bool((deviations >= 0).all() and (means[: 3 * PATCHES] >= 0).all()),
            "what it says of drift contradicts itself",
        )
        return cls(count, grey, means, deviations)

    def values(self, seen: Look, distances: NDArray[np.floating]) -> NDArray[np.float64]:
        """The values of one frame that are watched, float64 ``[152]``.

        Where it lies comes from least squares: a frame that moved by ``d`` is the mean frame less
        ``d`` times its gradient, under another gain and offset of the light.
        """
        small = seen.grey.astype(np.float32)
        moved = self._solver @ cv2.GaussianBlur(small, (0, 0), _BLUR).ravel()
        groups = [distances, patch_means(small), seen.detail]
        whole = [group.mean() for group in groups]
        return np.concatenate([*groups, whole, moved], dtype=np.float64)

    @cached_property
    def scale(self) -> NDArray[np.float64]:
        """Divisors of departures, float64 ``[152]``: deviations, and not too small."""
        means = np.abs(self.means.astype(np.float64))
        share = _SHARE * means
        least = np.concatenate(
            [
                share[:PATCHES],
                np.full(PATCHES, _LEVELS),
                share[2 * PATCHES : 3 * PATCHES],
                [share[-5], _LEVELS, share[-3], _PIXELS / SMALL, _PIXELS / SMALL],
            ]
        )
        return np.asarray(np.maximum(np.maximum(self.deviations, least), 1e-6), np.float64)

    @cached_property
    def watched(self) -> NDArray[np.bool_]:
        """Patches that are inspected, bool ``[49]``."""
        return np.asarray(self.means[:PATCHES] > 0)

    @cached_property
    def digest(self) -> str:
        """A hexadecimal digest that tells this baseline from others."""
        whole = hashlib.sha256(str(self.count).encode())
        for values in (self.grey, self.means, self.deviations):
            whole.update(values.tobytes())
        return whole.hexdigest()

    @cached_property
    def _solver(self) -> NDArray[np.float64]:
        """From a blurred small frame to its move in shares of the edge, float64 ``[2, 4096]``."""
        mean = cv2.GaussianBlur(self.grey, (0, 0), _BLUR).astype(np.float64)
        down, right = np.gradient(mean)
        terms = np.stack([right.ravel(), down.ravel(), mean.ravel(), np.ones(mean.size)], axis=1)
        # Structure of less than a grey level is noise: it says nothing of where a part lies.
        return np.asarray(-np.linalg.pinv(terms, rcond=1e-6)[:2] / SMALL)
