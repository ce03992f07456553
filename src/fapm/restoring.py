"""What a bundle holds, restored: every part is held against the others before it is believed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, get_args

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from fapm.align import FINE, Motion, Template
from fapm.appearance import PATCHES, SMALL, VALUES, Baseline
from fapm.calibration import Calibration
from fapm.config import Config
from fapm.errors import BundleError
from fapm.fitted import Alignment, Change, EncoderSpec, Fitted, FrozenEncoder, Precision, Roi
from fapm.images import Interpolation
from fapm.layout import Layout, layout_of
from fapm.light import Light
from fapm.memory.bank import MemoryBank
from fapm.memory.geometry import cells_by_patch, patch_grid, patch_of_cell
from fapm.prediction import Failure
from fapm.roi import inspected_cells

# Names of what bundles hold.
BANK = ("keys", "offsets", "pictures", "cells", "radii")
TEMPLATE = ("template.grey", "template.picture", "template.matrices")
BASELINE = ("drift.count", "drift.grey", "drift.means", "drift.deviations")
MEMORY = "memory.safetensors"
_ENCODER_FILES = {
    "fp32": {"encoder.onnx", "encoder.safetensors"},
    "bf16": {"encoder.onnx"},
    "int8": {"encoder.bin", "encoder.xml"},
}


def restore(manifest: Mapping[str, Any], parts: Mapping[str, bytes]) -> Fitted:
    """What a manifest and the parts beside it describe.

    Raises
    ------
    BundleError
        They contradict themselves or each other. What is not of the kind that is expected raises
        whatever it raises.
    """
    config = Config.described(manifest["config"])
    pictures = _texts(manifest["pictures"])
    thumbnails = {f"thumbnails/{i:06d}.jpg": i for i in range(len(pictures))}
    _require(bool(pictures), "it has no pictures")
    described = dict(manifest["encoder"])
    precision, shapes = described.pop("precision"), described.pop("shapes")
    _require(precision in get_args(Precision), f"its precision {precision!r} is unknown")
    names = _ENCODER_FILES[precision]
    _require(
        parts.keys() - thumbnails.keys() == {*names, MEMORY},
        "it has parts that nobody refers to, or lacks some",
    )
    files = {name: parts[name] for name in sorted(names)}
    _require(
        described.pop("sha256") == digest(files), "its encoder is not the one it was fitted with"
    )
    layout = layout_of(config, _size(manifest["picture_size"]))
    spec = EncoderSpec(
        **{
            **described,
            "input_size": _size(described["input_size"]),
            "layers": _texts(described["layers"]),
            "mean": tuple(map(float, described["mean"])),
            "std": tuple(map(float, described["std"])),
        }
    )
    _require(
        (spec.name, spec.input_size) == (config.encoder, layout.tile_shape)
        and config.precision in ("auto", precision)
        and len(spec.mean) == len(spec.std) == 3
        and all(map(math.isfinite, spec.mean + spec.std))
        and min(spec.std) > 0
        and spec.interpolation in get_args(Interpolation)
        and len(shapes) == len(spec.layers)
        and all(len(s) == 3 and all(isinstance(n, int) and n > 0 for n in s) for s in shapes)
        and all(s[1] <= layout.rows.tile and s[2] <= layout.columns.tile for s in shapes),
        "its encoder contradicts its config",
    )
    encoder = FrozenEncoder(spec, precision, tuple(map(tuple, shapes)), files)

    memory = safetensors.numpy.load(parts[MEMORY])
    layers = manifest["layers"]
    roi = _roi(manifest["roi"], memory, layout.shape)
    inside = inspected_cells(roi, encoder.shapes, config, layout)
    _require(len(layers) == len(inside), "its memory does not fit its encoder")
    banks = tuple(
        _bank(n, layer, memory, config, layout, cells)
        for n, (layer, cells) in enumerate(zip(layers, inside, strict=True))
    )
    described = manifest["alignment"]
    expected = {"scores", "map_maxima", *(f"{n}.{t}" for n in range(len(layers)) for t in BANK)}
    expected |= {"roi"} if roi else set()
    expected |= set(TEMPLATE) if described is not None else set()
    history = tuple(map(_change, manifest["history"]))
    fitted_on = _fitted_on(len(pictures), history)
    expected |= set(BASELINE) if fitted_on > 1 else set()
    _require(
        memory.keys() == expected,
        "its memory has tensors that nobody refers to, or lacks some",
    )
    for bank in banks:
        _require(int(bank.pictures.max()) < len(pictures), "its memory has keys of no picture")
    _require(
        _memorised(encoder, config, layout)
        == [(b.keys.shape[1], b.height, b.width) for b in banks],
        "its memory does not fit its encoder",
    )
    return Fitted(
        config=config,
        layout=layout,
        encoder=encoder,
        banks=banks,
        calibration=_calibration(manifest["calibration"], memory, len(pictures)),
        pictures=pictures,
        thumbnails={thumbnails[name]: parts[name] for name in thumbnails if name in parts},
        skipped=tuple(_failure(failure) for failure in manifest["skipped"]),
        remarks=_texts(manifest["remarks"]),
        roi=roi,
        history=history,
        light=_light(manifest.get("light"), config),
        alignment=_alignment(described, memory, config, len(pictures)),
        baseline=_baseline(memory, fitted_on),
    )


def _roi(
    described: Mapping[str, Any] | None,
    memory: Mapping[str, NDArray[Any]],
    shape: tuple[int, int],
) -> Roi | None:
    if described is None:
        return None
    inside, drawn_on = memory["roi"], described["drawn_on"]
    _require(
        inside.dtype == np.bool_
        and inside.shape == shape
        and described["share"] == float(inside.mean())
        and (
            drawn_on is None
            or (len(drawn_on) == 2 and all(isinstance(n, int) and n > 0 for n in drawn_on))
        ),
        "its region of interest contradicts itself",
    )
    return Roi(inside, None if drawn_on is None else (drawn_on[0], drawn_on[1]))


def _memorised(
    encoder: FrozenEncoder, config: Config, layout: Layout
) -> list[tuple[int, int, int]]:
    """Per memory bank ``C, H, W`` of the features it should hold."""
    shapes = [(c, *layout.side_by_side((h, w))) for c, h, w in encoder.shapes]
    if config.layer_wise:
        return shapes
    height, width = max((s[1:] for s in shapes), key=lambda size: size[0] * size[1])
    return [(sum(s[0] for s in shapes), height, width)]


def _bank(
    number: int,
    layer: Mapping[str, Any],
    memory: Mapping[str, NDArray[Any]],
    config: Config,
    layout: Layout,
    inside: NDArray[np.bool_] | None,
) -> MemoryBank:
    grid = layout.grid(config.grid)
    rows, columns = layout.side_by_side(layout.tile_shape)
    keys, offsets, pictures, cells, radii = (memory[f"{number}.{tensor}"] for tensor in BANK)
    height, width, count = int(layer["height"]), int(layer["width"]), int(layer["keys"])
    # Before anything of that size is made: no encoder has more cells than pixels.
    _require(
        0 < height <= rows and 0 < width <= columns,
        f"the memory of layer {number} has a map larger than the frame",
    )
    rows, columns = patch_grid(height, width, grid)
    patches = rows * columns
    _require(inside is None or len(inside) == height * width, "its memory does not fit its encoder")
    searched = [len(cells) > 0 for cells in cells_by_patch(height, width, grid, inside)]
    _require(
        keys.dtype == radii.dtype == np.float32
        and offsets.dtype == pictures.dtype == cells.dtype == np.int64
        and keys.shape == (count, layer["channels"])
        and pictures.shape == cells.shape == (count,)
        and offsets.shape == (patches + 1,)
        and radii.shape == (patches,)
        and layer["grid"] == (grid if isinstance(grid, int) else list(grid))
        and 0 < layer["distance_unit"] < math.inf
        and bool(np.isfinite(keys).all()),
        f"the memory of layer {number} contradicts itself",
    )
    _require(
        int(offsets[0]) == 0
        and int(offsets[-1]) == count
        and bool((np.diff(offsets) >= searched).all())
        and int(pictures.min()) >= 0
        and 0 <= int(cells.min()) <= int(cells.max()) < height * width,
        f"the memory of layer {number} contradicts itself",
    )
    owners = np.repeat(np.arange(patches), np.diff(offsets))
    _require(
        config.rotations > 1  # then cells are where the key lies in the picture as it is
        or np.array_equal(patch_of_cell(height, width, grid).ravel()[cells], owners),
        f"the memory of layer {number} has keys in patches that are not theirs",
    )
    unit = float(layer["distance_unit"])
    return MemoryBank(keys, offsets, pictures, cells, radii, unit, height, width, grid, inside)


def _calibration(
    levels: Mapping[str, Any], memory: Mapping[str, NDArray[Any]], pictures: int
) -> Calibration:
    scores, maxima, aside = memory["scores"], memory["map_maxima"], levels["set_aside"]
    threshold, unsure, cells = (
        math.nan if levels[name] is None else levels[name]
        for name in ("threshold", "unsure_threshold", "map_threshold")
    )
    _require(
        scores.dtype == maxima.dtype == np.float64
        and scores.shape == maxima.shape == ((pictures,) if pictures > 1 else (0,))
        and bool(np.isfinite(scores).all() and np.isfinite(maxima).all())
        and isinstance(aside, list)
        and all(isinstance(i, int) and 0 <= i < len(scores) for i in aside)
        and len(set(aside)) == len(aside) < max(1, len(scores))
        and all(isinstance(level, float) for level in (threshold, unsure, cells))
        and (
            (unsure <= threshold and all(map(math.isfinite, (threshold, unsure, cells))))
            or (pictures == 1 and all(map(math.isnan, (threshold, unsure, cells))))
        ),
        "its thresholds contradict its scores",
    )
    return Calibration(
        scores, threshold, unsure, cells, bool(levels["extrapolated"]), maxima, tuple(aside)
    )


def _light(described: Mapping[str, Any] | None, config: Config) -> Light | None:
    """None where frames are taken as they come, as in bundles from before."""
    _require((described is None) == (config.light == "none"), "its light contradicts its config")
    if described is None:
        return None
    light = Light(**described)
    _require(
        all(isinstance(number, float) for number in (light.level, light.white, light.share))
        and 1 <= light.level <= 256
        and 0 <= light.white <= 255
        and 0 < light.share < 1,
        "its light contradicts itself",
    )
    return light


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
    grey, picture, matrices = (memory[name] for name in TEMPLATE)
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


def _fitted_on(pictures: int, history: Iterable[Change]) -> int:
    """How many pictures the fit was on, of what came and went since."""
    return pictures - sum(
        len(change.pictures) if change.action == "update" else -len(change.pictures)
        for change in history
    )


def _baseline(memory: Mapping[str, NDArray[Any]], fitted_on: int) -> Baseline | None:
    """None after a fit on one picture. Updates leave it as it is: drift is from the fit."""
    if fitted_on == 1:
        return None
    count, grey, means, deviations = (memory[name] for name in BASELINE)
    _require(
        count.dtype == np.int64
        and count.shape == (1,)
        and int(count[0]) == fitted_on > 1
        and grey.shape == (SMALL, SMALL)
        and grey.dtype == means.dtype == deviations.dtype == np.float32
        and means.shape == deviations.shape == (VALUES,)
        and bool(np.isfinite(means).all() and np.isfinite(deviations).all())
        and bool((grey >= 0).all() and (grey <= 255).all())
        and bool((deviations >= 0).all() and (means[: 3 * PATCHES] >= 0).all()),
        "what it says of drift contradicts itself",
    )
    return Baseline(int(count[0]), grey, means, deviations)


def _failure(described: Any) -> Failure:
    source, error = _texts([described["source"], described["error"]])
    return Failure(source, error)


def _change(described: Any) -> Change:
    action, when, keys = described["action"], described["when"], described["keys"]
    threshold = described["threshold"]
    _require(
        described.keys() == {field.name for field in fields(Change)}
        and action in ("update", "forget")
        and (when is None or isinstance(when, str))
        and len(keys) == len(threshold) == 2
        and all(isinstance(count, int) for count in keys)
        and all(level is None or isinstance(level, float) for level in threshold),
        "its history makes no sense",
    )
    pictures, warnings = _texts(described["pictures"]), _texts(described["warnings"])
    return Change(action, pictures, tuple(keys), tuple(threshold), when, warnings)


def digest(files: Mapping[str, bytes]) -> str:
    """sha256 over the encoder's files, in hexadecimal."""
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(hashlib.sha256(files[name]).digest())
    return whole.hexdigest()


def _size(value: Any) -> tuple[int, int] | None:
    _require(
        value is None or (len(value) == 2 and all(isinstance(n, int) and n > 1 for n in value)),
        "its pictures have no size",
    )
    return None if value is None else (value[0], value[1])


def _texts(values: Any) -> tuple[str, ...]:
    _require(isinstance(values, list) and all(isinstance(v, str) for v in values), "no names")
    return tuple(values)


def _require(sound: bool, otherwise: str) -> None:
    if not sound:
        raise BundleError(otherwise)
