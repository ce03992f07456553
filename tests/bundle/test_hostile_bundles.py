"""Bundles whose every checksum is right, and that say what is wrong: refused in one line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fapm
from fapm.bundle.archive import read_archive, write_archive
from fapm.bundle.file import save
from fapm.engines.base import Runtime
from fapm.errors import BundleError, EngineError
from forgery import Forgery
from stripes import COUNT, good


def refuse(forgery: Forgery, path: Path) -> None:
    forgery.write(path)
    with pytest.raises(BundleError) as caught:
        fapm.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < len(str(path)) + 400


def test_the_forger_is_able_to_write_an_honest_bundle(bundle: Path, tmp_path: Path) -> None:
    Forgery(bundle).write(tmp_path / "part.fapm")
    assert (tmp_path / "part.fapm").read_bytes() == bundle.read_bytes()


MEMORY: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "a key too few": ("0.keys", lambda t: t[:-1]),
    "a channel too few": ("0.keys", lambda t: t[:, :-1]),
    "keys in one line": ("0.keys", lambda t: t.flatten()),
    "keys in float64": ("0.keys", lambda t: t.double()),
    "keys in float16": ("0.keys", lambda t: t.half()),
    "keys of integers": ("0.keys", lambda t: t.long()),
    "keys that are no numbers": ("0.keys", lambda t: t * math.nan),
    "one infinite key": ("0.keys", lambda t: t.index_fill(0, torch.tensor([3]), math.inf)),
    "offsets backwards": ("0.offsets", lambda t: t.flip(0)),
    "offsets beyond the keys": ("0.offsets", lambda t: t * 2),
    "an offset too few": ("0.offsets", lambda t: t[:-1]),
    "offsets that start late": ("0.offsets", lambda t: t.index_fill(0, torch.tensor([0]), 1)),
    "an empty patch": ("0.offsets", lambda t: torch.cat([t[:1], t[:1], t[2:]])),
    "offsets of floats": ("0.offsets", lambda t: t.float()),
    "pictures that do not exist": ("0.pictures", lambda t: t + 100),
    "pictures before the first": ("0.pictures", lambda t: t - 100),
    "pictures of floats": ("0.pictures", lambda t: t + 0.5),
    "a picture too few": ("1.pictures", lambda t: t[:-1]),
    "cells outside the map": ("0.cells", lambda t: t + 1000),
    "cells of other patches": ("0.cells", lambda t: t.flip(0)),
    "a radius too few": ("0.radii", lambda t: t[:-1]),
    "a score too few": ("scores", lambda t: t[:-1]),
    "scores in a square": ("scores", lambda t: t.reshape(3, 4)),
    "scores that are no numbers": ("scores", lambda t: t * math.nan),
    "a maximum too few": ("map_maxima", lambda t: t[:-1]),
    "maxima that are no numbers": ("map_maxima", lambda t: t * math.nan),
    "drift of one picture": ("drift.count", lambda t: t * 0 + 1),
    "drift of other pictures": ("drift.count", lambda t: t + 1),
    "drift of half pictures": ("drift.count", lambda t: t + 0.5),
    "drift of many counts": ("drift.count", lambda t: torch.cat([t, t])),
    "drift from a larger frame": ("drift.grey", lambda t: torch.cat([t, t])),
    "drift from a frame brighter than white": ("drift.grey", lambda t: t + 256),
    "drift from a frame of integers": ("drift.grey", lambda t: t.long()),
    "drift in float64": ("drift.means", lambda t: t.double()),
    "drift of a value too few": ("drift.means", lambda t: t[:-1]),
    "drift from no numbers": ("drift.means", lambda t: t * math.nan),
    "drift from negative distances": ("drift.means", lambda t: -t),
    "drift of infinite deviations": ("drift.deviations", lambda t: t + math.inf),
    "drift of negative deviations": ("drift.deviations", lambda t: -t - 1),
}


@pytest.mark.parametrize("forgery", MEMORY)
def test_tensors_that_contradict_the_rest_are_refused(
    forgery: str, bundle: Path, tmp_path: Path
) -> None:
    name, change = MEMORY[forgery]
    forged = Forgery(bundle)
    forged.memory[name] = change(forged.memory[name])
    refuse(forged, tmp_path / "part.fapm")


@pytest.mark.parametrize(
    "name",
    [
        "0.keys",
        "1.offsets",
        "0.pictures",
        "1.cells",
        "0.radii",
        "scores",
        "map_maxima",
        "drift.count",
        "drift.grey",
        "drift.means",
        "drift.deviations",
    ],
)
def test_a_missing_tensor_is_refused(name: str, bundle: Path, tmp_path: Path) -> None:
    forged = Forgery(bundle)
    del forged.memory[name]
    refuse(forged, tmp_path / "part.fapm")


def test_a_fit_on_several_pictures_without_what_drift_is_measured_from_is_refused(
    bundle: Path, tmp_path: Path
) -> None:
    forged = Forgery(bundle)
    forged.memory = {n: t for n, t in forged.memory.items() if not n.startswith("drift.")}
    refuse(forged, tmp_path / "part.fapm")


@pytest.mark.parametrize("part", ["memory.safetensors", "encoder.safetensors", "encoder.onnx"])
@pytest.mark.parametrize("content", [b"", b"xx", b"\xff" * 100, None], ids=str)
def test_a_part_that_is_no_safetensors_is_refused(
    part: str, content: bytes | None, bundle: Path, tmp_path: Path
) -> None:
    manifest, parts = read_archive(bundle)
    path = tmp_path / "part.fapm"
    if content is None:
        del parts[part]
    else:
        parts[part] = content
    write_archive(path, manifest, parts)
    with pytest.raises(BundleError, match="not a usable bundle") as caught:
        fapm.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["thumbnails/abc.jpg", "thumbnails/000099.jpg", "stray.bin"])
def test_parts_nobody_refers_to_are_refused(name: str, bundle: Path, tmp_path: Path) -> None:
    manifest, parts = read_archive(bundle)
    path = tmp_path / "part.fapm"
    write_archive(path, manifest, {**parts, name: b"x"})
    with pytest.raises(BundleError):
        fapm.load(path)


WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "of another shape": lambda t: t[:1].contiguous() if t.ndim else t,
    "of another type": lambda t: t.half(),
    "that are no numbers": lambda t: t * math.nan,
    "that are not those fitted with": lambda t: t + 1,
}


@pytest.mark.parametrize("forgery", WEIGHTS)
def test_weights_that_are_not_the_encoders_are_refused(
    forgery: str, bundle: Path, tmp_path: Path
) -> None:
    """The manifest holds their sha256."""
    forged = Forgery(bundle)
    forged.weights = {name: WEIGHTS[forgery](tensor) for name, tensor in forged.weights.items()}
    refuse(forged, tmp_path / "part.fapm")


CHANGE = {
    "action": "update",
    "pictures": ["a"],
    "keys": [1, 2],
    "threshold": [1.0, None],
    "when": None,
    "warnings": [],
}

MANIFEST: dict[str, tuple[tuple[str | int, ...], Any]] = {
    "no layers": (("layers",), []),
    "layers null": (("layers",), None),
    "a layer null": (("layers", 0), None),
    "a layer of text": (("layers", 1), "blocks.4"),
    "a unit below 0": (("layers", 0, "distance_unit"), -1.0),
    "a unit of 0": (("layers", 0, "distance_unit"), 0),
    "a unit of text": (("layers", 0, "distance_unit"), "x"),
    "a map one cell lower": (("layers", 0, "height"), 7),
    "a map twice as wide": (("layers", 0, "width"), 16),
    "a map of a million rows": (("layers", 0, "height"), 10**6),
    "a map of more rows than can be counted": (("layers", 0, "height"), 10**30),
    "a map of no cells": (("layers", 0, "height"), 0),
    "a map of negative height": (("layers", 0, "height"), -8),
    "a grid of 0": (("layers", 0, "grid"), 0),
    "another grid": (("layers", 0, "grid"), 3),
    "an encoder that is a list": (("encoder",), []),
    "an encoder null": (("encoder",), None),
    "an encoder nobody knows": (("encoder", "name"), "nonet"),
    "an encoder that is not the config's": (("encoder", "name"), "resnet18"),
    "an encoder that is a number": (("encoder", "name"), 18),
    "an encoder with a stray field": (("encoder", "flavour"), "sweet"),
    "one layer of two": (("encoder", "layers"), ["blocks.2"]),
    "frames of negative size": (("encoder", "input_size"), -64),
    "frames of another size": (("encoder", "input_size"), 96),
    "frames of text": (("encoder", "input_size"), "64"),
    "two means": (("encoder", "mean"), [0.5, 0.5]),
    "deviations of 0": (("encoder", "std"), [0.0, 0.0, 0.0]),
    "an interpolation nobody knows": (("encoder", "interpolation"), "lanczos"),
    "another digest": (("encoder", "sha256"), "0" * 64),
    "a config null": (("config",), None),
    "a config of another size": (("config", "resize"), 96),
    "a config with a crop": (("config", "crop"), 32),
    "a config not layer-wise": (("config", "layer_wise"), False),
    "a config with a bad value": (("config", "grid"), 0),
    "a config with a stray field": (("config", "flavour"), 1),
    "no pictures": (("pictures",), []),
    "a picture too few": (("pictures",), ["a"] * (COUNT - 1)),
    "a picture too many": (("pictures",), ["a"] * (COUNT + 1)),
    "pictures null": (("pictures",), None),
    "pictures in one text": (("pictures",), "a" * COUNT),
    "a calibration null": (("calibration",), None),
    "a calibration that is a list": (("calibration",), []),
    "a threshold of text": (("calibration", "threshold"), "high"),
    "a threshold that is a list": (("calibration", "threshold"), [1.0]),
    "an unsure band above the threshold": (("calibration", "unsure_threshold"), 1e9),
    "skipped null": (("skipped",), None),
    "skipped numbers": (("skipped",), [7]),
    "set aside that do not exist": (("calibration", "set_aside"), [COUNT]),
    "set aside twice": (("calibration", "set_aside"), [1, 1]),
    "all set aside": (("calibration", "set_aside"), list(range(COUNT))),
    "set aside null": (("calibration", "set_aside"), None),
    "a history null": (("history",), None),
    "a history of text": (("history",), ["updated"]),
    "a history of nothing": (("history",), [{}]),
    "a history of no known action": (("history",), [{**CHANGE, "action": "repair"}]),
    "a history with three counts": (("history",), [{**CHANGE, "keys": [1, 2, 3]}]),
    "a history with keys of text": (("history",), [{**CHANGE, "keys": ["1", "2"]}]),
    "a history with thresholds of text": (("history",), [{**CHANGE, "threshold": ["1", None]}]),
    "a history with a stray field": (("history",), [{**CHANGE, "mood": "good"}]),
    "a history at a number": (("history",), [{**CHANGE, "when": 7}]),
}


@pytest.mark.parametrize("forgery", MANIFEST)
def test_a_manifest_that_contradicts_the_parts_is_refused(
    forgery: str, bundle: Path, tmp_path: Path
) -> None:
    place, value = MANIFEST[forgery]
    forged = Forgery(bundle)
    inner: Any = forged.manifest
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    refuse(forged, tmp_path / "part.fapm")


INFINITE: dict[str, tuple[tuple[str | int, ...], Any]] = {
    "an infinite unit": (("layers", 0, "distance_unit"), math.inf),
    "an infinite height": (("layers", 0, "height"), math.inf),
    "infinite means": (("encoder", "mean"), [math.inf] * 3),
    "means that are no numbers": (("encoder", "mean"), [math.nan] * 3),
    "infinite deviations": (("encoder", "std"), [math.inf] * 3),
    "an infinite threshold": (("calibration", "threshold"), math.inf),
    "a threshold that is no number": (("calibration", "threshold"), math.nan),
    "a threshold of maps that is no number": (("calibration", "map_threshold"), math.nan),
}


@pytest.mark.parametrize("forgery", INFINITE)
def test_numbers_that_json_does_not_have_are_refused(
    forgery: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python reads them from JSON all the same, as it does 1e999."""
    place, value = INFINITE[forgery]
    forged = Forgery(bundle)
    inner: Any = forged.manifest
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    dumps = json.dumps
    monkeypatch.setattr(json, "dumps", lambda o, **how: dumps(o, **{**how, "allow_nan": True}))
    refuse(forged, tmp_path / "part.fapm")


@pytest.mark.parametrize(
    "place",
    [
        ("config",),
        ("encoder",),
        ("encoder", "name"),
        ("layers",),
        ("layers", 0, "grid"),
        ("calibration",),
        ("calibration", "map_threshold"),
        ("pictures",),
        ("skipped",),
    ],
    ids=str,
)
def test_a_manifest_with_something_missing_is_refused(
    place: tuple[str | int, ...], bundle: Path, tmp_path: Path
) -> None:
    forged = Forgery(bundle)
    inner: Any = forged.manifest
    for step in place[:-1]:
        inner = inner[step]
    del inner[place[-1]]
    refuse(forged, tmp_path / "part.fapm")


@pytest.mark.parametrize("content", [b"", b"xx", b"\xff" * 100], ids=str)
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_graph_that_no_engine_can_read_is_refused_in_one_line(
    content: bytes, engine: str, bundle: Path, tmp_path: Path
) -> None:
    held = fapm.load(bundle)
    files = {**held.fitted_.encoder.files, "encoder.onnx": content}
    forged = replace(held.fitted_, encoder=replace(held.fitted_.encoder, files=files))
    save(forged, tmp_path / "part.fapm")
    runtime = Runtime(engine=engine)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match=r"^engine: this .* cannot load the graph") as caught:
        fapm.load(tmp_path / "part.fapm", runtime=runtime).predict(good(1))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
