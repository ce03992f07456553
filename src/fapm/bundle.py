"""Bundles: everything a detector knows, in one file, without pickle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy
import PIL
import safetensors
import safetensors.torch
import timm
import torch
from torch import Tensor

from fapm import archive
from fapm._version import __version__
from fapm.calibration import Calibration
from fapm.config import Config
from fapm.encoders import Encoder, EncoderSpec
from fapm.errors import BundleError, FapmError
from fapm.fitting import Fitted
from fapm.memory.bank import MemoryBank
from fapm.memory.patches import patch_grid
from fapm.prediction import Failure

_LIBRARIES = (torch, timm, numpy, cv2, PIL, safetensors)


def save(fitted: Fitted, path: Path) -> None:
    """Write ``fitted`` to ``path``. The same fit gives the same bytes.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    encoder = fitted.encoder.weights()
    memory: dict[str, Tensor] = {"scores": torch.from_numpy(fitted.calibration.scores)}
    for number, bank in enumerate(fitted.banks):
        for name in ("keys", "offsets", "pictures", "cells", "radii"):
            memory[f"{number}.{name}"] = getattr(bank, name).contiguous()
    parts = {
        "encoder.safetensors": encoder,
        "memory.safetensors": safetensors.torch.save(memory),
        **{f"thumbnails/{i:06d}.jpg": jpeg for i, jpeg in sorted(fitted.thumbnails.items())},
    }
    archive.write_archive(path, _manifest(fitted), parts)


def load(path: Path) -> Fitted:
    """Read what :func:`save` wrote.

    Raises
    ------
    BundleError
        Missing, damaged or hostile file, or one of a newer format.
    """
    manifest, parts = archive.read_archive(path)
    try:
        return _restore(manifest, parts)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, RuntimeError, FapmError) as error:
        # Every byte has passed its checksum: whoever wrote this file wrote it wrong.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BundleError(f"{path}: not a usable bundle ({reason}); fit it again") from error
    except safetensors.SafetensorError as error:
        raise BundleError(f"{path}: not a usable bundle ({error}); fit it again") from error


def describe(path: Path) -> dict[str, Any]:
    """The manifest of a bundle, after all its checks."""
    return archive.read_archive(path)[0]


def _manifest(fitted: Fitted) -> dict[str, Any]:
    calibration = fitted.calibration
    return {
        "config": fitted.config.model_dump(mode="json"),
        "seed": fitted.config.seed,
        "encoder": {**asdict(fitted.encoder.spec), "sha256": fitted.encoder.digest()},
        "layers": [
            {
                "height": bank.height,
                "width": bank.width,
                "channels": bank.keys.shape[1],
                "grid": bank.grid,
                "distance_unit": bank.unit,
                "keys": len(bank.keys),
                "vectors": bank.height * bank.width * len(fitted.pictures),
            }
            for bank in fitted.banks
        ],
        "calibration": {
            "threshold": _number(calibration.threshold),
            "unsure_threshold": _number(calibration.unsure_threshold),
            "map_threshold": _number(calibration.map_threshold),
            "extrapolated": calibration.extrapolated,
        },
        "pictures": list(fitted.pictures),
        "skipped": [asdict(failure) for failure in fitted.skipped],
        "versions": {
            "fapm": __version__,
            **{library.__name__: str(library.__version__) for library in _LIBRARIES},
        },
    }


def _restore(manifest: Mapping[str, Any], parts: Mapping[str, bytes]) -> Fitted:
    spec = {key: value for key, value in manifest["encoder"].items() if key != "sha256"}
    triples = {key: tuple(spec[key]) for key in ("layers", "mean", "std")}
    memory = safetensors.torch.load(parts["memory.safetensors"])
    pictures = tuple(str(name) for name in manifest["pictures"])
    levels = manifest["calibration"]
    return Fitted(
        config=Config(**manifest["config"]),
        encoder=Encoder.restore(EncoderSpec(**{**spec, **triples}), parts["encoder.safetensors"]),
        banks=tuple(
            _bank(number, layer, memory, len(pictures))
            for number, layer in enumerate(manifest["layers"])
        ),
        calibration=Calibration(
            scores=memory["scores"].numpy(),
            threshold=_level(levels["threshold"]),
            unsure_threshold=_level(levels["unsure_threshold"]),
            map_threshold=_level(levels["map_threshold"]),
            extrapolated=bool(levels["extrapolated"]),
        ),
        pictures=pictures,
        thumbnails={
            int(name[len("thumbnails/") : -len(".jpg")]): data
            for name, data in parts.items()
            if name.startswith("thumbnails/")
        },
        skipped=tuple(Failure(**failure) for failure in manifest["skipped"]),
    )


def _bank(
    number: int, layer: Mapping[str, Any], memory: Mapping[str, Tensor], pictures: int
) -> MemoryBank:
    bank = MemoryBank(
        keys=memory[f"{number}.keys"],
        offsets=memory[f"{number}.offsets"],
        pictures=memory[f"{number}.pictures"],
        cells=memory[f"{number}.cells"],
        radii=memory[f"{number}.radii"],
        unit=float(layer["distance_unit"]),
        height=int(layer["height"]),
        width=int(layer["width"]),
        grid=int(layer["grid"]),
    )
    rows, columns = patch_grid(bank.height, bank.width, bank.grid)
    sound = (
        bank.keys.shape == (layer["keys"], layer["channels"])
        and bank.pictures.shape == bank.cells.shape == (layer["keys"],)
        and bank.offsets.shape == (rows * columns + 1,)
        and bank.offsets[0] == 0
        and bank.offsets[-1] == layer["keys"]
        and bool((bank.offsets.diff() > 0).all())
        and 0 <= int(bank.pictures.min()) <= int(bank.pictures.max()) < pictures
        and 0 <= int(bank.cells.min()) <= int(bank.cells.max()) < bank.height * bank.width
        and bank.unit > 0
    )
    if not sound:
        raise BundleError(f"the memory of layer {number} contradicts itself; fit it again")
    return bank


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has no NaN


def _level(value: float | None) -> float:
    return math.nan if value is None else float(value)
