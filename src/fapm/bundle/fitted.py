"""The result of a fit: everything that a detector knows and a bundle holds. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fapm.bundle.baseline import Baseline
from fapm.bundle.calibration import Calibration
from fapm.config import Config
from fapm.encoder.spec import FrozenEncoder
from fapm.frames.layout import Layout
from fapm.frames.preparation import Failure, Preparation
from fapm.frames.roi import Roi, inspected_cells, intersection
from fapm.memory.bank import MemoryBank
from fapm.plain import require, texts


@dataclass(frozen=True)
class Change:
    """One update after the fit, or one picture that was forgotten.

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
        """Describe it for a manifest."""
        return asdict(self)

    @classmethod
    def restored(cls, described: Mapping[str, Any]) -> Change:
        """Restore what :meth:`described` described.

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
class Fitted:
    """Everything a detector knows after fit.

    Attributes
    ----------
    preparation
        how a picture becomes a frame, with its region of interest. The banks' ``inside`` are the
        cells of that region.
    pictures
        names of the training pictures; keys refer to them by position.
    thumbnails
        JPEG by position in ``pictures``, for those that own keys.
    skipped
        training pictures that could not be read.
    remarks
        what the fit decided on its own, one sentence each.
    history
        what was changed since, oldest first.
    places
        float64 ``[N, 2, 3]``, :attr:`fapm.frames.align.Registration.matrix` of each training
        picture; None where frames are taken as they come.
    baseline
        how the good pictures looked, for :mod:`fapm.inspection.drift`; None after a fit on one.
    """

    config: Config
    preparation: Preparation
    encoder: FrozenEncoder
    banks: tuple[MemoryBank, ...]
    calibration: Calibration
    pictures: tuple[str, ...]
    thumbnails: dict[int, bytes]
    skipped: tuple[Failure, ...]
    remarks: tuple[str, ...] = ()
    history: tuple[Change, ...] = ()
    places: NDArray[np.float64] | None = None
    baseline: Baseline | None = None

    @property
    def layout(self) -> Layout:
        """Size of frames, their crop and their tiles."""
        return self.preparation.layout

    @property
    def roi(self) -> Roi | None:
        """The inspected region; None: everything."""
        return self.preparation.roi

    @property
    def inspected_tiles(self) -> NDArray[np.bool_]:
        """Whether each tile of a frame has cells that are inspected, bool ``[T]``."""
        return self.layout.inspected_tiles(
            [bank.inside for bank in self.banks], [(b.height, b.width) for b in self.banks]
        )

    @property
    def frame_roi(self) -> NDArray[np.bool_] | None:
        """Whether each pixel of a frame is inspected, bool ``[h, w]``; None: everything."""
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
    preparation = replace(fitted.preparation, roi=roi)
    return replace(fitted, banks=tuple(banks), preparation=preparation)
