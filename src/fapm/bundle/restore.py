"""The contents of a bundle: writing and, beside it, reading them.

Every part of a detector describes itself as plain JSON and tensors, and is restored from them by
the function that stands beside. Here the parts are put together, and after reading they are held
against each other before any is believed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from fapm._version import __version__
from fapm.bundle.baseline import Baseline
from fapm.bundle.calibration import Calibration
from fapm.bundle.fitted import Change, Fitted
from fapm.bundle.memory import describe_bank, restore_banks
from fapm.config import Config
from fapm.encoder.spec import FrozenEncoder
from fapm.frames.align import Align
from fapm.frames.layout import Layout, layout_of
from fapm.frames.preparation import STAGES, Failure, Preparation
from fapm.frames.roi import Roi, inspected_cells
from fapm.frames.stage import Stage
from fapm.plain import Described, Tensors, require, size, texts

_MEMORY = "memory.safetensors"
_LIBRARIES = (
    "numpy", "openvino", "onnx", "pillow", "opencv-python-headless", "safetensors", "torch", "timm",
    "nncf",
)  # fmt: skip


def describe_fitted(fitted: Fitted) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest, plain JSON, and the parts beside it by name."""
    described, tensors = _described(fitted)
    manifest = {
        **described,
        "config": fitted.config.model_dump(mode="json"),
        "seed": fitted.config.seed,
        "picture_size": fitted.layout.picture and list(fitted.layout.picture),
        "encoder": fitted.encoder.described(),
        "pictures": list(fitted.pictures),
        "skipped": [asdict(failure) for failure in fitted.skipped],
        "remarks": list(fitted.remarks),
        "history": [change.described() for change in fitted.history],
        "versions": {"fapm": __version__, **_versions()},
    }
    thumbnails = {_thumbnail(i): jpeg for i, jpeg in sorted(fitted.thumbnails.items())}
    memory = safetensors.numpy.save(dict(tensors))
    return manifest, {**fitted.encoder.files, _MEMORY: memory, **thumbnails}


def restore(manifest: Mapping[str, Any], parts: Mapping[str, bytes]) -> Fitted:
    """Restore what :func:`describe_fitted` described.

    Raises
    ------
    BundleError
        The parts contradict themselves or each other. What is not of the kind that is expected
        raises whatever it raises.
    """
    config = Config.restored(manifest["config"])
    pictures = texts(manifest["pictures"])
    require(bool(pictures), "it has no pictures")
    layout = layout_of(config, size(manifest["picture_size"]))
    encoder = FrozenEncoder.restored(manifest["encoder"], parts, config, layout)
    tensors = safetensors.numpy.load(parts[_MEMORY])
    roi = Roi.restored(manifest["roi"], tensors, layout.shape)
    inside = inspected_cells(roi, encoder.shapes, config, layout)
    stages = _stages(manifest["stages"], tensors, config, layout)
    history = tuple(map(Change.restored, manifest["history"]))
    fitted = Fitted(
        config=config,
        preparation=Preparation(layout, encoder.spec.interpolation, stages, roi),
        encoder=encoder,
        banks=restore_banks(
            manifest["layers"], tensors, config, layout, encoder, inside, len(pictures)
        ),
        calibration=Calibration.restored(manifest["calibration"], tensors, len(pictures)),
        pictures=pictures,
        thumbnails={
            i: parts[_thumbnail(i)] for i in range(len(pictures)) if _thumbnail(i) in parts
        },
        skipped=tuple(_failure(failure) for failure in manifest["skipped"]),
        remarks=texts(manifest["remarks"]),
        history=history,
        places=_places(tensors, stages, config, len(pictures)),
        baseline=Baseline.restored(tensors, _fitted_on(len(pictures), history)),
    )
    thumbnails = map(_thumbnail, fitted.thumbnails)
    require(
        parts.keys() == {*encoder.files, _MEMORY, *thumbnails}
        and tensors.keys() == _described(fitted)[1].keys(),
        "unexpected or missing parts",
    )
    return fitted


def _described(fitted: Fitted) -> Described:
    """The parts that have tensors: what the manifest says of them, and the tensors of all."""
    several = [
        describe_bank(bank, number, len(fitted.pictures))
        for number, bank in enumerate(fitted.banks)
    ]
    single: dict[str, Described | None] = {
        "calibration": fitted.calibration.described(),
        "roi": fitted.roi.described() if fitted.roi else None,
    }
    manifest = {name: part[0] if part else None for name, part in single.items()}
    tensors = dict(fitted.baseline.tensors()) if fitted.baseline else {}
    for part in filter(None, (*several, *single.values())):
        tensors |= part[1]
    stages = {}
    for stage in fitted.preparation.stages:
        stages[stage.name], own = stage.described()
        tensors |= {f"{stage.name}.{name}": np.ascontiguousarray(t) for name, t in own.items()}
    if fitted.places is not None:
        tensors["places"] = np.ascontiguousarray(fitted.places)
    return {**manifest, "stages": stages, "layers": [bank for bank, _ in several]}, tensors


def _stages(
    described: Mapping[str, Any], tensors: Tensors, config: Config, layout: Layout
) -> tuple[Stage, ...]:
    """The stages of a frame, each in agreement with the config."""
    require(described.keys() <= {kind.name for kind in STAGES}, "it has an unknown stage")
    stages = []
    for kind in STAGES:
        if kind.name not in described:
            require(kind.absent(config), f"it lacks the {kind.name} that its config asks for")
            continue
        prefix = f"{kind.name}."
        own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        stage = kind.restored(described[kind.name], own, layout)
        require(stage.agrees(config), f"its {kind.name} contradicts its config")
        stages.append(stage)
    return tuple(stages)


def _places(
    tensors: Tensors, stages: Sequence[Stage], config: Config, pictures: int
) -> NDArray[np.float64] | None:
    """The places of parts in the training pictures; None where none was moved."""
    if not any(stage.name == Align.name for stage in stages):
        return None
    places = tensors["places"]
    require(
        places.dtype == np.float64
        and places.shape == (pictures, 2, 3)
        and bool((np.abs(places) <= 10 * config.input_size).all()),
        "the places of its pictures contradict it",
    )
    return places


def _fitted_on(pictures: int, history: tuple[Change, ...]) -> int:
    """The number of pictures of the fit, from all that came and went since."""
    return pictures - sum(
        len(change.pictures) if change.action == "update" else -len(change.pictures)
        for change in history
    )


def _failure(described: Any) -> Failure:
    return Failure(*texts([described["source"], described["error"]]))


def _thumbnail(picture: int) -> str:
    """The name of the part that shows a picture."""
    return f"thumbnails/{picture:06d}.jpg"


def _versions() -> dict[str, str]:
    """Versions of the libraries that are here; some are needed for fit alone."""
    found = {}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
