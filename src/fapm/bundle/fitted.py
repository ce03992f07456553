"""What a fit leaves: everything a detector knows, and what a bundle holds. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fapm.bundle.baseline import Baseline
from fapm.bundle.calibration import Calibration
from fapm.config import Config
from fapm.encoder.spec import FrozenEncoder
from fapm.frames.align import FINE, Motion, Template
from fapm.frames.layout import Layout
from fapm.frames.light import Light
from fapm.frames.preparation import Failure
from fapm.frames.roi import Roi, inspected_cells, intersection
from fapm.memory.bank import MemoryBank
from fapm.plain import Described, Tensors, require, texts

_TEMPLATE = ("template.grey", "template.picture", "template.matrices")  # tensors of a bundle


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

    def described(self) -> dict[str, Any]:
        """What a manifest says of it."""
        return asdict(self)

    @classmethod
    def restored(cls, described: Mapping[str, Any]) -> Change:
        """What :meth:`described` described.

        Raises
        ------
        BundleError
            It describes no change.
        """
        action, when, keys = described["action"], described["when"], described["keys"]
        threshold = described["threshold"]
        require(
            described.keys() == {field.name for field in fields(cls)}
            and action in ("update", "forget")
            and (when is None or isinstance(when, str))
            and len(keys) == len(threshold) == 2
            and all(isinstance(count, int) for count in keys)
            and all(level is None or isinstance(level, float) for level in threshold),
            "inconsistent history",
        )
        pictures, warnings = texts(described["pictures"]), texts(described["warnings"])
        return cls(action, pictures, tuple(keys), tuple(threshold), when, warnings)


@dataclass(frozen=True)
class Alignment:
    """What frames are registered to, and where the training pictures lay.

    Attributes
    ----------
    matrices
        float64 ``[N, 2, 3]``, :attr:`fapm.frames.align.Registration.matrix` of each training
        picture.
    """

    template: Template
    matrices: NDArray[np.float64]

    def described(self) -> Described:
        """What a bundle holds of it."""
        template = self.template
        tensors = map(np.ascontiguousarray, (template.grey, template.picture, self.matrices))
        return {
            "motion": template.motion,
            "usual": template.usual,
            "floor": template.floor,
        }, dict(zip(_TEMPLATE, tensors, strict=True))

    @classmethod
    def restored(
        cls,
        described: Mapping[str, Any] | None,
        tensors: Tensors,
        config: Config,
        pictures: int,
    ) -> Alignment | None:
        """What :meth:`described` described, of a detector with so many pictures; None of nothing.

        Raises
        ------
        BundleError
            It contradicts itself, the config or the number of pictures.
        """
        if described is None:
            sound = config.align in ("none", "auto")
            require(sound, "it lacks the template its config speaks of")
            return None
        motion, usual, floor = (described[name] for name in ("motion", "usual", "floor"))
        require(
            motion in get_args(Motion)
            and config.align in ("auto", motion)
            and all(isinstance(level, float) and -1 <= level <= 1.001 for level in (usual, floor)),
            "its alignment contradicts its config",
        )
        grey, picture, matrices = (tensors[name] for name in _TEMPLATE)
        edge = config.input_size
        require(
            grey.dtype == np.float32
            and picture.dtype == np.uint8
            and matrices.dtype == np.float64
            and grey.shape == (FINE, FINE)
            and picture.shape == (edge, edge, 3)
            and matrices.shape == (pictures, 2, 3)
            and bool(np.isfinite(grey).all())
            and float(np.abs(grey).max()) <= 256
            and bool((np.abs(matrices) <= 10 * edge).all()),
            "its template contradicts itself",
        )
        return cls(Template(motion, grey, picture, usual, floor), matrices)


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
        how the good pictures looked, for :mod:`fapm.inspection.drift`; None after a fit on one.
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


def restrict(fitted: Fitted, roi: Roi) -> Fitted:
    """The same memory and thresholds, looking only at what is inside ``roi`` too.

    Raises
    ------
    RoiError
        Nothing is left.
    """
    roi = intersection(fitted.roi, roi) if fitted.roi else roi
    layers = inspected_cells(roi, fitted.encoder.shapes, fitted.config, fitted.layout)
    banks = [replace(bank, inside=cells) for bank, cells in zip(fitted.banks, layers, strict=True)]
    return replace(fitted, banks=tuple(banks), roi=roi)
