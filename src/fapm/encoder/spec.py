"""The specification of an encoder. No torch here."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from fapm.config import Config
from fapm.frames.layout import Layout
from fapm.pictures.resize import Interpolation
from fapm.plain import require, size, texts

OPSET = 17

# What an encoder can be compiled to; a config may leave the choice to the fit.
Precision = Literal["fp32", "bf16", "int8"]
_ENCODER_FILES = {
    "fp32": {"encoder.onnx", "encoder.safetensors"},
    "bf16": {"encoder.onnx"},
    "int8": {"encoder.bin", "encoder.xml"},
}


@dataclass(frozen=True)
class EncoderSpec:
    """Everything that is needed to build an encoder again, besides its weights.

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
        """Restore what :func:`dataclasses.asdict` described, in plain JSON.

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
        """Describe it for a manifest; :attr:`files` stand beside."""
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
        """Restore what :meth:`described` described, with its files out of the parts of a bundle.

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


def _digest(files: Mapping[str, bytes]) -> str:
    """sha256 over the encoder's files, in hexadecimal."""
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(hashlib.sha256(files[name]).digest())
    return whole.hexdigest()
