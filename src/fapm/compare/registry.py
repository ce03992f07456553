"""Methods that ``fapm compare`` knows, by name. Each is imported only when it is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from fapm.compare.setting import Setting
from fapm.engines.opening import installed
from fapm.errors import ConfigError

if TYPE_CHECKING:
    from fapm.compare.on_encoder import Method

Build: TypeAlias = "Callable[[Setting], Method]"

DEFAULT = ("fapm", "patchcore", "padim", "spade")


@dataclass(frozen=True)
class Published:
    """Figures that a method's paper reports on MVTec AD, as the mean of its 15 categories."""

    paper: str
    image_auroc: float
    pixel_auroc: float | None


def _fapm(setting: Setting) -> Method:
    from fapm.compare.ours import Ours

    return Ours(setting)


def _patchcore(setting: Setting) -> Method:
    from fapm.compare.on_encoder import OnEncoder
    from fapm.compare.patchcore import PatchCore

    config = setting.config
    return OnEncoder(PatchCore(config.ratio, seed=config.seed), setting)


def _padim(setting: Setting) -> Method:
    from fapm.compare.on_encoder import OnEncoder
    from fapm.compare.padim import Padim

    return OnEncoder(Padim(seed=setting.config.seed), setting)


def _spade(setting: Setting) -> Method:
    from fapm.compare.on_encoder import OnEncoder
    from fapm.compare.spade import Spade

    return OnEncoder(Spade(), setting)


def _cflow(setting: Setting) -> Method:
    from fapm.compare.anomalib_methods import Cflow

    return Cflow(setting)


def _anomalib_patchcore(setting: Setting) -> Method:
    from fapm.compare.anomalib_methods import Patchcore

    return Patchcore(setting)


def _anomalib_padim(setting: Setting) -> Method:
    from fapm.compare.anomalib_methods import Padim

    return Padim(setting)


BUILDERS: dict[str, Build] = {
    "fapm": _fapm,
    "patchcore": _patchcore,
    "padim": _padim,
    "spade": _spade,
    "cflow": _cflow,
    "anomalib-patchcore": _anomalib_patchcore,
    "anomalib-padim": _anomalib_padim,
}

# Means as FAPM's Table 1 cites them.
PUBLISHED = {
    "differnet": Published("Rudolph et al., WACV 2021", 0.949, None),
    "patchsvdd": Published("Yi and Yoon, ACCV 2020", 0.921, 0.957),
}

KNOWN = (*BUILDERS, *PUBLISHED)

_ON_ANOMALIB = ("cflow", "anomalib-patchcore", "anomalib-padim")


def parse_methods(text: str) -> tuple[str, ...]:
    """Split names at the commas; each counts once.

    Raises
    ------
    ConfigError
        No method is named, or an unknown one.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in KNOWN]
    if unknown:
        raise ConfigError(f"methods: unknown {unknown[0]!r}; choose among {', '.join(KNOWN)}")
    if not names:
        raise ConfigError(f"methods: none named; choose among {', '.join(KNOWN)}")
    return names


def missing_package(name: str) -> str | None:
    """Name of the package that a method still needs; None if none is missing."""
    if name in _ON_ANOMALIB and not installed("anomalib"):
        return "anomalib is not installed; type: pip install 'fapm[anomalib]'"
    return None
