"""Bundles: everything a detector knows, in one file, without pickle."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from fapm import archive
from fapm._version import __version__
from fapm.errors import BundleError, FapmError
from fapm.fitted import Fitted
from fapm.restoring import BANK, BASELINE, MEMORY, TEMPLATE, digest, restore

_LIBRARIES = (
    "numpy", "openvino", "onnx", "pillow", "opencv-python-headless", "safetensors", "torch", "timm",
    "nncf",
)  # fmt: skip


def save(fitted: Fitted, path: Path) -> None:
    """Write ``fitted`` to ``path``. The same fit gives the same bytes.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    archive.write_archive(path, _manifest(fitted), _parts(fitted))


def size(fitted: Fitted) -> int:
    """Bytes of the file that :func:`save` would write."""
    return archive.archive_bytes(_manifest(fitted), _parts(fitted))


def load(path: Path) -> Fitted:
    """Read what :func:`save` wrote.

    Raises
    ------
    BundleError
        Missing, damaged or hostile file, or one of a newer format.
    """
    manifest, parts = archive.read_archive(path)
    try:
        return restore(manifest, parts)
    except (
        AttributeError, KeyError, OverflowError, TypeError, ValueError, RuntimeError, FapmError,
        safetensors.SafetensorError,
    ) as error:  # fmt: skip
        # Every byte has passed its checksum: whoever wrote this file wrote it wrong.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BundleError(f"{path}: not a usable bundle ({reason}); fit it again") from error


def describe(path: Path) -> dict[str, Any]:
    """The manifest of a bundle, after all its checks."""
    return archive.read_archive(path)[0]


def _parts(fitted: Fitted) -> dict[str, bytes]:
    memory: dict[str, NDArray[Any]] = {
        "scores": fitted.calibration.scores,
        "map_maxima": fitted.calibration.map_maxima,
    }
    for number, bank in enumerate(fitted.banks):
        for name in BANK:
            memory[f"{number}.{name}"] = np.ascontiguousarray(getattr(bank, name))
    if fitted.roi is not None:
        memory["roi"] = fitted.roi.inside
    if found := fitted.alignment:
        tensors = (found.template.grey, found.template.picture, found.matrices)
        memory.update(zip(TEMPLATE, map(np.ascontiguousarray, tensors), strict=True))
    if (seen := fitted.baseline) is not None:
        looked = (np.array([seen.count]), seen.grey, seen.means, seen.deviations)
        memory.update(zip(BASELINE, looked, strict=True))
    return {
        **fitted.encoder.files,
        MEMORY: safetensors.numpy.save(memory),
        **{f"thumbnails/{i:06d}.jpg": jpeg for i, jpeg in sorted(fitted.thumbnails.items())},
    }


def _manifest(fitted: Fitted) -> dict[str, Any]:
    calibration = fitted.calibration
    return {
        "config": fitted.config.model_dump(mode="json"),
        "seed": fitted.config.seed,
        "picture_size": fitted.layout.picture and list(fitted.layout.picture),
        "encoder": {
            **asdict(fitted.encoder.spec),
            "precision": fitted.encoder.precision,
            "shapes": [list(shape) for shape in fitted.encoder.shapes],
            "sha256": digest(fitted.encoder.files),
        },
        "layers": [
            {
                "height": bank.height,
                "width": bank.width,
                "channels": bank.keys.shape[1],
                "grid": bank.grid,
                "distance_unit": bank.unit,
                "keys": len(bank.keys),
                "vectors": bank.inspected * len(fitted.pictures),
            }
            for bank in fitted.banks
        ],
        "light": fitted.light and asdict(fitted.light),
        "alignment": fitted.alignment
        and {
            "motion": fitted.alignment.template.motion,
            "usual": fitted.alignment.template.usual,
            "floor": fitted.alignment.template.floor,
        },
        "calibration": {
            "threshold": _number(calibration.threshold),
            "unsure_threshold": _number(calibration.unsure_threshold),
            "map_threshold": _number(calibration.map_threshold),
            "extrapolated": calibration.extrapolated,
            "set_aside": list(calibration.set_aside),
        },
        "roi": fitted.roi
        and {
            "share": float(fitted.roi.inside.mean()),
            "drawn_on": fitted.roi.drawn_on and list(fitted.roi.drawn_on),
        },
        "pictures": list(fitted.pictures),
        "skipped": [asdict(failure) for failure in fitted.skipped],
        "remarks": list(fitted.remarks),
        "history": [asdict(change) for change in fitted.history],
        "versions": {"fapm": __version__, **_versions()},
    }


def _versions() -> dict[str, str]:
    """Versions of the libraries that are here; some are needed for fit alone."""
    found = {}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has no NaN
