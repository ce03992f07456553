"""Bundles: everything a detector knows, in one file, without pickle."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, get_args

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from fapm import archive
from fapm._version import __version__
from fapm.align import FINE, Motion, Template
from fapm.calibration import Calibration
from fapm.config import Config
from fapm.errors import BundleError, FapmError
from fapm.fitted import Alignment, EncoderSpec, Fitted, FrozenEncoder, Precision
from fapm.images import Interpolation
from fapm.memory.bank import MemoryBank
from fapm.memory.geometry import patch_grid, patch_of_cell
from fapm.prediction import Failure

_BANK = ("keys", "offsets", "pictures", "cells", "radii")
_TEMPLATE = ("template.grey", "template.picture", "template.matrices")
_MEMORY = "memory.safetensors"
_ENCODER_FILES = {
    "fp32": {"encoder.onnx", "encoder.safetensors"},
    "bf16": {"encoder.onnx"},
    "int8": {"encoder.bin", "encoder.xml"},
}
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
    memory: dict[str, NDArray[Any]] = {"scores": fitted.calibration.scores}
    for number, bank in enumerate(fitted.banks):
        for name in _BANK:
            memory[f"{number}.{name}"] = np.ascontiguousarray(getattr(bank, name))
    if found := fitted.alignment:
        tensors = (found.template.grey, found.template.picture, found.matrices)
        memory.update(zip(_TEMPLATE, map(np.ascontiguousarray, tensors), strict=True))
    parts = {
        **fitted.encoder.files,
        _MEMORY: safetensors.numpy.save(memory),
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


def _manifest(fitted: Fitted) -> dict[str, Any]:
    calibration = fitted.calibration
    return {
        "config": fitted.config.model_dump(mode="json"),
        "seed": fitted.config.seed,
        "encoder": {
            **asdict(fitted.encoder.spec),
            "precision": fitted.encoder.precision,
            "shapes": [list(shape) for shape in fitted.encoder.shapes],
            "sha256": _digest(fitted.encoder.files),
        },
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
        },
        "pictures": list(fitted.pictures),
        "skipped": [asdict(failure) for failure in fitted.skipped],
        "remarks": list(fitted.remarks),
        "versions": {"fapm": __version__, **_versions()},
    }


def _restore(manifest: Mapping[str, Any], parts: Mapping[str, bytes]) -> Fitted:
    config = Config(**manifest["config"])
    pictures = _texts(manifest["pictures"])
    thumbnails = {f"thumbnails/{i:06d}.jpg": i for i in range(len(pictures))}
    _require(bool(pictures), "it has no pictures")
    described = dict(manifest["encoder"])
    precision, shapes = described.pop("precision"), described.pop("shapes")
    _require(precision in get_args(Precision), f"its precision {precision!r} is unknown")
    names = _ENCODER_FILES[precision]
    _require(
        parts.keys() - thumbnails.keys() == {*names, _MEMORY},
        "it has parts that nobody refers to, or lacks some",
    )
    files = {name: parts[name] for name in sorted(names)}
    _require(
        described.pop("sha256") == _digest(files), "its encoder is not the one it was fitted with"
    )
    spec = EncoderSpec(
        **{
            **described,
            "layers": _texts(described["layers"]),
            "mean": tuple(map(float, described["mean"])),
            "std": tuple(map(float, described["std"])),
        }
    )
    _require(
        (spec.name, spec.input_size) == (config.encoder, config.input_size)
        and config.precision in ("auto", precision)
        and len(spec.mean) == len(spec.std) == 3
        and all(map(math.isfinite, spec.mean + spec.std))
        and min(spec.std) > 0
        and spec.interpolation in get_args(Interpolation)
        and len(shapes) == len(spec.layers)
        and all(len(s) == 3 and all(isinstance(n, int) and n > 0 for n in s) for s in shapes),
        "its encoder contradicts its config",
    )
    encoder = FrozenEncoder(spec, precision, tuple(map(tuple, shapes)), files)

    memory = safetensors.numpy.load(parts[_MEMORY])
    layers = manifest["layers"]
    banks = tuple(
        _bank(n, layer, memory, config.grid, config.input_size) for n, layer in enumerate(layers)
    )
    aligned, expected = manifest.get("alignment"), {"scores"}
    expected |= {f"{n}.{t}" for n in range(len(layers)) for t in _BANK}
    _require(
        memory.keys() == (expected if aligned is None else {*expected, *_TEMPLATE}),
        "its memory has tensors that nobody refers to",
    )
    for bank in banks:
        _require(int(bank.pictures.max()) < len(pictures), "its memory has keys of no picture")
    _require(
        _memorised(encoder, config) == [(b.keys.shape[1], b.height, b.width) for b in banks],
        "its memory does not fit its encoder",
    )
    return Fitted(
        config=config,
        encoder=encoder,
        banks=banks,
        calibration=_calibration(manifest["calibration"], memory["scores"], len(pictures)),
        pictures=pictures,
        thumbnails={thumbnails[name]: parts[name] for name in thumbnails if name in parts},
        skipped=tuple(_failure(failure) for failure in manifest["skipped"]),
        remarks=_texts(manifest["remarks"]),
        alignment=_alignment(aligned, memory, config, len(pictures)),
    )


def _memorised(encoder: FrozenEncoder, config: Config) -> list[tuple[int, int, int]]:
    """Per memory bank ``C, H, W`` of the features it should hold."""
    if config.layer_wise:
        return list(encoder.shapes)
    height, width = max((s[1:] for s in encoder.shapes), key=lambda size: size[0] * size[1])
    return [(sum(s[0] for s in encoder.shapes), height, width)]


def _bank(
    number: int, layer: Mapping[str, Any], memory: Mapping[str, NDArray[Any]], grid: int, size: int
) -> MemoryBank:
    keys, offsets, pictures, cells, radii = (memory[f"{number}.{tensor}"] for tensor in _BANK)
    height, width, count = int(layer["height"]), int(layer["width"]), int(layer["keys"])
    # Before anything of that size is made: no encoder has more cells than pixels.
    _require(
        0 < height <= size and 0 < width <= size,
        f"the memory of layer {number} has a map larger than the frame",
    )
    rows, columns = patch_grid(height, width, grid)
    patches = rows * columns
    _require(
        keys.dtype == radii.dtype == np.float32
        and offsets.dtype == pictures.dtype == cells.dtype == np.int64
        and keys.shape == (count, layer["channels"])
        and pictures.shape == cells.shape == (count,)
        and offsets.shape == (patches + 1,)
        and radii.shape == (patches,)
        and layer["grid"] == grid
        and 0 < layer["distance_unit"] < math.inf
        and bool(np.isfinite(keys).all()),
        f"the memory of layer {number} contradicts itself",
    )
    _require(
        int(offsets[0]) == 0
        and int(offsets[-1]) == count
        and bool((np.diff(offsets) > 0).all())
        and int(pictures.min()) >= 0
        and 0 <= int(cells.min()) <= int(cells.max()) < height * width,
        f"the memory of layer {number} contradicts itself",
    )
    owners = np.repeat(np.arange(patches), np.diff(offsets))
    _require(
        np.array_equal(patch_of_cell(height, width, grid).ravel()[cells], owners),
        f"the memory of layer {number} has keys in patches that are not theirs",
    )
    unit = float(layer["distance_unit"])
    return MemoryBank(keys, offsets, pictures, cells, radii, unit, height, width, grid)


def _calibration(levels: Mapping[str, Any], scores: NDArray[Any], pictures: int) -> Calibration:
    threshold, unsure, cells = (
        math.nan if levels[name] is None else levels[name]
        for name in ("threshold", "unsure_threshold", "map_threshold")
    )
    _require(
        scores.dtype == np.float64
        and scores.shape == ((pictures,) if pictures > 1 else (0,))
        and bool(np.isfinite(scores).all())
        and all(isinstance(level, float) for level in (threshold, unsure, cells))
        and (
            (unsure <= threshold and all(map(math.isfinite, (threshold, unsure, cells))))
            or (pictures == 1 and all(map(math.isnan, (threshold, unsure, cells))))
        ),
        "its thresholds contradict its scores",
    )
    return Calibration(scores, threshold, unsure, cells, bool(levels["extrapolated"]))


def _alignment(
    described: Mapping[str, Any] | None,
    memory: Mapping[str, NDArray[Any]],
    config: Config,
    pictures: int,
) -> Alignment | None:
    if described is None:
        _require(config.align in ("none", "auto"), "it lacks the template its config speaks of")
        return None
    motion, usual, floor = (described[name] for name in ("motion", "usual", "floor"))
    _require(
        motion in get_args(Motion)
        and config.align in ("auto", motion)
        and all(isinstance(level, float) and -1 <= level <= 1.001 for level in (usual, floor)),
        "its alignment contradicts its config",
    )
    grey, picture, matrices = (memory[name] for name in _TEMPLATE)
    size = config.input_size
    _require(
        grey.dtype == np.float32
        and picture.dtype == np.uint8
        and matrices.dtype == np.float64
        and grey.shape == (FINE, FINE)
        and picture.shape == (size, size, 3)
        and matrices.shape == (pictures, 2, 3)
        and bool(np.isfinite(grey).all())
        and float(np.abs(grey).max()) <= 256
        and bool((np.abs(matrices) <= 10 * size).all()),
        "its template contradicts itself",
    )
    return Alignment(Template(motion, grey, picture, usual, floor), matrices)


def _failure(described: Any) -> Failure:
    source, error = _texts([described["source"], described["error"]])
    return Failure(source, error)


def _digest(files: Mapping[str, bytes]) -> str:
    """sha256 over the encoder's files, in hexadecimal."""
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(hashlib.sha256(files[name]).digest())
    return whole.hexdigest()


def _versions() -> dict[str, str]:
    """Versions of the libraries that are here; some are needed for fit alone."""
    found = {}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _texts(values: Any) -> tuple[str, ...]:
    _require(isinstance(values, list) and all(isinstance(v, str) for v in values), "no names")
    return tuple(values)


def _require(sound: bool, otherwise: str) -> None:
    if not sound:
        raise BundleError(otherwise)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has no NaN
