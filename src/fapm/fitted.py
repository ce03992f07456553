"""What a fit leaves: everything a detector knows, and what a bundle holds. No torch here."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fapm.align import FINE, Motion, Template
from fapm.appearance import Baseline
from fapm.calibration import Calibration
from fapm.config import Config
from fapm.images import Interpolation
from fapm.layout import Layout
from fapm.light import Light
from fapm.memory.bank import MemoryBank
from fapm.plain import Described, Tensors, require, size, texts
from fapm.prediction import Failure

# What an encoder can be compiled to; a config may leave the choice to the fit.
Precision = Literal["fp32", "bf16", "int8"]
_ENCODER_FILES = {
    "fp32": {"encoder.onnx", "encoder.safetensors"},
    "bf16": {"encoder.onnx"},
    "int8": {"encoder.bin", "encoder.xml"},
}
_TEMPLATE = ("template.grey", "template.picture", "template.matrices")  # tensors of a bundle


@dataclass(frozen=True)
class EncoderSpec:
    """What is needed to build an encoder again, besides its weights.

    Attributes
    ----------
    name
        timm's model name (or ``efficientnet_lite0``).
    layers
        timm's names of the taps, from shallow to deep.
    input_size
        height and width of what it sees, in pixels.
    mean, std
        normalisation of the frames after division by 255, per RGB channel.
    interpolation
        how pictures were resized when the encoder was trained, and so are here.
    """

    name: str
    layers: tuple[str, ...]
    input_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation

    @classmethod
    def restored(cls, described: Mapping[str, Any]) -> EncoderSpec:
        """What :func:`dataclasses.asdict` described, in plain JSON.

        Raises
        ------
        BundleError
            It describes no encoder.
        """
        edges = size(described["input_size"])
        mean, std = (tuple(map(float, described[name])) for name in ("mean", "std"))
        require(
            edges is not None
            and len(mean) == len(std) == 3
            and all(map(math.isfinite, mean + std))
            and min(std) > 0
            and described["interpolation"] in get_args(Interpolation),
            "inconsistent encoder",
        )
        layers = texts(described["layers"])
        restored = {"layers": layers, "input_size": edges, "mean": mean, "std": std}
        return cls(**{**described, **restored})


@dataclass(frozen=True)
class FrozenEncoder:
    """An encoder as a graph that engines run: RGB uint8 ``[1, h, w, 3]`` in, feature maps out.

    It sees a frame, or one tile of it.

    Attributes
    ----------
    precision
        what the memory was fitted with. The features of another precision are other features.
    shapes
        per layer ``C, H, W`` of its feature map.
    files
        ``encoder.onnx`` for fp32 and bf16, with ``encoder.safetensors`` beside it for torch in
        fp32; ``encoder.xml`` and ``encoder.bin`` of OpenVINO for int8.
    """

    spec: EncoderSpec
    precision: Precision
    shapes: tuple[tuple[int, int, int], ...]
    files: Mapping[str, bytes]

    def described(self) -> dict[str, Any]:
        """What a manifest says of it; :attr:`files` stand beside."""
        return {
            **asdict(self.spec),
            "precision": self.precision,
            "shapes": [list(shape) for shape in self.shapes],
            "sha256": _digest(self.files),
        }

    @classmethod
    def restored(
        cls,
        described: Mapping[str, Any],
        parts: Mapping[str, bytes],
        config: Config,
        layout: Layout,
    ) -> FrozenEncoder:
        """What :meth:`described` described, with its files out of the parts of a bundle.

        Raises
        ------
        BundleError
            It contradicts itself, its files, or the config and layout of the detector.
        """
        rest = dict(described)
        precision, shapes, sha256 = (rest.pop(name) for name in ("precision", "shapes", "sha256"))
        require(precision in get_args(Precision), f"its precision {precision!r} is unknown")
        files = {name: parts[name] for name in sorted(_ENCODER_FILES[precision])}
        require(sha256 == _digest(files), "its encoder is not the one it was fitted with")
        spec = EncoderSpec.restored(rest)
        require(
            (spec.name, spec.input_size) == (config.encoder, layout.tile_shape)
            and config.precision in ("auto", precision)
            and len(shapes) == len(spec.layers)
            and all(len(s) == 3 and all(isinstance(n, int) and n > 0 for n in s) for s in shapes)
            and all(s[1] <= layout.rows.tile and s[2] <= layout.columns.tile for s in shapes),
            "its encoder contradicts its config",
        )
        return cls(spec, precision, tuple(map(tuple, shapes)), files)


@dataclass(frozen=True)
class Roi:
    """What of a frame is inspected.

    Attributes
    ----------
    inside
        bool ``[h, w]``, in the frame.
    drawn_on
        height and width of the pictures it was drawn on; pictures of another shape cannot have it.
        None: learned from frames.
    """

    inside: NDArray[np.bool_]
    drawn_on: tuple[int, int] | None = None

    def described(self) -> Described:
        """What a bundle holds of it."""
        drawn_on = self.drawn_on and list(self.drawn_on)
        return {"share": float(self.inside.mean()), "drawn_on": drawn_on}, {"roi": self.inside}

    @classmethod
    def restored(
        cls, described: Mapping[str, Any] | None, tensors: Tensors, shape: tuple[int, int]
    ) -> Roi | None:
        """What :meth:`described` described, in a frame of ``h, w``; None of nothing.

        Raises
        ------
        BundleError
            It contradicts itself or the frame.
        """
        if described is None:
            return None
        inside, drawn_on = tensors["roi"], described["drawn_on"]
        require(
            inside.dtype == np.bool_
            and inside.shape == shape
            and described["share"] == float(inside.mean())
            and (
                drawn_on is None
                or (len(drawn_on) == 2 and all(isinstance(n, int) and n > 0 for n in drawn_on))
            ),
            "its region of interest contradicts itself",
        )
        return cls(inside, None if drawn_on is None else (drawn_on[0], drawn_on[1]))


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
        float64 ``[N, 2, 3]``, :attr:`fapm.align.Registration.matrix` of each training picture.
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
        how the good pictures looked, for :mod:`fapm.drift`; None after a fit on one.
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


def _digest(files: Mapping[str, bytes]) -> str:
    """sha256 over the encoder's files, in hexadecimal."""
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(hashlib.sha256(files[name]).digest())
    return whole.hexdigest()
