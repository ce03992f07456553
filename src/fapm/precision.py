"""Which precision an encoder is deployed in: given, or chosen by what normal pictures show."""

from __future__ import annotations

from collections.abc import Callable

from fapm.config import Config
from fapm.encoders import Encoder
from fapm.engines import Runtime, engine_name
from fapm.errors import EngineError
from fapm.fitted import FrozenEncoder
from fapm.freeze import Frames, freeze


def choose_encoder(
    encoder: Encoder, config: Config, runtime: Runtime, frames: Callable[[], Frames]
) -> tuple[FrozenEncoder, str]:
    """The encoder that will run, and a sentence on why it is that one.

    Parameters
    ----------
    frames
        gives normal pictures made ready, RGB uint8 ``[S, S, 3]`` each; called only if needed.

    Raises
    ------
    EngineError
        The engine or the processor lacks the precision asked for.
    """
    wanted = config.precision
    name = engine_name(runtime)
    if wanted == "auto" or wanted == "fp32":  # mypy narrows by ==
        return freeze(encoder, "fp32"), ""
    if name != "openvino":
        raise EngineError(
            f"precision: {wanted} is OpenVINO's; with --engine {name} use --precision fp32"
        )
    _require(wanted)
    return freeze(encoder, wanted, frames() if wanted == "int8" else ()), ""


def _require(precision: str) -> None:
    from fapm.engines import openvino

    if precision == "bf16" and "BF16" not in openvino.capabilities():
        raise EngineError(
            "precision: this processor does not compute in bf16 (it lacks AVX512-BF16 and AMX); "
            "use --precision int8 or fp32"
        )
