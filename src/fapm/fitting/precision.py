"""Choose the precision of an encoder: as asked for, or by the features of normal pictures."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from fapm.config import Config
from fapm.encoder.freeze import Frames, freeze
from fapm.encoder.network import Encoder
from fapm.encoder.spec import FrozenEncoder
from fapm.engines.base import Runtime
from fapm.engines.opening import engine_name, open_encoder
from fapm.errors import EngineError

# Largest change of features by rounding, as a share of the spread of the normal pictures' features.
# Measured on four real sets over several orders of the pictures: up to 0.13 costs no accuracy, 0.2
# to 0.3 costs a point of image AUROC where defects are faint (docs/decisions.md).
TOLERANCE = 0.15
# The first convolutions see few channels, each with a range of its own, and all later layers
# inherit their rounding. These numbers of first convolutions are kept in float, tried in turn.
_IN_FLOAT = (0, 8, 16)


def choose_encoder(
    encoder: Encoder, config: Config, runtime: Runtime, frames: Callable[[], Frames]
) -> tuple[FrozenEncoder, str]:
    """Choose the encoder that will run; also return a reason if it is not the fastest, else "".

    ``auto`` is the first of int8, bf16 and fp32 whose features of normal pictures stay within
    :data:`TOLERANCE` of those in fp32. An int8 encoder is calibrated on every other picture and
    judged on those between.

    Parameters
    ----------
    frames
        returns normal frames, or tiles of them, RGB uint8 ``[h, w, 3]`` each; called only if
        needed.

    Raises
    ------
    EngineError
        The engine or the processor lacks the precision asked for.
    """
    wanted, name = config.precision, engine_name(runtime)
    if name != "openvino" and wanted in ("bf16", "int8"):
        raise EngineError(
            f"precision: {wanted} is OpenVINO's; with --engine {name} use --precision fp32"
        )
    if wanted == "bf16":
        if not _computes_bf16():
            raise EngineError(
                "precision: this processor does not compute in bf16 (it lacks AVX512-BF16 and "
                "AMX); use --precision int8 or fp32"
            )
        return freeze(encoder, "bf16"), ""
    exact = freeze(encoder, "fp32")
    if wanted == "fp32" or name != "openvino":
        return exact, ""
    if wanted == "auto" and find_spec("nncf") is None:
        return exact, "precision fp32: int8 needs NNCF; type: pip install 'fapm[fit]'"
    pictures = frames()
    if not pictures:
        return exact, ""  # the fit itself reports that no picture could be read
    sample, held_out = pictures[::2], pictures[1::2] or pictures
    expected = open_encoder(exact, runtime).features(held_out)

    def noise(candidate: FrozenEncoder) -> float:
        return feature_noise(expected, open_encoder(candidate, runtime).features(held_out))

    tried = []
    for count in _IN_FLOAT:
        quantised = freeze(encoder, "int8", sample, in_float=count)
        tried.append((noise(quantised), quantised))
        if tried[-1][0] <= TOLERANCE:
            return quantised, ""
    least, quantised = min(tried, key=lambda pair: pair[0])
    reason = (
        f"int8 moves the features of these pictures by {100 * least:.0f} % of their spread, "
        f"{100 * TOLERANCE:.0f} % are harmless"
    )
    if wanted == "int8":
        return quantised, f"precision int8: {reason}; faint defects may be missed"
    if _computes_bf16():
        short = freeze(encoder, "bf16")
        if noise(short) <= TOLERANCE:
            return short, f"precision bf16, not int8: {reason}"
    return exact, f"precision fp32: {reason}"


def feature_noise(exact: list[NDArray[np.float32]], rounded: list[NDArray[np.float32]]) -> float:
    """Change of features by rounding, as a share of their spread, in the worst layer.

    Both the change and the spread are root mean squares of Euclidean distances: those of rounded
    to exact features, and those of exact features to their mean.

    Parameters
    ----------
    exact, rounded
        per layer float32 ``[N, C, H, W]`` of the same pictures.
    """
    shares = []
    for a, b in zip(exact, rounded, strict=True):
        a, b = a.astype(np.float64), b.astype(np.float64)
        moved = ((a - b) ** 2).sum()
        spread = ((a - a.mean(axis=(0, 2, 3), keepdims=True)) ** 2).sum()
        shares.append(float(np.sqrt(moved / spread)) if moved else 0.0)
    return max(shares)


def _computes_bf16() -> bool:
    from fapm.engines import openvino_engine as openvino

    return "BF16" in openvino.capabilities()
